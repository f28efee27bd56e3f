"""From bytes to a decision with a saved model; `python -m helpers.predict` does it for files and folders."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import keras
import numpy as np
from PIL import Image
from tqdm import tqdm

from helpers import config, evaluation, explain, guard, images, model, storage
from helpers.config import InputError

UNCERTAIN = "uncertain: needs a reader"
UPSIDE_DOWN = "seems to be upside down: do not trust the number, turn the image and try again"
STRANGE = "does not look like what the model was made for ({}): do not trust the number"
ALMOST_UNIFORM = "almost uniform image"
COLUMNS = ("path", "probability", "label", "threshold", "warnings", "error")


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    probability: float  # calibrated P(pneumonia), 0-1
    label: str  # "PNEUMONIA" where probability >= threshold, else "NORMAL"
    threshold: float
    stranger: bool  # does not look like the images the model was made for, is upside down, or shows next to nothing
    uncertain: bool  # within the model's band around the threshold, where a reader has to decide
    warnings: tuple[str, ...]  # why the number may not mean much
    pixels: np.ndarray  # uint8 (size, size): what the model saw


class Predictor:
    """A loaded model folder: model.keras, the threshold, calibration and band of its model.json, and its guard."""

    def __init__(self, classifier: keras.Model, card: dict, door: guard.Guard | None = None):
        self.classifier, self.card, self.guard = classifier, card, door
        self._logits = model.logit_model(classifier)
        self.size = int(classifier.input_shape[1])
        self.threshold = float(card["threshold"])

    @classmethod
    def load(cls, folder: str | Path) -> Predictor:
        """Load a model folder; InputError where it is missing, damaged, too new, or has no threshold yet."""
        folder = Path(folder)
        classifier, card = model.load(folder)
        if card.get("threshold") is None:
            raise InputError(f"the model in {folder} has no threshold yet: run 05_evaluation first.")
        return cls(classifier, card, guard.load(folder) if "guard_sha256" in card else None)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Calibrated P(pneumonia), float64 (n,), of pixels (n, size, size), 0-255."""
        logits = self._logits(keras.ops.convert_to_tensor(pixels[..., None], "float32"), training=False)
        exact = keras.ops.convert_to_numpy(logits)[:, 0].astype(np.float64)
        return evaluation.calibrate(exact, self.card["calibration"])

    def predict(self, source: str | Path | bytes) -> Prediction:
        """Predict one image from a path or its bytes; InputError where it cannot be read."""
        return next(self.predict_decoded([images.read(source)]))

    def predict_decoded(self, decoded: Iterable[images.Decoded]) -> Iterator[Prediction]:
        """Predict what `images.read` returned, as one batch."""
        decoded = list(decoded)
        pixels = np.stack([images.resize(one.pixels, self.size) for one in decoded])
        strange, inverted = self.guard.judge(pixels) if self.guard else np.zeros((2, len(pixels)), bool)
        parts = zip(decoded, pixels, strange, inverted, self.probabilities(pixels), strict=True)
        for one, seen, odd, turned, probability in parts:
            label = "PNEUMONIA" if probability >= self.threshold else "NORMAL"
            found = [*self._notes(one), *doubts(one.pixels)]
            uniform = ALMOST_UNIFORM in found
            uncertain = self.uncertain(probability) or uniform
            if odd:
                found.insert(0, UPSIDE_DOWN if turned else STRANGE.format(made_for(self.card)))
            if uncertain:
                found.append(UNCERTAIN)
            yield Prediction(
                float(probability), label, self.threshold, bool(odd) or uniform, uncertain, tuple(found), seen
            )

    def _notes(self, one: images.Decoded) -> Iterator[str]:
        """What the file says against a prediction by this model; a patient's age, where the model is for children."""
        yield from (note for note in one.notes if note != images.NOT_A_CHILD)
        if one.age is not None and one.age >= 7 and for_children(self.card):
            yield f"made for children of 1 to 5; this patient's age is {int(one.age)} years: do not trust the number"

    def uncertain(self, probability: float) -> bool:
        """Whether `probability` lies in the band that model.json names, from low to high."""
        band = self.card.get("uncertain")
        return bool(band and band[0] <= probability <= band[1])

    def heatmap(self, prediction: Prediction, method: str = "Grad-CAM") -> np.ndarray:
        """float32 (size, size), 0-1: what spoke for pneumonia. `method` is a key of explain.METHODS."""
        return explain.heatmaps(self.classifier, prediction.pixels[None], method)[0]


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


def doubts(image: np.ndarray) -> Iterator[str]:
    """Reasons to distrust a prediction on uint8 (height, width), in words."""
    height, width = image.shape
    if min(height, width) < 64:
        yield f"very small image ({width} x {height} pixels)"
    if not 0.4 < width / height < 3:
        yield f"unusual shape for a chest X-ray ({width} x {height} pixels)"
    if images.almost_uniform(image):
        yield ALMOST_UNIFORM


