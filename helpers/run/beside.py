"""The finished runs beside a run, for its report to stand among."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from helpers import evaluation, storage
from helpers.run import state


def runs_table(folder: Path) -> pd.DataFrame:
    """Every finished run beside `folder`, itself included, on the same dataset, sorted by recipe, backbone and seed.

    Index run; columns recipe, backbone, seed, n (test images), and as text with their intervals accuracy, sensitivity,
    specificity and auc. Left out are runs that were moved aside, and others than `folder` that are a copy, evaluate a
    saved model or make a mistake on purpose; where `folder` is a saved model's, its recipe is called "saved model" and
    it has no seed.
    """
    own, rows = state.dataset_state(folder), []
    for file in sorted(folder.parent.glob("*/metrics.json")):
        record = state.read_record(file.parent)  # None where notebooks were run by hand
        aside = re.search(r"\.\d{8}-\d{6}(-\d+)?$", file.parent.name)
        if aside or not record or not own or state.dataset_state(file.parent) != own:
            continue
        saved, copied = bool(record["parameters"].get("model")), record.get("run") != file.parent.name
        broken = record["parameters"].get("traps", "none") != "none"
        if file.parent != folder and (saved or copied or broken or not state.evaluated(record, file.parent)):
            continue
        if test := storage.read_json(file).get("test"):
            values = {name: record["parameters"].get(name) for name in ("recipe", "backbone", "seed")}
            if saved:
                backbone = storage.read_json(folder / "model" / "model.json").get("backbone")
                values = {"recipe": "saved model", "backbone": backbone, "seed": "–"}
            values["n"] = test["n"]
            for name in ("accuracy", "sensitivity", "specificity", "auc"):
                values[name] = evaluation.with_interval(test[name])
            rows.append({"run": file.parent.name} | values)
    columns = ["run", "recipe", "backbone", "seed", "n", "accuracy", "sensitivity", "specificity", "auc"]
    table = pd.DataFrame(rows, columns=columns).sort_values(["recipe", "backbone", "seed", "run"])
    return table.set_index("run").rename(columns=evaluation.in_words)
