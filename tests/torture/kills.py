"""Kill a run at random moments, resume it, and compare it with one that nothing disturbed."""

from __future__ import annotations

import collections
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import psutil

from tests.conftest import Clone, make_clone
from tests.torture import runs
from tests.torture.runs import Findings, Undisturbed

WHO = ("runner", "group", "all")  # the process alone, its process group, or (power gone) the kernel with it
CHAIN = 5  # kills of one run before it is let through


def moments(whole: Undisturbed, kills: int, rng: random.Random) -> list[tuple[str, float]]:
    """`kills` random moments, one in each of as many equal slices of the run: (notebook, seconds since it began)."""
    drawn = [whole.seconds * (k + rng.random()) / kills for k in range(kills)]
    found = []
    for moment in drawn:
        stage, begun = [row for row in whole.stages if row[1] <= moment][-1]
        found.append((stage, moment - begun))
    return found


def kill(root_process, who: str) -> None:
    """SIGKILL for the runner, for its group, or for it and everything below it."""
    below = psutil.Process(root_process.pid).children(recursive=True) if who == "all" else []
    if who == "group":
        os.killpg(root_process.pid, signal.SIGKILL)
    else:
        root_process.kill()
    for process in below:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    root_process.wait()


def epochs(folder: Path) -> dict[str, list[int]]:
    """The finished epochs of every training, from its state.json."""
    files = sorted((folder / "training").glob("*/state.json"))
    histories = {file.parent.name: json.loads(file.read_text(encoding="utf-8"))["history"] for file in files}
    return {name: [row["epoch"] for row in history] for name, history in histories.items()}


def trained(output: Path) -> list[tuple[str, str, int]]:
    """The epochs that a call says it has finished: (notebook, kind of training, epoch)."""
    found, stage = [], ""
    for line in output.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.endswith("  running") and not line.startswith(" "):
            stage = line.split()[0]
        elif match := re.match(r" +epoch (\d+)  loss ", line):
            found.append((stage, "classifier" if "val_auc" in line else "pretraining", int(match[1])))
    return found


def disturbed(
    clone: Clone, whole: Undisturbed, name: str, planned: list[tuple[str, float]], first: int, found: Findings
) -> collections.Counter:
    """One run, killed at the planned moments and then let through; counts kills by notebook."""
    folder, killed, outputs = clone.reports / name, collections.Counter(), []
    known: dict[str, list[int]] = {}
    for number, (stage, seconds) in enumerate(planned, first):
        who, output = WHO[number % len(WHO)], clone.root.parent / f"{name}-{number}.txt"
        words = ["--resume"] if outputs else []
        outputs.append(output)
        process = runs.start(clone, output, "--profile", "smoke", "--name", name, *words)
        begun, waited_from = time.monotonic(), None if stage else time.monotonic()
        while process.poll() is None and time.monotonic() - begun < runs.LIMIT:
            reached = runs.running(output)
            if waited_from is None and reached and reached[-1] >= stage:
                waited_from = time.monotonic()
            if waited_from is not None and time.monotonic() - waited_from >= seconds:
                break
            time.sleep(0.02)
        if process.poll() is not None:  # it was faster than the moment
            found.expect(process.returncode == 0, f"{name}: {output.read_text(encoding='utf-8')[-500:]}")
            continue
        at = (runs.running(output) or ["before 01"])[-1]
        kill(process, who)
        killed[at] += 1
        open_files = ", ".join(runs.halves(clone))
        print(f"  kill {number + 1}: {name}, {who}, in {at} {f'with {open_files} half written' * bool(open_files)}")
        now = epochs(folder)
        for training, finished in known.items():
            lost = set(finished) - set(now.get(training, ()))
            found.expect(not lost, f"{name}: {training} lost its finished epochs {sorted(lost)}")
        known = now
    output = clone.root.parent / f"{name}-end.txt"
    outputs.append(output)
    status = runs.start(clone, output, "--profile", "smoke", "--name", name, "--resume").wait(runs.LIMIT)
    found.expect(status == 0, f"{name} did not end after its kills: {output.read_text(encoding='utf-8')[-800:]}")
    if status == 0:
        for file, digest in runs.results(folder).items():
            found.expect(digest == whole.results[file], f"{name}: {file} differs from the undisturbed run's")
    repeated = collections.Counter(row for output in outputs for row in trained(output))
    again = [row for row, times in repeated.items() if times > 1]
    found.expect(not again, f"{name}: finished epochs were trained again: {again}")
    return killed


def torture(above: Path, whole: Undisturbed, kills: int, seed: int) -> Findings:
    """Kill runs `kills` times in all, several times each, and let each of them through in the end."""
    rng, found, killed, round_number = random.Random(seed), Findings(), collections.Counter(), 0
    clone = make_clone(above / "killed")
    while killed.total() < kills:
        left = kills - killed.total()
        drawn = moments(whole, left, rng)
        chains = -(-left // CHAIN)
        for chain in range(chains):
            round_number += 1
            if round_number % 2:  # the phantoms are drawn anew, and that is disturbed too
                shutil.rmtree(clone.root / "data", ignore_errors=True)
            name = f"run-{round_number}"
            killed += disturbed(clone, whole, name, drawn[chain::chains], killed.total(), found)
            shutil.rmtree(clone.reports / name, ignore_errors=True)
    found.expect(not (left := runs.halves(clone)), f"half files are left: {left}")
    found.expect(not (alive := runs.strays(clone)), f"processes are left: {alive}")
    found.counts = {"kills survived": killed.total(), "runs": round_number}
    found.counts |= {f"killed in {stage}": count for stage, count in sorted(killed.items())}
    return found
