"""Fixtures that several test files share: copies of the clone to run in, and one run of the smoke profile."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import pytest
from scipy import ndimage

from helpers import config

COPIED = ("helpers", "notebooks", "docs", "requirements", ".gitignore")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Clone:
    """A copy of the code with its own data/ and reports/, so that tests meet neither the user's runs nor each other."""

    root: Path

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    def python(self, module: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
        """`python -m module arguments` as typed at the root of the clone; stdout and stderr as text."""
        left_out = ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", "MPLBACKEND", "KERAS_HOME")
        environment = {name: value for name, value in os.environ.items() if name not in left_out} | variables
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=900
        )

    def record(self, name: str) -> dict:
        """run.json of the run `name`."""
        return json.loads((self.reports / name / "run.json").read_text(encoding="utf-8"))


def make_clone(root: Path) -> Clone:
    """Copy the working tree's code to `root`, which must not exist."""
    root.mkdir(parents=True)
    for name in COPIED:
        source = config.ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=LEFT_OUT)
        else:
            shutil.copy(source, root / name)
    return Clone(root)


def commit(clone: Clone) -> str:
    """Make the copy a git clone with one commit; its hash, "" where there is no git."""
    if not shutil.which("git"):
        return ""
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    git = ["git", "-C", str(clone.root), *who]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--no-verify", "-m", "as it is"]):
        subprocess.run([*git, *words], check=True, env=environment, capture_output=True)
    asked = subprocess.run([*git, "rev-parse", "HEAD"], check=True, env=environment, capture_output=True, text=True)
    return asked.stdout.strip()


@dataclass(frozen=True)
class SmokeRun:
    """The smoke profile, run once for all tests: nobody changes its folder."""

    clone: Clone
    name: str
    folder: Path
    data: Path  # the phantoms it drew
    commit: str
    done: subprocess.CompletedProcess = field(repr=False)


def make_smoke_run(above: Path) -> SmokeRun:
    clone = make_clone(above / "fresh clone")
    head = commit(clone)
    name = "contracts-7f3a"  # found nowhere else, should it leak into a result
    done = clone.python("helpers.run", "--profile", "smoke", "--name", name)
    return SmokeRun(clone, name, clone.reports / name, clone.root / "data" / "smoke", head, done)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id) -> SmokeRun:
    """`python -m helpers.run --profile smoke --name contracts`, in a fresh clone at a path with a blank in it.

    The processes of one `pytest -n` share it: the first that asks makes it.
    """
    above = tmp_path_factory.getbasetemp() / "smoke"
    if worker_id != "master":
        above = above.parent.parent / "smoke"
    with filelock.FileLock(f"{above}.lock"):
        kept = above / "run.pickle"
        if not kept.exists():
            kept.parent.mkdir()
            kept.write_bytes(pickle.dumps(make_smoke_run(above)))
        run = pickle.loads(kept.read_bytes())
    assert run.done.returncode == 0, f"{run.done.stdout[-2000:]}\n{run.done.stderr}"
    return run


@pytest.fixture
def clone(tmp_path) -> Clone:
    """A fresh copy of the code, for one test."""
    return make_clone(tmp_path / "clone")


BRIGHT, WEIGHT = 0.5, 200.0  # of the planted classifier: what counts as bright, and how much it counts


def planted_logit(pixels: np.ndarray) -> float:
    """What the planted classifier must answer to float (32, 32), 0-255, computed with SciPy."""
    local_mean = ndimage.uniform_filter(pixels.astype(np.float64) / 255, 5, mode="constant")
    return WEIGHT * np.maximum(local_mean - BRIGHT, 0).mean() - 2


@pytest.fixture(scope="session")
def planted():
    """A flat Keras classifier (32, 32, 1) with hand-set weights: ill is what has a bright spot of 5 pixels or more."""
    import keras
    from keras import layers

    pixels = layers.Input((32, 32, 1), name="pixels")
    x = layers.Rescaling(1 / 255, name="preprocessing")(pixels)
    x = layers.Conv2D(1, 5, padding="same", activation="relu", name="spots")(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    x = layers.Dense(1, activation="relu", name="dense")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Dense(1, name="logit")(x)
    network = keras.Model(pixels, layers.Activation("sigmoid", name="probability")(x))
    network.get_layer("spots").set_weights([np.full((5, 5, 1, 1), 1 / 25), np.array([-BRIGHT])])
    network.get_layer("dense").set_weights([np.eye(1), np.zeros(1)])
    network.get_layer("logit").set_weights([np.full((1, 1), WEIGHT), np.array([-2.0])])
    return network


@pytest.fixture(scope="session")
def planted_folder(planted, tmp_path_factory) -> Path:
    """The planted classifier as a model folder: threshold 0.4, and a calibration that adds a half."""
    from helpers import model

    folder = tmp_path_factory.mktemp("planted") / "model"
    card = model.make_card(config.make_settings("smoke"), "0" * 64, public=True)
    calibration = {"method": "platt", "slope": 1.0, "intercept": 0.5}
    model.save(planted, folder, card | {"threshold": 0.4, "threshold_policy": "0.4", "calibration": calibration})
    return folder


def planted_film(spot: tuple[int, int] | None = None, size: int = 32, seed: int = 0) -> np.ndarray:
    """uint8 (size, size): dark noise and, at `spot` (row, column, in 32nds of the size), a bright square of 10."""
    film = np.random.default_rng(seed).integers(0, 90, (size, size)).astype(np.uint8)
    if spot:
        row, column = (size * place // 32 for place in spot)
        film[row : row + size * 10 // 32, column : column + size * 10 // 32] = 250
    return film


def dicom(stored: np.ndarray, bits: int = 12, photometric: str = "MONOCHROME2", **elements) -> bytes:
    """A digital X-ray; `stored` (height, width), or (frames, height, width), or (height, width, 3) for RGB."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3"  # the same bytes each time
    samples = 3 if photometric == "RGB" else 1
    if stored.ndim == 3 and samples == 1:
        data.NumberOfFrames = len(stored)
    data.Rows, data.Columns = stored.shape[:2] if samples == 3 else stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = samples, photometric
    if samples == 3:
        data.PlanarConfiguration = 0
    data.BitsStored, data.BitsAllocated, data.HighBit = bits, 8 * stored.dtype.itemsize, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW"
    for name, value in elements.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def transcoded(data: bytes, syntax: str, folder: Path) -> bytes:
    """The same DICOM in another of gdcm's transfer syntaxes, by way of files in `folder`."""
    import gdcm

    (folder / "in.dcm").write_bytes(data)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(folder / "in.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(folder / "out.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "out.dcm").read_bytes()


@pytest.fixture(scope="module")
def eager():
    """Without TensorFlow's graphs, whose making would take most of the time; `graphs` takes that back for a test."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def graphs():
    """As outside of tests."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


class Killed(BaseException):
    """As a signal: nothing may catch it."""


def same_weights(one, other) -> bool:
    """Whether two Keras models have equal weights, to the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
