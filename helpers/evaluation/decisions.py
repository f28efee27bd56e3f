"""From scores to statements: calibration, threshold, band of doubt, summaries and words.

Everywhere below `labels` is a 1-D array of bool or 0/1, True for pneumonia, `probabilities` a 1-D array of P(pneumonia)
in [0, 1] in the same order, and an image is called positive when probability >= threshold. What cannot be used (empty,
of unequal length, NaN, out of range) raises config.InputError.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from helpers.config import LABELS, InputError, parse_policy
from helpers.evaluation.intervals import bootstrap, paired_differences
from helpers.evaluation.metrics import METRICS, checked, measure, predictive_values

NEGATIVE, POSITIVE = LABELS
RARER = (0.01, 0.05, 0.2)  # prevalences that precision and NPV are carried over to
_NAMES = {"auc": "AUC", "npv": "NPV", "f1": "F1", "ece": "ECE", "brier": "Brier score"}


def fit_calibration(labels: ArrayLike, logits: ArrayLike) -> dict:
    """Platt scaling (Platt 1999, Probabilistic outputs for support vector machines) of validation logits.

    Fits P = sigmoid(slope * logit + intercept) by maximum likelihood to Platt's smoothed targets (N+ + 1) / (N+ + 2)
    and 1 / (N- + 2), which keep the slope finite where the classes are separated. `logits`: float (n,), finite.
    Returns {"method": "platt", "slope": a > 0, "intercept": b}; where no positive slope can be had (one class, equal
    logits, a ranking no better than chance), the identity: method "none", slope 1, intercept 0, and a "reason".
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
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    fit.fit(np.tile(scaled, 2)[:, None], twice, sample_weight=np.concatenate([target, 1 - target]))
    slope = float(fit.coef_[0, 0])
    if not slope > 1e-6:
        return identity | {"reason": "higher validation logits do not mean pneumonia more often"}
    intercept = float(fit.intercept_[0] - slope * centre / spread)
    return {"method": "platt", "slope": float(slope / spread), "intercept": intercept}


