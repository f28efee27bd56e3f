"""From cached images to batches: augmentation, class weights, order; all drawn from (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from helpers.config import Settings

_CLAHE = 8, 3.0  # tiles a side and limit of local equalisation
_LOG_RATIO = np.log(4 / 3)  # of a crop's width to its height, either way

tf.get_logger().setLevel("ERROR")  # in a kernel TensorFlow's warnings would land in the pages


class Augmentation(NamedTuple):
    """One random change per image: where each output pixel comes from, and what is done to its grey level."""

    transforms: np.ndarray  # float32 (n, 8): rows of a projective transform from output to input pixels
    gain: np.ndarray  # float32 (n,): contrast around the image's mean
    offset: np.ndarray  # float32 (n,): brightness, grey levels
    gamma: np.ndarray  # float32 (n,): exponent of the grey level as a share of 255
    blur: np.ndarray  # float32 (n,): share of a blurred copy, below 0 for sharpening
    noise: np.ndarray  # float32 (n,): standard deviation, grey levels
    seed: np.ndarray  # int32 (n, 2): of the noise
    equalised: np.ndarray  # float32 (n,): share of the image with its histogram equalised
    tiled: np.ndarray  # bool (n,): that tile by tile and with a limit (CLAHE) instead of as a whole
    side: np.ndarray  # int32 (n,): pixels to which it is scaled down, and up again
    quality: np.ndarray  # int32 (n,): of the JPEG that it becomes at that size; 100: none


def draw_augmentation(settings: Settings, count: int, rng: np.random.Generator) -> Augmentation:
    """Draw one change for each of `count` images, uniformly within the ranges of `settings`.

    Zoom is drawn for width and height apart, so that it changes the aspect ratio too. Mirroring is off unless asked
    for: the heart is on the left, but its side says nothing of pneumonia. Crops lie at random places. Gamma and the
    aspect ratio of a crop, 3/4 to 4/3, are uniform in their logarithm. Where asked for, half of the images are
    equalised (half of these in tiles), half are compressed, half scaled down.

    Parameters
    ----------
    settings : Settings
        `image_size`, and those of config.AUGMENTATIONS except `frame`. Above 0.75, a crop may leave less than
        `crop_area`: it is cut where it is wider or higher than the image.
    count : int
        How many changes.
    rng : numpy.random.Generator
        The source of all draws; it moves on.

    Returns
    -------
    Augmentation
        Arrays of length `count`. Transforms and `side` are in pixels of a square of side `image_size`.

    References
    ----------
    Szegedy et al. (2015), Going deeper with convolutions, CVPR (random resized crops).
    """

    def uniform(limit: float) -> np.ndarray:
        return rng.uniform(-limit, limit, count)

    angle, shear = np.deg2rad(uniform(settings.rotation)), np.tan(np.deg2rad(uniform(settings.shear)))
    zoom_x, zoom_y = 1 + uniform(settings.zoom), 1 + uniform(settings.zoom)
    # output pixel -> input pixel: scale, then shear along x, then rotate, all about the centre of the image
    a, b = np.cos(angle) * zoom_x, (np.cos(angle) * shear - np.sin(angle)) * zoom_y
    c, d = np.sin(angle) * zoom_x, (np.sin(angle) * shear + np.cos(angle)) * zoom_y
    centre = (settings.image_size - 1) / 2
    x = centre * (1 - a - b) + uniform(settings.translation) * settings.image_size
    y = centre * (1 - c - d) + uniform(settings.translation) * settings.image_size
    gain, offset = 1 + uniform(settings.contrast), 255 * uniform(settings.brightness)
    gamma, blur = np.exp(uniform(settings.gamma)), uniform(settings.sharpness)
    noise = np.abs(uniform(255 * settings.noise))
    seed = rng.integers(2**31, size=(count, 2), dtype=np.int32)
    if settings.mirror:  # output column j reads what column size - 1 - j would have read
        side = np.where(rng.random(count) < 0.5, -1.0, 1.0)
        first = settings.image_size - 1
        x, y = x + np.where(side < 0, a * first, 0), y + np.where(side < 0, c * first, 0)
        a, c = a * side, c * side
    if settings.crop_area < 1:  # output pixel -> pixel of the crop, before all else
        area, ratio = rng.uniform(settings.crop_area, 1, count), np.exp(rng.uniform(-1, 1, count) * _LOG_RATIO)
        wide, high = np.minimum(np.sqrt(area * [ratio, 1 / ratio]), 1)
        left, top = ((1 - part) * rng.random(count) * settings.image_size + (part - 1) / 2 for part in (wide, high))
        x, y = x + a * left + b * top, y + c * left + d * top
        a, b, c, d = a * wide, b * high, c * wide, d * high

    # draws nothing for what is not asked for: runs without it stay as they were
    def half(limit: float) -> np.ndarray:
        return limit * rng.random(count) * (rng.random(count) < 0.5) if limit else np.zeros(count)

    equalised, small, worse = (half(s) for s in (settings.equalisation, settings.downscaling, settings.compression))
    tiled = rng.random(count) < 0.5 if settings.equalisation else np.zeros(count, bool)
    small, quality = np.rint((1 - small) * settings.image_size), np.rint(100 - 95 * worse)
    zero = np.zeros(count)
    transforms = np.stack([a, b, x, c, d, y, zero, zero], axis=1)
    floats = (part.astype(np.float32) for part in (transforms, gain, offset, gamma, blur, noise))
    shares, whole = equalised.astype(np.float32), (part.astype(np.int32) for part in (small, quality))
    return Augmentation._make([*floats, seed, shares, tiled, *whole])


def equalise(pixels: tf.Tensor, tiles: int = 1, clip: float = 256.0) -> tf.Tensor:
    """Each of float32 (n, height, width, 1), 0-255, with its histogram equalised, in `tiles` x `tiles` tiles.

    A grey level counts at most `clip` times the mean; what is cut off goes to all levels alike. The tiles' curves are
    blended between their centres (Zuiderveld 1994, Contrast limited adaptive histogram equalization).
    """
    count, height, width = (tf.shape(pixels)[i] for i in range(3))
    levels = tf.cast(tf.round(pixels[..., 0]), tf.int32)
    rows, columns = (tf.range(size) * tiles // size for size in (height, width))
    bins = levels + 256 * (rows[:, None] * tiles + columns)
    counts = tf.math.bincount(
        tf.reshape(bins, (count, -1)), minlength=256 * tiles**2, maxlength=256 * tiles**2, axis=-1, dtype=tf.float32
    )
    counts = tf.reshape(counts, (count, tiles**2, 256))
    total = tf.reduce_sum(counts, axis=-1, keepdims=True)
    kept = tf.minimum(counts, clip * total / 256)
    kept += (total - tf.reduce_sum(kept, axis=-1, keepdims=True)) / 256
    curves = tf.reshape(255 * tf.cumsum(kept, axis=-1) / total, (count, -1))

    def neighbours(size: tf.Tensor) -> tuple:  # tiles before and after each pixel, and how far it is to the second
        place = (tf.range(size, dtype=tf.float32) + 0.5) * tiles / tf.cast(size, tf.float32) - 0.5
        place = tf.clip_by_value(place, 0.0, tiles - 1.0)
        first = tf.cast(place, tf.int32)
        share = place - tf.cast(first, tf.float32)
        return (first, 1 - share), (tf.minimum(first + 1, tiles - 1), share)

    parts = []
    for row, high in neighbours(height)[: 1 + (tiles > 1)]:
        for column, wide in neighbours(width)[: 1 + (tiles > 1)]:
            index = tf.reshape(levels + 256 * (row[:, None] * tiles + column), (count, -1))
            found = tf.reshape(tf.gather(curves, index, batch_dims=1), tf.shape(levels))
            parts.append(found * high[:, None] * wide)
    return tf.add_n(parts)[..., None]


def _as_file(image: tf.Tensor, side: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    """One image, float32 (height, width, 1), scaled down to `side`, as a JPEG, and up again."""
    small = tf.image.resize(image, (side, side), "area")
    if quality < 100:
        whole = tf.cast(tf.round(tf.clip_by_value(small, 0.0, 255.0)), tf.uint8)
        file = tf.raw_ops.EncodeJpegVariableQuality(images=whole, quality=quality)
        small = tf.cast(tf.io.decode_jpeg(file, channels=1), tf.float32)
    return tf.image.resize(small, tf.shape(image)[:2])


def _neighbours(pixels: tf.Tensor) -> tf.Tensor:
    """The sum of 3 x 3 pixels around each; of one channel, this takes a twentieth of the time of `avg_pool2d`."""
    high = tf.pad(pixels, [[0, 0], [1, 1], [0, 0], [0, 0]])
    pixels = high[:, :-2] + pixels + high[:, 2:]
    wide = tf.pad(pixels, [[0, 0], [0, 0], [1, 1], [0, 0]])
    return wide[:, :, :-2] + pixels + wide[:, :, 2:]


def _as_files(*parts: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(lambda part: _as_file(*part), parts, fn_output_signature=tf.float32)


def _partly(tiles: tuple, pixels: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return pixels + tf.reshape(share, (-1, 1, 1, 1)) * (equalise(pixels, *tiles) - pixels)


def _where(asked: tf.Tensor, change: Callable, pixels: tf.Tensor, *more: tf.Tensor) -> tf.Tensor:
    """`pixels` with `change` made to the images `asked`, bool (n,). It takes them, and their entries of `more`."""
    rows = tf.where(asked)
    some, *theirs = (tf.gather_nd(part, rows) for part in (pixels, *more))
    return tf.tensor_scatter_nd_update(pixels, rows, tf.reshape(change(some, *theirs), tf.shape(some)))  # also of none


def augment(pixels: tf.Tensor, augmentation: Augmentation, settings: Settings) -> tf.Tensor:
    """Apply one drawn change to each image of a batch.

    In this order: equalisation, blurring or sharpening, gamma, contrast, brightness, noise, geometry (in one
    resampling), then scaling down with JPEG compression.

    Parameters
    ----------
    pixels : array or tensor of float32, shape (n, height, width, 1)
        Grey levels, 0-255.
    augmentation : Augmentation
        n changes from `draw_augmentation`, which draws for squares of side `image_size`.
    settings : Settings
        As in `draw_augmentation`: kinds of change that it does not ask for are left out.

    Returns
    -------
    tensor of float32, shape (n, height, width, 1)
        Grey levels, 0-255; black beyond the edge. The noise of all n images comes from the seed of the first.

    References
    ----------
    Zuiderveld (1994), Contrast limited adaptive histogram equalization, Graphics Gems IV.
    """
    gain, offset, gamma, blur, noise = (tf.reshape(part, (-1, 1, 1, 1)) for part in augmentation[1:6])
    if settings.equalisation:
        asked, tiled = augmentation.equalised > 0, augmentation.tiled
        pixels = _where(asked & tiled, partial(_partly, _CLAHE), pixels, augmentation.equalised)
        pixels = _where(asked & ~tiled, partial(_partly, ()), pixels, augmentation.equalised)
    if settings.sharpness:
        around = _neighbours(tf.ones_like(pixels[:1]))  # how many there are: fewer at the edges
        smooth = _neighbours(_neighbours(pixels) / around) / around
        pixels = tf.clip_by_value(pixels + (smooth - pixels) * blur, 0.0, 255.0)
    if settings.gamma:
        pixels = 255.0 * tf.pow(pixels / 255.0, gamma)
    if settings.contrast:
        mean = tf.reduce_mean(pixels, axis=(1, 2, 3), keepdims=True)
        pixels = (pixels - mean) * gain + mean
    if settings.brightness:
        pixels += offset
    if settings.noise:
        pixels += noise * tf.random.stateless_normal(tf.shape(pixels), augmentation.seed[0])
    if settings.contrast or settings.brightness or settings.noise:
        pixels = tf.clip_by_value(pixels, 0.0, 255.0)
    pixels = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=augmentation.transforms,
        output_shape=tf.shape(pixels)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    if settings.downscaling or settings.compression:
        asked = (augmentation.side < tf.shape(pixels)[1]) | (augmentation.quality < 100)
        pixels = _where(asked, _as_files, pixels, augmentation.side, augmentation.quality)
    return pixels


def draw_frames(settings: Settings, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw frames for `reframe`: half of the images get one, and half of the frames show another image.

    Parameters
    ----------
    settings : Settings
        `frame` is the widest strip, as a proportion of the image's side.
    count : int
        How many images.
    rng : numpy.random.Generator
        The source of all draws; it moves on.

    Returns
    -------
    strips : array of float32, shape (count, 4)
        Left, top, right and bottom, each uniform from 0 to `frame`; four zeros without a frame.
    filled : array of float32, shape (count,)
        1 where a frame shows another image, 0 where it is black. Drawn without a frame, too.
    """
    framed, filled = rng.random((2, count)) < 0.5
    strips = rng.uniform(0, settings.frame, (count, 4)) * framed[:, None]
    return strips.astype(np.float32), filled.astype(np.float32)


