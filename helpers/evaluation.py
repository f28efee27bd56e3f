"""From scores to statements: calibration, threshold, metrics, and intervals that resample patients.

Everywhere below `labels` is a 1-D array of bool or 0/1, True for pneumonia, `probabilities` a 1-D array of P(pneumonia)
in [0, 1] in the same order, and an image is called positive when probability >= threshold. What cannot be used (empty,
of unequal length, NaN, out of range) raises config.InputError.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from .config import InputError, parse_policy

NEGATIVE, POSITIVE = "NORMAL", "PNEUMONIA"
METRICS = ("auc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
METRICS += ("precision", "npv", "f1", "brier", "ece")
_NAMES = {"auc": "AUC", "npv": "NPV", "f1": "F1", "ece": "ECE", "brier": "Brier score"}

# What others report for the dataset's 624 test images: percent, but the AUC a fraction; None where not reported.
_COLUMNS = ("who", "accuracy", "sensitivity", "specificity", "auc", "how", "source")
_SALEHI = (None, None, None, "transfer learning; sensitivity said to be above 91", "Salehi et al. 2021, BJR")
_ROWS = (
    ("kiselyovd, ConvNeXtV2-Tiny", 96.0, 99.7, 89.7, None, "3 classes, from its counts; image-level split; 1 seed", ""),
    ("AIVIETNAM, DenseNet121 x 5", 93.4, 99.5, 83.3, 0.985, "threshold from out-of-fold scores; test seen before", ""),
    ("Kermany et al., Inception V3", 92.8, 93.2, 90.1, 0.968, "the dataset's own paper", "Kermany et al. 2018, Cell"),
    ("MedMNIST+, DINO ViT-B/16", 91.6, None, None, 0.989, "probe, 224 px; 3 seeds; cut at 0.5", "arXiv:2404.15786"),
    ("MedMNIST+, ResNet18", 91.1, None, None, 0.980, "224 px; 3 seeds; cut at 0.5", "arXiv:2404.15786"),
    ("keshavk215, ResNet50", 89.3, 96.9, 76.5, None, "where this project began; validated on the test images", ""),
    ("MedMNIST v2, ResNet50", 88.4, None, None, 0.962, "224 px; trained from scratch", "MedMNIST v2"),
    ("Salehi et al., DenseNet121", 86.8, *_SALEHI),
    ("Evelyn-R7, EfficientNetB0", 86.7, 99.7, 65.0, 0.975, "3 seeds; strictest protocol: test opened once", ""),
    ("Salehi et al., Xception", 86.0, *_SALEHI),
    ("pneumonia_model_package 0.3.0", 82.5, 96.9, 58.5, 0.926, "Xception, 150 px; claims 86.1", "measured by us"),
    ("Keras example, custom CNN", 81.4, 97.7, None, None, "train and val joined and split again", ""),
)
PUBLISHED: tuple[dict, ...] = tuple(dict(zip(_COLUMNS, row, strict=True)) | {"n": 624} for row in _ROWS)


def _checked(
    labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5, what: str = "probabilities"
) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or not labels.size or scores.shape != labels.shape:
        raise InputError(f"labels of shape {labels.shape} and {what} of shape {scores.shape} are not one per image.")
    if not np.isin(labels, (0, 1)).all():
        raise InputError("labels must be 0 or 1 (or False and True), with 1 for pneumonia.")
    bad = ~np.isfinite(scores)
    if what == "probabilities":
        bad |= (scores < 0) | (scores > 1)
    if np.isnan(threshold):
        raise InputError("the threshold is NaN; choose one on validation, or use 0.5.")
    if bad.any():
        raise InputError(
            f"{bad.sum()} of {bad.size} {what} cannot be used (the first is {scores[bad][0]}); "
            "where training diverged, train again with a lower rate."
        )
    return labels.astype(bool), scores


def fit_calibration(labels: ArrayLike, logits: ArrayLike) -> dict:
    """Platt scaling (Platt 1999, Probabilistic outputs for support vector machines) of validation logits.

    Fits P = sigmoid(slope * logit + intercept) by maximum likelihood to Platt's smoothed targets (N+ + 1) / (N+ + 2)
    and 1 / (N- + 2), which keep the slope finite where the classes are separated. `logits`: float (n,), finite.
    Returns {"method": "platt", "slope": a > 0, "intercept": b}; where no positive slope can be had (one class, equal
    logits, a ranking no better than chance), the identity: method "none", slope 1, intercept 0, and a "reason".
    """
    positive, logits = _checked(labels, logits, what="logits")
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
    positive, probabilities = _checked(labels, probabilities)
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
    found = [metrics(labels, probabilities, threshold) for threshold in thresholds]
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
    positive, probabilities = _checked(labels, probabilities, threshold)
    ill, well = np.sort(probabilities[positive]), np.sort(probabilities[~positive])
    below, above = (max(int(error * (n + 1)), min(n, 1)) for n in (ill.size, well.size))  # so many may lie outside
    edges = [ill[below - 1] if below else 0.0, well[-above] if above else 1.0, threshold]
    return float(min(edges)), float(max(edges))


def outcomes(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> np.ndarray:
    """Array (n,) of "TP", "FN", "FP" or "TN"."""
    positive, probabilities = _checked(labels, probabilities, threshold)
    called = probabilities >= threshold
    return np.where(positive, np.where(called, "TP", "FN"), np.where(called, "FP", "TN"))


def _bins(probabilities: np.ndarray, bins: int = 10) -> np.ndarray:
    return np.digitize(probabilities, np.arange(1, bins) / bins)


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """One row per equal-width bin [low, high) of P(pneumonia); 1 is in the last.

    Columns low, high, n (images), mean_probability and observed (share of pneumonia), both NaN in an empty bin.
    """
    positive, probabilities = _checked(labels, probabilities)
    rows = pd.DataFrame({"p": probabilities, "y": positive.astype(float)}).groupby(_bins(probabilities, bins))
    table = rows.agg(n=("y", "size"), mean_probability=("p", "mean"), observed=("y", "mean")).reindex(range(bins))
    edges = np.arange(bins + 1) / bins
    return table.assign(low=edges[:-1], high=edges[1:], n=table["n"].fillna(0).astype(int))[
        ["low", "high", "n", "mean_probability", "observed"]
    ]


def _weighted(positive: np.ndarray, probability: np.ndarray, threshold: float, weights: np.ndarray) -> dict:
    """METRICS -> float (r,), NaN where undefined, of r resamples that hold each image `weights` times, int (r, n).

    The images must be in ascending order of `probability`.
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
            "ece": np.abs(np.add.reduceat(error, edges, axis=1)).sum(axis=1) / total,
        }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def metrics(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> dict[str, float | None]:
    """Every name in METRICS -> its value in [0, 1], or None where it is undefined.

    auc and average_precision (scikit-learn's definitions) need both classes, sensitivity an image with pneumonia,
    specificity one without, precision a positive call, npv a negative one. brier is the mean squared error of
    P(pneumonia) (Brier 1950), ece its expected calibration error in the 10 equal-width bins of `reliability` (Naeini
    et al. 2015, Obtaining well calibrated probabilities; Guo et al. 2017, On calibration of modern neural networks).
    """
    positive, probabilities = _checked(labels, probabilities, threshold)
    order = np.lexsort((positive, probabilities))
    once = np.ones((1, order.size), dtype=np.int64)
    values = _weighted(positive[order], probabilities[order], threshold, once)
    return {name: _number(values[name][0]) for name in METRICS}


def _whose(patients: Iterable) -> tuple[np.ndarray, pd.Index]:
    """For each image the number of its patient, int (n,), -1 where missing, and the patients in order."""
    return pd.factorize(pd.Series(list(patients), dtype=object), sort=True)


def _times_drawn(random: np.random.Generator, resamples: int, patients: int) -> np.ndarray:
    """int (resamples, patients): how often each patient is drawn, as many draws as patients, with replacement."""
    drawn = random.integers(patients, size=(resamples, patients)) + patients * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * patients).reshape(resamples, -1)


