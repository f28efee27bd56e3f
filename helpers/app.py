"""The prediction page of notebook 07: images in; probability, decision, heatmap and a table of the sitting out."""

from __future__ import annotations

import base64
import csv
import html
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.display import display
from PIL import Image

from helpers import config, dataset, explain, images, phantom, predict
from helpers.config import InputError, Settings
from helpers.upload import Upload

_SHOWN_HEIGHT = 340  # pixels
_MOST_ROWS = 500  # of the sitting's table
_COLUMNS = ("file", "probability", "decision", "threshold", "warnings", "error", "seconds")
_STYLE = """<style>
.xray { font-size: 15px; line-height: 1.45; overflow-wrap: anywhere; }
.xray-scale { position: relative; height: 16px; max-width: 560px; margin: 10px 0 26px; border-radius: 8px;
  background: #e6e6e6; }
.xray-bar { height: 16px; border-radius: 8px; }
.xray-band { position: absolute; top: 0; height: 16px; background: #0003; }
.xray-mark { position: absolute; top: -4px; width: 2px; height: 24px; background: #000; }
.xray-mark span { position: absolute; top: 24px; left: -30px; width: 62px; text-align: center; font-size: 12px; }
.xray-pictures { display: flex; flex-wrap: wrap; gap: 10px; }
.xray-pictures figure { margin: 0; max-width: 100%; }
.xray-stack { position: relative; display: inline-block; max-width: 100%; }
.xray-stack img { display: block; max-width: 100%; }
.xray-stack img + img { position: absolute; inset: 0; width: 100%; height: 100%; }
.xray-heat { opacity: 0.6; }
.xray a { color: #1a5fb4; text-decoration: underline; }
.xray-table { overflow-x: auto; }
.xray-table td, .xray-table th { padding: 3px 10px; text-align: left; vertical-align: top; }
.xray table { border-collapse: collapse; } .xray tr + tr { border-top: 1px solid #ddd; }
</style>"""


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

    Where there is no dataset: as many phantoms, drawn now: title -> PNG bytes.
    """
    if not any(config.dataset_folder(settings).glob("*")):
        return _drawn_samples(count)
    root = dataset.find_root(settings)
    listed = sorted(dataset.image_files(root))
    listed = [row for row in listed if row[1] == "test"] or listed
    samples: dict[str, Path | bytes] = {}
    for label in dataset.LABELS:
        files = [root / path for path, _, of in listed if of == label]
        parts = np.array_split(np.arange(len(files)), min(count, len(files)) or 1)
        found = [next((files[i] for i in part if _readable(files[i])), None) for part in parts]
        for number, file in enumerate(filter(None, found), start=1):
            subtype = dataset.parse_name(file.name)[2]
            samples[f"{label} {subtype} {number}".replace("  ", " ")] = file
    return samples


def _drawn_samples(count: int) -> dict[str, Path | bytes]:
    samples: dict[str, Path | bytes] = {}
    for label, findings in (("NORMAL", ["normal"]), ("PNEUMONIA", ["bacteria", "virus"])):
        for number in range(count):
            finding = findings[number % len(findings)]
            film, _ = phantom.draw(np.random.default_rng([7, number, len(findings)]), finding)
            title = f"phantom {label} {finding if finding != 'normal' else ''} {number + 1}"
            samples[title.replace("  ", " ")] = _png(film)
    return samples


def _readable(file: Path) -> bool:
    try:
        images.read_image(file)
    except InputError:
        return False
    return True


def worth(card: dict) -> str:
    """In words: what was measured at the model's threshold, on how many images, and for whom the model was made."""
    return f"{_at_threshold(card)} Made for {predict.made_for(card)}. Not a medical device."


def _at_threshold(card: dict) -> str:
    if not _tested(card):
        return "Nothing has been measured at this model's threshold."
    words = _measured(*(_tested(card)[name]["value"] for name in ("sensitivity", "specificity")))
    return f"At its threshold of {card['threshold']:.3f} this model {words}, on {_tested(card)['n']} test images."


def _tested(card: dict) -> dict:
    return (card.get("metrics") or {}).get("test") or {}


def _measured(sensitivity: float | None, specificity: float | None) -> str:
    found, spared = (
        f"{100 * v:.0f} of 100" if v is not None else "an unknown share" for v in (sensitivity, specificity)
    )
    return f"found {found} pneumonias and left {spared} healthy images in peace"


@dataclass(eq=False)
class Answer:
    """What the page keeps of one image: small pictures, never the file."""

    file: str
    error: str = ""
    prediction: predict.Prediction | None = None
    picture: np.ndarray | None = None  # uint8 (h, w), about as large as it is shown
    seconds: float = 0.0
    heat: dict[str, np.ndarray] = field(default_factory=dict)  # method -> float32 (size, size)


