"""95% intervals and paired differences of metrics, from resampling patients; docs/METHODS.md has the formulas.

`labels`, `probabilities` and `threshold` as in metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

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


def _estimates(
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
        Where labels or probabilities cannot be used, or an image has no patient.

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
    return _estimates(labels, probabilities, threshold, patients, resamples, seed)[0]


def _means(values: ArrayLike, patients: Iterable, resamples: int, seed: int) -> tuple[dict, np.ndarray, int]:
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
        Where an image has no patient, or a value lies outside [0, 1].

    Examples
    --------
    >>> mean_interval([1] * 20, range(20), resamples=1000, seed=1)  # of 20 patients, 0.025 ** (1 / 20)
    {'value': 1.0, 'low': 0.831..., 'high': 1.0}
    """
    return _means(values, patients, resamples, seed)[0]


def mean_difference(
    one: ArrayLike, other: ArrayLike, patients: Iterable, resamples: int, seed: int
) -> dict[str, float]:
    """Mean of `other` minus that of `one`, of the same images, with its 95% interval from resampling patients.

    Parameters
    ----------
    one, other : array of bool, or of float in [0, 1], shape (n,)
        As in `mean_interval`.
    patients, resamples, seed
        As in `bootstrap`.

    Returns
    -------
    dict
        "difference", "low", "high" and "p", as in `paired_differences`.

    Raises
    ------
    InputError
        As `mean_interval`.
    """
    (a, drawn_a, count), (b, drawn_b, _) = (_means(values, patients, resamples, seed) for values in (one, other))
    return _difference(a, b, drawn_a, drawn_b, count)


def paired_differences(
    labels: ArrayLike,
    one: tuple[ArrayLike, float],
    other: tuple[ArrayLike, float],
    patients: Iterable,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Values]:
    """Metrics of `other` minus those of `one`, on the same images, with 95% intervals from resampling patients.

    Parameters
    ----------
    labels, patients, resamples, seed
        As in `bootstrap`. Both are resampled alike, so that what is hard for both cancels (paired cluster bootstrap).
    one, other : tuple of array (n,) and float
        Probabilities of the images, and the threshold.

    Returns
    -------
    dict
        Each of METRICS -> {"difference", "low", "high", "p"}. Resamples are carried over to the logit scale before
        they are subtracted; the interval is their percentiles. Where one metric does not vary, as at exactly 1, the
        intervals of both are combined instead (MOVER); where their difference does not, as between equal decisions,
        the rule of `logit_interval` holds. p is twice the smaller proportion of resamples on either side of 0, and at
        least 1 / `resamples`; without resamples, from the interval. All are None where a metric is undefined; the ECE
        has a difference only, since chance adds to both in unknown measure.

    Raises
    ------
    InputError
        As `bootstrap`.

    References
    ----------
    Zou and Donner (2008), Construction of confidence limits about effect measures: a general approach, Statistics in
    Medicine 27 (MOVER). Altman and Bland (2011), How to obtain the P value from a confidence interval, BMJ 343.
    """
    sides = [_estimates(labels, p, threshold, patients, resamples, seed) for p, threshold in (one, other)]
    return _differences(sides, resamples)


def _differences(sides: list[tuple[dict, dict, dict]], resamples: int) -> dict[str, Values]:
    """`paired_differences` between two results of `_estimates` or `_pooled`."""
    result: dict[str, Values] = {}
    for name in METRICS:
        (a, drawn_a, patients_a), (b, drawn_b, patients_b) = ((v[name], d[name], n[name]) for v, d, n in sides)
        kept = np.isfinite(drawn_a) & np.isfinite(drawn_b)
        result[name] = dict.fromkeys(("difference", "low", "high", "p"))
        if None not in (a["low"], b["low"]) and 2 * kept.sum() >= resamples:
            result[name] = _difference(a, b, drawn_a[kept], drawn_b[kept], min(patients_a, patients_b))
    result["ece"] |= {"low": None, "high": None, "p": None}
    return result


class Run(NamedTuple):
    """What a run answered; all but `resampling` as in `bootstrap`."""

    labels: ArrayLike
    probabilities: ArrayLike
    threshold: float
    patients: Iterable
    resampling: int  # a seed: the same for runs on the same images, whose patients are then drawn alike


