"""From a chest to a film: the exposure, and how a hospital takes, marks and stores its films.

A film is a projection. Exposure, scatter, noise and the display's window make grey values of the optical depths that
`anatomy` adds up. The phantoms show that the code works. They say nothing about patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from helpers.phantom import anatomy
from helpers.phantom.anatomy import FINDINGS, Patient
from helpers.phantom.geometry import View, edge, ellipsoid, ink, noise, pose, project, soften, tube

_WORKING_WIDTH = 240  # pixels across, before the film is resized to its own size


@dataclass(frozen=True)
class Hospital:
    """How films are taken, marked and stored: the least and most of a range, or what holds of normal and of sick."""

    across: tuple[float, float]  # half-widths of the thorax that a film is wide
    scatter: tuple[float, float]
    dose: tuple[float, float]
    blur: tuple[float, float]  # pixels
    gamma: tuple[float, float]
    shutter: float  # mean width of the black border, as a share of the film; below 0 most have none
    quality: tuple[tuple[int, int], tuple[int, int]]  # of the JPEG: normal, sick
    marker: tuple[float, float]  # share of films with a letter at the edge: normal, sick
    letters: str = "R"  # one of these: R on the image's left, L on its right


ANY = Hospital(
    (2.5, 3.2), (0.1, 0.4), (3000, 20000), (0.3, 0.7), (0.75, 1.15), -0.02, ((60, 95),) * 2, (0.0, 0.0), "RL"
)
TRAIN = Hospital(
    (2.5, 3.0), (0.1, 0.3), (5000, 20000), (0.3, 0.6), (0.8, 1.1), -0.02, ((80, 96), (60, 84)), (0.045, 0.675)
)
TEST = Hospital((2.6, 3.1), (0.2, 0.4), (3000, 9000), (0.6, 1.0), (0.7, 1.0), 0.01, ((60, 80), (60, 80)), (0.3, 0.3))


def draw(
    rng: np.random.Generator,
    finding: str = "normal",
    patient: Patient | None = None,
    size: int | None = None,
    hospital: Hospital = ANY,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one film of `patient` (None: a new one): (uint8 grey image, bool mask of the opacity), both (h, w).

    Without `size` the film is 300 to 520 pixels wide and somewhat less high; with it, (size, size), squeezed as any
    film is when resized to a square. Films of one patient share anatomy and the place of the opacity, and differ in
    pose, exposure and severity. The mask is where the opacity adds over a third of the most it adds; all False when
    normal. Raises ValueError for a finding other than normal, bacteria and virus, and for a size below 16.
    """
    if finding not in FINDINGS:
        raise ValueError(f"finding {finding!r} is not one of {', '.join(FINDINGS)}")
    return film(rng, finding, patient, size, hospital)[:2]


def film(rng, finding: str, patient: Patient | None, size: int | None, hospital: Hospital = ANY):
    """`draw`, also for finding="focus" (a small consolidation anywhere); returns a mask of the letter, too."""
    if size is not None and size < 16:
        raise ValueError(f"size {size} is below 16 pixels")
    patient = patient or anatomy.make_patient(rng)
    width = int(rng.integers(300, 521))
    height = round(width / rng.uniform(1.02, 1.45))
    working = _WORKING_WIDTH if size is None else min(_WORKING_WIDTH, max(96, round(1.25 * size)))
    view = pose(rng, working, round(working * height / width), hospital.across)

    air, u, v = anatomy.lungs(view, patient)
    lung = air > 0.1
    opacity = np.zeros_like(air) if finding == "normal" else anatomy.opacity(rng, finding, view, patient, air, u, v)
    vessels, airways = anatomy.trees(view, patient)
    added = soften(air * opacity, working / 60)
    mask = (added > max(0.33 * added.max(), 1e-6)) & lung
    air = air * (1 - opacity * (1 - 0.4 * airways))
    depth = 1.7 * (anatomy.body(view, patient) - 0.78 * air) + 0.3 * patient.vessels * vessels * air
    depth = depth + anatomy.bones(view, patient) - anatomy.gas(view, patient)
    depth = depth * (1 + 0.03 * noise(rng, air.shape, 6)) + 0.04 * air * noise(rng, air.shape, 70)
    image = _collimate(rng, _expose(rng, depth + _overlays(rng, view), hospital), hospital.shutter)

    target = (size, size) if size else (width, height)
    resized = Image.fromarray(image).resize(target, Image.Resampling.BICUBIC).convert("L")
    letter = Image.new("L", target)
    if rng.random() < hospital.marker[finding != "normal"]:
        _mark(rng, letter, str(rng.choice(list(hospital.letters))))
        resized.paste(int(rng.integers(235, 256)), mask=letter)
    grey = np.asarray(resized)
    outline = np.asarray(Image.fromarray(mask).resize(target, Image.Resampling.NEAREST))
    return grey, outline, np.asarray(letter) > 127