def bootstrap(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float, patients: Iterable, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """METRICS -> {"value", "low", "high"}: `metrics` with 95% percentile intervals from resampled patients.

    Patients, not images, are drawn with replacement, since images of one patient resemble each other (cluster
    bootstrap: Field and Welsh 2007, Bootstrapping clustered data, JRSS B 69). `patients` (n,): whose each image is.
    A resample that leaves a metric undefined does not count for it; where more than half do, low and high are None.
    The threshold stays as it is. Where nothing or everything was wrong, resampling cannot show how wrong it might be:
    accuracy, sensitivity, specificity, precision and npv of 0 or 1 get the exact binomial interval of as many patients
    (Clopper and Pearson 1934); others may have an interval without width, which is not shown. Resampling adds to a
    small ece, so that its interval can lie above its value.
    """
    value = metrics(labels, probabilities, threshold)
    positive, probabilities = _checked(labels, probabilities)
    patient, names = _whose(patients)
    if patient.size != positive.size or (patient < 0).any():
        raise InputError(f"the {positive.size} images need a patient each; some are missing.")
    if resamples < 1:
        raise InputError(f"resamples={resamples} gives no interval; use 1000.")
    order = np.lexsort((positive, patient, probabilities))  # the first two: equal bytes in any order of rows
    positive, probabilities, patient = positive[order], probabilities[order], patient[order]
    random, parts = np.random.default_rng(seed), []
    for start in range(0, resamples, 250):  # as many at once as memory holds with ease
        rows = min(250, resamples - start)
        times = _times_drawn(random, rows, len(names))
        parts.append(_weighted(positive, probabilities, threshold, times[:, patient]))
    result = {}
    for name in METRICS:
        values = np.concatenate([part[name] for part in parts])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [2.5, 97.5]) if 2 * values.size >= resamples else (np.nan, np.nan)
        result[name] = {"value": value[name], "low": _number(low), "high": _number(high)}
    called = probabilities >= threshold
    shares = {"sensitivity": positive, "specificity": ~positive, "precision": called, "npv": ~called}
    for name, counted in (shares | {"accuracy": np.ones_like(called)}).items():
        if value[name] in (0, 1):
            about = len(np.unique(patient[counted]))
            exact = binomtest(int(value[name]) * about, about).proportion_ci(method="exact")
            result[name] |= {"low": float(exact.low), "high": float(exact.high)}
    return result