def _pooled(runs: Sequence[Run], resamples: int) -> tuple[dict[str, Values], dict[str, np.ndarray], dict[str, int]]:
    """As `_estimates`, of the means of metrics over runs; their values with "least" and "most" of the runs."""
    parts = [_estimates(*run[:4], resamples, run.resampling) for run in runs]
    different = {run.resampling: part for run, part in zip(runs, parts, strict=True)}.values()
    values: dict[str, Values] = {}
    drawn: dict[str, np.ndarray] = {}
    fewest = {name: sum(part[2][name] for part in different) for name in METRICS}
    for name in METRICS:
        single = np.array([part[0][name]["value"] for part in parts], float)
        drawn[name] = np.mean([part[1][name] for part in parts], axis=0)
        value, low, high = single.mean(), np.nan, np.nan
        known = drawn[name][np.isfinite(drawn[name])]
        if np.isfinite(value) and 2 * known.size >= resamples and name != "ece":
            low, high = logit_interval(value, known.std(), fewest[name])
        found = {"value": value, "low": low, "high": high, "least": single.min(), "most": single.max()}
        values[name] = {key: number(each) for key, each in found.items()}
    return values, drawn, fewest


def mean_over_runs(runs: Sequence[Run], resamples: int = 1000) -> dict[str, Values]:
    """Means of metrics over runs, such as seeds, with their range and 95% intervals from resampling patients.

    Parameters
    ----------
    runs : sequence of Run
        At least one.
    resamples : int
        As in `bootstrap`.

    Returns
    -------
    dict
        Each of METRICS -> {"value", "low", "high", "least", "most"}. In a resample every run sees the same patients, so
        the interval says what other patients would change; least and most say what other seeds did. The ECE has no
        interval, since chance adds to it.

    Raises
    ------
    InputError
        As `bootstrap`.
    """
    return _pooled(runs, resamples)[0]


def group_differences(ones: Sequence[Run], others: Sequence[Run], resamples: int = 2000) -> dict[str, Values]:
    """Mean metrics of `others` minus those of `ones`, such as the seeds of two recipes, paired by patient.

    Parameters
    ----------
    ones, others : sequence of Run
        Of the same images, run by run.
    resamples : int
        As in `bootstrap`.

    Returns
    -------
    dict
        As from `paired_differences`.
    """
    return _differences([_pooled(ones, resamples), _pooled(others, resamples)], resamples)


def _difference(a: dict, b: dict, drawn_a: np.ndarray, drawn_b: np.ndarray, patients: int) -> dict[str, float]:
    """`b` minus `a`, each "value", "low" and "high" with its resamples: "difference", "low", "high" and "p"."""
    difference = b["value"] - a["value"]
    likely_a, likely_b = _on_logit_scale(a["value"], drawn_a), _on_logit_scale(b["value"], drawn_b)
    if (drawn_b - drawn_a).std() < 1e-12 and 0 < a["value"] < 1:
        low, high = np.array(logit_interval((1 + difference) / 2, 0.0, patients)) * 2 - 1
        p = 1.0
    elif likely_a is not None and likely_b is not None:
        change = likely_b - likely_a
        low, high = np.percentile(change, [2.5, 97.5])
        p = np.clip(2 * min((change <= 0).mean(), (change >= 0).mean()), 1 / change.size, 1)
    else:
        low = difference - np.hypot(b["value"] - b["low"], a["high"] - a["value"])
        high = difference + np.hypot(b["high"] - b["value"], a["value"] - a["low"])
        p = 2 * norm.sf(Z * abs(difference) / max(difference - low, high - difference))
    return {"difference": difference, "low": float(low), "high": float(high), "p": float(p)}


def _on_logit_scale(value: float, drawn: np.ndarray) -> np.ndarray | None:
    """Resamples whose deviations from `value` are carried over to the logit scale; None where they do not vary."""
    if drawn.std() < 1e-12 or not 0 < value < 1:
        return None
    return expit(logit(value) + (drawn - value) / (value * (1 - value)))


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
