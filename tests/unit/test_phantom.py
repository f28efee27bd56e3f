"""The embedded dataset: films, masks, names and bytes."""

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import config, phantom, storage
from helpers import dataset as dataset_wing

PATIENTS, SEED = 20, 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demo"
    phantom.write_dataset(root, PATIENTS, SEED)
    return root


def _hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _person(path: str) -> str:
    name = Path(path).stem
    return name.rpartition("_")[0] if name.startswith("person") else name.partition("IM-")[2][:4]


@pytest.mark.parametrize("finding", phantom.FINDINGS)
def test_a_film_is_grey_varied_and_masked(finding):
    grey, mask = phantom.draw(np.random.default_rng(3), finding)
    assert grey.dtype == np.uint8
    assert mask.dtype == bool
    assert grey.shape == mask.shape
    assert 300 <= grey.shape[1] <= 520
    assert grey.std() > 25
    assert mask.any() == (finding != "normal")
    assert mask.mean() < 0.4


def test_size_draws_a_square():
    grey, mask = phantom.draw(np.random.default_rng(3), "virus", size=64)
    assert grey.shape == mask.shape == (64, 64)


@pytest.mark.parametrize("wrong", [{"finding": "covid"}, {"size": 4}])
def test_impossible_films_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        phantom.draw(np.random.default_rng(0), **wrong)


def test_films_of_one_patient_resemble_each_other_more_than_others():
    patients = [phantom.make_patient(np.random.default_rng(k)) for k in range(2)]
    films = [phantom.draw(np.random.default_rng(5), "normal", p, size=64)[0] for p in (*patients, patients[0])]
    assert np.array_equal(films[0], films[2])
    assert not np.array_equal(films[0], films[1])


def test_an_opacity_is_brighter_than_the_healthy_lung():
    """Over several patients, since severity, exposure and noise differ from film to film."""
    gains = []
    for k in range(8):
        patient = phantom.make_patient(np.random.default_rng(k))
        ill, mask = phantom.draw(np.random.default_rng([k, 1]), "bacteria", patient, size=64)
        well, _ = phantom.draw(np.random.default_rng([k, 1]), "normal", patient, size=64)
        gains.append(ill[mask].mean() - ill.mean() - well[mask].mean() + well.mean())
    assert np.mean(gains) > 5


def test_brightness_alone_does_not_tell_the_classes_apart():
    means = {}
    for finding in ("normal", "bacteria"):
        films = (phantom.draw(np.random.default_rng([k, 9]), finding, size=48)[0] for k in range(80))
        means[finding] = np.array([film.mean() for film in films])
    auc = (means["bacteria"][:, None] > means["normal"]).mean()
    assert 0.3 < auc < 0.7


def test_both_splits_hold_both_classes_and_both_subtypes(dataset):
    for split in ("train", "test"):
        kinds = Counter(
            "normal" if path.parent.name == "NORMAL" else path.stem.split("_")[1]
            for path in (dataset / split).rglob("*.jpeg")
        )
        assert set(kinds) == set(phantom.FINDINGS)


def test_no_patient_is_in_both_splits_but_some_bare_numbers_are(dataset):
    people = {
        (split, kind): {_person(path.name) for path in (dataset / split / kind).iterdir()}
        for split in ("train", "test")
        for kind in ("NORMAL", "PNEUMONIA")
    }
    for kind in ("NORMAL", "PNEUMONIA"):
        assert not people["train", kind] & people["test", kind]
    numbers = [{name.split("_")[0] for name in people[split, "PNEUMONIA"]} for split in ("train", "test")]
    assert numbers[0] & numbers[1]


def test_every_opacity_has_its_mask(dataset):
    ill = [path.relative_to(dataset).as_posix() for path in dataset.glob("t*/PNEUMONIA/*.jpeg")]
    assert len(ill) == len(list((dataset / "masks").rglob("*.png")))
    for path in ill:
        with Image.open(phantom.mask_path(dataset, path)) as mask, Image.open(dataset / path) as film:
            assert mask.size == film.size
            assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_train_holds_exact_copies_and_test_none(dataset):
    for split, copied in (("train", True), ("test", False)):
        counts = Counter(_hashes(dataset / split).values())
        assert (max(counts.values()) > 1) == copied