def swap_edges(pixels: tf.Tensor, strips: tf.Tensor, around: tf.Tensor) -> tf.Tensor:
    """Images (n, height, width, 1) of any type with the edges of `around`, alike.

    `strips` float32 (n, 4): how much of its width and height goes at the left, top, right and bottom, as shares.
    """
    height, width = tf.shape(pixels)[1], tf.shape(pixels)[2]
    x = (tf.range(width, dtype=tf.float32) + 0.5) / tf.cast(width, tf.float32)
    y = (tf.range(height, dtype=tf.float32) + 0.5) / tf.cast(height, tf.float32)
    left, top, right, bottom = (strips[:, i, None] for i in range(4))
    columns, rows = (x >= left) & (x < 1 - right), (y >= top) & (y < 1 - bottom)
    inside = (rows[:, :, None] & columns[:, None, :])[..., None]
    return tf.where(inside, pixels, around)


def reframe(pixels: tf.Tensor, strips: tf.Tensor, filled: tf.Tensor) -> tf.Tensor:
    """Put frames, drawn by `draw_frames`, around the images of a batch.

    Parameters
    ----------
    pixels : array or tensor of float32, shape (n, height, width, 1)
        Grey levels, 0-255.
    strips : array or tensor of float32, shape (n, 4)
        Widths at the left, top, right and bottom, as proportions (0-1) of the image's width and height.
    filled : array or tensor of float32, shape (n,)
        1: the frame shows another image of the batch, the last around the first, and so on. 0: it is black.

    Returns
    -------
    tensor of float32, shape (n, height, width, 1)
        Grey levels, 0-255. In an odd batch the middle image, if filled, stays as it was.
    """
    return swap_edges(pixels, strips, tf.reverse(pixels, [0]) * tf.reshape(filled, (-1, 1, 1, 1)))


