"""What validation images say of a classifier: its figures, its logits under augmentation, and what is unlike them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from helpers import model
from helpers.config import InputError, Settings
from helpers.training import augmentation
from helpers.training.resumable import Validate

LEAST_CROP = 0.5  # of a validation image, by area: 15% cut from each side


def predict_rows(network: keras.Model, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The network's output for `rows` of the image cache, float32 (n, outputs), in order."""
    return network.predict(augmentation.viewed_batches(images, rows), verbose=0)


def predict_logits(classifier: keras.Model, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The classifier's logits for `rows` of the image cache, float64 (n,), in order."""
    if not len(rows):
        return np.empty(0)
    return predict_rows(model.logit_model(classifier), images, rows)[:, 0].astype(np.float64)


def augmented_validation_batches(images: np.ndarray, rows: np.ndarray, settings: Settings) -> tf.data.Dataset:
    """Batches of `rows` as they are, then under each of `validation_views` draws of the training augmentation.

    View after view, each in the order of `rows`. Images of another collection differ from validation as augmented ones
    do: in sharpness, greys, noise and geometry. Training may learn from crops that miss the opacity; these leave at
    least LEAST_CROP of an image.
    """
    settings = replace(settings, crop_area=max(settings.crop_area, LEAST_CROP))
    data = augmentation.viewed_batches(images, rows)
    for view in range(settings.validation_views):
        rng = np.random.default_rng([settings.seed, 1, view])
        change = augmentation.draw_augmentation(settings, len(rows), rng)
        data = data.concatenate(augmentation.viewed_batches(images, rows, change, settings))
    return data


def augmented_validation_logits(
    classifier: keras.Model, images: np.ndarray, rows: np.ndarray, settings: Settings
) -> np.ndarray:
    """Logits of `augmented_validation_batches`, float64 (n * (1 + views),)."""
    logits = model.logit_model(classifier).predict(augmented_validation_batches(images, rows, settings), verbose=0)
    return logits[:, 0].astype(np.float64)


def fit_ood_check(
    classifier: keras.Model, images: np.ndarray, train: np.ndarray, validation: np.ndarray, settings: Settings
) -> model.ood.OodCheck:
    """The out-of-distribution check of `classifier`, learnt from the rows `train` of the image cache.

    Its limits let 99% of the rows `validation` pass. Thumbnails are of the images as they are. Features also need
    the views of `augmented_validation_batches`, in learning and for the limit, and are left out without any: those of
    plain images tell one JPEG compression from another, so that all published originals, resized here, would be out of
    distribution.
    """
    films = [images[row] for row in train[:: -(-len(train) // model.ood.MOST)]]
    held_out = [images[row] for row in validation]
    if not settings.validation_views:
        return model.ood.fit(films, held_out)
    network, some = model.ood.feature_model(classifier), train[:: -(-4 * len(train) // model.ood.MOST)]
    seen = (
        network.predict(augmented_validation_batches(images, rows, settings), verbose=0) for rows in (some, validation)
    )
    return model.ood.fit(films, held_out, *seen)


def binary_validation(data: Callable[[], tf.data.Dataset], labels: np.ndarray, weights: np.ndarray) -> Validate:
    """Figures of a binary classifier on what `data()` gives: val_loss and val_auc.

    val_loss is the weighted cross-entropy after calibration on the same images (slope and intercept of the logit),
    since calibration follows anyway: training on smoothed labels and strongly augmented images shifts all
    probabilities from epoch to epoch, which says nothing about how well they tell the classes apart. A ranking no
    better than chance gets the loss of saying the same of every image. InputError where training has diverged.
    """

    def validate(network: keras.Model) -> dict[str, float]:
        probability = np.clip(network.predict(data(), verbose=0)[:, 0].astype(np.float64), 1e-7, 1 - 1e-7)
        if not np.isfinite(probability).all():
            raise InputError("training diverged: the model answers NaN; train again with a lower rate.")
        logit = np.log(probability / (1 - probability))[:, None]
        calibration = LogisticRegression(C=1e3).fit(logit, labels, weights)
        calibrated = calibration.predict_proba(logit)[:, 1]
        if calibration.coef_[0, 0] <= 0:
            calibrated = np.full(len(labels), np.average(labels, weights=weights))
        return {
            "val_loss": float(log_loss(labels, calibrated, sample_weight=weights)),
            "val_auc": float(roc_auc_score(labels, probability)),
        }

    return validate
