"""Fixtures that several test files share: copies of the clone to run in, and one run of the smoke profile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import config

COPIED = ("helpers", "notebooks", "requirements", ".gitignore")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Clone:
    """A copy of the code with its own data/ and reports/, so that tests meet neither the user's runs nor each other."""

    root: Path

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    def python(self, module: str, *arguments: object) -> subprocess.CompletedProcess:
        """`python -m module arguments` as typed at the root of the clone; stdout and stderr as text."""
        left_out = ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", "MPLBACKEND")
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=900
        )

    def record(self, name: str) -> dict:
        """run.json of the run `name`."""
        return json.loads((self.reports / name / "run.json").read_text(encoding="utf-8"))


def make_clone(root: Path) -> Clone:
    """Copy the working tree's code to `root`, which must not exist."""
    root.mkdir(parents=True)
    for name in COPIED:
        source = config.ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=LEFT_OUT)
        else:
            shutil.copy(source, root / name)
    return Clone(root)


def commit(clone: Clone) -> str:
    """Make the copy a git clone with one commit; its hash, "" where there is no git."""
    if not shutil.which("git"):
        return ""
    git = [
        "git",
        "-C",
        str(clone.root),
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--no-verify", "-m", "as it is"]):
        subprocess.run([*git, *words], check=True, env=environment, capture_output=True)
    asked = subprocess.run([*git, "rev-parse", "HEAD"], check=True, env=environment, capture_output=True, text=True)
    return asked.stdout.strip()


@dataclass(frozen=True)
class SmokeRun:
    """The smoke profile, run once for all tests: nobody changes its folder."""

    clone: Clone
    name: str
    folder: Path
    data: Path  # the phantoms it drew
    commit: str
    done: subprocess.CompletedProcess


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> SmokeRun:
    """`python -m helpers.run --profile smoke --name contracts`, in a fresh clone at a path with a blank in it."""
    above = tmp_path_factory.mktemp("smoke")
    clone = make_clone(above / "fresh clone")
    head = commit(clone)
    name = "contracts-7f3a"  # found nowhere else, should it leak into a result
    done = clone.python("helpers.run", "--profile", "smoke", "--name", name)
    yield SmokeRun(clone, name, clone.reports / name, clone.root / "data" / "smoke", head, done)
    shutil.rmtree(above, ignore_errors=True)


@pytest.fixture
def clone(tmp_path) -> Clone:
    """A fresh copy of the code, for one test."""
    return make_clone(tmp_path / "clone")
