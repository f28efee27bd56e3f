"""The prediction page of notebook 07: images in; probability, decision, heatmap and a table of the session out."""

from __future__ import annotations

import html
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from IPython.display import display

from helpers import images, predict
from helpers.config import InputError
from helpers.page import answer, session
from helpers.page.answer import Answer
from helpers.page.layout import GUESSES, NO_READING, Layout
from helpers.page.samples import PHANTOM, Gallery
from helpers.page.still import STYLE, still_picture
from helpers.page.upload import Upload
from helpers.page.viewer import Viewer, heat_bytes, png, reduced

_MOST_ROWS = 500  # of the session's table
_WORKER = "predictions"  # name of the thread


class App(Layout):
    """The page of one person. It holds the predictor, the samples, and small pictures of what was predicted.

    Predictions run in a thread of their own, one after the other, so that the page goes on answering. Nothing that is
    uploaded is written to disk.
    """

    def __init__(self, predictor: predict.Predictor, samples: dict[str, Path | bytes], name: str = ""):
        self.predictor, self.samples, self.name = predictor, samples, name
        predictor.trace()
        self.answers: list[Answer] = []
        self.worker = ThreadPoolExecutor(1, _WORKER)
        self._drawing = threading.RLock()  # the worker and the person's own events draw on one page
        self._waiting = 0  # images handed to the worker and not yet answered
        self._staying = False  # the person looks at an earlier image
        self.order = list(np.random.default_rng(7).permutation(list(samples)))  # thumbnails do not tell the classes
        prevalence = ((predictor.card.get("metrics") or {}).get("test") or {}).get("prevalence", 0.5)
        gallery = Gallery([samples[title] for title in self.order], self.choose)
        parts = Upload(self._on_upload), gallery, Viewer(self.show_next_uncertain)
        super().__init__(parts, predictor.threshold, prevalence)
        for button, reading in zip(self.guesses, GUESSES.values(), strict=True):
            button.on_click(lambda _, reading=reading: self._reveal(reading))
        self.chosen.observe(self._on_chosen, "value")
        self.next.on_click(lambda _: self.show_next_uncertain())
        self.age.observe(self._on_age, "value")
        self.reading.observe(self._on_reading, "value")
        self.viewer.observe(lambda _: self._show(), "method")
        for control in (self.threshold, self.prevalence, self.separator):
            control.observe(lambda _: self._decide(), "value")
        self.reset.on_click(lambda _: setattr(self.threshold, "value", predictor.threshold))

    def show(self) -> None:
        """Display the page, with a still picture of a sample for reports, which have no kernel."""
        page = self.lay_out(STYLE + self.lead(), f"<div class='xray'><p>{html.escape(self.describe_model())}</p></div>")
        still = self.worker.submit(self._still)
        # nobody sees it there, and the first prediction, the slowest, is made
        on_page = os.environ.get("PNEUMONIA_MODEL")
        note = "<p><em>A still picture: in JupyterLab or with make app, this is where you choose or upload.</em></p>"
        text = {"text/html": note + ("" if on_page else still.result()), "text/plain": "the prediction page"}
        display(page._repr_mimebundle_() | text, raw=True)

    def _still(self) -> str:
        if not self.samples:
            return ""
        title, source = next(reversed(self.samples.items()))
        shown, method = self._predict(Answer(title), source), self.viewer.method
        if not shown.error:
            self._explain(shown, method)
        return STYLE + self._describe(shown) + still_picture(shown, method)

    def describe_model(self) -> str:
        """Which model this is, and what is known about its worth."""
        return f"{f'Model: {self.name}. ' if self.name else ''}{answer.describe_model(self.predictor.card)}"

    def lead(self) -> str:
        """For whom the model was made; and a caution where samples are phantoms and the model is of X-rays."""
        made_for = predict.made_for(self.predictor.card)
        adults = "On adults it calls almost every film pneumonia. " if "children" in made_for else ""
        lead = f"<b>Made for {made_for}.</b> {adults}Not a medical device."
        drawn = any(title.startswith(PHANTOM) for title in self.samples) and not self.predictor.card.get("phantoms")
        caution = "The samples are drawn by code, not X-rays: they show how the page works, not how good the model is."
        return f"<div class='xray'><p>{lead} {caution if drawn else ''}</p></div>"

    def choose(self, number: int) -> Future:
        """Predict the sample of this number; the answer is hidden until the person has read the image."""
        title = self.order[number]
        self._staying = False
        return self.add(f"Sample {number + 1}", self.samples[title], title)

    def add(self, file: str, source: Path | bytes, truth: str = "") -> Future:
        """Predict one image in the background, then show it, unless the person looks at an earlier one meanwhile."""
        with self._drawing:
            self._waiting += 1
            self._say_waiting()
        return self.worker.submit(self._guarded, self._add, Answer(file, truth=truth, hidden=bool(truth)), source)

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
            text = html.escape(str(error) or type(error).__name__)
            self.status.value = f"<div class='xray' role='alert'><b>This did not work:</b> {text}</div>"
            raise

    def _add(self, given: Answer, source: Path | bytes) -> None:
        try:
            found = self._predict(given, source)
        finally:
            with self._drawing:
                self._waiting -= 1
        with self._drawing:
            self.answers = [*self.answers, found][-_MOST_ROWS:]
            kept = self.chosen.value if self._staying and self.chosen.value in self.answers else found
            self.chosen.options = [(f"{i}: {a.file}", a) for i, a in enumerate(self.answers, start=1)]
            self.chosen.value = kept
            self._say_waiting()
            self._show()

    def _predict(self, found: Answer, source: Path | bytes) -> Answer:
        start = time.perf_counter()
        try:
            decoded = images.read(source)
        except InputError as error:
            found.error = str(error).replace("the image", "this file", 1) if isinstance(source, bytes) else str(error)
            found.hidden = False
            return found
        found.prediction = next(self.predictor.predict_decoded([decoded]))
        found.picture = png(reduced(decoded.pixels))
        found.seconds = time.perf_counter() - start
        return found

    def _on_upload(self, file: str, content: bytes, first: bool) -> Future:
        if first:
            self._staying = False
        return self.add(file, content)

    def _on_chosen(self, change: dict) -> None:
        if threading.current_thread().name.startswith(_WORKER):
            return  # listed anew by us, not chosen by the person
        with self._drawing:
            self.chosen.value = picked = change["new"]  # the list may have been made anew meanwhile
            self._staying = picked is not self.answers[-1]
            self._say_waiting()  # in place of a word about the image before
            self._show()

    def show_next_uncertain(self) -> None:
        """Show the next image, from here and round to here, whose answer is uncertain; stay where there is none."""
        with self._drawing:
            if self.chosen.value is None:
                return
            here = self.answers.index(self.chosen.value)
            for found in self.answers[here + 1 :] + self.answers[: here + 1]:
                if not found.prediction or found.hidden:
                    continue
                if answer.decision(found.prediction, self.predictor.card, self._at()) == "uncertain":
                    self.chosen.value = found
                    return
            self.status.value = "<div class='xray' role='status'>No answer of this session is uncertain.</div>"

    def _on_age(self, change: dict) -> None:
        shown, text = self.chosen.value, change["new"].strip()
        try:
            age = predict.parse_age(text) if text else None
        except InputError as error:
            said = f"{str(error).removesuffix('.').capitalize()}; or leave it empty."
            self.status.value = f"<div class='xray' role='alert'>{said}</div>"
            return
        if shown is not None and shown.age != age:
            shown.age = age
            self._say_waiting()
            self._decide()

    def _on_reading(self, change: dict) -> None:
        shown, reading = self.chosen.value, "" if change["new"] == NO_READING else change["new"]
        if shown is not None and shown.reading != reading:
            shown.reading = reading
            self._decide()

    def _reveal(self, reading: str) -> None:
        with self._drawing:
            shown = self.chosen.value
            shown.hidden, shown.reading = False, reading
            self._show()

    def _show(self) -> None:
        with self._drawing:
            shown, method = self.chosen.value, self.viewer.method
            if shown is None:
                return
            self.age.value = "" if shown.age is None else f"{shown.age:g}"
            self.reading.value = shown.reading or NO_READING
            self._decide()
            heat = shown.heat.get(method)
            with self.viewer.hold_sync():
                self.viewer.picture = shown.picture
                self.viewer.seen = png(shown.prediction.pixels) if shown.prediction else b""
                self.viewer.heat = b"" if heat is None else heat_bytes(heat)
            if shown.prediction and heat is None:
                self.worker.submit(self._guarded, self._explain, shown, method)

    def _explain(self, shown: Answer, method: str) -> None:
        if shown.prediction and method not in shown.heat:
            shown.heat[method] = self.predictor.heatmap(shown.prediction, method)
        with self._drawing:
            if shown is self.chosen.value and method == self.viewer.method:
                self.viewer.heat = heat_bytes(shown.heat[method])

    def _decide(self) -> None:
        """Write anew all that depends on the threshold, and on what the person noted."""
        with self._drawing:
            shown, card = self.chosen.value, self.predictor.card
            if shown is None:
                return
            self.page.add_class("xray-answered")
            self.table.value = session.as_html(self.rows(), self.separator.value)
            self.answer.value = self._describe(shown)
            self.viewer.hidden = shown.hidden
            self.viewer.report = answer.report(shown, card, self._at(), self.name)
            readable = shown.prediction is not None and not shown.hidden
            if readable:
                parts = [
                    answer.describe_frequency(card, shown.prediction.probability),
                    answer.describe_operating_point(card, self._at()),
                    answer.describe_prevalence(card, self._at(), self.prevalence.value / 100),
                    f"This image took {shown.seconds:.1f} s.",
                ]
                text = "".join(f"<p>{html.escape(part)}</p>" for part in parts if part)
                self.meaning.value = f"<div class='xray'>{text}</div>"
            for part, there in self.appearing(readable, shown.hidden):
                part.layout.display = None if there else "none"

    def _at(self) -> float:
        """The threshold that is set; the slider goes in steps, and the nearest to the model's own stands for that."""
        own = self.predictor.threshold
        return own if abs(self.threshold.value - own) < 0.0006 else self.threshold.value

    def _describe(self, shown: Answer) -> str:
        return answer.describe(shown, self.predictor.card, self._at())

    def rows(self) -> list[dict[str, str]]:
        """The session so far, a row of text per image, with the columns of the CSV file."""
        return session.rows(self.answers, self.predictor.card, self._at())
