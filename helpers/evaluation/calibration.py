"""From logits to probabilities that mean what they say.

`labels`, `probabilities` and what cannot be used as in metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from helpers.config import InputError
from helpers.evaluation.differences import paired_differences
from helpers.evaluation.metrics import checked, measure


def fit_calibration(labels: ArrayLike, logits: ArrayLike) -> dict:
    """Platt scaling: fit P(pneumonia) = sigmoid(slope * logit + intercept) to validation images.

    The fit is by maximum likelihood to Platt's smoothed targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2), which keep the
    slope finite where the classes are separated.

    Parameters
    ----------
    labels : array of bool or 0/1, shape (n,)
        True where the image shows pneumonia.
    logits : array of float, shape (n,)
        What the model gives before its sigmoid; finite.

    Returns
    -------
    dict
        {"method": "platt", "slope": a > 0, "intercept": b}. Where no positive slope can be had (one class, equal
        logits, a ranking no better than chance) the identity: method "none", slope 1, intercept 0, and a "reason".

    Raises
    ------
    InputError
        Where a logit is NaN or infinite, or labels are not 0 and 1.

    References
    ----------
    Platt (1999), Probabilistic outputs for support vector machines, Advances in large margin classifiers.

    Examples
    --------
    >>> fit = fit_calibration([0, 0, 1, 0, 1, 1], [-3, -2, -1, 1, 2, 3])
    >>> round(fit["slope"], 3), round(abs(fit["intercept"]), 3)
    (0.369, 0.0)
    >>> fit_calibration([1, 1], [0.5, 2.0])["reason"]
    'validation holds one class only'
    """
    positive, logits = checked(labels, logits, what="logits")
    identity = {"method": "none", "slope": 1.0, "intercept": 0.0}
    if positive.all() or not positive.any():
        return identity | {"reason": "validation holds one class only"}
    centre, spread = logits.mean(), logits.std()
    if spread <= 1e-9 * max(1.0, abs(centre)):
        return identity | {"reason": "all validation logits are alike"}
    target = np.where(positive, (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
    # A target t is t of an image with pneumonia and 1 - t of the same image without.
    scaled, twice = (logits - centre) / spread, np.repeat([True, False], logits.size)
    from sklearn.linear_model import LogisticRegression  # takes a second, which commands save

    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    fit.fit(np.tile(scaled, 2)[:, None], twice, sample_weight=np.concatenate([target, 1 - target]))
    slope = float(fit.coef_[0, 0])
    if not slope > 1e-6:
        return identity | {"reason": "higher validation logits do not mean pneumonia more often"}
    intercept = float(fit.intercept_[0] - slope * centre / spread)
    return {"method": "platt", "slope": float(slope / spread), "intercept": intercept}


def calibrate(logits: ArrayLike, calibration: dict) -> np.ndarray:
    """Calibrated P(pneumonia) of logits.

    Parameters
    ----------
    logits : array of float, any shape
        Finite.
    calibration : dict
        Result of `fit_calibration`.

    Returns
    -------
    array of float64 in [0, 1], of the same shape
        In the order of the logits. Only float64 itself merges neighbours: from a scaled logit of 36.7 on all are 1.

    Raises
    ------
    InputError
        Where a logit is NaN or infinite.

    Examples
    --------
    >>> calibrate([-1.0, 0.0, 1.0], {"slope": 2.0, "intercept": 0.0}).round(3)
    array([0.119, 0.5  , 0.881])
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise InputError("a logit is NaN or infinite, as from a model that diverged; train again with a lower rate.")
    return np.asarray(expit(calibration["slope"] * logits + calibration["intercept"]))


def calibration_effect(
    labels: ArrayLike,
    logits: ArrayLike,
    calibration: dict,
    fitted_at: float | None,
    patients: Iterable,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """ECE and Brier score before and after calibration.

    Parameters
    ----------
    labels, logits
        As in `fit_calibration`, of the images to measure on.
    calibration : dict
        Result of `fit_calibration`.
    fitted_at : float in (0, 1), or None
        Prevalence of the images that it was fitted to; None where it is unknown, or the same.
    patients, resamples, seed
        As in `bootstrap`.

    Returns
    -------
    DataFrame
        Rows "before", "after", and "after, for the prevalence here" (the odds times the ratio of both prior odds;
        only where `fitted_at` is given, both classes are there and something could be fitted). Columns: ECE; ECE if
        perfect, its mean over 200 draws of labels from these very probabilities; Brier score; Brier change, the
        difference of Brier scores, with its 95% interval, low to high, paired by patient (NaN: none).

    References
    ----------
    Saerens, Latinne and Decaestecker (2002), Adjusting the outputs of a classifier to new a priori probabilities,
    Neural Computation 14.
    """
    positive, logits = checked(labels, logits, what="logits")
    kinds, prevalence = {"before": expit(logits), "after": calibrate(logits, calibration)}, positive.mean()
    if fitted_at and calibration["method"] != "none" and 0 < prevalence < 1:
        shift = logit(prevalence) - logit(fitted_at)
        corrected = calibration | {"intercept": calibration["intercept"] + shift}
        kinds["after, for the prevalence here"] = calibrate(logits, corrected)
    rows: dict[str, dict] = {}
    rng = np.random.default_rng(seed)
    for kind, probabilities in kinds.items():
        found = measure(positive, probabilities, 0.5)
        perfect = [measure(rng.random(len(logits)) < probabilities, probabilities, 0.5)["ece"] for _ in range(200)]
        rows[kind] = {"ECE": found["ece"], "ECE if perfect": np.mean(perfect), "Brier score": found["brier"]}
        if kind != "before":
            pair = (kinds["before"], 0.5), (probabilities, 0.5)
            change = paired_differences(positive, *pair, patients, resamples, seed)["brier"]
            rows[kind] |= {"Brier change": change["difference"], "low": change["low"], "high": change["high"]}
    columns = ["ECE", "ECE if perfect", "Brier score", "Brier change", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
