"""The one path from bytes to pixels, used in training, evaluation, the widget and the command."""

from __future__ import annotations

import errno
import re
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from helpers.config import InputError
from helpers.images import decode

MOST_BYTES = 500_000_000  # of a file: twice what the largest picture takes as it is


class Decoded(NamedTuple):
    """A radiograph, and what its file says that makes a prediction doubtful."""

    pixels: np.ndarray  # uint8 (height, width), 0 black (air) to 255 white (bone)
    notes: tuple[str, ...]


def read_image(source: str | Path | bytes) -> np.ndarray:
    """The pixels of `read`: uint8 (height, width), 0 black (air) to 255 white (bone)."""
    return read(source).pixels


def read(source: str | Path | bytes) -> Decoded:
    """Decode a radiograph from a path or from bytes.

    JPEG and PNG in any colour mode and depth, and DICOM (recognised by content). Orientation in EXIF is applied,
    transparency is laid on black, the first of several frames is taken, and more than 8 bits are scaled to the bit
    depth the values use; DICOM's rescale, VOI LUT or window and MONOCHROME1 are applied. Of a DICOM header nothing
    that could name a patient is kept or repeated.

    Raises InputError, naming the file, where the bytes cannot be read as an image.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else file_bytes(Path(source))
    except OSError as error:
        raise InputError(f"{name} cannot be opened: {error.strerror or error}.") from error
    if not data:
        raise InputError(f"{name} is empty (0 bytes).")
    try:
        pixels, notes = decode.read_dicom(data) if data[128:132] == b"DICM" else (decode.read_raster(data), ())
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} cannot be read as an image: it is no JPEG, PNG or DICOM file.") from error
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise InputError(f"{name} cannot be read as an image: {error or type(error).__name__}.") from error
    return Decoded(np.ascontiguousarray(pixels), notes)


_FIRST_ELEMENT = re.compile(  # of a DICOM file without preamble: group 2 or 8, then a kind of value or a short length
    rb"[\x02\x08]\0.\0(?:AE|CS|DA|LO|OB|SH|TM|UI|UL|..\0\0)|\0[\x02\x08]\0.(?:AE|CS|DA|LO|OB|SH|TM|UI|UL)", re.DOTALL
)


def looks_like_dicom(path: str | Path) -> bool:
    """Whether a file begins as DICOM does, whatever its name; False where it cannot be opened."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe may never end
            return False
        with Path(path).open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:132] == b"DICM" or start[:4] == b"DICM" or bool(_FIRST_ELEMENT.match(start))


def file_bytes(file: Path) -> bytes:
    """The bytes of a file; OSError where it cannot be opened, is none (pipes may never end) or too large."""
    state = file.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is a folder, pipe or device")
    if state.st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has {state.st_size / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} are read")
    return file.read_bytes()


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Stretch uint8 (height, width) to uint8 (size, size), antialiased bilinear; the aspect ratio is not kept.

    Aspect ratio differs by class in the public dataset, so keeping it would hand the model a shortcut.
    """
    if image.shape == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