def calibrate(logits: ArrayLike, calibration: dict) -> np.ndarray:
    """Calibrated P(pneumonia), float64 in [0, 1], of `logits` (any shape, finite), by `fit_calibration`'s result.

    The order of the logits is kept. Only float64 itself merges neighbours: from a scaled logit of 36.7 on all are 1.
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
    """What `calibration` does to the probabilities of images with these logits, float (n,), of `patients` (n,).

    Rows: "before" and "after" it, and "after, for the share here", where it was fitted on images of another prevalence,
    `fitted_at` (None: unknown): the odds times the ratio of both prevalences' odds; not for images of one class, nor
    where nothing could be fitted. Columns: ECE; ECE if perfect, its mean were every probability exactly right, by 200
    draws of labels; Brier score; minus before, as text: its difference from that before with the 95% interval, paired
    by patient.
    """
    positive, logits = checked(labels, logits, what="logits")
    kinds, share = {"before": expit(logits), "after": calibrate(logits, calibration)}, positive.mean()
    if fitted_at and calibration["method"] != "none" and 0 < share < 1:
        shift = logit(share) - logit(fitted_at)
        corrected = calibration | {"intercept": calibration["intercept"] + shift}
        kinds["after, for the share here"] = calibrate(logits, corrected)
    rows, rng = {}, np.random.default_rng(seed)
    for kind, probabilities in kinds.items():
        found = measure(positive, probabilities, 0.5)
        perfect = [measure(rng.random(len(logits)) < probabilities, probabilities, 0.5)["ece"] for _ in range(200)]
        rows[kind] = {"ECE": found["ece"], "ECE if perfect": np.mean(perfect), "Brier score": found["brier"]}
        rows[kind]["minus before"] = "–"
        if kind != "before":
            pair = (kinds["before"], 0.5), (probabilities, 0.5)
            change = paired_differences(positive, *pair, patients, resamples, seed)["brier"]
            rows[kind]["minus before"] = "{difference:+.4f} ({low:+.4f} to {high:+.4f})".format(**change)
    return pd.DataFrame(rows).T


def choose_threshold(labels: ArrayLike, probabilities: ArrayLike, policy: str) -> float:
    """Threshold in [0, 1] that `policy` (see config.parse_policy) picks on the data given.

    "sensitivity>=X": the highest with a sensitivity of at least X. "youden": the largest sensitivity + specificity - 1
    (Youden 1950, Index for rating diagnostic tests), of equals the most sensitive. Both lie midway between two
    neighbouring scores (below the lowest: at half of it), so that rounding flips no decision on this data. A number is
    returned as it is, whatever the data. InputError where the others lack a class.
    """
    kind, number = parse_policy(policy)
    if kind == "fixed":
        return float(number)
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


def operating_points(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, list[float | None]]:
    """threshold (0, 0.01, ... 1), and sensitivity and specificity at each, rounded; None where undefined."""
    thresholds = [round(0.01 * step, 2) for step in range(101)]
    found = [measure(labels, probabilities, threshold) for threshold in thresholds]
    rates = {n: [m[n] if m[n] is None else round(m[n], 4) for m in found] for n in ("sensitivity", "specificity")}
    return {"threshold": thresholds} | rates


def uncertain_band(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float, error: float = 0.01
) -> tuple[float, float]:
    """(low, high) around `threshold`: from low to high a model should say "uncertain" instead of yes or no.

    Class-conditional conformal prediction (Vovk 2012, Conditional validity of inductive conformal predictors): of
    images like these, at most the share `error` of those with pneumonia lies below low, and of those without above
    high. Between the two, both answers are plausible (or, where the classes are far apart, neither). Of n images of a
    class, fewer than 1 / `error`, one lies outside: the share is then 1 / (n + 1). A class that is missing leaves its
    side open: 0 or 1.
    """
    positive, probabilities = checked(labels, probabilities, threshold)
    ill, well = np.sort(probabilities[positive]), np.sort(probabilities[~positive])
    below, above = (max(int(error * (n + 1)), min(n, 1)) for n in (ill.size, well.size))  # so many may lie outside
    edges = [ill[below - 1] if below else 0.0, well[-above] if above else 1.0, threshold]
    return float(min(edges)), float(max(edges))


def certain(labels: ArrayLike, probabilities: ArrayLike, threshold: float, band: tuple[float, float]) -> dict[str, int]:
    """{"n", "right"}: how many images lie outside `band` (low, high), and of how many of them the answer is right."""
    positive, probabilities = checked(labels, probabilities, threshold)
    sure = (probabilities < band[0]) | (probabilities > band[1])
    return {"n": int(sure.sum()), "right": int(((probabilities >= threshold) == positive)[sure].sum())}


def outcomes(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> np.ndarray:
    """Array (n,) of "TP", "FN", "FP" or "TN"."""
    positive, probabilities = checked(labels, probabilities, threshold)
    called = probabilities >= threshold
    return np.where(positive, np.where(called, "TP", "FN"), np.where(called, "FP", "TN"))


def summarise(frame: pd.DataFrame, threshold: float, policy: str, resamples: int, seed: int) -> dict:
    """One block of metrics.json, ready for JSON, of the images in `frame`, one a row.

    Columns: label (NORMAL, PNEUMONIA), patient, subtype (bacteria, virus, or empty), probability. Returns n, patients
    (how many), prevalence, threshold, threshold_policy, confusion, `bootstrap`'s metrics, and by_subtype: {subtype:
    {"n", "patients", "sensitivity"}} of the pneumonia images whose subtype is known.
    """
    missing = {"label", "patient", "subtype", "probability"} - set(frame.columns)
    if missing or not frame["label"].isin([NEGATIVE, POSITIVE]).all():
        problem = f"no column {', '.join(sorted(missing))}" if missing else f"a label not {NEGATIVE} or {POSITIVE}"
        raise InputError(f"the predictions have {problem}; run 05_evaluation again.")

    def intervals(rows: pd.DataFrame) -> dict:
        return bootstrap(rows["label"] == POSITIVE, rows["probability"], threshold, rows["patient"], resamples, seed)

    ill = frame["label"] == POSITIVE
    found = outcomes(ill, frame["probability"], threshold).tolist()
    known = frame[ill & frame["subtype"].notna() & (frame["subtype"] != "")]
    return {
        "n": len(frame),
        "patients": int(frame["patient"].nunique()),
        "prevalence": float(ill.mean()),
        "threshold": float(threshold),
        "threshold_policy": policy,
        "confusion": {name: found.count(name.upper()) for name in ("tp", "fp", "fn", "tn")},
        **intervals(frame),
        "by_subtype": {
            str(name): {
                "n": len(rows),
                "patients": int(rows["patient"].nunique()),
                "sensitivity": intervals(rows)["sensitivity"],
            }
            for name, rows in known.groupby("subtype")
        },
    }


def in_words(name: str) -> str:
    """The name of a metric to read: "AUC" for "auc", "balanced accuracy" for "balanced_accuracy"."""
    return _NAMES.get(name, name.replace("_", " "))


def _text(metric: dict, scale: float = 1, digits: int = 3) -> tuple[str, str]:
    """Value and interval to read; "–" for what is undefined, or an interval without width, which tells nothing."""
    numbers = (metric[key] for key in ("value", "low", "high"))
    value, low, high = ("–" if number is None else f"{scale * number:.{digits}f}" for number in numbers)
    return value, "–" if "–" in (low, high) or metric["low"] == metric["high"] else f"{low} to {high}"


def with_interval(metric: dict, scale: float = 1, digits: int = 3) -> str:
    """ "0.981 (0.968 to 0.993)" of a metric with value, low and high; without brackets where these tell nothing."""
    value, interval = _text(metric, scale, digits)
    return value + (f" ({interval})" if interval != "–" else "")


def sentence(name: str, metric: dict) -> str:
    """ "AUC 0.981 (0.968 to 0.993)": the metric's name, and `with_interval`."""
    return f"{in_words(name)} {with_interval(metric)}"


