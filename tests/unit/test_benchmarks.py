"""The benchmarks that choose recipes and measure models: what they count, and on which images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from helpers import images, predict
from tests.benchmarks import arms, robustness
from tests.conftest import planted_film


@pytest.fixture(scope="module")
def predictor(planted_folder) -> predict.Predictor:
    return predict.Predictor.load(planted_folder)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A dataset folder: normal films of two series, and of patients with pneumonia, who have a bright spot."""
    root, seed = tmp_path_factory.mktemp("films"), 0
    for split, count in (("train", 12), ("test", 3)):
        first = 1 if split == "train" else 50
        names = {"NORMAL": [f"{series}-{first + k:04d}-0001" for series in ("IM", "NORMAL2-IM") for k in range(count)]}
        names["PNEUMONIA"] = [f"person{first + k}_bacteria_{k}" for k in range(100, 100 + 2 * count)]
        for label, some in names.items():
            (root / split / label).mkdir(parents=True)
            for name in some:
                seed += 1
                spot = (2 + seed % 9, 3 + seed % 13) if label == "PNEUMONIA" else None
                Image.fromarray(planted_film(spot, 64, seed)).save(root / split / label / f"{name}.png")
    return root


def test_arms_validate_on_another_series_of_normal_images(films, tmp_path):
    splits = arms.prepare(films, tmp_path / "images", 32, 10)
    assert set(splits["split"]) == {"train", "validation"}
    normal = splits[splits["label"] == "NORMAL"]
    series = normal["path"].str.contains("NORMAL2-IM").map({True: "train", False: "validation"})
    assert (normal["split"] == series).all()
    assert splits.groupby(["split", "label"]).size().max() == 10
    cache = images.load_cache(tmp_path / "images" / "images.npy")
    assert np.array_equal(cache[3], images.resize(images.read_image(films / splits["path"][3]), 32))


def test_arms_are_judged_under_every_view(planted):
    pixels = np.stack([planted_film((8, 8) if seed % 2 else None, 32, seed) for seed in range(20)])
    found = arms.judge(planted, pixels, np.arange(20) % 2 == 1)
    assert found["AUC, plain"] == 1
    assert {f"AUC, {name}" for name in robustness.VIEWS} < set(found)
    blind = arms.judge(planted, pixels[::2], np.arange(10) % 2 == 1)
    assert blind["loss"] == pytest.approx(np.log(2), abs=0.15)


def test_each_view_of_the_test_images_has_its_figures(films, predictor):
    table = robustness.on_test(predictor, films)
    assert list(table.index) == [*robustness.VIEWS, *robustness.HIDDEN]
    assert table.loc["plain", "accuracy"].startswith("1.000")
    assert table.loc["plain", "wrong without a warning"] == 0


def test_the_edge_is_hidden_or_all_but_the_edge():
    image = np.full((20, 40), 100, np.uint8)
    image[2:18, 4:36] = 200
    assert (robustness.covered(image, edge=True) == np.where(image == 200, 200, 164)).all()
    assert (robustness.covered(image, edge=False) == np.where(image == 200, 164, 100)).all()


def test_images_from_elsewhere_are_counted_by_folder(predictor, tmp_path):
    for kind, spot in (("sick", (8, 8)), ("well", None)):
        (tmp_path / "there" / kind).mkdir(parents=True)
        for seed in range(3):
            Image.fromarray(planted_film(spot, 64, seed)).save(tmp_path / "there" / kind / f"{seed}.png")
    (tmp_path / "there" / "well" / "broken.png").write_bytes(b"no image")
    table = robustness.elsewhere(predictor, tmp_path / "there")
    assert table["images"].tolist() == [3, 4]
    assert table["unreadable"].tolist() == [0, 1]
    assert table["pneumonia without a warning"].tolist() == [3, 0]
    assert table["normal without a warning"].tolist() == [0, 3]
    assert table["95% interval, proportion"].tolist() == ["0.29 to 1.00", "0.00 to 0.71"]  # exact, of three


def test_namesakes_in_the_dataset_are_compared(films, predictor, tmp_path):
    name = "person150_bacteria_100.png"
    (tmp_path / name).write_bytes((films / "test" / "PNEUMONIA" / name).read_bytes())
    assert "1 beside their namesakes: 0 decisions change, mean change 0.0000" in robustness.beside_copies(
        predictor, tmp_path, films
    )
    assert "no image is named" in robustness.beside_copies(predictor, tmp_path / "empty", films)
