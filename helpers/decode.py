"""From the bytes of a JPEG, PNG or DICOM file to grey pixels, within bounds on memory and time; for `images.read`."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import warnings
from collections.abc import Iterator

import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from helpers.config import InputError

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its messages repeat what stands in the header

MOST_PIXELS = 64_000_000  # a chest film scanned at 50 micrometres; more takes a second and a gigabyte too many
_MOST_SCANS = 2_000_000_000  # pixels times passes over them: a progressive JPEG of a few kB could ask for thousands
_PILLOW = (JPEGBaseline8Bit, JPEGExtended12Bit, *JPEG2000TransferSyntaxes)  # in gdcm damage can end the process
_STRIP = 1_000_000  # pixels that are computed with at once: a whole film in floating point would fill the memory


_FIRST_ELEMENT = re.compile(  # of a DICOM file without preamble: group 2 or 8, then a kind of value or a short length
    rb"[\x02\x08]\0.\0(?:AE|CS|DA|LO|OB|SH|TM|UI|UL|..\0\0)|\0[\x02\x08]\0.(?:AE|CS|DA|LO|OB|SH|TM|UI|UL)", re.DOTALL
)


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of a DICOM file, with its preamble or without."""
    return start[128:132] == b"DICM" or start[:4] == b"DICM" or bool(_FIRST_ELEMENT.match(start))


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise InputError(f"has {height * width / 1e6:.0f} megapixels; at most {MOST_PIXELS / 1e6:.0f} are read.")


def _check_scans(jpeg: bytes, pixels: int) -> None:
    if jpeg.count(b"\xff\xda") * pixels > _MOST_SCANS:
        raise InputError("is a JPEG with more passes over its pixels than any camera writes.")


def _strips(height: int, width: int) -> Iterator[slice]:
    """Rows of an image, some at a time."""
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def read_raster(data: bytes) -> np.ndarray:
    """A JPEG or PNG as uint8 (height, width), black to white.

    InputError where it is too large; whatever Pillow raises where it is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_size is the limit
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        _check_size(*image.size)
        if image.format != "PNG":  # JPEG, which Pillow calls MPO where it announces more pictures
            _check_scans(data, image.width * image.height)
        image.load()
    deep = image.mode in ("I", "I;16", "I;16B", "F")
    bits = max(8, math.ceil(math.log2(max(image.getextrema()[1], 1) + 1))) if deep else 8  # the fewest for the largest
    clear = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA")
    grey = np.empty((image.height, image.width), np.uint8)
    for rows in _strips(*grey.shape):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        if deep:
            grey[rows] = _to_uint8(np.asarray(strip), 0, 2**bits - 1)
            continue
        if clear:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, (0, 0, 0, 255)), strip)
        grey[rows] = np.asarray(strip.convert("L"))
    upright = Image.fromarray(grey)
    upright.info = image.info
    ImageOps.exif_transpose(upright, in_place=True)
    return np.asarray(upright)


def quantisation(data: bytes) -> float:
    """Mean step of a JPEG's first quantisation table, 1 (finest) to 255 or more; 0 for PNG, NaN for DICOM.

    `data` must be readable.
    """
    if data[128:132] == b"DICM":
        return float("nan")
    if not data.startswith(b"\xff\xd8"):
        return 0.0
    tables = Image.open(io.BytesIO(data), formats=("JPEG",)).quantization
    return float(np.mean(tables[min(tables)])) if tables else float("nan")


def read_dicom(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """A DICOM file as uint8 (height, width), black to white, and what its header says that makes a prediction doubtful.

    InputError, which repeats nothing of the header, where it is damaged or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's repeat what stands in the header
        try:
            meta = _file_meta(data)
            _check_kinds(meta)  # which dcmread already puts into words
            if "TransferSyntaxUID" in meta and str(DeflatedExplicitVRLittleEndian) in str(meta.TransferSyntaxUID):
                # dcmread would unpack it, to any size, before we may look
                raise InputError("is a deflated DICOM file, which is not read; save it uncompressed.")
            dicom = pydicom.dcmread(io.BytesIO(data))
            _check_kinds(dicom)
            if "PixelData" not in dicom:
                raise InputError("is a DICOM file without an image in it.")
            _check_size(int(dicom.Rows), int(dicom.Columns))
            if dicom.file_meta.TransferSyntaxUID.is_encapsulated:
                _check_frame(dicom)
            return _dicom_pixels(dicom), tuple(_dicom_notes(dicom))
        except InputError:
            raise
        except Exception as error:  # its message may repeat the header, so that only its kind is told
            raise InputError(f"cannot be read as an image: as DICOM it is damaged ({type(error).__name__}).") from None


