"""Chest radiographs of children, drawn by code, with the true mask of every opacity.

A film is a projection. Soft tissue, air and bone are laid down as optical depths and added up along the ray; exposure,
scatter, noise and the display's window make grey values of them. Lengths are in half-widths of the thorax: x runs to
the image's right (the patient's left), y down from the clavicles, z towards the patient's front.
The phantoms measure the machinery, never medicine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

FINDINGS = ("normal", "bacteria", "virus")
ZONES = tuple(f"{side} {height}" for side in ("left", "right") for height in ("upper", "middle", "lower"))

_WORKING_WIDTH = 272  # pixels across, before the film is resized to its own size
_APEX = -0.06  # y of the top of the lungs
# Where a lobe consolidates: side, centre and radii as shares of the lung's width and height, and the fissure that
# cuts it off: +1 keeps what lies above, -1 what lies below that height, 0 has none.
_LOBES = (
    (-1, 0.60, 0.28, 0.45, 0.30, +1, 0.46),
    (-1, 0.45, 0.68, 0.35, 0.22, -1, 0.50),
    (-1, 0.60, 0.86, 0.45, 0.28, 0, 0.0),
    (+1, 0.60, 0.36, 0.42, 0.34, +1, 0.62),
    (+1, 0.65, 0.85, 0.40, 0.28, 0, 0.0),
)


@dataclass(frozen=True)
class Patient:
    """What a person's films share: lengths in half-widths of the thorax, shares of 1, or factors around 1."""

    seed: int  # of the branching of the vessels and of the place of an opacity
    depth: float  # half the thorax from back to front
    fat: float  # soft tissue around the ribs
    slope: float  # fall of a rib from back to front; grows with age
    ribs: float  # distance of neighbouring ribs
    bone: float  # density of the bones
    heart: float  # half its width
    apex: float  # fall of the heart's axis, radians
    thymus: float  # 0 for none, to 1 for a sail
    vessels: float  # their prominence
    curve: float  # sideways bend of the spine


@dataclass(frozen=True)
class _View:
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


def make_patient(rng: np.random.Generator) -> Patient:
    """Draw the anatomy of a child of about one to five years."""
    age = rng.random()
    return Patient(
        seed=int(rng.integers(2**31)),
        depth=rng.uniform(0.62, 0.72),
        fat=rng.uniform(0.09, 0.2),
        slope=0.5 + 0.35 * age + rng.uniform(-0.08, 0.08),
        ribs=rng.uniform(0.185, 0.205),
        bone=rng.uniform(0.75, 1.2) * (0.85 + 0.2 * age),
        heart=rng.uniform(0.4, 0.5) - 0.06 * age,
        apex=rng.uniform(0.35, 0.75),
        thymus=max(0.0, rng.uniform(-0.8, 1.0) - 0.5 * age),
        vessels=rng.uniform(0.6, 1.5),
        curve=rng.normal(0, 0.02),
    )


