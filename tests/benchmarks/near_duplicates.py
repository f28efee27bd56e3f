"""The search for near duplicates at growing numbers of thumbnails: `python -m tests.benchmarks.near_duplicates`.

Thumbnails have the mean and covariance of drawn phantoms; one in a hundred is a copy under a little noise.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

from helpers import dataset, phantom

COUNTS = (5_000, 50_000, 500_000)


def thumbnails(count: int, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (count, 32, 32), like the phantoms `drawn`; the last hundredth are noisy copies of the first."""
    mean, copies = drawn.mean(axis=0), count // 100
    found = np.empty((count, *mean.shape), np.uint8)
    for start in range(0, count, 1000):
        mixed = rng.standard_normal((min(1000, count - start), len(drawn))) / np.sqrt(len(drawn))
        found[start : start + 1000] = np.clip(mean + np.tensordot(mixed, drawn - mean, 1), 0, 255)
    noisy = found[:copies] + rng.normal(0, 2, (copies, *mean.shape))
    found[count - copies :] = np.clip(noisy, 0, 255)
    return found


def rows(counts: tuple[int, ...] = COUNTS) -> Iterator[tuple[str, float, float, str, str]]:
    """For `make bench`: CPU seconds at each number beside those at the first, copies found, peak memory."""
    drawn = phantom.pretraining_set(100, 32, 0)[0].astype(float)
    seconds = []
    for count in counts:
        small = thumbnails(count, drawn, np.random.default_rng(count))
        paths = [f"{number:06d}" for number in range(count)]
        manifest = pd.DataFrame({"path": paths, "sha256": paths})
        scanned = dataset.Scan(manifest, pd.DataFrame(), small, small, pd.DataFrame())
        start = time.process_time()
        near = dataset.near_duplicates(scanned)
        seconds.append(time.process_time() - start)
        wanted = {(paths[k], paths[count - count // 100 + k]) for k in range(count // 100)}
        found = len(wanted & set(zip(near["path_a"], near["path_b"], strict=True)))
        grows = np.log(seconds[-1] / seconds[0]) / np.log(count / counts[0]) if count > counts[0] else 1.0
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        note = f"grows as n^{grows:.2f}; {found} of {len(wanted)} copies found; {memory:.2f} GB"
        yield f"near duplicates among {count:,} thumbnails, CPU s", seconds[-1], seconds[0], "about n log n", note


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.near_duplicates", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    for row in rows(tuple(parser.parse_args().counts)):
        print(*row, sep="  ", flush=True)
