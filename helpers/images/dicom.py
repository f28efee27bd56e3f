"""From the bytes of a DICOM file to grey pixels, within bounds on memory and time; for `images.read`."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import warnings

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
    RLELossless,
)

from helpers.config import InputError
from helpers.images import greys, header, luts
from helpers.images.decode import MOST_PIXELS, check_scans, check_size, repaired
from helpers.images.header import Layout, items, number, text

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its messages repeat what stands in the header

DAMAGED = "cannot be read as an image: as DICOM it is damaged"
FRAME = "the compressed pixels are of another depth or colour than the DICOM header says: read as they are"
RESAMPLED = "the pixels are not square: resampled"
_PILLOW = (JPEGBaseline8Bit, JPEG2000)  # in gdcm damage can end the process
_KIND = rb"(?:AE|CS|DA|DT|LO|OB|PN|SH|ST|TM|UI|UL)"  # of values that come first in a file
_FIRST_ELEMENT = re.compile(  # without a preamble: of group 2 or 8, with its kind or a short length
    rb"[\x02\x08]\0.\0(?:%b|..\0\0)|\0[\x02\x08]\0.%b" % (_KIND, _KIND), re.DOTALL
)
_MACROS = ("PixelValueTransformation", "FrameVOILUT", "PixelMeasures", "FrameAnatomy")


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first 144 bytes of a file are those of a DICOM file, with its preamble or without."""
    return _start(start) is not None


def _start(data: bytes) -> int | None:
    """Where the first element is; None where there is none."""
    if data[128:132] == b"DICM":
        return 132
    if data[:4] == b"DICM":
        return 4
    if _FIRST_ELEMENT.match(data):
        return 0
    return 128 if re.match(rb"\x02\0.\0(?:OB|UI|UL)", data[128:144], re.DOTALL) else None


def read_dicom(data: bytes) -> tuple[np.ndarray, tuple[str, ...], float | None]:
    """A DICOM file as uint8 (height, width), black to white; what makes a prediction on it doubtful; the age in years.

    InputError, which repeats nothing of the header, where it is damaged or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's repeat what stands in the header
        try:
            dicom, syntax = _parse(data)
            notes = list(header.notes(dicom))
            pixels = _pixels(dicom, syntax, notes)
            ratio = header.pixel_aspect(dicom)
            if abs(ratio - 1) > 0.02:
                pixels = _squared(pixels, ratio)
                notes.append(RESAMPLED)
            return pixels, tuple(dict.fromkeys(notes)), header.age(dicom)
        except InputError:
            raise
        except Exception:  # its message may repeat the header
            raise InputError(f"{DAMAGED}.") from None


def _parse(data: bytes) -> tuple[pydicom.Dataset, UID]:
    """The elements of a file and its transfer syntax.

    Preamble, meta information and transfer syntax may be missing: how the elements are written is seen from the first.
    """
    file = io.BytesIO(data)
    file.seek(_start(data) or 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    header.check_kinds(meta)
    syntax, begin = UID(text(meta, "TransferSyntaxUID")), file.tell()
    if DeflatedExplicitVRLittleEndian in syntax:
        # pydicom would unpack it, to any size, before we may look
        raise InputError("is a deflated DICOM file, which is not read; save it uncompressed.")
    implicit = not re.match(rb"[A-Z]{2}", data[begin + 4 : begin + 6])
    little = not re.match(rb"\0[^\0]", data[begin : begin + 2])  # the first group is below 256
    dicom = read_dataset(file, implicit, little)
    header.check_kinds(dicom)
    _flatten(dicom)
    if syntax.is_private or not syntax.is_transfer_syntax or not syntax.is_encapsulated:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return dicom, syntax


def _flatten(dicom: pydicom.Dataset) -> None:
    """Put what an enhanced object says of its first frame where others say it."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in items(dicom, groups)[:1]:
            for macro in _MACROS:
                for said in items(group, f"{macro}Sequence")[:1]:
                    for tag in said.keys() - dicom.keys():
                        dicom[tag] = said.get_item(tag)