def draw(
    rng: np.random.Generator, finding: str = "normal", patient: Patient | None = None, size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one film of `patient` (None: a new one): (uint8 grey image, bool mask of the opacity), both (h, w).

    Without `size` the film is 300 to 520 pixels wide and somewhat less high; with it, (size, size), squeezed as any
    film is when resized to a square. Films of one patient share anatomy and the place of the opacity, and differ in
    pose, exposure and severity. The mask is where the opacity adds over a third of the most it adds; all False when
    normal. Raises ValueError for a finding other than normal, bacteria and virus, and for a size below 16.
    """
    if finding not in FINDINGS:
        raise ValueError(f"finding {finding!r} is not one of {', '.join(FINDINGS)}")
    return film(rng, finding, patient, size)[:2]


def film(rng, finding: str, patient: Patient | None, size: int | None):
    """`draw`, also for finding="focus" (a small consolidation anywhere); returns the ZONES an opacity covers, too."""
    if size is not None and size < 16:
        raise ValueError(f"size {size} is below 16 pixels")
    patient = patient or make_patient(rng)
    width = int(rng.integers(300, 521))
    height = round(width / rng.uniform(1.02, 1.45))
    working = _WORKING_WIDTH if size is None else min(_WORKING_WIDTH, max(96, round(1.25 * size)))
    view = _pose(rng, working, round(working * height / width))

    body = _body(view, patient)
    air, u, v = _lungs(view, patient)
    lung = air > 0.1
    opacity = np.zeros_like(air) if finding == "normal" else _opacity(rng, finding, view, patient, air, u, v)
    vessels, airways = _trees(view, patient)
    added = _soften(air * opacity, working / 60)
    mask = added > max(0.33 * added.max(), 1e-6)
    air = air * (1 - opacity * (1 - 0.4 * airways))
    lung_marks = patient.vessels * vessels * air
    depth = 1.7 * (body - 0.78 * air) + 0.3 * lung_marks + _bones(view, patient) - _gas(view, patient)
    depth = depth * (1 + 0.03 * _noise(rng, air.shape, 6)) + 0.04 * air * _noise(rng, air.shape, 70)
    image = _expose(rng, depth + _overlays(rng, view), working)
    image, mask = _collimate(rng, image), mask & lung

    target = (size, size) if size else (width, height)
    resized = Image.fromarray(image).resize(target, Image.Resampling.BICUBIC)
    if size is None or size >= 96:
        _letter(rng, resized)
    grey = np.asarray(resized.convert("L"))
    outline = np.asarray(Image.fromarray(mask).resize(target, Image.Resampling.NEAREST))
    zone = 3 * (view.x > 0) + np.clip(3 * v, 0, 2).astype(int)
    covered = [mask[lung & (zone == k)].mean() > 0.12 if (lung & (zone == k)).any() else False for k in range(6)]
    return grey, outline, np.array(covered, np.float32)


# --- geometry ---------------------------------------------------------------------------------------------------------


def _pose(rng, width: int, height: int) -> _View:
    scale = width / rng.uniform(2.5, 3.2)
    tilt = rng.normal(0, 0.035)
    turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    middle = (width * (0.5 + rng.normal(0, 0.025)), height * (0.5 + rng.normal(0, 0.02)))
    origin = np.array(middle) - scale * turn @ (0.0, 0.78)
    row, column = np.mgrid[:height, :width]
    pixels = np.stack([column - origin[0], row - origin[1]], -1) / scale
    x, y = np.moveaxis((pixels @ turn).astype(np.float32), -1, 0)
    return _View(
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


def _place(view: _View, points: ArrayLike) -> np.ndarray:
    """Points (..., 3) of the patient, projected to pixels (..., 2)."""
    x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
    return view.scale * np.stack([x + view.yaw * z, y - view.lift * z], -1) @ view.turn.T + view.origin


def _ink(view: _View, shapes, blur: float = 0) -> np.ndarray:
    """Polygons [(pixels (n, 2), value 0-1)], later over earlier, as a float32 layer of the view, softened by `blur`."""
    height, width = view.x.shape
    layer = Image.new("L", (2 * width, 2 * height))
    pen = ImageDraw.Draw(layer)
    for polygon, value in shapes:
        pen.polygon((2 * polygon + 0.5).ravel().tolist(), fill=round(255 * value))
    layer = layer.reduce(2).filter(ImageFilter.GaussianBlur(blur * view.scale)) if blur else layer.reduce(2)
    return np.asarray(layer, np.float32) / 255


def _tube(line: np.ndarray, radius) -> np.ndarray:
    """Outlines (..., 2n, 2) of tubes around lines of pixels (..., n, 2); `radius` in pixels, one or one per point."""
    along = np.gradient(line, axis=-2)
    normal = along[..., ::-1] * (-1, 1) / np.maximum(np.hypot(along[..., :1], along[..., 1:]), 1e-6)
    offset = normal * np.reshape(radius, (-1, 1))
    return np.concatenate([line + offset, (line - offset)[..., ::-1, :]], -2)


def _bone(lines: np.ndarray, radius, marrow: float) -> list:
    """Bones along lines of pixels (..., n, 2): bright cortex, and inside it marrow of density `marrow`."""
    outer, inner = _tube(lines, radius), _tube(lines, 0.62 * np.asarray(radius))
    points = outer.shape[-2:]
    pairs = zip(outer.reshape(-1, *points), inner.reshape(-1, *points), strict=True)
    return [shape for cortex, core in pairs for shape in ((cortex, 1.0), (core, marrow))]


def _noise(rng, shape, cells: int) -> np.ndarray:
    """Smooth noise of about unit variance, `cells` lumps across."""
    grid = rng.standard_normal((max(2, round(cells * shape[0] / shape[1])), cells), dtype=np.float32)
    return _resize(grid, shape)


def _resize(image: np.ndarray, shape, method=Image.Resampling.BICUBIC) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(shape[::-1], method))


def _soften(image: np.ndarray, factor: float) -> np.ndarray:
    """A wide blur, by way of an image `factor` times smaller."""
    small = [max(2, round(side / factor)) for side in image.shape]
    return _resize(_resize(image, small, Image.Resampling.BOX), image.shape)


def _edge(distance, width: float):
    """0 to 1 across `width`, as distance passes 0."""
    t = np.clip(distance / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _chord(squared):
    """Chord through a round body as a share of its deepest, from the squared distance to its axis."""
    return np.sqrt(np.maximum(1 - squared, 0))


def _ellipsoid(view: _View, x: float, y: float, a: float, b: float, angle: float = 0.0) -> np.ndarray:
    """Chord through an ellipsoid as a share of its deepest: semi-axes `a` along `angle`, `b` across."""
    dx, dy, c, s = view.x - x, view.y - y, math.cos(angle), math.sin(angle)
    return _chord((c / a * dx + s / a * dy) ** 2 + (c / b * dy - s / b * dx) ** 2)


def _capsule(x, y, start, end, radius: float) -> np.ndarray:
    """Chord through a limb, as a share of its diameter."""
    x, y, dx, dy = x - start[0], y - start[1], end[0] - start[0], end[1] - start[1]
    t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    return _chord(((x - t * dx) ** 2 + (y - t * dy) ** 2) / radius**2)


def _wall(y):
    """Half-width of the lungs' outline at height y."""
    share = np.clip((y - _APEX) / (1.5 - _APEX), 0, 1)
    return np.sqrt(1 - (1 - share) ** 2.1) + 1e-3


# --- anatomy ----------------------------------------------------------------------------------------------------------


def _arm(view: _View, side: int) -> tuple[tuple[float, float], tuple[float, float]]:
    return (side * 1.13, 0.08), (side * (1.13 + 1.4 * math.cos(view.arms)), 0.08 + 1.4 * math.sin(view.arms))


def _body(view: _View, patient: Patient) -> np.ndarray:
    """Thickness of the body along the ray, air and all."""
    x, y = view.x[::2, ::2], view.y[::2, ::2]
    half = _wall(np.maximum(y, 0.3)) + patient.fat + 0.08
    thick = (2 * (patient.depth + 0.4 * patient.fat) * _chord((x / half) ** 2) * _edge(y - 0.05, 0.7)) ** 2
    parts = [(0.9, (0.0, -0.9), (0.0, 0.3), 0.34), (1.3, (0.0, view.head - 0.3), (0.0, view.head), 0.5)]
    for side in (-1, 1):
        shoulder, hand = _arm(view, side)
        parts += [(0.6, (side * 0.1, 0.0), shoulder, 0.27), (0.55, shoulder, hand, 0.26)]
        parts += [(0.5, shoulder, (side * 1.0, 0.75), 0.2), (0.5, (side * 0.2, -0.4), (side * 0.85, 0.0), 0.2)]
    for deep, start, end, radius in parts:
        thick += (deep * _capsule(x, y, start, end, radius)) ** 2
    return _resize(np.sqrt(thick), view.x.shape, Image.Resampling.BILINEAR)


def _lungs(view: _View, patient: Patient) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Air along the ray, and where in its lung each pixel lies: share u of the width, share v of the height."""
    x, y = view.x - 0.1 * view.yaw, view.y
    u = np.abs(x) / _wall(y)
    out = np.abs(x) - 0.42
    floor = view.dome + np.where(x > 0, 0.06, 0).astype(np.float32) + np.where(out > 0, 0.9, 0.3) * out**2
    v = ((y - _APEX) / (floor - _APEX)).astype(np.float32)
    chest = 2 * (patient.depth - 0.1) * _chord(u**2)
    chest *= 0.86 * _edge(floor - y, 0.035) + 0.14 * _edge(floor + 0.1 - y, 0.35)
    front, low = 0.3 * view.yaw, view.dome - 0.28
    waist = np.interp(y, (-0.1, 0.25, 0.7, 1.3), (0.27, 0.2, 0.2, 0.23)).astype(np.float32)
    sail = _ellipsoid(view, front - 0.1, 0.36, 0.16 + 0.3 * patient.thymus, 0.36) * _edge(0.6 - 0.2 * x - y, 0.03)
    solid = (
        1.05 * _chord(((x - front) / waist) ** 2),
        1.1 * _ellipsoid(view, front + 0.14, low, patient.heart + 0.14, 0.4, patient.apex),
        0.95 * _ellipsoid(view, front - 0.08, low - 0.04, 0.27, 0.46),
        0.9 * _ellipsoid(view, front + 0.15, 0.36, 0.13, 0.13),
        0.9 * _ellipsoid(view, front + 0.15, low - 0.3, 0.24, 0.42, 0.3),
        0.6 * min(1.0, 2 * patient.thymus) * sail,
        0.16 * _ellipsoid(view, -0.27, 0.68, 0.16, 0.2),
        0.16 * _ellipsoid(view, 0.3, 0.62, 0.16, 0.18),
    )
    return np.maximum(chest - np.maximum.reduce(solid), 0), u, v


def _gas(view: _View, patient: Patient) -> np.ndarray:
    """Air outside the lungs: trachea, main bronchi, stomach and bowel."""
    rng = np.random.default_rng([patient.seed, 2])
    trunk = np.array([(0.01, -0.6, 0.1), (0.0, 0.1, 0.0), (-0.03, 0.46, -0.1)])
    shapes = [(_tube(_place(view, trunk), 0.05 * view.scale), 1.0)]
    for side in (-1, 1):
        shapes.append((_tube(_place(view, [trunk[-1], (side * 0.2, 0.64, -0.1)]), 0.035 * view.scale), 0.8))
    gas = 0.2 * _ink(view, shapes, 0.012)
    gas += rng.uniform(0, 0.45) * _ellipsoid(view, 0.4, view.dome + 0.27, rng.uniform(0.15, 0.3), 0.15, 0.25)
    for _ in range(rng.integers(4)):
        x, y = rng.uniform(-0.2, 0.8), view.dome + rng.uniform(0.4, 0.7)
        gas += rng.uniform(0.1, 0.25) * _ellipsoid(view, x, y, rng.uniform(0.06, 0.14), 0.07, rng.uniform(-1, 1))
    return gas


def _trees(view: _View, patient: Patient) -> tuple[np.ndarray, ...]:
    """Layers 0-1 of the vessels, and of the airways beside them that show where the lung is filled."""
    rng = np.random.default_rng(patient.seed)
    height, width = view.x.shape
    layers = [Image.new("L", (2 * width, 2 * height)) for _ in range(2)]
    pens = [ImageDraw.Draw(layer) for layer in layers]
    side = np.repeat([-1.0, 1.0], 9)
    heading = np.tile(np.linspace(-1.4, 1.35, 9), 2) + rng.normal(0, 0.15, 18)
    radius, length = rng.uniform(0.014, 0.026, 18), rng.uniform(0.18, 0.26, 18)
    start = np.stack([0.2 * side, 0.66 - 0.03 * side, 0 * side], -1)
    for generation in range(5 if view.scale > 50 else 4):
        step = np.stack([side * np.cos(heading), np.sin(heading), 0 * side], -1)
        bend = start + 0.5 * length[:, None] * (step + rng.normal(0, 0.12, step.shape))
        end = start + length[:, None] * step
        lines = 2 * _place(view, np.stack([start, bend, end], 1))
        wide = 2 * view.scale * radius
        for line, r in zip(lines.reshape(-1, 6).tolist(), wide.tolist(), strict=True):
            pens[0].line(line, fill=min(255, 60 + round(30 * r)), width=max(1, round(1.6 * r)))
        if generation in (1, 2):
            for line, r in zip(lines[::2].reshape(-1, 6).tolist(), wide[::2].tolist(), strict=True):
                pens[1].line([c + 3 * r for c in line], fill=255, width=max(1, round(2 * r)))
        side, start, radius, length, heading = (np.repeat(a, 2, 0) for a in (side, end, radius, length, heading))
        heading = heading + np.tile([-1, 1], len(side) // 2) * rng.uniform(0.1, 0.5, len(side))
        radius, length = radius * rng.uniform(0.55, 0.85, len(side)), length * rng.uniform(0.6, 1.0, len(side))
    soft = (layers[0].reduce(2), layers[1].reduce(2).filter(ImageFilter.GaussianBlur(0.008 * view.scale)))
    return tuple(np.asarray(layer, np.float32) / 255 for layer in soft)


def _bones(view: _View, patient: Patient) -> np.ndarray:
    """Optical depth of ribs, spine, collar bones, shoulder blades and upper arms."""
    sides = np.array([-1.0, 1.0]).reshape(1, 2, 1)
    n = np.arange(12).reshape(-1, 1, 1)
    around = np.linspace(0.04, 0.84, 48) * np.pi
    root = -0.12 + patient.ribs * n * (0.8 + 0.02 * n)
    fall = patient.slope * (0.55 + 0.06 * n) * (around / np.pi) ** 1.2 - 0.06 * np.sin(around)
    wide = _wall(root + 0.3 * patient.slope) + 0.03
    lines = np.broadcast_arrays(sides * wide * np.sin(around), root + fall, -patient.depth * wide * np.cos(around))
    ribs = _place(view, np.stack(lines, -1))
    back = _bone(ribs[:, :, :29], 0.036 * view.scale, 0.65)
    front = _bone(ribs[:8, :, 27:], np.linspace(0.035, 0.045, 21) * view.scale, 0.6)

    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    vertebra = np.arange(-5, 16).reshape(-1, 1)
    y, w = 0.147 * vertebra, 0.1 + 0.002 * vertebra
    x = patient.curve * np.sin(2 * y)
    square = [np.sign(t) * np.abs(t) ** 0.35 for t in (np.cos(turn), np.sin(turn))]
    spine = []
    for dx, dy, a, b, value in (
        (0, 0, 1.0, 0.064, 0.85),
        (0, 0, 0.86, 0.05, 0.65),
        (-0.6, -0.01, 0.2, 0.03, 1.0),
        (0.6, -0.01, 0.2, 0.03, 1.0),
        (0, 0.03, 0.12, 0.04, 0.9),
    ):
        outline = np.broadcast_arrays(x + w * (dx + a * square[0]), y + dy + b * square[1], -0.4)
        spine += [(body, value) for body in _place(view, np.stack(outline, -1))]

    girdle, blades = [], []
    t = np.linspace(0, 1, 20)
    for side in (-1, 1):
        collar = (side * (0.12 + 0.9 * t), 0.07 - 0.15 * t - 0.04 * np.sin(2 * np.pi * t), 0.35 - 0.4 * t)
        (x0, y0), (x1, y1) = _arm(view, side)
        arm = (x0 + (x1 - x0) * t, y0 + (y1 - y0) * t, 0 * t)
        girdle += _bone(_place(view, np.stack(arm, -1)), (0.06 + 0.04 * np.exp(-9 * t)) * view.scale, 0.6)
        girdle += _bone(_place(view, np.stack(collar, -1)), (0.033 + 0.03 * np.abs(t - 0.5)) * view.scale, 0.6)
        corners = [(1.05, 0.06), (1.0, 0.25), (0.9, 0.74), (0.83, 0.7), (0.74, 0.25), (0.8, 0.02)]
        blade = np.column_stack([np.multiply(corners, (side, 1)), np.full(6, -0.5)])
        core = blade.mean(0) + 0.86 * (blade - blade.mean(0))
        blades += [(_place(view, blade), 1.0), (_place(view, core), 0.3)]
    tangent = 1 + 0.6 * np.minimum(np.abs(view.x), 1) ** 6
    depth = tangent * (0.36 * _ink(view, back) + 0.17 * _ink(view, front)) + 0.24 * _ink(view, spine, 0.006)
    return patient.bone * (depth + 0.36 * _ink(view, girdle) + 0.14 * _ink(view, blades, 0.006))


# --- findings ---------------------------------------------------------------------------------------------------------


def _opacity(rng, finding: str, view: _View, patient: Patient, air, u, v) -> np.ndarray:
    """The share 0-1 of the air that the finding takes away."""
    place = np.random.default_rng([patient.seed, 1])
    side = np.sign(view.x)
    if finding == "virus":
        ridges = np.clip(1 - 2.0 * np.abs(_noise(rng, air.shape, 60)), 0, 1)
        ridges = ridges + np.clip(1 - 2.5 * np.abs(_noise(rng, air.shape, 30)), 0, 1)
        reach = place.uniform(0.35, 0.6)
        weight = np.exp(-(((u - 0.25) / reach) ** 2) - ((v - 0.55) / reach) ** 2) + 0.15
        weight = weight * np.where(side < 0, 1, place.uniform(0.6, 1.3)) * (1 + 0.35 * _noise(rng, air.shape, 7))
        return np.clip(rng.uniform(0.2, 0.7) * weight * (0.4 + 0.6 * ridges), 0, 0.9)
    if finding == "focus" or place.random() < 0.2:
        lobe = (place.choice([-1, 1]), place.uniform(0.4, 0.8), place.uniform(0.2, 0.9), 0.3, 0.2, 0, 0.0)
    else:
        lobe = _LOBES[place.integers(len(_LOBES))]
    where, cu, cv, ru, rv, keep, fissure = lobe
    grow = place.uniform(0.7, 1.15)
    shape = 1 - ((u - cu - place.normal(0, 0.05)) / (ru * grow)) ** 2 - ((v - cv) / (rv * grow)) ** 2
    patchy = shape + 0.4 * _noise(rng, air.shape, 9) + 0.2 * _noise(rng, air.shape, 25)
    cover = _edge(patchy - 0.25, 1.1) * _edge(side * where, 0.1)
    if keep:
        cover = cover * _edge(keep * (fissure + 0.08 * (u - 0.5) - v), 0.03)
    return np.clip(rng.uniform(0.25, 0.8) * cover, 0, 0.95)


# --- the film ---------------------------------------------------------------------------------------------------------


def _overlays(rng, view: _View) -> np.ndarray:
    """What lies over the chest of any child: folds and pads of soft tissue, sometimes a lead."""
    depth = np.zeros_like(view.x)
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.3, 0.3, 0.25, 0.15])):
        x, y, angle = rng.uniform((-0.8, 0.2, 0), (0.8, 1.3, 3)).tolist()
        pad = _ellipsoid(view, x, y, rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5), angle)
        depth += rng.uniform(0.1, 0.35) * pad ** rng.uniform(1, 3)
    if rng.random() < 0.2:
        t = np.linspace(0, 1, 24)
        x0, x1, bend = rng.uniform(-1.2, 1.2), rng.uniform(-0.8, 0.8), rng.uniform(-0.5, 0.5)
        lead = (x0 + (x1 - x0) * t + bend * np.sin(np.pi * t), -0.6 + rng.uniform(0.8, 2.6) * t, 0 * t)
        line = _place(view, np.stack(lead, -1))
        disc = line[-1] + 0.045 * view.scale * np.stack([np.cos(7 * t), np.sin(7 * t)], -1)
        depth += 0.25 * _ink(view, [(_tube(line, 0.009 * view.scale), 1.0), (disc, 1.0)])
    return depth


def _expose(rng, depth: np.ndarray, working: int) -> np.ndarray:
    """Optical depth to display values, float32 0-255: bright tissue, dark air."""
    light = np.exp(-depth)
    light = light + rng.uniform(0.1, 0.4) * _soften(light, working / 12) + 0.01
    dose = rng.uniform(3000, 20000)
    light = np.maximum(light + np.sqrt(light / dose) * rng.standard_normal(light.shape, dtype=np.float32), 1e-3)
    film = gaussian_filter(-np.log(light), rng.uniform(0.3, 0.7) * working / _WORKING_WIDTH)
    film = film - rng.uniform(0.2, 0.6) * _soften(film, working / 7)
    low, high = np.percentile(film[::3, ::3], [rng.uniform(1, 10), rng.uniform(98, 99.8)])
    grey = np.clip((film - low) / (high - low), 0, 1.1) ** rng.uniform(0.75, 1.15)
    return (rng.uniform(0, 15) + rng.uniform(190, 235) * grey).astype(np.float32)


def _collimate(rng, image: np.ndarray) -> np.ndarray:
    """Blacken what the shutters of the tube keep out: some border, on some films."""
    height, width = image.shape
    lit = np.ones_like(image)
    for axis, length in ((0, height), (1, width)):
        first, last = np.clip(rng.normal(-0.02, 0.025, 2), 0, 0.05) * length
        inside = np.arange(length)
        shutter = (_edge(inside - first, 2) if first else 1) * (_edge(length - 1 - last - inside, 2) if last else 1)
        lit *= np.broadcast_to(shutter, length)[:, None] if axis == 0 else shutter
    return image * lit


def _letter(rng, image: Image.Image) -> None:
    """Stamp the marker of the patient's right side, most often; rarely one on the left."""
    left = rng.random() < 0.1
    x = rng.uniform(0.88, 0.94) if left else rng.uniform(0.02, 0.1)
    where = (x * image.width, rng.uniform(0.03, 0.5) * image.height)
    if rng.random() < 0.85:
        size = image.width * rng.uniform(0.045, 0.075)
        ImageDraw.Draw(image).text(where, "L" if left else "R", fill=rng.uniform(200, 250), font_size=size)
