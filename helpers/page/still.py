"""The page in a report, which has no kernel: a picture of the image and of the image under its heatmap."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import explain
from helpers.page.answer import Answer
from helpers.page.viewer import png

STYLE = f"<style>{Path(__file__).with_name('page.css').read_text(encoding='utf-8')}</style>"


def still_picture(answer: Answer, method: str) -> str:
    """The image, and the image under the heatmap of `method`, as HTML."""
    if answer.error:
        return ""
    plain, shape = _uri(answer.picture), np.asarray(Image.open(io.BytesIO(answer.picture))).shape
    heat = _uri(png(np.rint(255 * explain.in_colour(answer.heat[method], shape)).astype(np.uint8)))
    return (
        f'<div class="xray xray-panes"><figure><img src="{plain}" alt="the image">'
        f'<figcaption>the image</figcaption></figure><figure><div class="xray-stack"><img src="{plain}" '
        f'alt="the image, under the heatmap"><img class="xray-heat" src="{heat}" alt="where the model saw signs of '
        f'pneumonia"></div><figcaption>{method}: what spoke for pneumonia</figcaption></figure></div>'
    )


def _uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
