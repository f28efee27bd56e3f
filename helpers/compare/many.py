"""Many runs on one page: means and ranges, what a setting changes, folds joined, what it all cost."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from helpers import config, dataset, evaluation, storage
from helpers.compare import figures, pair
from helpers.config import InputError
from helpers.evaluation import METRICS, POSITIVE
from helpers.run import report, state

REPEATED = ("seed", "fold")  # settings that repeat a run; runs that differ in others are compared
SHOWN = ("auc", "accuracy", "sensitivity", "specificity")
RANKED = ("auc", "average_precision", "brier", "ece")  # metrics without a threshold


class Finished(NamedTuple):
    """A run that was evaluated; `settings` are those in which the runs differ."""

    name: str
    record: dict
    predictions: pd.DataFrame
    metrics: dict
    settings: dict[str, str]

    def group(self) -> str:
        """The settings that are no repetition, such as "recipe=full"."""
        found = [f"{name}={value}" for name, value in self.settings.items() if name not in REPEATED]
        return ", ".join(found) or "all runs"

    def tested(self) -> pd.DataFrame:
        """Predictions of the test images, or of validation where there are none."""
        return self.predictions[self.predictions["split"] == ("test" if "test" in self.metrics else "validation")]

    def images(self) -> str:
        """Fingerprint of the tested images: equal for runs whose metrics can be paired."""
        return storage.fingerprint(sorted(zip(self.tested()["path"], self.tested()["sha256"], strict=True)))

    def answers(self) -> evaluation.RunAnswers:
        """What the metrics rest on; its patients are resampled alike in all runs on the same images."""
        rows = self.tested().sort_values("path")
        threshold = self.metrics["test" if "test" in self.metrics else "validation"]["threshold"]
        seed = int(self.images(), 16) % 2**31
        return evaluation.RunAnswers(rows["label"] == POSITIVE, rows["probability"], threshold, rows["patient"], seed)


def compare(names: list[str], folder: Path) -> list[tuple[str, pd.DataFrame | str]]:
    """Titles with a table, a sentence or a figure each; joined folds are written to `folder`.

    Runs that did not come to their end are listed with what stopped them. InputError where none has been evaluated.
    """
    stopped = {name: why for name in names if (why := _why_stopped(name))}
    runs = _load([name for name in names if _evaluated(name)])
    parts: list[tuple[str, pd.DataFrame | str]] = []
    if stopped:
        rows = pd.DataFrame(stopped.items(), columns=["run", "why"])
        parts.append((f"{len(stopped)} of {len(names)} runs did not come to their end", rows))
    if not runs:
        raise InputError("no run has been evaluated:\n" + "\n".join(f"{name}: {why}" for name, why in stopped.items()))
    parts += [("Runs", _table(runs)), ("Means over runs", _means(runs))]
    parts += [("How to read them", HOW), ("Metrics by setting", figures.metrics_by_group(_by_group(runs)))]
    parts += [("Validation beside test", figures.validation_beside_test(_by_group(runs)))]
    parts += _differences(runs) + _folds(runs, folder)
    return [*parts, ("What it cost", figures.cost({run.name: run.record["notebooks"] for run in runs}))]


HOW = (
    "A mean is over the runs of a row, such as its seeds, and its interval from resampling patients, the same ones in "
    "every run: what other patients would change. The range is that of the runs: what other seeds or folds did."
)


def _evaluated(name: str) -> bool:
    folder = config.run_folder(name)
    record = state.read_record(folder)
    return record is not None and state.evaluated(record, folder)


def _why_stopped(name: str) -> str:
    """Where a run stopped, with notebook, cell and reason; "" where it came to its end."""
    record = state.read_record(config.run_folder(name))
    if not record:
        return "it has not begun, or its settings were refused: see its log"
    for stem, entry in sorted(record["notebooks"].items()):
        if entry.get("status") == "failed" and (failure := entry.get("failure")):
            return f"{stem}, cell {failure['cell']} ({failure['line']}): {failure['error']}{failure['message']}"
    waiting = [stem for stem, entry in sorted(record["notebooks"].items()) if entry.get("status") != "done"]
    return f"{', '.join(waiting)} has not run to its end" if waiting else ""


def _load(names: list[str]) -> list[Finished]:
    loaded = [(name, *pair.load_run(name)) for name in names]
    given = {key for _, record, *_ in loaded for key in record.get("changed", record["parameters"])} | {"profile"}
    values = {key: [str(record["parameters"].get(key, "–")) for _, record, *_ in loaded] for key in config.FIELDS}
    varied = [key for key in values if key in given and len(set(values[key])) > 1]
    return [Finished(*run, {key: values[key][i] for key in varied}) for i, run in enumerate(loaded)]


def _by_group(runs: list[Finished]) -> dict[str, list[Finished]]:
    found: dict[str, list[Finished]] = {}
    for run in runs:
        found.setdefault(run.group(), []).append(run)
    return found


def _table(runs: list[Finished]) -> pd.DataFrame:
    """A row a run: what is special about it, metrics on test and one on validation, and its cost."""
    rows = []
    for run in runs:
        test, validation = run.metrics.get("test", {}), run.metrics.get("validation", {})
        row = {"run": run.name} | run.settings | {"images": test.get("n", "–")}
        row |= {evaluation.in_words(name): evaluation.with_interval(test[name]) for name in SHOWN if name in test}
        row["AUC, validation"] = evaluation.with_interval(validation["auc"]) if "auc" in validation else "–"
        entries = run.record["notebooks"].values()
        row["time"] = report.human_time(sum(entry.get("seconds", 0) for entry in entries))
        row["memory"] = report.human_bytes(max(entry.get("peak_memory", 0) for entry in entries))
        rows.append(row)
    return pd.DataFrame(rows).fillna("–")


def _means(runs: list[Finished]) -> pd.DataFrame:
    """A row for each group and metric: mean over its runs with an interval by patient, and range."""
    rows = []
    for group, members in _by_group(runs).items():
        for name, found in evaluation.mean_over_runs([run.answers() for run in members]).items():
            spread = "–" if found["least"] is None else f"{found['least']:.3f} to {found['most']:.3f}"
            mean = evaluation.with_interval(found)
            rows.append((group, report.human_name(name), len(members), mean, spread))
    return pd.DataFrame(rows, columns=["group", "metric", "runs", "mean (95% interval by patient)", "range of runs"])


def _differences(runs: list[Finished]) -> list[tuple[str, pd.DataFrame | str]]:
    """For every setting but seed and fold, each value against the first, in runs that differ in nothing else."""
    parts: list[tuple[str, pd.DataFrame | str]] = []
    tests = 0
    for setting in [name for name in runs[0].settings if name not in REPEATED]:
        first, *others = dict.fromkeys(run.settings[setting] for run in runs)
        for value in others:
            title = f"{setting}: {value} against {first}"
            pairs = [
                (one.answers(), other.answers())
                for one in runs
                for other in runs
                if (one.settings[setting], other.settings[setting]) == (first, value)
                and one.settings | {setting: value} == other.settings
                and one.images() == other.images()
            ]
            if not pairs:
                parts.append((title, "No two runs on the same test images differ in this setting alone."))
                continue
            found = evaluation.group_differences(*zip(*pairs, strict=True))
            rows = [(report.human_name(name), *pair.difference_texts(change)) for name, change in found.items()]
            tests += len(rows)
            title += f" (pairs of runs: {len(pairs)})"
            parts.append((title, pd.DataFrame(rows, columns=["metric", "difference (95% interval)", "p"])))
    chance = f"{tests} metrics are tested and p is not corrected for that: some below 0.05 may be chance."
    return [*parts, ("How to read p", chance)] if tests else parts


def _folds(runs: list[Finished], folder: Path) -> list[tuple[str, pd.DataFrame | str]]:
    """Where all folds of k are there: their validation predictions joined, measured, and written to `folder`."""
    groups: dict[tuple, dict[int, Finished]] = {}
    for run in runs:
        fold = config.parse_fold(str(run.record["parameters"].get("fold", "")))
        if isinstance(fold, tuple):
            others = [f"{name}={value}" for name, value in run.settings.items() if name != "fold"]
            groups.setdefault((fold[1], ", ".join(others) or "all runs"), {})[fold[0]] = run
    rows, tables, missing = [], [], []
    for (count, group), members in groups.items():
        if len(members) < count:
            missing.append(f"{group}: {len(members)} of {count} folds")
            continue
        joined = pd.concat([_held_out(run, fold) for fold, run in members.items()])
        tables.append(joined.assign(group=group))
        labels, decided = joined["label"] == POSITIVE, joined["probability"] >= joined["threshold"]
        ranked = evaluation.bootstrap(labels, joined["probability"], 0.5, joined["patient"], 1000, 0)
        called = evaluation.bootstrap(labels, decided.astype(float), 0.5, joined["patient"], 1000, 0)
        texts = [evaluation.with_interval((ranked if name in RANKED else called)[name]) for name in METRICS]
        rows += [(group, report.human_name(name), text) for name, text in zip(METRICS, texts, strict=True)]
    parts: list[tuple[str, pd.DataFrame | str]] = []
    if tables:
        dataset.write_table(pd.concat(tables), folder / "out_of_fold.csv")
        columns = ["group", "metric", f"value, {len(tables[0])} images (95% interval)"]
        parts = [("Out of fold: validation of all folds, joined", pd.DataFrame(rows, columns=columns))]
        parts += [("How to read it", OUT_OF_FOLD)]
    return parts + ([("Folds that are missing", "; ".join(missing))] if missing else [])


OUT_OF_FOLD = (
    "Every training image is predicted once, by the model that did not train on it (out_of_fold.csv), and called by "
    "that fold's own threshold. Epoch, calibration and threshold of a fold were chosen on these same images, so that "
    "the numbers lie somewhat too high; sensitivity is what the policy asked for."
)


def _held_out(run: Finished, fold: int) -> pd.DataFrame:
    rows = run.predictions[run.predictions["split"] == "validation"]
    return rows.assign(fold=fold, threshold=run.metrics["validation"]["threshold"]).drop(columns=["split", "sha256"])
