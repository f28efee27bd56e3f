"""No stale result: whatever setting changes, each stage runs again, or its result is the same bytes as anew."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers import config, model, training
from helpers.config import FIELDS, Settings, make_settings
from helpers.run import state
from tests import notebook_code
from tests.run.test_contracts import load
from tests.run.test_notebooks import STEMS

BASE = {"image_size": 32, "weights": "none", "dense_units": 8, "batch_size": 8, "head_epochs": 1, "head_rate": 0.03}
BASE |= {"fine_tuning_epochs": 1, "fine_tuning_rate": 0.01, "unfrozen_layers": 3, "validation_views": 1}
MORE_EPOCHS = {"head": "head_epochs", "fine_tuning": "fine_tuning_epochs"}  # with more, `fit` goes on: tested there
ELSEWHERE = {"data": "elsewhere", "model": "m", "weights": "imagenet", "threshold_policy": "youden"}
ELSEWHERE["fold"] = "1/4"


def another(settings: Settings, name: str) -> object:
    """A possible value of the setting `name` that is not the one of `settings`."""
    value, meta = getattr(settings, name), FIELDS[name].metadata
    choices = tuple(config.PROFILES) if name == "profile" else meta["choices"]
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    if choices:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value < meta["high"] else value - 1
    return (value + meta["high"]) / 2 if value < meta["high"] else meta["low"]


@pytest.mark.parametrize("cached_views", [0, 2])
def test_a_setting_that_is_in_no_key_changes_nothing_in_training(tmp_path, cached_views):
    settings = make_settings("smoke", BASE | {"cached_views": cached_views})
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32), dtype=np.uint8)
    sides, labels = ["train"] * 16 + ["validation"] * 8, ["NORMAL", "PNEUMONIA"] * 12
    splits = pd.DataFrame({"path": [f"{i:02d}.png" for i in range(24)], "split": sides, "label": labels})

    def trained(stage: str, chosen: Settings, start: Path | None, name: str) -> list[np.ndarray]:
        keras.utils.set_random_seed(0)
        classifier = notebook_code.add_head(model.build_backbone(settings), settings)
        if start:
            classifier.load_weights(start)
        best, history = notebook_code.train_stage(classifier, stage, images, splits, chosen, tmp_path / name)
        classifier.save_weights(tmp_path / f"{name}.weights.h5")
        return [*best.get_weights(), history[["val_loss", "val_auc"]].to_numpy()]

    for stage, start in (("head", None), ("fine_tuning", tmp_path / "head.weights.h5")):
        key = training.stage_key(stage, images, splits, settings)
        changed = {}
        for name in FIELDS:
            value = another(settings, name)
            if training.stage_key(stage, images, splits, replace(settings, **{name: value})) == key:
                changed[name] = value
        assert {"threshold_policy", "resamples", "explained", MORE_EPOCHS[stage]} <= changed.keys()
        del changed[MORE_EPOCHS[stage]]
        before = trained(stage, settings, start, stage)
        after = trained(stage, replace(settings, **changed), start, f"{stage} anew")
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True)), list(changed)


def result(file: Path) -> bytes | dict:
    """What a file says, without what tells one saving from another: a model's weights, its card but the checksum."""
    if file.suffix == ".keras":
        return zipfile.ZipFile(file).read("model.weights.h5")
    return load(file) | {"sha256": ""} if file.name == "model.json" else file.read_bytes()


