"""How a saved model does on test images framed, turned and toned otherwise, and on images from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps


def cropped(image: np.ndarray, share: float) -> np.ndarray:
    """uint8 (height, width) without `share` of its height and width at each side."""
    height, width = (round(share * length) for length in image.shape)
    return image[height : image.shape[0] - height, width : image.shape[1] - width]


def tilted(image: np.ndarray, degrees: float) -> np.ndarray:
    """uint8 (height, width) turned about its centre, the same size, black in the corners."""
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


def equalised(image: np.ndarray) -> np.ndarray:
    """uint8 (height, width) after histogram equalisation."""
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda image: image,
    "cropped by 5%": lambda image: cropped(image, 0.05),
    "cropped by 8%": lambda image: cropped(image, 0.08),
    "cropped by 12%": lambda image: cropped(image, 0.12),
    "tilted by 8 degrees": lambda image: tilted(image, 8),
    "equalised": equalised,
}
