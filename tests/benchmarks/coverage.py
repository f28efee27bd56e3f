"""How often 95% intervals hold the truth, as reports/results/coverage.md has it: `python -m tests.benchmarks.coverage`.

Patients are drawn from a population whose metrics are known, as many as in the test set and each with its images; then
every interval that reports print is computed as reports do. Images of one patient share half of the variance of their
scores (intraclass correlation 0.5). Each interval rests on 250 resamples, a report's on 1000.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from helpers import evaluation

# Images of each patient of the test sets: 219 patients (314 images) of the public one, 150 (233) of an earlier demo's.
REAL = {
    "": [1] * 111 + [3] * 2,
    "bacteria": [1] * 6 + [2] * 8 + [3] * 10 + [4] * 6 + [5] * 4 + [6] * 3 + [8],
    "virus": [1] * 62 + [2] * 5 + [3],
}
DEMO = {
    "": [1] * 43 + [2] * 19 + [3] * 6,
    "bacteria": [1] * 33 + [2] * 15 + [3] * 7,
    "virus": [1] * 11 + [2] * 9 + [3] * 7,
}
RESAMPLES, CORRELATION, RARE = 250, 0.5, 0.05


@dataclass(frozen=True)
class Population:
    """A kind of test set: scores are normal with variance 1 in each class, but for normal patients that look ill.

    The probability is sigmoid(slope * log odds + shift), calibrated where slope is 1 and shift 0. A second model, whose
    scores correlate with the first one's by 0.8, has the AUC `other`.
    """

    name: str
    sizes: dict[str, list[int]]
    patients: int
    auc: float
    other: float
    threshold: float
    slope: float = 1.0
    shift: float = 0.0
    odd: float = 0.0  # proportion of normal patients whose images all look ill


POPULATIONS = (
    Population("real, AUC 0.985", REAL, 219, 0.985, 0.985, 0.4),
    Population("real, confident errors", REAL, 219, 0.997, 0.99, 0.5, slope=1.5, shift=1.0, odd=0.08),
    Population("real, AUC 0.95", REAL, 219, 0.95, 0.97, 0.2, shift=0.5),
    Population("real, AUC 0.998", REAL, 219, 0.998, 0.99, 0.5, slope=2.0),
    Population("624 images, AUC 0.985", REAL, 438, 0.985, 0.98, 0.3, shift=1.0),
    Population("demo, AUC 0.95", DEMO, 150, 0.95, 0.95, 0.4, slope=0.7),
)


def draw(population: Population, patients: int, seed: int) -> pd.DataFrame:
    """Images of `patients` at random: label, patient, subtype, probability, and the second model's as other."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(list(population.sizes), [len(sizes) for sizes in population.sizes.values()])
    sizes = np.concatenate(list(population.sizes.values()))
    drawn = rng.integers(len(sizes), size=patients)
    patient = np.repeat(np.arange(patients), sizes[drawn])
    kind, prevalence = kinds[drawn][patient], 1 - sum(population.sizes[""]) / sizes.sum()
    positive, odd = kind != "", (rng.random(patients) < population.odd)[patient]

    def noise() -> np.ndarray:
        own = rng.normal(size=(2, patient.size))
        return np.sqrt(CORRELATION) * own[0, patient] + np.sqrt(1 - CORRELATION) * own[1]

    common, found = noise(), {}
    for name, auc in (("probability", population.auc), ("other", population.other)):
        apart = np.sqrt(2) * norm.ppf(auc)
        score = np.where(positive, apart / 2, -apart / 2) + np.where(odd & ~positive, 0.8 * apart, 0.0)
        score = score + np.sqrt(0.8) * common + np.sqrt(0.2) * noise()
        found[name] = expit(population.slope * (apart * score + logit(prevalence)) + population.shift)
    label = np.where(positive, "PNEUMONIA", "NORMAL")
    return pd.DataFrame({"label": label, "patient": patient, "subtype": kind} | found)


