"""From bytes to a decision with a saved model."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from helpers import evaluation, explain, images, model
from helpers.config import InputError

UNCERTAIN = "uncertain: needs a reader"
FRAMING = "depends on how the image is framed: needs a reader"
UPSIDE_DOWN = "seems to be upside down: do not trust the number, turn the image and try again"
FRAMES = (0.06, -0.06)  # tighter and wider, share of the size at each side
OUT_OF_DISTRIBUTION = "does not look like what the model was made for ({}): do not trust the number"
ALMOST_UNIFORM = "almost uniform image"


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    probability: float  # calibrated P(pneumonia), 0-1
    label: str  # "PNEUMONIA" where probability >= threshold, else "NORMAL"
    threshold: float
    out_of_distribution: bool  # unlike the images the model was made for, upside down, or almost uniform
    uncertain: bool  # a reader has to decide: in the uncertain range, almost uniform, or the frame decides the label
    warnings: tuple[str, ...]  # why the number may not mean much
    pixels: np.ndarray  # uint8 (size, size): what the model saw


class Predictor:
    """A loaded model folder: network, calibration, threshold, uncertain range, out-of-distribution check."""

    def __init__(self, classifier: keras.Model, card: dict, ood_check: model.ood.OodCheck | None = None):
        self.classifier, self.card, self.ood_check = classifier, card, ood_check
        outputs = [classifier.get_layer("logit").output, model.ood.features(classifier), explain.last_maps(classifier)]
        self._call = functools.partial(keras.Model(classifier.inputs[0], outputs), training=False)
        self._head = explain.head(classifier)
        self.size = int(classifier.input_shape[1])
        self.threshold = float(card["threshold"])

    @classmethod
    def load(cls, folder: str | Path) -> Predictor:
        """Load a model folder; InputError where it is missing, damaged, too new, or has no threshold yet."""
        folder = Path(folder)
        classifier, card = model.load(folder)
        if card.get("threshold") is None:
            raise InputError(f"the model in {folder} has no threshold yet: run 05_evaluation first.")
        return cls(classifier, card, model.ood.load(folder) if "guard_sha256" in card else None)

    def trace(self) -> None:
        """Compute as one graph from now on: one image takes a fifth of the time, after a second or two for making it.

        TensorFlow rewrites no graph of this process any more: a rewritten one would round in other places.
        """
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        signature = [tf.TensorSpec((None, self.size, self.size, 1))]
        self._call = tf.function(self._call, signature)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Calibrated P(pneumonia), float64 (n,), of pixels (n, size, size), 0-255."""
        return self._see(pixels)[0]

    def _see(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `probabilities` gives, and what the out-of-distribution check sees, float32 (n, d)."""
        logits, features, _ = map(keras.ops.convert_to_numpy, self._call(pixels[..., None].astype(np.float32)))
        return evaluation.calibrate(logits[:, 0].astype(np.float64), self.card["calibration"]), features

    def predict(self, source: str | Path | bytes) -> Prediction:
        """Predict one image from a path or its bytes; InputError where it cannot be read."""
        return next(self.predict_decoded([images.read(source)]))

    def predict_decoded(self, decoded: Iterable[images.Decoded]) -> Iterator[Prediction]:
        """Predict what `images.read` returned, as one batch."""
        decoded = list(decoded)
        pixels = np.stack([images.resize(one.pixels, self.size) for one in decoded])
        probabilities, features = self._see(pixels)
        strange, inverted = (
            self.ood_check.judge(pixels, features) if self.ood_check else np.zeros((2, len(pixels)), bool)
        )
        framing = self._frame_decides([one.pixels for one in decoded], pixels, probabilities, ~strange)
        parts = zip(decoded, pixels, strange, inverted, framing, probabilities, strict=True)
        for one, seen, odd, turned, parting, probability in parts:
            label = "PNEUMONIA" if probability >= self.threshold else "NORMAL"
            found = [*self._notes(one), *image_warnings(one.pixels)]
            uniform = ALMOST_UNIFORM in found
            uncertain = self.uncertain(probability) or uniform
            if odd:
                found.insert(0, UPSIDE_DOWN if turned else OUT_OF_DISTRIBUTION.format(made_for(self.card)))
            if uncertain or parting:
                found.append(FRAMING if parting else UNCERTAIN)
            outlier, uncertain = bool(odd) or uniform, bool(uncertain or parting)
            yield Prediction(float(probability), label, self.threshold, outlier, uncertain, tuple(found), seen)

    def _notes(self, one: images.Decoded) -> Iterator[str]:
        """What the file says against a prediction by this model; a patient's age, where the model is for children."""
        yield from (note for note in one.notes if note != images.NOT_A_CHILD)
        if warning := age_warning(self.card, one.age):
            yield warning

    def _frame_decides(
        self, decoded: list[np.ndarray], pixels: np.ndarray, probabilities: np.ndarray, asked: np.ndarray
    ) -> np.ndarray:
        """bool (n,): whose label is another one in another frame, of those `asked` whose frame is unusual."""
        found = np.zeros(len(pixels), bool)
        rows = np.flatnonzero(asked & self.ood_check.unusual_frames(pixels)) if self.ood_check else np.empty(0, int)
        for share in FRAMES if len(rows) else ():
            other = np.stack([images.resize(reframed(decoded[row], share), self.size) for row in rows])
            found[rows] |= (self.probabilities(other) >= self.threshold) != (probabilities[rows] >= self.threshold)
        return found

    def uncertain(self, probability: float) -> bool:
        """Whether `probability` lies in the band that model.json names, from low to high."""
        band = self.card.get("uncertain")
        return bool(band and band[0] <= probability <= band[1])

    def heatmap(self, prediction: Prediction, method: str = "Grad-CAM") -> np.ndarray:
        """float32 (size, size), 0-1: what spoke for pneumonia. `method` is a key of explain.METHODS."""
        maps = self._call(prediction.pixels[None, ..., None].astype(np.float32))[2]
        return explain.heatmaps_of(self._head, maps, self.size, method)[0]


def reframed(image: np.ndarray, share: float) -> np.ndarray:
    """uint8 (height, width) without `share` of its height and width at each side; below 0, with as much black more."""
    rows, columns = (round(abs(share) * length) for length in image.shape)
    if share < 0:
        return np.pad(image, ((rows, rows), (columns, columns)))
    return image[rows : image.shape[0] - rows, columns : image.shape[1] - columns]


def made_for(card: dict) -> str:
    """In words: what images the model of this card was trained on."""
    if card.get("phantoms"):
        return "phantoms drawn by code"
    if for_children(card):
        return "frontal chest X-rays of children aged 1 to 5, one hospital"
    return "chest X-rays like those it was trained on"


def for_children(card: dict) -> bool:
    """Whether the model of this card was trained on the public dataset's children; older cards do not say, but were."""
    return not card.get("phantoms") and card.get("public", True)


def parse_age(text: str) -> float:
    """An age in years, 0-120, with a point or a comma; InputError where `text` is none."""
    try:
        age = float(text.strip().replace(",", "."))
    except ValueError:
        age = -1.0
    if not 0 <= age <= 120:  # nan, too
        raise InputError("the age is a number of years from 0 to 120, such as 4 or 0.5.")
    return age


def age_warning(card: dict, age: float | None) -> str:
    """Why not to trust the model of this card on a patient of `age` in years; "" where nothing is known against it."""
    if age is None or age < 7 or not for_children(card):
        return ""
    return f"made for children of 1 to 5; this patient's age is {int(age)} years: do not trust the number"


def image_warnings(image: np.ndarray) -> Iterator[str]:
    """Reasons to distrust a prediction on uint8 (height, width), in words."""
    height, width = image.shape
    if min(height, width) < 64:
        yield f"very small image ({width} x {height} pixels)"
    if not 0.4 < width / height < 3:
        yield f"unusual shape for a chest X-ray ({width} x {height} pixels)"
    if images.almost_uniform(image):
        yield ALMOST_UNIFORM
