"""A child's chest as a projection: soft tissue, air and bone as optical depths, added up along the ray."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from helpers.phantom.geometry import View, bone, capsule, chord, edge, ellipsoid, ink, noise, project, resize, tube

FINDINGS = ("normal", "bacteria", "virus")

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
_BACTERIAL, _VIRAL = (0.7, 1.0), (0.85, 1.0)  # least and most air that an opacity takes away, as a share


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


def _wall(y):
    """Half-width of the lungs' outline at height y."""
    share = np.clip((y - _APEX) / (1.5 - _APEX), 0, 1)
    return np.sqrt(1 - (1 - share) ** 2.1) + 1e-3


def _arm(view: View, side: int) -> tuple[tuple[float, float], tuple[float, float]]:
    return (side * 1.13, 0.08), (side * (1.13 + 1.4 * math.cos(view.arms)), 0.08 + 1.4 * math.sin(view.arms))


def body(view: View, patient: Patient) -> np.ndarray:
    """Thickness of the body along the ray, air and all."""
    x, y = view.x[::2, ::2], view.y[::2, ::2]
    half = _wall(np.maximum(y, 0.3)) + patient.fat + 0.08
    thick = (2 * (patient.depth + 0.4 * patient.fat) * chord((x / half) ** 2) * edge(y - 0.05, 0.7)) ** 2
    parts = [(0.9, (0.0, -0.9), (0.0, 0.3), 0.34), (1.3, (0.0, view.head - 0.3), (0.0, view.head), 0.5)]
    for side in (-1, 1):
        shoulder, hand = _arm(view, side)
        parts += [(0.6, (side * 0.1, 0.0), shoulder, 0.27), (0.55, shoulder, hand, 0.26)]
        parts += [(0.5, shoulder, (side * 1.0, 0.75), 0.2), (0.5, (side * 0.2, -0.4), (side * 0.85, 0.0), 0.2)]
    for deep, start, end, radius in parts:
        thick += (deep * capsule(x, y, start, end, radius)) ** 2
    return resize(np.sqrt(thick), view.x.shape, Image.Resampling.BILINEAR)