def find_images(arguments: list[str]) -> Iterator[str]:
    """Every file named, and for every folder its files with an image's suffix, recursively, sorted."""
    for argument in arguments:
        if not Path(argument).is_dir():
            yield argument
            continue
        found = []
        for directory, below, names in os.walk(argument, onerror=_refuse):
            below[:] = [name for name in below if not name.startswith(".")]
            images_here = [n for n in names if n.lower().endswith(config.SUFFIXES) and not n.startswith(".")]
            found += [os.path.join(directory, name).replace(os.sep, "/") for name in images_here]  # noqa: PTH118 - pathlib would drop a leading "./"
        yield from sorted(found)


def _refuse(error: OSError) -> None:
    raise InputError(f"the folder {error.filename} cannot be read: {error.strerror}.")


def predict_files(
    predictor: Predictor, paths: Iterable[str], heat_folder: Path | None = None, age: float | None = None
) -> Iterator[dict]:
    """A row of COLUMNS per path, in order, 16 images at a time; an unreadable image has `error` and no probability.

    `age` in years holds where a file does not say it.
    """
    remaining, done = iter(paths), 0
    while group := list(islice(remaining, 16)):
        decoded, errors = {}, {}
        for path in group:
            try:
                found = images.read(path)
                decoded[path] = found._replace(age=age) if found.age is None else found
            except InputError as error:
                errors[path] = str(error)
        predictions = dict(zip(decoded, predictor.predict_decoded(decoded.values()), strict=True)) if decoded else {}
        for position, path in enumerate(group):
            if path in errors:
                yield dict.fromkeys(COLUMNS, "") | {"path": path, "error": errors[path]}
                continue
            prediction = predictions[path]
            if heat_folder:
                shown = explain.overlay(decoded[path].pixels, predictor.heatmap(prediction))
                Image.fromarray(shown).save(heat_folder / f"{done + position + 1:05d}_{Path(path).stem[:60]}.png")
            yield {
                "path": path,
                "probability": f"{prediction.probability:.9g}",
                "label": prediction.label,
                "threshold": f"{prediction.threshold:.9g}",
                "warnings": "; ".join(prediction.warnings),
                "error": "",
            }
        done += len(group)


def write_rows(rows: Iterable[dict], output: TextIO) -> int:
    """Write rows of COLUMNS as CSV, each as soon as it is there; how many have an error."""
    writer, failed = csv.DictWriter(output, COLUMNS, lineterminator="\n"), 0
    writer.writeheader()
    try:
        for row in rows:
            writer.writerow({name: storage.writable(value) for name, value in row.items()})
            failed += bool(row["error"])
    finally:
        output.flush()
        if output is not sys.stdout:
            output.close()
    return failed


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 0, 1 where an image could not be read, 2 where the table could not be made.

    As shells have it, 130 where it was interrupted and 141 where nobody read the table to its end.
    """
    parser = argparse.ArgumentParser(prog="python -m helpers.predict", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model", metavar="DIR", help="model folder, such as reports/demo/model")
    parser.add_argument("--csv", metavar="FILE", help="write the table there instead of printing it")
    parser.add_argument("--heatmaps", metavar="DIR", help="write a Grad-CAM overlay per image there")
    parser.add_argument("--age", type=float, metavar="YEARS", help="of the patient, where the file does not say it")
    given = parser.parse_args(arguments)
    try:
        if not given.model and not config.PRETRAINED.is_dir():
            raise InputError(
                f"{config.PRETRAINED} is not there: name a model with --model, such as reports/demo/model."
            )
        if given.csv and given.csv.lower().endswith(config.SUFFIXES):
            raise InputError(f"--csv {given.csv} names an image: give the file to write the table to.")
        predictor = Predictor.load(given.model or config.PRETRAINED)
        if given.heatmaps:
            Path(given.heatmaps).mkdir(parents=True, exist_ok=True)
        paths = list(find_images(given.images))
        if not paths:
            raise InputError(f"there is no image in {', '.join(given.images)} ({', '.join(config.SUFFIXES)}).")
        if not given.csv and isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
            sys.stdout.reconfigure(encoding="utf-8")  # a file, as --csv would write it; a terminal has its own
        output = open(given.csv, "w", newline="", encoding="utf-8") if given.csv else sys.stdout  # noqa: SIM115, PTH123
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    heat_folder = Path(given.heatmaps) if given.heatmaps else None
    rows = tqdm(
        predict_files(predictor, paths, heat_folder, given.age),
        total=len(paths),
        disable=True if output.isatty() else None,
    )
    try:
        failed = write_rows(rows, output)
    except KeyboardInterrupt:
        print("interrupted: the table holds the rows that were done.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return storage.unread()
    except OSError as error:
        where = error.filename or given.csv or "the table"
        print(f"{where} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    finally:
        rows.close()
    if failed:
        print(f"{failed} of {len(paths)} images could not be read; see the column error.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
