"""What differs between two runs, and whether it matters."""

from __future__ import annotations

import pandas as pd

from helpers import config, dataset, evaluation, storage
from helpers.config import InputError
from helpers.evaluation import measure
from helpers.run import provenance, report, state


def load_run(run: str) -> tuple[dict, pd.DataFrame, dict]:
    """run.json, predictions with patients, and metrics.json of a run; InputError where one is missing."""
    folder, record = state.finished(run)
    predictions = dataset.read_table(folder / "predictions.csv", "05_evaluation")
    for name, column in (("splits.csv", "patient"), ("manifest.csv", "sha256")):
        more = dataset.read_table(folder / name, "05_evaluation")[["path", column]]
        predictions = predictions.merge(more, on="path", validate="one_to_one")
    metrics = storage.read_json(config.require_file(folder / "metrics.json", "05_evaluation"))
    return record, predictions, metrics


def _differing(one: dict, other: dict) -> list[tuple[str, str, str]]:
    """(name, value in one, value in other) of all that is not equal; "–" for what is not there."""
    names = sorted(one.keys() | other.keys())
    return [(n, str(one.get(n, "–")), str(other.get(n, "–"))) for n in names if one.get(n, "–") != other.get(n, "–")]


def _code(record: dict) -> dict:
    """What ran: versions, and of each notebook its commit, versions that were others, and fingerprints of its code."""
    found = {f"Keras' {name}": value for name, value in record.get("keras", {}).items()} | record.get("versions", {})
    for stem, entry in record["notebooks"].items():
        others = (pair for pair in entry.get("versions", {}).items() if pair not in record["versions"].items())
        found |= {f"{package} of {stem}": version for package, version in others}
        found[f"commit of {stem}"] = provenance.commit_of(entry)
        found[f"notebook {stem}"] = (entry.get("inputs") or {}).get("code", "unknown")
        found[f"helpers of {stem}"] = storage.fingerprint(entry["helpers"]) if entry.get("helpers") else "unknown"
    return found


def compare(first: str, second: str) -> list[tuple[str, pd.DataFrame | str]]:
    """Titles with a table or a sentence each: what differs in settings, versions and data, and in the metrics on test.

    Metrics are compared on the test images that both runs predicted (equal path, bytes and label), with intervals and
    p-values from resampling patients. InputError where a run cannot be read or no image is common to both.
    """
    if first == second:
        raise InputError(f"{first} and {second} are one run: name two.")
    (record_a, predicted_a, metrics_a), (record_b, predicted_b, metrics_b) = load_run(first), load_run(second)
    columns, parts = ["", first, second], list[tuple[str, pd.DataFrame | str]]()
    sides = {"Settings": lambda record: record["parameters"], "Code and versions": _code}
    sides |= {"Dataset": lambda record: record.get("dataset") or {}}
    for title, side in sides.items():
        rows = _differing(side(record_a), side(record_b))
        parts.append((title, pd.DataFrame(rows, columns=columns) if rows else "No difference."))
    both = predicted_a[predicted_a["split"] == "test"].merge(
        predicted_b[predicted_b["split"] == "test"], on=["path", "label", "sha256"], suffixes=("_a", "_b")
    )
    if both.empty:
        raise InputError(f"{first} and {second} have no test image in common: there is nothing to compare.")
    ill = both["label"] == evaluation.POSITIVE
    one = both["probability_a"], metrics_a["test"]["threshold"]
    other = both["probability_b"], metrics_b["test"]["threshold"]
    values, compared = [measure(ill, *one), measure(ill, *other)], []
    for name, change in evaluation.paired_differences(ill, one, other, both["patient_a"]).items():
        numbers = [_text(value[name]) for value in values]
        compared.append((report.human_name(name), *numbers, *difference_texts(change)))
    table = pd.DataFrame(compared, columns=["metric", first, second, "difference (95% interval)", "p"])
    same = (both["probability_a"] == both["probability_b"]).all()
    chance = f"{len(table)} metrics are tested and p is not corrected for that: one below 0.05 may be chance."
    parts += [(f"Test, {len(both)} images in common", table), ("How to read p", chance)]
    return [*parts, ("Predictions", "Equal to the last digit." if same else "Not equal.")]


def difference_texts(change: dict) -> tuple[str, str]:
    """A difference with its interval, and its p, as from `evaluation.paired_differences`."""
    interval = f"{_text(change['difference'], '+')} ({_text(change['low'], '+')} to {_text(change['high'], '+')})"
    p = change["p"]
    return interval, "< 0.001" if p and p < 0.001 else _text(p)


def _text(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"
