"""Properties of the readers: whatever the bytes, a picture or one sentence, soon, and within bounds."""

from __future__ import annotations

import functools
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from helpers import config, images
from helpers.config import InputError
from tests.conftest import dicom

# more of them where it is set; a few seconds of `make test` are enough to catch what breaks at once
EXAMPLES = int(os.environ.get("READER_EXAMPLES", "150"))
SOON = 5.0  # seconds
common = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 150, suppress_health_check=[HealthCheck.too_slow]
)


def raster(kind: str, mode: str) -> bytes:
    film = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 31), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    film.save(buffer, kind)
    return buffer.getvalue()


SEEDS = {
    "JPEG": raster("JPEG", "L"),
    "JPEG, CMYK": raster("JPEG", "CMYK"),
    "PNG": raster("PNG", "RGBA"),
    "PNG, palette": raster("PNG", "P"),
    "PNG, 16 bits": raster("PNG", "I;16"),
    "WebP": raster("WEBP", "RGB"),
    "BMP": raster("BMP", "P"),
    "TIFF": raster("TIFF", "I;16"),
    "GIF": raster("GIF", "L"),
    "DICOM": dicom(np.arange(24 * 31, dtype=np.uint16).reshape(24, 31)),
    "DICOM, window": dicom(np.arange(24 * 31, dtype=np.int16).reshape(24, 31), bits=16, WindowCenter=5, WindowWidth=9),
}


def check(data: bytes) -> None:
    """The bytes give a picture within bounds, or an InputError in one sentence; nothing else, and not late."""
    start, found, said = time.process_time(), None, ""
    try:
        found = images.read(data).pixels
    except InputError as error:
        said = str(error)
    assert time.process_time() - start < SOON
    if found is None:
        assert said.startswith("the image ")
        assert "\n" not in said
        assert "object at 0x" not in said
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 2
        assert 0 < found.size <= images.MOST_PIXELS


@common
@given(st.binary(max_size=600))
def test_any_bytes(data):
    check(data)


@common
@given(st.binary(max_size=300))
def test_any_bytes_that_claim_to_be_dicom(data):
    check(bytes(128) + b"DICM" + data)


@pytest.mark.parametrize("seed", SEEDS)
@common
@given(data=st.data())
def test_damaged_files(seed, data):
    damaged = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    check(bytes(damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))]))


@common
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from(["L", "RGB", "RGBA", "LA", "P", "1"])
)
def test_a_png_of_any_size_and_mode_keeps_its_size(height, width, seed, mode):
    film = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(film).convert(mode).save(buffer, "PNG")
    found = images.read_image(buffer.getvalue())
    assert found.shape == (height, width)
    if mode in ("L", "RGB"):
        assert np.array_equal(found, film)


@common
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 16), st.booleans(), st.integers(0, 2**31))
def test_a_dicom_of_any_depth_keeps_its_size_and_order(height, width, bits, inverted, seed):
    kind = np.uint8 if bits <= 8 else np.uint16
    film = np.random.default_rng(seed).integers(0, 2**bits, (height, width)).astype(kind)
    found = images.read_image(dicom(film, bits, "MONOCHROME1" if inverted else "MONOCHROME2")).astype(int)
    assert found.shape == (height, width)
    order = np.argsort(film, axis=None, kind="stable")
    steps = np.diff(found.ravel()[order])
    assert ((steps <= 0) if inverted else (steps >= 0)).all()


# decompression bombs: small files that would fill the memory or take minutes

SIDE = 8000  # 64 megapixels, as many as are read


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def framed(frame: bytes, syntax: str, rows: int, columns: int, bits: int = 8, **elements: object) -> bytes:
    """A DICOM file that says it has `rows` and `columns`, around a compressed frame that may say otherwise."""
    data = pydicom.dcmread(io.BytesIO(dicom(np.zeros((4, 4), np.uint8 if bits == 8 else np.uint16), bits)))
    data.file_meta.TransferSyntaxUID, data.PixelData = syntax, encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.Rows, data.Columns = rows, columns
    for name, value in elements.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def run_lengths(*segments: bytes) -> bytes:
    starts = np.cumsum([64, *map(len, segments)])[: len(segments)]
    return struct.pack(f"<{len(segments) + 1}L", len(segments), *starts).ljust(64, b"\0") + b"".join(segments)


