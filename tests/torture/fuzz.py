"""Fuzz the image readers with atheris, each in a process of its own (`reader`) with a limit of time and memory."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from helpers.config import ROOT
from tests.conftest import dicom, transcoded
from tests.torture.runs import Findings

KINDS = ("raster", "dicom")
SECONDS, MEGABYTES, BYTES = 5, 1000, 10_000_000  # per input: time and memory at most, and its size
INSTALL = "atheris is not installed: `.venv/bin/python -m pip install atheris` (Linux, Python 3.11 to 3.13)"


def seeds(kind: str) -> Iterator[bytes]:
    """Small files of every sort that the readers know."""
    film = np.random.default_rng(0).integers(0, 256, (24, 31), dtype=np.uint8)
    if kind == "dicom":
        deep = (film.astype(np.uint16) << 4) + 3
        yield dicom(film, bits=8)
        yield dicom(deep, photometric="MONOCHROME1")
        yield dicom(deep.astype(np.int16) - 900, bits=16, WindowCenter=5, WindowWidth=9)
        yield dicom(deep, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[5, 6], WindowWidth=[9, 10])
        yield dicom(np.stack([film, film]), bits=8)
        yield dicom(np.stack([film] * 3, axis=-1), bits=8, photometric="RGB")
        yield dicom(deep, bits=16, PixelPaddingValue=3, PixelPaddingRangeLimit=60, PixelSpacing=[0.2, 0.1])
        yield dicom(
            deep, PresentationLUTShape="INVERSE", PatientAge="004Y", ViewPosition="PA", VOILUTFunction="SIGMOID"
        )
        yield dicom(deep, VOILUTSequence=[lookup_table()], ModalityLUTSequence=[lookup_table()])
        yield from compressed(film, deep)
        return
    for mode in ("L", "RGB", "RGBA", "LA", "P", "1", "I;16"):
        yield encoded(film, mode, "PNG")
    for mode in ("L", "RGB", "CMYK"):
        yield encoded(film, mode, "JPEG")
    for more in ("WEBP", "BMP", "TIFF", "GIF"):
        yield encoded(film, "RGB", more)
    yield encoded(film, "I;16", "TIFF", compression="tiff_lzw")
    yield encoded(film, "L", "JPEG")[:-2]
    exif = Image.Exif()
    exif[0x0112] = 6
    yield encoded(film, "L", "JPEG", exif=exif, progressive=True)
    yield encoded(film, "RGB", "PNG", exif=exif)
    yield encoded(film, "P", "PNG", transparency=bytes(range(256)))
    yield encoded(film, "L", "PNG", save_all=True, append_images=[Image.fromarray(255 - film)])


def encoded(film: np.ndarray, mode: str, kind: str, **options: object) -> bytes:
    """uint8 (height, width) as a file of this mode and kind."""
    buffer = io.BytesIO()
    Image.fromarray(film).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def compressed(film: np.ndarray, deep: np.ndarray) -> Iterator[bytes]:
    """DICOM in the compressed transfer syntaxes."""
    with tempfile.TemporaryDirectory() as folder:
        for syntax in ("RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"):
            yield transcoded(dicom(deep), syntax, Path(folder))
        yield transcoded(dicom(deep), "JPEGExtendedProcess2_4", Path(folder))
        yield transcoded(dicom(film, bits=8), "JPEGBaselineProcess1", Path(folder))


def lookup_table() -> pydicom.Dataset:
    """An item of a sequence of them."""
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [64, 0, 8], list(range(0, 256, 4))
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return item


def torture(above: Path, minutes: float, seed: int) -> Findings:
    """Fuzz both readers side by side for `minutes`; every crash, hang or glut is a file in the finding's text."""
    found = Findings()
    if not importlib.util.find_spec("atheris"):
        found.wrong.append(INSTALL)
        return found
    running = {}
    for kind in KINDS:
        folder = above / "fuzz" / kind
        (folder / "corpus").mkdir(parents=True)
        for number, data in enumerate(seeds(kind)):
            (folder / "corpus" / f"seed-{number}").write_bytes(data)
        options = [f"-max_total_time={round(60 * minutes)}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
        options += [f"-max_len={BYTES}", "-len_control=0" if kind == "dicom" else "-len_control=50", f"-seed={seed}"]
        options += [f"-artifact_prefix={folder}/", "-print_final_stats=1", str(folder / "corpus")]
        command = [sys.executable, "-m", "tests.torture.reader", kind, str(folder / "last-input"), *options]
        with (folder / "log.txt").open("wb") as log:
            running[kind] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    for kind, process in running.items():
        status = process.wait()
        log = (above / "fuzz" / kind / "log.txt").read_text(encoding="utf-8", errors="replace")
        numbers = dict(re.findall(r"stat::(\w+): +(\d+)", log))
        found.counts[f"{kind}: executions"] = int(numbers.get("number_of_executed_units", 0))
        found.counts[f"{kind}: peak memory, MB"] = int(numbers.get("peak_rss_mb", 0))
        found.counts[f"{kind}: slowest input, s"] = int(numbers.get("slowest_unit_time_sec", 0))
        found.counts[f"{kind}: corpus"] = len(list((above / "fuzz" / kind / "corpus").iterdir()))
        kept = sorted((above / "fuzz" / kind).glob("*-*"))  # crash-, timeout-, oom-, and the last input
        for file in kept if status else ():
            data = file.read_bytes()
            shown = data.hex() if len(data) <= 2000 else f"{len(data)} bytes, kept as {keep(file)}"
            found.expect(False, f"{kind}: {file.name.split('-')[0]} on {shown}")
        found.expect(status == 0, f"{kind}: the fuzzer ended with status {status}: {log[-800:]}")
    return found


def keep(file: Path) -> Path:
    """Copy a finding to where it outlives this call."""
    kept = ROOT / "reports" / f"torture-{file.name}"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(file.read_bytes())
    return kept
