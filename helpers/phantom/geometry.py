"""A film's pixels in the patient's coordinates, and how solids and outlines are projected onto them.

Lengths are in half-widths of the thorax: x runs to the image's right (the patient's left), y down from the clavicles, z
towards the patient's front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter


@dataclass(frozen=True)
class View:
    """One exposure: the pose, and the pixel grid in the patient's coordinates."""

    x: np.ndarray
    y: np.ndarray
    scale: float
    turn: np.ndarray
    origin: np.ndarray
    yaw: float
    lift: float
    dome: float  # y of the diaphragm's top
    head: float  # y of the chin's centre
    arms: float  # angle of the arms below the horizontal, radians


def pose(rng, width: int, height: int, across: tuple[float, float]) -> View:
    """Draw a pose; `across`: least and most half-widths of the thorax that the film is wide."""
    scale = width / rng.uniform(*across)
    tilt = rng.normal(0, 0.035)
    turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    middle = (width * (0.5 + rng.normal(0, 0.025)), height * (0.5 + rng.normal(0, 0.02)))
    origin = np.array(middle) - scale * turn @ (0.0, 0.78)
    row, column = np.mgrid[:height, :width]
    pixels = np.stack([column - origin[0], row - origin[1]], -1) / scale
    x, y = np.moveaxis((pixels @ turn).astype(np.float32), -1, 0)
    return View(
        x=np.ascontiguousarray(x),
        y=np.ascontiguousarray(y),
        scale=scale,
        turn=turn,
        origin=origin,
        yaw=rng.normal(0, 0.06),
        lift=rng.normal(0.03, 0.07),
        dome=rng.uniform(1.18, 1.45),
        head=rng.uniform(-1.05, -0.7),
        arms=rng.uniform(-1.2, -0.4) if rng.random() < 0.6 else rng.uniform(0.8, 1.25),
    )


def project(view: View, points: ArrayLike) -> np.ndarray:
    """Points (..., 3) of the patient, projected to pixels (..., 2)."""
    x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
    return view.scale * np.stack([x + view.yaw * z, y - view.lift * z], -1) @ view.turn.T + view.origin


def ink(view: View, shapes, blur: float = 0) -> np.ndarray:
    """Polygons [(pixels (n, 2), value 0-1)], later over earlier, as a float32 layer of the view, softened by `blur`."""
    height, width = view.x.shape
    layer = Image.new("L", (2 * width, 2 * height))
    pen = ImageDraw.Draw(layer)
    for polygon, value in shapes:
        pen.polygon((2 * polygon + 0.5).ravel().tolist(), fill=round(255 * value))
    layer = layer.reduce(2).filter(ImageFilter.GaussianBlur(blur * view.scale)) if blur else layer.reduce(2)
    return np.asarray(layer, np.float32) / 255


def tube(line: np.ndarray, radius) -> np.ndarray:
    """Outlines (..., 2n, 2) of tubes around lines of pixels (..., n, 2); `radius` in pixels, one or one per point."""
    along = np.gradient(line, axis=-2)
    normal = along[..., ::-1] * (-1, 1) / np.maximum(np.hypot(along[..., :1], along[..., 1:]), 1e-6)
    offset = normal * np.reshape(radius, (-1, 1))
    return np.concatenate([line + offset, (line - offset)[..., ::-1, :]], -2)


def bone(lines: np.ndarray, radius, marrow: float) -> list:
    """Bones along lines of pixels (..., n, 2): bright cortex, and inside it marrow of density `marrow`."""
    outer, inner = tube(lines, radius), tube(lines, 0.62 * np.asarray(radius))
    points = outer.shape[-2:]
    pairs = zip(outer.reshape(-1, *points), inner.reshape(-1, *points), strict=True)
    return [shape for cortex, core in pairs for shape in ((cortex, 1.0), (core, marrow))]


def noise(rng, shape, cells: int) -> np.ndarray:
    """Smooth noise of about unit variance, `cells` lumps across."""
    grid = rng.standard_normal((max(2, round(cells * shape[0] / shape[1])), cells), dtype=np.float32)
    return resize(grid, shape)


def resize(image: np.ndarray, shape, method=Image.Resampling.BICUBIC) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(shape[::-1], method))


def soften(image: np.ndarray, factor: float) -> np.ndarray:
    """A wide blur, by way of an image `factor` times smaller."""
    small = [max(2, round(side / factor)) for side in image.shape]
    return resize(resize(image, small, Image.Resampling.BOX), image.shape)


def edge(distance, width: float):
    """0 to 1 across `width`, as distance passes 0."""
    t = np.clip(distance / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def chord(squared):
    """Chord through a round body as a share of its deepest, from the squared distance to its axis."""
    return np.sqrt(np.maximum(1 - squared, 0))


def ellipsoid(view: View, x: float, y: float, a: float, b: float, angle: float = 0.0) -> np.ndarray:
    """Chord through an ellipsoid as a share of its deepest: semi-axes `a` along `angle`, `b` across."""
    dx, dy, c, s = view.x - x, view.y - y, math.cos(angle), math.sin(angle)
    return chord((c / a * dx + s / a * dy) ** 2 + (c / b * dy - s / b * dx) ** 2)


def capsule(x, y, start, end, radius: float) -> np.ndarray:
    """Chord through a limb, as a share of its diameter."""
    x, y, dx, dy = x - start[0], y - start[1], end[0] - start[0], end[1] - start[1]
    t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    return chord(((x - t * dx) ** 2 + (y - t * dy) ** 2) / radius**2)
