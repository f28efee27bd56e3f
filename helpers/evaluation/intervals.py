"""95% intervals and paired differences of metrics, from resampling patients; docs/METHODS.md has the formulas.

`labels`, `probabilities` and `threshold` as in metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

from helpers.config import InputError
from helpers.evaluation.metrics import METRICS, Values, checked, number, weighted

Z = 1.96  # of 95% intervals


def _patient_numbers(patients: Iterable, images: int) -> np.ndarray:
    """For each image the number of its patient, int (n,); InputError where one is missing."""
    patient = pd.factorize(pd.Series(list(patients), dtype=object), sort=True)[0]
    if patient.size != images or (patient < 0).any():
        raise InputError(f"the {images} images need a patient each; some are missing.")
    return patient


def _times_drawn(patient: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is in each resample, int (<= 250, n): as many at once as memory holds with ease.

    Whole patients are drawn, as many as there are, with replacement; `patient` (n,) says whose each image is, from 0.
    """
    if resamples < 2:
        raise InputError(f"resamples={resamples} gives no interval; use 1000.")
    random, patients = np.random.default_rng(seed), patient.max() + 1
    for start in range(0, resamples, 250):
        rows = min(250, resamples - start)
        drawn = random.integers(patients, size=(rows, patients)) + patients * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, -1)[:, patient]


def logit_interval(value: float, error: float, patients: int) -> tuple[float, float]:
    """95% interval of a value in [0, 1] with the bootstrap standard error `error`, from `patients` independent units.

    logit(value) +- 1.96 error / (value (1 - value)): symmetric on the logit scale, so that it never leaves [0, 1].
    Where nothing varies (at 0 and 1 above all) there is no standard error: of patients unlike all seen there is then
    at most the proportion 1 - 0.025 ** (1 / patients), and their value is anything from 0 to 1.
    """
    if error < 1e-12 or not 0 < value < 1:
        unseen = 1 - 0.025 ** (1 / patients)
        return float(value * (1 - unseen)), float(value + unseen * (1 - value))
    half = Z * error / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))


def _least_ece(gaps: np.ndarray, drawn: np.ndarray) -> float:
    """Lower 95% bound of an ECE, the sum of |gap| over bins: of `gaps` (k,) with resamples `drawn` (r, k).

    Chance adds to every |gap|, so that resamples lie too high. This is the least ECE, of gaps in these proportions, of
    which one as large as found is no surprise (test inversion).
    """
    found, noise = np.abs(gaps).sum(), drawn - gaps

    def surplus(scale: float) -> float:
        return np.percentile(np.abs(scale * gaps + noise).sum(axis=1), 97.5) - found

    return 0.0 if surplus(0) >= 0 else found * (brentq(surplus, 0, 1) if surplus(1) > 0 else 1.0)


