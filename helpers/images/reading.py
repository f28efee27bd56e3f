"""The one path from bytes to pixels, used in training, evaluation, the widget and the command."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from helpers.config import InputError
from helpers.images import decode, dicom

MOST_BYTES = 500_000_000  # of a file: twice what the largest picture takes as it is


class Decoded(NamedTuple):
    """A radiograph, and what its file says that makes a prediction doubtful."""

    pixels: np.ndarray  # uint8 (height, width), 0 black (air) to 255 white (bone)
    notes: tuple[str, ...]
    age: float | None = None  # years, where the file says it


def read_image(source: str | Path | bytes) -> np.ndarray:
    """Decode a radiograph, as `read` does, without what its file says besides.

    Parameters
    ----------
    source : str, Path or bytes
        A file, or its bytes: JPEG, PNG, WebP, BMP, TIFF, GIF or DICOM, recognised by content.

    Returns
    -------
    array of uint8, shape (height, width)
        0 black (air) to 255 white (bone).

    Raises
    ------
    InputError
        Where it cannot be opened or read as an image, or is too large; the message names the file.
    """
    return read(source).pixels


def read(source: str | Path | bytes) -> Decoded:
    """Decode a radiograph from a path or from bytes.

    JPEG, PNG, WebP, BMP, TIFF and GIF in any colour mode and depth, and DICOM, recognised by content. Orientation in
    EXIF is applied, transparency is laid on black, the first of several frames is taken, and of more than 8 bits the
    range decides that the values use; DICOM's rescale, VOI LUT or window and MONOCHROME1 are applied. Of a DICOM header
    nothing that could name a patient is kept or repeated, but the age in years.

    Raises InputError, naming the file, where the bytes cannot be read as an image.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else file_bytes(Path(source))
    except OSError as error:
        raise InputError(f"{name} cannot be opened: {error.strerror or error}.") from error
    if not data:
        raise InputError(f"{name} is empty (0 bytes).")
    read_as = dicom.read_dicom if dicom.looks_like_dicom(data[:144]) else decode.read_raster
    try:
        decoded = Decoded(*read_as(data))
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        how = "truncated, the file ends early" if "truncated" in str(error) else "damaged"
        raise InputError(f"{name} cannot be read as an image: it is {how}.") from error
    return decoded._replace(pixels=np.ascontiguousarray(decoded.pixels))


def file_bytes(file: Path) -> bytes:
    """The bytes of a file; OSError where it cannot be opened, is none (pipes may never end) or too large."""
    state = file.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is a folder, pipe or device")
    if state.st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has {state.st_size / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} are read")
    return file.read_bytes()


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Stretch an image to a square, antialiased bilinear; the aspect ratio is not kept.

    Aspect ratio differs by class in the public dataset, so keeping it would hand the model a shortcut.

    Parameters
    ----------
    image : array of uint8, shape (height, width)
        Grey pixels, 0-255.
    size : int
        Side of the square, pixels.

    Returns
    -------
    array of uint8, shape (size, size)
        `image` itself, no copy, where it has this size.
    """
    if image.shape == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
