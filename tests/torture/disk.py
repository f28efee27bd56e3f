"""Fill the disk under a run, make room, resume, and compare with a run that nothing disturbed."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import make_clone
from tests.torture import runs
from tests.torture.runs import Findings, Undisturbed


def used(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def mount(folder: Path, size: int) -> str:
    """Mount a file system in memory of `size` bytes at `folder`; why not, where that is impossible."""
    if sys.platform != "linux" or not shutil.which("mount"):
        return "only Linux has a file system in memory to fill"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"a file system can be mounted by root only ({done.stderr.strip()})"


def fill(filler: Path, leave: int) -> None:
    """Write until only `leave` bytes are free."""
    with filler.open("wb") as stream:
        for _ in range(max(0, shutil.disk_usage(filler.parent).free - leave) // 4096):
            stream.write(bytes(4096))


def finished(folder: Path) -> dict[str, str]:
    """Fingerprints of the results and pages that are there, but for the index and the record of the run."""
    kept = [path for path in folder.glob("*") if path.suffix in (".csv", ".html", ".ipynb") and path.name[0] != "."]
    kept = [path for path in kept if path.name != "index.html"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def torture(above: Path, whole: Undisturbed, fills: int, seed: int) -> Findings:
    """Give a run less and less room to end in, `fills` times, and let it end when there is room."""
    found, rng, place = Findings(), random.Random(seed), above / "small"
    needed = used(whole.clone.reports) + used(whole.clone.root / "data")
    found.skipped = mount(place, 3 * needed + 50_000_000)
    if found.skipped:
        return found
    stopped = []
    try:
        clone, filler = make_clone(place / "clone"), place / "filler"
        output, folder, before = above / "full.txt", clone.reports / "full", {}
        words = ("--profile", "smoke", "--name", "full", "--resume")
        for number in range(fills):
            taken = used(clone.root / "data") + used(clone.reports)
            fill(filler, int((needed - taken) * (number + rng.random()) / fills / 2))
            status = runs.start(clone, output, *words).wait(runs.LIMIT)
            said = output.read_text(encoding="utf-8", errors="replace")
            complaint = [line for line in said.splitlines() if "No space left" in line]
            stopped.append((runs.running(output) or ["before 01"])[-1])
            print(f"  full disk {number + 1}: stopped in {stopped[-1]}: {complaint}", flush=True)
            found.expect(status in (1, 2), f"full disk {number + 1}: exit status {status}")
            found.expect(len(complaint) == 1, f"full disk {number + 1}: not one sentence: {said[-1500:]}")
            found.expect("Traceback" not in said, f"full disk {number + 1}: a traceback: {said[-1500:]}")
            now = finished(folder)
            lost = [name for name, digest in before.items() if now.get(name) != digest]
            found.expect(not lost, f"full disk {number + 1}: earlier results were changed: {lost}")
            before = {name: digest for name, digest in now.items() if name[:2] not in stopped[-1]}
            filler.unlink()
        status = runs.start(clone, output, *words).wait(runs.LIMIT)
        found.expect(status == 0, f"with room again: {output.read_text(encoding='utf-8')[-1500:]}")
        if status == 0:
            for file, digest in runs.results(folder).items():
                found.expect(digest == whole.results[file], f"after a full disk {file} differs")
        found.expect(not (left := runs.halves(clone)), f"half files are left: {left}")
    finally:
        subprocess.run(["umount", str(place)], check=True)
    found.counts = {"full disks survived": len(stopped), "stopped in": ", ".join(stopped)}
    return found
