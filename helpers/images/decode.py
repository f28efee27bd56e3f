"""From the bytes of a JPEG, PNG, WebP, BMP, TIFF or GIF to grey pixels, within bounds on memory and time."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from helpers.config import InputError
from helpers.images import greys

MOST_PIXELS = 64_000_000  # a chest film scanned at 50 micrometres; more takes a second and a gigabyte too many
_MOST_HEAVY = 32_000_000  # of WebP, of which several copies are kept, and of colours in 16 bits, decoded twice
_MOST_SCANS = 2_000_000_000  # pixels times passes over them: a progressive JPEG of a few kB could ask for thousands
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_JPEG, _END, _PNG = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
_KNOWN = (b"\xff\xd8", _PNG[:4], b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")  # how what is read begins
_STRAY = 1024  # bytes that may precede a JPEG or PNG
_PHOTOMETRIC = 262  # TIFF's tag: 0 where black is the highest value
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_OTHERS = (  # where a file's kind stands, what stands there, what it is, what to do
    (0, b"%PDF", "a PDF document", "save the image in it as PNG"),
    (4, b"ftyphei|ftyphev|ftypmif1|ftypmsf1", "a HEIC picture", "save it as JPEG or PNG"),
    (4, b"ftypavi", "an AVIF picture", "save it as JPEG or PNG"),
    (4, b"ftyp", "a video", "save a picture of it as PNG"),
    (4, b"moov|mdat|wide", "a video", "save a picture of it as PNG"),
    (0, b"\x1a\x45\xdf\xa3|\0\0\1\xba|\0\0\1\xb3|FLV", "a video", "save a picture of it as PNG"),
    (8, b"AVI ", "a video", "save a picture of it as PNG"),
    (0, b"PK\3\4|PK\5\6", "a ZIP archive or an office document", "unpack it, or save the image in it as PNG"),
    (0, b"\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ", "a compressed archive", "unpack it"),
    (257, b"ustar", "an archive", "unpack it"),
    (0, b"\xd0\xcf\x11\xe0|{\\rtf", "an office document", "save the image in it as PNG"),
    (0, b"<!doctype html|<html|<head|<body", "a web page", "download the image itself"),
    (0, b"<?xml|<svg", "an SVG or XML file", "save it as PNG"),
    (0, b"\0\0\0\x0cjP|\xff\x4f\xff\x51", "a JPEG 2000 file", "save it as PNG"),
    (0, b"II\xbc\1|\0\0\0\x0cJXL|\xff\x0a", "a JPEG XL or JPEG XR file", "save it as PNG"),
    (344, b"n+1\0|ni1\0", "a NIfTI volume", "save the image in it as PNG"),
    (0, b"NRRD|\x89HDF|\x93NUMPY", "a file of numbers", "save the image in it as PNG"),
    (0, b"8BPS", "a Photoshop file", "save it as PNG"),
    (
        0,
        b"\0\5\x16\7",
        "a companion file that macOS writes, without the image",
        "choose the file of the same name without ._",
    ),
)


def check_size(height: int, width: int, most: int = 0) -> None:
    """Refuse more pixels than are read."""
    most = most or MOST_PIXELS
    if height * width > most:
        raise InputError(f"has {height * width / 1e6:.0f} megapixels; at most {most / 1e6:.0f} are read.")


def check_scans(jpeg: bytes, pixels: int) -> None:
    """Refuse a JPEG that would take minutes."""
    if jpeg.count(b"\xff\xda") * pixels > _MOST_SCANS:
        raise InputError("is a JPEG with more passes over its pixels than any camera writes.")


def read_raster(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """A JPEG, PNG, WebP, BMP, TIFF or GIF as uint8 (height, width), black to white, and what is to be said of it.

    InputError where it is of another kind or too large; whatever Pillow raises where it is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bombs: check_size is the limit; of damage: an error follows, or none
        try:
            image, data = repaired(data)
        except UnidentifiedImageError:
            raise InputError(_unknown(data)) from None
        several = getattr(image, "is_animated", False) and image.format != "MPO"  # phones hide further pictures in JPEG
        upright = Image.fromarray(_grey(image, data))
        upright.info = image.info
        ImageOps.exif_transpose(upright, in_place=True)
    return np.asarray(upright), ("only the first of several pictures was read",) if several else ()


def repaired(data: bytes) -> tuple[Image.Image, bytes]:
    """The image and its bytes, without what precedes a JPEG or PNG, and without what stops Pillow besides pixels."""
    try:
        return _load(data), data
    except (OSError, SyntaxError, ValueError):  # UnidentifiedImageError is an OSError
        start = min((at for one in (_JPEG, _PNG) if (at := data[:_STRAY].find(one)) > 0), default=0)
        if start and not data.startswith(_KNOWN) and not _kind(data):
            return repaired(data[start:])
        if data.startswith(_PNG) and len(pixels := _pixel_chunks(data)) < len(data):
            return _load(pixels), pixels
        if not data.startswith(_JPEG):
            raise
        # without an end marker: where all pixels are there, no decoder looks at what follows
        (_, one), (image, other) = (_ended(data, ending) for ending in (bytes(range(1, 250)) * 9, b""))
        if one != other:
            raise
        return image, data + _END


