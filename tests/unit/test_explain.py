"""Heatmaps: they find what was planted, stay in their range, and are scored as by hand."""

from __future__ import annotations

import base64
import io

import keras
import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import explain, model
from helpers.config import make_settings
from tests import notebook_code
from tests.conftest import planted_film

SPOTS = [(2, 3), (2, 20), (20, 3), (19, 19)]


def film_and_mask(spot: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((32, 32), bool)
    mask[spot[0] : spot[0] + 10, spot[1] : spot[1] + 10] = True
    return planted_film(spot), mask


@pytest.mark.parametrize("method", explain.METHODS)
def test_the_heat_lies_on_the_planted_spot(planted, method):
    films, masks = (np.stack(part) for part in zip(*map(film_and_mask, SPOTS), strict=True))
    heat = explain.heatmaps(planted, films, method)
    assert heat.shape == (4, 32, 32)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max(axis=(1, 2)).tolist() == [1, 1, 1, 1]
    scores = explain.localisation(heat, masks)
    assert scores["hit"].all()
    assert (scores["inside"] > 0.8).all()
    assert scores["area"].tolist() == [100 / 1024] * 4


def test_grad_cam_is_the_feature_map_where_there_is_one_feature(planted):
    film = planted_film((2, 20))
    features = keras.Model(planted.inputs[0], planted.get_layer("spots").output)(
        film[None, ..., None].astype("float32")
    )
    expected = np.asarray(features)[0, ..., 0]
    np.testing.assert_allclose(explain.heatmaps(planted, film[None])[0], expected / expected.max(), atol=1e-5)


@pytest.mark.parametrize("method", explain.METHODS)
def test_where_nothing_speaks_for_it_the_map_is_empty(planted, method):
    dark = np.stack([np.zeros((32, 32), np.uint8), planted_film()])
    heat = explain.heatmaps(planted, dark, method)
    assert np.array_equal(heat, np.zeros((2, 32, 32), np.float32))  # neither noise nor NaN


@pytest.mark.parametrize("method", explain.METHODS)
def test_what_speaks_against_is_not_shown(planted, method):
    against = keras.models.clone_model(planted)
    against.set_weights(planted.get_weights())
    kernel, bias = planted.get_layer("logit").get_weights()
    against.get_layer("logit").set_weights([-kernel, bias])
    heat = explain.heatmaps(against, planted_film((2, 20))[None], method)
    assert np.array_equal(heat, np.zeros((1, 32, 32), np.float32))


def test_the_score_does_not_saturate_with_the_probability(planted):
    """A probability of 1 to the last bit has no gradient; the logit has."""
    bright = np.full((1, 32, 32), 255, np.uint8)
    assert float(np.asarray(planted(bright[..., None].astype("float32")))[0, 0]) == 1.0
    assert explain.heatmaps(planted, bright)[0].max() == 1


@pytest.mark.parametrize("method", explain.METHODS)
@pytest.mark.parametrize("bias", [-300, 300])
def test_extreme_logits_give_the_same_map(planted, method, bias):
    """Grad-CAM++ takes the exponential of the score, which has no float from 89 on, and is 0 below -104."""
    extreme = keras.models.clone_model(planted)
    extreme.set_weights(planted.get_weights())
    kernel, _ = planted.get_layer("logit").get_weights()
    extreme.get_layer("logit").set_weights([kernel, np.array([bias])])
    film = planted_film((2, 20))[None]
    heat = explain.heatmaps(extreme, film, method)
    np.testing.assert_allclose(heat, explain.heatmaps(planted, film, method), atol=1e-5)
    assert heat.max() == 1


def test_batches_do_not_change_a_map(planted):
    films = np.stack([planted_film(spot) for spot in SPOTS])
    whole = explain.heatmaps(planted, films)
    np.testing.assert_allclose(explain.heatmaps(planted, films, batch=3), whole, atol=1e-6)
    np.testing.assert_allclose(explain.heatmaps(planted, films[2:3])[0], whole[2], atol=1e-6)


@pytest.mark.parametrize("backbone", ["SmallCNN", "ResNet50"])
def test_all_methods_work_on_real_backbones(backbone):
    keras.utils.set_random_seed(0)
    settings = make_settings("smoke", {"backbone": backbone, "weights": "none", "image_size": 64, "dense_units": 8})
    classifier = notebook_code.add_head(model.build_backbone(settings), settings)
    before = classifier.get_weights()
    films = np.stack([planted_film(spot, 64) for spot in SPOTS[:2]])
    for method in explain.METHODS:
        heat = explain.heatmaps(classifier, films, method)
        assert heat.shape == (2, 64, 64)
        assert np.isfinite(heat).all()
        assert heat.min() >= 0
        assert heat.max() <= 1
    assert all(np.array_equal(a, b) for a, b in zip(before, classifier.get_weights(), strict=True))
    assert classifier.get_layer("probability").activation is keras.activations.sigmoid


# Overlays


def test_an_overlay_without_opacity_or_heat_is_the_image():
    image = planted_film((2, 20), 48)
    heat = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    grey = np.repeat(image[..., None], 3, axis=-1)
    for shown in (explain.overlay(image, heat, 0), explain.overlay(image, np.zeros((32, 32)), 1)):
        assert shown.shape == (48, 48, 3)
        assert shown.dtype == np.uint8
        assert np.array_equal(shown, grey)


def test_an_overlay_has_the_size_of_the_image_whatever_its_shape():
    image = np.full((30, 70), 100, np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[:, 6:] = 1
    shown = explain.overlay(image, heat, 0.5)
    assert shown.shape == (30, 70, 3)
    assert np.array_equal(shown[:, :40], np.full((30, 40, 3), 100))  # cold regions stay as they were
    hot = 255 * np.array(matplotlib.colormaps["inferno"](1.0)[:3])
    assert np.array_equal(shown[15, 69], np.rint(0.5 * 100 + 0.5 * hot))


# Scores


def test_localisation_is_computed_as_by_hand():
    heat, masks = np.zeros((4, 4, 4)), np.zeros((4, 4, 4), bool)
    heat[0, 0, 0], heat[0, 3, 3] = 1, 0.25  # four fifths inside, the hottest too
    masks[0, :2, :2] = True
    heat[1, 0, 0], heat[1, 2, 2] = 0.5, 1  # a third inside, the hottest outside
    masks[1, 0] = True
    masks[2, :, :2] = True  # no heat at all
    heat[3] = 1  # even heat: as by chance; the first of equals is the hottest
    masks[3, 1:3, 1:3] = True
    table = explain.localisation(heat, masks)
    np.testing.assert_allclose(table["inside"], [0.8, 1 / 3, 0, 0.25])
    assert table["hit"].tolist() == [True, False, False, False]
    assert table["area"].tolist() == [0.25, 0.25, 0.5, 0.25]


def test_border_share_is_computed_as_by_hand():
    heat = np.zeros((4, 10, 10))
    heat[0] = 0.3  # even
    heat[1, 5, 5] = 1  # in the middle
    heat[2, 0, 4], heat[2, 4, 4] = 0.25, 0.75
    np.testing.assert_allclose(explain.border_share(heat), [1 - 0.8**2, 0, 0.25, np.nan])
    np.testing.assert_allclose(explain.border_share(heat, 0.2)[0], 1 - 0.6**2)
    np.testing.assert_allclose(explain.border_share(heat, 0.5), [1, 1, 1, np.nan])


def answers(*rows: tuple[str, float]) -> pd.DataFrame:
    """Predictions of images named after their probability."""
    table = pd.DataFrame(rows, columns=["label", "probability"])
    return table.assign(path=[f"test/{label}/{p}.png" for label, p in rows], split="test")


ILL, WELL = "PNEUMONIA", "NORMAL"
MIXED = [(ILL, 0.99), (ILL, 0.9), (ILL, 0.8), (ILL, 0.52), (ILL, 0.3), (ILL, 0.1)]
MIXED += [(WELL, 0.01), (WELL, 0.05), (WELL, 0.2), (WELL, 0.45), (WELL, 0.7), (WELL, 0.95)]


def test_cases_are_middle_hits_surest_errors_and_images_near_threshold():
    chosen = explain.choose_cases(answers(*MIXED), 0.5, [0.4, 0.6])
    found = list(chosen[["label", "probability", "outcome", "uncertain"]].itertuples(index=False, name=None))
    assert found == [
        (ILL, 0.9, "TP", False), (WELL, 0.05, "TN", False), (WELL, 0.95, "FP", False), (ILL, 0.1, "FN", False),
        (ILL, 0.52, "TP", True), (WELL, 0.45, "TN", True),
    ]  # fmt: skip


def test_cases_without_an_uncertain_range_are_all_certain_and_six():
    chosen = explain.choose_cases(answers(*MIXED), 0.5, None)
    assert len(chosen) == 6
    assert chosen["path"].is_unique
    assert not chosen["uncertain"].any()


def test_an_outcome_that_is_only_uncertain_is_among_the_cases():
    chosen = explain.choose_cases(answers((ILL, 0.9), (WELL, 0.1), (WELL, 0.55)), 0.5, [0.4, 0.6])
    assert chosen["outcome"].tolist() == ["TP", "TN", "FP"]
    assert chosen["uncertain"].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("place", "said"), [((0, 0), "upper left"), ((16, 16), "centre"), ((31, 17), "lower centre"), (None, "")]
)
def test_where_a_heatmap_is_strongest_is_said_in_words(place, said):
    heat = np.zeros((32, 32), np.float32)
    if place:
        heat[place] = 1
    assert explain.strongest(heat) == said


def test_cases_hold_the_image_and_a_heatmap_over_the_planted_spot(planted_folder):
    places = {"upper left": (2, 2), "upper right": (2, 22), "lower left": (22, 2), "lower right": (22, 22)}
    films = np.stack([planted_film(spot, seed=row) for row, spot in enumerate([*places.values(), None, None])])
    table = answers(*[(ILL, 0.9 + row / 100) for row in range(4)], (WELL, 0.1), (WELL, 0.2)).assign(subtype="virus")
    table["row"] = range(5, -1, -1)
    found = explain.cases(*model.load(planted_folder)[:1], films[::-1], table, model.read_card(planted_folder))
    cases = {case["path"]: case for case in found}
    assert set(cases) == set(table["path"])
    for film, path, where in zip(films[:4], table["path"][:4], places, strict=True):
        image, heatmap = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(cases[path][part].partition(",")[2]))))
            for part in ("image", "heatmap")
        )
        assert np.abs(image.astype(int) - film).mean() < 8, "the film itself, but for JPEG"
        assert heatmap.shape == (32, 32, 3)
        assert cases[path]["strongest"] == where
        assert cases[path]["subtype"] == "virus"
    assert cases[table["path"].iloc[4]]["strongest"] == "", "nothing bright, no heat"