def _overlays(rng, view: View) -> np.ndarray:
    """What lies over the chest of any child: folds and pads of soft tissue, sometimes a lead."""
    depth = np.zeros_like(view.x)
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.3, 0.3, 0.25, 0.15])):
        x, y, angle = rng.uniform((-0.8, 0.2, 0), (0.8, 1.3, 3)).tolist()
        pad = ellipsoid(view, x, y, rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5), angle)
        depth += rng.uniform(0.1, 0.35) * pad ** rng.uniform(1, 3)
    if rng.random() < 0.2:
        t = np.linspace(0, 1, 24)
        x0, x1, bend = rng.uniform(-1.2, 1.2), rng.uniform(-0.8, 0.8), rng.uniform(-0.5, 0.5)
        lead = (x0 + (x1 - x0) * t + bend * np.sin(np.pi * t), -0.6 + rng.uniform(0.8, 2.6) * t, 0 * t)
        line = project(view, np.stack(lead, -1))
        disc = line[-1] + 0.045 * view.scale * np.stack([np.cos(7 * t), np.sin(7 * t)], -1)
        depth += 0.25 * ink(view, [(tube(line, 0.009 * view.scale), 1.0), (disc, 1.0)])
    return depth


def _expose(rng, depth: np.ndarray, hospital: Hospital) -> np.ndarray:
    """Optical depth to display values, float32 0-255: bright tissue, dark air."""
    light, working = np.exp(-depth), depth.shape[1]
    light = light + rng.uniform(*hospital.scatter) * soften(light, working / 12) + 0.01
    dose = rng.uniform(*hospital.dose)
    light = np.maximum(light + np.sqrt(light / dose) * rng.standard_normal(light.shape, dtype=np.float32), 1e-3)
    film = gaussian_filter(-np.log(light), rng.uniform(*hospital.blur) * working / _WORKING_WIDTH)
    film = film - rng.uniform(0.2, 0.6) * soften(film, working / 7)
    low, high = np.percentile(film[::3, ::3], [rng.uniform(1, 10), rng.uniform(98, 99.8)])
    grey = np.clip((film - low) / (high - low), 0, 1.1) ** rng.uniform(*hospital.gamma)
    return (rng.uniform(0, 15) + rng.uniform(190, 235) * grey).astype(np.float32)


def _collimate(rng, image: np.ndarray, mean: float) -> np.ndarray:
    """Blacken what the shutters of the tube keep out: some border, on some films."""
    height, width = image.shape
    lit = np.ones_like(image)
    for axis, length in ((0, height), (1, width)):
        first, last = np.clip(rng.normal(mean, 0.025, 2), 0, 0.05) * length
        inside = np.arange(length)
        shutter = (edge(inside - first, 2) if first else 1) * (edge(length - 1 - last - inside, 2) if last else 1)
        lit *= np.broadcast_to(shutter, length)[:, None] if axis == 0 else shutter
    return image * lit


def _mark(rng, image: Image.Image, letter: str) -> None:
    """Write the letter of a side into a black `image`, in white, within the outer tenth at that side."""
    x = {"R": 0.01, "L": 0.91}[letter] + rng.uniform(0, 0.015)
    where = (x * image.width, rng.uniform(0.02, 0.4) * image.height)
    pen, bold = ImageDraw.Draw(image), round(image.width / 120)
    pen.text(where, letter, fill=255, font_size=0.1 * image.width, stroke_width=bold)