def _load(data: bytes, passes: int = 1) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise InputError(f"has too many megapixels; at most {MOST_PIXELS / 1e6:.0f} are read.") from None
    check_size(*image.size, _MOST_HEAVY if image.format == "WEBP" else 0)
    if isinstance(image, TiffImageFile):  # a tile of it may be larger than the picture
        check_size(*(int(image.tag_v2.get(tag, 0)) for tag in (_TILE_HEIGHT, _TILE_WIDTH)))
    if image.format in ("JPEG", "MPO"):  # MPO, where it announces more pictures
        check_scans(data, passes * image.width * image.height)
    image.load()
    return image


def _ended(jpeg: bytes, ending: bytes) -> tuple[Image.Image, bytes]:
    """The image with this ending, and a hash of its pixels."""
    image = _load(jpeg + ending + _END, passes=3)
    return image, hashlib.sha256(image.tobytes()).digest()


def _pixel_chunks(png: bytes) -> bytes:
    """A PNG without what does not change its pixels: comments may be large, or damaged."""
    place, kept = len(_PNG), [_PNG]
    while place + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"):
            kept.append(png[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _grey(image: Image.Image, data: bytes) -> np.ndarray:
    """uint8 (height, width) of a loaded image; `data` are its bytes."""
    grey = np.empty((image.height, image.width), np.uint8)
    if deep := _deep(image, data):
        step, some = greys.sample_step(*grey.shape), []
        for top in range(0, image.height, step):
            values, opaque = deep(slice(top, top + 1))
            some.append(np.where(opaque > 0, values, np.nan)[0, ::step])
        low, high = greys.value_range(np.concatenate(some), (0, 65535) if image.mode != "F" else (0, 1))
        for rows in greys.strips(grey):
            values, opaque = deep(rows)
            grey[rows] = greys.to_uint8(np.clip(greys.between(low, high)(values), 0, 1) * opaque)
        return 255 - grey if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0 else grey
    clear = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA")
    for rows in greys.strips(grey):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        if clear:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, (0, 0, 0, 255)), strip)
        grey[rows] = np.asarray(strip.convert("L"))
    return grey


def _deep(image: Image.Image, data: bytes) -> Callable[[slice], tuple[np.ndarray, np.ndarray]] | None:
    """A function from rows to values in full depth and opacity from 0 to 1; None where there are 8 bits a channel.

    Of colours in 16 bits Pillow keeps the higher byte: they are decoded again, as if the bytes were in other order.
    """

    def cut(part: Image.Image, rows: slice) -> np.ndarray:
        return np.asarray(part.crop((0, rows.start, part.width, rows.stop))).astype(np.float64)

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return lambda rows: (cut(image, rows), np.ones(1))
    again = Image.open(io.BytesIO(data), formats=_FORMATS)
    how = again.tile[0].args if again.tile else None
    mode, _, order = (str(how[0]) if isinstance(how, tuple) else how or "").partition(";16")
    if order not in _OTHER_ORDER or mode not in ("RGB", "RGBX", "RGBA", "LA"):
        return None
    check_size(*image.size, _MOST_HEAVY)
    other = "RGBA" if mode == "LA" else f"{mode};16{_OTHER_ORDER[order]}"
    again.tile = [t._replace(args=(other, *t.args[1:]) if isinstance(t.args, tuple) else other) for t in again.tile]
    again.load()

    def values(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        low = cut(again, rows)
        if mode == "LA":  # both bytes of grey, both of opacity
            return 256 * low[..., 0] + low[..., 1], (256 * low[..., 2] + low[..., 3]) / 65535
        whole = 256 * cut(image, rows) + low
        return greys.luminance(whole), whole[..., 3] / 65535 if image.mode == "RGBA" else np.ones(1)

    return values


def _kind(data: bytes) -> str:
    """What a file is that is not read, and what to do with it; "" where that is not known."""
    words = data[:600].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for place, signs, what, advice in _OTHERS:
        for sign in signs.split(b"|"):
            if data.startswith(sign, place) or (place == 0 and words.startswith(sign)):
                return f"is {what}, which is not read: {advice}."
    return ""


def _unknown(data: bytes) -> str:
    if kind := _kind(data):
        return kind
    if not any(data[:4096]):
        return "holds nothing but zeros where an image should begin: copy it once more."
    if data.startswith(_KNOWN):
        return "cannot be read as an image: it is damaged, or of a rare kind."
    return "cannot be read as an image: it is no JPEG, PNG or DICOM file, nor WebP, BMP, TIFF or GIF."


def quantisation(data: bytes) -> float:
    """Mean step of a JPEG's first quantisation table, 1 (finest) to 255 or more; 0 where nothing is rounded, else NaN.

    `data` must be readable.
    """
    if data.startswith(_PNG):
        return 0.0
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (OSError, SyntaxError, ValueError):  # DICOM, or an image that `read_image` had to mend
        return float("nan")
    if data[128:132] == b"DICM" or image.format in ("WEBP", "TIFF"):
        return float("nan")
    tables = getattr(image, "quantization", None)
    if image.format in ("BMP", "GIF"):
        return 0.0
    return float(np.mean(tables[min(tables)])) if tables else float("nan")
