"""The state of a run, by its run.json: what each notebook's result depends on, and which notebooks are done."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from helpers import config, dataset, storage
from helpers.config import FIELDS, InputError, Settings
from helpers.run import sources
from helpers.run.provenance import absolute, sha256

WRITES = {
    "01": ("manifest.csv", "near_duplicates.csv", "images.npy"),
    "02": ("splits.csv",),
    "03": ("head/model.keras", "head/model.json"),
    "04": ("model/model.keras", "model/model.json"),
    "05": ("predictions.csv", "metrics.json", "model/model.json", "model/guard.npz"),
    "06": ("explanations.json", "cases.json"),
}


def dataset_state(folder: Path) -> dict | None:
    """{"fingerprint", "files"} of the run's manifest: SHA-256 over its sorted "path sha256" lines; None without one."""
    try:
        manifest = pd.read_csv(folder / "manifest.csv", usecols=["path", "sha256"], keep_default_na=False)
    except (OSError, ValueError):
        return None
    return {"fingerprint": dataset.dataset_fingerprint(manifest), "files": len(manifest)}


def dataset_hash(settings: Settings) -> str:
    """Fingerprint of the dataset's images by name, size and time; "" for phantoms that the settings determine."""
    if settings.phantoms and not settings.data:
        return ""
    return dataset.files_fingerprint(
        Path(absolute("data", settings.data)) if settings.data else config.dataset_folder(settings)
    )


def inputs(
    notebooks: list[Path], settings: Settings, folder: Path, data: str, entries: dict[str, dict]
) -> dict[str, dict]:
    """For every notebook of a run, by stem, what its result depends on, each in short; "key" is all of it together.

    `data` is the `dataset_hash` of the dataset, `entries` what run.json says of the notebooks so far. The step after 01
    depends on 01 through what that wrote alone, so that a dataset which moved but did not change costs no training.
    """
    needed, above = {}, ""
    for index, notebook in enumerate(notebooks):
        number = notebook.name[:2]
        names = [n for n in FIELDS if FIELDS[n].metadata["notebook"] <= number and (index == 0 or n != "data")]
        parts = {"settings": storage.fingerprint(config.non_default(settings, names))}
        parts["code"] = storage.fingerprint(sources.of_notebook(notebook))
        if index == 0:
            parts["dataset"] = data
        elif index == 1 and number == "02" and (folder / "manifest.csv").exists():
            parts["manifest"] = storage.fingerprint([sha256(folder / name) for name in WRITES["01"]])
        else:
            parts["earlier"] = above
        if number == "03" and settings.weights:
            parts["weights"] = sha256(Path(absolute("weights", settings.weights))) or ""
        if number == "05" and settings.model:
            parts["model"] = sha256(Path(absolute("model", settings.model)) / "model.json") or ""
        needed[notebook.stem] = parts | {"key": storage.fingerprint(parts)}
        above = storage.fingerprint([parts, entries.get(notebook.stem, {}).get("wrote", {})])
    return needed


def written(folder: Path, number: str) -> dict[str, str]:
    """SHA-256 of the files notebook `number` owes the run folder, those that are there."""
    found = {name: sha256(folder / name) for name in WRITES.get(number, ())}
    return {name: digest for name, digest in found.items() if digest}


REASONS = {
    "settings": "its settings changed",
    "code": "the notebook's code changed",
    "dataset": "files in the dataset folder changed",
    "manifest": "what 01 wrote changed",
    "earlier": "an earlier notebook or its result changed",
    "weights": "the weights file changed",
    "model": "the model changed",
}


def why_not_done(entry: dict, parts: dict, folder: Path, stem: str) -> str:
    """Why a recorded notebook has to run (again); "" when it is done and what it depends on is unchanged."""
    status = entry.get("status", "pending")
    if status not in ("done", "outdated"):
        reasons = {"running": "it was interrupted", "failed": "it failed", "interrupted": "it was interrupted"}
        return reasons.get(status, "it has not run yet")
    for name in (f"{stem}.ipynb", f"{stem}.html"):
        if not (folder / name).exists():
            return f"{name} is missing"
    if entry.get("key") != parts["key"]:
        before = entry.get("inputs", {})
        found = [text for part, text in REASONS.items() if before.get(part) != parts.get(part)]
        return " and ".join(found) or "what it depends on changed"
    owed = {name: number for number, names in WRITES.items() for name in names}  # the last that writes it
    for name, digest in entry.get("wrote", {}).items():
        there = sha256(folder / name)
        if name in owed and (not there or (owed[name] == stem[:2] and there != digest)):
            return f"{name} is missing or was changed"
    return ""


def read_record(folder: Path) -> dict | None:
    """run.json of a run folder; None where it is missing or is not the runner's."""
    record = storage.read_json(folder / "run.json")
    usable = all(isinstance(record.get(key), dict) for key in ("parameters", "notebooks"))
    return record if usable else None


def unevaluated(record: dict, folder: Path) -> list[str]:
    """Stems of the notebooks that have to run before the metrics in `folder` are those of the run's settings.

    05 is among them where it is not done, or what it wrote was changed since; earlier ones where they were begun anew,
    or their settings changed. (One whose code alone has changed does not count, once 05 has run after that.)
    """
    found = []
    for stem, entry in sorted(record.get("notebooks", {}).items()):
        status = entry.get("status")
        kept = status == "done" or (status == "outdated" and REASONS["settings"] not in entry.get("why", ""))
        if stem[:2] < "05" and not kept:
            found.append(stem)
        if stem[:2] == "05":
            wrote = entry.get("wrote", {}).items()
            if status != "done" or any(sha256(folder / name) != digest for name, digest in wrote):
                found.append(stem)
    return found


def evaluated(record: dict, folder: Path) -> bool:
    """Whether 05 has run and nothing is `unevaluated`."""
    return any(stem.startswith("05") for stem in record["notebooks"]) and not unevaluated(record, folder)


def explained(record: dict) -> bool:
    """Whether notebook 06 is done, and of the predictions that are there."""
    return any(stem[:2] == "06" and one.get("status") == "done" for stem, one in record.get("notebooks", {}).items())


def finished(run: str) -> tuple[Path, dict]:
    """Folder and run.json of the run `run`; InputError where there is none, or it is not `evaluated`."""
    folder = config.run_folder(run)
    record, where = read_record(folder), config.relative_path(folder)
    if not record:
        raise InputError(f"there is no run in {where}: name a folder below reports/ that has a run.json.")
    if not evaluated(record, folder):
        raise InputError(
            f"{where} is not finished, or its predictions are older than its settings; go on with "
            f"`python -m helpers.run --name {shlex.quote(run)} --resume` (--set what was changed in notebooks)."
        )
    return folder, record


def recorded_settings(record: dict) -> Settings:
    """Settings of a run as its run.json has them; InputError where they are no longer possible.

    What a setting made since then does was not done in that run: it has its neutral value, not the recipe's.
    """
    recorded = {name: value for name, value in record["parameters"].items() if name in FIELDS}
    settings = {name: value for name, value in (asdict(Settings()) | recorded).items() if name != "profile"}
    try:
        return config.make_settings(record["parameters"].get("profile", "demo"), settings)
    except InputError as error:
        raise InputError(f"run.json of this run cannot be used: {error} Give another --name.") from error