def lungs(view: View, patient: Patient) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Air along the ray, and where in its lung each pixel lies: share u of the width, share v of the height."""
    x, y = view.x - 0.1 * view.yaw, view.y
    u = np.abs(x) / _wall(y)
    out = np.abs(x) - 0.42
    floor = view.dome + np.where(x > 0, 0.06, 0).astype(np.float32) + np.where(out > 0, 0.9, 0.3) * out**2
    v = ((y - _APEX) / (floor - _APEX)).astype(np.float32)
    chest = 2 * (patient.depth - 0.1) * chord(u**2)
    chest *= 0.86 * edge(floor - y, 0.035) + 0.14 * edge(floor + 0.1 - y, 0.35)
    front, low = 0.3 * view.yaw, view.dome - 0.28
    waist = np.interp(y, (-0.1, 0.25, 0.7, 1.3), (0.27, 0.2, 0.2, 0.23)).astype(np.float32)
    sail = ellipsoid(view, front - 0.1, 0.36, 0.16 + 0.3 * patient.thymus, 0.36) * edge(0.6 - 0.2 * x - y, 0.03)
    solid = (
        1.05 * chord(((x - front) / waist) ** 2),
        1.1 * ellipsoid(view, front + 0.14, low, patient.heart + 0.14, 0.4, patient.apex),
        0.95 * ellipsoid(view, front - 0.08, low - 0.04, 0.27, 0.46),
        0.9 * ellipsoid(view, front + 0.15, 0.36, 0.13, 0.13),
        0.9 * ellipsoid(view, front + 0.15, low - 0.3, 0.24, 0.42, 0.3),
        0.6 * min(1.0, 2 * patient.thymus) * sail,
        0.16 * ellipsoid(view, -0.27, 0.68, 0.16, 0.2),
        0.16 * ellipsoid(view, 0.3, 0.62, 0.16, 0.18),
    )
    return np.maximum(chest - np.maximum.reduce(solid), 0), u, v


def gas(view: View, patient: Patient) -> np.ndarray:
    """Air outside the lungs: trachea, main bronchi, stomach and bowel."""
    rng = np.random.default_rng([patient.seed, 2])
    trunk = np.array([(0.01, -0.6, 0.1), (0.0, 0.1, 0.0), (-0.03, 0.46, -0.1)])
    shapes = [(tube(project(view, trunk), 0.05 * view.scale), 1.0)]
    for side in (-1, 1):
        shapes.append((tube(project(view, [trunk[-1], (side * 0.2, 0.64, -0.1)]), 0.035 * view.scale), 0.8))
    gas = 0.2 * ink(view, shapes, 0.012)
    gas += rng.uniform(0, 0.45) * ellipsoid(view, 0.4, view.dome + 0.27, rng.uniform(0.15, 0.3), 0.15, 0.25)
    for _ in range(rng.integers(4)):
        x, y = rng.uniform(-0.2, 0.8), view.dome + rng.uniform(0.4, 0.7)
        gas += rng.uniform(0.1, 0.25) * ellipsoid(view, x, y, rng.uniform(0.06, 0.14), 0.07, rng.uniform(-1, 1))
    return gas


def trees(view: View, patient: Patient) -> tuple[np.ndarray, ...]:
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
        lines = 2 * project(view, np.stack([start, bend, end], 1))
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


def bones(view: View, patient: Patient) -> np.ndarray:
    """Optical depth of ribs, spine, collar bones, shoulder blades and upper arms."""
    sides = np.array([-1.0, 1.0]).reshape(1, 2, 1)
    n = np.arange(12).reshape(-1, 1, 1)
    around = np.linspace(0.04, 0.84, 48) * np.pi
    root = -0.12 + patient.ribs * n * (0.8 + 0.02 * n)
    fall = patient.slope * (0.55 + 0.06 * n) * (around / np.pi) ** 1.2 - 0.06 * np.sin(around)
    wide = _wall(root + 0.3 * patient.slope) + 0.03
    lines = np.broadcast_arrays(sides * wide * np.sin(around), root + fall, -patient.depth * wide * np.cos(around))
    ribs = project(view, np.stack(lines, -1))
    back = bone(ribs[:, :, :29], 0.036 * view.scale, 0.65)
    front = bone(ribs[:8, :, 27:], np.linspace(0.035, 0.045, 21) * view.scale, 0.6)

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
        spine += [(body, value) for body in project(view, np.stack(outline, -1))]

    girdle, blades = [], []
    t = np.linspace(0, 1, 20)
    for side in (-1, 1):
        collar = (side * (0.12 + 0.9 * t), 0.07 - 0.15 * t - 0.04 * np.sin(2 * np.pi * t), 0.35 - 0.4 * t)
        (x0, y0), (x1, y1) = _arm(view, side)
        arm = (x0 + (x1 - x0) * t, y0 + (y1 - y0) * t, 0 * t)
        girdle += bone(project(view, np.stack(arm, -1)), (0.06 + 0.04 * np.exp(-9 * t)) * view.scale, 0.6)
        girdle += bone(project(view, np.stack(collar, -1)), (0.033 + 0.03 * np.abs(t - 0.5)) * view.scale, 0.6)
        corners = [(1.05, 0.06), (1.0, 0.25), (0.9, 0.74), (0.83, 0.7), (0.74, 0.25), (0.8, 0.02)]
        blade = np.column_stack([np.multiply(corners, (side, 1)), np.full(6, -0.5)])
        core = blade.mean(0) + 0.86 * (blade - blade.mean(0))
        blades += [(project(view, blade), 1.0), (project(view, core), 0.3)]
    tangent = 1 + 0.6 * np.minimum(np.abs(view.x), 1) ** 6
    depth = tangent * (0.36 * ink(view, back) + 0.17 * ink(view, front)) + 0.24 * ink(view, spine, 0.006)
    return patient.bone * (depth + 0.36 * ink(view, girdle) + 0.14 * ink(view, blades, 0.006))


def opacity(rng, finding: str, view: View, patient: Patient, air, u, v) -> np.ndarray:
    """The share 0-1 of the air that the finding takes away, at pixels that lie at `u` and `v` of their lung."""
    place = np.random.default_rng([patient.seed, 1])  # of the patient: the same on all films
    side = np.sign(view.x)
    if finding == "virus":
        ridges = np.clip(1 - 2.0 * np.abs(noise(rng, air.shape, 60)), 0, 1)
        ridges = ridges + np.clip(1 - 2.5 * np.abs(noise(rng, air.shape, 30)), 0, 1)
        weight = np.zeros_like(air)
        for _ in range(place.integers(2, 4)):
            where, cu, cv, reach = place.choice([-1, 1]), *place.uniform((0.36, 0.15, 0.23), (0.8, 0.9, 0.33))
            patch = np.exp(-(((u - cu) / reach) ** 2) - ((v - cv) / (0.8 * reach)) ** 2) * edge(side * where, 0.1)
            weight = np.maximum(weight, patch)
        weight = weight * (1 + 0.35 * noise(rng, air.shape, 7))
        return np.clip(rng.uniform(*_VIRAL) * weight * (0.4 + 0.6 * ridges), 0, 0.9)
    if finding == "focus" or place.random() < 0.8:
        lobe = (place.choice([-1, 1]), place.uniform(0.36, 0.8), place.uniform(0.15, 0.9), 0.4, 0.25, 0, 0.0)
    else:
        lobe = _LOBES[place.integers(len(_LOBES))]
    where, cu, cv, ru, rv, keep, fissure = lobe
    grow = place.uniform(0.95, 1.25)
    shape = 1 - ((u - cu - place.normal(0, 0.05)) / (ru * grow)) ** 2 - ((v - cv) / (rv * grow)) ** 2
    patchy = shape + 0.4 * noise(rng, air.shape, 9) + 0.2 * noise(rng, air.shape, 25)
    cover = edge(patchy - 0.25, 1.1) * edge(side * where, 0.1)
    if keep:
        cover = cover * edge(keep * (fissure + 0.08 * (u - 0.5) - v), 0.03)
    return np.clip(rng.uniform(*_BACTERIAL) * cover, 0, 0.95)