def estimates(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float, patients: Iterable, resamples: int, seed: int
) -> tuple[dict[str, Values], dict[str, np.ndarray], dict[str, int]]:
    """`bootstrap`'s result, the values (resamples,) of each metric that it rests on, and of how many patients it is.

    Of a metric of two groups, such as AUC, the smaller one counts.
    """
    positive, probabilities = checked(labels, probabilities, threshold)
    patient = _patient_numbers(patients, positive.size)
    order = np.lexsort((positive, patient, probabilities))  # the first two: equal bytes in any order of rows
    positive, probabilities, patient = positive[order], probabilities[order], patient[order]
    parts = [weighted(positive, probabilities, threshold, np.ones((1, order.size), dtype=np.int64))]
    parts += [weighted(positive, probabilities, threshold, w) for w in _times_drawn(patient, resamples, seed)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    called, everyone = probabilities >= threshold, np.ones_like(positive)
    about = {name: [everyone] for name in ("accuracy", "brier", "ece")}
    about |= {"sensitivity": [positive], "specificity": [~positive], "precision": [called], "npv": [~called]}
    result, fewest = {}, {}
    for name in METRICS:
        groups = [group for group in about.get(name, [positive, ~positive]) if group.any()]
        fewest[name] = min((len(np.unique(patient[group])) for group in groups), default=0)
        value, low, high = values[name][0], np.nan, np.nan
        drawn = values[name][1:][np.isfinite(values[name][1:])]
        if np.isfinite(value) and 2 * drawn.size >= resamples:
            low, high = logit_interval(value, drawn.std(), fewest[name])
            if name == "ece":
                low = min(low, _least_ece(values["gaps"][0], values["gaps"][1:]))
        result[name] = {"value": number(value), "low": number(low), "high": number(high)}
    return result, {name: drawn[1:] for name, drawn in values.items()}, fewest


def bootstrap(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float, patients: Iterable, resamples: int, seed: int
) -> dict[str, Values]:
    """Metrics with 95% intervals from resampling patients, whose images resemble each other (cluster bootstrap).

    Parameters
    ----------
    labels : array of bool or 0/1, shape (n,)
        True where the image shows pneumonia.
    probabilities : array of float in [0, 1], shape (n,)
        P(pneumonia), in the same order.
    threshold : float
        An image is called positive from this probability on. It is not chosen anew in a resample.
    patients : iterable, length n
        Whose each image is.
    resamples : int
        How many times as many patients as there are are drawn with replacement; at least 2, usually 1000.
    seed : int
        Of the draws. The result depends on nothing else, not on the order of the images either.

    Returns
    -------
    dict
        Each of METRICS -> {"value", "low", "high"}. The interval lies on the logit scale (`logit_interval`). That of
        the ECE reaches down further (test inversion), since chance adds to it. A resample that leaves a metric
        undefined does not count for it; where more than half do, low and high are None.

    Raises
    ------
    InputError
        Where labels, probabilities or threshold cannot be used, an image has no patient, or `resamples` is below 2.

    References
    ----------
    Efron and Tibshirani (1993), An introduction to the bootstrap. Field and Welsh (2007), Bootstrapping clustered
    data, JRSS B 69. Pepe (2003), The statistical evaluation of medical tests, 5.2.4 (AUC on the logit scale).
    Carpenter (1999), Test inversion bootstrap confidence intervals, JRSS B 61.

    Examples
    --------
    >>> labels, probabilities = [0, 0, 0, 1, 1, 1], [0.1, 0.3, 0.6, 0.4, 0.8, 0.9]
    >>> found = bootstrap(labels, probabilities, 0.5, range(6), resamples=1000, seed=1)
    >>> {name: round(number, 2) for name, number in found["auc"].items()}
    {'value': 0.89, 'low': 0.24, 'high': 1.0}
    """
    return estimates(labels, probabilities, threshold, patients, resamples, seed)[0]


def means_drawn(values: ArrayLike, patients: Iterable, resamples: int, seed: int) -> tuple[dict, np.ndarray, int]:
    """`mean_interval`'s result, the means (resamples,) that it rests on, and how many patients there are."""
    values = np.asarray(values, np.float64)
    patient = _patient_numbers(patients, values.size)
    if not values.size or not ((values >= 0) & (values <= 1)).all():
        raise InputError("a mean needs values from 0 to 1, one an image; leave NaN out.")
    drawn = [times @ values / times.sum(axis=1) for times in _times_drawn(patient, resamples, seed)]
    means, count = np.concatenate(drawn), int(patient.max()) + 1
    value = float(values.mean())
    low, high = logit_interval(value, means.std(), count)
    return {"value": value, "low": low, "high": high}, means, count


def mean_interval(values: ArrayLike, patients: Iterable, resamples: int, seed: int) -> dict[str, float]:
    """Mean of one value an image, with its 95% interval from resampling patients.

    Parameters
    ----------
    values : array of bool, or of float in [0, 1], shape (n,)
        Such as 1 for a hit and 0 for none.
    patients, resamples, seed
        As in `bootstrap`.

    Returns
    -------
    dict
        "value", "low" and "high", by `logit_interval`.

    Raises
    ------
    InputError
        Where there is no value, one is NaN or outside [0, 1], an image has no patient, or `resamples` is below 2.

    Examples
    --------
    >>> mean_interval([1] * 20, range(20), resamples=1000, seed=1)  # of 20 patients, 0.025 ** (1 / 20)
    {'value': 1.0, 'low': 0.831..., 'high': 1.0}
    """
    return means_drawn(values, patients, resamples, seed)[0]


def predictive_values(sensitivity: dict, specificity: dict, prevalence: float) -> tuple[dict, dict]:
    """Precision and NPV where pneumonia is as common as `prevalence`, with 95% intervals.

    Parameters
    ----------
    sensitivity, specificity : dict
        "value", "low" and "high" each, as from `bootstrap`; of different patients, so independent.
    prevalence : float in (0, 1)
        Proportion of pneumonia, taken as known.

    Returns
    -------
    tuple of two dicts
        "value", "low" and "high" of precision and of NPV, by Bayes' theorem. Precision is None where there are no
        positive calls, NPV where there are no negative ones, both where a rate is.

    References
    ----------
    Donner and Zou (2012), Closed-form confidence intervals for functions of the normal mean and standard deviation,
    Statistical Methods in Medical Research 21 (MOVER for a ratio).

    Examples
    --------
    >>> rate = {"value": 0.9, "low": 0.8, "high": 0.95}
    >>> precision, npv = predictive_values(rate, rate, prevalence=0.1)
    >>> {name: round(number, 3) for name, number in precision.items()}
    {'value': 0.5, 'low': 0.331, 'high': 0.667}
    """
    found, spared = ([metric[end] for end in ("value", "low", "high")] for metric in (sensitivity, specificity))
    result, odds = [], prevalence / (1 - prevalence)
    for right, other, weight in ((found, spared, 1 / odds), (spared, found, odds)):
        result.append(dict.fromkeys(("value", "low", "high")))
        if None in (right[0], other[0]) or right[0] + 1 - other[0] == 0:
            continue
        result[-1]["value"] = right[0] / (right[0] + weight * (1 - other[0]))
        if None not in (*right, *other):
            low, high = _ratio_interval((1 - other[0], 1 - other[2], 1 - other[1]), right)
            result[-1] |= {"low": 1 / (1 + weight * high), "high": 1 / (1 + weight * low)}
    return result[0], result[1]


def _ratio_interval(top: Sequence[float], bottom: Sequence[float]) -> tuple[float, float]:
    """95% interval of the ratio of two independent estimates, each (value, low, high)."""
    (x, x_low, x_high), (y, y_low, y_high) = top, bottom
    least, most, divisor = x_low * (2 * x - x_low), x_high * (2 * x - x_high), y_low * (2 * y - y_low)
    root = x * y + np.sqrt(max(0.0, (x * y) ** 2 - least * y_high * (2 * y - y_high)))
    high = (x * y + np.sqrt(max(0.0, (x * y) ** 2 - most * divisor))) / divisor if divisor > 0 else np.inf
    return float(least / root) if root else 0.0, float(high)