def dirty_home(home: Path) -> dict[str, str]:
    """A home full of other people's settings, and the variables of a session in it."""
    files = {
        ".keras/keras.json": '{"backend": "torch", "floatx": "float64", "image_data_format": "channels_first"}',
        ".ipython/profile_default/startup/00.py": "print('dirty')\nimport numpy as np\nnp.random.seed = None",
        ".ipython/profile_default/ipython_config.py": "c.InteractiveShellApp.exec_lines = ['1 / 0']",
        ".config/matplotlib/matplotlibrc": "font.size: 31\nimage.cmap: flag\nlines.linewidth: 9",
        ".local/share/jupyter/kernels/python3/kernel.json": '{"argv": ["false"], "display_name": "foreign"}',
        ".local/share/jupyter/nbconvert/templates/base/display_priority.j2": "nothing",
        ".jupyter/jupyter_config.json": '{"NotebookClient": {"timeout": 1}, "ExecutePreprocessor": {"timeout": 1}}',
        ".jupyter/jupyter_nbconvert_config.py": "c.HTMLExporter.exclude_input = True",
        "startup.py": "raise SystemExit('of PYTHONSTARTUP')",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    paths = {"HOME": home, "USERPROFILE": home, "PYTHONSTARTUP": home / "startup.py"}
    paths |= {"JUPYTER_PATH": home / ".local/share/jupyter", "MATPLOTLIBRC": home / ".config/matplotlib/matplotlibrc"}
    return {name: str(path) for name, path in paths.items()} | {"KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "1"}


def pictures(notebook: Path) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [o.data["image/png"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]


def test_another_clone_home_and_later_settings_give_equal_bytes(smoke, clone, tmp_path):
    """Another person's run, who gives each notebook other settings of all notebooks after it."""
    own, home, later = make_settings("smoke"), dirty_home(tmp_path / "home"), {}
    for stem in STEMS[:5]:
        names = {name for name, field in FIELDS.items() if field.metadata["notebook"] > stem[:2]}
        names -= {"recipe", "model"}  # names of what is set here one by one; and another run than one with a training
        changed = {name: another(own, name) for name in sorted(names)}
        changed |= {"backbone": "SmallCNN"} if "backbone" in names else {}  # others would have to be downloaded
        changed |= {"weights": "none"} if "weights" in names else {}
        changed |= {"unfrozen_layers": -1} if "unfrozen_layers" in names else {}  # which `frame` needs
        later = {name: getattr(own, name) for name in later} | changed  # what was later is now as in the other run
        words = [f"{name}={value}" for name, value in later.items()]
        again = ("--profile", "smoke", "--name", "again", "--only", stem[:2])
        done = clone.python("helpers.run", *again, "--set", *words, **home)
        assert done.returncode == 0, done.stderr
        for name in state.WRITES[stem[:2]]:
            if (name, stem) != ("model/model.json", "04_fine_tuning"):  # 05 has completed that of the first run
                assert result(clone.reports / "again" / name) == result(smoke.folder / name), (name, changed)
    for stem in ("01_eda", "05_evaluation"):
        executed = clone.reports / "again" / f"{stem}.ipynb"
        assert pictures(executed) == pictures(smoke.folder / f"{stem}.ipynb")
        assert "dirty" not in executed.read_text(encoding="utf-8")
        page = executed.with_suffix(".html").read_text(encoding="utf-8")
        assert page.count("<details") == (smoke.folder / f"{stem}.html").read_text(encoding="utf-8").count("<details")
    wanted = {"backend": "tensorflow", "floatx": "float32", "image_data_format": "channels_last"}
    assert clone.record("again")["keras"] == wanted


def test_every_notebook_runs_again_for_the_settings_it_reads(smoke):
    notebooks = sorted(smoke.clone.notebooks.glob("0*.ipynb"))
    entries, before = smoke.clone.record(smoke.name)["notebooks"], make_settings("smoke")

    def keys(settings: Settings) -> list[str]:
        found = state.inputs(notebooks, settings, smoke.folder, "", entries)
        return [found[notebook.stem]["key"] for notebook in notebooks]

    for name, field in FIELDS.items():
        now = keys(replace(before, **{name: another(before, name)}))
        again = [a.stem[:2] for a, one, other in zip(notebooks, keys(before), now, strict=True) if one != other]
        wanted = [notebook.stem[:2] for notebook in notebooks if notebook.stem[:2] >= field.metadata["notebook"]]
        assert again == (["01"] if name == "data" else wanted), name  # a dataset counts by what 01 finds in it
