"""The process that `fuzz` starts: `python -m tests.torture.reader KIND LAST [OPTION OF LIBFUZZER ...] CORPUS`.

LAST is a file for the input being read, should it end the process.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["PIL", "pydicom", "helpers.images"]):  # before anything else imports them
    from helpers import images
    from helpers.config import InputError


kind, last = sys.argv.pop(1), Path(sys.argv.pop(1))


def once(data: bytes) -> None:
    """The bytes give a picture within bounds or an InputError; everything else is a finding."""
    if kind == "dicom" and data[128:132] != b"DICM":
        data = bytes(128) + b"DICM" + data[132:]
    last.write_bytes(data)
    with contextlib.suppress(InputError):
        pixels = images.read(data).pixels
        assert pixels.dtype == np.uint8, pixels.dtype
        assert pixels.ndim == 2, pixels.shape
        assert 0 < pixels.size <= images.MOST_PIXELS, pixels.shape


if __name__ == "__main__":
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