@functools.cache
def many_scans(scans: int = 500) -> bytes:
    """A progressive JPEG that asks for its last pass over the pixels so often."""
    whole = saved(Image.new("L", (SIDE, SIDE), 9), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_colour_png(height: int) -> bytes:
    """16 bits of red, green, blue and opacity."""
    size = struct.pack(">IIBBBBB", SIDE, height, 16, 6, 0, 0, 0)
    packed = zlib.compress(bytes(height * (8 * SIDE + 1)), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def commented_png() -> bytes:
    """Comments that unpack to a gigabyte."""
    whole, comment = saved(Image.new("L", (SIDE, SIDE), 9), "PNG"), zlib.compress(bytes(50_000_000), 9)
    return whole[:33] + chunk(b"zTXt", b"a\0\0" + comment) * 20 + whole[33:]


def announced(jpeg: bytes) -> bytes:
    """A JPEG that announces more pictures after it, of which there is only one (CIPA DC-007, Multi-Picture Format)."""
    entries = struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, 1)
    entries += struct.pack("<HHII", 0xB002, 7, 16, 50)
    index = b"MPF\0II*\0" + struct.pack("<IH", 8, 3) + entries + struct.pack("<I", 0)
    index += struct.pack("<IIIHH", 0x030000, len(jpeg), 0, 0, 0)
    return jpeg[:2] + b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index + jpeg[2:]


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """What it is, the file, and what has to be said of it; "" where it is read."""
    size, turned = (SIDE, SIDE), Image.Exif()
    turned[0x0112] = 6
    same = b"\x81\x07"  # RLE: 128 times 7
    deep = saved(Image.fromarray(np.full(size, 9000, np.uint16)), "JPEG2000", no_jp2=True)
    grey = saved(Image.new("L", size, 9), "JPEG")
    yield (
        "PNG, transparent and turned",
        saved(Image.new("RGBA", size, (9, 8, 7, 99)), "PNG", exif=turned, compress_level=1),
        "",
    )
    yield "PNG, 16 bits", saved(Image.fromarray(np.full(size, 9000, np.uint16)), "PNG", compress_level=1), ""
    yield "JPEG, CMYK and turned", saved(Image.new("CMYK", size), "JPEG", exif=turned), ""
    yield "JPEG, many scans", many_scans(), "more passes"
    yield "JPEG of more pictures, many scans", announced(many_scans()), "more passes"
    yield "PNG, 100 megapixels", saved(Image.new("1", (10_000, 10_000)), "PNG"), "100 megapixels"
    window = {"WindowCenter": 500, "WindowWidth": 900, "RescaleSlope": 1, "RescaleIntercept": -3}
    planes = run_lengths(*[same * (SIDE * SIDE // 128)] * 2)
    yield "DICOM, RLE with a window", framed(planes, RLELossless, SIDE, SIDE, 16, **window), ""
    yield "DICOM, RLE that unpacks to more", framed(run_lengths(same * 4_900_000), RLELossless, 100, 100), ""
    yield "DICOM, JPEG 2000", framed(deep, JPEG2000Lossless, SIDE, SIDE, 16), ""
    yield "DICOM, JPEG 2000 of another size", framed(deep, JPEG2000Lossless, 10, 10, 16), "of another size"
    yield "DICOM, JPEG of another size", framed(grey, JPEGBaseline8Bit, 10, 10), "of another size"
    yield "DICOM, JPEG of many scans", framed(many_scans(), JPEGBaseline8Bit, SIDE, SIDE), "more passes"
    yield "DICOM, 4 gigapixels", framed(grey, JPEGBaseline8Bit, 65535, 65535), "4295 megapixels"
    small = np.zeros((4, 4), np.uint8)
    yield "DICOM, without its pixels", dicom(small, 8, Rows=SIDE, Columns=SIDE), "truncated"
    yield "DICOM, endless frames", dicom(small, 8, NumberOfFrames=2**31 - 1), ""
    colours = run_lengths(*[same * (SIDE * SIDE // 128)] * 3)
    photometric = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 1}
    yield "DICOM, RLE in colour", framed(colours, RLELossless, SIDE, SIDE, **photometric), ""
    yield "DICOM, pixels of another shape", dicom(small, 8, PixelSpacing=[9.9, 1], Rows=1, Columns=16), ""
    yield "DICOM without preamble, 4 gigapixels", framed(grey, JPEGBaseline8Bit, 65535, 65535)[132:], "4295 megapixels"
    yield "PNG, 16 bits in colour", deep_colour_png(SIDE // 2), ""
    yield "PNG, 16 bits in colour, twice as many", deep_colour_png(SIDE), "at most 32"
    yield "PNG, comments", commented_png(), ""
    yield "JPEG without its end", grey[:-2], ""
    yield "JPEG without its end, some scans", many_scans(12)[:-2], "more passes"
    yield "TIFF, packed", saved(Image.new("RGBA", size, (9, 8, 7, 99)), "TIFF", compression="tiff_adobe_deflate"), ""
    yield "TIFF, 16 bits", saved(Image.fromarray(np.full(size, 9000, np.uint16)), "TIFF", compression="tiff_lzw"), ""
    yield "GIF", saved(Image.new("L", size, 9), "GIF"), ""
    yield (
        "WebP, as many as are read",
        saved(Image.new("RGBA", (SIDE, SIDE // 2), (9, 8, 7, 99)), "WEBP", exif=turned, method=0),
        "",
    )
    yield "WebP, twice as many", saved(Image.new("RGB", size), "WEBP", quality=1, method=0), "at most 32"


READ_EACH = """
import os, sys
from helpers import images
from helpers.config import InputError
for file in sys.argv[1:]:
    if child := os.fork():
        _, status, used = os.wait4(child, 0)
        print(status, used.ru_utime + used.ru_stime, used.ru_maxrss, sep="|", flush=True)
        continue
    try:
        images.read(file)
        said = ""
    except InputError as error:
        said = str(error)
    print(said, end="|", flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory in kB is Linux's")
def test_bombs_neither_fill_the_memory_nor_take_long(tmp_path):
    wanted = {}
    for number, (what, data, said) in enumerate(bombs()):
        assert len(data) < 10_000_000, what
        (tmp_path / f"{number:02d}").write_bytes(data)
        wanted[what] = said
    command = [sys.executable, "-c", READ_EACH, *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, cwd=config.ROOT, capture_output=True, text=True, check=True)
    for (what, said), line in zip(wanted.items(), done.stdout.splitlines(), strict=True):
        found, status, seconds, kilobytes = line.split("|")
        assert status == "0", f"{what}: the process ended"
        assert float(seconds) < SOON, what
        assert int(kilobytes) < 1_000_000, what
        assert said in found if said else not found, f"{what}: {found}"
