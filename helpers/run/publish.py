"""Put a run's model into data/pretrained, with a model card: `python -m helpers.publish RUN`.

Its predictions are kept beside it. Without RUN the model there is measured anew from these, as when a formula changes.
With --report RUN the pages of its evaluation are put into reports/results, without a picture of a person.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd

from helpers import config, dataset, evaluation, model, storage
from helpers.config import InputError
from helpers.run import provenance, report, state

MOST_BYTES = 12_000_000


def publish(run: str, target: Path) -> None:
    """Copy reports/`run`/model to `target`, packed, and write MODEL_CARD.md and predictions.csv beside it.

    InputError where the run has not been evaluated on test images, is of phantoms or of a saved model, or its model is
    above 12 MB.
    """
    folder, record = state.finished(run)
    card = model.read_card(folder / "model")
    if not (card.get("metrics") or {}).get("test") or card.get("phantoms") or "guard_sha256" not in card:
        raise InputError(f"reports/{run} is no run on real images: its model has no test numbers to tell.")
    if not card.get("public", True):
        raise InputError(f"reports/{run} was not trained on the public dataset: the card would say what is not so.")
    if record["parameters"].get("model"):
        raise InputError(f"reports/{run} evaluates a saved model: publish the run that trained it.")
    settings, command, entries = state.recorded_settings(record), record["command"], record["notebooks"]
    command = report.hidden(command, provenance.private_paths(settings, published=True))
    predictions = dataset.read_table(folder / "predictions.csv", "05_evaluation")
    manifest = dataset.read_table(folder / "manifest.csv", "01_eda")
    numbers = dataset.shared_numbers(manifest)
    sizes = manifest.loc[~manifest["excluded"], ["width", "height"]].drop_duplicates().astype(int).to_numpy().tolist()
    splits = dataset.read_table(folder / "splits.csv", "02_preprocessing")
    made = {stem[:2]: provenance.commit_of(entry) for stem, entry in entries.items() if "03" <= stem[:2] <= "05"}
    certain = {
        name: evaluation.certainty(part["label"] == "PNEUMONIA", part["probability"], card["uncertain"])
        for name, part in predictions.groupby("split")
    }
    about = {"card": card, "settings": settings, "commits": made, "command": command, "run": shlex.quote(run)}
    about |= {"splits": {name: splits[splits["split"] == name] for name in ("train", "validation", "test")}}
    about |= {"excluded": int((manifest["excluded"] & (manifest["split"] != "test")).sum()), "certain": certain}
    about |= {"numbers": numbers.loc["bare number"], "size_of_copies": sizes[0] if len(sizes) == 1 else None}
    about |= {"within": numbers.loc["patient (number and subtype)", "in both"]}
    about |= {"tables": "\n\n".join(_table(name, part) for name, part in card["metrics"].items())}
    about |= {"rarer": _where_rarer(card["metrics"]["test"])}
    about |= {"heatmaps": storage.read_json(folder / "explanations.json") if state.explained(record) else {}}
    text = report.write("model_card.md.j2", **about)
    with tempfile.TemporaryDirectory() as name:
        small = Path(name)
        model.copy(folder / "model", small)
        model.shrink(small)
        size = sum((small / part).stat().st_size for part in ("model.keras", model.ood.FILE))
        if size > MOST_BYTES:
            raise InputError(
                f"the model of reports/{run} has {size / 1e6:.1f} MB, packed; a clone takes {MOST_BYTES / 1e6:.0f}."
            )
        model.copy(small, target)
    (target / "robustness.json").unlink(missing_ok=True)  # an older model's
    storage.write_text(target / "MODEL_CARD.md", text)
    patients = splits[["path", "patient", "subtype"]]
    dataset.write_table(predictions.merge(patients, on="path", validate="one_to_one"), target / "predictions.csv")


def publish_report(run: str, above: Path) -> Path:
    """Write pages 05 and 06 of reports/`run` and its index into `above`/`run`, all numbers and plots but no X-ray.

    InputError where these notebooks are not done, or file names may tell who a patient is.
    """
    target, (folder, record) = above / run, state.finished(run)
    pages = {stem: record["notebooks"][stem] for stem in sorted(record["notebooks"]) if stem[:2] in ("05", "06")}
    if [entry["status"] for entry in pages.values()] != ["done", "done"]:
        raise InputError(f"reports/{run} has to be finished first: `python -m helpers.run --name {run} --resume`.")
    if record["parameters"].get("traps", "none") != "none":
        raise InputError(f"reports/{run} makes a mistake on purpose (traps): its numbers are not for others.")
    if not dataset.public_names(dataset.read_table(folder / "manifest.csv", "01_eda")):
        raise InputError(f"reports/{run} has files with names of their own, which may tell who a patient is.")
    hide = provenance.private_paths(state.recorded_settings(record), published=True)
    record, titles = report.hidden(record, hide), [(stem, entry["title"]) for stem, entry in pages.items()]
    for stem in pages:
        report.render(folder / f"{stem}.ipynb", target / f"{stem}.html", titles, record, hide=hide, published=True)
    shutil.copy(folder / "metrics.json", target)
    return report.write_index(folder, target, hide)


def remeasure(target: Path) -> None:
    """Measure the model in `target` anew from predictions.csv beside it: metrics in model.json, tables in the card."""
    card, written = model.read_card(target), config.require_file(target / "MODEL_CARD.md", "helpers.publish RUN")
    text = written.read_text(encoding="utf-8")
    usual, metrics = config.Settings(), {}
    for name, part in dataset.read_table(target / "predictions.csv", "helpers.publish").groupby("split"):
        policy = card["threshold"], card["threshold_policy"]
        metrics[name] = evaluation.summarise(part, *policy, usual.resamples, usual.seed)
        text = re.sub(rf"(?m)^\| {name} \(n = \d+\) \| .*\n(\|.*\n)+", _table(name, metrics[name]) + "\n", text)
    text = re.sub(r"(?m)^\| prevalence \| .*\n(\|.*\n)+", _where_rarer(metrics["test"]) + "\n", text)
    kept = storage.read_json(target / "robustness.json")
    tables = "".join(f"\n{_markdown(name, pd.DataFrame(**found))}\n" for name, found in kept.items())
    text = re.sub(r"(?s)(?<=<!-- elsewhere -->\n).*(?=<!-- end -->)", lambda _: tables, text)
    model.write_card(target, card | {"metrics": metrics})
    storage.write_text(target / "MODEL_CARD.md", text)


def _table(name: str, summary: dict) -> str:
    return _markdown(f"{name} (n = {summary['n']})", evaluation.table(summary).set_index("metric"))


def _where_rarer(summary: dict) -> str:
    table = evaluation.where_rarer(summary)
    return _markdown("prevalence", table) if len(table) else ""


def _markdown(name: str, table: pd.DataFrame) -> str:
    lines = [f"| {' | '.join([name, *table])} |", "|---" * (1 + len(table.columns)) + "|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in table.itertuples()])


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 2 where the run's model cannot be published, or none is there to be measured."""
    parser = argparse.ArgumentParser(prog="python -m helpers.publish", description=__doc__)
    one = parser.add_mutually_exclusive_group()
    one.add_argument("run", nargs="?", help="folder below reports/; left out: measure the model in the clone anew")
    one.add_argument("--report", metavar="RUN", help="instead: put pages 05 and 06 of RUN into reports/results/RUN")
    config.add_reports_argument(parser)
    given = parser.parse_args(arguments)
    wrote = f"{config.relative_path(config.PRETRAINED)}: model.keras, model.json, {model.ood.FILE}, MODEL_CARD.md"
    try:
        if given.report:
            wrote = config.relative_path(publish_report(given.report, config.REPORTS / "results"))
        elif given.run:
            publish(given.run, config.PRETRAINED)
        else:
            remeasure(config.PRETRAINED)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}.", file=sys.stderr)
        return 2
    print(wrote)
    return 0
