"""Paired differences of metrics between two models, and means over runs; docs/METHODS.md has the formulas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit, ndtr

from helpers.evaluation.intervals import Z, estimates, logit_interval, means_drawn
from helpers.evaluation.metrics import METRICS, Values, number


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
    (a, drawn_a, count), (b, drawn_b, _) = (means_drawn(values, patients, resamples, seed) for values in (one, other))
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
    sides = [estimates(labels, p, threshold, patients, resamples, seed) for p, threshold in (one, other)]
    return _differences(sides, resamples)


def _differences(sides: list[tuple[dict, dict, dict]], resamples: int) -> dict[str, Values]:
    """`paired_differences` between two results of `estimates` or `_pooled`."""
    result: dict[str, Values] = {}
    for name in METRICS:
        (a, drawn_a, patients_a), (b, drawn_b, patients_b) = ((v[name], d[name], n[name]) for v, d, n in sides)
        kept = np.isfinite(drawn_a) & np.isfinite(drawn_b)
        result[name] = dict.fromkeys(("difference", "low", "high", "p"))
        if None not in (a["low"], b["low"]) and 2 * kept.sum() >= resamples:
            result[name] = _difference(a, b, drawn_a[kept], drawn_b[kept], min(patients_a, patients_b))
    result["ece"] |= {"low": None, "high": None, "p": None}
    return result


class RunAnswers(NamedTuple):
    """What a run answered; all but `resampling` as in `bootstrap`."""

    labels: ArrayLike
    probabilities: ArrayLike
    threshold: float
    patients: Iterable
    resampling: int  # a seed: the same for runs on the same images, whose patients are then drawn alike


def _pooled(
    runs: Sequence[RunAnswers], resamples: int
) -> tuple[dict[str, Values], dict[str, np.ndarray], dict[str, int]]:
    """As `estimates`, of the means of metrics over runs; their values with "least" and "most" of the runs."""
    parts = [estimates(*run[:4], resamples, run.resampling) for run in runs]
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


def mean_over_runs(runs: Sequence[RunAnswers], resamples: int = 1000) -> dict[str, Values]:
    """Means of metrics over runs, such as seeds, with their range and 95% intervals from resampling patients.

    Parameters
    ----------
    runs : sequence of RunAnswers
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


def group_differences(
    ones: Sequence[RunAnswers], others: Sequence[RunAnswers], resamples: int = 2000
) -> dict[str, Values]:
    """Mean metrics of `others` minus those of `ones`, such as the seeds of two recipes, paired by patient.

    Parameters
    ----------
    ones, others : sequence of RunAnswers
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
        p = 2 * ndtr(-Z * abs(difference) / max(difference - low, high - difference))  # a normal's two tails
    return {"difference": difference, "low": float(low), "high": float(high), "p": float(p)}


def _on_logit_scale(value: float, drawn: np.ndarray) -> np.ndarray | None:
    """Resamples whose deviations from `value` are carried over to the logit scale; None where they do not vary."""
    if drawn.std() < 1e-12 or not 0 < value < 1:
        return None
    return expit(logit(value) + (drawn - value) / (value * (1 - value)))
