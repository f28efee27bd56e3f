"""Properties of the readers: whatever the bytes, a picture or one sentence, soon, and within bounds."""

from __future__ import annotations

import io
import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import images
from helpers.config import InputError
from tests.conftest import dicom

# `make torture` sets it; a few seconds of `make test` are enough to catch what breaks at once
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
    "DICOM": dicom(np.arange(24 * 31, dtype=np.uint16).reshape(24, 31)),
    "DICOM, window": dicom(np.arange(24 * 31, dtype=np.int16).reshape(24, 31), bits=16, WindowCenter=5, WindowWidth=9),
}


def check(data: bytes) -> None:
    """The bytes give a picture within bounds, or an InputError in one sentence; nothing else, and not late."""
    start, found, said = time.perf_counter(), None, ""
    try:
        found = images.read(data).pixels
    except InputError as error:
        said = str(error)
    assert time.perf_counter() - start < SOON
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