def _pixels(dicom: pydicom.Dataset, syntax: UID, notes: list[str]) -> np.ndarray:
    if "PixelData" not in dicom:
        raise InputError("is a DICOM file without an image in it.")
    layout = header.layout(dicom, notes)
    check_size(layout.rows, layout.columns)
    frames = number(dicom, "NumberOfFrames")
    if frames > 1:
        notes.append(f"only the first of {int(frames)} frames was read")
    data, packed = _bytes(dicom)
    if packed or (data[:2] in (b"\xff\xd8", b"\xff\x4f") and syntax.is_encapsulated):
        if packed:
            data = get_frame(data, 0, number_of_frames=int(frames) if frames > 1 else 1)
        layout, decoder = _check_frame(data, layout, syntax, notes)
        if decoder == JPEGBaseline8Bit and layout.photometric != "RGB":  # as any JPEG: it says itself what it is
            frame = np.asarray(repaired(data)[0].convert("L"))
            grey = layout._replace(allocated=8, stored=8, high=7, signed=False)
            return frame if layout.samples == 3 else luts.to_grey(dicom, frame, grey, False, notes)
        data = encapsulate([data])
    else:
        needed = math.ceil(layout.rows * layout.columns * layout.samples * layout.allocated / 8)
        needed = needed * 2 // 3 if layout.photometric == "YBR_FULL_422" else needed
        if len(data) < needed:
            raise InputError(f"cannot be read as an image: it is truncated, {len(data)} of {needed} bytes of pixels.")
        decoder = ExplicitVRLittleEndian if syntax.is_encapsulated else syntax
    frame = _decode(dicom, data, layout, decoder, syntax)
    if layout.photometric == "PALETTE COLOR":
        return _from_palette(dicom, frame, layout)
    if layout.samples == 3:
        return _from_colour(frame, layout)
    return luts.to_grey(dicom, frame, layout, not decoder.is_encapsulated, notes)


def _bytes(dicom: pydicom.Dataset) -> tuple[bytes, bool]:
    """The pixel data as they are in the file, and whether they are fragments of compressed frames."""
    element = dicom.get_item("PixelData")
    if not isinstance(element.value, bytes):
        raise InputError(f"{DAMAGED}: its pixel data are of another kind.")
    return element.value, element.value.startswith(b"\xfe\xff\x00\xe0")


def _check_frame(frame: bytes, layout: Layout, syntax: UID, notes: list[str]) -> tuple[Layout, UID]:
    """The layout of a compressed frame by its own header, and the syntax by which it can be decoded.

    Refused is a frame of another size than the file's header says: its decoder would believe the frame.
    """
    found: tuple[int, int, int, int] | None
    if frame.startswith(b"\xff\x4f\xff\x51"):  # without a wrapper, in which pydicom can turn for ever
        right, bottom, left, top, samples, depth = struct.unpack_from(">4I16xHB", frame, 8)
        found, decoder = (bottom - top, right - left, samples, (depth & 0x7F) + 1), JPEG2000  # and its HT kind
    elif frame.startswith(b"\xff\xd8"):
        found, decoder = _jpeg_header(frame) or (None, UID(""))
        check_scans(frame, layout.rows * layout.columns)
    elif syntax == RLELossless or frame[1:8] == b"\0\0\0\x40\0\0\0":  # has no size of its own
        return layout, RLELossless
    else:
        found, decoder = None, UID("")
        if not re.match("1.2.840.10008.1.2.4.([5-8][0-9]|9[0-3]|20[1-3])$", syntax):
            raise InputError(f"stores its pixels in a way{_named(syntax)} that cannot be decoded here.")
    if not found or found[:2] != layout[:2] or found[2] not in (1, 3) or not 2 <= found[3] <= 16:
        raise InputError(f"{DAMAGED}: its frame is of another size or kind than the header says.")
    samples, bits = found[2:]
    if samples != layout.samples or (bits > 8) != (layout.allocated > 8):
        notes.append(FRAME)
        kept = samples == layout.samples
        photometric = layout.photometric if kept else "YBR_FULL" if samples == 3 else "MONOCHROME2"
        allocated = 8 if bits <= 8 else 16
        layout = Layout(*found[:3], allocated, bits, bits - 1, layout.signed and kept, photometric)
    return layout, decoder


