"""Speed beside what people would use instead: plain Keras, PyTorch, bare model calls, pydicom, a kernel's own work."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import nbformat
import numpy as np
from PIL import Image

from helpers import config, model, phantom, predict, training
from tests import notebook_code
from tests.conftest import dicom, transcoded

Row = tuple[str, float, float, str, str]  # what, ours, theirs, what is asked for, note
H100 = 989e12  # dense bfloat16 operations a second (NVIDIA's data sheet, SXM)
BUSY = 0.4  # of them that convolutional networks reach in training, at most


def training_step(images: np.ndarray, sizes: dict, in_turns: Callable) -> Iterator[Row]:
    """A step of the default recipe, pipeline included, against `fit` as Keras' guide has it on a constant batch."""
    settings = config.make_settings("chest_xray", {"weights": "none", "fine_tuning_epochs": 1} | sizes)
    steps, size = 6, settings.batch_size
    rows = np.arange(steps * size) % len(images)
    labels, weights = rows % 2, np.ones(len(rows), np.float32)

    def network(policy: str) -> keras.Model:
        built = notebook_code.add_head(model.build_backbone(settings), settings)
        notebook_code.unfreeze(built, -1)
        model.set_precision(built, policy)
        return built

    ours, plain = network(training.precision(settings)), network("float32")
    notebook_code.compile_stage(ours, "fine_tuning", settings, len(rows))
    plain.compile("adam", "binary_crossentropy")
    course = training.training_batches(images, rows, labels, weights, settings, 1)
    ready = images[rows][..., None].astype(np.float32), labels.astype(np.float32)
    calls = [lambda: ours.fit(course, shuffle=False, verbose=0)]
    calls.append(lambda: plain.fit(*ready, batch_size=size, verbose=0))
    mine, theirs = in_turns(calls, 3)
    computed = training.precision(settings)
    asked = ">= 2" if computed != "float32" else ">= 1.0"
    note = f"{settings.backbone}, {computed}, {len(rows) / mine:.1f} and {len(rows) / theirs:.1f} images/s"
    yield "training step, all layers: plain Keras fit / ours", theirs, mine, asked, note
    needed = 6 * multiply_adds(ours)  # forward and, twice that, backward; a multiplication and an addition each
    eaten = BUSY * H100 / needed
    start = time.perf_counter()
    seen = sum(len(batch[0]) for batch in training.training_batches(images, rows, labels, weights, settings, 2))
    fed = seen / (time.perf_counter() - start)
    note = f"{fed:.0f} images/s of {os.cpu_count()} cores; {needed / 1e9:.1f} GFLOP an image, {BUSY:.0%} of the peak"
    yield "input pipeline, images/s: ours / what an H100 eats (calculated)", fed, eaten, "", note
    if importlib.util.find_spec("torchvision"):
        yield resnet_step(settings, ready, in_turns)


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds of one image on its way through convolutions and dense layers."""
    total = 0
    for layer in network.layers:
        kernels = [weight.shape for weight in layer.weights if weight.name.endswith("kernel") and len(weight.shape) > 1]
        for kernel in kernels:
            depthwise = len(kernel) == 4 and ("depthwise" in layer.name or kernel[3] == 1)
            places = int(np.prod(layer.output.shape[1:3])) if len(kernel) == 4 else 1
            total += places * int(np.prod(kernel[:3] if depthwise else kernel))
    return total


def resnet_step(settings: config.Settings, ready: tuple, in_turns: Callable) -> Row:
    """Steps of ResNet50 as the recipe trains it, against torchvision's: same batches, frozen batch normalisation."""
    settings = config.make_settings(overrides={"backbone": "ResNet50"}, base=settings)
    ready = tuple(part[: 3 * settings.batch_size] for part in ready)
    ours = notebook_code.add_head(model.build_backbone(settings), settings)
    notebook_code.unfreeze(ours, -1)
    computed = training.precision(settings)
    model.set_precision(ours, computed)
    notebook_code.compile_stage(ours, "fine_tuning", settings, len(ready[0]))
    calls = [lambda: ours.fit(*ready, batch_size=settings.batch_size, shuffle=False, verbose=0)]
    calls.append(torch_epoch(settings, ready, computed != "float32"))
    mine, theirs = in_turns(calls, 3)
    note = f"{computed}, {len(ready[0]) / mine:.1f} and {len(ready[0]) / theirs:.1f} images/s"
    return "training step, all layers of ResNet50: ours / PyTorch", mine, theirs, "<= 1.2", note


def torch_epoch(settings: config.Settings, ready: tuple, half: bool) -> Callable[[], None]:
    """A function that trains torchvision's ResNet50 an epoch, channels last, in its best precision here."""
    torch, torchvision = map(importlib.import_module, ("torch", "torchvision"))  # installed by hand, in no list
    network = torchvision.models.resnet50(num_classes=1).to(memory_format=torch.channels_last)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval().requires_grad_(False)
    learning = [weights for weights in network.parameters() if weights.requires_grad]
    adam, loss = torch.optim.AdamW(learning, 1e-4), torch.nn.BCEWithLogitsLoss()
    pixels = torch.from_numpy(np.repeat(ready[0].transpose(0, 3, 1, 2), 3, 1) / 255)
    batches = pixels.to(memory_format=torch.channels_last).split(settings.batch_size)
    targets = torch.from_numpy(ready[1][:, None]).split(settings.batch_size)

    def epoch() -> None:
        for batch, target in zip(batches, targets, strict=True):
            adam.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                error = loss(network(batch).float(), target)
            error.backward()
            adam.step()

    return epoch


