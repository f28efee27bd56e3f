"""Metrics of probabilities against the truth, for one dataset or many resamples of it at once.

Everywhere below `labels` is a 1-D array of bool or 0/1, True for pneumonia, `probabilities` a 1-D array of P(pneumonia)
in [0, 1] in the same order, and an image is called positive when probability >= threshold. What cannot be used (empty,
of unequal length, NaN, out of range) raises config.InputError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from helpers.config import InputError

METRICS: tuple[str, ...] = ("auc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
METRICS += ("precision", "npv", "f1", "brier", "ece")

Values = dict[str, float | Any]  # or None where undefined: Any, since callers know where


def checked(
    labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5, what: str = "probabilities"
) -> tuple[np.ndarray, np.ndarray]:
    """`labels` as bool and `scores` as float64, both (n,), n > 0; InputError, which calls the scores `what`, else."""
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or not labels.size or scores.shape != labels.shape:
        raise InputError(f"labels of shape {labels.shape} and {what} of shape {scores.shape} are not one per image.")
    if not np.isin(labels, (0, 1)).all():
        raise InputError("labels must be 0 or 1 (or False and True), with 1 for pneumonia.")
    if np.isnan(threshold):
        raise InputError("the threshold is NaN; choose one on validation, or use 0.5.")
    bad = ~np.isfinite(scores) | ((what == "probabilities") & ((scores < 0) | (scores > 1)))
    if bad.any():
        raise InputError(
            f"{bad.sum()} of {bad.size} {what} cannot be used (the first is {scores[bad][0]}); "
            "where training diverged, train again with a lower rate."
        )
    return labels.astype(bool), scores


def _bins(probabilities: np.ndarray) -> np.ndarray:
    return np.digitize(probabilities, np.arange(1, 10) / 10)


def weighted(positive: np.ndarray, probability: np.ndarray, threshold: float, weights: np.ndarray) -> dict:
    """METRICS -> float (r,), NaN where undefined, of r resamples that hold each image `weights` times, int (r, n).

    The images must be in ascending order of `probability`. Besides, "gaps", float (r, bins that hold an image): what a
    bin adds to the ECE, with its sign.
    """
    pos, neg, total = weights * positive, weights * ~positive, weights.sum(axis=1)
    cut = np.searchsorted(probability, threshold)  # from here on the images are called positive
    tp, fp = pos[:, cut:].sum(axis=1), neg[:, cut:].sum(axis=1)
    fn, tn = pos[:, :cut].sum(axis=1), neg[:, :cut].sum(axis=1)
    steps = np.unique(probability, return_index=True)[1]  # equal scores are one step of either curve
    pos_at, neg_at = np.add.reduceat(pos, steps, axis=1), np.add.reduceat(neg, steps, axis=1)
    won_twice = (pos_at * (2 * neg_at.cumsum(axis=1) - neg_at)).sum(axis=1)
    tp_from = pos_at[:, ::-1].cumsum(axis=1)[:, ::-1]
    called_from = (pos_at + neg_at)[:, ::-1].cumsum(axis=1)[:, ::-1]
    precisions = (pos_at * (tp_from / np.maximum(called_from, 1))).sum(axis=1)
    error = weights * (probability - positive)
    edges = np.unique(_bins(probability), return_index=True)[1]
    gaps = np.add.reduceat(error, edges, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        return {
            "auc": won_twice / (2 * (tp + fn) * (tn + fp)),
            "average_precision": np.where(tn + fp > 0, precisions / (tp + fn), np.nan),
            "accuracy": (tp + tn) / total,
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "precision": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "brier": (error * (probability - positive)).sum(axis=1) / total,
            "ece": np.abs(gaps).sum(axis=1) / total,
            "gaps": gaps / total[:, None],
        }


def number(value: float) -> float | None:
    """`value`, or None where it is NaN or infinite: as JSON has it."""
    return float(value) if np.isfinite(value) else None


def measure(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> Values:
    """Every metric of these images.

    Parameters
    ----------
    labels : array of bool or 0/1, shape (n,)
        True where the image shows pneumonia.
    probabilities : array of float in [0, 1], shape (n,)
        P(pneumonia), in the same order.
    threshold : float
        An image is called positive from this probability on.

    Returns
    -------
    dict
        Each of METRICS -> its value in [0, 1], or None where it is undefined: auc and average_precision (scikit-learn's
        definitions) need both classes, sensitivity an image with pneumonia, specificity one without, precision a
        positive call, npv a negative one. brier is the mean squared error of the probability, ece its expected
        calibration error in ten bins of equal width.

    Raises
    ------
    InputError
        Where labels, probabilities or threshold cannot be used.

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review 78. Naeini, Cooper
    and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning, AAAI.

    Examples
    --------
    >>> found = measure([0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.9], threshold=0.65)
    >>> round(found["auc"], 3), round(found["sensitivity"], 3), found["specificity"]
    (0.889, 0.667, 1.0)
    """
    positive, probabilities = checked(labels, probabilities, threshold)
    order = np.lexsort((positive, probabilities))
    once = np.ones((1, order.size), dtype=np.int64)
    values = weighted(positive[order], probabilities[order], threshold, once)
    return {name: number(values[name][0]) for name in METRICS}