def truth(frame: pd.DataFrame, threshold: float) -> dict[str, float]:
    """Every statistic of a frame so large that it is the population."""
    positive, ill = frame["label"] == "PNEUMONIA", frame[frame["label"] == "PNEUMONIA"]
    one, other = (evaluation.measure(positive, frame[name], threshold) for name in ("probability", "other"))
    found = dict(one)
    found |= {f"sensitivity, {k}": (part["probability"] >= threshold).mean() for k, part in ill.groupby("subtype")}
    sensitivity, specificity = (
        {"value": one[name], "low": None, "high": None} for name in ("sensitivity", "specificity")
    )
    rare = zip(("precision", "NPV"), evaluation.predictive_values(sensitivity, specificity, RARE), strict=True)
    found |= {f"{name} where {RARE:.0%} have it": metric["value"] for name, metric in rare}
    hits = ill["probability"] >= 0.9
    found |= {"mean of hits": hits.mean(), "difference of hits": (ill["other"] >= 0.9).mean() - hits.mean()}
    return found | {f"difference of {name}": other[name] - one[name] for name in evaluation.METRICS if name != "ece"}


def intervals(frame: pd.DataFrame, threshold: float, seed: int) -> dict[str, dict]:
    """The interval of every statistic of `truth`, from one test set."""
    positive, ill = frame["label"] == "PNEUMONIA", frame[frame["label"] == "PNEUMONIA"]
    summary = evaluation.summarise(frame, threshold, "", RESAMPLES, seed)
    found = {name: summary[name] for name in evaluation.METRICS}
    found |= {f"sensitivity, {kind}": part["sensitivity"] for kind, part in summary["by_subtype"].items()}
    rare = evaluation.predictive_values(summary["sensitivity"], summary["specificity"], RARE)
    found |= {
        f"{name} where {RARE:.0%} have it": metric for name, metric in zip(("precision", "NPV"), rare, strict=True)
    }
    hits, resampling = ill["probability"] >= 0.9, (ill["patient"], RESAMPLES, seed)
    found["mean of hits"] = evaluation.mean_interval(hits, *resampling)
    found["difference of hits"] = evaluation.mean_difference(hits, ill["other"] >= 0.9, *resampling)
    one, other = ((frame[name], threshold) for name in ("probability", "other"))
    differences = evaluation.paired_differences(positive, one, other, frame["patient"], RESAMPLES, seed)
    return found | {f"difference of {name}": differences[name] for name in evaluation.METRICS if name != "ece"}


def held(population: Population, true: dict[str, float], seed: int) -> dict[str, float]:
    """Whether each interval of one drawn test set holds the truth; NaN where there is no interval."""
    found = intervals(draw(population, population.patients, seed), population.threshold, seed)
    ends = {name: (metric["low"], metric["high"]) for name, metric in found.items()}
    return {n: np.nan if None in e else float(e[0] - 1e-9 <= true[n] <= e[1] + 1e-9) for n, e in ends.items()}


def coverage(population: Population, draws: int) -> Iterator[tuple[str, float, float]]:
    """(statistic, truth, proportion of `draws` whose interval holds it)."""
    true = truth(draw(population, 400_000, 2**31), population.threshold)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = pd.DataFrame(pool.map(partial(held, population, true), range(draws), chunksize=10))
    for name, share in rows.mean().items():
        yield str(name), true[str(name)], share


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.coverage", description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    draws, start, table = parser.parse_args().draws, time.perf_counter(), {}
    for population in POPULATIONS:
        rows = coverage(population, draws)
        table[population.name] = {name: f"{share:.3f} ({true:.3f})" for name, true, share in rows}
    shown = pd.DataFrame(table)
    print(f"| {draws} draws each, {time.perf_counter() - start:.0f} s | {' | '.join(shown.columns)} |")
    print("|---" * (1 + len(shown.columns)) + "|")
    for name, row in shown.iterrows():
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
