"""The prediction page of notebook 07: images in; probability, decision, heatmap and a table of the sitting out."""

from __future__ import annotations

import html
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.display import display

from helpers import config, dataset, explain, images, phantom, predict
from helpers.config import InputError, Settings
from helpers.page import answer
from helpers.page.answer import Answer
from helpers.page.upload import Upload

PHANTOM = "phantom "  # how the title of a drawn sample begins
_MOST_ROWS = 500  # of the sitting's table
_NO_SAMPLE = "choose a sample"
_WORKER = "predictions"  # name of the thread


def find_model(settings: Settings, run: Path) -> Path:
    """The model folder to use: the setting `model`, else the run's own, else data/pretrained. InputError: none.

    The page has no run and no parameters: there the environment variable PNEUMONIA_MODEL comes before the run's own.
    """
    named = settings.model or os.environ.get("PNEUMONIA_MODEL", "")
    folders = [Path(named)] if named else [run / "model", config.PRETRAINED]
    for folder in folders:
        if (folder / "model.json").is_file():
            return folder
    raise InputError(f"there is no model in {' or '.join(map(str, folders))}: run the notebooks 01 to 05 first.")


def find_samples(settings: Settings, count: int = 4) -> dict[str, Path | bytes]:
    """Up to `count` readable images of each class, evenly picked: title -> file. Of test, where the dataset has one.

    Where there is no dataset: as many phantoms, drawn now: title -> PNG bytes. The page has no parameters: there the
    environment variable PNEUMONIA_DATA names the dataset.
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
        files = [root / path for path, _, of in listed if of == label]
        parts = np.array_split(np.arange(len(files)), min(count, len(files)) or 1)
        found = [next((files[i] for i in part if _readable(files[i])), None) for part in parts]
        for number, file in enumerate(filter(None, found), start=1):
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
            samples[title.replace("  ", " ")] = answer.png(film)
    return samples


def _readable(file: Path) -> bool:
    try:
        images.read_image(file)
    except InputError:
        return False
    return True


class App:
    """The page of one person. It holds the predictor, the samples, and small pictures of what was predicted.

    Predictions run in a thread of their own, one after the other, so that the page goes on answering. Nothing that is
    uploaded is written to disk.
    """

    def __init__(self, predictor: predict.Predictor, samples: dict[str, Path | bytes], name: str = ""):
        self.predictor, self.samples, self.name = predictor, samples, name
        self.answers: list[Answer] = []
        self.worker = ThreadPoolExecutor(1, _WORKER)
        self._drawing = threading.RLock()  # the worker and the person's own events draw on one page
        self._waiting = 0  # images handed to the worker and not yet answered
        self._staying = False  # the person looks at an earlier image
        self.upload = Upload(self._on_upload, ",".join(config.SUFFIXES))
        style, wide = {"description_width": "90px"}, {"width": "min(560px, 98%)"}
        self.sample = widgets.Dropdown(options=[_NO_SAMPLE, *samples], description="Sample", style=style, layout=wide)
        self.chosen = widgets.Dropdown(options=[], description="Shown", style=style, layout=wide)
        self.method = widgets.Dropdown(options=list(explain.METHODS), description="Heatmap", style=style, layout=wide)
        self.opacity = widgets.FloatSlider(
            0.6, min=0, max=1, step=0.05, description="Opacity", style=style, layout=wide
        )
        self.threshold = widgets.FloatSlider(
            predictor.threshold, min=0, max=1, step=0.001, description="Threshold", readout_format=".3f",
            style=style, layout=wide,
        )  # fmt: skip
        self.reset = widgets.Button(description="The model's own threshold", layout=widgets.Layout(width="220px"))
        self.status = widgets.HTML()
        self.answer = widgets.HTML(
            f"<div class='xray'>Choose a sample, or upload JPEG, PNG or DICOM files. {self._drawn()}</div>"
        )
        self.pictures, self.cover, self.table = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.controls = widgets.VBox([self.method, self.opacity, self.threshold, self.reset])
        for later in (self.chosen, self.controls):  # nothing to control before the first answer
            later.layout.display = "none"
        self.sample.observe(self._on_sample, "value")
        self.chosen.observe(self._on_chosen, "value")
        self.method.observe(lambda _: self._show(), "value")
        self.opacity.observe(lambda _: self._set_opacity(), "value")
        self.threshold.observe(lambda _: self._decide(), "value")
        self.reset.on_click(lambda _: setattr(self.threshold, "value", self.predictor.threshold))
        self._set_opacity()

    def show(self) -> None:
        """Display the page, with a still picture of a sample for reports, which have no kernel."""
        page = widgets.VBox(
            [
                widgets.HTML(answer.STYLE), self.cover,
                widgets.HTML(f"<div class='xray'><p>{html.escape(self.worth())}</p></div>"),
                self.upload, self.sample, self.chosen, self.status,
                self.answer, self.pictures, self.controls, self.table,
            ]
        )  # fmt: skip
        page.add_class("xray-page")
        still = ""
        if self.samples:
            title, source = next(reversed(self.samples.items()))
            shown = self._predict(title, source)
            still = answer.STYLE + self._describe(shown) + answer.draw(shown, self.method.value)
        note = "<p><em>A still picture: in JupyterLab or with make app, this is where you choose or upload.</em></p>"
        display(page._repr_mimebundle_() | {"text/html": note + still, "text/plain": "the prediction page"}, raw=True)

    def worth(self) -> str:
        """Which model this is, and what is known about its worth."""
        return f"{f'Model: {self.name}. ' if self.name else ''}{answer.worth(self.predictor.card)}"

    def _drawn(self) -> str:
        """A caution where samples are phantoms and the model is not of phantoms."""
        if self.predictor.card.get("phantoms") or not any(title.startswith(PHANTOM) for title in self.samples):
            return ""
        return "The samples are drawn by code, not X-rays: they show how the page works, not how good the model is."

    def add(self, file: str, source: Path | bytes) -> Future:
        """Predict one image in the background, then show it, unless the person looks at an earlier one meanwhile."""
        with self._drawing:
            self._waiting += 1
            self._say_waiting()
        return self.worker.submit(self._guarded, self._add, file, source)

    def _say_waiting(self) -> None:
        images_left = f"{self._waiting} images" if self._waiting > 1 else "the image"
        self.status.value = (
            f"<div class='xray' role='status'>Looking at {images_left} ...</div>" if self._waiting else ""
        )

    def _guarded(self, work: Callable, *given) -> None:
        """Run `work`; what goes wrong in a thread would else be lost without a word."""
        try:
            work(*given)
        except Exception as error:
            text = html.escape(f"{type(error).__name__}: {error}")
            self.status.value = f"<div class='xray' role='alert'><b>This did not work:</b> {text}</div>"
            raise

    def _add(self, file: str, source: Path | bytes) -> None:
        try:
            found = self._predict(file, source)
        finally:
            with self._drawing:
                self._waiting -= 1
        with self._drawing:
            self.answers = [*self.answers, found][-_MOST_ROWS:]
            kept = self.chosen.value if self._staying and self.chosen.value in self.answers else found
            self.chosen.options = [(f"{i}: {a.file}", a) for i, a in enumerate(self.answers, start=1)]
            self.chosen.value = kept
            for hidden in (self.chosen, self.controls):
                hidden.layout.display = None
            self._draw_table()
            self._show()
            self._say_waiting()

    def _predict(self, file: str, source: Path | bytes) -> Answer:
        start, found, method = time.perf_counter(), Answer(file), self.method.value
        try:
            decoded = images.read(source)
        except InputError as error:
            found.error = str(error).replace("the image", "this file", 1) if isinstance(source, bytes) else str(error)
            return found
        found.prediction = next(self.predictor.predict_decoded([decoded]))
        found.heat[method] = self.predictor.heatmap(found.prediction, method)
        found.picture = answer.reduced(decoded.pixels)
        found.seconds = time.perf_counter() - start
        return found

    def _on_sample(self, change: dict) -> None:
        if change["new"] in self.samples:
            self._staying = False
            self.add(change["new"], self.samples[change["new"]])

    def _on_upload(self, file: str, content: bytes, first: bool) -> Future:
        self.sample.value = _NO_SAMPLE  # what is shown is no sample any more, and each can be chosen anew
        if first:
            self._staying = False
        return self.add(file, content)

    def _on_chosen(self, change: dict) -> None:
        if threading.current_thread().name.startswith(_WORKER):
            return  # listed anew by us, not chosen by the person
        with self._drawing:
            self.chosen.value = picked = change["new"]  # the list may have been made anew meanwhile
            self._staying = picked is not self.answers[-1]
            self._show()

    def _show(self) -> None:
        with self._drawing:
            shown, method = self.chosen.value, self.method.value
            if shown is None:
                return
            self.answer.value = self._describe(shown)
            if shown.error or method in shown.heat:
                self.pictures.value = answer.draw(shown, method)
            else:
                self.pictures.value = answer.draw(shown)
                self.worker.submit(self._guarded, self._explain, shown, method)

    def _explain(self, shown: Answer, method: str) -> None:
        shown.heat[method] = self.predictor.heatmap(shown.prediction, method)
        if shown is self.chosen.value and method == self.method.value:
            self._show()

    def _decide(self) -> None:
        with self._drawing:
            self._draw_table()
            if self.chosen.value is not None:
                self.answer.value = self._describe(self.chosen.value)

    def _set_opacity(self) -> None:
        self.cover.value = f"<style>.xray-heat {{ opacity: {self.opacity.value:.2f}; }}</style>"

    def _at(self) -> float:
        """The threshold that is set; the slider goes in steps, and the nearest to the model's own stands for that."""
        own = self.predictor.threshold
        return own if abs(self.threshold.value - own) < 0.0006 else self.threshold.value

    def _describe(self, shown: Answer) -> str:
        return answer.describe(shown, self.predictor.card, self._at())

    def rows(self) -> list[dict[str, str]]:
        """The sitting so far, a row of text per image, with the columns of the CSV file."""
        return answer.rows(self.answers, self.predictor.card, self._at())

    def _draw_table(self) -> None:
        if self.answers:
            self.table.value = answer.sitting(self.rows())
