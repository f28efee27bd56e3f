"""DICOM's way from stored values to greys: padding, rescale, VOI LUT and window (PS3.3 C.7.6.16, C.11); for `dicom`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pydicom

from helpers.images import greys
from helpers.images.header import Layout, items, number, numbers, text

RANGE = "the window in the DICOM header cannot be used: the greys span the range of the data"
RESCALE = "the rescale values in the DICOM header cannot be used: left out"
FUNCTION = "the DICOM header names no known window function: taken as linear"

Curve = Callable[[np.ndarray], np.ndarray]


def to_grey(dicom: pydicom.Dataset, frame: np.ndarray, layout: Layout, native: bool, notes: list[str]) -> np.ndarray:
    """uint8 (height, width), black to white, of the values of a grey frame; `native` where it is uncompressed."""
    some = greys.sample(frame)
    aligned = _alignment(dicom, some, layout) if native else np.asarray
    padded = _padding(dicom, frame.dtype)
    if np.mean(padded(some)) > 0.95:  # no film is padding all over
        padded = _nowhere
    rescaled, nominal, step = _modality(dicom, layout, notes)
    shown = _presentation(dicom, rescaled(aligned(some[~padded(some)])), nominal, step, notes)
    falling = layout.photometric == "MONOCHROME1" or text(dicom, "PresentationLUTShape") == "INVERSE"

    def greyed(values: np.ndarray) -> np.ndarray:
        grey = greys.to_uint8(shown(rescaled(aligned(values))))
        return np.where(padded(values), 0, 255 - grey if falling else grey)

    curve: Curve = greyed
    values = frame
    if (size := frame.dtype.itemsize) <= 2:  # a film has more pixels than values: compute each value once
        table, values = greyed(np.arange(256**size, dtype=f"u{size}").view(frame.dtype)), frame.view(f"u{size}")
        curve = partial(np.take, table)
    grey = np.empty(frame.shape, np.uint8)
    for rows in greys.strips(grey):
        grey[rows] = curve(values[rows])
    return grey


def _alignment(dicom: pydicom.Dataset, some: np.ndarray, layout: Layout) -> Curve:
    """A function from what is allocated for a pixel to its value: without bits below it, or of an overlay above it."""
    below, above = layout.high + 1 - layout.stored, layout.allocated - layout.stored
    overlay = any(tag.group & 0xFF00 == 0x6000 and tag.element == 0x0102 for tag in dicom.keys())  # noqa: SIM118
    filled = layout.signed and some.min() >= 0 and (some >> below).max() >= 2 ** (layout.stored - 1)  # with 0, not 1
    if above and (overlay or filled):
        return lambda values: ((values >> below) << above) >> above
    return lambda values: values >> below


def _nowhere(values: np.ndarray) -> np.ndarray:
    return np.zeros(values.shape, bool)


def _padding(dicom: pydicom.Dataset, dtype: np.dtype) -> Curve:
    """A function from allocated values to whether they are padding, bool."""
    ends = [number(dicom, "PixelPaddingValue"), number(dicom, "PixelPaddingRangeLimit")]
    if math.isnan(ends[0]):
        return _nowhere
    ends = [int(end) % 2 ** (8 * dtype.itemsize) for end in ends if not math.isnan(end)]  # signed or not, as the pixels
    low, high = np.sort(np.array(ends, f"u{dtype.itemsize}").view(dtype.newbyteorder("=")))[[0, -1]]
    return lambda values: (values >= low) & (values <= high)


def _modality(dicom: pydicom.Dataset, layout: Layout, notes: list[str]) -> tuple[Curve, tuple[float, float], float]:
    """A function from stored to rescaled values, the lowest and highest of these, and the step between two."""
    half = 2 ** (layout.stored - 1)
    ends = np.array([-half, half - 1] if layout.signed else [0, 2 * half - 1])
    for item in items(dicom, "ModalityLUTSequence"):
        if table := _table(item, int(ends[0]) < 0):
            return table[0], table[1], 1.0
    slope, intercept = 1.0, 0.0
    if "RescaleSlope" in dicom and "RescaleIntercept" in dicom:
        slope, intercept = number(dicom, "RescaleSlope"), number(dicom, "RescaleIntercept")
        if not (1e-9 < abs(slope) < 1e9 and abs(intercept) < 1e12):
            notes.append(RESCALE)
            slope, intercept = 1.0, 0.0
    low, high = sorted((slope * ends + intercept).tolist())
    return lambda stored: slope * stored.astype(np.float64) + intercept, (low, high), abs(slope)


def _table(item: pydicom.Dataset, below_zero: bool) -> tuple[Curve, tuple[float, float]] | None:
    """A lookup table as a function, and the range of what is in it; None where it is empty.

    What its descriptor says of the depth is often wrong. 8-bit entries may fill a byte each.
    """
    described, element = numbers(item, "LUTDescriptor"), item.get_item("LUTData")
    if len(described) != 3 or math.isnan(sum(described)) or element is None:
        return None
    entries, first = int(described[0]) or 65536, int(described[1])
    first -= 65536 if below_zero and first >= 32768 else 0
    data, order = element.value, "<u2" if item.original_encoding[1] is not False else ">u2"
    if not isinstance(data, bytes):
        data = (np.atleast_1d(np.asarray(data, int)) & 0xFFFF).astype(order).tobytes()
    bytewise = len(data) in (entries, entries + 1)
    values = np.frombuffer(data[: len(data) // 2 * 2], "u1" if bytewise else order)[:entries].astype(np.float64)
    if not len(values):
        return None

    def look_up(values_in: np.ndarray) -> np.ndarray:
        return values[np.clip(np.rint(values_in) - first, 0, len(values) - 1).astype(np.int64)]

    return look_up, (float(values.min()), float(values.max()))


def _presentation(
    dicom: pydicom.Dataset, known: np.ndarray, nominal: tuple[float, float], step: float, notes: list[str]
) -> Curve:
    """A function from rescaled values to 0 (black) to 1: the first table or window of the header that shows the film.

    `known` are some of the values, without padding. Where nothing in the header can be used, their range decides.
    """
    tables = [table for item in items(dicom, "VOILUTSequence") if (table := _table(item, bool(known.min() < 0)))]
    for look_up, ends in tables:
        shown = _then(look_up, greys.between(*ends))
        if _shows(shown(known)):
            return shown
    function = text(dicom, "VOILUTFunction") or ("LINEAR" if "VOILUTFunction" not in dicom else "")
    centres, widths = numbers(dicom, "WindowCenter"), numbers(dicom, "WindowWidth")
    for centre, width in zip(centres, widths, strict=False):
        window = _window(centre, width, function, min(1.0, step))
        if window and _shows(window(known)):
            if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
                notes.append(FUNCTION)
            return window
    if tables or "WindowCenter" in dicom or "WindowWidth" in dicom or "VOILUTSequence" in dicom:
        notes.append(RANGE)
    for look_up, _ in tables:
        low, high = greys.bulk(look_up(known))
        if high - low >= 16:  # else it shows nothing of the film
            return _then(look_up, greys.between(low, high))
    return greys.between(*greys.value_range(known, nominal))


def _then(first: Curve, second: Curve) -> Curve:
    return lambda values: second(first(values))


def _window(centre: float, width: float, function: str, step: float) -> Curve | None:
    """PS3.3 C.11.2.1; None where centre and width are none. `step` is 1 there, and less where values are fractions."""
    if not (width > 0 and math.isfinite(centre)):
        return None
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -99, 99)))
    if function == "LINEAR_EXACT":
        return greys.between(centre - width / 2, centre + width / 2)
    return greys.between(centre - width / 2, centre + width / 2 - step) if width >= step else None


def _shows(shares: np.ndarray) -> bool:
    """Whether a film can be seen in these shares of white: a third of the greys, and not only black and white.

    A window lies within the values, or they within it, nearly: one that lies beside them was meant for others.
    """
    low, high = greys.bulk(shares)
    both = min(high, 1) - max(low, 0)
    return both > 0.6 * min(high - low, 1) and both >= 1 / 3 and bool(np.mean((shares > 0) & (shares < 1)) >= 0.1)
