"""Put a run's model into data/pretrained, with a model card: `python -m helpers.publish RUN`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import pandas as pd

from helpers import config, dataset, evaluation, model, storage
from helpers.config import InputError
from helpers.run import provenance

MOST_BYTES = 12_000_000
_TEXT = """# Model card: the model in the clone

Says how likely a frontal chest X-ray of a child shows pneumonia, as a probability, a decision and a heatmap. For
trying, teaching and criticising. **Not a medical device.**

## Data

Chest X-ray images of children aged one to five from one hospital (Guangzhou Women and Children's Medical Center):
Kermany, Zhang, Goldbaum, *Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for Classification*,
Mendeley Data, 2018, doi 10.17632/rscbjbr9sj, CC BY 4.0. Sex and exact age are not known. Two physicians graded the
images, a third checked the test images.

| | images | patients, by file name | pneumonia |
|---|---|---|---|
{flow}

Trained on images of its train and val folders alone; the validation images, of other patients, chose epoch,
calibration, threshold and band. No test image chose any of these, but the recipe grew over rounds whose results on test
images were seen (README.md). Left out of train and val, as unreadable or copies: {excluded}. Of {numbers} bare patient
numbers in test (the 7 of person7), {shared} occur in train, too, {within} of them within one series of names: the files
cannot tell whether these are the same children.{copies}

## The model

{backbone}, started from {weights}, raw grey pixels {size} x {size}; recipe `{recipe}` of helpers/config.py, seed
{seed}.{teacher} Commit {commit}. Made by:

```
{command}
python -m helpers.publish {run}
```

Positive from a probability of {threshold:.4f} on (policy `{policy}`, chosen on the validation images {views}).
From {low:.4f} to {high:.4f} the page says "uncertain: needs a reader"; outside, it claims to be certain:

| | uncertain | wrong, of the certain | certain, but wrong: of the healthy | of the sick |
|---|---|---|---|---|
{doubt}

The band was set so that at most 1% of each class lies beyond it on the wrong side, on the views that set the threshold.

## Measured

Value with its 95% interval from resampling patients; accuracy, sensitivity, specificity, precision and NPV have an
exact binomial one, of as many images as vary like the resamples, at most as many as there are.

{tables}

The public test set has 624 images; where n is smaller, the others were not at hand.
{looks}
## Limits

- Children of one hospital and one time. On adults and at other hospitals such models fail; nothing was measured there.
- Labels come from readings of these images, not from microbiology; some are wrong.
- The dataset has shortcuts (compression, aspect ratio, markers, edges). Augmentation is meant to make them harder to
  use; how far it does, see reports/RESULTS.md.
- The guard stops most of what is no chest X-ray, not all; see reports/RESULTS.md for how it was measured.
- Probabilities assume the share of pneumonia among the validation images; where it is rarer, they are too high, and
  precision is lower than measured here.
- Heatmaps are hints, not findings. A method with far more heat in the outer tenth than an even spread would have says
  nothing of where in the lungs.

The weights: CC BY 4.0, as the images; name their source. The code: MIT.
"""
_VIEWS = "as they are and under {} random changes each, as in training but for frames"
_LOOKS = """
Where it looks (notebook 6; heat on {} images):

| | |
|---|---|
{}
"""
_COPIES = """

All images, in training and test, were copies already resized to {} x {} pixels. Originals, with their own compression
and aspect ratio, were neither trained on nor measured."""


def publish(run: str, target: Path) -> None:
    """Copy reports/`run`/model to `target` and write MODEL_CARD.md beside it.

    InputError where the run has not been evaluated on test images, is of phantoms or of a saved model, or its model is
    above 12 MB.
    """
    folder = config.run_folder(run)
    record, card = provenance.read_record(folder), model.read_card(folder / "model")
    measured = record and provenance.evaluated(record, folder) and (card.get("metrics") or {}).get("test")
    if not measured or card.get("phantoms") or "guard_sha256" not in card:
        raise InputError(f"reports/{run} is no finished run on real images: its model has no test numbers to tell.")
    if not card.get("public", True):
        raise InputError(f"reports/{run} was not trained on the public dataset: the card would say what is not so.")
    if record["parameters"].get("model"):
        raise InputError(f"reports/{run} evaluates a saved model: publish the run that trained it.")
    size = sum((folder / "model" / name).stat().st_size for name in ("model.keras", model.guard.FILE))
    if size > MOST_BYTES:
        raise InputError(f"the model of reports/{run} has {size / 1e6:.1f} MB; a clone takes {MOST_BYTES / 1e6:.0f}.")
    settings, metrics = provenance.recorded_settings(record), card["metrics"]
    command = record["command"]
    for key in provenance.PATHS:  # of this machine, but for other runs: their last part says enough
        value = getattr(settings, key)
        if value and not value.startswith("reports/"):
            command = command.replace(value, Path(value).name)
    predictions = dataset.read_table(folder / "predictions.csv", "05_evaluation")
    views = settings.validation_views
    manifest = dataset.read_table(folder / "manifest.csv", "01_eda")
    numbers = dataset.shared_numbers(manifest)
    sizes = manifest.loc[~manifest["excluded"], ["width", "height"]].drop_duplicates().astype(int).to_numpy().tolist()
    text = _TEXT.format(
        flow=_flow(dataset.read_table(folder / "splits.csv", "02_preprocessing")),
        excluded=int((manifest["excluded"] & (manifest["split"] != "test")).sum()),
        numbers=numbers.loc["bare number", "in test"],
        shared=numbers.loc["bare number", "in both"],
        within=numbers.loc["patient (number and subtype)", "in both"],
        copies=_COPIES.format(*sizes[0]) if len(sizes) == 1 else "",
        backbone=card["backbone"],
        weights=card["weights_origin"],
        size=card["input_size"][0],
        recipe=settings.recipe,
        teacher=" Taught by a larger model: half of each target is what that one says." if settings.teacher else "",
        seed=settings.seed,
        commit=_commits(record),
        command=command,
        run=shlex.quote(run),
        threshold=card["threshold"],
        policy=card["threshold_policy"],
        views=_VIEWS.format(views) if views else "as they are",
        doubt="\n".join(_doubt(name, part, card) for name, part in predictions.groupby("split")),
        looks=_looks(folder, record),
        low=card["uncertain"][0],
        high=card["uncertain"][1],
        tables="\n\n".join(_table(name, part) for name, part in metrics.items()),
    )
    model.copy(folder / "model", target)
    storage.write_text(target / "MODEL_CARD.md", text)


def _commits(record: dict) -> str:
    """The commit that trained and evaluated the model, or several with their notebooks."""
    found: dict[str, list[str]] = {}
    for stem, entry in record["notebooks"].items():
        if stem[:2] in ("03", "04", "05"):
            found.setdefault(provenance.commit_of(entry), []).append(stem[:2])
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{commit} (notebook {', '.join(numbers)})" for commit, numbers in found.items())


def _flow(splits: pd.DataFrame) -> str:
    """The rows of the card's table of images and patients."""
    counted = splits.groupby("split", sort=False).agg(
        n=("path", "size"), patients=("patient", "nunique"), ill=("label", lambda part: (part == "PNEUMONIA").mean())
    )
    rows = counted.reindex([name for name in ("train", "validation", "test") if name in counted.index]).itertuples()
    return "\n".join(f"| {row.Index} | {row.n} | {row.patients} | {row.ill:.1%} |" for row in rows)


def _doubt(name: str, part: pd.DataFrame, card: dict) -> str:
    """One row of the card's table on the band of doubt."""
    p, sick, (low, high) = part["probability"], part["label"] == "PNEUMONIA", card["uncertain"]
    sure = evaluation.certain(sick, p, card["threshold"], card["uncertain"])
    cells = (
        f"{len(part) - sure['n']} of {len(part)}",
        f"{sure['n'] - sure['right']} of {sure['n']}",
        f"{(p[~sick] > high).sum()} of {(~sick).sum()}",
        f"{(p[sick] < low).sum()} of {sick.sum()}",
    )
    return f"| {name} | {' | '.join(cells)} |"


def _looks(folder: Path, record: dict) -> str:
    """What notebook 6 measured, as a section of the card; nothing where it did not run, or not on this model."""
    if not any(stem.startswith("06") and entry.get("status") == "done" for stem, entry in record["notebooks"].items()):
        return ""
    found = json.loads((folder / "explanations.json").read_text(encoding="utf-8"))
    summary = found["summary"]
    shown = {name: evaluation.with_interval(v) if isinstance(v, dict) else v for name, v in summary.items()}
    rows = "\n".join(f"| {name} | {'–' if value is None else value} |" for name, value in shown.items())
    return _LOOKS.format(found["split"], rows)


def _table(name: str, summary: dict) -> str:
    rows = evaluation.table(summary)
    lines = [f"| {name} (n = {summary['n']}) | value | 95% interval | images |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows.itertuples(index=False)])


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
    print(f"{config.shown(config.PRETRAINED)}: model.keras, model.json, {model.guard.FILE}, MODEL_CARD.md")
    return 0