def mean_interval(values: ArrayLike, patients: Iterable, resamples: int, seed: int) -> dict[str, float]:
    """{"value", "low", "high"}: mean of `values`, (n,), its 95% interval by `patients`, as `bootstrap`."""
    values = np.asarray(values, np.float64)
    patient, names = _whose(patients)
    weights = _times_drawn(np.random.default_rng(seed), resamples, len(names))[:, patient]
    means = (weights * values).sum(axis=1) / weights.sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
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
    patient, names = _whose(patients)
    random = np.random.default_rng(seed)
    times = _times_drawn(random, resamples, len(names))
    values, samples = [], []
    for probabilities, threshold in (one, other):
        positive, scores = _checked(labels, probabilities, threshold)
        order = np.lexsort((positive, scores))
        values.append(metrics(labels, probabilities, threshold))
        samples.append(_weighted(positive[order], scores[order], threshold, times[:, patient[order]]))
    result = {}
    for name in METRICS:
        before, after = (value[name] for value in values)
        change = samples[1][name] - samples[0][name]
        change = change[np.isfinite(change)]
        if before is None or after is None or 2 * change.size < resamples:
            result[name] = dict.fromkeys(("difference", "low", "high", "p"))
            continue
        low, high = np.percentile(change, [2.5, 97.5])
        p = min(1.0, max(2 * min((change <= 0).mean(), (change >= 0).mean()), 1 / resamples))
        result[name] = {"difference": after - before, "low": float(low), "high": float(high), "p": float(p)}
    return result


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


def with_interval(metric: dict) -> str:
    """ "0.981 (0.968 to 0.993)" of a metric with value, low and high; without brackets where these tell nothing."""
    value, interval = _text(metric)
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


def compare_published(summary: dict, name: str, how: str) -> pd.DataFrame:
    """This run, called `name` and obtained as `how` says, on top of PUBLISHED.

    Columns who, accuracy, sensitivity, specificity (percent), AUC (fraction), n, how (with the source); the numbers as
    text, this run's with their 95% interval in brackets.
    """
    digits = {"accuracy": (100, 1), "sensitivity": (100, 1), "specificity": (100, 1), "auc": (1, 3)}
    own = {"who": name, "n": summary["n"], "how": how}
    own |= {key: "{} ({})".format(*_text(summary[key], *digits[key])) for key in digits}
    others = [r | {k: "–" if r[k] is None else f"{r[k]:.{d}f}" for k, (_, d) in digits.items()} for r in PUBLISHED]
    for row in others:
        row["how"] += f" ({row['source']})" if row["source"] else ""
    return pd.DataFrame([own, *others], columns=["who", *digits, "n", "how"]).rename(columns=in_words)
