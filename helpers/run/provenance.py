"""Where a run's numbers come from: code, versions, data, machine; and what each notebook's result depends on."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import psutil

from helpers import config, storage
from helpers.config import FIELDS, InputError, Settings
from helpers.dataset import dataset_fingerprint, image_files
from helpers.run import sources

PATHS = ("data", "model", "teacher", "weights")
WRITES = {
    "01": ("manifest.csv", "near_duplicates.csv", "images.npy"),
    "02": ("splits.csv",),
    "03": ("head/model.keras", "head/model.json"),
    "04": ("model/model.keras", "model/model.json"),
    "05": ("predictions.csv", "metrics.json", "model/model.json", "model/guard.npz"),
    "06": ("explanations.json",),
}


@functools.lru_cache(maxsize=64)
def _sha256(path: str, size: int, changed: int) -> str:
    return storage.sha256(Path(path))


def sha256(path: Path) -> str | None:
    """SHA-256 of a file's bytes, remembered while its size and time stay; None where there is no file."""
    try:
        state = path.stat()
        return _sha256(str(path), state.st_size, state.st_mtime_ns)
    except OSError:
        return None


def portable(name: str, value: str) -> str:
    """A path setting as recorded: as given if absolute, else relative to the clone's root instead of the caller's."""
    path = Path(value).expanduser()
    if not value or (name == "weights" and value in config.WEIGHTS):
        return value
    if path.is_absolute() or (name == "weights" and not path.exists()):
        return str(path)
    try:
        return Path(os.path.relpath(path.absolute(), config.ROOT)).as_posix()
    except ValueError:  # another drive, on Windows
        return str(path.absolute())


def absolute(name: str, value: str) -> str:
    """A recorded path setting as a notebook needs it, whatever its working directory; words such as "none" stay."""
    path = config.ROOT / Path(value).expanduser()
    if not value or (name == "weights" and (value in config.WEIGHTS or not path.exists())):
        return value
    return os.path.normpath(path)


def changed(settings: Settings) -> dict:
    """The settings, by name, that together with their profile make these: recipe, data, and what differs from them."""
    given = {"recipe": settings.recipe, "data": absolute("data", settings.data)}
    usual, default = config.make_settings(settings.profile), config.make_settings(settings.profile, given)
    named = {"data": settings.data} if settings.data else {}
    rest = {name: value for name, value in asdict(settings).items() if name != "data"}
    differing = named | {name: value for name, value in rest.items() if value != getattr(default, name)}
    return ({"recipe": settings.recipe} if settings.recipe != usual.recipe else {}) | differing


def command(name: str, settings: Settings, first: str) -> str:
    """The command line that repeats the run from the clone's root; `first` is its first notebook's number."""
    differing = changed(settings)
    words = ["python", "-m", "helpers.run", "--profile", settings.profile, "--name", name]
    if "data" in differing:
        words += ["--data", differing.pop("data")]
    if first != "01":
        words += ["--from", first]
    if differing:
        words += ["--set", *(f"{key}={value}" for key, value in differing.items())]
    return " ".join(shlex.quote(word) for word in words)


def git_state() -> dict | None:
    """{"commit", "clean"} of the clone; None outside one, or where git is missing."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def ask(*words: str) -> str:
        asked = ["git", "-C", str(config.ROOT), "--no-optional-locks", *words]
        answer = subprocess.run(asked, capture_output=True, text=True, check=True, env=environment, timeout=60)  # noqa: S603
        return answer.stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != config.ROOT:
            return None
        return {"commit": ask("rev-parse", "HEAD"), "clean": not ask("status", "--porcelain")}
    except (OSError, subprocess.SubprocessError):
        return None


def commit_of(entry: dict) -> str:
    """The commit at which a notebook ran, of its entry in run.json, and whether files differed from it."""
    return (entry.get("commit") or "unknown") + ("" if entry.get("clean", True) else " with uncommitted changes")


def versions() -> dict[str, str]:
    """Versions of Python and of every direct dependency that is installed."""
    found = {"python": platform.python_version()}
    listed = config.ROOT / "requirements" / "analysis.in"
    for line in listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []:
        if name := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line):
            try:
                found[name.group()] = importlib.metadata.version(name.group())
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def machine() -> dict:
    """Platform, logical cores this process may use, and memory in bytes; nothing that names machine or user."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {"platform": system, "cores": usable, "memory": psutil.virtual_memory().total}


