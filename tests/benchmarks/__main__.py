"""Print the table of ratios: what the cached way costs against the plain way, on phantoms, with random weights.

ResNet50 at 224 pixels unless told otherwise; every figure is the fastest of a few repeats, so that another process on
the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd

from helpers import activations, batches, config, explain, model, phantom, training


def fastest(call: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def stages(settings: config.Settings, images: np.ndarray, folder: Path) -> list[tuple]:
    """An epoch of each stage, whole network against cached activations, and what building the cache costs."""
    rows, labels = np.arange(len(images)), np.arange(len(images)) % 2
    weights, targets = np.ones(len(images), np.float32), labels.astype(np.float32)[:, None]
    classifier = model.add_head(model.build_backbone(settings), settings)
    start = time.perf_counter()
    both = activations.build(classifier, images, {"train": rows, "validation": rows[:8]}, settings, folder, "bench")
    building = time.perf_counter() - start
    table = []
    for name, unfrozen, cache in (("head", 0, both[0]), ("last layers", settings.unfrozen_layers, both[1])):
        model.freeze(classifier, unfrozen)
        training.compile_model(classifier, 1e-5, settings)
        plain = fastest(
            lambda: classifier.fit(
                batches.training_batches(images, rows, labels, weights, settings, 1), shuffle=False, verbose=0
            ),
            repeats=1,
        )
        network = activations.tail(classifier, unfrozen)
        training.compile_model(network, 1e-5, settings)
        cached = fastest(
            lambda network=network, cache=cache: network.fit(
                activations.cached_batches(cache.train[0], rows, settings.batch_size, targets, weights),
                shuffle=False,
                verbose=0,
            )
        )
        paid = building / max(plain - cached, 1e-9)
        table.append(
            (f"an epoch, {name}", plain, cached, plain / cached, f"cache pays after epoch {np.ceil(paid):.0f}")
        )
    return table


def one_image(settings: config.Settings, images: np.ndarray) -> list[tuple]:
    """A heatmap against the bare call of the model, one image, warm."""
    classifier = model.add_head(model.build_backbone(settings), settings)
    pixels = keras.ops.convert_to_tensor(images[:1, ..., None], "float32")
    bare = fastest(lambda: classifier(pixels, training=False), repeats=5)
    heat = fastest(lambda: explain.heatmaps(classifier, images[:1]), repeats=5)
    return [("a Grad-CAM against a bare model call", heat, bare, heat / bare, "")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings, such as image_size=128")
    given = parser.parse_args()
    chosen = {"weights": "none", "cached_views": 1} | config.parse_assignments(given.set)
    settings = config.make_settings("chest_xray", chosen)
    images, _ = phantom.pretraining_set(given.images, settings.image_size, 0)
    with tempfile.TemporaryDirectory() as folder:
        rows = [*stages(settings, images, Path(folder)), *one_image(settings, images)]
    table = pd.DataFrame(rows, columns=["what", "seconds", "against, seconds", "ratio", "note"])
    print(f"{settings.backbone}, {given.images} phantoms, {settings.image_size} pixels, {os.cpu_count()} cores")
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
