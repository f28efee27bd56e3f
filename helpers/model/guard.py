"""A guard at the door: does an image look like those a model was made for?

Radiographs of the chest resemble each other closely. Small, standardised copies of the training images span a space of
few dimensions (principal components, as in Turk and Pentland 1991, Eigenfaces); a photograph, a page, a hand or an
empty image lies off it, or on it at an impossible place. A film that is upside down lies nearer to it when turned. The
guard looks at the picture alone, not at the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from helpers import storage

FILE = "guard.npz"
FALSE_ALARMS = 0.01
_SIDE, _COMPONENTS = 32, 40
_MOST = 2000  # training images that are learnt from: more of them cost memory and change little


class Guard(NamedTuple):
    """What the training images look like; `limit` is the score above which an image does not belong to them."""

    mean: np.ndarray  # float32 (1024,)
    components: np.ndarray  # float32 (k, 1024)
    variance: np.ndarray  # float32 (k,): along each component
    centre: np.ndarray  # float32 (2,): usual log distance from the space, and within it
    precision: np.ndarray  # float32 (2, 2): inverse covariance of these two
    limit: np.ndarray  # float32 ()

    def scores(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """How unlike the training images each of `pixels`, n of uint8 (height, width), is: float64 (n,), 0 and up."""
        return self._scores(self._distances(pixels))

    def judge(self, pixels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """bool (n,) twice: which of `pixels` do not look like the training images, and which are upside down.

        Upside down are those that lie nearer to the training images with top and bottom swapped, and pass then. They
        are among the former, as is what scores above the limit.
        """
        here, swapped = self._distances(pixels), self._distances([one[::-1] for one in pixels])
        above, still_above = (self._scores(some).astype(np.float32) > self.limit for some in (here, swapped))
        upside_down = (swapped[:, 0] < here[:, 0]) & ~still_above
        return above | upside_down, upside_down

    def strangers(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """bool (n,): the first of `judge`."""
        return self.judge(pixels)[0]

    def _distances(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        return _distances(_thumbnails(pixels), self.mean, self.components, self.variance)

    def _scores(self, distances: np.ndarray) -> np.ndarray:
        unusual = distances - self.centre
        return np.einsum("ni,ij,nj->n", unusual, self.precision, unusual)


def _thumbnails(pixels: Sequence[np.ndarray]) -> np.ndarray:
    """float64 (n, 1024), each with mean 0 and deviation 1, unless nearly uniform."""
    small = [Image.fromarray(one).resize((_SIDE, _SIDE), Image.Resampling.BOX) for one in pixels]
    flat = np.stack([np.asarray(one, np.float64).ravel() for one in small])
    return (flat - flat.mean(axis=1, keepdims=True)) / np.maximum(flat.std(axis=1, keepdims=True), 8)


def _distances(flat: np.ndarray, mean: np.ndarray, components: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """float64 (n, 2): logarithm of the squared distance from the space, and of that within it (Mahalanobis)."""
    centred = flat - mean
    inside = centred @ components.T
    off = np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0)
    return np.log(np.stack([off + 1, (inside**2 / variance).sum(axis=1) + 1e-3], axis=1))


def fit(train: Sequence[np.ndarray], validation: Sequence[np.ndarray]) -> Guard:
    """Learn from `train`, at least 4 of uint8 (height, width), evenly; the limit lets 99% of `validation` pass."""
    flat = _thumbnails(train[:: -(-len(train) // _MOST)])
    pca = PCA(min(_COMPONENTS, len(flat) // 2), svd_solver="covariance_eigh").fit(flat)
    space = tuple(part.astype(np.float32) for part in (pca.mean_, pca.components_, pca.explained_variance_ + 1e-6))
    distances = _distances(flat, *space)
    spread = np.cov(distances.T) + 1e-6 * np.eye(2)
    centre, precision = distances.mean(axis=0).astype(np.float32), np.linalg.inv(spread).astype(np.float32)
    guard = Guard(*space, centre, precision, np.float32(np.inf))
    known = guard.scores(validation if len(validation) else train)
    return guard._replace(limit=np.float32(np.quantile(known, 1 - FALSE_ALARMS, method="higher")))


def save(guard: Guard, folder: Path) -> None:
    """Write `folder`/guard.npz, aside and renamed."""
    aside = folder / "guard.part"
    with aside.open("wb") as file:
        np.savez(file, **guard._asdict())
    storage.put(aside, folder / FILE)


def load(folder: Path) -> Guard:
    """The guard of a model folder; the caller has checked the checksum."""
    with np.load(folder / FILE, allow_pickle=False) as stored:
        return Guard(*(stored[name] for name in Guard._fields))
