"""Put a run's model into data/pretrained, with a model card: `python -m helpers.publish RUN`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import jinja2
import pandas as pd

from helpers import config, dataset, evaluation, model, storage
from helpers.config import InputError
from helpers.run import provenance, report, state

MOST_BYTES = 12_000_000


def publish(run: str, target: Path) -> None:
    """Copy reports/`run`/model to `target` and write MODEL_CARD.md beside it.

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
    size = sum((folder / "model" / name).stat().st_size for name in ("model.keras", model.guard.FILE))
    if size > MOST_BYTES:
        raise InputError(f"the model of reports/{run} has {size / 1e6:.1f} MB; a clone takes {MOST_BYTES / 1e6:.0f}.")
    text = _card(run, folder, record, card)
    model.copy(folder / "model", target)
    storage.write_text(target / "MODEL_CARD.md", text)


def _card(run: str, folder: Path, record: dict, card: dict) -> str:
    """The text of the model card."""
    settings, command = state.recorded_settings(record), record["command"]
    for key in provenance.PATHS:  # of this machine, but for other runs: their last part says enough
        value = getattr(settings, key)
        if value and not value.startswith("reports/"):
            command = command.replace(value, Path(value).name)
    predictions = dataset.read_table(folder / "predictions.csv", "05_evaluation")
    manifest = dataset.read_table(folder / "manifest.csv", "01_eda")
    numbers = dataset.shared_numbers(manifest)
    sizes = manifest.loc[~manifest["excluded"], ["width", "height"]].drop_duplicates().astype(int).to_numpy().tolist()
    counted = dataset.read_table(folder / "splits.csv", "02_preprocessing").groupby("split", sort=False)
    flow = counted.agg(
        n=("path", "size"), patients=("patient", "nunique"), ill=("label", lambda part: (part == "PNEUMONIA").mean())
    )
    entries = record["notebooks"]
    made = [stem for stem in entries if stem[:2] in ("03", "04", "05")]
    explained = any(stem[:2] == "06" and entry.get("status") == "done" for stem, entry in entries.items())
    environment = jinja2.Environment(  # noqa: S701 - Markdown, of our own numbers
        loader=jinja2.FileSystemLoader(report.TEMPLATES), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["interval"] = evaluation.with_interval
    return environment.get_template("model_card.md.j2").render(
        card=card,
        settings=settings,
        run=shlex.quote(run),
        command=command,
        code=[entries[stem] | {"number": stem[:2], "code": provenance.commit_of(entries[stem])} for stem in made],
        flow=flow.reindex([name for name in ("train", "validation", "test") if name in flow.index]).itertuples(),
        excluded=int((manifest["excluded"] & (manifest["split"] != "test")).sum()),
        numbers=numbers.loc["bare number"],
        within=numbers.loc["patient (number and subtype)", "in both"],
        size=sizes[0] if len(sizes) == 1 else None,
        certainty={name: _certainty(part, card) for name, part in predictions.groupby("split")},
        measured={name: evaluation.table(part) for name, part in card["metrics"].items()},
        explained=storage.read_json(folder / "explanations.json") if explained else None,
    )


def _certainty(part: pd.DataFrame, card: dict) -> list[str]:
    """Of a split: how many are uncertain, wrong although certain, and wrongly certain in either class."""
    p, ill, (low, high) = part["probability"], part["label"] == "PNEUMONIA", card["uncertain"]
    sure = evaluation.certain(ill, p, card["threshold"], card["uncertain"])
    return [
        f"{len(part) - sure['n']} of {len(part)}",
        f"{sure['n'] - sure['right']} of {sure['n']}",
        f"{(p[~ill] > high).sum()} of {(~ill).sum()}",
        f"{(p[ill] < low).sum()} of {ill.sum()}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 2 where the run's model cannot be published."""
    parser = argparse.ArgumentParser(prog="python -m helpers.publish", description=__doc__)
    parser.add_argument("run", help="folder below reports/")
    given = parser.parse_args(arguments)
    try:
        publish(given.run, config.PRETRAINED)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{config.relative_path(config.PRETRAINED)}: model.keras, model.json, {model.guard.FILE}, MODEL_CARD.md")
    return 0
