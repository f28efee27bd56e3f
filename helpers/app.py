"""The prediction page of notebook 07: choose a sample or upload an image, see probability, decision and heatmap."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.display import display
from PIL import Image

from helpers import dataset, explain, images, predict
from helpers.config import InputError, Settings

_SHOWN_HEIGHT = 320  # pixels


def find_model(settings: Settings, run: Path) -> Path:
    """The model folder to use: the setting `model`, else the run's own, else data/pretrained. InputError: none."""
    folders = [Path(settings.model)] if settings.model else [run / "model", predict.PRETRAINED]
    for folder in folders:
        if (folder / "model.json").is_file():
            return folder
    raise InputError(f"there is no model in {' or '.join(map(str, folders))}: run the notebooks 01 to 05 first.")


def find_samples(settings: Settings, count: int = 4) -> dict[str, Path]:
    """Up to `count` readable images of each class, evenly picked: title -> file. Of test, where the dataset has one."""
    root = dataset.find_root(settings)
    listed = sorted(dataset.image_files(root))
    listed = [row for row in listed if row[1] == "test"] or listed
    samples = {}
    for label in dataset.LABELS:
        files = [root / path for path, _, of in listed if of == label]
        parts = np.array_split(np.arange(len(files)), min(count, len(files)) or 1)
        found = [next((files[i] for i in part if _readable(files[i])), None) for part in parts]
        for number, file in enumerate(filter(None, found), start=1):
            subtype = dataset.parse_name(file.name)[2]
            samples[f"{label} {subtype} {number}".replace("  ", " ")] = file
    return samples


def _readable(file: Path) -> bool:
    try:
        images.read_image(file)
    except InputError:
        return False
    return True


def worth(card: dict) -> str:
    """In words: what was measured at the model's threshold, on how many images, and for whom the model was made."""
    measured = (card.get("metrics") or {}).get("test")
    if not measured:
        return "Nothing has been measured at this model's threshold."
    found, spared = (
        f"{100 * m['value']:.0f} of 100" if m["value"] is not None else "an unknown share"
        for m in (measured["sensitivity"], measured["specificity"])
    )
    made_for = (
        "phantoms drawn by code" if card.get("phantoms") else "chest X-rays of children aged 1 to 5, one hospital"
    )
    return (
        f"At its threshold of {card['threshold']:.3f} this model found {found} pneumonias and left {spared} healthy "
        f"images in peace, on {measured['n']} test images. Made for {made_for}. Not a medical device."
    )


class App:
    """The page: it holds the predictor, the samples and what was uploaded last; nothing is stored."""

    def __init__(self, predictor: predict.Predictor, samples: dict[str, Path]):
        self.predictor, self.samples = predictor, samples
        self.sample = widgets.Dropdown(options=["choose a sample", *samples], description="Sample")
        self.upload = widgets.FileUpload(accept=",".join(images.SUFFIXES), description="Upload an image")
        self.opacity = widgets.FloatSlider(
            0.45, min=0, max=1, step=0.05, description="Heatmap", continuous_update=False
        )
        self.answer = widgets.HTML("<p>Choose a sample, or upload a JPEG, PNG or DICOM file.</p>")
        self.sample.observe(self._on_sample, "value")
        self.upload.observe(self._on_upload, "value")
        self.opacity.observe(lambda _: self._draw(), "value")
        self.shown: tuple[str, np.ndarray, predict.Prediction, np.ndarray] | None = None

    def show(self) -> None:
        """Display the page, with a still picture of the first sample for reports, which have no kernel."""
        controls = widgets.HBox([self.sample, self.upload, self.opacity], layout=widgets.Layout(flex_flow="row wrap"))
        note = widgets.HTML(f"<p><small>{html.escape(worth(self.predictor.card))}</small></p>")
        page = widgets.VBox([controls, self.answer, note])
        still = ""
        if self.samples:
            title, file = next(reversed(self.samples.items()))
            still = self._describe(*self._predict(title, file))
        bundle = page._repr_mimebundle_()
        note = "<p><em>A still picture: in JupyterLab or with make app, this is where you choose or upload.</em></p>"
        display(bundle | {"text/html": note + still, "text/plain": "the prediction page"}, raw=True)

    def _on_sample(self, change: dict) -> None:
        if change["new"] in self.samples:
            self._answer(change["new"], self.samples[change["new"]])

    def _on_upload(self, change: dict) -> None:
        if change["new"]:
            file = change["new"][0]
            self._answer(file["name"], bytes(file["content"]))

    def _answer(self, title: str, source: Path | bytes) -> None:
        try:
            self.shown = self._predict(title, source)
        except InputError as error:
            self.shown, text = None, html.escape(str(error).replace("the image", title, 1))
            self.answer.value = f'<p role="alert"><b>This file cannot be used:</b> {text}</p>'
            return
        self._draw()

    def _predict(self, title: str, source: Path | bytes) -> tuple[str, np.ndarray, predict.Prediction, np.ndarray]:
        decoded = images.read_image(source)
        prediction = next(self.predictor.predict_decoded([decoded]))
        return title, decoded, prediction, self.predictor.heatmap(prediction)

    def _draw(self) -> None:
        if self.shown:
            self.answer.value = self._describe(*self.shown)

    def _describe(self, title: str, decoded: np.ndarray, prediction: predict.Prediction, heat: np.ndarray) -> str:
        """One answer as HTML; `title` may be a file name and is shown as text, never as markup."""
        p, threshold = prediction.probability, prediction.threshold
        positive = prediction.label == "PNEUMONIA"
        colour, verdict = ("#c2571a", "Signs of pneumonia") if positive else ("#3b76af", "No signs of pneumonia")
        pictures = (_picture(decoded), _picture(explain.overlay(decoded, heat, self.opacity.value)))
        alternatives = ("the image", "where the model saw signs of pneumonia")
        shown = "".join(
            f'<img src="{uri}" alt="{alt}" style="height:{_SHOWN_HEIGHT}px;max-width:100%;margin-right:8px">'
            for uri, alt in zip(pictures, alternatives, strict=True)
        )
        doubts = "".join(f"<li>{html.escape(text)}</li>" for text in prediction.warnings)
        return (
            f"<h4>{html.escape(title)}</h4>"
            f'<p style="color:{colour};font-size:1.15em"><b>{verdict}'
            f"</b>: probability {p:.3f}, threshold {threshold:.3f}</p>"
            f'<div role="img" aria-label="probability {p:.3f} on a scale from 0 to 1, threshold {threshold:.3f}" '
            'style="position:relative;height:16px;max-width:560px;background:#e6e6e6;border-radius:8px">'
            f'<div style="width:{100 * p:.1f}%;height:16px;background:{colour};border-radius:8px"></div>'
            f'<div style="position:absolute;top:-4px;left:{100 * threshold:.1f}%;width:2px;height:24px;'
            'background:#000">'
            f"</div></div><ul>{doubts}</ul><div>{shown}</div>"
        )


def _picture(pixels: np.ndarray) -> str:
    """uint8 grey or colour pixels as a data URI, reduced to about the size it is shown at."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((1000, 2 * _SHOWN_HEIGHT))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
