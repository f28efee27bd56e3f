"""What differs between two runs, and whether it matters: `python -m helpers.compare RUN_A RUN_B`."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

import pandas as pd

from helpers import config, evaluation, model, storage
from helpers.config import InputError
from helpers.evaluation import measure
from helpers.run import provenance, report


def _load(run: str) -> tuple[dict, pd.DataFrame, dict]:
    """run.json, predictions with patients, and metrics.json of a run; InputError where one is missing."""
    folder = config.run_folder(run)
    record = provenance.read_record(folder)
    if not record:
        raise InputError(
            f"there is no run in {config.shown(folder)}: name a folder below reports/ that has a run.json."
        )
    predictions = pd.read_csv(config.needs(folder / "predictions.csv", "05_evaluation"))
    if not provenance.evaluated(record, folder):
        raise InputError(
            f"reports/{run} is not finished, or its predictions are older than its settings; go on with "
            f"`python -m helpers.run --name {shlex.quote(run)} --resume` (--set what was changed in notebooks)."
        )
    for name, column in (("splits.csv", "patient"), ("manifest.csv", "sha256")):
        known = pd.read_csv(config.needs(folder / name, "05_evaluation"))[["path", column]]
        predictions = predictions.merge(known, on="path", validate="one_to_one")
    metrics = json.loads(config.needs(folder / "metrics.json", "05_evaluation").read_text(encoding="utf-8"))
    return record, predictions, metrics


def _differing(one: dict, other: dict) -> list[tuple[str, str, str]]:
    """(name, value in one, value in other) of all that is not equal; "–" for what is not there."""
    names = sorted(one.keys() | other.keys())
    return [(n, str(one.get(n, "–")), str(other.get(n, "–"))) for n in names if one.get(n, "–") != other.get(n, "–")]


def _code(record: dict) -> dict:
    """What ran: versions, and of each notebook its commit, versions that were others, and fingerprints of its code."""
    found = dict(record.get("versions", {}))
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
    (record_a, predicted_a, metrics_a), (record_b, predicted_b, metrics_b) = _load(first), _load(second)
    columns, parts = ["", first, second], []
    data = [record.get("dataset") or {} for record in (record_a, record_b)]
    sides = (
        ("Settings", record_a["parameters"], record_b["parameters"]),
        ("Code and versions", _code(record_a), _code(record_b)),
        ("Dataset", *data),
    )
    for title, one, other in sides:
        rows = _differing(one, other)
        parts.append((title, pd.DataFrame(rows, columns=columns) if rows else "No difference."))
    both = predicted_a[predicted_a["split"] == "test"].merge(
        predicted_b[predicted_b["split"] == "test"], on=["path", "label", "sha256"], suffixes=("_a", "_b")
    )
    if both.empty:
        raise InputError(f"{first} and {second} have no test image in common: there is nothing to compare.")
    ill = both["label"] == evaluation.POSITIVE
    pair = [
        (both[f"probability_{side}"], metrics["test"]["threshold"])
        for side, metrics in (("a", metrics_a), ("b", metrics_b))
    ]
    values = [measure(ill, *one) for one in pair]
    rows = []
    for name, change in evaluation.paired_differences(ill, *pair, both["patient_a"]).items():
        numbers = [_text(value[name]) for value in values]
        interval = f"{_text(change['difference'], '+')} ({_text(change['low'], '+')} to {_text(change['high'], '+')})"
        p = change["p"]
        rows.append((report.human_name(name), *numbers, interval, "< 0.001" if p and p < 0.001 else _text(p)))
    table = pd.DataFrame(rows, columns=["metric", first, second, "difference (95% interval)", "p"])
    same = (both["probability_a"] == both["probability_b"]).all()
    parts.append((f"Test, {len(both)} images in common", table))
    chance = f"{len(table)} metrics are tested and p is not corrected for that: one below 0.05 may be chance."
    parts.append(("How to read p", chance))
    parts.append(("Predictions", "Equal to the last digit." if same else "Not equal."))
    return parts


def runs_table(folder: Path) -> pd.DataFrame:
    """Every finished run beside `folder`, itself included, on the same dataset, sorted by recipe, backbone and seed.

    Index run; columns recipe, backbone, seed, n (test images), and as text with their intervals accuracy, sensitivity,
    specificity and auc. Left out are runs that were moved aside, and others than `folder` that are a copy or evaluate
    a saved model; where `folder` does, its recipe is called "saved model" and it has no seed.
    """
    own, rows = provenance.dataset_state(folder), []
    for file in sorted(folder.parent.glob("*/metrics.json")):
        record = provenance.read_record(file.parent)  # None where notebooks were run by hand
        aside = re.search(r"\.\d{8}-\d{6}(-\d+)?$", file.parent.name)
        if aside or not record or not own or provenance.dataset_state(file.parent) != own:
            continue
        saved, copied = bool(record["parameters"].get("model")), record.get("run") != file.parent.name
        if file.parent != folder and (saved or copied or not provenance.evaluated(record, file.parent)):
            continue
        if test := json.loads(file.read_text(encoding="utf-8")).get("test"):
            values = {name: record["parameters"].get(name) for name in ("recipe", "backbone", "seed")}
            if saved:
                backbone = model.read_card(folder / "model")["backbone"]
                values = {"recipe": "saved model", "backbone": backbone, "seed": "–"}
            values["n"] = test["n"]
            for name in ("accuracy", "sensitivity", "specificity", "auc"):
                values[name] = evaluation.with_interval(test[name])
            rows.append({"run": file.parent.name} | values)
    columns = ["run", "recipe", "backbone", "seed", "n", "accuracy", "sensitivity", "specificity", "auc"]
    table = pd.DataFrame(rows, columns=columns).sort_values(["recipe", "backbone", "seed", "run"])
    return table.set_index("run").rename(columns=evaluation.in_words)


def _text(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"


def main(arguments: list[str] | None = None) -> int:
    """The command: prints the comparison and writes it as a page; exit status 2 where it cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m helpers.compare", description=__doc__)
    parser.add_argument("first", metavar="RUN_A")
    parser.add_argument("second", metavar="RUN_B")
    given = parser.parse_args(arguments)
    try:
        parts = compare(given.first, given.second)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    page = config.REPORTS / f"compare-{given.first}-{given.second}.html"
    write_page(page, given.first, given.second, parts)
    try:
        for title, part in parts:
            shown = part if isinstance(part, str) else part.to_string(index=False)
            print(f"{title}\n{shown}\n")
        print(config.shown(page), flush=True)
    except BrokenPipeError:
        return storage.unread()
    return 0


def write_page(page: Path, first: str, second: str, parts: list[tuple[str, pd.DataFrame | str]]) -> None:
    """The comparison as one HTML file."""
    tables = [(title, part if isinstance(part, str) else part.to_dict("split")) for title, part in parts]
    folders = [config.run_folder(run) for run in (first, second)]
    phantoms = any(report.of_phantoms(provenance.read_record(folder), folder) for folder in folders)
    storage.write_text(page, report.render_comparison(first, second, tables, phantoms))
