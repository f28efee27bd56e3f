"""The one path from bytes to pixels: every colour mode, DICOM, damaged files, resizing, the cache."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from helpers import config, images
from helpers.config import InputError
from tests.conftest import dicom, transcoded

RAMP = np.arange(0, 240, 2, np.uint8).reshape(10, 12)  # 12 wide, 10 high, every pixel another grey
GREY_OF_RED = round(0.299 * 200)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def solid(mode: str, colour) -> Image.Image:
    return Image.new(mode, (6, 4), colour)


# JPEG and PNG


@pytest.mark.parametrize(
    ("data", "grey"),
    [  # in this order: plain, coloured, palette, alpha, 1 bit, JPEG, CMYK
        (encode(solid("L", 90)), 90),
        (encode(solid("RGB", (70, 70, 70))), 70),
        (encode(solid("RGB", (200, 0, 0))), GREY_OF_RED),
        (encode(solid("RGB", (200, 0, 0)).convert("P")), GREY_OF_RED),
        (encode(solid("RGBA", (200, 200, 200, 255))), 200),
        (encode(solid("RGBA", (200, 200, 200, 0))), 0),  # transparent: black lies below
        (encode(solid("RGBA", (200, 200, 200, 51))), 40),  # a fifth of it
        (encode(solid("LA", (100, 255))), 100),
        (encode(solid("LA", (100, 51))), 20),
        (encode(solid("L", 90), transparency=90), 0),
        (encode(solid("L", 90).convert("P"), transparency=bytes(90) + b"\x33" * 166), 18),
        (encode(solid("1", 1)), 255),
        (encode(solid("1", 0)), 0),
        (encode(solid("L", 90), "JPEG"), 90),
        (encode(solid("RGB", (70, 70, 70)), "JPEG", quality=100), 70),
        (encode(solid("CMYK", (0, 0, 0, 155)), "JPEG", quality=100), 100),
        (encode(solid("CMYK", (0, 0, 0, 0)), "JPEG", quality=100), 255),
    ],
)
def test_every_colour_mode_becomes_the_grey_one_expects(data, grey):
    pixels = images.read_image(data)
    assert pixels.shape == (4, 6)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, grey, atol=1)


def test_grey_png_pixels_come_back_as_they_were_written():
    assert np.array_equal(images.read_image(encode(Image.fromarray(RAMP))), RAMP)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_deep_png_is_scaled_by_the_bits_its_values_use(bits):
    most = 2**bits - 1
    deep = np.linspace(0, most, 120).round().reshape(10, 12).astype(np.uint16)
    pixels = images.read_image(encode(Image.fromarray(deep)))
    assert np.array_equal(pixels, np.rint(deep * (255 / most)).astype(np.uint8))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_deep_png_that_holds_8_bits_is_left_alone():
    assert np.array_equal(images.read_image(encode(Image.fromarray(RAMP.astype(np.uint16)))), RAMP)


def test_two_deep_images_of_one_exposure_keep_their_ratio():
    bright = images.read_image(encode(Image.fromarray(np.full((4, 4), 4000, np.uint16))))
    dark = images.read_image(encode(Image.fromarray(np.full((4, 4), 2100, np.uint16))))
    np.testing.assert_allclose(dark.astype(float), bright * (2100 / 4000), atol=1)  # no stretching to the image's own


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(pixels: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write in colour."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(pixels: np.ndarray, photometric: int, order: str = "<", packed: bool = False) -> bytes:
    """A TIFF of 16 bits a channel."""
    data = pixels.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    tags = {256: pixels.shape[1], 257: pixels.shape[0], 258: 16, 259: 8 if packed else 1, 262: photometric, 273: 0}
    tags |= {277: channels, 278: pixels.shape[0], 279: len(data)} | ({338: 2} if channels == 4 else {})
    behind = 8 + 2 + 12 * len(tags) + 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, value in tags.items():
        if tag == 258 and channels > 2:
            head += struct.pack(f"{order}HHII", tag, 3, channels, behind)
        else:
            head += struct.pack(f"{order}HHII", tag, 4, 1, behind + 2 * channels if tag == 273 else value)
    return head + bytes(4) + struct.pack(f"{order}{channels}H", *[16] * channels) + data


FILM = np.rint(np.outer(np.linspace(0, 1, 70), np.hanning(90)) * 255).astype(np.uint8)


def twelve(film: np.ndarray = FILM) -> np.ndarray:
    """The film in 12 bits."""
    return np.rint(film * (4095 / 255)).astype(np.uint16)


def with_spots(values: np.ndarray) -> np.ndarray:
    """One pixel far too bright, one a little, and a letter."""
    values = values.copy()
    values[3, 3], values[60, 7], values[2:8, 80:86] = 65535, 4300, 50_000
    return values


OPAQUE = np.full(FILM.shape, 65535)
DARK = FILM < 9
LETTERED = np.where(with_spots(FILM.astype(int)) > 255, 255, FILM)


@pytest.mark.parametrize(
    ("data", "film"),
    [
        (deep_png(with_spots(twelve()), 0), LETTERED),
        (deep_png(np.stack([with_spots(twelve())] * 3, axis=-1), 2), LETTERED),
        (deep_png(np.stack([FILM.astype(int) * 257] * 3, axis=-1), 2), FILM),
        (deep_png(np.stack([twelve() * 4, OPAQUE], axis=-1), 4), FILM),
        (deep_png(np.stack([twelve()] * 3 + [OPAQUE], axis=-1), 6), FILM),
        (deep_png(np.stack([twelve()] * 3 + [OPAQUE // 3], axis=-1), 6), FILM / 3),
        (deep_png(np.stack([np.where(DARK, 60_000, twelve()), OPAQUE * ~DARK], axis=-1), 4), FILM * ~DARK),
        (deep_png(twelve() // 2 + 1500, 0), FILM),
        (deep_tiff(twelve(), 1), FILM),
        (deep_tiff(twelve(), 1, ">", packed=True), FILM),
        (deep_tiff(4095 - twelve(), 0), FILM),
        (deep_tiff(np.stack([with_spots(twelve())] * 3, axis=-1), 2), LETTERED),
        (deep_tiff(np.stack([twelve()] * 3, axis=-1), 2, ">"), FILM),
        (deep_tiff(np.stack([twelve()] * 3, axis=-1), 2, packed=True), FILM),
        (deep_tiff(np.stack([twelve()] * 3, axis=-1), 2, ">", packed=True), FILM),
        (deep_tiff(np.stack([twelve()] * 3 + [OPAQUE], axis=-1), 2), FILM),
        (encode(Image.fromarray((FILM / 255).astype(np.float32)), "TIFF"), FILM),
        (encode(Image.fromarray(FILM.astype(np.float32)), "TIFF"), FILM),
        (encode(Image.fromarray(twelve().astype(np.int32)), "TIFF"), FILM),
    ],
    ids=[
        "png-spots", "png-rgb-spots", "png-rgb", "png-la", "png-rgba", "png-third", "png-clear", "png-offset", "tiff",
        "tiff-big", "tiff-inverted", "tiff-rgb-spots", "tiff-rgb-big", "tiff-rgb-packed", "tiff-rgb-big-packed",
        "tiff-rgba", "tiff-shares", "tiff-float", "tiff-int",
    ],
)  # fmt: skip
def test_deep_images_of_any_colour_type_go_by_their_data(data, film):
    pixels = images.read_image(data)
    assert pixels.shape == film.shape
    assert np.abs(pixels.astype(int) - film).mean() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_kind_of_picture_is_read(kind, mode):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(FILM).convert(mode), kind, **options)
    found = images.read(data)
    assert np.abs(found.pixels.astype(int) - FILM).mean() <= (3 if kind == "GIF" else 0)
    assert found.notes == ()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_pictures_is_read_with_a_note(kind):
    data = encode(Image.fromarray(FILM), kind, save_all=True, append_images=[Image.fromarray(255 - FILM)])
    found = images.read(data)
    assert np.abs(found.pixels.astype(int) - FILM).mean() < 3
    assert found.notes == ("only the first of several pictures was read",)


JPEG, WHOLE_PNG = encode(Image.fromarray(FILM), "JPEG", quality=98), encode(Image.fromarray(FILM))


def with_chunk(one: bytes) -> bytes:
    return WHOLE_PNG[:33] + one + WHOLE_PNG[33:]


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:-2],
        JPEG[:-1],
        encode(Image.fromarray(FILM), "JPEG", quality=98, progressive=True)[:-2],
        encode(Image.fromarray(FILM).convert("CMYK"), "JPEG", quality=98)[:-2],
        b"\r\n" + JPEG,
        b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + JPEG[:-2],
        JPEG + b"<!-- served in 0.1 s -->",
        b"\xef\xbb\xbf" + WHOLE_PNG,
        WHOLE_PNG[:-12],
        with_chunk(chunk(b"zTXt", b"Raw profile\0\0" + zlib.compress(bytes(5_000_000)))),
        with_chunk(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 5_000_000))),
        with_chunk(chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(5_000_000)))),
        with_chunk(b"".join(chunk(b"tEXt", b"a\0" + b"x" * 900_000) for _ in range(80))),
        with_chunk(chunk(b"tEXt", b"Comment\0damaged")[:-1] + b"?"),
    ],
    ids=[
        "no-end", "half-end", "progressive", "cmyk", "line", "http", "behind", "mark", "no-IEND", "zTXt", "iTXt",
        "iCCP", "tEXt", "damaged-text",
    ],
)  # fmt: skip
def test_what_is_no_pixel_does_not_stop_the_reader(data):
    assert np.abs(images.read_image(data).astype(int) - FILM).mean() <= 1
    assert (images.quantisation(data) == 0) == data.startswith(WHOLE_PNG[:8])  # nothing is rounded in a PNG


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("missing", [30, 200, 1000])
def test_a_jpeg_that_lacks_pixels_is_never_filled_up(options, missing):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80)).astype(np.uint8)
    with pytest.raises(InputError, match="truncated"):
        images.read_image(encode(Image.fromarray(noise), "JPEG", **options)[:-missing])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, RAMP), (2, RAMP[:, ::-1]), (3, RAMP[::-1, ::-1]), (6, np.rot90(RAMP, -1)), (8, np.rot90(RAMP))],
)
def test_orientation_in_exif_is_applied(kind, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if kind == "JPEG" else {}
    pixels = images.read_image(encode(Image.fromarray(RAMP), kind, exif=exif, **options))
    assert pixels.shape == turned.shape
    assert pixels.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(pixels.astype(int), turned, atol=2)


def test_one_pixel_is_an_image():
    assert images.read_image(encode(Image.new("L", (1, 1), 7))).tolist() == [[7]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_path_and_bytes_give_the_same_pixels(tmp_path, kind):
    data = encode(Image.fromarray(RAMP).convert("RGB"), kind)
    file = tmp_path / "größe.bin"  # the content counts, not the suffix
    file.write_bytes(data)
    assert np.array_equal(images.read_image(data), images.read_image(file))
    assert np.array_equal(images.read_image(data), images.read_image(str(file)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.9])
def test_truncated_files_are_refused(tmp_path, kind, kept):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80)).astype(np.uint8)
    data = encode(Image.fromarray(noise), kind)
    file = tmp_path / "half.jpeg"
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"half\.jpeg cannot be read as an image: .*truncated"):
        images.read_image(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"Patient: J. Doe, 4 years\n", "cannot be read as an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG or XML file, which is not read"),
        (b"\n<!DOCTYPE html><title>Log in</title>", "is a web page, which is not read"),
        (b"%PDF-1.7\n" + bytes(50), "is a PDF document, which is not read"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "is a HEIC picture, which is not read"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(50), "is a HEIC picture, which is not read"),
        (b"\0\0\0\x20ftypisom" + bytes(50), "is a video, which is not read"),
        (b"PK\3\4" + bytes(50), "is a ZIP archive"),
        (encode(Image.fromarray(RAMP), "AVIF"), "is an AVIF picture, which is not read"),
        (encode(Image.fromarray(RAMP), "JPEG2000"), "is a JPEG 2000 file, which is not read"),
        (bytes(5000), "holds nothing but zeros"),
        (b"GIF89a damaged", "cannot be read as an image: it is damaged"),
        (bytes(128) + b"DICM" + b"\x00" * 40, "cannot be read as an image|is a DICOM file without an image"),
        (encode(Image.fromarray(RAMP))[:8], "cannot be read as an image"),
    ],
    ids=[
        "empty",
        "text",
        "svg",
        "html",
        "pdf",
        "heic",
        "heif",
        "mp4",
        "zip",
        "avif",
        "jp2",
        "zeros",
        "gif",
        "dicom-header",
        "png-header",
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, content, said):
    file = tmp_path / "film.jpg"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"film\.jpg ({said})"):
        images.read_image(file)
    with pytest.raises(InputError, match=f"the image ({said})"):
        images.read_image(content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.png cannot be opened: No such file"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be opened"):
        images.read_image(tmp_path)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    data = encode(Image.fromarray(RAMP))
    monkeypatch.setattr(images.decode, "MOST_PIXELS", 120)
    assert images.read_image(data).size == 120
    monkeypatch.setattr(images.decode, "MOST_PIXELS", 119)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match="megapixels; at most"):
        images.read_image(data)


def test_a_tile_larger_than_any_picture_is_refused_from_its_header():
    whole = deep_tiff(twelve(), 1, packed=True)
    start = whole.index(struct.pack("<HHII", 273, 4, 1, whole.index(b"x\x9c")))
    tiled = bytearray(whole)
    struct.pack_into("<HHII", tiled, start, 322, 4, 1, 40_000)  # in place of where the strip is
    struct.pack_into("<HHII", tiled, start + 12, 323, 4, 1, 40_000)
    struct.pack_into("<HHII", tiled, start + 24, 324, 4, 1, whole.index(b"x\x9c"))
    struct.pack_into("<HHII", tiled, start + 36, 325, 4, 1, len(whole) - whole.index(b"x\x9c"))
    with pytest.raises(InputError, match="1600 megapixels; at most 64"):
        images.read_image(bytes(tiled))


def test_a_bomb_is_refused_from_its_header():
    bomb = bytearray(encode(Image.new("1", (8, 8))))
    bomb[16:24] = (40_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(InputError, match=r"megapixels|exceeds limit"):
        images.read_image(bytes(bomb))


# DICOM


DEEP = np.arange(1000, 3400, 20, np.uint16).reshape(10, 12)  # well inside 12 bits


def test_twelve_bits_are_scaled_to_eight():
    pixels = images.read_image(dicom(DEEP))
    assert np.array_equal(pixels, np.rint(DEEP / 4095 * 255))
    assert pixels.dtype == np.uint8


def test_eight_bits_are_left_alone():
    assert np.array_equal(images.read_image(dicom(RAMP, bits=8)), RAMP)


def test_an_inverted_film_gives_the_same_picture():
    plain = images.read_image(dicom(DEEP))
    inverted = images.read_image(dicom((4095 - DEEP).astype(np.uint16), photometric="MONOCHROME1"))
    np.testing.assert_allclose(inverted.astype(int), plain, atol=1)
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    plain = images.read_image(dicom(DEEP, **window))
    window["WindowCenter"] = 4095 - 2000 + 1
    inverted = images.read_image(dicom((4095 - DEEP).astype(np.uint16), photometric="MONOCHROME1", **window))
    np.testing.assert_allclose(inverted.astype(int), plain, atol=1)


def test_the_compression_of_a_file_is_told():
    steps = [images.quantisation(encode(Image.fromarray(RAMP), "JPEG", quality=q)) for q in (95, 75, 30)]
    assert 1 <= steps[0] < steps[1] < steps[2]
    film = bytearray(dicom(DEEP))
    film[:2] = b"\xff\xd8"  # a preamble may hold anything
    assert images.read_image(bytes(film)).shape == DEEP.shape
    assert np.isnan(images.quantisation(bytes(film)))
    assert images.quantisation(encode(Image.fromarray(RAMP))) == 0  # PNG rounds nothing


def test_a_window_cuts_and_stretches():
    pixels = images.read_image(dicom(DEEP, WindowCenter=2000.5, WindowWidth=1001))  # 1500 to 2500
    expected = np.rint(np.clip((DEEP.astype(float) - 1500) / 1000, 0, 1) * 255)
    np.testing.assert_allclose(pixels.astype(int), expected, atol=1)
    assert (pixels == 0).any()
    assert (pixels == 255).any()


def test_a_window_wider_than_the_values_does_not_stretch_them():
    pixels = images.read_image(dicom(DEEP, WindowCenter=2048, WindowWidth=4096))
    np.testing.assert_allclose(pixels.astype(int), DEEP / 4095 * 255, atol=1)


def test_the_first_of_several_windows_counts():
    one = images.read_image(dicom(DEEP, WindowCenter=2000, WindowWidth=500))
    two = images.read_image(dicom(DEEP, WindowCenter=[2000, 1200], WindowWidth=[500, 50]))
    assert np.array_equal(one, two)


def test_an_empty_window_is_no_window():
    assert np.array_equal(
        images.read_image(dicom(DEEP, WindowCenter=None, WindowWidth=None)), images.read_image(dicom(DEEP))
    )


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (16, 0), (0.25, 0), (2, 500)])
def test_without_a_window_rescaling_does_not_clip(slope, intercept):
    pixels = images.read_image(dicom(DEEP, RescaleSlope=slope, RescaleIntercept=intercept))
    lowest, most = intercept, slope * 4095 + intercept
    np.testing.assert_allclose(pixels.astype(int), (DEEP * slope + intercept - lowest) / (most - lowest) * 255, atol=1)


def test_a_window_is_in_rescaled_units():
    # stored 2000 becomes 2 * 2000 - 1000 = 3000, the window's centre
    pixels = images.read_image(dicom(DEEP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000, WindowWidth=1000))
    expected = np.clip((2 * DEEP.astype(float) - 1000 - 2500) / 1000, 0, 1) * 255
    np.testing.assert_allclose(pixels.astype(int), expected, atol=1)


def test_a_window_over_falling_values_turns_nothing_round():
    rescale, window = {"RescaleSlope": -1, "RescaleIntercept": 4095}, {"WindowCenter": 2048, "WindowWidth": 4096}
    plain, windowed = (images.read_image(dicom(DEEP, **rescale, **some)) for some in ({}, window))
    np.testing.assert_allclose(windowed.astype(int), plain.astype(int), atol=1)
    assert plain.ravel()[0] > plain.ravel()[-1]  # stored values rise, rescaled ones fall
    shown = images.read_image(dicom(DEEP, **rescale, **window, photometric="MONOCHROME1"))
    np.testing.assert_array_equal(shown, 255 - windowed)
    rising = images.read_image(dicom(DEEP, **window))  # a slope without an intercept rescales nothing
    np.testing.assert_array_equal(images.read_image(dicom(DEEP, RescaleSlope=-1, **window)), rising)


def test_signed_values_without_a_window_are_spread_over_all_greys():
    signed = (DEEP.astype(np.int16) - 2000).astype(np.int16)
    pixels = images.read_image(dicom(signed, bits=16))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.array_equal(np.argsort(pixels, axis=None, kind="stable"), np.arange(120))


def test_a_lookup_table_is_applied():
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 16], [256 * (255 - i) + 255 - i for i in range(256)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    pixels = images.read_image(dicom(RAMP, bits=8, VOILUTSequence=[table]))
    np.testing.assert_allclose(pixels.astype(int), 255 - RAMP.astype(int), atol=1)  # this table inverts


def test_the_first_of_several_frames_is_taken():
    frames = np.stack([DEEP, DEEP[::-1], np.zeros_like(DEEP)])
    assert np.array_equal(images.read_image(dicom(frames)), images.read_image(dicom(DEEP)))
    assert np.array_equal(images.read_image(dicom(DEEP[None])), images.read_image(dicom(DEEP)))


def test_colour_becomes_grey():
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 200
    assert np.array_equal(images.read_image(dicom(red, bits=8, photometric="RGB")), np.full((4, 6), GREY_OF_RED))


def test_uniform_dicom_is_read():
    assert images.read_image(dicom(np.zeros((4, 4), np.uint16))).max() == 0
    flat = dicom(np.full((4, 4), -5, np.int16), bits=16)
    assert len(np.unique(images.read_image(flat))) == 1


def test_dicom_without_pixels_is_refused(tmp_path):
    report = pydicom.Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    pydicom.dcmwrite(tmp_path / "report.dcm", report, enforce_file_format=True)
    with pytest.raises(InputError, match=r"report\.dcm is a DICOM file without an image in it"):
        images.read_image(tmp_path / "report.dcm")


def test_a_deflated_dicom_is_refused_before_it_is_unpacked(monkeypatch):
    data = pydicom.dcmread(io.BytesIO(dicom(DEEP)))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer, padded = io.BytesIO(), io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    data.file_meta.PrivateInformationCreatorUID = generate_uid()
    data.file_meta.PrivateInformation = bytes(5000)
    data.file_meta.FileMetaInformationVersion = bytes(5000)  # what comes before pushes the syntax far into the file
    pydicom.dcmwrite(padded, data, enforce_file_format=True)
    assert padded.getvalue().index(str(DeflatedExplicitVRLittleEndian).encode()) > 4096
    monkeypatch.setattr(zlib, "decompress", None)
    for file in (buffer, padded):
        with pytest.raises(InputError, match="is a deflated DICOM file, which is not read"):
            images.read_image(file.getvalue())


def test_damaged_or_too_large_dicom_is_refused(monkeypatch):
    data = dicom(DEEP)
    with pytest.raises(InputError, match="cannot be read as an image"):
        images.read_image(data[:-100])
    monkeypatch.setattr(images.decode, "MOST_PIXELS", 100)
    with pytest.raises(InputError, match="megapixels"):
        images.read_image(data)


LOSSLESS = {"RLE": "RLELossless", "JPEG lossless": "JPEGLosslessProcess14_1", "JPEG-LS": "JPEGLSLossless"}
LOSSLESS |= {"JPEG 2000": "JPEG2000Lossless", "implicit": "ImplicitVRLittleEndian"}


@pytest.mark.parametrize("syntax", LOSSLESS.values(), ids=LOSSLESS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_compressed_dicom_gives_the_same_picture(tmp_path, syntax, bits):
    film = (smooth_film() * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    plain = dicom(film, bits=bits)
    packed = transcoded(plain, syntax, tmp_path)
    assert pydicom.dcmread(io.BytesIO(packed)).file_meta.TransferSyntaxUID != ExplicitVRLittleEndian
    assert np.array_equal(images.read_image(packed), images.read_image(plain))


def test_lossy_dicom_gives_about_the_same_picture(tmp_path):
    plain = dicom((smooth_film() * 255).astype(np.uint8), bits=8)
    packed = images.read_image(transcoded(plain, "JPEGBaselineProcess1", tmp_path))
    assert np.abs(packed.astype(int) - images.read_image(plain)).max() <= 8


def test_pixels_that_no_decoder_manages_are_refused_by_syntax(tmp_path):
    packed = transcoded(dicom((smooth_film() * 4095).astype(np.uint16)), "JPEGLSLossless", tmp_path)
    film = pydicom.dcmread(io.BytesIO(packed))
    film.file_meta.TransferSyntaxUID, film.PixelData = "1.2.840.10008.1.2.4.102", encapsulate([b"\0\0\1\xba" * 9])
    buffer = io.BytesIO()
    film.save_as(buffer)
    with pytest.raises(InputError, match=r"stores its pixels in a way \(MPEG-4 .*\) that cannot be decoded here"):
        images.read_image(buffer.getvalue())


def smooth_film() -> np.ndarray:
    rows, columns = np.mgrid[:48, :64]
    return (2 + np.sin(rows / 9) + np.cos(columns / 7)) / 4


NAMES = {"PatientName": "Doe^Jane", "PatientID": "H-4711", "InstitutionName": "St. Nowhere", "OperatorsName": "Roe^R"}


@pytest.mark.parametrize(
    ("elements", "note"),
    [
        ({"Modality": "DX"}, None),
        ({"Modality": "CR", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}, None),
        ({}, None),
        ({"Modality": "MR"}, "DICOM modality (MR) is not that of a radiograph"),
        ({"Modality": "Doe^Jane"}, "DICOM modality is not that of a radiograph"),
        ({"BodyPartExamined": "HAND"}, "DICOM header names another body part than the chest"),
        ({"ViewPosition": "LL"}, "lateral view, but the model knows frontal ones only"),
    ],
)
def test_what_a_header_says_against_a_prediction_is_noted(elements, note):
    assert images.read(dicom(DEEP, **elements)).notes == ((note,) if note else ())


def test_several_frames_are_noted():
    assert images.read(dicom(np.stack([DEEP, DEEP]))).notes == ("only the first of 2 frames was read",)


def nested(tag: bytes, depth: int) -> bytes:
    """An element with `depth` sequences in one another, the innermost of a kind that there is not."""
    content = b"\x00\x00\x00\x44IC\x02\x00xx"
    for level in range(depth):
        item = b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content
        outer = tag if level == depth - 1 else b"\x02\x00\x00\x00"
        content = outer + b"SQ\x00\x00" + len(item).to_bytes(4, "little") + item
    return content


def test_sequences_in_place_of_a_value_are_refused_before_they_fill_memory():
    film = dicom(np.arange(48, dtype=np.uint8).reshape(6, 8), bits=8)
    start = film.index(b"\x28\x00\x04\x00CS")  # photometric interpretation
    length = int.from_bytes(film[start + 6 : start + 8], "little")
    for damaged in (
        film[:132] + nested(b"\x02\x00\x00\x00", 9) + film[144:],  # in place of the length of the meta information
        film[:start] + nested(b"\x28\x00\x04\x00", 9) + film[start + 8 + length :],
    ):
        tracemalloc.start()
        with pytest.raises(InputError, match="an element is of another kind"):
            images.read(damaged)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000


def test_nothing_of_a_patient_is_told_not_even_of_a_damaged_file(caplog, capfd):
    whole = dicom(DEEP, Modality="MR", BodyPartExamined="Doe^Jane", **NAMES)
    caplog.set_level(logging.DEBUG)
    told = [str(images.read(whole).notes)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(whole)
        for place in rng.integers(132, len(broken), 6):
            broken[place] = rng.integers(256)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                told.append(str(images.read(bytes(broken)).notes))
            except InputError as error:
                told.append(str(error))
        told += [str(one.message) for one in caught]
    output = capfd.readouterr()
    for secret in ("Doe", "Jane", "4711", "Nowhere", "Roe"):
        assert secret not in "".join(told) + caplog.text + output.out + output.err


# Resizing and the cache


@pytest.mark.parametrize("shape", [(10, 12), (300, 200), (1, 1), (64, 64), (3, 500)])
def test_resizing_stretches_to_a_square(shape):
    small = images.resize(np.full(shape, 77, np.uint8), 64)
    assert small.shape == (64, 64)
    assert small.dtype == np.uint8
    assert (small == 77).all()


def test_an_image_of_the_right_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    assert np.array_equal(images.resize(image, 32), image)


def test_reducing_averages_instead_of_skipping():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    small = images.resize(stripes, 32)
    assert small.std() < 5  # a grid that skips pixels would be all black or all white
    np.testing.assert_allclose(small.mean(), 127.5, atol=2)


def test_left_stays_left_and_up_stays_up():
    image = np.zeros((100, 200), np.uint8)
    image[:20, 120:] = 255
    small = images.resize(image, 40)
    assert small[:8, 26:].min() > 200
    assert small[12:].max() == 0
    assert small[:, :20].max() == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is reserved on Linux only")
def test_the_room_of_an_array_is_reserved_before_it_is_filled(tmp_path):
    images.new_array(tmp_path / "x.npy", np.uint8, (1000, 1000))
    assert (tmp_path / "x.npy").stat().st_blocks * 512 >= 1_000_000


def test_a_file_that_no_radiograph_fills_is_refused_unread(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(encode(Image.fromarray(RAMP)))
    monkeypatch.setattr(images.reading, "MOST_BYTES", 20)
    with pytest.raises(InputError, match="at most 0 are read"):
        images.read_image(tmp_path / "x.png")


def reframed(folder: Path, syntax: str, change: Callable[[bytes], bytes]) -> bytes:
    """A compressed DICOM with another frame."""
    packed = transcoded(dicom((smooth_film() * 255).astype(np.uint8), bits=8), syntax, folder)
    data, buffer = pydicom.dcmread(io.BytesIO(packed)), io.BytesIO()
    data.PixelData = encapsulate([change(get_frame(data.PixelData, 0, number_of_frames=1))])
    data.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", "JPEGLosslessProcess14_1", "JPEGLSLossless"])
def test_a_gap_in_a_compressed_header_is_refused_and_ends_no_process(tmp_path, syntax):
    assert images.read_image(reframed(tmp_path, syntax, lambda frame: frame)).shape == smooth_film().shape
    with pytest.raises(InputError, match="of another size"):
        images.read_image(reframed(tmp_path, syntax, lambda frame: frame.replace(b"\xff\xda", b"\0\0\xff\xda")))


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless"])
def test_a_depth_that_no_jpeg_has_is_refused_before_it_ends_the_process(tmp_path, syntax):
    def deepened(frame: bytes) -> bytes:
        start = max(frame.find(b"\xff\xc3\x00\x0b"), frame.find(b"\xff\xf7\x00\x0b"))
        assert frame[start + 4] == 8
        return frame[: start + 4] + b"\x2d" + frame[start + 5 :]

    with pytest.raises(InputError, match="of another size or kind"):
        images.read_image(reframed(tmp_path, syntax, deepened))


def test_jpeg_2000_in_a_wrapper_is_refused(tmp_path):
    """Boxes of the wrapper that say they are empty would be read for ever."""
    with pytest.raises(InputError, match="of another size"):
        images.read_image(reframed(tmp_path, "JPEG2000Lossless", lambda frame: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40)))


def test_jpeg_2000_of_a_wrong_depth_is_refused_in_words(tmp_path):
    """A depth of 79 bits in the frame's header: gdcm ends the process on it."""
    with pytest.raises(InputError, match=r"decoded here|damaged"):
        images.read_image(reframed(tmp_path, "JPEG2000Lossless", lambda frame: frame[:42] + b"\x4e" + frame[43:]))


