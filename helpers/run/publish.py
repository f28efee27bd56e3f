"""Put a run's model into data/pretrained, with a model card: `python -m helpers.publish RUN`.

Its predictions are kept beside it. Without RUN the model there is measured anew from these, as when a formula changes.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from helpers import config, dataset, evaluation, model, storage
from helpers.config import InputError
from helpers.run import provenance, report, state

MOST_BYTES = 12_000_000


def publish(run: str, target: Path) -> None:
    """Copy reports/`run`/model to `target` and write MODEL_CARD.md and predictions.csv beside it.

    InputError where the run has not been evaluated on test images, is of phantoms or of a saved model, or its model is
    above 12 MB.
    """
    folder = config.run_folder(run)
    record, card = state.read_record(folder), model.read_card(folder / "model")
    measured = record and state.evaluated(record, folder) and (card.get("metrics") or {}).get("test")
    if not record or not measured or card.get("phantoms") or "guard_sha256" not in card:
        raise InputError(f"reports/{run} is no finished run on real images: its model has no test numbers to tell.")
    if not card.get("public", True):
        raise InputError(f"reports/{run} was not trained on the public dataset: the card would say what is not so.")
    if record["parameters"].get("model"):
        raise InputError(f"reports/{run} evaluates a saved model: publish the run that trained it.")
    size = sum((folder / "model" / name).stat().st_size for name in ("model.keras", model.ood.FILE))
    if size > MOST_BYTES:
        raise InputError(f"the model of reports/{run} has {size / 1e6:.1f} MB; a clone takes {MOST_BYTES / 1e6:.0f}.")
    settings, command, entries = state.recorded_settings(record), record["command"], record["notebooks"]
    for key in provenance.PATHS:  # of this machine, but for other runs: their last part says enough
        value = getattr(settings, key)
        if value and not value.startswith("reports/"):
            command = command.replace(value, Path(value).name)
    predictions = dataset.read_table(folder / "predictions.csv", "05_evaluation")
    manifest = dataset.read_table(folder / "manifest.csv", "01_eda")
    numbers = dataset.shared_numbers(manifest)
    sizes = manifest.loc[~manifest["excluded"], ["width", "height"]].drop_duplicates().astype(int).to_numpy().tolist()
    splits = dataset.read_table(folder / "splits.csv", "02_preprocessing")
    explained = any(stem[:2] == "06" and entry.get("status") == "done" for stem, entry in entries.items())
    made = {stem[:2]: provenance.commit_of(entry) for stem, entry in entries.items() if "03" <= stem[:2] <= "05"}
    certain = {
        name: evaluation.certainty(part["label"] == "PNEUMONIA", part["probability"], card["uncertain"])
        for name, part in predictions.groupby("split")
    }
    text = _template().render(
        splits={name: splits[splits["split"] == name] for name in ("train", "validation", "test")},
        excluded=int((manifest["excluded"] & (manifest["split"] != "test")).sum()),
        numbers=numbers.loc["bare number"],
        within=numbers.loc["patient (number and subtype)", "in both"],
        size_of_copies=sizes[0] if len(sizes) == 1 else None,
        card=card,
        settings=settings,
        commits=made,
        command=command,
        run=shlex.quote(run),
        certain=certain,
        tables="\n\n".join(_table(name, part) for name, part in card["metrics"].items()),
        heatmaps=storage.read_json(folder / "explanations.json") if explained else {},
    )
    model.copy(folder / "model", target)
    storage.write_text(target / "MODEL_CARD.md", text)
    patients = splits[["path", "patient", "subtype"]]
    dataset.write_table(predictions.merge(patients, on="path", validate="one_to_one"), target / "predictions.csv")


def remeasure(target: Path) -> None:
    """Measure the model in `target` anew from predictions.csv beside it: metrics in model.json, tables in the card."""
    card, text = model.read_card(target), (target / "MODEL_CARD.md").read_text(encoding="utf-8")
    usual, metrics = config.Settings(), {}
    for name, part in dataset.read_table(target / "predictions.csv", "helpers.publish").groupby("split"):
        policy = card["threshold"], card["threshold_policy"]
        metrics[name] = evaluation.summarise(part, *policy, usual.resamples, usual.seed)
        text = re.sub(rf"(?m)^\| {name} \(n = \d+\) \| .*\n(\|.*\n)+", _table(name, metrics[name]) + "\n", text)
    model.write_card(target, card | {"metrics": metrics})
    storage.write_text(target / "MODEL_CARD.md", text)


def _template() -> Template:
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # noqa: S701 (Markdown)
    environment.filters["interval"] = evaluation.with_interval
    return environment.from_string((report.TEMPLATES / "model_card.md.j2").read_text(encoding="utf-8"))


def _table(name: str, summary: dict) -> str:
    rows = evaluation.table(summary)
    lines = [f"| {name} (n = {summary['n']}) | value | 95% interval | images |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows.itertuples(index=False)])


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 2 where the run's model cannot be published, or none is there to be measured."""
    parser = argparse.ArgumentParser(prog="python -m helpers.publish", description=__doc__)
    parser.add_argument("run", nargs="?", help="folder below reports/; left out: measure the model in the clone anew")
    given = parser.parse_args(arguments)
    try:
        publish(given.run, config.PRETRAINED) if given.run else remeasure(config.PRETRAINED)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{config.relative_path(config.PRETRAINED)}: model.keras, model.json, {model.ood.FILE}, MODEL_CARD.md")
    return 0
