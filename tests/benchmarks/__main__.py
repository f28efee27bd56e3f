"""Print the table of ratios: what this project does against the plain way, on phantoms, with random weights.

ResNet50 at 224 pixels unless told otherwise. Times are the fastest of a few repeats, so that another process on the
machine disturbs them less; both sides of a ratio are measured in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from PIL import Image
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from helpers import config, model, phantom, predict, training
from tests import notebook_code
from tests.benchmarks import alternatives, near_duplicates

PARTS = ("stages", "pipeline", "step", "image", "command", "duplicates", "many", "memory", "page", "notebooks")
Row = tuple[str, float, float, str, str]  # what, ours, theirs, what is asked for, note


def fastest(call: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` calls, after one that is not counted."""
    return in_turns([call], repeats)[0]


def in_turns(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """As `fastest`, of each of `calls`, taken in turns: what slows the machine down for a while hits all alike."""
    for call in calls:
        call()
    seconds = np.empty((repeats, len(calls)))
    for times in seconds:
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            times[i] = time.perf_counter() - start
    return seconds.min(axis=0).tolist()


def stages(settings: config.Settings, images: np.ndarray, folder: Path) -> Iterator[Row]:
    """An epoch of each stage: the whole network against cached activations, and what building the cache costs."""
    rows, labels = np.arange(len(images)), np.arange(len(images)) % 2
    weights, targets = np.ones(len(images), np.float32), labels.astype(np.float32)[:, None]
    classifier = notebook_code.add_head(model.build_backbone(settings), settings)
    start = time.perf_counter()
    both = training.features.build(
        classifier, images, {"train": rows, "validation": rows[:8]}, settings, folder, "bench"
    )
    building = time.perf_counter() - start
    parts = (
        ("epoch, backbone frozen: plain / cached", 0, both[0], ">= 20"),
        ("epoch, last layers: plain / cached", settings.unfrozen_layers, both[1], ">= 4"),
    )
    for name, unfrozen, cache, wanted in parts:
        notebook_code.unfreeze(classifier, unfrozen)
        classifier.compile(keras.optimizers.Adam(1e-5), "binary_crossentropy", jit_compile=False)
        plain = fastest(
            lambda: classifier.fit(
                training.training_batches(images, rows, labels, weights, settings, 1), shuffle=False, verbose=0
            ),
            repeats=1,
        )
        network = training.learning_layers(classifier, unfrozen)
        network.compile(keras.optimizers.Adam(1e-5), "binary_crossentropy", jit_compile=False)
        cached = fastest(
            lambda network=network, cache=cache: network.fit(
                training.cached_batches(cache.train[0], rows, settings.batch_size, targets, weights),
                shuffle=False,
                verbose=0,
            )
        )
        note = f"building one view {building:.0f} s, paid after epoch {np.ceil(building / (plain - cached)):.0f}"
        yield name, plain, cached, wanted, note


def pipeline(settings: config.Settings, images: np.ndarray, folder: Path) -> Iterator[Row]:
    """Augmented batches: Keras' generator against ours, and ours in a training step against a constant batch."""
    few = len(images)
    images = np.tile(images, (-(-2048 // few), 1, 1))  # an epoch of a usual length: setting one up takes time, too
    rows, labels = np.arange(len(images)), np.arange(len(images)) % 2
    weights = np.ones(len(images), np.float32)
    for row, image in enumerate(images):
        file = folder / "keras" / str(labels[row]) / f"{row}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    turning = {"rotation_range": settings.rotation, "zoom_range": settings.zoom, "shear_range": settings.shear}
    size = (settings.image_size, settings.image_size)
    flow = ImageDataGenerator(**turning).flow_from_directory(
        folder / "keras", size, "grayscale", class_mode="binary", batch_size=settings.batch_size
    )

    same = {"translation": 0.0, "brightness": 0.0, "contrast": 0.0}
    alike = config.make_settings(overrides=same, base=settings)

    def ours(chosen: config.Settings, count: int):
        return training.training_batches(images, rows[:count], labels[:count], weights[:count], chosen, 1)

    epochs = (lambda: [next(flow) for _ in range(len(flow))], lambda: [0 for _ in ours(alike, len(rows))])
    theirs, mine = in_turns(epochs, 6)
    speed = f"{len(rows) / theirs:.0f} and {len(rows) / mine:.0f} images/s"
    yield "augmented images: ImageDataGenerator / ours", theirs, mine, ">= 5", speed

    classifier = notebook_code.add_head(model.build_backbone(settings), settings)
    notebook_code.unfreeze(classifier, settings.unfrozen_layers)
    classifier.compile(keras.optimizers.Adam(1e-5), "binary_crossentropy", jit_compile=False)
    steps = len(ours(settings, few))
    repeated = ours(settings, few).take(1).cache().repeat(steps)
    courses = (ours(settings, few), repeated)
    fed, idle = in_turns([lambda c=course: classifier.fit(c, shuffle=False, verbose=0) for course in courses], 3)
    yield "training step: fed by the pipeline / constant batch", fed, idle, "<= 1.05", f"{steps} steps"


def one_image(settings: config.Settings, images: np.ndarray) -> Iterator[Row]:
    """A prediction from JPEG bytes, and one with a heatmap, against the bare call of the model, warm."""
    classifier = notebook_code.add_head(model.build_backbone(settings), settings)
    card = {"threshold": 0.5, "calibration": {"slope": 1.0, "intercept": 0.0}}
    predictor = predict.Predictor(classifier, card, model.ood.fit(images, images))
    film, _ = phantom.draw(np.random.default_rng(0), "bacteria")
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "JPEG")
    jpeg, pixels = buffer.getvalue(), keras.ops.convert_to_tensor(images[:1, ..., None], "float32")
    bare = fastest(lambda: classifier(pixels, training=False), 10)
    whole = fastest(lambda: predictor.predict(jpeg), 10)
    heat = fastest(lambda: predictor.heatmap(predictor.predict(jpeg)), 10)
    yield "prediction: from JPEG bytes / bare model call", whole, bare, "<= 1.3", f"{1000 * whole:.0f} ms"
    yield "prediction with Grad-CAM / bare model call", heat, bare, "<= 4", f"{1000 * heat:.0f} ms"


def memory(folder: Path, patients: int) -> Iterator[Row]:
    """Peak private memory and seconds of 02 to 05 with N and with 4 N patients at 224 pixels, from run.json."""
    records, counts = [], []
    for name, number in (("once", patients), ("four", 4 * patients)):
        settings = f"phantoms={number} image_size=224 resamples=50 batch_size=16 cached_views=2".split()
        run_in(folder, "helpers.run", "--profile", "smoke", "--name", name, "--set", *settings)
        records.append(json.loads((folder / "reports" / name / "run.json").read_text(encoding="utf-8"))["notebooks"])
        counts.append(len(pd.read_csv(folder / "reports" / name / "splits.csv")))
    of = f"{counts[1]} / {counts[0]} images"
    for stem in (stem for stem in records[0] if "02" <= stem[:2] <= "05"):
        small, large = (record[stem]["peak_memory"] / 1e6 for record in records)
        yield f"peak memory of {stem[:2]}, MB: {of}", large, small, "<= 1.1", f"{large / 1000:.2f} GB (< 3)"
        small, large = (record[stem]["seconds"] for record in records)
        yield f"seconds of {stem[:2]}: {of}", large, small, "", f"grows as n^{np.log(large / small) / np.log(4):.2f}"


def page(folder: Path) -> Iterator[Row]:
    """From `make app` to the first answer on a sample, and what an image takes then, with the model in the clone.

    In a browser, where Chromium and Playwright are there; else until the page, with its model loaded, is sent.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start, address = time.perf_counter(), f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "helpers.serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - start < 300 and server.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            time.sleep(0.1)
        browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if browser and importlib.util.find_spec("playwright"):
            yield from visit(browser, address, start)
            return
        text = urllib.request.urlopen(address, timeout=300).read()
        if b"the prediction page" not in text:
            raise SystemExit("the page came without its tool")
        yield "page: start to page sent, s", time.perf_counter() - start, 1.0, "<= 60", "no Chromium with Playwright"
    finally:
        server.terminate()
        server.wait()


def visit(browser: str, address: str, start: float) -> Iterator[Row]:
    """A person opens the page, chooses a sample as soon as it is there, then others."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        tab = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        tab.goto(address, timeout=300_000)
        seconds: list[float] = []
        for number in (1, 2, 3):
            chosen = time.perf_counter()
            tab.get_by_role("button", name=f"Sample {number}").click(timeout=300_000)
            tab.get_by_role("button", name="Show the answer").click(timeout=300_000)
            tab.locator('.xray-viewer[data-heat="Grad-CAM"]').wait_for(timeout=300_000)
            tab.locator(".xray-line").wait_for(timeout=300_000)
            seconds.append(time.perf_counter() - (chosen if seconds else start))
        yield "page: start to first answer in a browser, s", seconds[0], 1.0, "<= 10", ""
        loading = alternatives.loading(config.ROOT)
        yield "page: first answer / importing TensorFlow and loading the model", seconds[0], loading, "<= 1.5", ""
        yield "page: a sample chosen to its answer, s", min(seconds[1:]), 1.0, "<= 0.5", "in a browser, with Grad-CAM"


def run_in(folder: Path, module: str, *arguments: str) -> None:
    """`python -m module arguments` in `folder`, a copy of the code; its output is shown only where it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--patients", type=int, default=900, help="phantom patients of the smaller run for memory")
    parser.add_argument("--files", type=int, default=1000, help="JPEGs to predict, and DICOM files")
    parser.add_argument("--many", type=int, nargs=2, default=(5_000, 50_000), help="small files for 01 and 02")
    parser.add_argument("--profile", default="demo", help="of the run that is compared with its cells")
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings, such as image_size=128")
    given = parser.parse_args()
    chosen = {"recipe": "classic", "weights": "none", "cached_views": 1} | config.parse_assignments(given.set)
    settings = config.make_settings("chest_xray", chosen)
    images, _ = phantom.pretraining_set(given.images, settings.image_size, 0)
    print(f"{settings.backbone}, {given.images} phantoms, {settings.image_size} pixels, {os.cpu_count()} cores")
    table = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("helpers", "notebooks"):
            shutil.copytree(config.ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(config.PRETRAINED, folder / "data" / "pretrained")
        sizes = {name: chosen[name] for name in ("image_size", "backbone", "batch_size") if name in chosen}
        parts = {
            "stages": lambda: stages(settings, images, folder / "activations"),
            "pipeline": lambda: pipeline(settings, images, folder),
            "step": lambda: alternatives.training_step(images, sizes, in_turns),
            "image": lambda: one_image(settings, images),
            "command": lambda: alternatives.command(folder, given.files),
            "duplicates": near_duplicates.rows,
            "many": lambda: alternatives.many_files(folder, given.many, near_duplicates.thumbnails, run_in),
            "memory": lambda: memory(folder, given.patients),
            "page": lambda: page(folder),
            "notebooks": lambda: alternatives.notebooks(folder, given.profile, run_in),
        }
        for rows in (parts[name]() for name in given.only):
            for what, one, other, wanted, note in rows:
                table.append((what, one, other, one / other, wanted, note))
                print(f"  {what}: {one / other:.2f} ({wanted})", flush=True)
    columns = ["what", "first", "second", "ratio", "asked", "note"]
    print(pd.DataFrame(table, columns=columns).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
