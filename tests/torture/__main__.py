"""Torture the project: `python -m tests.torture [kills] [disk] [inputs] [sweep] [fuzz]`, all unless some are named.

kills: runs are killed at random moments, resumed, and compared with an undisturbed one. disk: the same with a disk that
is full. inputs: a whole run over a dataset that holds every oddity at once. sweep: six runs, killed in their middle,
gone on, compared with the same runs alone. fuzz: atheris on the image readers.
Two free cores take about 90 minutes. Ends with a summary; exit status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.torture import disk, fuzz, inputs, kills, runs, sweep

PARTS = ("kills", "disk", "inputs", "sweep", "fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (all)")
    parser.add_argument("--kills", type=int, default=20, help="how often runs are killed (20)")
    parser.add_argument("--fills", type=int, default=4, help="how often the disk is full (4)")
    parser.add_argument("--fuzz-minutes", type=float, default=60, help="minutes of fuzzing each reader (60)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments, the fillings and the fuzzer (1)")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    found: dict[str, runs.Findings] = {}
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as name:
        above = Path(name).resolve()
        whole = functools.cache(lambda: runs.undisturbed(above))
        calls = {
            "kills": lambda: kills.torture(above, whole(), given.kills, given.seed),
            "disk": lambda: disk.torture(above, whole(), given.fills, given.seed),
            "inputs": lambda: inputs.torture(above),
            "sweep": lambda: sweep.torture(above, given.seed),
            "fuzz": lambda: fuzz.torture(above, given.fuzz_minutes, given.seed),
        }
        for part in given.parts or PARTS:
            print(f"{part} ...", flush=True)
            begun = time.monotonic()
            try:
                found[part] = calls[part]()
            except Exception as error:  # the other parts still have something to say
                traceback.print_exc()
                found[part] = runs.Findings(wrong=[f"did not come to its end: {error!r}"])
            found[part].counts["minutes"] = round((time.monotonic() - begun) / 60, 1)
    print("\nSummary")
    for part, findings in found.items():
        verdict = f"skipped: {findings.skipped}" if findings.skipped else f"{len(findings.wrong)} wrong"
        print(f"{part:<7} {'':<32}{verdict}")
        for what, value in findings.counts.items():
            print(f"{'':<7} {what:<32}{value}")
        for text in findings.wrong:
            print(f"{'':<7} WRONG: {text}")
    return 1 if any(findings.wrong for findings in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