# Many files


class Deadly(str):
    """The path of a file that ends the process that is to decode it."""

    __slots__ = ()

    def __reduce__(self):
        return os._exit, (1,)


def test_many_files_are_read_in_order_in_processes_as_in_one(tmp_path):
    for k in range(40):
        (tmp_path / f"{k:02d}.png").write_bytes(encode(Image.fromarray(RAMP + k)) if k % 9 else b"broken")
    paths = [str(file) for file in sorted(tmp_path.iterdir())]
    for (path, found), (same, alone) in zip(images.read_all(paths, 2), images.read_all(paths), strict=True):
        assert path == same
        if isinstance(alone, InputError):
            assert str(found) == str(alone)
        else:
            assert np.array_equal(found.pixels, alone.pixels)
            assert found[1:] == alone[1:]


def test_a_file_that_ends_its_process_loses_no_other(tmp_path):
    (tmp_path / "film.png").write_bytes(encode(Image.fromarray(RAMP)))
    paths = [str(tmp_path / "film.png")] * 6
    paths[2:2] = [Deadly(paths[0])]
    found = [one for _, one in images.read_all(paths, 2)]
    assert "decoding it ended the process" in str(found.pop(2))
    assert [np.array_equal(one.pixels, RAMP) for one in found] == [True] * 6


def test_processes_that_were_killed_lose_no_file(tmp_path):
    (tmp_path / "film.png").write_bytes(encode(Image.fromarray(RAMP)))
    reading = images.read_all([str(tmp_path / "film.png")] * 50, 2)
    next(reading)
    for process in multiprocessing.active_children():
        process.kill()
    assert [np.array_equal(found.pixels, RAMP) for _, found in reading] == [True] * 49


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_no_process_outlives_a_killed_one_that_asked(tmp_path):
    (tmp_path / "film.png").write_bytes(encode(Image.fromarray(RAMP)))
    code = (
        "import sys; from helpers import images; reading = images.read_all([sys.argv[1]] * 50, 2)\n"
        "for found in reading: print('one', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path / "film.png"]
    with subprocess.Popen(command, cwd=config.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"one\n"
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(started) >= 2
    assert not psutil.wait_procs(started, timeout=60)[1]