def _file_meta(data: bytes) -> pydicom.Dataset:
    """The first elements of a DICOM file, unconverted."""
    file = io.BytesIO(data)
    file.seek(132)
    return read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)


def _check_kinds(part: pydicom.Dataset) -> None:
    """Refuse a sequence where the standard has a single value.

    Where pydicom repeats such a value in a message, damage deep in it doubles the text with every level, until the
    memory is full.
    """
    for tag in part.keys():  # noqa: SIM118 - the elements themselves would be converted
        if part.get_item(tag).VR == "SQ" and dictionary_has_tag(tag) and dictionary_VR(tag) != "SQ":
            raise InputError("cannot be read as an image: as DICOM it is damaged (an element is of another kind).")


def _check_frame(dicom: pydicom.Dataset) -> None:
    """Refuse a compressed frame that is of another size than the header says: its decoder would believe the frame."""
    if dicom.file_meta.TransferSyntaxUID == RLELossless:  # has no size of its own
        return
    frame = get_frame(dicom.PixelData, 0, number_of_frames=int(dicom.get("NumberOfFrames") or 1))
    said, found = (int(dicom.Rows), int(dicom.Columns), int(dicom.get("SamplesPerPixel", 1))), None
    if frame.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000 without a wrapper, in which pydicom can turn for ever
        right, bottom, left, top, parts = struct.unpack_from(">4I16xH", frame, 8)
        found = bottom - top, right - left, parts
    elif frame.startswith(b"\xff\xd8"):
        found = _jpeg_size(frame)
        _check_scans(frame, said[0] * said[1])
    if found != said:
        raise InputError("cannot be read as an image: as DICOM it is damaged (its frame is of another size or kind).")


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """(height, width, samples per pixel) of a JPEG or JPEG-LS stream; None for one whose header is not as it must be.

    At a gap, or a depth of more than 16 bits, gdcm ends the process.
    """
    place, size = 2, None
    while frame[place : place + 1] == b"\xff" and place + 10 <= len(frame):
        marker, length, bits, height, width, parts = struct.unpack_from(">xBHB2HB", frame, place)
        if marker == 0xDA:  # the pixels begin
            return size
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            if size or not 2 <= bits <= 16:
                return None
            size = height, width, parts
        place += 2 + length
    return None


def _dicom_pixels(dicom: pydicom.Dataset) -> np.ndarray:
    uid = dicom.file_meta.TransferSyntaxUID
    coloured = dicom.get("SamplesPerPixel", 1) > 1
    if dicom.get("PhotometricInterpretation") == "PALETTE COLOR" or (coloured and dicom.BitsStored > 8):
        raise InputError("stores colours as a palette, or in more than 8 bits; only grey and plain colour are read.")
    try:
        frame = pixel_array(dicom, index=0, decoding_plugin="pillow" if uid in _PILLOW else "")
    except (RuntimeError, NotImplementedError):  # no decoder, or none that manages
        how = f" ({uid.name})" if uid.name != uid else ""
        raise InputError(f"stores its pixels in a way{how} that cannot be decoded here.") from None
    if coloured:
        return np.asarray(Image.fromarray(frame.astype(np.uint8)).convert("L"))
    strips = [frame[rows] for rows in _strips(*frame.shape)]
    low, high = _dicom_range(dicom)
    first = apply_modality_lut(strips[0], dicom)
    unchanged = apply_voi_lut(first, dicom) is first
    windowed = not unchanged and not dicom.get("VOILUTSequence")
    if unchanged:
        least = min(float(apply_modality_lut(strip, dicom).min()) for strip in strips)
        if least < 0:  # signed: what is used of the range is unknown
            low, high = least, max(float(apply_modality_lut(strip, dicom).max()) for strip in strips)
    grey = np.empty(frame.shape, np.uint8)
    for rows, strip in zip(_strips(*frame.shape), strips, strict=True):
        grey[rows] = _to_uint8(apply_voi_lut(apply_modality_lut(strip, dicom), dicom), low, high)
    rescaled = "RescaleIntercept" in dicom and float(dicom.get("RescaleSlope") or 1)
    falling = windowed and rescaled < 0  # pydicom gives such a window its range backwards
    return 255 - grey if falling != (dicom.get("PhotometricInterpretation") == "MONOCHROME1") else grey


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
