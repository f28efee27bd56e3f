"""The page in a report, which has no kernel: the image, and the image under its heatmap."""

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
    under = png(explain.overlay(np.asarray(Image.open(io.BytesIO(answer.picture))), answer.heat[method], 0.6))
    figures = ""
    for data, caption in ((answer.picture, "the image"), (under, f"{method}: what spoke for pneumonia")):
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        figures += f"<figure><img src='{uri}' alt='{caption}'><figcaption>{caption}</figcaption></figure>"
    return f"<div class='xray xray-panes'>{figures}</div>"
