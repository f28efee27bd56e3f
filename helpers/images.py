"""The one path from bytes to pixels, used in training, evaluation, the widget and the command."""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tqdm import tqdm

from helpers.config import InputError

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its messages repeat what stands in the header

SUFFIXES = (".jpeg", ".jpg", ".png", ".dcm")
MOST_PIXELS = 120_000_000  # 120 megapixels: above any radiograph, below what would fill the memory


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
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be opened: {error.strerror or error}.") from error
    if not data:
        raise InputError(f"{name} is empty (0 bytes).")
    try:
        pixels, notes = _read_dicom(data) if data[128:132] == b"DICM" else (_read_raster(data), ())
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} cannot be read as an image: it is no JPEG, PNG or DICOM file.") from error
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise InputError(f"{name} cannot be read as an image: {error or type(error).__name__}.") from error
    return Decoded(np.ascontiguousarray(pixels), notes)


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise InputError(f"has {height * width / 1e6:.0f} megapixels; at most {MOST_PIXELS / 1e6:.0f} are read.")


def _read_raster(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_size is the limit
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        _check_size(*image.size)
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16B", "F"):
        values = np.asarray(image).astype(np.float32)
        bits = max(8, math.ceil(math.log2(max(float(values.max()), 1.0) + 1)))  # the fewest that hold the largest
        return _to_uint8(values, 0, 2**bits - 1)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("L"))


def _read_dicom(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's repeat what stands in the header
        if str(DeflatedExplicitVRLittleEndian).encode() in data[132:4096]:  # can unpack to any size before we may look
            raise InputError("is a deflated DICOM file, which is not read; save it uncompressed.")
        try:
            dicom = pydicom.dcmread(io.BytesIO(data))
            if "PixelData" not in dicom:
                raise InputError("is a DICOM file without an image in it.")
            _check_size(int(dicom.Rows), int(dicom.Columns))
            return _dicom_pixels(dicom), tuple(_dicom_notes(dicom))
        except InputError:
            raise
        except Exception as error:  # its message may repeat the header, so that only its kind is told
            raise InputError(f"cannot be read as an image: as DICOM it is damaged ({type(error).__name__}).") from None


def _dicom_pixels(dicom: pydicom.Dataset) -> np.ndarray:
    try:
        frame = pixel_array(dicom, index=0)
    except (RuntimeError, NotImplementedError):  # no decoder, or none that manages
        uid = dicom.file_meta.TransferSyntaxUID
        how = f" ({uid.name})" if uid.name != uid else ""
        raise InputError(f"stores its pixels in a way{how} that cannot be decoded here.") from None
    if dicom.get("SamplesPerPixel", 1) > 1:
        return np.asarray(Image.fromarray(frame.astype(np.uint8)).convert("L"))
    rescaled = apply_modality_lut(frame, dicom)
    values = apply_voi_lut(rescaled, dicom)
    if values is rescaled and values.min() < 0:  # signed and without a window: what is used of the range is unknown
        grey = _to_uint8(values, float(values.min()), float(values.max()))
    else:
        grey = _to_uint8(values, *_dicom_range(dicom))
    return 255 - grey if dicom.get("PhotometricInterpretation") == "MONOCHROME1" else grey


def _dicom_notes(dicom: pydicom.Dataset) -> Iterator[str]:
    """Why this file may not be what a chest model is for; in our words, but for codes of the standard."""
    modality = str(dicom.get("Modality", ""))
    if modality not in ("", "CR", "DX", "RG"):
        code = f" ({modality})" if re.fullmatch("[A-Z]{2,4}", modality) else ""
        yield f"DICOM modality{code} is not that of a radiograph"
    part = str(dicom.get("BodyPartExamined", "")).upper()
    if part and not any(known in part for known in ("CHEST", "THORAX", "LUNG")):
        yield "DICOM header names another body part than the chest"
    if str(dicom.get("ViewPosition", "")).upper() in ("LL", "RL", "LATERAL"):
        yield "lateral view, but the model knows frontal ones only"
    if int(dicom.get("NumberOfFrames") or 1) > 1:
        yield f"only the first of {int(dicom.NumberOfFrames)} frames was read"


def _dicom_range(dicom: pydicom.Dataset) -> tuple[float, float]:
    """The lowest and highest value that a pixel can have after rescaling and windowing."""
    for tables in ("VOILUTSequence", "ModalityLUTSequence"):
        if dicom.get(tables):
            return 0.0, 2.0 ** int(dicom[tables].value[0].LUTDescriptor[2]) - 1
    bits, signed = int(dicom.BitsStored), bool(dicom.PixelRepresentation)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    low, high = sorted(float(end) for end in apply_modality_lut(np.array(ends), dicom))
    return low, high


def _to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` (black) to `high` (white) to 0-255."""
    share = (values.astype(np.float64) - low) / max(high - low, 1e-9)
    return np.clip(np.rint(255 * share), 0, 255).astype(np.uint8)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Stretch uint8 (height, width) to uint8 (size, size), antialiased bilinear; the aspect ratio is not kept.

    Aspect ratio differs by class in the public dataset, so keeping it would hand the model a shortcut.
    """
    if image.shape == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def build_cache(root: Path, paths: list[str], size: int, file: Path) -> np.ndarray:
    """Read and resize `paths` (relative to `root`) once into `file`, a .npy of uint8 (len(paths), size, size).

    Written aside and renamed when complete. Returns it memory-mapped, read-only.
    """
    aside = file.with_name(file.name + ".part")
    cache = np.lib.format.open_memmap(aside, "w+", np.uint8, (len(paths), size, size))
    with ThreadPoolExecutor(4) as pool:
        pixels = pool.map(lambda path: resize(read_image(root / path), size), paths)
        for row, image in enumerate(tqdm(pixels, total=len(paths), desc="images.npy", mininterval=1)):
            cache[row] = image
    cache.flush()
    del cache
    aside.replace(file)
    return load_cache(file)


def load_cache(file: Path) -> np.ndarray:
    """The cached images, uint8 (n, size, size), memory-mapped and read-only."""
    return np.load(file, mmap_mode="r")
