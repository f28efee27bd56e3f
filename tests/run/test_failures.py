"""What goes wrong, met by the real notebooks: one clear sentence, the right exit status, nothing lost."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import config
from helpers.run import runner
from tests.conftest import Clone, make_clone

MARKUP = "<img src=x onerror=alert(1)>.png"  # the name of a damaged file


def photograph(seed: int) -> bytes:
    """A JPEG that is like no other."""
    buffer, rng = io.BytesIO(), np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8))
    small.resize((90 + seed % 7, 80)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_dataset(root: Path, **counts: int) -> Path:
    """A small labelled folder; `counts` are of train_NORMAL, train_PNEUMONIA, test_NORMAL, test_PNEUMONIA."""
    seed = 0
    for name, count in counts.items():
        folder = root.joinpath(*name.split("_"))
        folder.mkdir(parents=True)
        for seed in range(seed + 1, seed + 1 + count):  # noqa: B020 - goes on counting
            named = f"IM-{seed:04d}-0001" if folder.name == "NORMAL" else f"person{seed}_virus_{seed}"
            (folder / f"{named}.jpeg").write_bytes(photograph(seed))
    return root


def one_sentence(done: subprocess.CompletedProcess, status: int) -> str:
    """What a call that failed said on the terminal, where it has to be a single line."""
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.rstrip()[-1] in ".`" or status == 1
    return done.stderr


def statuses(clone: Clone, name: str) -> dict[str, str]:
    return {stem[:2]: entry["status"] for stem, entry in clone.record(name)["notebooks"].items()}


# refused before anything runs


def test_missing_dataset_names_the_two_ways_out(clone):
    said = one_sentence(clone.python("helpers.run", "--profile", "chest_xray"), 2)
    assert "data/chest_xray" in said
    assert "--data" in said
    assert "make data" in said
    assert not [path for path in clone.reports.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("image_size=5", "32"),
        ("image_size=large", "whole number"),
        ("seed=1.5", "whole number"),
        ("dropout=1.5", "0.95"),
        ("dropout=nan", "0.0"),
        ("mirror=maybe", "true or false"),
        ("backbone=ResNet500", "ResNet50"),
        ("threshold_policy=sensitivity>=97", "sensitivity>=0.97"),
        ("threshold_policy=best", "youden"),
        ("rotatoin=10", "'rotation'"),
        ("weights=weights/nowhere.weights.h5", "neither a file nor one of imagenet, none, phantoms"),
    ],
)
def test_impossible_wish_is_refused_with_what_is_possible(tmp_path, monkeypatch, capfd, wish, said):
    monkeypatch.setattr(config, "REPORTS", tmp_path)
    assert runner.main(["--profile", "smoke", "--name", "wish", "--set", wish]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert wish.partition("=")[0] in err
    assert said in err
    assert not (tmp_path / "wish").exists()


# one run that stops three times and is mended twice


class Story:
    """The calls of that run, and what the run folder held after each."""

    def __init__(self, clone: Clone):
        self.clone, self.calls, self.folders = clone, {}, {}

    def call(self, step: str, *arguments: object) -> None:
        self.calls[step] = self.clone.python("helpers.run", *arguments)
        self.folders[step] = shutil.copytree(self.clone.reports / "story", self.clone.root.parent / step)


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    story = Story(make_clone(tmp_path_factory.mktemp("story") / "clone"))
    counts = {"train_NORMAL": 8, "train_PNEUMONIA": 8, "test_NORMAL": 2, "test_PNEUMONIA": 2}
    data = write_dataset(story.clone.root / "data" / "mine", **counts)
    half = photograph(99)
    (data / "train" / "NORMAL" / "IM-0900-0001.jpeg").write_bytes(half[: len(half) // 2])
    (data / "train" / "PNEUMONIA" / MARKUP).write_bytes(b"")
    (story.clone.root / "notes.h5").write_text("no weights at all", encoding="utf-8")

    source = story.clone.notebooks / "02_preprocessing.ipynb"
    whole = source.read_bytes()
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.insert(2, nbformat.v4.new_code_cell("# just a moment\nlayers = {'last': 3}\nlayers['first']"))
    nbformat.write(notebook, source)
    words = ["--profile", "smoke", "--data", "data/mine", "--name", "story", "--set", "weights=notes.h5"]
    story.call("a cell raises", *words)
    source.write_bytes(whole)
    story.call("bad weights", "--name", "story", "--resume")
    (story.clone.reports / "story" / "splits.csv").unlink()
    story.call("missing input", "--name", "story", "--only", "03")
    return story


def test_notebook_that_raises_stops_the_run_and_keeps_what_came_before(story):
    done, folder = story.calls["a cell raises"], story.folders["a cell raises"]
    said = one_sentence(done, 1)
    assert said.startswith("02_preprocessing stopped at cell 2 (layers = {'last': 3}): KeyError: 'first'")
    assert said.rstrip().endswith("python -m helpers.run --name story --resume")
    assert re.search(r"^01_eda +done", done.stdout, re.MULTILINE)
    assert "03_training" not in done.stdout
    for stem in ("01_eda", "02_preprocessing"):
        assert (folder / f"{stem}.html").exists()
    assert not (folder / "03_training.html").exists()
    page = (folder / "02_preprocessing.html").read_text(encoding="utf-8")
    assert page.count('class="output error"') == 1
    assert "(most recent call last)" in page
    assert "stopped at" in page
    assert 'class="output error"' not in (folder / "01_eda.html").read_text(encoding="utf-8")
    assert "stopped at" in (folder / "index.html").read_text(encoding="utf-8")


def test_unreadable_images_are_left_out_with_the_reason_and_a_run_goes_on(story):
    manifest = pd.read_csv(story.folders["a cell raises"] / "manifest.csv", keep_default_na=False).set_index("path")
    excluded = manifest[manifest["excluded"]]
    assert set(excluded.index) == {"train/NORMAL/IM-0900-0001.jpeg", f"train/PNEUMONIA/{MARKUP}"}
    assert excluded["why"].str.startswith("unreadable: ").all()
    assert "0 bytes" in excluded.loc[f"train/PNEUMONIA/{MARKUP}", "why"]
    assert (excluded[["width", "height"]] == 0).all(axis=None)
    splits = pd.read_csv(story.folders["bad weights"] / "splits.csv")
    assert set(splits["path"]) == set(manifest.index) - set(excluded.index)
    for stem, folder in (("01_eda", "a cell raises"), ("02_preprocessing", "bad weights")):
        page = (story.folders[folder] / f"{stem}.html").read_text(encoding="utf-8")
        assert "unreadable" in page
        assert str(story.clone.root) not in page


def test_a_file_name_is_text_and_never_markup_in_a_report(story):
    for folder in story.folders.values():
        pages = {page.name: page.read_text(encoding="utf-8") for page in folder.glob("*.html")}
        assert "&lt;img src=x onerror=alert(1)&gt;.png" in pages["01_eda.html"]
        assert not [name for name, page in pages.items() if "<img src=x" in page]


def test_weights_of_something_else_are_named(story):
    done = story.calls["bad weights"]
    said = one_sentence(done, 1)
    assert "03_training stopped" in said
    assert "notes.h5 does not hold weights of SmallCNN" in said
    assert str(story.clone.root) not in said
    assert re.search(r"^01_eda +skipped", done.stdout, re.MULTILINE)
    assert re.search(r"^02_preprocessing +runs: it failed", done.stdout, re.MULTILINE)
    record = json.loads((story.folders["bad weights"] / "run.json").read_text(encoding="utf-8"))
    found = {stem[:2]: entry["status"] for stem, entry in record["notebooks"].items()}
    assert found == {"01": "done", "02": "done", "03": "failed"} | dict.fromkeys(["04", "05", "06", "07"], "pending")
    assert record["notebooks"]["03_training"]["failure"]["message"] in said


def test_notebook_without_its_input_says_which_to_run_first(story):
    said = one_sentence(story.calls["missing input"], 1)
    assert "03_training stopped" in said
    assert "splits.csv is missing in reports/story: run 02_preprocessing first." in said


# others


def test_one_class_only_is_said_in_words(clone):
    data = write_dataset(clone.root / "data" / "mine", train_NORMAL=6, train_PNEUMONIA=0, test_NORMAL=2)
    (data / "train" / "PNEUMONIA" / "person1_virus_1.jpeg").write_bytes(b"damaged")
    said = one_sentence(clone.python("helpers.run", "--profile", "smoke", "--data", "data/mine", "--name", "one"), 1)
    assert re.match(r"0[12]_\w+ stopped", said), "before there is anything to train"
    assert "no usable image of PNEUMONIA" in said
    assert "both classes" in said


def write_model(folder: Path, **card: object) -> Path:
    folder.mkdir()
    (folder / "model.keras").write_bytes(b"half of a mod")
    (folder / "model.json").write_text(json.dumps({"format": 1, "sha256": "0" * 64} | card), encoding="utf-8")
    return folder


def test_damaged_model_is_refused_by_the_evaluation(clone):
    write_model(clone.root / "damaged")
    write_dataset(clone.root / "data" / "mine", test_NORMAL=2, test_PNEUMONIA=2)
    words = ["--from", "05", "--set", "model=damaged", "--data", "data/mine", "--name", "other"]
    said = one_sentence(clone.python("helpers.run", "--profile", "smoke", *words), 1)
    assert "05_evaluation stopped" in said
    assert "model.keras does not fit the checksum in model.json" in said
    assert str(clone.root) not in said
    assert statuses(clone, "other") == {"05": "failed", "06": "pending", "07": "pending"}