def table(summary: dict) -> pd.DataFrame:
    """`summarise`'s result to read: columns metric, value, 95% interval (text), and n, the images it is about."""
    tp, fp, fn, tn = (summary["confusion"][name] for name in ("tp", "fp", "fn", "tn"))
    about = {"sensitivity": tp + fn, "specificity": tn + fp, "precision": tp + fp, "npv": tn + fn}
    rows = [(in_words(name), *_text(summary[name]), about.get(name, summary["n"])) for name in METRICS]
    parts = summary.get("by_subtype", {}).items()
    rows += [(f"sensitivity, {name}", *_text(part["sensitivity"]), part["n"]) for name, part in parts]
    return pd.DataFrame(rows, columns=["metric", "value", "95% interval", "n"])


def where_rarer(summary: dict) -> pd.DataFrame:
    """Precision and NPV, with false alarms and misses per 1,000 images, where pneumonia is rarer than in `summary`.

    A row of text for each prevalence of RARER below that of `summarise`'s result, and a last one, "here"; none where a
    class is missing. Sensitivity and specificity are taken to stay as they are. The prevalence counts as known; an
    interval goes from both rates at their lower to both at their upper ends, and so is rather too wide.
    """
    found, spared, own = summary["sensitivity"], summary["specificity"], summary["prevalence"]
    if found["value"] is None or spared["value"] is None:
        return pd.DataFrame()
    rows = {}
    for name, share in ({f"{p:g}": p for p in RARER if p < own} | {f"here: {own:.3f}": own}).items():
        ends = {end: predictive_values(found[end], spared[end], share) for end in ("value", "low", "high")}
        precision, npv = ({end: values[i] for end, values in ends.items()} for i in (0, 1))
        rows[name] = {
            "precision": with_interval(precision).replace(" ", "\N{NO-BREAK SPACE}"),
            "NPV": with_interval(npv, digits=4).replace(" ", "\N{NO-BREAK SPACE}"),
            "false alarms": f"{1000 * (1 - share) * (1 - spared['value']):.1f}",
            "missed": f"{1000 * share * (1 - found['value']):.1f}",
        }
    return pd.DataFrame(rows).T.rename_axis("prevalence")
