"""Images that are no chest X-rays, from installed packages: the out-of-distribution check must stop them."""

from __future__ import annotations

import numpy as np
from matplotlib import cbook
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_images

SIDE = 224


def photographs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Crops of three photographs: a temple, a flower, a portrait."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        pictures = [*load_sample_images().images, np.asarray(Image.open(file))]
    crops = []
    for number in range(count):
        grey = Image.fromarray(pictures[number % 3]).convert("L")
        side = int(min(grey.size) * rng.uniform(0.3, 1))
        left, top = (rng.integers(0, length - side + 1) for length in grey.size)
        crops.append(np.asarray(grey.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))))
    return np.stack(crops)


def text(count: int, rng: np.random.Generator) -> np.ndarray:
    """Printed pages of random words."""
    pages = []
    for _ in range(count):
        page, top = Image.new("L", (600, 800), 255), 40
        while top < 760:
            words = ("".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(14))
            ImageDraw.Draw(page).text((40, top), " ".join(words), fill=0)
            top += int(rng.choice([14, 14, 28]))
        pages.append(np.asarray(page.resize((SIDE, SIDE))))
    return np.stack(pages)


def hands(count: int, rng: np.random.Generator) -> np.ndarray:
    """Drawings after X-rays of a hand: a palm and five fingers with bones in them, on black."""
    drawn = []
    for _ in range(count):
        film = Image.new("L", (SIDE, SIDE), 10)
        pen, centre, width = ImageDraw.Draw(film), 112 + rng.integers(-20, 20), rng.integers(45, 65)
        pen.ellipse((centre - width, 120, centre + width, 215), fill=90)
        for finger in range(5):
            angle, length = -1.0 + 0.45 * finger + rng.uniform(-0.1, 0.1), rng.integers(70, 110)
            x, y = centre + np.sin(angle) * width * 0.8, 150 - np.cos(angle) * 20
            bone = (x, y, x + np.sin(angle) * length * 0.8, y - np.cos(angle) * length)
            pen.line(bone, fill=90, width=24)
            pen.line(bone, fill=190, width=10)
        drawn.append(np.asarray(film.filter(ImageFilter.GaussianBlur(2)).rotate(float(rng.uniform(-20, 20)))))
    return np.stack(drawn)


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Half white noise, half noise whose waves are the stronger the longer they are."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = 1
    made = []
    for number in range(count):
        wave = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / frequency ** (number % 2)
        grey = np.fft.ifft2(wave).real
        made.append(255 * (grey - grey.min()) / np.ptp(grey))
    return np.stack(made).astype(np.uint8)


def plain(count: int, rng: np.random.Generator) -> np.ndarray:
    """Half of one grey, half a ramp in some direction."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    made = []
    for number in range(count):
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * columns + np.sin(angle) * rows
        ramp = 255 * (ramp - ramp.min()) / np.ptp(ramp)
        made.append(ramp if number % 2 else np.full((SIDE, SIDE), rng.integers(256)))
    return np.stack(made).astype(np.uint8)


KINDS = {"photographs": photographs, "pages of text": text, "hands": hands, "noise": noise, "empty or a ramp": plain}
