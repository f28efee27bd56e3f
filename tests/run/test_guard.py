"""The guard: what looks like the training images passes, what does not is told, and it survives a trip to disk."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from helpers import model, phantom, predict
from helpers.config import InputError
from tests import strangers
from tests.conftest import planted_film


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return phantom.pretraining_set(160, 64, 3)[0]


def outside(check: model.guard.Guard, films: np.ndarray) -> np.ndarray:
    return check.judge(films)[0]


def scores(check: model.guard.Guard, films: np.ndarray) -> np.ndarray:
    space = check.thumbnails
    return space.scores(space.distances(model.guard.thumbnails(films)))


@pytest.fixture(scope="module")
def door(films) -> model.guard.Guard:
    return model.guard.fit(films[:110], films[110:140])


def test_films_of_the_same_kind_pass(door, films):
    assert outside(door, films[110:140]).mean() <= 1 / 30  # the limit was set on these
    assert outside(door, films[140:]).mean() <= 0.15


@pytest.mark.parametrize("kind", strangers.KINDS)
def test_what_is_no_radiograph_of_a_chest_does_not(door, kind):
    assert outside(door, strangers.KINDS[kind](60, np.random.default_rng(1))).mean() > 0.9


def test_a_turned_or_negative_film_is_a_stranger(door, films):
    assert outside(door, np.rot90(films[140:], axes=(1, 2))).mean() > 0.8
    assert outside(door, 255 - films[140:]).mean() > 0.8


@pytest.mark.parametrize("learnt_from", [6, 110])
def test_a_film_that_is_upside_down_is_told_from_one_that_is_not(films, learnt_from):
    door = model.guard.fit(films[:learnt_from], films[110:140])
    for upright in (films[:110], films[140:], films[:, :, ::-1]):
        assert not door.judge(upright)[1].any()
        known = upright[~outside(door, upright)]
        assert door.judge(known[:, ::-1])[1].all()
        assert outside(door, upright[:, ::-1]).mean() > 0.95


def test_what_is_no_film_or_turned_otherwise_is_not_called_upside_down(door, films):
    for make in strangers.KINDS.values():
        assert door.judge(make(60, np.random.default_rng(1)))[1].mean() < 0.05
    for changed in (np.rot90(films[140:], axes=(1, 2)), 255 - films[140:]):
        assert door.judge(changed)[1].mean() < 0.05


def test_one_score_per_image_whatever_its_size(door, films):
    found = scores(door, films[140:])
    assert found.shape == (20,)
    assert (found >= 0).all()
    larger = films[140:].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(scores(door, larger), found, rtol=0.05, atol=0.05)


def test_few_images_and_no_validation_are_enough(films):
    small = model.guard.fit(films[:6], films[:0])
    assert not outside(small, films[:6]).any()
    assert np.isfinite(scores(small, strangers.photographs(9, np.random.default_rng(1)))).all()


def test_it_comes_back_from_disk_with_equal_scores_and_equal_bytes(door, films, tmp_path):
    model.guard.save(door, tmp_path)
    first = (tmp_path / model.guard.FILE).read_bytes()
    assert np.array_equal(scores(model.guard.load(tmp_path), films), scores(door, films))
    model.guard.save(model.guard.load(tmp_path), tmp_path)
    assert (tmp_path / model.guard.FILE).read_bytes() == first
    assert len(first) < 400_000
    assert not list(tmp_path.glob("*.part"))


def test_features_that_no_training_image_has_are_out_of_distribution(films, tmp_path):
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(150, 3)) @ rng.normal(size=(3, 30)) + 0.1 * rng.normal(size=(150, 30))
    check = model.guard.fit(films[:110], films[110:140], usual[:110], usual[110:140])
    pixels = films[:10]
    passing = check.judge(pixels, usual[140:])[0]
    assert passing.mean() <= 0.2
    for other in (usual[140:] + rng.normal(size=30), 9 * usual[140:]):  # beside the space; within it, too far out
        assert check.judge(pixels, other)[0].mean() > 0.9
    model.guard.save(check, tmp_path)
    assert np.array_equal(
        model.guard.load(tmp_path).judge(pixels, 9 * usual[140:]), check.judge(pixels, 9 * usual[140:])
    )


def test_a_check_without_features_goes_by_thumbnails_alone(door, films):
    assert np.array_equal(door.judge(films[:9], np.full((9, 4), 1e9)), door.judge(films[:9]))


def test_a_check_of_before_features_is_read_and_finds_no_frame_unusual(door, films, tmp_path):
    with (tmp_path / model.guard.FILE).open("wb") as file:
        np.savez(file, **door.thumbnails._asdict())  # as older model folders have it
    older = model.guard.load(tmp_path)
    assert older.features is None
    assert np.array_equal(older.judge(films), door.judge(films))
    assert not older.unusual_frames(films).any()
    assert door.unusual_frames(films[:110]).mean() == pytest.approx(0.05, abs=0.02)


@pytest.fixture
def guarded(planted, planted_folder, door, tmp_path):
    folder = tmp_path / "guarded"
    model.save(planted, folder, model.read_card(planted_folder))
    model.guard.save(door, folder)
    model.write_card(folder, model.read_card(folder))
    return folder


def test_a_model_folder_s_guard_warns(guarded):
    buffer = io.BytesIO()
    Image.fromarray(strangers.text(1, np.random.default_rng(1))[0]).save(buffer, "PNG")
    found = predict.Predictor.load(guarded).predict(buffer.getvalue())
    assert found.stranger
    assert found.warnings[0].startswith("does not look like what the model was made for (phantoms drawn by code)")


def test_an_upside_down_film_is_to_be_turned(guarded, films):
    def predicted(film):
        buffer = io.BytesIO()
        Image.fromarray(film).save(buffer, "PNG")
        return predict.Predictor.load(guarded).predict(buffer.getvalue())

    upright, turned = predicted(films[0]), predicted(films[0][::-1, ::-1])
    assert (upright.stranger, turned.stranger) == (False, True)
    assert turned.warnings[0] == "seems to be upside down: do not trust the number, turn the image and try again"
    assert not any("look" in warning for warning in turned.warnings)


def test_without_a_guard_there_is_no_such_warning(planted_folder):
    buffer = io.BytesIO()
    Image.fromarray(planted_film((2, 20), 96)).save(buffer, "PNG")
    found = predict.Predictor.load(planted_folder).predict(buffer.getvalue())
    assert (found.stranger, found.warnings) == (False, ())


def test_a_changed_or_missing_guard_is_refused_and_a_copy_has_it(guarded, tmp_path):
    model.copy(guarded, tmp_path / "copy")
    assert (tmp_path / "copy" / model.guard.FILE).read_bytes() == (guarded / model.guard.FILE).read_bytes()
    with (guarded / model.guard.FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"guard.npz does not fit the checksum"):
        model.read_card(guarded)
    (guarded / model.guard.FILE).unlink()
    with pytest.raises(InputError, match=r"guard.npz does not fit the checksum"):
        model.read_card(guarded)
