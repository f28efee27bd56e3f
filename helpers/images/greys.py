"""From stored numbers to grey values: which number is black and which is white; for `decode` and `dicom`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_STRIP = 1_000_000  # pixels that are computed with at once: a whole film in floating point would fill the memory
_FEWEST_STEPS = 16  # between black and white: with fewer, stretching them would show noise


def strips(image: np.ndarray) -> Iterator[slice]:
    """Rows of an image (height, width), some at a time."""
    height, width = image.shape
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def sample(pixels: np.ndarray) -> np.ndarray:
    """A quarter of a million of the pixels (height, width[, channels]), or about as many, evenly."""
    step = sample_step(*pixels.shape[:2])
    return pixels[::step, ::step]


def sample_step(height: int, width: int) -> int:
    """Every how many rows and columns `sample` takes one."""
    return max(1, round((height * width / 250_000) ** 0.5))


def bulk(values: np.ndarray) -> tuple[float, float]:
    """The lowest and highest of nearly all `values`: without hot pixels, padding and burnt-in letters.

    What lies further from the middle nine tenths than these are wide is left out, then one in 5,000 at each end.
    Whatever equals the lowest or the highest value says nothing about the middle: it may be padding of any size.
    """
    values = np.sort(values[np.isfinite(values)], axis=None)
    if not len(values):
        return 0.0, 0.0
    inner = values[(values > values[0]) & (values < values[-1])]
    if len(inner):
        low, high = (float(inner[round(share * (len(inner) - 1))]) for share in (0.05, 0.95))
        if low < high:
            values = values[(values >= 2 * low - high) & (values <= 2 * high - low)]
    tail = len(values) // 5000
    return float(values[tail]), float(values[len(values) - 1 - tail])


def value_range(values: np.ndarray, nominal: tuple[float, float]) -> tuple[float, float]:
    """The values to show as black and as white, where nothing but the data and their depth is known.

    `nominal` are the lowest and highest value that the file's depth allows. They are used where the data fill half of
    them, or 8 bits, so that a film has the same greys at any depth. Else the file says more bits than are used: the
    fewest bits that the data fill well decide, and where there are none, the data's own range.
    """
    low, high = bulk(values)
    bottom, top = nominal
    if high - low < _FEWEST_STEPS * min(1.0, (top - bottom) / 255):
        return nominal
    if bottom <= low and high <= top and (top - bottom <= 255 or high - low >= (top - bottom) / 2):
        return nominal
    white = next((2.0**bits - 1 for bits in range(8, 17) if high < 2**bits), 0)
    return (0.0, white) if 0 <= low <= white / 20 and high >= 0.75 * white else (low, high)


def between(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """A function from values to 0 (at `low`) to 1 (at `high`), and beyond both."""
    return lambda values: (values - low) / ((high - low) or 1.0)


def to_uint8(shares: np.ndarray) -> np.ndarray:
    """Shares of white, 0 to 1, as 0-255; what lies beyond is cut."""
    return np.clip(np.rint(255 * np.nan_to_num(shares)), 0, 255).astype(np.uint8)


def luminance(colours: np.ndarray) -> np.ndarray:
    """float64 (height, width) of (height, width, 3 or more), red, green and blue first."""
    return colours[..., :3] @ np.array([0.299, 0.587, 0.114])


def almost_uniform(image: np.ndarray) -> bool:
    """Whether nearly all of uint8 (height, width) is of about one grey, whatever few letters lie on it."""
    low, high = np.quantile(sample(image), (0.02, 0.98))
    return bool(high - low < 32)
