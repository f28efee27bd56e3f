"""What the parts share: runs of the smoke profile in a copy of the code, and what of a run must not change."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import psutil

from tests.conftest import Clone, make_clone

SAME = ("manifest.csv", "splits.csv", "predictions.csv", "metrics.json", "explanations.json")
MODELS = ("head/model.keras", "model/model.keras")
LIMIT = 1800  # seconds after which a call counts as hanging


@dataclass
class Findings:
    """What a part did, for the summary, and what was wrong."""

    counts: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""

    def expect(self, holds: bool, text: str) -> None:
        """Note `text` as wrong unless it holds, and say so at once."""
        if not holds:
            self.wrong.append(text)
            print(f"  WRONG: {text}", flush=True)


def start(clone: Clone, output: Path, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """`python -m helpers.run arguments` in the clone, a process group of its own, both streams into `output`.

    `before` is a command that starts it, such as one that takes rights away.
    """
    command = [*before, sys.executable, "-m", "helpers.run", *map(str, arguments)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with output.open("wb") as stream:
        return subprocess.Popen(
            command, cwd=clone.root, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )


def running(output: Path) -> list[str]:
    """The notebooks that a call has begun, in order, from what it printed."""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.endswith("  running") and not line.startswith(" ")]


def weights(file: Path) -> str:
    """SHA-256 over names and bytes of a model's weights: the file around them says when it was saved."""
    digest = hashlib.sha256()

    def add(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            digest.update(name.encode() + node[()].tobytes())

    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as stored:
        stored.visititems(add)
    return digest.hexdigest()


def results(folder: Path) -> dict[str, str]:
    """Fingerprints of all that an undisturbed run and a disturbed one must have in common."""
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SAME}
    return found | {name: weights(folder / name) for name in MODELS}


def halves(clone: Clone) -> list[str]:
    """Files and folders that something began to write and did not finish."""
    found = [
        p
        for part in ("reports", "data")
        for p in (clone.root / part).rglob("*")
        if {"part", "old"} & {*p.name.split(".")}
    ]
    return [str(path.relative_to(clone.root)) for path in found]


def strays(clone: Clone) -> list[psutil.Process]:
    """Processes that work in the clone."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(clone.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@dataclass
class Undisturbed:
    """A whole run that nothing disturbed: what it made, and when each notebook began and it ended."""

    clone: Clone
    results: dict[str, str]
    stages: list[tuple[str, float]]  # (notebook, seconds from the start of the call); "" before the first
    seconds: float


def undisturbed(above: Path) -> Undisturbed:
    """Run the smoke profile in a fresh copy of the code below `above`."""
    clone, output = make_clone(above / "undisturbed"), above / "undisturbed.txt"
    begun, stages = time.monotonic(), [("", 0.0)]
    process = start(clone, output, "--profile", "smoke")
    while process.poll() is None:
        names = running(output)
        if names and names[-1] != stages[-1][0]:
            stages.append((names[-1], time.monotonic() - begun))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the undisturbed run failed:\n{output.read_text(encoding='utf-8')[-3000:]}")
    return Undisturbed(clone, results(clone.reports / "smoke"), stages, time.monotonic() - begun)
