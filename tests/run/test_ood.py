"""The out-of-distribution check: radiographs pass, other pictures do not."""

from __future__ import annotations

import io

import keras
import numpy as np
import pytest
from PIL import Image

from helpers import config, model, phantom, predict
from helpers.config import InputError
from tests import not_radiographs, notebook_code
from tests.conftest import planted_film


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return phantom.pretraining_set(160, 64, 3)[0]


def outside(check: model.ood.OodCheck, films: np.ndarray) -> np.ndarray:
    return check.judge(films)[0]


def scores(check: model.ood.OodCheck, films: np.ndarray) -> np.ndarray:
    space = check.thumbnails
    return space.scores(space.distances(model.ood.thumbnails(films)))


@pytest.fixture(scope="module")
def ood_check(films) -> model.ood.OodCheck:
    return model.ood.fit(films[:110], films[110:140])


def test_films_of_the_same_kind_pass(ood_check, films):
    assert outside(ood_check, films[110:140]).mean() <= 1 / 30  # the limit was set on these
    assert outside(ood_check, films[140:]).mean() <= 0.15


@pytest.mark.parametrize("kind", not_radiographs.KINDS)
def test_what_is_no_radiograph_of_a_chest_does_not(ood_check, kind):
    assert outside(ood_check, not_radiographs.KINDS[kind](60, np.random.default_rng(1))).mean() > 0.9


def test_a_turned_or_negative_film_is_out_of_distribution(ood_check, films):
    assert outside(ood_check, np.rot90(films[140:], axes=(1, 2))).mean() > 0.8
    assert outside(ood_check, 255 - films[140:]).mean() > 0.8


@pytest.mark.parametrize("learnt_from", [6, 110])
def test_a_film_that_is_upside_down_is_told_from_one_that_is_not(films, learnt_from):
    ood_check = model.ood.fit(films[:learnt_from], films[110:140])
    for upright in (films[:110], films[140:], films[:, :, ::-1]):
        assert not ood_check.judge(upright)[1].any()
        known = upright[~outside(ood_check, upright)]
        assert ood_check.judge(known[:, ::-1])[1].all()
        assert outside(ood_check, upright[:, ::-1]).mean() > 0.9


def test_what_is_no_film_or_turned_otherwise_is_not_called_upside_down(ood_check, films):
    for make in not_radiographs.KINDS.values():
        assert ood_check.judge(make(60, np.random.default_rng(1)))[1].mean() < 0.05
    for changed in (np.rot90(films[140:], axes=(1, 2)), 255 - films[140:]):
        assert ood_check.judge(changed)[1].mean() < 0.05


def test_one_score_per_image_whatever_its_size(ood_check, films):
    found = scores(ood_check, films[140:])
    assert found.shape == (20,)
    assert (found >= 0).all()
    larger = films[140:].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(scores(ood_check, larger), found, rtol=0.05, atol=0.05)


def test_few_images_and_no_validation_are_enough(films):
    small = model.ood.fit(films[:6], films[:0])
    assert not outside(small, films[:6]).any()
    assert np.isfinite(scores(small, not_radiographs.photographs(9, np.random.default_rng(1)))).all()


def test_it_comes_back_from_disk_with_equal_scores_and_equal_bytes(ood_check, films, tmp_path):
    model.ood.save(ood_check, tmp_path)
    first = (tmp_path / model.ood.FILE).read_bytes()
    assert np.array_equal(scores(model.ood.load(tmp_path), films), scores(ood_check, films))
    model.ood.save(model.ood.load(tmp_path), tmp_path)
    assert (tmp_path / model.ood.FILE).read_bytes() == first
    assert len(first) < 400_000
    assert not list(tmp_path.glob("*.part"))


def test_features_that_no_training_image_has_are_out_of_distribution(films, tmp_path):
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(150, 3)) @ rng.normal(size=(3, 30)) + 0.1 * rng.normal(size=(150, 30))
    check = model.ood.fit(films[:110], films[110:140], usual[:110], usual[110:140])
    pixels = films[:10]
    passing = check.judge(pixels, usual[140:])[0]
    assert passing.mean() <= 0.2
    for other in (usual[140:] + rng.normal(size=30), 9 * usual[140:]):  # beside the space; within it, too far out
        assert check.judge(pixels, other)[0].mean() > 0.9
    model.ood.save(check, tmp_path)
    assert np.array_equal(model.ood.load(tmp_path).judge(pixels, 9 * usual[140:]), check.judge(pixels, 9 * usual[140:]))