def sample_weights(labels: np.ndarray) -> np.ndarray:
    """float32 (n,): weights with mean 1 that let both classes (0 and 1) count the same in a loss."""
    share = labels.mean()
    return np.where(labels == 1, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)


def _read(images: np.ndarray, rows: tf.Tensor) -> tf.Tensor:
    def take(index: np.ndarray) -> np.ndarray:
        return images[index][..., None].astype(np.float32)

    pixels = tf.numpy_function(take, [rows], tf.float32, stateful=False)
    return tf.ensure_shape(pixels, (None, *images.shape[1:], 1))


def training_batches(
    images: np.ndarray, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, settings: Settings, epoch: int
) -> tf.data.Dataset:
    """One epoch of shuffled, augmented batches (pixels, targets, weights); the same for the same (seed, epoch).

    `images` uint8 (n, size, size), `rows` (m,) of it, `targets` and `weights` for each of those rows.
    """
    rng = np.random.default_rng([settings.seed, epoch])
    order = rng.permutation(len(rows))
    augmentation = draw_augmentation(settings, len(rows), rng)
    frames = draw_frames(settings, len(rows), rng)
    targets = targets[order].astype(np.float32).reshape(len(rows), -1)
    parts = (rows[order], augmentation, frames, targets, weights[order])

    def read(row: tf.Tensor, change: Augmentation, frame: tuple, target: tf.Tensor, weight: tf.Tensor) -> tuple:
        pixels = augment(_read(images, row), change, settings)
        return reframe(pixels, *frame) if settings.frame else pixels, target, weight

    return (
        tf.data.Dataset.from_tensor_slices(parts)
        .batch(settings.batch_size)
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
    )


def viewed_batches(
    images: np.ndarray,
    rows: np.ndarray,
    change: Augmentation | None = None,
    settings: Settings | None = None,
    batch_size: int = 32,
) -> tf.data.Dataset:
    """Batches of float32 (n, size, size, 1), 0-255, in the order of `rows`.

    As they are, or with one `change` per row, drawn with `settings`.
    """
    if change is None or settings is None:
        data = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size).map(lambda row: _read(images, row))
    else:
        data = tf.data.Dataset.from_tensor_slices((rows, change)).batch(batch_size)
        data = data.map(
            lambda row, part: augment(_read(images, row), part, settings), num_parallel_calls=tf.data.AUTOTUNE
        )
    return data.prefetch(2)