def dataset_state(folder: Path) -> dict | None:
    """{"fingerprint", "files"} of the run's manifest: SHA-256 over its sorted "path sha256" lines; None without one."""
    try:
        manifest = pd.read_csv(folder / "manifest.csv", usecols=["path", "sha256"], keep_default_na=False)
    except (OSError, ValueError):
        return None
    return {"fingerprint": dataset_fingerprint(manifest), "files": len(manifest)}


def listing(settings: Settings) -> str:
    """Fingerprint of the dataset's images by name, size and time; "" for phantoms that the settings determine."""
    if settings.phantoms and not settings.data:
        return ""
    root = Path(absolute("data", settings.data)) if settings.data else config.dataset_folder(settings)
    files = []
    for path, *_ in image_files(root) if root.is_dir() else ():
        try:
            state = (root / path).stat()
            files.append((path, state.st_size, state.st_mtime_ns))
        except OSError:
            files.append((path, -1, 0))
    return storage.fingerprint(sorted(files))


def inputs(
    notebooks: list[Path], settings: Settings, folder: Path, data: str, entries: dict[str, dict]
) -> dict[str, dict]:
    """For every notebook of a run, by stem, what its result depends on, each in short; "key" is all of it together.

    `data` is the `listing` of the dataset, `entries` what run.json says of the notebooks so far. The step after 01
    depends on 01 through what that wrote alone, so that a dataset which moved but did not change costs no training.
    """
    needed, above = {}, ""
    for index, notebook in enumerate(notebooks):
        number = notebook.name[:2]
        names = [n for n in FIELDS if FIELDS[n].metadata["notebook"] <= number and (index == 0 or n != "data")]
        parts = {"settings": storage.fingerprint(config.not_neutral(settings, names))}
        parts["code"] = storage.fingerprint(sources.of_notebook(notebook))
        if index == 0:
            parts["dataset"] = data
        elif index == 1 and number == "02" and (folder / "manifest.csv").exists():
            parts["manifest"] = storage.fingerprint([sha256(folder / name) for name in WRITES["01"]])
        else:
            parts["earlier"] = above
        if number == "03" and settings.weights:
            parts["weights"] = sha256(Path(absolute("weights", settings.weights))) or ""
        for setting, reader in (("teacher", "04"), ("model", "05")):
            if number == reader and (folder_named := getattr(settings, setting)):
                parts[setting] = sha256(Path(absolute(setting, folder_named)) / "model.json") or ""
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
    "teacher": "the teacher changed",
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
    for name, digest in entry.get("wrote", {}).items():
        last, found = max(number for number, names in WRITES.items() if name in names), sha256(folder / name)
        if not found or (last == stem[:2] and found != digest):
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


def recorded_settings(record: dict) -> Settings:
    """Settings of a run as its run.json has them; InputError where they are no longer possible.

    What a setting made since then does was not done in that run: it has its neutral value, not the recipe's.
    """
    recorded = {name: value for name, value in record["parameters"].items() if name in FIELDS}
    known = {name: value for name, value in (asdict(Settings()) | recorded).items() if name != "profile"}
    try:
        return config.make_settings(record["parameters"].get("profile", "demo"), known)
    except InputError as error:
        raise InputError(f"run.json of this run cannot be used: {error} Give another --name.") from error


def provenance(name: str, settings: Settings, folder: Path, first: str) -> dict:
    """The part of run.json that says how to get the same numbers."""
    return {
        "format": 1,
        "run": name,
        "profile": settings.profile,
        "parameters": asdict(settings),
        "changed": sorted(changed(settings)),
        "command": command(name, settings, first),
        "git": git_state(),
        "lock": sha256(config.ROOT / "requirements" / "analysis.lock"),
        "versions": versions(),
        "seeds": {"seed": settings.seed},
        "dataset": dataset_state(folder),
        "machine": machine() | {"python": sys.implementation.name},
    }