def test_a_check_without_features_goes_by_thumbnails_alone(ood_check, films):
    assert np.array_equal(ood_check.judge(films[:9], np.full((9, 4), 1e9)), ood_check.judge(films[:9]))


def test_a_check_of_before_features_is_read_and_finds_no_frame_unusual(ood_check, films, tmp_path):
    with (tmp_path / model.ood.FILE).open("wb") as file:
        np.savez(file, **ood_check.thumbnails._asdict())  # as older model folders have it
    older = model.ood.load(tmp_path)
    assert older.features is None
    assert np.array_equal(older.judge(films), ood_check.judge(films))
    assert not older.unusual_frames(films).any()
    assert ood_check.unusual_frames(films[:110]).mean() == pytest.approx(0.05, abs=0.02)


def test_the_features_are_those_of_middle_layers():
    settings = config.make_settings("smoke", {"backbone": "SmallCNN", "weights": "none"})
    classifier = notebook_code.add_head(model.build_backbone(settings), settings)
    sizes = [one.shape[1] for one in model.ood.feature_maps(classifier)]
    assert sizes == [16, 8], "of 64 pixels"
    channels = sum(one.shape[-1] for one in model.ood.feature_maps(classifier))
    film = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 1)).astype(np.float32)
    seen = model.ood.feature_model(classifier).predict(film, verbose=0)
    assert seen.shape == (1, 2 * channels)
    first = keras.Model(classifier.inputs[0], model.ood.feature_maps(classifier)[0]).predict(film, verbose=0)[0]
    wanted = np.concatenate([first.mean(axis=(0, 1)), first.std(axis=(0, 1))])
    np.testing.assert_allclose(seen[0, : len(wanted)], wanted, atol=1e-5)


@pytest.fixture
def checked(planted, planted_folder, ood_check, tmp_path):
    folder = tmp_path / "checked"
    model.save(planted, folder, model.read_card(planted_folder))
    model.ood.save(ood_check, folder)
    model.write_card(folder, model.read_card(folder))
    return folder


def test_a_model_folder_s_check_warns(checked):
    buffer = io.BytesIO()
    Image.fromarray(not_radiographs.text(1, np.random.default_rng(1))[0]).save(buffer, "PNG")
    found = predict.Predictor.load(checked).predict(buffer.getvalue())
    assert found.out_of_distribution
    assert found.warnings[0].startswith("does not look like what the model was made for (phantoms drawn by code)")


def test_an_upside_down_film_is_to_be_turned(checked, films):
    def predicted(film):
        buffer = io.BytesIO()
        Image.fromarray(film).save(buffer, "PNG")
        return predict.Predictor.load(checked).predict(buffer.getvalue())

    upright, turned = predicted(films[0]), predicted(films[0][::-1, ::-1])
    assert (upright.out_of_distribution, turned.out_of_distribution) == (False, True)
    assert turned.warnings[0] == "seems to be upside down: do not trust the number, turn the image and try again"
    assert not any("look" in warning for warning in turned.warnings)


def test_without_a_guard_there_is_no_such_warning(planted_folder):
    buffer = io.BytesIO()
    Image.fromarray(planted_film((2, 20), 96)).save(buffer, "PNG")
    found = predict.Predictor.load(planted_folder).predict(buffer.getvalue())
    assert (found.out_of_distribution, found.warnings) == (False, ())


def test_a_changed_or_missing_check_is_refused_and_a_copy_has_it(checked, tmp_path):
    model.copy(checked, tmp_path / "copy")
    assert (tmp_path / "copy" / model.ood.FILE).read_bytes() == (checked / model.ood.FILE).read_bytes()
    with (checked / model.ood.FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"guard.npz does not fit the checksum"):
        model.read_card(checked)
    (checked / model.ood.FILE).unlink()
    with pytest.raises(InputError, match=r"guard.npz does not fit the checksum"):
        model.read_card(checked)
