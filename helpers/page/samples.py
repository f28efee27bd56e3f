"""What the page starts from: a model, samples to try it on, and the thumbnails they are chosen by."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anywidget
import numpy as np
import pandas as pd
import traitlets
from scipy.special import logit

from helpers import config, dataset, images, phantom
from helpers.config import InputError, Settings
from helpers.page.viewer import png, reduced

PHANTOM = "phantom "  # how the title of a drawn sample begins


def find_model(settings: Settings, run: Path) -> Path:
    """Find the model folder to use: the setting `model`, else the run's own, else data/pretrained.

    The page has no run and no parameters: there the environment variable PNEUMONIA_MODEL comes before the run's own.

    Parameters
    ----------
    settings : Settings
        `model` names a folder. Where it or the variable does, no other folder is tried.
    run : Path
        The run folder; its model is in model/.

    Returns
    -------
    Path
        A folder with a model.json, which is not read yet.

    Raises
    ------
    InputError
        Where none of these folders has one.
    """
    named = settings.model or os.environ.get("PNEUMONIA_MODEL", "")
    folders = [config.expanded(named)] if named else [run / "model", config.PRETRAINED]
    for folder in folders:
        if (folder / "model.json").is_file():
            return folder
    raise InputError(f"there is no model in {' or '.join(map(str, folders))}: run the notebooks 01 to 05 first.")


def find_samples(
    settings: Settings, count: int = 4, predictions: pd.DataFrame | None = None
) -> dict[str, Path | bytes]:
    """Pick readable images of each class to try the page on; of test, where the dataset has one.

    They are picked evenly, in the order of their paths or, with `predictions`, over the range of the logits, the most
    wrong among them. Where there is no dataset, phantoms are drawn instead.

    Parameters
    ----------
    settings : Settings
        They name the dataset. The environment variable PNEUMONIA_DATA, where set, names another: the page has no
        parameters.
    count : int
        How many of each class, at least 1.
    predictions : DataFrame, optional
        predictions.csv of a run: columns path and probability, in [0, 1]. Images that it lacks are not picked.

    Returns
    -------
    dict
        Title -> Path, up to `count` of each class; such as "PNEUMONIA virus 1", with "phantom " before it where images
        are drawn. Where there is no dataset: title -> bytes of a PNG, `count` of each class.

    Raises
    ------
    InputError
        Where the folder holds several datasets, or something else where phantoms belong.
    """
    if named := os.environ.get("PNEUMONIA_DATA"):
        settings = config.make_settings("chest_xray", {"data": named})
    if not any(config.dataset_folder(settings).glob("*")):
        return _drawn_samples(count)
    root = dataset.find_root(settings)
    listed = sorted(dataset.image_files(root))
    listed = [row for row in listed if row[1] == "test"] or listed
    samples: dict[str, Path | bytes] = {}
    drawn = PHANTOM if (root / phantom.RECIPE).is_file() else ""
    for label in config.LABELS:
        paths = [path for path, _, of in listed if of == label]
        candidates = np.array_split(np.arange(len(paths)), min(count, len(paths)) or 1)  # for each sample, best first
        if predictions is not None:
            answers = predictions[predictions["path"].isin(paths)].sort_values("probability")
            paths, scores = answers["path"].tolist(), logit(answers["probability"].clip(1e-6, 1 - 1e-6).to_numpy())
            ends = scores[[0, -1]] if len(scores) else np.zeros(2)
            targets = np.linspace(ends[0], ends[1], min(count, len(scores)))
            candidates = [np.argsort(np.abs(scores - target), kind="stable") for target in targets]
        found: list[Path] = []
        for order in candidates:
            files = (root / paths[i] for i in order)
            best = next((file for file in files if file not in found and _readable(file)), None)
            found += [best] if best else []
        for number, file in enumerate(sorted(found), start=1):
            subtype = dataset.parse_name(file.name)[2]
            samples[f"{drawn}{label} {subtype} {number}".replace("  ", " ")] = file
    return samples


def _drawn_samples(count: int) -> dict[str, Path | bytes]:
    samples: dict[str, Path | bytes] = {}
    for label, findings in (("NORMAL", ["normal"]), ("PNEUMONIA", ["bacteria", "virus"])):
        for number in range(count):
            finding = findings[number % len(findings)]
            film, _ = phantom.draw(np.random.default_rng([7, number, len(findings)]), finding)
            title = f"{PHANTOM}{label} {finding if finding != 'normal' else ''} {number + 1}"
            samples[title.replace("  ", " ")] = png(film)
    return samples


def _readable(file: Path) -> bool:
    try:
        images.read_image(file)
    except InputError:
        return False
    return True


class Gallery(anywidget.AnyWidget):
    """Thumbnails of the samples; the number of one that is chosen is handed to `on_choice`."""

    _esm = Path(__file__).with_name("gallery.js")
    thumbnails = traitlets.List(traitlets.Bytes()).tag(sync=True)  # PNG

    def __init__(self, samples: list[Path | bytes], on_choice: Callable[[int], object]):
        super().__init__(thumbnails=[png(reduced(images.read_image(source), 112)) for source in samples])
        self.on_msg(lambda _, message, __: on_choice(int(message["sample"])))
