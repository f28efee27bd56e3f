"""What a report says: the summary of metrics.json, tables, and numbers with their intervals in words."""

from __future__ import annotations

import pandas as pd

from helpers.config import InputError
from helpers.evaluation.decisions import NEGATIVE, POSITIVE, outcomes
from helpers.evaluation.intervals import bootstrap, predictive_values
from helpers.evaluation.metrics import METRICS, measure

RARER = (0.01, 0.05, 0.2)  # prevalences that precision and NPV are carried over to
_NAMES = {"auc": "AUC", "npv": "NPV", "f1": "F1", "ece": "ECE", "brier": "Brier score"}


def summarise(frame: pd.DataFrame, threshold: float, policy: str, resamples: int, seed: int) -> dict:
    """One block of metrics.json: every metric of these images with its interval.

    Parameters
    ----------
    frame : DataFrame, one row an image
        Columns label (NORMAL, PNEUMONIA), patient, subtype (bacteria, virus, or empty) and probability, in [0, 1].
    threshold : float in [0, 1]
        An image is called positive from this probability on.
    policy : str
        How the threshold was chosen; kept beside it.
    resamples, seed : int
        As in `bootstrap`.

    Returns
    -------
    dict, ready for JSON
        n, patients (how many), prevalence, threshold, threshold_policy, confusion (tp, fp, fn, tn), the metrics of
        `bootstrap`, and by_subtype: {subtype: {"n", "patients", "sensitivity"}} of the pneumonia images whose subtype
        is known.

    Raises
    ------
    InputError
        Where a column or a patient is missing, there is no image, a label is neither NORMAL nor PNEUMONIA, a
        probability is NaN or outside [0, 1], the threshold is NaN, or `resamples` is below 2.
    """
    missing = {"label", "patient", "subtype", "probability"} - set(frame.columns)
    if missing or not frame["label"].isin([NEGATIVE, POSITIVE]).all():
        problem = f"no column {', '.join(sorted(missing))}" if missing else f"a label not {NEGATIVE} or {POSITIVE}"
        raise InputError(f"the predictions have {problem}; run 05_evaluation again.")

    def counts(rows: pd.DataFrame) -> dict:
        return {"n": len(rows), "patients": int(rows["patient"].nunique())}

    def intervals(rows: pd.DataFrame) -> dict:
        return bootstrap(rows["label"] == POSITIVE, rows["probability"], threshold, rows["patient"], resamples, seed)

    positive = frame["label"] == POSITIVE
    found = outcomes(positive, frame["probability"], threshold).tolist()
    labelled = frame[positive & frame["subtype"].notna() & (frame["subtype"] != "")].groupby("subtype")
    return counts(frame) | {
        "prevalence": float(positive.mean()),
        "threshold": float(threshold),
        "threshold_policy": policy,
        "confusion": {name: found.count(name.upper()) for name in ("tp", "fp", "fn", "tn")},
        **intervals(frame),
        "by_subtype": {str(k): counts(rows) | {"sensitivity": intervals(rows)["sensitivity"]} for k, rows in labelled},
    }


def characteristics(frame: pd.DataFrame) -> pd.DataFrame:
    """Table 1: who is in each split.

    Parameters
    ----------
    frame : DataFrame, one row an image
        Columns split, label (NORMAL, PNEUMONIA), patient and subtype (bacteria, virus, or empty).

    Returns
    -------
    DataFrame of text
        A column for each split, in order of appearance. Rows: images; patients; images of each class, and of each
        subtype of pneumonia, with their percentage of the split's images; age and sex, which the dataset does not
        record.

    Examples
    --------
    >>> rows = [("train", "NORMAL", "a", ""), ("train", "PNEUMONIA", "b", "virus"), ("train", "PNEUMONIA", "b", "")]
    >>> characteristics(pd.DataFrame(rows, columns=["split", "label", "patient", "subtype"]))["train"].tolist()
    ['3', '2', '1 (33%)', '2 (67%)', '1 (33%)', '1 (33%)', 'not recorded', 'not recorded']
    """
    named = [f"{POSITIVE}, {s if isinstance(s, str) and s else 'subtype unknown'}" for s in frame["subtype"]]
    subtype, table = pd.Series(named, frame.index).where(frame["label"] == POSITIVE), {}
    for split, part in frame.groupby("split", sort=False):
        counts = {name: (part["label"] == name).sum() for name in (NEGATIVE, POSITIVE)}
        counts |= {name: (subtype[part.index] == name).sum() for name in sorted(subtype.dropna().unique())}
        table[split] = {"images": f"{len(part):,}", "patients": f"{part['patient'].nunique():,}"}
        table[split] |= {name: f"{count:,} ({count / len(part):.0%})" for name, count in counts.items()}
        table[split] |= dict.fromkeys(("age", "sex"), "not recorded")
    return pd.DataFrame(table)


def in_words(name: str) -> str:
    """The name of a metric to read.

    Examples
    --------
    >>> in_words("auc"), in_words("balanced_accuracy")
    ('AUC', 'balanced accuracy')
    """
    return _NAMES.get(name, name.replace("_", " "))


