"""What notebooks write out, for tests and benchmarks: the head, what learns and how it is compiled are their cells."""

from __future__ import annotations

import functools

import keras
import nbformat
import pandas as pd

from helpers import config, model, training
from helpers.config import Settings


@functools.cache
def cell(stem: str, name: str) -> str:
    """The source of the cell whose id is `name`."""
    notebook = nbformat.read(config.NOTEBOOKS / f"{stem}.ipynb", as_version=nbformat.NO_CONVERT)
    return next(cell.source for cell in notebook.cells if cell.id == name)


def _run(stem: str, name: str, **given: object) -> dict:
    namespace = {"keras": keras, "layers": keras.layers, "model": model, "training": training} | given
    exec(cell(stem, name), namespace)
    return namespace


def add_head(backbone: keras.Model, settings: Settings) -> keras.Model:
    """The classifier of notebook 03: its head on a frozen `backbone`."""
    return _run("03_training", "head", backbone=backbone, settings=settings)["classifier"]


def unfreeze(classifier: keras.Model, unfrozen: int) -> None:
    """What notebook 04 lets learn with the setting `unfrozen_layers`."""
    _run("04_fine_tuning", "unfreeze", classifier=classifier, settings=Settings(unfrozen_layers=unfrozen))


def compile_stage(classifier: keras.Model, stage: str, settings: Settings, images: int = 32) -> None:
    """As notebook 03 ("head") or 04 ("fine_tuning") compiles it, for epochs of so many images."""
    given = {"classifier": classifier, "settings": settings, "train": range(images)}
    _run({"head": "03_training", "fine_tuning": "04_fine_tuning"}[stage], "compile", **given)


def train_stage(
    classifier: keras.Model, stage: str, images, splits: pd.DataFrame, settings: Settings, run
) -> tuple[keras.Model, pd.DataFrame]:
    """A whole stage: what learns, compiled, trained."""
    unfreeze(classifier, 0 if stage == "head" else settings.unfrozen_layers)
    compile_stage(classifier, stage, settings, int((splits["split"] == "train").sum()))
    return training.train_stage(classifier, stage, images, splits, settings, run)