def test_equal_arguments_give_equal_bytes(dataset, tmp_path):
    phantom.write_dataset(tmp_path / "again", PATIENTS, SEED)
    assert _hashes(tmp_path / "again") == _hashes(dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_finished_dataset_is_kept_and_another_replaced(dataset, tmp_path, monkeypatch):
    root = tmp_path / "demo"
    for part in ("train", "test", "masks"):
        (root / part).mkdir(parents=True)
    (root / "train" / "old.jpeg").write_bytes(b"old")
    recipe = {"version": phantom.VERSION, "patients": PATIENTS, "seed": SEED, "trap": "none"}
    storage.write_json(root / "phantoms.json", recipe)
    phantom.write_dataset(root, PATIENTS, SEED)
    assert (root / "train" / "old.jpeg").exists()
    monkeypatch.setattr(phantom.embedded, "_write_patient", lambda root, *_: None)
    monkeypatch.setattr(phantom.embedded.shutil, "copyfile", lambda *_: None)
    phantom.write_dataset(root, PATIENTS, SEED + 1)
    assert not (root / "train" / "old.jpeg").exists()
    assert json.loads((root / "phantoms.json").read_text())["seed"] == SEED + 1
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("names", [["train/NORMAL/mine.jpeg"], ["phantoms.json"], ["notes.txt"]])
def test_a_folder_of_other_things_is_never_touched(tmp_path, names):
    for name in names:
        (tmp_path / "demo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "demo" / name).write_text("mine")
    with pytest.raises(config.InputError, match="other than phantoms"):
        phantom.write_dataset(tmp_path / "demo", PATIENTS, SEED)
    assert all((tmp_path / "demo" / name).read_text() == "mine" for name in names)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(phantom.embedded, "_write_patient", broken)
    with pytest.raises(OSError, match="disk full"):
        phantom.write_dataset(tmp_path / "demo", PATIENTS, SEED)
    assert not list(tmp_path.iterdir())


def test_too_few_patients_are_refused(tmp_path):
    with pytest.raises(ValueError, match="19"):
        phantom.write_dataset(tmp_path / "demo", 19, SEED)


def test_pretraining_set_says_where_opacities_and_letters_lie():
    images, masks = phantom.pretraining_set(40, 48, SEED)
    assert images.shape == (40, 48, 48)
    assert images.dtype == np.uint8
    assert masks.shape == (40, 48, 48, 2)
    assert masks.dtype == bool
    opacity, letter = np.moveaxis(masks, -1, 0)
    for mask in (opacity, letter):
        assert 0.25 < mask.any((1, 2)).mean() < 0.8
    assert not letter[:, :, 5:-5].any()
    assert images[letter].min() > 120  # the film shines through the letter's rim
    again, _ = phantom.pretraining_set(4, 48, SEED)
    assert np.array_equal(again, images[:4])


def test_what_a_killed_call_left_is_removed_not_what_a_living_one_draws(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f".films.{gone.pid}.part", f".films.{gone.pid}.old", f".films.{os.getppid()}.part", ".films.x.part"):
        (tmp_path / name / "train").mkdir(parents=True)
    phantom.write_dataset(tmp_path / "films", 20, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"films", f".films.{os.getppid()}.part", ".films.x.part"}


# Two hospitals, and what is broken on purpose


def test_compression_tells_the_classes_apart_in_train_and_not_in_test(tmp_path):
    phantom.write_dataset(tmp_path / "films", 60, SEED)
    found = dataset_wing.shortcuts(dataset_wing.scan(tmp_path / "films")).loc["JPEG compression"]
    assert found["train"] > 0.9
    assert 0.3 < found["test"] < 0.7


def _edges(root: Path, folder: str) -> np.ndarray:
    """Whether each film has a letter: something nearly white, larger than a line, in the outer tenth at a side."""
    marked = []
    for path in sorted((root / folder).iterdir()):
        film = np.asarray(Image.open(path))
        tenth = film.shape[1] // 10
        marked.append(max((side > 225).sum() for side in (film[:, :tenth], film[:, -tenth:])) > 0.0005 * film.size)
    return np.array(marked)


@pytest.fixture(scope="module")
def trapped(tmp_path_factory) -> Callable[[str], Path]:
    @functools.cache
    def draw(trap: str) -> Path:
        root = tmp_path_factory.mktemp(trap) / "demo"
        phantom.write_dataset(root, PATIENTS, SEED, trap)
        return root

    return draw


def test_the_marker_trap_puts_a_letter_on_pneumonia_only(trapped):
    root = trapped("marker")
    assert _edges(root, "train/PNEUMONIA").all()
    assert not _edges(root, "train/NORMAL").any()


def test_the_patients_trap_gives_every_film_of_train_a_name_of_its_own(dataset, trapped):
    films = []
    for root, alone in ((dataset, False), (trapped("patients"), True)):
        hashes = _hashes(root / "train/NORMAL")
        assert (len({_person(name) for name in hashes}) == len(hashes)) == alone
        films.append({*hashes.values()})
    assert films[0] == films[1]


def test_the_preprocessing_trap_swaps_black_and_white_in_test_only(dataset, trapped):
    root = trapped("preprocessing")
    assert _hashes(root / "train") == _hashes(dataset / "train")
    for path in (dataset / "test").rglob("*.jpeg"):
        one, other = (np.asarray(Image.open(file)).astype(int) for file in (path, root / path.relative_to(dataset)))
        assert np.abs(255 - one - other).mean() < 5


def test_the_labels_trap_files_a_tenth_of_train_under_the_other_label(dataset, trapped):
    root = trapped("labels")
    assert _hashes(root / "test") == _hashes(dataset / "test")
    right, wrong = _hashes(dataset / "train"), _hashes(root / "train")
    assert set(right) == set(wrong)
    people = {_person(path) for path in right}
    redrawn = {_person(path) for path in right if right[path] != wrong[path]}
    assert 0 < len(redrawn) / len(people) < 0.2