def _text(metric: dict, scale: float = 1, digits: int = 3) -> tuple[str, str]:
    """Value and interval to read; "–" for what is undefined, or an interval without width, which tells nothing."""
    numbers = (metric[key] for key in ("value", "low", "high"))
    value, low, high = ("–" if number is None else f"{scale * number:.{digits}f}" for number in numbers)
    return value, "–" if "–" in (low, high) or metric["low"] == metric["high"] else f"{low} to {high}"


def with_interval(metric: dict, scale: float = 1, digits: int = 3) -> str:
    """The value of a metric with its interval in brackets.

    Parameters
    ----------
    metric : dict
        "value", "low" and "high", as from `bootstrap`; None where undefined.
    scale : float
        What to multiply by: 100 for percent.
    digits : int
        How many after the point.

    Returns
    -------
    str
        Without brackets where there is no interval, or one without width; "–" where there is no value.

    Examples
    --------
    >>> with_interval({"value": 0.9813, "low": 0.968, "high": 0.993})
    '0.981 (0.968 to 0.993)'
    """
    value, interval = _text(metric, scale, digits)
    return value + (f" ({interval})" if interval != "–" else "")


def sentence(name: str, metric: dict) -> str:
    """A metric to read in a sentence.

    Examples
    --------
    >>> sentence("auc", {"value": 0.9813, "low": 0.968, "high": 0.993})
    'AUC 0.981 (0.968 to 0.993)'
    """
    return f"{in_words(name)} {with_interval(metric)}"


def describe_errors(summary: dict) -> str:
    """The errors of a summary in a sentence or two.

    Examples
    --------
    >>> describe_errors({"confusion": {"tp": 97, "fn": 3, "fp": 4, "tn": 36}})
    'Of 100 images with pneumonia, 3 are missed. Of 40 normal images, 4 get a false alarm.'
    """
    tp, fp, fn, tn = (summary["confusion"][name] for name in ("tp", "fp", "fn", "tn"))
    return f"Of {tp + fn} images with pneumonia, {fn} are missed. Of {fp + tn} normal images, {fp} get a false alarm."


def table(summary: dict, baseline: bool = False) -> pd.DataFrame:
    """All metrics of a summary, to read.

    Parameters
    ----------
    summary : dict
        Result of `summarise`, also after a way through JSON.
    baseline : bool
        Whether to add a column for a model that always answers "pneumonia", with the prevalence for a probability.

    Returns
    -------
    DataFrame of text
        A row for each of METRICS, and for the sensitivity of each subtype. Columns metric, value, 95% interval, n,
        how many images it is about, and baseline, where asked for.
    """
    tp, fp, fn, tn = (summary["confusion"][name] for name in ("tp", "fp", "fn", "tn"))
    about = {"sensitivity": tp + fn, "specificity": tn + fp, "precision": tp + fp, "npv": tn + fn}
    rows = [(in_words(name), *_text(summary[name]), about.get(name, summary["n"])) for name in METRICS]
    parts = summary.get("by_subtype", {}).items()
    rows += [(f"sensitivity, {name}", *_text(part["sensitivity"]), part["n"]) for name, part in parts]
    found = pd.DataFrame(rows, columns=["metric", "value", "95% interval", "n"])
    if baseline:
        labels = [True] * (tp + fn) + [False] * (fp + tn)
        always = measure(labels, [summary["prevalence"]] * len(labels), 0.0)
        texts = {in_words(name): "–" if value is None else f"{value:.3f}" for name, value in always.items()}
        texts |= {f"sensitivity, {name}": texts["sensitivity"] for name, _ in parts}
        found["baseline"] = found["metric"].map(texts)
    return found


def where_rarer(summary: dict) -> pd.DataFrame:
    """Precision and NPV where pneumonia is rarer, with false alarms and missed pneumonias per 1,000 images.

    Parameters
    ----------
    summary : dict
        Result of `summarise`. Its sensitivity and specificity are taken to stay as they are.

    Returns
    -------
    DataFrame of text
        A row for each prevalence of RARER below that of `summary`, and a last one, "here"; none where a class is
        missing. Intervals by `predictive_values`, each prevalence taken as known.
    """
    found, spared, own = summary["sensitivity"], summary["specificity"], summary["prevalence"]
    if found["value"] is None or spared["value"] is None:
        return pd.DataFrame()
    rows = {}
    for name, prevalence in ({f"{p:g}": p for p in RARER if p < own} | {f"here: {own:.3f}": own}).items():
        precision, npv = predictive_values(found, spared, prevalence)
        texts = {"precision": with_interval(precision), "NPV": with_interval(npv, digits=4)}
        rows[name] = {key: text.replace(" ", "\N{NO-BREAK SPACE}") for key, text in texts.items()}
        rows[name]["false alarms"] = f"{1000 * (1 - prevalence) * (1 - spared['value']):.1f}"
        rows[name]["missed"] = f"{1000 * prevalence * (1 - found['value']):.1f}"
    return pd.DataFrame(rows).T.rename_axis("prevalence")
