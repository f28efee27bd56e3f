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
    """Compute the output of a network for some images.

    Parameters
    ----------
    network : keras.Model
        From pixels (n, size, size, 1), 0-255, to one vector an image.
    images : array of uint8, shape (m, size, size)
        The image cache: grey pixels, 0-255.
    rows : array of int, shape (n,)
        Which of them; at least one.

    Returns
    -------
    array of float32, shape (n, outputs)
        In the order of `rows`.
    """
    return network.predict(augmentation.viewed_batches(images, rows), verbose=0)


def predict_logits(classifier: keras.Model, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Compute the logits of a classifier for some images, as they are.

    Parameters
    ----------
    classifier : keras.Model
        With the layer "logit" before its sigmoid.
    images : array of uint8, shape (m, size, size)
        The image cache: grey pixels, 0-255.
    rows : array of int, shape (n,)
        Which of them; none is possible, too.

    Returns
    -------
    array of float64, shape (n,)
        Uncalibrated, in the order of `rows`.
    """
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
    """Compute the logits of validation images as they are, and under draws of the training augmentation.

    The batches are those of `augmented_validation_batches`. They get no frames (setting `frame`).

    Parameters
    ----------
    classifier : keras.Model
        With the layer "logit" before its sigmoid.
    images : array of uint8, shape (m, size, size)
        The image cache: grey pixels, 0-255.
    rows : array of int, shape (n,)
        The validation images; at least one.
    settings : Settings
        `validation_views` (0: none), `seed`, and the augmentation. A crop leaves at least half of an image, by area.

    Returns
    -------
    array of float64, shape (n * (1 + validation_views),)
        Uncalibrated: the images as they are, then view after view, each in the order of `rows`.
    """
    logits = model.logit_model(classifier).predict(augmented_validation_batches(images, rows, settings), verbose=0)
    return logits[:, 0].astype(np.float64)


def fit_ood_check(
    classifier: keras.Model, images: np.ndarray, train: np.ndarray, validation: np.ndarray, settings: Settings
) -> model.ood.OodCheck:
    """Fit the out-of-distribution check of a classifier to training images, and its limits to validation images.

    Thumbnails are of the images as they are. Features also need the views of `augmented_validation_batches`, in
    learning and for the limit, and are left out without any: those of plain images tell one JPEG compression from
    another, so that all published originals, resized here, would be out of distribution.

    Parameters
    ----------
    classifier : keras.Model
        Its middle layers give the features.
    images : array of uint8, shape (m, size, size)
        The image cache: grey pixels, 0-255.
    train : array of int, shape (n,)
        Rows to learn from, at least 4. Evenly chosen, at most 2,000 count for thumbnails and 500 for features.
    validation : array of int, shape (k,)
        Rows that set the limits.
    settings : Settings
        `validation_views` (0: no features), `seed`, and the augmentation.

    Returns
    -------
    model.ood.OodCheck
        Without features, its one limit lets at least 99% of the rows `validation` pass. With features, each of the two
        limits lets at least 99.5% pass: that of thumbnails of the rows as they are, that of features of plain and
        augmented images.

    References
    ----------
    Turk and Pentland (1991), Eigenfaces for recognition, Journal of Cognitive Neuroscience 3. Lee et al. (2018), A
    simple unified framework for detecting out-of-distribution samples and adversarial attacks, NeurIPS.
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


def calibrated_loss(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> float:
    """The weighted cross-entropy of `logits` (n,) after calibration (slope and intercept) on the same images.

    A ranking no better than chance gets the loss of saying the same of every image.
    """
    calibration = LogisticRegression(C=1e3).fit(logits[:, None], labels, weights)
    calibrated = calibration.predict_proba(logits[:, None])[:, 1]
    if calibration.coef_[0, 0] <= 0:
        calibrated = np.full(len(labels), np.average(labels, weights=weights))
    return float(log_loss(labels, calibrated, sample_weight=weights))


def binary_validation(data: Callable[[], tf.data.Dataset], labels: np.ndarray, weights: np.ndarray) -> Validate:
    """Figures of a binary classifier on what `data()` gives: val_loss and val_auc.

    val_loss is the `calibrated_loss`, since calibration follows anyway: training on smoothed labels and strongly
    augmented images shifts all probabilities from epoch to epoch, which says nothing about how well they tell the
    classes apart. InputError where training has diverged.
    """

    def validate(network: keras.Model) -> dict[str, float]:
        probability = np.clip(network.predict(data(), verbose=0)[:, 0].astype(np.float64), 1e-7, 1 - 1e-7)
        if not np.isfinite(probability).all():
            raise InputError("training diverged: the model answers NaN; train again with a lower rate.")
        return {
            "val_loss": calibrated_loss(labels, np.log(probability / (1 - probability)), weights),
            "val_auc": float(roc_auc_score(labels, probability)),
        }

    return validate
