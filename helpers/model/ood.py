"""The out-of-distribution check: does an image look like those a model was made for?

Two views of an image are compared with the training images: a small, standardised copy, and features of the model's
middle layers. Each spans a space of few dimensions (principal components; of thumbnails, as in Turk and Pentland 1991,
Eigenfaces; of features, with a Mahalanobis distance as in Lee et al. 2018). A photograph, a page, a hand or an empty
image lies off one of the spaces, or on it at an impossible place. A film that is upside down lies nearer to the
thumbnails' space when turned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from helpers import storage

FILE = "guard.npz"
FALSE_ALARMS = 0.01
USUAL = 0.95  # of training images have a usual frame
_SIDE, _COMPONENTS = 32, 40
MOST = 2000  # training images that are learnt from: more of them cost memory and change little

Films = Collection[np.ndarray]  # uint8 (height, width) each, of any size


class Space(NamedTuple):
    """Where training images lie; `limit` is the score above which another one does not belong to them."""

    mean: np.ndarray  # float32 (d,)
    components: np.ndarray  # float32 (k, d)
    variance: np.ndarray  # float32 (k,): along each component
    centre: np.ndarray  # float32 (2,): usual log distance from the space, and within it
    precision: np.ndarray  # float32 (2, 2): inverse covariance of these two
    limit: np.ndarray | np.float32

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """float64 (n, 2): logarithm of the squared distance from the space, and of that within it (Mahalanobis)."""
        centred = vectors - self.mean
        inside = centred @ self.components.T
        off = np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0)
        return np.log(np.stack([off + 1, (inside**2 / self.variance).sum(axis=1) + 1e-3], axis=1))

    def scores(self, distances: np.ndarray) -> np.ndarray:
        """float64 (n,), 0 and up: how unusual such `distances` are."""
        unusual = distances - self.centre
        return np.einsum("ni,ij,nj->n", unusual, self.precision, unusual)

    def outside(self, distances: np.ndarray) -> np.ndarray:
        """bool (n,): which score above the limit."""
        return self.scores(distances).astype(np.float32) > self.limit


def _fit(train: np.ndarray, validation: np.ndarray, false_alarms: float) -> Space:
    pca = PCA(min(_COMPONENTS, len(train) // 2, train.shape[1]), svd_solver="covariance_eigh").fit(train)
    parts = (part.astype(np.float32) for part in (pca.mean_, pca.components_, pca.explained_variance_ + 1e-6))
    space = Space._make([*parts, np.zeros(2), np.eye(2), np.float32(np.inf)])
    distances = space.distances(train)
    spread = np.cov(distances.T) + 1e-6 * np.eye(2)
    centre, precision = distances.mean(axis=0).astype(np.float32), np.linalg.inv(spread).astype(np.float32)
    space = space._replace(centre=centre, precision=precision)
    known = space.scores(space.distances(validation if len(validation) else train))
    return space._replace(limit=np.float32(np.quantile(known, 1 - false_alarms, method="higher")))


class OodCheck(NamedTuple):
    """What the training images look like, as thumbnails and, but in older model folders, to the model."""

    thumbnails: Space
    features: Space | None = None
    usual: np.ndarray | np.float32 = np.float32(np.inf)  # thumbnails' score up to which a frame is usual

    def judge(self, pixels: Films, features: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """bool (n,) twice: which of `pixels` are out of distribution, and which are upside down.

        `pixels` are n of uint8 (height, width), `features` float32 (n, d) what `feature_model` makes of them. Upside
        down are those whose thumbnails lie nearer to the training images' with top and bottom swapped, and pass then.
        They are among the former, as is what scores above a limit.
        """
        here, swapped = (
            self.thumbnails.distances(thumbnails(some)) for some in (pixels, [one[::-1] for one in pixels])
        )
        upside_down = (swapped[:, 0] < here[:, 0]) & ~self.thumbnails.outside(swapped)
        out = self.thumbnails.outside(here) | upside_down
        if self.features and features is not None:
            out |= self.features.outside(self.features.distances(features))
        return out, upside_down

    def unusual_frames(self, pixels: Films) -> np.ndarray:
        """bool (n,): whose thumbnails are unlike most training images', as they are where a film is cut or tilted."""
        return self.thumbnails.scores(self.thumbnails.distances(thumbnails(pixels))) > self.usual


