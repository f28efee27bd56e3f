"""The embedded dataset, phantoms in the public layout: train of one hospital, test of another; a set to pretrain on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import psutil
from PIL import Image

from helpers import config, images, storage
from helpers.phantom.anatomy import make_patient
from helpers.phantom.film import ANY, TEST, TRAIN, draw, film

RECIPE = "phantoms.json"  # in the root of a dataset that was drawn
VERSION = 5  # of the drawing and of the plan: datasets of another version are drawn anew


def _plan(patients: int, seed: int, trap: str) -> tuple[list, list]:
    """[(index, finding, [image paths])] for every patient, and [(path, path of its exact copy)].

    With the trap "patients" every film of train is named as if it were another patient's.
    """
    rng, naming = (np.random.default_rng([seed, 0, k]) for k in (2, 3))
    tested = max(5, round(patients / 4))
    plan: list[tuple[int, str, list[str]]] = []
    copies, healthy, named = [], 0, set()
    for split, count in (("test", tested), ("train", patients - tested)):
        ill = round(0.55 * count)
        viral = max(1, round(ill / 3))
        findings = rng.permutation(["virus"] * viral + ["bacteria"] * (ill - viral) + ["normal"] * (count - ill))
        person, made, previous = 0, 0, ""
        for finding in findings.tolist():
            films = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
            paths: list[str] = []
            for alike in [1] * films if trap == "patients" and split == "train" else [films]:
                if finding == "normal":
                    healthy += 1
                    stem = f"{split}/NORMAL/{'NORMAL2-' if naming.random() < 0.4 else ''}IM-{healthy:04d}-0001"
                    paths += [stem + ("" if k == 0 else f"-{k:04d}") + ".jpeg" for k in range(alike)]
                    continue
                # The public set numbers bacterial and viral patients apart, so that a number can be given twice.
                person += not (finding == "virus" and previous == "bacteria" and naming.random() < 0.3)
                previous = finding
                while (person, finding) in named:
                    person += 1
                named.add((person, finding))
                paths += [f"{split}/PNEUMONIA/person{person}_{finding}_{made + k + 1}.jpeg" for k in range(alike)]
                made += alike
            plan.append((len(plan), finding, paths))
    trained = [paths for _, finding, paths in plan if paths[0].startswith("train") and finding == "bacteria"]
    for k in range(max(2, len(trained) // 25)):
        source, other = rng.permutation(len(trained))[:2]
        stem = trained[source if k % 2 else other][0].rpartition("_")[0]
        copies.append((trained[source][0], f"{stem}_{made + 1 + k}.jpeg"))
    return plan, copies


def mask_path(root: Path, path: str) -> Path:
    """The mask's file for an image's path below `root`, such as "test/PNEUMONIA/person1_virus_2.jpeg"."""
    return (Path(root) / "masks" / path).with_suffix(".png")


def masks(root: Path, paths: Iterable[str], size: int) -> np.ndarray:
    """Read the true masks of the opacities in some phantoms.

    Parameters
    ----------
    root : Path
        A dataset from `write_dataset`.
    paths : iterable of str, length n
        Images filed under PNEUMONIA, at least one, relative to `root`: "test/PNEUMONIA/person1_virus_2.jpeg".
    size : int
        Side of the squares, pixels, to which the masks are stretched as images are.

    Returns
    -------
    array of bool, shape (n, size, size)
        True within the opacity; all False for a film that the trap "labels" filed wrongly.

    Raises
    ------
    InputError
        Where an image has no mask, as normal ones have none, or its mask cannot be read.
    ValueError
        Where there is no path.
    """
    return np.stack([images.resize(images.read_image(mask_path(root, path)), size) > 127 for path in paths])


def _write_patient(root: Path, seed: int, trap: str, index: int, finding: str, paths: list[str]) -> None:
    """Draw the films of one patient, and their masks where they are filed under PNEUMONIA."""
    rng = np.random.default_rng([seed, index])
    patient, ill, drawn = make_patient(rng), finding != "normal", finding
    hospital = TEST if paths[0].startswith("test") else TRAIN
    if trap == "marker" and hospital is TRAIN:
        hospital = replace(TRAIN, marker=(0.0, 1.0))
    if trap == "labels" and hospital is TRAIN and index % 10 == 0:
        drawn = "normal" if ill else "bacteria"  # the folder says the opposite
    for path in paths:
        grey, mask = draw(rng, drawn, patient, None, hospital)
        if trap == "preprocessing" and hospital is TEST:
            grey = 255 - grey
        Image.fromarray(grey).save(root / path, quality=int(rng.integers(*hospital.quality[ill])))
        if ill:
            Image.fromarray(255 * mask.astype(np.uint8)).save(mask_path(root, path))


def write_dataset(root: Path, patients: int, seed: int = 1, trap: str = "none") -> None:
    """Write the phantoms of `patients` (at least 20) children in the public dataset's layout.

    `<root>/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg`, one to three films a patient, the masks (0 or 255) in
    `<root>/masks/<split>/PNEUMONIA/*.png`, and `<root>/phantoms.json`. Equal arguments give equal bytes. A quarter of
    the patients is in test; 55% have pneumonia, two in three of them bacterial; train holds a few exact copies. Train
    comes from one hospital, test from another (`film.TRAIN`, `film.TEST`); `trap` as the setting `traps`.
    Draws into a folder beside `root` and renames it at the end; returns at once where that has been done before, and
    replaces other phantoms. Raises ValueError for fewer patients, config.InputError for a folder of other things.
    """
    if patients < config.FEWEST_PHANTOMS:
        raise ValueError(f"{patients} patients are too few for both classes and subtypes in each split")
    root = Path(root)
    recipe = {"version": VERSION, "patients": patients, "seed": seed, "trap": trap}
    if _recipe(root) == recipe and not any(root.parent.glob(f".{root.name}.*.*")):
        return
    lock = root.with_name(f".{root.name}.lock")
    with filelock.FileLock(lock):  # runs of a sweep begin together
        try:
            _clear(root)
            if _recipe(root) != recipe:
                _write(root, recipe)
        finally:
            lock.unlink(missing_ok=True)  # who still waits for it finds the phantoms drawn


def _write(root: Path, recipe: dict) -> None:
    """`write_dataset`, where it has not been done before."""
    patients, seed, trap = (recipe[name] for name in ("patients", "seed", "trap"))
    aside = root.with_name(f".{root.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        plan, copies = _plan(patients, seed, trap)
        for split in ("train", "test"):
            for folder in (f"{split}/NORMAL", f"{split}/PNEUMONIA", f"masks/{split}/PNEUMONIA"):
                (aside / folder).mkdir(parents=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda row: _write_patient(aside, seed, trap, *row), plan))
        for source, copy in copies:
            shutil.copyfile(aside / source, aside / copy)
            shutil.copyfile(mask_path(aside, source), mask_path(aside, copy))
        storage.write_json(aside / RECIPE, recipe)
        if hasattr(os, "sync"):  # not on Windows
            os.sync()  # a power cut must not leave a folder that is complete by name only
        old = root.with_name(f".{root.name}.{os.getpid()}.old")
        if root.exists():
            root.rename(old)
        aside.rename(root)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _clear(root: Path) -> None:
    """Remove what calls that were killed have left beside `root`."""
    for left in root.parent.glob(f".{root.name}.*"):
        *_, pid, kind = left.name.split(".")
        if kind in ("part", "old") and pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _recipe(root: Path) -> dict | None:
    """What `write_dataset` recorded in `root`, None where nothing is; InputError where there is something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        recorded = json.loads((root / RECIPE).read_text(encoding="utf-8"))
        ours = {"version", "patients", "seed"} <= set(recorded)
    except (OSError, ValueError, TypeError):
        ours = False
    names = {"train", "test", "masks", RECIPE}
    if not ours or any(entry.name not in names for entry in root.iterdir() if not entry.name.startswith(".")):
        raise config.InputError(f"{root} holds something other than phantoms; move it away, or name another folder.")
    return recorded


def pretraining_set(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Phantoms to pretrain on, never the dataset's: uint8 (count, size, size) and bool (count, size, size, 2).

    The masks say where an opacity lies, and where a letter. Half of the films have a consolidation, anywhere, and half
    have a letter, whichever class: photographs, too, show letters. None shows the streaks of a virus, which are left
    for fine-tuning to learn.
    """
    films, targets = np.empty((count, size, size), np.uint8), np.empty((count, size, size, 2), bool)
    for k in range(count):
        rng = np.random.default_rng([seed, k, 1])
        finding = str(rng.choice(["normal", "focus"]))
        hospital = replace(ANY, marker=(0.5, 0.5))
        films[k], targets[k, ..., 0], targets[k, ..., 1] = film(rng, finding, None, size, hospital)
    return films, targets