def _jpeg_header(frame: bytes) -> tuple[tuple[int, int, int, int], UID] | None:
    """(height, width, samples, bits) and decoder of a JPEG or JPEG-LS stream; None where its header is wrong.

    At a gap, or a depth of more than 16 bits, gdcm ends the process.
    """
    place, found = 2, None
    while frame[place : place + 1] == b"\xff" and place + 10 <= len(frame):
        marker, length, bits, height, width, parts = struct.unpack_from(">xBHB2HB", frame, place)
        if marker == 0xDA:  # the pixels begin
            return found
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            if found or not 2 <= bits <= 16:
                return None
            decoder = JPEGLSNearLossless if marker == 0xF7 else JPEGLosslessSV1
            if marker not in (0xC3, 0xF7) and bits == 8:
                decoder = JPEGBaseline8Bit
            elif marker not in (0xC3, 0xF7) and b"\xff\xd9" not in frame[-16:]:  # gdcm would fill it up in silence
                raise InputError("cannot be read as an image: it is truncated, its compressed pixels end early.")
            found = (height, width, parts, bits), decoder
        place += 2 + length
    return None


def _named(syntax: UID) -> str:
    return f" ({syntax.name})" if syntax.name != syntax else ""


def _decode(dicom: pydicom.Dataset, data: bytes, layout: Layout, decoder: UID, syntax: UID) -> np.ndarray:
    """The stored values of the first frame (rows, columns[, samples])."""
    part = pydicom.Dataset()
    part.file_meta = FileMetaDataset()
    part.file_meta.TransferSyntaxUID = decoder
    part.Rows, part.Columns, part.SamplesPerPixel = layout[:3]
    part.BitsAllocated, part.BitsStored, part.HighBit = layout.allocated, layout.stored, layout.stored - 1
    part.PixelRepresentation, part.PhotometricInterpretation = int(layout.signed), layout.photometric
    if layout.samples > 1:
        part.PlanarConfiguration = int(number(dicom, "PlanarConfiguration") == 1)
    part.PixelData = data
    kind = dicom.get_item("PixelData").VR
    part["PixelData"].VR = kind if kind in ("OB", "OW") else "OW"
    part["PixelData"].is_undefined_length = decoder.is_encapsulated
    plugin = "pillow" if decoder in _PILLOW else ""
    raw = layout.photometric in ("YBR_FULL", "YBR_ICT", "YBR_RCT") or (layout.samples > 1 and decoder.is_encapsulated)
    try:
        return pixel_array(part, index=0, raw=raw, decoding_plugin=plugin, correct_unused_bits=False)
    except (RuntimeError, NotImplementedError):  # no decoder, or none that manages
        raise InputError(
            f"stores its pixels in a way{_named(syntax)} that cannot be decoded here, or damaged."
        ) from None


def _from_palette(dicom: pydicom.Dataset, frame: np.ndarray, layout: Layout) -> np.ndarray:
    if not all(f"{colour}PaletteColorLookupTableData" in dicom for colour in ("Red", "Green", "Blue")):
        raise InputError("cannot be read as an image: its DICOM header lacks the colours of its palette.")
    colours = apply_color_lut(np.arange(2 ** min(layout.stored, 16), dtype="u2"), dicom)
    grey = greys.to_uint8(greys.luminance(colours) / (255 if colours.max() <= 255 else 65535))
    return grey[np.clip(frame, 0, len(grey) - 1)]


def _from_colour(frame: np.ndarray, layout: Layout) -> np.ndarray:
    """The luminance of a frame (rows, columns, 3), whatever the header calls its colours."""
    some = greys.sample(frame).astype(np.float64)
    chroma, middle = some[..., 1:], 2.0 ** (layout.stored - 1)
    brightness = layout.photometric in ("YBR_FULL", "YBR_PARTIAL_422") or (
        abs(chroma.mean() - middle) < middle / 32 and chroma.std() < middle / 32 < some[..., 0].std()
    )  # YBR that is called RGB

    def luminance(colours: np.ndarray) -> np.ndarray:
        return colours[..., 0].astype(np.float64) if brightness else greys.luminance(colours)

    low, high = greys.value_range(luminance(some), (0.0, 2.0**layout.stored - 1))
    if layout.allocated == 8 and not brightness:
        return np.asarray(Image.fromarray(frame.astype(np.uint8)).convert("L"))
    grey = np.empty(frame.shape[:2], np.uint8)
    for rows in greys.strips(grey):
        grey[rows] = greys.to_uint8(greys.between(low, high)(luminance(frame[rows])))
    return grey


def _squared(pixels: np.ndarray, ratio: float) -> np.ndarray:
    """uint8 (height, width) of pixels `ratio` times as high as wide, stretched (where it gets too large: shrunk)."""
    height, width = pixels.shape
    limit = max if max(ratio, 1 / ratio) * pixels.size <= MOST_PIXELS else min
    size = max(1, round(width * limit(1, 1 / ratio))), max(1, round(height * limit(1, ratio)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