def thumbnails(pixels: Films) -> np.ndarray:
    """float64 (n, 1024) of n images uint8 (height, width), each with mean 0 and deviation 1, unless nearly uniform."""
    small = [Image.fromarray(one).resize((_SIDE, _SIDE), Image.Resampling.BOX) for one in pixels]
    flat = np.stack([np.asarray(one, np.float64).ravel() for one in small])
    return (flat - flat.mean(axis=1, keepdims=True)) / np.maximum(flat.std(axis=1, keepdims=True), 8)


def feature_maps(classifier: keras.Model) -> list[keras.KerasTensor]:
    """The last feature map of each size between a third and a twentieth of the image's: 56, 28 and 14 of 224 pixels.

    A network without any gives the map that it pools.
    """
    size, found = classifier.input_shape[1], {}
    maps = [layer.output for layer in classifier.layers if len(getattr(layer.output, "shape", ())) == 4]
    for one in maps:
        if size / 20 < one.shape[1] < size / 3:
            found[one.shape[1]] = one
    return list(found.values()) or [classifier.get_layer("pooling").input]


def features(classifier: keras.Model) -> keras.KerasTensor:
    """What the check sees of an image, (n, d): mean and deviation of each channel of `feature_maps` over its positions.

    The last layers know only what tells the classes apart. A hand and a chest may be alike to them.
    """
    maps = [keras.ops.cast(one, "float32") for one in feature_maps(classifier)]
    return keras.ops.concatenate([of(one, axis=(1, 2)) for one in maps for of in (keras.ops.mean, keras.ops.std)], 1)


def feature_model(classifier: keras.Model) -> keras.Model:
    """`classifier` up to its `features`: pixels to float32 (n, d)."""
    return keras.Model(classifier.inputs[0], features(classifier))


def fit(
    train: Sequence[np.ndarray],
    validation: Sequence[np.ndarray],
    train_features: np.ndarray | None = None,
    validation_features: np.ndarray | None = None,
) -> OodCheck:
    """Learn from `train`, at least 4 of uint8 (height, width), evenly; the limits let 99% of `validation` pass.

    With features (float32 (n, d), of `feature_model`), each of the two limits lets 99.5% pass.
    """
    small = thumbnails(train[:: -(-len(train) // MOST)])
    allowed = FALSE_ALARMS / (1 if train_features is None else 2)
    held_out = thumbnails(validation) if len(validation) else np.empty((0, _SIDE**2))
    space = _fit(small, held_out, allowed)
    usual = np.float32(np.quantile(space.scores(space.distances(small)), USUAL))
    if train_features is None or validation_features is None:
        return OodCheck(space, None, usual)
    return OodCheck(space, _fit(train_features.astype(np.float64), validation_features, allowed), usual)


def save(check: OodCheck, folder: Path) -> None:
    """Write `folder`/guard.npz, aside and renamed."""
    aside, arrays = folder / "guard.part", check.thumbnails._asdict() | {"usual": check.usual}
    if check.features:
        arrays |= {f"maps_{name}": value for name, value in check.features._asdict().items()}
    with aside.open("wb") as file:
        np.savez(file, **arrays)
    storage.replace_file(aside, folder / FILE)


def load(folder: Path) -> OodCheck:
    """The check of a model folder; the caller has compared the checksum. Older ones know no such features."""
    with np.load(folder / FILE, allow_pickle=False) as stored:
        spaces = (Space(*(stored[prefix + name] for name in Space._fields)) for prefix in ("", "maps_"))
        check = OodCheck(next(spaces), next(spaces) if "maps_mean" in stored else None)
        return check._replace(usual=stored["usual"]) if "usual" in stored else check
