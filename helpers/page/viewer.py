"""The pictures of the page: the image and its heatmap side by side, to be looked at as readers do; see viewer.js."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import anywidget
import matplotlib
import numpy as np
import traitlets
from PIL import Image

from helpers import explain

LARGEST = 1024  # pixels of a picture's longer side
_COLOURS = np.rint(255 * matplotlib.colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8).tobytes()


class Viewer(anywidget.AnyWidget):
    """Zoom, window, heatmap and report of one image, in the browser; `on_next`: the next uncertain one is wanted."""

    _esm = Path(__file__).with_name("viewer.js")
    picture = traitlets.Bytes(b"").tag(sync=True)  # PNG, 8 bits; empty: there is none
    seen = traitlets.Bytes(b"").tag(sync=True)  # PNG: what the model sees
    heat = traitlets.Bytes(b"").tag(sync=True)  # uint8 (size, size); empty: none yet
    colours = traitlets.Bytes(_COLOURS).tag(sync=True)  # uint8 (256, 3)
    methods = traitlets.List(list(explain.METHODS)).tag(sync=True)
    method = traitlets.Unicode(next(iter(explain.METHODS))).tag(sync=True)
    hidden = traitlets.Bool(False).tag(sync=True)  # what the model says of the image
    report = traitlets.Dict().tag(sync=True)

    def __init__(self, on_next: Callable[[], None]):
        super().__init__()
        self.on_msg(lambda *_: on_next())


def reduced(pixels: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    """uint8 (h, w), no side longer than `largest`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((largest, largest))
    return np.asarray(picture)


def png(pixels: np.ndarray) -> bytes:
    """uint8 (h, w) or (h, w, channels) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def heat_bytes(heat: np.ndarray) -> bytes:
    """float (size, size), 0-1, as uint8."""
    return np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8).tobytes()
