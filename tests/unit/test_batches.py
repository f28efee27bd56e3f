"""Augmentation and batches: what is drawn, what it does to pixels, and that (seed, epoch) fixes all of it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scipy import ndimage

from helpers import training
from helpers.config import make_settings

SIZE = 48
RANGES = ("rotation", "zoom", "shear", "translation", "brightness", "contrast", "gamma", "sharpness", "noise")


def settings(**changed):
    """Augmentation off, but for what is named."""
    return make_settings("smoke", {"image_size": SIZE, "batch_size": 4} | dict.fromkeys(RANGES, 0) | changed)


def draw(count: int = 2000, seed: int = 0, **changed) -> training.Augmentation:
    return training.draw_augmentation(settings(**changed), count, np.random.default_rng(seed))


def smooth(count: int = 1, seed: int = 0) -> np.ndarray:
    """float32 (count, SIZE, SIZE, 1), smooth shades between 20 and 235."""
    noise = np.random.default_rng(seed).random((count, SIZE, SIZE))
    blurred = np.stack([ndimage.gaussian_filter(one, 4) for one in noise])
    blurred = (blurred - blurred.min()) / np.ptp(blurred)
    return (20 + 215 * blurred[..., None]).astype(np.float32)


def changed(pixels: np.ndarray, augmentation: training.Augmentation, **asked) -> np.ndarray:
    return training.augment(pixels, augmentation, settings(**asked)).numpy()


def by_hand(pixels: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """The same mapping by SciPy: the output pixel (x, y) shows the input at (a x + b y + u, c x + d y + v)."""
    a, b, u, c, d, v = transform[:6].astype(np.float64)
    return ndimage.affine_transform(pixels[..., 0], [[d, c], [b, a]], [v, u], order=1, mode="grid-constant", cval=0)


# What is drawn


def test_nothing_is_drawn_where_all_ranges_are_zero():
    augmentation = draw(5)
    identity = np.tile(np.array([1, 0, 0, 0, 1, 0, 0, 0], np.float32), (5, 1))
    assert np.array_equal(augmentation.transforms, identity)
    assert (augmentation.gain == 1).all()
    assert (augmentation.offset == 0).all()
    assert (augmentation.gamma == 1).all()
    assert not augmentation.blur.any()
    assert not augmentation.noise.any()
    assert [part.dtype for part in augmentation] == [np.float32] * 6 + [np.int32, np.float32, bool, np.int32, np.int32]
    assert not augmentation.equalised.any()
    assert (augmentation.side == SIZE).all()
    assert (augmentation.quality == 100).all()


def test_rotation_stays_in_its_range_and_uses_it():
    a, b, _, c, d, *_ = draw(rotation=20).transforms.T
    angle = np.rad2deg(np.arctan2(c, a))
    assert 19.5 < np.abs(angle).max() <= 20.0001
    assert abs(angle.mean()) < 1
    np.testing.assert_allclose(a * d - b * c, 1, atol=1e-5)  # a pure rotation keeps areas
    np.testing.assert_allclose(a, d, atol=1e-6)


def test_zoom_stays_in_its_range_for_each_axis():
    a, b, _, c, d, *_ = draw(zoom=0.3).transforms.T
    for scale in (a, d):
        assert 0.7 <= scale.min() < 0.705
        assert 1.295 < scale.max() <= 1.30001
    assert not b.any()
    assert not c.any()
    assert abs(np.corrcoef(a, d)[0, 1]) < 0.1


def test_shear_stays_in_its_range():
    a, b, _, c, d, *_ = draw(shear=10).transforms.T
    assert 9.8 < np.rad2deg(np.arctan(np.abs(b))).max() <= 10.0001
    assert (a == 1).all()
    assert (d == 1).all()
    assert (c == 0).all()


def test_translation_is_a_share_of_the_size():
    transforms = draw(translation=0.25).transforms
    for shift in (transforms[:, 2], transforms[:, 5]):
        assert 0.24 * SIZE < np.abs(shift).max() <= 0.25 * SIZE + 1e-4
        assert abs(shift.mean()) < 0.5
    assert np.array_equal(transforms[:, [0, 1, 3, 4]], np.tile([1, 0, 0, 1], (2000, 1)))


def test_brightness_and_contrast_stay_in_their_ranges():
    augmentation = draw(brightness=0.2, contrast=0.5)
    assert 50 < np.abs(augmentation.offset).max() <= 51
    assert 0.5 <= augmentation.gain.min() < 0.51
    assert 1.49 < augmentation.gain.max() <= 1.5


def test_gamma_sharpness_and_noise_stay_in_their_ranges():
    augmentation = draw(gamma=0.5, sharpness=0.6, noise=0.1)
    assert 0.49 < np.abs(np.log(augmentation.gamma)).max() <= 0.5001
    assert abs(np.log(augmentation.gamma).mean()) < 0.02
    assert augmentation.blur.min() < -0.59
    assert 0.59 < augmentation.blur.max() <= 0.6001
    assert augmentation.noise.min() >= 0
    assert 25 < augmentation.noise.max() <= 25.5
    assert len(np.unique(augmentation.seed, axis=0)) == 2000


def test_mirroring_swaps_half_of_the_images_and_nothing_else():
    plain, mirrored = (draw(400, 3, rotation=10, translation=0.1, mirror=wish) for wish in (False, True))
    for part in ("gain", "offset", "seed"):
        assert np.array_equal(getattr(plain, part), getattr(mirrored, part))
    determinant = mirrored.transforms[:, 0] * mirrored.transforms[:, 4] - np.prod(
        mirrored.transforms[:, [1, 3]], axis=1
    )
    flipped = determinant < 0
    assert 150 < flipped.sum() < 250
    assert np.array_equal(plain.transforms[~flipped], mirrored.transforms[~flipped])
    pixels = smooth(400)
    before, after = changed(pixels, plain), changed(pixels, mirrored)
    np.testing.assert_allclose(after[flipped], before[flipped][:, :, ::-1], atol=0.05)


def test_crops_have_their_area_and_shape_and_lie_anywhere_inside():
    wide, b, left, c, high, top, *_ = draw(crop_area=0.2).transforms.T.astype(np.float64)
    assert not b.any()
    assert not c.any()
    for part, start in ((wide, left), (high, top)):
        before = (start - (part - 1) / 2) / SIZE  # the edges of the crop, as shares of the size
        assert before.min() > -1e-6
        assert (before + part).max() < 1 + 1e-6
        assert before.max() > 0.4
    assert 0.17 < (wide * high).min() < 0.25  # a long crop of nearly all would be wider than the image
    assert np.exp(np.abs(np.log(wide / high))).max() < 4 / 3 + 1e-6


def test_what_is_not_asked_for_draws_nothing():
    plain, cropped = (draw(5, 1, rotation=9, noise=0.1, crop_area=area) for area in (1, 0.5))
    assert np.array_equal(plain.noise, cropped.noise)
    assert np.array_equal(plain.seed, cropped.seed)


def test_half_of_the_images_are_equalised_compressed_and_scaled_down():
    augmentation = draw(equalisation=0.8, compression=0.5, downscaling=0.5)
    assert 0.79 < augmentation.equalised.max() <= 0.8
    assert 24 <= augmentation.side.min() <= 25
    assert 52 <= augmentation.quality.min() <= 54
    unchanged = (augmentation.equalised == 0, augmentation.side == SIZE, augmentation.quality == 100)
    assert all(0.45 < same.mean() < 0.55 for same in unchanged)
    assert 0.45 < augmentation.tiled.mean() < 0.55


def test_all_together_keep_the_centre_of_the_image():
    a, b, u, c, d, v, *_ = draw(rotation=15, zoom=0.2, shear=8).transforms.T
    centre = (SIZE - 1) / 2
    np.testing.assert_allclose(a * centre + b * centre + u, centre, atol=1e-3)
    np.testing.assert_allclose(c * centre + d * centre + v, centre, atol=1e-3)
    assert (a * d - b * c > 0).all()  # never mirrored


def test_a_draw_depends_on_its_generator_alone():
    one, same, other = (
        draw(5, 1, rotation=9, contrast=0.1),
        draw(5, 1, rotation=9, contrast=0.1),
        draw(5, 2, rotation=9),
    )
    assert all(np.array_equal(x, y) for x, y in zip(one, same, strict=True))
    assert not np.array_equal(one.transforms, other.transforms)


# What it does to pixels


def test_no_change_is_the_identity():
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1)).astype(np.float32)
    np.testing.assert_allclose(changed(pixels, draw(3)), pixels, atol=1e-3)


def test_random_changes_are_the_mapping_that_scipy_computes():
    pixels = smooth(6)
    augmentation = draw(6, 3, rotation=30, zoom=0.3, shear=15, translation=0.1)
    expected = np.stack([by_hand(one, t) for one, t in zip(pixels, augmentation.transforms, strict=True)])
    np.testing.assert_allclose(changed(pixels, augmentation)[..., 0], expected, atol=0.05)


def test_a_known_angle_turns_the_image_as_pillow_does():
    pixels = smooth()
    augmentation = draw(1, 5, rotation=40)
    angle = np.rad2deg(np.arctan2(augmentation.transforms[0, 3], augmentation.transforms[0, 0]))
    assert abs(angle) > 5
    turned = Image.fromarray(pixels[0, ..., 0]).rotate(angle, Image.Resampling.BILINEAR)
    inner = slice(10, -10)
    ours = changed(pixels, augmentation)[0, inner, inner, 0]
    np.testing.assert_allclose(ours, np.asarray(turned)[inner, inner], atol=3)


def test_a_crop_shows_that_part_of_the_image():
    pixels = smooth()
    augmentation = draw(1, 2, crop_area=0.3)
    expected = by_hand(pixels[0], augmentation.transforms[0])
    np.testing.assert_allclose(changed(pixels, augmentation, crop_area=0.3)[0, ..., 0], expected, atol=0.05)


def test_sharpness_mixes_in_two_means_of_neighbours():
    pixels, asked = smooth(2), draw(2, sharpness=0.8)
    pixels[:, 20:30, ::2] += 15  # detail that a mean takes away
    blurred = tf.nn.avg_pool2d(tf.nn.avg_pool2d(pixels, 3, 1, "SAME"), 3, 1, "SAME").numpy()
    wanted = np.clip(pixels + (blurred - pixels) * asked.blur[:, None, None, None], 0, 255)
    assert np.abs(wanted - pixels).max() > 1
    assert np.abs(changed(pixels, asked, sharpness=0.8) - wanted).max() < 1e-3


def test_each_image_of_a_batch_is_changed_as_it_is_alone():
    about = {"equalisation": 1.0, "compression": 0.5, "downscaling": 0.5}
    pixels, asked = smooth(40), draw(40, **about)
    whole = changed(pixels, asked, **about)
    alone = [changed(pixels[i : i + 1], type(asked)(*(part[i : i + 1] for part in asked)), **about) for i in range(40)]
    assert np.array_equal(whole, np.concatenate(alone))
    asked_for = (asked.equalised > 0) | (asked.side < SIZE) | (asked.quality < 100)
    same = np.array([np.array_equal(*pair) for pair in zip(whole, pixels, strict=True)])
    assert 0 < asked_for.sum() < 40
    assert np.array_equal(same, ~asked_for)


def test_equalisation_is_that_of_pillow():
    pixels = smooth(2).round()
    ours = training.equalise(pixels).numpy()[..., 0]
    pillow = np.stack([np.asarray(ImageOps.equalize(Image.fromarray(one[..., 0].astype(np.uint8)))) for one in pixels])
    assert np.abs(ours - pillow).max() < 8  # Pillow counts whole steps of the curve


def test_equalisation_in_tiles_makes_each_of_them_as_bright():
    ramp = np.tile(np.linspace(0, 200, SIZE, dtype=np.float32), (SIZE, 1))[None, ..., None]
    ramp += 50 * (np.indices((SIZE, SIZE)).sum(0) % 2)[None, ..., None]  # a fine pattern on a broad shade
    ours = training.equalise(ramp.round(), tiles=4).numpy()[0, ..., 0]
    left, right = ours[:, SIZE // 8 : SIZE // 4], ours[:, -SIZE // 4 : -SIZE // 8]
    assert abs(left.mean() - right.mean()) < 30 < abs(ramp[..., -SIZE // 4, 0] - ramp[..., SIZE // 4, 0]).mean()


def test_a_limit_of_one_leaves_a_curve_without_steep_parts():
    pixels = np.where(smooth() > 120, 124.0, 120.0).astype(np.float32)  # two levels
    assert np.ptp(training.equalise(pixels).numpy()) > 100
    assert np.ptp(training.equalise(pixels, clip=1.0).numpy()) < 10


def test_compression_and_scaling_down_lose_detail_but_no_brightness():
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 1)).astype(np.float32)
    for change, asked in (({"side": [16]}, {"downscaling": 0.8}), ({"quality": [5]}, {"compression": 1})):
        augmentation = draw(1)._replace(**{name: np.array(value, np.int32) for name, value in change.items()})
        after = changed(pixels, augmentation, **asked)
        assert after.shape == pixels.shape
        assert np.abs(after - pixels).mean() > 10
        assert abs(after.mean() - pixels.mean()) < 10
        same = changed(pixels, draw(1), **asked)
        np.testing.assert_allclose(same, pixels, atol=1e-3)


def test_a_quarter_turn_is_exact():
    pixels = smooth()
    quarter = np.array([[0, -1, SIZE - 1, 1, 0, 0, 0, 0]], np.float32)  # shows at (x, y) what was at (47 - y, x)
    turned = changed(pixels, draw(1)._replace(transforms=quarter))
    np.testing.assert_allclose(turned[0, ..., 0], np.rot90(pixels[0, ..., 0]), atol=1e-3)


def test_what_comes_from_beyond_the_edge_is_black():
    shift = np.array([[1, 0, -10, 0, 1, 0, 0, 0]], np.float32)
    pixels = np.full((1, SIZE, SIZE, 1), 200, np.float32)
    moved = changed(pixels, draw(1)._replace(transforms=shift, offset=np.full(1, 30, np.float32)), brightness=1)
    assert (moved[0, :, :10] == 0).all()  # brightness does not lift it
    np.testing.assert_allclose(moved[0, :, 11:], 230, atol=1e-3)


def test_contrast_spreads_around_the_mean_and_brightness_shifts():
    pixels = smooth()
    augmentation = draw(1)._replace(gain=np.array([0.5], np.float32), offset=np.array([12], np.float32))
    mean = pixels.mean()
    output = changed(pixels, augmentation, contrast=0.5, brightness=0.5)
    np.testing.assert_allclose(output, (pixels - mean) * 0.5 + mean + 12, atol=0.01)


def test_gamma_bends_the_greys_and_keeps_black_and_white():
    pixels = np.tile(np.array([0.0, 63.75, 255.0], np.float32)[None, None, :, None], (1, SIZE, SIZE // 3, 1))
    bent = changed(pixels, draw(1)._replace(gamma=np.array([0.5], np.float32)), gamma=1)
    np.testing.assert_allclose(bent[0, 0, :3, 0], [0, 127.5, 255], atol=1e-3)


def test_blurring_takes_detail_away_and_sharpening_adds_it():
    pixels = smooth() + np.random.default_rng(1).normal(0, 5, (1, SIZE, SIZE, 1)).astype(np.float32)
    inner = slice(6, -6)

    def detail(blur: float) -> float:
        shown = changed(pixels, draw(1)._replace(blur=np.array([blur], np.float32)), sharpness=1)[0, inner, inner, 0]
        return float(np.abs(ndimage.laplace(shown)).mean())

    assert detail(0.8) < 0.5 * detail(0) < 0.5 * detail(-0.8) / 1.3


def test_noise_has_the_deviation_that_was_drawn_and_repeats():
    pixels = np.full((2, SIZE, SIZE, 1), 128, np.float32)
    augmentation = draw(2)._replace(noise=np.array([0, 9], np.float32))
    noisy = changed(pixels, augmentation, noise=0.1)
    assert np.array_equal(noisy, changed(pixels, augmentation, noise=0.1))
    assert np.abs(noisy[0] - 128).max() < 1e-3
    assert 8.5 < noisy[1].std() < 9.5


def test_the_output_stays_within_the_greys():
    pixels = np.random.default_rng(0).choice([0.0, 255.0], (40, SIZE, SIZE, 1)).astype(np.float32)
    output = changed(
        pixels, draw(40, rotation=20, zoom=0.2, brightness=0.5, contrast=0.9), brightness=0.5, contrast=0.9
    )
    assert output.min() >= 0
    assert output.max() <= 255
    assert output.shape == pixels.shape
    assert output.dtype == np.float32


def test_reframed_images_keep_their_middle_with_another_or_black_around_it():
    pixels = np.arange(1, 4, dtype=np.float32)[:, None, None, None] * np.ones((3, 10, 20, 1), np.float32)
    strips = np.array([[0.25, 0.1, 0, 0], [0, 0, 0.1, 0.3], [0, 0, 0, 0]], np.float32)  # left, top, right, bottom
    framed = training.reframe(pixels, strips, np.array([1, 0, 1], np.float32)).numpy()[..., 0]
    first, second = np.full((10, 20), 3.0), np.zeros((10, 20))  # around the first, the last shows; black the second
    first[1:, 5:], second[:7, :18] = 1, 2
    np.testing.assert_array_equal(framed, [first, second, pixels[2, ..., 0]])


def test_swapped_edges_are_the_donors_and_the_middle_stays():
    images, donors = np.full((2, 10, 10, 1), 7, np.uint8), np.full((2, 10, 10, 1), 200, np.uint8)
    swapped = training.swap_edges(images, np.full((2, 4), 0.2, np.float32), donors).numpy()
    assert swapped.dtype == np.uint8
    assert (swapped[:, 2:8, 2:8] == 7).all()
    assert (swapped == 7).sum() == 2 * 36
    np.testing.assert_array_equal(training.swap_edges(images, np.zeros((2, 4), np.float32), donors), images)


# Weights and batches


@pytest.mark.parametrize(("negative", "positive"), [(30, 90), (1, 1), (5, 3)])
def test_weights_let_both_classes_count_the_same(negative, positive):
    labels = np.array([0] * negative + [1] * positive)
    weights = training.sample_weights(labels)
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1)
    assert weights[labels == 1].sum() == pytest.approx(weights[labels == 0].sum())
    assert len(set(weights[labels == 1])) == 1


CACHE = np.random.default_rng(7).integers(0, 256, (12, SIZE, SIZE)).astype(np.uint8)
ROWS = np.array([3, 0, 11, 7, 5, 2, 9, 1, 10])
TARGETS = (ROWS % 2 == 0).astype(int)
WEIGHTS = ROWS.astype(np.float32) / 10


def collect(data) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*data.as_numpy_iterator(), strict=True)]


def epoch(number: int, **changes) -> list[np.ndarray]:
    return collect(training.training_batches(CACHE, ROWS, TARGETS, WEIGHTS, settings(**changes), number))


def test_an_epoch_covers_every_row_once_with_its_target_and_weight():
    pixels, targets, weights = epoch(1)
    assert pixels.shape == (9, SIZE, SIZE, 1)
    assert targets.shape == (9, 1)
    assert sorted(np.rint(weights * 10).astype(int)) == sorted(ROWS)
    rows = np.rint(weights * 10).astype(int)
    np.testing.assert_allclose(pixels[..., 0], CACHE[rows], atol=1e-3)  # nothing drawn: the image of that row
    assert np.array_equal(targets[:, 0], rows % 2 == 0)
    assert rows.tolist() != ROWS.tolist()


def test_batches_have_the_size_that_is_set():
    data = training.training_batches(CACHE, ROWS, TARGETS, WEIGHTS, settings(), 1)
    assert [len(part[0]) for part in data] == [4, 4, 1]


def test_equal_seed_and_epoch_give_equal_batches_and_others_do_not():
    drawn = {"rotation": 10, "contrast": 0.2}
    first = epoch(1, **drawn)
    for one, again in zip(first, epoch(1, **drawn), strict=True):
        assert np.array_equal(one, again)
    for other in (epoch(2, **drawn), epoch(1, seed=2, **drawn)):
        assert not np.array_equal(first[2], other[2])  # another order
        by_row, other_by_row = (dict(zip(np.rint(e[2] * 10), e[0], strict=True)) for e in (first, other))
        assert all(not np.allclose(by_row[row], other_by_row[row], atol=1) for row in by_row)  # and other changes


def test_frames_are_put_around_half_of_the_images_within_their_range():
    cache = np.full((400, SIZE, SIZE), 100, np.uint8)
    drawn = settings(frame=0.25, batch_size=400, cached_views=0)
    data = training.training_batches(cache, np.arange(400), np.zeros(400), np.ones(400), drawn, 1)
    pixels = collect(data)[0][..., 0]
    changed = (pixels != 100).any(axis=(1, 2))
    assert 60 < changed.sum() < 140  # half of the images, and half of those in black; the others show an equal image
    cut = SIZE // 4
    assert (pixels[:, cut : SIZE - cut, cut : SIZE - cut] == 100).all()
    assert set(np.unique(pixels)) == {0, 100}


def test_targets_may_have_several_columns():
    several = np.arange(18).reshape(9, 2)
    _, targets, weights = collect(training.training_batches(CACHE, ROWS, several, WEIGHTS, settings(), 1))
    position = {row: i for i, row in enumerate(ROWS)}
    assert np.array_equal(targets, several[[position[row] for row in np.rint(weights * 10).astype(int)]])


def test_viewed_batches_keep_the_order_of_the_rows():
    data = list(training.viewed_batches(CACHE, ROWS, batch_size=4))
    assert [len(batch) for batch in data] == [4, 4, 1]
    pixels = np.concatenate(data)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels[..., 0], CACHE[ROWS])


def test_a_view_applies_the_change_of_each_row():
    change = draw(len(ROWS), 2, rotation=20, zoom=0.1, brightness=0.1)
    pixels = np.concatenate(list(training.viewed_batches(CACHE, ROWS, change, settings(brightness=0.1), 4)))
    whole = changed(CACHE[ROWS][..., None].astype(np.float32), change, brightness=0.1)
    np.testing.assert_allclose(pixels, whole, atol=1e-3)


def test_a_cache_on_disk_gives_the_same(tmp_path):
    np.save(tmp_path / "images.npy", CACHE)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    pixels = np.concatenate(list(training.viewed_batches(mapped, ROWS)))
    assert np.array_equal(pixels[..., 0], CACHE[ROWS])