def _predict(folder: Path, films: Path) -> float:
    command = [sys.executable, "-m", "helpers.predict", "--csv", str(folder / "found.csv"), str(films)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"helpers.predict failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def _decode(films: list[Path]) -> float:
    """Seconds of two processes that do nothing but decode, each a half of the files."""
    code = "import sys, pydicom\nfor file in sys.argv[1:]: pydicom.dcmread(file).pixel_array"
    start = time.perf_counter()
    both = [subprocess.Popen([sys.executable, "-c", code, *films[half::2]]) for half in (0, 1)]
    if any(process.wait() for process in both):
        raise SystemExit("pydicom cannot decode what it is to be measured on")
    return time.perf_counter() - start


def command(folder: Path, files: int) -> Iterator[Row]:
    """`python -m helpers.predict` on many JPEGs and on large DICOM, its start included."""
    rng = np.random.default_rng(0)
    drawn = [phantom.draw(rng, finding)[0] for finding in ("bacteria", "virus", "normal", "normal")]
    jpegs, dicoms = folder / "jpegs", folder / "dicoms"
    for place in (jpegs, dicoms):
        place.mkdir()
    for number in range(files):
        Image.fromarray(np.roll(drawn[number % 4], number, 1)).save(jpegs / f"{number:05d}.jpeg")
    for number, image in enumerate(drawn):
        stored = np.asarray(Image.fromarray(image).resize((2000, 2000))).astype(np.uint16) * 16
        film = folder / f"film{number}.dcm"
        film.write_bytes(transcoded(dicom(stored), "JPEGLosslessProcess14_1", folder))
        for copy in range(number, files, len(drawn)):
            (dicoms / f"{copy:05d}.dcm").hardlink_to(film)
    predictor = predict.Predictor.load(config.PRETRAINED)
    pixels = np.zeros((files, predictor.size, predictor.size, 1), np.float32)
    predictor.classifier.predict(pixels[:16], batch_size=16, verbose=0)
    start = time.perf_counter()
    predictor.classifier.predict(pixels, batch_size=16, verbose=0)
    bare = time.perf_counter() - start
    whole = _predict(folder, jpegs)
    note = f"{files} files, {files / whole:.0f} images/s, start included"
    yield "helpers.predict on JPEGs / bare batched calls", whole, bare, "<= 1.3", note
    bare = _decode(sorted(dicoms.glob("*.dcm")))
    note = f"{files} files of 2,000 pixels, JPEG lossless"
    yield "helpers.predict on DICOM / pydicom in two processes", _predict(folder, dicoms), bare, "<= 1.2", note


@functools.cache
def loading(folder: Path) -> float:
    """Seconds of a Python that imports TensorFlow and loads the model of the clone."""
    code = "import tensorflow, helpers.model, helpers.config as c; helpers.model.load(c.PRETRAINED)"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def notebooks(folder: Path, profile: str, run_in: Callable) -> Iterator[Row]:
    """A whole run against the sum of what its kernels computed, cell by cell."""
    start = time.perf_counter()
    run_in(folder, "helpers.run", "--profile", profile, "--name", "whole")
    whole = time.perf_counter() - start
    cells = [
        cell
        for file in sorted((folder / "reports" / "whole").glob("*.ipynb"))
        for cell in nbformat.read(file, as_version=4).cells
    ]
    own = sum((cell.metadata.get("papermill") or {}).get("duration") or 0 for cell in cells)
    yield f"all notebooks of {profile} / their cells alone", whole, own, "<= 1.25", f"{whole:.0f} and {own:.0f} s"


def many_files(folder: Path, counts: tuple[int, ...], thumbnails: Callable, run_in: Callable) -> Iterator[Row]:
    """Seconds and memory of 01 and 02 on growing numbers of small files."""
    drawn, records = phantom.pretraining_set(100, 32, 0)[0].astype(float), {}
    for count in counts:
        root = folder / f"films-{count}"
        for split in ("train", "test"):
            for label in config.LABELS:
                (root / split / label).mkdir(parents=True)
        for number, small in enumerate(thumbnails(count, drawn, np.random.default_rng(count))):
            split = "test" if number % 8 == 0 else "train"
            name = f"IM-{number:06d}-0001" if number % 2 else f"person{number}_bacteria_1"
            buffer = io.BytesIO()
            Image.fromarray(small).save(buffer, "JPEG", quality=95)
            (root / split / config.LABELS[number % 2 == 0] / f"{name}.jpeg").write_bytes(buffer.getvalue())
        for number in ("01", "02"):
            words = ["--profile", "smoke", "--name", f"many-{count}", "--data", str(root), "--only", number]
            run_in(folder, "helpers.run", *words, "--set", "image_size=32")
        file = folder / "reports" / f"many-{count}" / "run.json"
        records[count] = json.loads(file.read_text(encoding="utf-8"))["notebooks"]
        shutil.rmtree(root)
    least, most = min(counts), max(counts)
    for stem in ("01_eda", "02_preprocessing"):
        small, large = (records[count][stem]["seconds"] for count in (least, most))
        grows = np.log(large / small) / np.log(most / least)
        note = f"grows as n^{grows:.2f}; {records[most][stem]['peak_memory'] / 1e9:.2f} GB (< 3)"
        yield f"seconds of {stem[:2]}: {most:,} / {least:,} files", large, small, "about n log n", note