class App:
    """The page of one person. It holds the predictor, the samples, and small pictures of what was predicted.

    Predictions run in a thread of their own, one after the other, so that the page goes on answering. Nothing that is
    uploaded is written to disk.
    """

    def __init__(self, predictor: predict.Predictor, samples: dict[str, Path | bytes], name: str = ""):
        self.predictor, self.samples, self.name = predictor, samples, name
        self.answers: list[Answer] = []
        self.worker = ThreadPoolExecutor(1)
        self.upload = Upload(self.add, ",".join(images.SUFFIXES))
        style, wide = {"description_width": "120px"}, widgets.Layout(width="min(560px, 98%)")
        self.sample = widgets.Dropdown(
            options=["choose a sample", *samples], description="Sample", style=style, layout=wide
        )
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
        self.answer = widgets.HTML("<div class='xray'>Choose a sample, or upload JPEG, PNG or DICOM files.</div>")
        self.pictures, self.cover, self.table = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.sample.observe(self._on_sample, "value")
        self.chosen.observe(lambda _: self._show(), "value")
        self.method.observe(lambda _: self._show(), "value")
        self.opacity.observe(lambda _: self._set_opacity(), "value")
        self.threshold.observe(lambda _: self._decide(), "value")
        self.reset.on_click(lambda _: setattr(self.threshold, "value", self.predictor.threshold))
        self._set_opacity()

    def show(self) -> None:
        """Display the page, with a still picture of a sample for reports, which have no kernel."""
        page = widgets.VBox(
            [
                widgets.HTML(_STYLE), self.cover, self.upload, self.sample, self.status, self.answer, self.pictures,
                self.chosen, self.method, self.opacity, self.threshold, self.reset,
                self.table, widgets.HTML(f"<div class='xray'><p>{html.escape(self.worth())}</p></div>"),
            ]
        )  # fmt: skip
        page.add_class("xray-page")
        still = ""
        if self.samples:
            title, source = next(reversed(self.samples.items()))
            answer = self._predict(title, source)
            still = _STYLE + self._describe(answer) + self._draw(answer)
        note = "<p><em>A still picture: in JupyterLab or with make app, this is where you choose or upload.</em></p>"
        display(page._repr_mimebundle_() | {"text/html": note + still, "text/plain": "the prediction page"}, raw=True)

    def worth(self) -> str:
        """Which model this is, and what is known about its worth."""
        return f"{f'Model: {self.name}. ' if self.name else ''}{worth(self.predictor.card)}"

    def add(self, file: str, source: Path | bytes) -> Future:
        """Predict one image in the background, then show it."""
        self.status.value = f"<div class='xray' role='status'>Looking at {html.escape(file)} ...</div>"
        return self.worker.submit(self._guarded, self._add, file, source)

    def _guarded(self, work: Callable, *given) -> None:
        """Run `work`; what goes wrong in a thread would else be lost without a word."""
        try:
            work(*given)
        except Exception as error:
            text = html.escape(f"{type(error).__name__}: {error}")
            self.status.value = f"<div class='xray' role='alert'><b>This did not work:</b> {text}</div>"
            raise

    def _add(self, file: str, source: Path | bytes) -> None:
        answer = self._predict(file, source)
        self.answers = [*self.answers, answer][-_MOST_ROWS:]
        self._draw_table()
        options = [(f"{i}: {a.file}", a) for i, a in enumerate(self.answers, start=1)]
        self.chosen.options = options[::-1]
        self.chosen.value = answer  # shows it
        self.status.value = ""

    def _predict(self, file: str, source: Path | bytes) -> Answer:
        start, answer = time.perf_counter(), Answer(file)
        try:
            decoded = images.read(source)
        except InputError as error:
            answer.error = str(error).replace("the image", "this file", 1) if isinstance(source, bytes) else str(error)
            return answer
        answer.prediction = next(self.predictor.predict_decoded([decoded]))
        answer.heat[self.method.value] = self.predictor.heatmap(answer.prediction, self.method.value)
        answer.picture = _reduced(decoded.pixels)
        answer.seconds = time.perf_counter() - start
        return answer

    def _on_sample(self, change: dict) -> None:
        if change["new"] in self.samples:
            self.add(change["new"], self.samples[change["new"]])

    def _show(self) -> None:
        answer = self.chosen.value
        if answer is None:
            return
        self.answer.value = self._describe(answer)
        if answer.error or self.method.value in answer.heat:
            self.pictures.value = self._draw(answer)
        else:
            self.worker.submit(self._guarded, self._explain, answer, self.method.value)

    def _explain(self, answer: Answer, method: str) -> None:
        answer.heat[method] = self.predictor.heatmap(answer.prediction, method)
        if answer is self.chosen.value:
            self.pictures.value = self._draw(answer)

    def _decide(self) -> None:
        self._draw_table()
        if self.chosen.value is not None:
            self.answer.value = self._describe(self.chosen.value)

    def _set_opacity(self) -> None:
        self.cover.value = f"<style>.xray-heat {{ opacity: {self.opacity.value:.2f}; }}</style>"

    def _own(self) -> bool:
        return abs(self.threshold.value - self.predictor.threshold) < 0.0006  # the slider goes in steps

    def _decision(self, prediction: predict.Prediction) -> str:
        if prediction.stranger:
            return "not for this model"
        if self._own():
            return "uncertain" if prediction.uncertain else prediction.label
        return "PNEUMONIA" if prediction.probability >= self.threshold.value else "NORMAL"

    def _known(self) -> str:
        """What was measured at the threshold that is set."""
        card, points = self.predictor.card, self.predictor.card.get("operating_points")
        if self._own() or not points:
            return _at_threshold(card) if self._own() else "Nothing has been measured at this threshold."
        nearest = int(np.argmin(np.abs(np.array(points["threshold"]) - self.threshold.value)))
        words = _measured(points["sensitivity"][nearest], points["specificity"][nearest])
        images_tested = _tested(card).get("n", "unknown")
        return f"At a threshold of {points['threshold'][nearest]:.2f} it {words}, on {images_tested} test images."

    def _describe(self, answer: Answer) -> str:
        """One answer as HTML; file names are shown as text, never as markup."""
        title = f"<h4>{html.escape(answer.file)}</h4>"
        if answer.error:
            return (
                f"<div class='xray'>{title}<p role='alert'><b>This file cannot be used:</b> "
                f"{html.escape(answer.error)}</p></div>"
            )
        p, threshold = answer.prediction.probability, self.threshold.value
        colour, verdict = {
            "PNEUMONIA": ("#c2571a", "Signs of pneumonia"),
            "NORMAL": ("#3b76af", "Below the threshold"),
            "uncertain": ("#6b5b00", "Uncertain: needs a reader"),
            "not for this model": ("#666666", "Not like the images this model was made for"),
        }[self._decision(answer.prediction)]
        band = self.predictor.card.get("uncertain") if self._own() else None
        shade = (
            f'<div class="xray-band" style="left:{100 * band[0]:.1f}%;width:{100 * (band[1] - band[0]):.1f}%"></div>'
            if band
            else ""
        )
        doubts = "".join(f"<li>{html.escape(text)}</li>" for text in answer.prediction.warnings)
        return (
            f"<div class='xray'>{title}<p style='color:{colour};font-size:1.15em'><b>{verdict}</b>: "
            f"probability {p:.3f}, threshold {threshold:.3f}</p>"
            f'<div class="xray-scale" role="img" aria-label="probability {p:.3f} on a scale from 0 to 1, threshold '
            f'{threshold:.3f}"><div class="xray-bar" style="width:{100 * p:.1f}%;background:{colour}"></div>{shade}'
            f'<div class="xray-mark" style="left:{100 * threshold:.1f}%"><span>{threshold:.3f}</span></div></div>'
            f"<ul>{doubts}</ul><p>{html.escape(self._known())} "
            f"This image took {answer.seconds:.1f} s.</p></div>"
        )

    def _draw(self, answer: Answer) -> str:
        """The image, and the image under the heatmap, as HTML."""
        if answer.error:
            return ""
        heat = explain.in_colour(answer.heat[self.method.value], answer.picture.shape)
        plain, heat = _uri(answer.picture), _uri(np.rint(255 * heat).astype(np.uint8))
        return (
            "<div class='xray xray-pictures'>"
            f'<figure><div class="xray-stack"><img src="{plain}" alt="the image"></div>'
            "<figcaption>the image</figcaption></figure>"
            f'<figure><div class="xray-stack"><img src="{plain}" alt="the image, under the heatmap">'
            f'<img class="xray-heat" src="{heat}" alt="where the model saw signs of pneumonia">'
            f"</div><figcaption>{html.escape(self.method.value)}: what spoke for pneumonia</figcaption></figure></div>"
        )

    def rows(self) -> list[dict[str, str]]:
        """The sitting so far, a row of text per image, with the columns of the CSV file."""
        rows = []
        for answer in self.answers:
            row = dict.fromkeys(_COLUMNS, "") | {"file": answer.file, "error": answer.error}
            if answer.prediction:
                row |= {
                    "probability": f"{answer.prediction.probability:.9g}",
                    "decision": self._decision(answer.prediction),
                    "threshold": f"{self.threshold.value if not self._own() else self.predictor.threshold:.9g}",
                    "warnings": "; ".join(answer.prediction.warnings),
                    "seconds": f"{answer.seconds:.2f}",
                }
            rows.append(row)
        return rows

    def _draw_table(self) -> None:
        rows = self.rows()
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        link = "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.getvalue().encode()).decode()
        shown = [r | {"probability": r["probability"] and f"{float(r['probability']):.3f}"} for r in rows[::-1]]
        names = ("file", "probability", "decision", "warnings", "error")
        head = "".join(f"<th scope='col'>{name}</th>" for name in names)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(row[name])}</td>' for name in names)}</tr>" for row in shown)
        self.table.value = (
            f"<div class='xray xray-table'><h4>This sitting</h4><table><tr>{head}</tr>{body}</table>"
            f'<p><a download="predictions.csv" href="{link}">Download as CSV</a></p></div>'
        )


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """uint8 (h, w), at most about twice as large as it is shown."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((1000, 2 * _SHOWN_HEIGHT))
    scale = _SHOWN_HEIGHT / picture.height
    if scale > 1:
        picture = picture.resize((max(1, min(1000, round(picture.width * scale))), _SHOWN_HEIGHT))
    return np.asarray(picture)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _uri(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()
