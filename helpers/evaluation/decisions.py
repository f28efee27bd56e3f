"""From probabilities to decisions: the threshold, the uncertain range, and what a decision is worth.

`labels`, `probabilities` and what cannot be used as in metrics.py.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from helpers.config import LABELS, InputError, parse_policy
from helpers.evaluation.metrics import checked, measure

NEGATIVE, POSITIVE = LABELS
ERROR = 0.01  # of each class, at most this proportion gets a wrong answer outside the uncertain range


def choose_threshold(labels: ArrayLike, probabilities: ArrayLike, policy: str) -> float:
    """The threshold that a policy picks on these images, usually those of validation.

    Parameters
    ----------
    labels : array of bool or 0/1, shape (n,)
        True where the image shows pneumonia.
    probabilities : array of float in [0, 1], shape (n,)
        P(pneumonia), in the same order.
    policy : str
        "sensitivity>=X": the highest threshold with a sensitivity of at least X. "youden": that with the largest
        sensitivity + specificity - 1; of equals the most sensitive. A number such as "0.5": that number.

    Returns
    -------
    float in [0, 1]
        Of the first two midway between two neighbouring scores (below the lowest: half of it), so that rounding flips
        no decision on these images.

    Raises
    ------
    InputError
        Where a policy other than a number meets images of one class, or is none.

    References
    ----------
    Youden (1950), Index for rating diagnostic tests, Cancer 3.

    Examples
    --------
    >>> labels, probabilities = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.9]
    >>> choose_threshold(labels, probabilities, "sensitivity>=0.97")
    0.25
    >>> round(choose_threshold(labels, probabilities, "sensitivity>=0.6"), 3)
    0.65
    """
    kind, number = parse_policy(policy)
    if kind == "fixed" and number:
        return number
    positive, probabilities = checked(labels, probabilities)
    if positive.all() or not positive.any():
        raise InputError(
            f"threshold_policy={policy} needs both classes, but none of the {positive.size} images is "
            f"{NEGATIVE if positive.all() else POSITIVE}; add some, or set a number such as threshold_policy=0.5."
        )
    scores, where = np.unique(probabilities, return_inverse=True)
    tp = np.bincount(where, positive)[::-1].cumsum()[::-1]  # images called positive if each score were the threshold
    fp = np.bincount(where, ~positive)[::-1].cumsum()[::-1]
    if kind == "sensitivity":
        best = int(np.flatnonzero(tp / tp[0] >= number)[-1])
    else:
        best = int(np.argmax(tp * fp[0] - fp * tp[0]))  # whole numbers, so that equals are equal
    below = scores[best - 1] if best else 0.0
    middle = below + (scores[best] - below) / 2
    return float(middle if middle > below else scores[best])


def operating_points(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, list]:
    """Sensitivity and specificity at every hundredth, for a page whose reader moves the threshold.

    Parameters
    ----------
    labels, probabilities
        As in `choose_threshold`.

    Returns
    -------
    dict of three lists
        threshold (0, 0.01, ... 1), sensitivity and specificity, rounded to four digits; None where undefined.
    """
    thresholds = [round(0.01 * step, 2) for step in range(101)]
    found = [measure(labels, probabilities, threshold) for threshold in thresholds]
    rates = {n: [m[n] if m[n] is None else round(m[n], 4) for m in found] for n in ("sensitivity", "specificity")}
    return {"threshold": thresholds} | rates


def uncertain_range(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> tuple[float, float]:
    """Where a model should say "uncertain" instead of yes or no: the abstention band around its threshold.

    Parameters
    ----------
    labels, probabilities
        As in `choose_threshold`.
    threshold : float in [0, 1]
        Always lies in the range.

    Returns
    -------
    tuple of two floats in [0, 1]
        From the first to the second both answers are plausible (or, where the classes are far apart, neither). Of
        images like these, at most ERROR of those with pneumonia lie below the range, and of normal ones above it. Of
        n images of a class, fewer than 1 / ERROR, one lies outside: the proportion is then 1 / (n + 1). A class that
        is missing leaves its side open: 0 or 1.

    References
    ----------
    Vovk (2012), Conditional validity of inductive conformal predictors, ACML (class-conditional conformal prediction).

    Examples
    --------
    >>> uncertain_range([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.6, 0.4, 0.8, 0.9], threshold=0.5)
    (0.4, 0.6)
    """
    positive, probabilities = checked(labels, probabilities, threshold)
    pneumonia, normal = np.sort(probabilities[positive]), np.sort(probabilities[~positive])
    below, above = (max(int(ERROR * (n + 1)), min(n, 1)) for n in (pneumonia.size, normal.size))  # may lie outside
    edges = [pneumonia[below - 1] if below else 0.0, normal[-above] if above else 1.0, threshold]
    return float(min(edges)), float(max(edges))


def certainty(labels: ArrayLike, probabilities: ArrayLike, uncertain: tuple[float, float]) -> pd.DataFrame:
    """How many images of each class get no answer, and how many a wrong one with certainty.

    Parameters
    ----------
    labels, probabilities
        As in `choose_threshold`.
    uncertain : tuple of two floats in [0, 1]
        Result of `uncertain_range`.

    Returns
    -------
    DataFrame of int
        Rows NORMAL and PNEUMONIA; columns images, uncertain (within the range), right and wrong (beyond it, on the
        right and on the wrong side: a wrong PNEUMONIA was missed with certainty).

    Examples
    --------
    >>> certainty([0, 0, 0, 1, 1, 1], [0.1, 0.5, 0.9, 0.2, 0.8, 0.9], (0.4, 0.6))
               images  uncertain  right  wrong
    NORMAL          3          1      1      1
    PNEUMONIA       3          0      2      1
    """
    positive, probabilities = checked(labels, probabilities)
    below, above, table = probabilities < uncertain[0], probabilities > uncertain[1], pd.DataFrame()
    for name, group, right, wrong in ((NEGATIVE, ~positive, below, above), (POSITIVE, positive, above, below)):
        table[name] = [group.sum(), (group & ~right & ~wrong).sum(), (group & right).sum(), (group & wrong).sum()]
    return table.T.set_axis(["images", "uncertain", "right", "wrong"], axis=1)


def outcomes(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> np.ndarray:
    """What became of each image.

    Parameters
    ----------
    labels, probabilities
        As in `choose_threshold`.
    threshold : float
        An image is called positive from this probability on.

    Returns
    -------
    array of str, shape (n,)
        "TP", "FN", "FP" or "TN".

    Examples
    --------
    >>> outcomes([1, 1, 0, 0], [0.9, 0.2, 0.5, 0.1], threshold=0.5).tolist()
    ['TP', 'FN', 'FP', 'TN']
    """
    positive, probabilities = checked(labels, probabilities, threshold)
    called = probabilities >= threshold
    return np.where(positive, np.where(called, "TP", "FN"), np.where(called, "FP", "TN"))


def failures(predictions: pd.DataFrame, threshold: float, uncertain: tuple[float, float] | None) -> pd.DataFrame:
    """The images that get a wrong answer, the most certain errors first.

    Parameters
    ----------
    predictions : DataFrame, one row an image
        Columns label (NORMAL, PNEUMONIA) and probability, in [0, 1]; others are kept.
    threshold : float in [0, 1]
        An image is called positive from this probability on.
    uncertain : tuple of two floats in [0, 1], or None
        Result of `uncertain_range`. Without one, each answer counts as certain.

    Returns
    -------
    DataFrame
        The columns of `predictions`, outcome ("false alarms", "misses") and answer ("certain", "uncertain").

    Examples
    --------
    >>> table = pd.DataFrame({"label": ["NORMAL", "NORMAL", "PNEUMONIA"], "probability": [0.6, 0.9, 0.8]})
    >>> failures(table, 0.5, (0.4, 0.7))["answer"].tolist()
    ['certain', 'uncertain']
    """
    positive, probabilities = checked(predictions["label"] == POSITIVE, predictions["probability"], threshold)
    low, high = uncertain or (np.inf, -np.inf)
    answer = np.where((low <= probabilities) & (probabilities <= high), "uncertain", "certain")
    table = predictions.assign(outcome=np.where(positive, "misses", "false alarms"), answer=answer)
    order = np.argsort(-np.abs(probabilities - threshold), kind="stable")
    return table.iloc[order[(positive != (probabilities >= threshold))[order]]]


def net_benefit(labels: ArrayLike, probabilities: ArrayLike, thresholds: ArrayLike) -> pd.DataFrame:
    """Decision curve: what acting on the model is worth, against acting on everyone and on no one.

    A person who acts from the probability t on holds a missed pneumonia for (1 - t) / t times as bad as a false alarm.
    In these terms the net benefit is TP / n - FP / n * t / (1 - t): true positives an image, less what the false ones
    cost.

    Parameters
    ----------
    labels, probabilities
        As in `choose_threshold`; the probabilities calibrated, since each threshold is taken at its word.
    thresholds : array of float in (0, 1), shape (k,)
        Threshold probabilities that a reader might have.

    Returns
    -------
    DataFrame, one row a threshold
        Columns "model", "treat all" and "treat none" (0).

    Raises
    ------
    InputError
        Where labels or probabilities cannot be used, or a threshold is 0 or 1.

    References
    ----------
    Vickers and Elkin (2006), Decision curve analysis: a novel method for evaluating prediction models, Medical
    Decision Making 26.

    Examples
    --------
    >>> net_benefit([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], [0.2]).loc[0.2].to_dict()
    {'model': 0.4375, 'treat all': 0.375, 'treat none': 0.0}
    """
    positive, probabilities = checked(labels, probabilities)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if not ((cuts > 0) & (cuts < 1)).all():
        raise InputError("the thresholds of a decision curve lie between 0 and 1, both left out; use 0.01 to 0.99.")
    called, odds, prevalence = probabilities >= cuts[:, None], cuts / (1 - cuts), positive.mean()
    model = (called & positive).mean(axis=1) - (called & ~positive).mean(axis=1) * odds
    columns = {"model": model, "treat all": prevalence - (1 - prevalence) * odds, "treat none": 0.0}
    return pd.DataFrame(columns, index=pd.Index(cuts, name="threshold"))
