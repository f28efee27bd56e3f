"""How models of a run rank its validation images when these are changed: what recipes were chosen by.

`python -m tests.benchmarks.shift reports/RUN MODEL ...`, each MODEL a model folder or a .keras file (an epoch in
RUN/training/fine_tuning). "All" joins the images as they are with eight changes of what separates collections. Edges:
strips of 8 and 15% of the size replaced by those of training images of the same or the other class, or blackened.
Loss: after calibration on the same images, both classes weighted equally; specificity: at a sensitivity of 0.97. No
test image is predicted.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score

from helpers import dataset, images, model, training


def changed_views(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 (n, size, size) under each change, by name; the images as they are first."""
    size, tenth, half = pixels.shape[1], pixels.shape[1] // 10, [pixels.shape[1] // 2] * 2

    def each(change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
        return np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])

    def stretched(image: Image.Image, *box: int) -> Image.Image:
        return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=25)
        return Image.open(file)

    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return {
        "plain": pixels,
        "JPEG 25": each(compressed),
        "half": each(lambda image: stretched(image.resize(half, Image.Resampling.BILINEAR), 0, 0, *half)),
        "sharp": each(lambda image: image.filter(ImageFilter.UnsharpMask(2, 150, 0))),
        "noise": np.clip(pixels + noise, 0, 255).astype(np.uint8),
        "dark": (255 * (pixels / 255) ** 1.5).astype(np.uint8),
        "light": (255 * (pixels / 255) ** 0.67).astype(np.uint8),
        "cropped across": each(lambda image: stretched(image, tenth, 0, size - tenth, size)),
        "cropped along": each(lambda image: stretched(image, 0, tenth, size, size - tenth)),
    }


def edged(pixels: np.ndarray, sick: np.ndarray, donors: np.ndarray, donors_sick: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 (n, size, size) with strips at all edges: of `donors` of the same or the other class, or black."""
    size, rng, found = pixels.shape[1], np.random.default_rng(0), {}
    for share in (0.08, 0.15):
        inner = slice(int(size * share), size - int(size * share))
        for kind in ("same", "other", "black"):
            framed = np.zeros_like(pixels)
            if kind != "black":
                wanted = sick if kind == "same" else ~sick
                framed = np.stack([donors[rng.choice(np.flatnonzero(donors_sick == label))] for label in wanted])
            framed[:, inner, inner] = pixels[:, inner, inner]
            found[f"edges {share:.0%} {kind}"] = framed
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.shift", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    given = parser.parse_args()
    splits = dataset.read_table(given.run / "splits.csv", "02_preprocessing")
    cache, sick = images.load_cache(given.run / "images.npy"), (splits["label"] == "PNEUMONIA").to_numpy()
    held_out, train = (np.flatnonzero(splits["split"] == name) for name in ("validation", "train"))
    pixels, truth, columns = np.asarray(cache[held_out]), sick[held_out], {}
    sets = changed_views(pixels)
    edges = edged(pixels, truth, cache[train], sick[train])
    for path in given.models:
        network = model.load(path)[0] if path.is_dir() else keras.saving.load_model(path, compile=False)
        model.set_precision(network, "mixed_bfloat16")  # as when recipes were chosen by this
        logits = {
            name: training.predict_logits(network, some, np.arange(len(some))) for name, some in (sets | edges).items()
        }
        joined, labels = np.concatenate([logits[name] for name in sets]), np.tile(truth, len(sets))
        column = {"AUC, all": roc_auc_score(labels, joined)}
        for name, y, z in (("plain", truth, logits["plain"]), ("all", labels, joined)):
            column[f"loss, {name}"] = training.calibrated_loss(y, z, training.sample_weights(y.astype(int)))
        column["specificity, all"] = (joined[~labels] < np.quantile(joined[labels], 0.03)).mean()
        columns[str(path)] = column | {f"AUC, {name}": roc_auc_score(truth, z) for name, z in logits.items()}
    print(pd.DataFrame(columns).round(4).to_string())


if __name__ == "__main__":
    main()
