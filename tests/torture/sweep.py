"""Kill a sweep of two recipes and three seeds in its middle, let it go on, and compare its runs with the same alone."""

from __future__ import annotations

import hashlib
import importlib.util
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from helpers import config
from tests.conftest import Clone, make_clone
from tests.torture import kills, runs
from tests.torture.runs import Findings

SETS = "seed=1,2,3 recipe=classic,full"
RUNS = {
    f"seed-{seed}-recipe-{recipe}": (f"seed={seed}", f"recipe={recipe}")
    for seed in (1, 2, 3)
    for recipe in ("classic", "full")
}
EQUAL = ("metrics.json", "predictions.csv")


def make_sweep_clone(root: Path) -> Clone:
    """A copy of the code that can sweep."""
    clone = make_clone(root)
    shutil.copy(config.ROOT / "Snakefile", root)
    shutil.copytree(config.ROOT / "workflow", root / "workflow")
    return clone


def start(clone: Clone, output: Path, profile: str, *words: str) -> subprocess.Popen:
    """The sweep as `make sweep` begins it, two runs at once, in a process group of its own."""
    command = [sys.executable, "-m", "snakemake", "--profile", f"workflow/profiles/{profile}", "--jobs", "2", *words]
    command += ["--config", "profile=smoke", f"sets={SETS}", "sweep=sweep"]
    with output.open("wb") as stream:
        return subprocess.Popen(command, cwd=clone.root, stdout=stream, stderr=stream, start_new_session=True)


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in EQUAL}


def finished(clone: Clone) -> list[str]:
    return sorted(file.parent.name for file in clone.reports.glob("sweep-*/metrics.json"))


def written(clone: Clone) -> dict[str, int]:
    """When each run was last written."""
    return {name: (clone.reports / name / "run.json").stat().st_mtime_ns for name in finished(clone)}


def torture(above: Path, seed: int) -> Findings:
    """The sweep, killed once with all that it started, gone on, and each of its runs again alone."""
    found = Findings()
    if not importlib.util.find_spec("snakemake"):
        found.skipped = "Snakemake is not installed; `make sweep` installs it"
        return found
    clone, rng = make_sweep_clone(above / "sweep"), random.Random(seed)
    process = start(clone, above / "sweep-1.txt", "local")
    begun = time.monotonic()
    while not finished(clone) and process.poll() is None and time.monotonic() - begun < runs.LIMIT:
        time.sleep(0.2)
    time.sleep(rng.uniform(0, 20))  # one run is nearly done, or the next ones have begun
    found.expect(process.poll() is None, f"the sweep ended early: {(above / 'sweep-1.txt').read_text()[-1500:]}")
    before = finished(clone)
    kills.kill(process, "all")
    print(f"  killed with {', '.join(before) or 'nothing'} evaluated", flush=True)
    status = start(clone, above / "sweep-2.txt", "local").wait(3 * runs.LIMIT)
    found.expect(status == 0, f"the sweep did not end: {(above / 'sweep-2.txt').read_text()[-1500:]}")
    check(clone, above, found)
    found.counts = {"runs": len(finished(clone)), "evaluated before the kill": len(before)}
    return found


def check(clone: Clone, above: Path, found: Findings) -> None:
    """Six runs, one page, nothing to do for another call, and every run as it is alone."""
    names = [f"sweep-{name}" for name in RUNS]
    found.expect(finished(clone) == sorted(names), f"runs: {finished(clone)}")
    page = clone.reports / "sweep" / "index.html"
    found.expect(page.exists() and all(name in page.read_text() for name in names), "the page lacks runs")
    found.expect(not (clone.reports / "sweep" / "decoded").exists(), "the shared images are left")
    found.expect(not (alive := runs.strays(clone)), f"processes are left: {alive}")
    before = written(clone)
    start(clone, above / "sweep-3.txt", "local").wait(runs.LIMIT)
    found.expect(written(clone) == before, "finished runs were touched again")
    alone = make_clone(above / "alone")
    for name, settings in RUNS.items():
        output = above / f"alone-{name}.txt"
        status = runs.start(alone, output, "--profile", "smoke", "--name", name, "--set", *settings).wait(runs.LIMIT)
        same = status == 0 and digests(alone.reports / name) == digests(clone.reports / f"sweep-{name}")
        found.expect(same, f"{name} differs from the same run alone")
