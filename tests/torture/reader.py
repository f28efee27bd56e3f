"""The process that `fuzz` starts: `python -m tests.torture.reader KIND [OPTION OF LIBFUZZER ...] CORPUS`."""

from __future__ import annotations

import contextlib
import sys

import atheris
import numpy as np

with atheris.instrument_imports(include=["PIL", "pydicom", "helpers.images"]):  # before anything else imports them
    from helpers import images
    from helpers.config import InputError


kind = "raster"  # or "dicom"


def once(data: bytes) -> None:
    """The bytes give a picture within bounds or an InputError; everything else is a finding."""
    if kind == "dicom" and data[128:132] != b"DICM":
        data = bytes(128) + b"DICM" + data[132:]
    with contextlib.suppress(InputError):
        pixels = images.read(data).pixels
        assert pixels.dtype == np.uint8, pixels.dtype
        assert pixels.ndim == 2, pixels.shape
        assert 0 < pixels.size <= images.MOST_PIXELS, pixels.shape


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
