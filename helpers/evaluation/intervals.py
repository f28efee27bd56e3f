"""95% intervals and paired differences of metrics, from resampling patients.

`labels`, `probabilities` and `threshold` as in helpers/evaluation/metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import beta

from helpers.config import InputError
from helpers.evaluation.metrics import METRICS, checked, measure, number, weighted

SHARES = ("accuracy", "sensitivity", "specificity", "precision", "npv")


def _whose(patients: Iterable) -> np.ndarray:
    """For each image the number of its patient, int (n,), -1 where missing."""
    return pd.factorize(pd.Series(list(patients), dtype=object), sort=True)[0]


def _times_drawn(patient: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is in each resample, int (<= 250, n): as many at once as memory holds with ease.

    Whole patients are drawn, as many as there are, with replacement; `patient` (n,) says whose each image is, from 0.
    """
    random, patients = np.random.default_rng(seed), patient.max() + 1
    for start in range(0, resamples, 250):
        rows = min(250, resamples - start)
        drawn = random.integers(patients, size=(rows, patients)) + patients * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, -1)[:, patient]


def bootstrap(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float, patients: Iterable, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """METRICS -> {"value", "low", "high"}: `metrics.measure` with 95% intervals from resampling patients.

    Patients, not images, are drawn with replacement, since images of one patient resemble each other (cluster
    bootstrap: Field and Welsh 2007, Bootstrapping clustered data, JRSS B 69). `patients` (n,): whose each image is. A
    resample that leaves a metric undefined does not count for it; where more than half do, low and high are None. The
    threshold stays as it is. Intervals are percentiles, but these are too narrow near 0 and 1, so the SHARES have the
    exact binomial interval (Clopper and Pearson 1934) of as many images as would vary like their resamples (Korn and
    Graubard 1998, Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data), at most of those there are; where these do not vary, since nothing or everything is right, of as many
    as there are patients. Other metrics may have an interval without width, which is not shown. Resampling adds to a
    small ece, so that its interval can lie above its value.
    """
    value = measure(labels, probabilities, threshold)
    positive, probabilities = checked(labels, probabilities)
    patient = _whose(patients)
    if patient.size != positive.size or (patient < 0).any():
        raise InputError(f"the {positive.size} images need a patient each; some are missing.")
    if resamples < 1:
        raise InputError(f"resamples={resamples} gives no interval; use 1000.")
    order = np.lexsort((positive, patient, probabilities))  # the first two: equal bytes in any order of rows
    positive, probabilities, patient = positive[order], probabilities[order], patient[order]
    drawn = _times_drawn(patient, resamples, seed)
    parts, result = [weighted(positive, probabilities, threshold, times) for times in drawn], {}
    called = probabilities >= threshold
    everyone = np.ones_like(positive)
    about = {
        "accuracy": everyone,
        "sensitivity": positive,
        "specificity": ~positive,
        "precision": called,
        "npv": ~called,
    }
    for name in METRICS:
        values = np.concatenate([part[name] for part in parts])
        values = values[np.isfinite(values)]
        low, high = np.nan, np.nan
        if value[name] is not None and 2 * values.size >= resamples:
            low, high = np.percentile(values, [2.5, 97.5])
            if name in SHARES and np.ptp(values):
                varying_alike = value[name] * (1 - value[name]) / values.var()
                low, high = _exact(value[name], min(varying_alike, about[name].sum()))
            elif name in SHARES:
                low, high = _exact(value[name], len(np.unique(patient[about[name]])))
        result[name] = {"value": value[name], "low": number(low), "high": number(high)}
    return result


def _exact(share: float, n: float) -> tuple[float, float]:
    """Clopper and Pearson's 95% interval of a share of `n`, which need not be whole."""
    right, wrong = share * n, (1 - share) * n
    low = float(beta.ppf(0.025, right, wrong + 1)) if right > 0 else 0.0
    return low, float(beta.ppf(0.975, right + 1, wrong)) if wrong > 0 else 1.0


def mean_interval(values: ArrayLike, patients: Iterable, resamples: int, seed: int) -> dict[str, float]:
    """{"value", "low", "high"}: mean of `values`, (n,), its 95% interval by `patients`, as `bootstrap`."""
    values = np.asarray(values, np.float64)
    means = [times @ values / times.sum(axis=1) for times in _times_drawn(_whose(patients), resamples, seed)]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def paired_differences(
    labels: ArrayLike,
    one: tuple[ArrayLike, float],
    other: tuple[ArrayLike, float],
    patients: Iterable,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """METRICS -> {"difference", "low", "high", "p"} of `other` minus `one`, of the same images in the same order.

    Each is (probabilities, threshold). Both are resampled alike, by patient (paired cluster bootstrap); low and high
    are the 95% percentile interval, p is twice the smaller share of resamples on either side of 0, at least
    1 / `resamples` and at most 1.
    """
    values, sides = [], []
    for probabilities, threshold in (one, other):
        positive, scores = checked(labels, probabilities, threshold)
        values.append(measure(labels, probabilities, threshold))
        sides.append((positive, scores, threshold, np.lexsort((positive, scores))))
    parts = []
    for times in _times_drawn(_whose(patients), resamples, seed):
        a, b = (weighted(y[order], p[order], cut, times[:, order]) for y, p, cut, order in sides)
        parts.append({name: b[name] - a[name] for name in METRICS})
    result = {}
    for name in METRICS:
        before, after = (value[name] for value in values)
        change = np.concatenate([part[name] for part in parts])
        change = change[np.isfinite(change)]
        if before is None or after is None or 2 * change.size < resamples:
            result[name] = dict.fromkeys(("difference", "low", "high", "p"))
            continue
        low, high = np.percentile(change, [2.5, 97.5])
        p = min(1.0, max(2 * min((change <= 0).mean(), (change >= 0).mean()), 1 / resamples))
        result[name] = {"difference": after - before, "low": float(low), "high": float(high), "p": float(p)}
    return result
