"""Where a run's numbers come from: its command, code, versions, machine."""

from __future__ import annotations

import contextlib
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

import psutil

from helpers import config, storage
from helpers.config import Settings

PATHS = ("data", "model", "weights")


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
    path = config.expanded(value)
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
    path = config.ROOT / config.expanded(value)
    if not value or (name == "weights" and (value in config.WEIGHTS or not path.exists())):
        return value
    return os.path.normpath(path)


def private_paths(settings: Settings, published: bool = False) -> dict[str, str]:
    """Texts that tell this machine from others, such as its folders -> what to write instead.

    With `published` only the last part of a path is left that leads out of reports/ and data/.
    """
    found: dict[str, str] = {}
    for key in PATHS:
        value = short = getattr(settings, key)
        if published and not value.startswith(("reports/", "data/")):
            short = Path(value).name
        found |= {absolute(key, value): short, value: short}
        if value and Path(absolute(key, value)).exists():  # a link to it is printed by where it leads
            found[str(Path(absolute(key, value)).resolve())] = short
    for place, short in ((config.ROOT, ""), (config.REPORTS, "reports/"), (Path.home(), "~/")):
        if place != place.parent:
            found[f"{place}{os.sep}"] = short
    return {full: short for full, short in found.items() if full != short}


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
        line = ["git", "-C", str(config.ROOT), "--no-optional-locks", *words]
        answer = subprocess.run(line, capture_output=True, text=True, check=True, env=environment, timeout=60)  # noqa: S603
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
    file = config.ROOT / "requirements" / "analysis.in"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    for name in re.findall(r"^[A-Za-z0-9][\w.-]*", text, re.MULTILINE):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def keras_settings() -> dict:
    """What Keras computes in, by what it reads when it is imported; a file that is missing it writes itself."""
    found = storage.read_json(Path(os.environ["KERAS_HOME"], "keras.json")) | {"backend": os.environ["KERAS_BACKEND"]}
    return {name: found.get(name) for name in ("backend", "floatx", "image_data_format")}


def machine() -> dict:
    """Platform, logical cores this process may use, and memory in bytes; nothing that names machine or user."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {"platform": system, "cores": usable, "memory": psutil.virtual_memory().total}


def provenance(name: str, settings: Settings, first: str) -> dict:
    """The part of run.json that says how to get the same numbers; `first` is the number of the first notebook."""
    found = {"format": 1, "run": name, "profile": settings.profile, "parameters": asdict(settings)}
    found |= {"changed": sorted(changed(settings)), "command": command(name, settings, first), "git": git_state()}
    found |= {"lock": sha256(config.ROOT / "requirements" / "analysis.lock"), "versions": versions()}
    return found | {"seeds": {"seed": settings.seed}, "machine": machine() | {"python": sys.implementation.name}}
