"""Does the demo show its lessons? `python -m tests.benchmarks.demo` trains it over seeds and processor instructions.

Every run calls what the notebooks call, in a process of its own, and leaves a line in `--kept`; a line that is there is
not computed again. Printed is a table: each lesson, its numbers in every run, and whether it held.

The demo was designed with this table at hand, its numbers on test included: it is a drawn lesson, made to show what
happens with real X-rays, and evidence of nothing but the machinery.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import config, dataset, evaluation, explain, model, page, phantom, training
from tests import notebook_code

INSTRUCTIONS: dict[str, dict[str, str]] = {
    "as they are": {},
    "oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "two threads, SSE4.1": {
        "TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "2", "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}  # fmt: skip
FRAME = "frame=0.3"  # what breaks the shortcut
# lesson: (the numbers it is about, whether it holds of one run)
LESSONS = {
    "01 compression tells the classes apart in train, not in test": (
        ("compression, train", "compression, test"), lambda n: n[0] > 0.9 and abs(n[1] - 0.5) < 0.1),
    "03 pre-training beats a random start (linear probe, validation AUC)": (
        ("probe, random", "probe, pre-trained"), lambda n: n[1] - n[0] > 0.05),
    "04 fine-tuning beats the head (validation AUC, gain and its lower end)": (
        ("head, validation auc", "gain", "gain, low"), lambda n: n[2] > 0),
    "05 validation promises more specificity than test keeps (by at least 0.10)": (
        ("validation specificity", "test specificity"), lambda n: n[0] - n[1] >= 0.1),
    "05 sensitivity and specificity together: validation promises more than test keeps (sum, by at least 0.10)": (
        ("validation sensitivity", "validation specificity", "test sensitivity", "test specificity"),
        lambda n: n[0] + n[1] - n[2] - n[3] >= 0.1),
    "05 a clear result (test AUC and accuracy)": (("test auc", "test accuracy"), lambda n: 0.95 <= n[0] <= 0.99),
    "06 edges of the other class lower the AUC (difference, upper end)": (
        ("edges", "edges, high"), lambda n: n[1] < 0),
    "06 Grad-CAM finds the opacity better than one map for all (pointing game; difference, lower end)": (
        ("pointing", "pointing, one map", "pointing gain, low"), lambda n: n[2] > 0),
    "07 the samples: right, unsure, wrong (of eight)": (("right", "unsure", "wrong"), lambda n: min(n) > 0),
}  # fmt: skip


def train(settings: config.Settings, folder: Path) -> dict[str, float]:
    """Notebooks 01 to 06 in short; the numbers their lessons are about."""
    start, found = time.process_time(), {}
    root = dataset.find_root(settings)
    scanned = dataset.scan(root, settings.image_size, folder)
    near = dataset.near_duplicates(scanned)
    manifest = dataset.exclude_near_duplicates(scanned.manifest, near)
    pixels = np.asarray(scanned.pixels)[np.flatnonzero(~manifest["excluded"])]
    compression = dataset.shortcuts(scanned).loc["JPEG compression"]
    found |= {"compression, train": compression["train"], "compression, test": compression["test"]}
    splits = dataset.split(manifest, near, settings.validation_fraction, settings.seed, settings.fold)
    training.set_up(settings)
    backbone = model.build_backbone(settings)
    found["probe, random"] = training.linear_probe(backbone, pixels, splits)
    training.pretrain(backbone, settings, folder)
    found["probe, pre-trained"] = training.linear_probe(backbone, pixels, splits)
    classifier = notebook_code.add_head(backbone, settings)
    classifier, _ = notebook_code.train_stage(classifier, "head", pixels, splits, settings, folder)
    rows = {part: np.flatnonzero(splits["split"] == part) for part in ("validation", "test")}
    head = training.predict_logits(classifier, pixels, rows["validation"])
    classifier, _ = notebook_code.train_stage(classifier, "fine_tuning", pixels, splits, settings, folder)
    found["seconds of processor"] = time.process_time() - start
    model.save(classifier, folder / "model", model.make_card(settings, "", True))
    return found | measure(classifier, head, pixels, splits, root, rows, settings, folder)


def measure(classifier, head, pixels, splits, root, rows, settings, folder) -> dict[str, float]:
    """What 04 to 07 measure of the fine-tuned model; `head` are the logits of validation before fine-tuning."""
    found, sick = {}, (splits["label"] == "PNEUMONIA").to_numpy()
    viewed = training.augmented_validation_logits(classifier, pixels, rows["validation"], settings)
    labels = np.tile(sick[rows["validation"]], 1 + settings.validation_views)
    calibration = evaluation.fit_calibration(labels, viewed)
    chosen_on = evaluation.calibrate(viewed, calibration)
    threshold = evaluation.choose_threshold(labels, chosen_on, settings.threshold_policy)
    band = evaluation.uncertain_range(labels, chosen_on, threshold)
    answers = {}
    for part, of in rows.items():
        answers[part] = evaluation.calibrate(training.predict_logits(classifier, pixels, of), calibration)
        if settings.traps == "threshold" and part == "test":
            threshold = evaluation.choose_threshold(sick[of], answers[part], settings.threshold_policy)
        numbers = evaluation.measure(sick[of], answers[part], threshold)
        found |= {f"{part} {name}": numbers[name] for name in ("auc", "accuracy", "sensitivity", "specificity")}
    of, n = rows["validation"], settings.resamples
    resampling = splits["patient"].to_numpy()[of], n, settings.seed
    before = evaluation.calibrate(head, evaluation.fit_calibration(sick[of], head)), 0.5
    gain = evaluation.paired_differences(sick[of], before, (answers["validation"], 0.5), *resampling)["auc"]
    found["head, validation auc"] = evaluation.measure(sick[of], *before)["auc"]
    found |= {"gain": gain["difference"], "gain, low": gain["low"]}
    swapped, tenth = [], np.full((len(of), 4), 0.1, np.float32)
    for same in (True, False):
        random, donors = np.random.default_rng(settings.seed), np.zeros(len(of), int)  # as in notebook 06
        for receiving in (~sick[of], sick[of]):
            donors[receiving] = random.choice(np.flatnonzero(receiving == same), receiving.sum())
        around = pixels[of][donors]
        changed = training.swap_edges(pixels[of][..., None], tenth, around[..., None]).numpy()[..., 0]
        logits = training.predict_logits(classifier, changed, np.arange(len(of)))
        swapped.append((evaluation.calibrate(logits, calibration), threshold))
    edges = evaluation.paired_differences(sick[of], swapped[0], swapped[1], *resampling)["auc"]
    found |= {"edges": edges["difference"], "edges, high": edges["high"]}
    ill = rows["test"][sick[rows["test"]]]
    masks = phantom.masks(root, splits["path"].to_numpy()[ill], settings.image_size)
    trained = [path for path, split, label in dataset.image_files(root) if (split, label) == ("train", "PNEUMONIA")]
    everyones = phantom.masks(root, trained, settings.image_size).mean(axis=0)
    hits = [
        explain.localisation(maps, masks)["hit"]
        for maps in (explain.heatmaps(classifier, pixels[ill]), np.repeat(everyones[None], len(ill), axis=0))
    ]
    more = evaluation.mean_difference(hits[1], hits[0], splits["patient"].iloc[ill], n, settings.seed)
    found |= {"pointing": hits[0].mean(), "pointing, one map": hits[1].mean(), "pointing gain, low": more["low"]}
    kinds = dict.fromkeys(("right", "unsure", "wrong"), 0)
    told = pd.DataFrame({"path": splits["path"].to_numpy()[rows["test"]], "probability": answers["test"]})
    for title, file in page.find_samples(settings, predictions=told).items():
        answer = answers["test"][(splits["path"].iloc[rows["test"]] == file.relative_to(root).as_posix()).argmax()]
        unsure = band and band[0] <= answer <= band[1]
        kinds["unsure" if unsure else "right" if ("PNEUMONIA" in title) == (answer >= threshold) else "wrong"] += 1
    return found | kinds


def run(seed: int, instructions: str, wishes: list[str]) -> dict:
    """One run in a process of its own, with the processor instructions named."""
    command = [sys.executable, "-m", "tests.benchmarks.demo", "--one", str(seed), "--set", *wishes]
    environment = os.environ | INSTRUCTIONS[instructions]
    done = subprocess.run(command, cwd=config.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(runs: list[dict]) -> str:
    """Markdown: a row per lesson, a column per run of the plain demo; then the range of every number."""
    plain = [entry for entry in runs if not entry["set"]]
    names = [f"seed {entry['seed']}" + f", {entry['instructions']}" * (entry["instructions"] != "as they are")
             for entry in plain]  # fmt: skip
    lines = ["| lesson | " + " | ".join(names) + " | held |", "|---|" + "---|" * (len(names) + 1)]
    for lesson, (about, holds) in LESSONS.items():
        rows = [[entry["numbers"][name] for name in about] for entry in plain]
        held = sum(map(holds, rows))
        shown = ".0f" if about[0] == "right" else ".3f"  # samples are counted
        cells = [" ".join(f"{x:{shown}}" for x in row) for row in rows]
        lines.append(f"| {lesson} | {' | '.join(cells)} | {held} of {len(rows)} |")
    lines += ["", "| number | lowest | highest | range |", "|---|---|---|---|"]
    for name in plain[0]["numbers"]:
        low, high = (f(entry["numbers"][name] for entry in plain) for f in (min, max))
        lines.append(f"| {name} | {low:.3f} | {high:.3f} | {high - low:.3f} |")
    usual = {entry["seed"]: entry["numbers"] for entry in plain if entry["instructions"] == "as they are"}
    shown = ("validation auc", "validation specificity", "test auc", "test sensitivity", "test specificity", "edges")
    lines += ["", "Minus the plain demo of the same seed:", "", "| setting | seed | " + " | ".join(shown) + " |"]
    lines.append("|---|---|" + "---|" * len(shown))
    for entry in [entry for entry in runs if entry["set"] and entry["seed"] in usual]:
        changes = (entry["numbers"][name] - usual[entry["seed"]][name] for name in shown)
        lines.append(f"| {entry['set']} | {entry['seed']} | " + " | ".join(f"{x:+.3f}" for x in changes) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.demo", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--kept", type=Path, default=Path("demo.jsonl"), help="where a line per run is kept")
    parser.add_argument("--set", nargs="*", default=[], help="settings of --one")
    parser.add_argument("--one", type=int, help="only this seed, here and now: prints its numbers")
    given = parser.parse_args()
    if given.one is not None:
        settings = config.make_settings("demo", {"seed": given.one} | config.parse_assignments(given.set))
        with tempfile.TemporaryDirectory() as folder:
            found = train(settings, Path(folder))
        print(json.dumps({name: round(float(value), 4) for name, value in found.items()}))
        return
    wanted = [(seed, "as they are", "") for seed in given.seeds]
    wanted += [(given.seeds[0], name, "") for name in list(INSTRUCTIONS)[1:]]
    wanted += [(given.seeds[0], "as they are", wish) for wish in [FRAME, *(f"traps={trap}" for trap in config.TRAPS)]]
    runs = [json.loads(line) for line in given.kept.read_text().splitlines()] if given.kept.exists() else []
    for seed, instructions, wish in wanted:
        key = {"seed": seed, "instructions": instructions, "set": wish}
        if not any(key.items() <= entry.items() for entry in runs):
            runs.append(key | {"numbers": run(seed, instructions, wish.split())})
            with given.kept.open("a") as file:
                file.write(json.dumps(runs[-1]) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
