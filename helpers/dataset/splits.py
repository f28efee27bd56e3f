"""Who trains, who validates, who tests: nobody on two sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers import config, images
from helpers.config import LABELS, InputError, Settings
from helpers.dataset.audit import series_of
from helpers.dataset.folders import find_root
from helpers.dataset.manifest import check_classes, parse_name, scan, short_reasons, write_table


def split(manifest: pd.DataFrame, near: pd.DataFrame, fraction: float, seed: int, fold: str = "") -> pd.DataFrame:
    """
    Cut validation from train (with val), stratified by label and subtype, by groups that belong together.

    A group joins all images of one patient, of one bare number, of one content, and near duplicates.

    Parameters
    ----------
    manifest : DataFrame
        manifest.csv: the images, and which are excluded.
    near : DataFrame
        near_duplicates.csv: pairs path_a, path_b.
    fraction : float
        Proportion of train that becomes validation, 0-1; rounded to 1/2, 1/3, 1/4 and so on.
    seed : int
        Of the shuffling.
    fold : str
        Instead of that proportion: "2/5", the second of five folds, which share nothing and together are all of train;
        or "series:IM", each group with a patient of that series, and the proportion of the other class.

    Returns
    -------
    DataFrame
        The images in use, sorted by path: path, split (train, validation, test), label, patient, subtype, group.

    Raises
    ------
    InputError
        Where train has not both classes, or too few groups to leave both on both sides; or no such series.

    References
    ----------
    Kaufman et al. 2012, Leakage in data mining, ACM Transactions on Knowledge Discovery from Data.
    """
    check_classes(manifest)
    ordered = manifest.sort_values("path", ignore_index=True)
    ordered["group"] = _groups(ordered, near)  # an image that is left out still shows that two names are one child
    used = ordered[~ordered["excluded"]].reset_index(drop=True)
    used["group"] = np.unique(used["group"], return_inverse=True)[1]
    train = used[used["split"] != "test"]
    used.loc[train.index, "split"] = "train"
    used.loc[train.index[_held_out(train, fraction, seed, fold)], "split"] = "validation"
    check_split(used)
    return used[["path", "split", "label", "patient", "subtype", "group"]]


def _held_out(train: pd.DataFrame, fraction: float, seed: int, fold: str) -> np.ndarray:
    """Which rows of `train` become validation, as positions."""
    wanted = config.parse_fold(fold)
    labels, groups = train["label"].to_numpy(), train["group"]
    folds = wanted[1] if isinstance(wanted, tuple) else max(2, round(1 / fraction))
    fewest = min(groups[labels == label].nunique() for label in LABELS)
    if fewest < 2:
        raise InputError("one class of train has a single patient: validation needs at least two of each class.")
    if isinstance(wanted, tuple) and folds > fewest:
        raise InputError(f"setting fold={fold}: one class of train has {fewest} patients, too few for {folds} folds.")
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second, which commands save

    splitter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    parts = list(splitter.split(train, train["label"] + train["subtype"], groups))
    if isinstance(wanted, tuple):
        return parts[wanted[0] - 1][1]
    whole = [held for kept, held in parts if len(set(labels[kept])) == len(set(labels[held])) == len(LABELS)]
    held = (whole or [parts[0][1]])[0]  # in a small dataset, a fold may lack a class
    if wanted is None:
        return held
    series = series_of(train["patient"])
    if not (series == wanted).any():
        raise InputError(f"setting fold={fold}: train has no such series of names; it has {', '.join(set(series))}.")
    own = set(labels[series == wanted])
    others = np.isin(np.arange(len(train)), held) & ~np.isin(labels, list(own))
    return np.flatnonzero(groups.isin(groups[(series == wanted) | others]))


def _groups(manifest: pd.DataFrame, near: pd.DataFrame) -> np.ndarray:
    """A number per image, equal for images that must stay on one side of the split."""
    row = {path: i for i, path in enumerate(manifest["path"])}
    first: dict[str, int] = {}
    links = [(row[a], row[b]) for a, b in zip(near["path_a"], near["path_b"], strict=True) if a in row and b in row]
    broken = manifest["why"].str.startswith("unreadable")  # such files may have equal bytes by damage
    content = manifest["sha256"].mask(broken, manifest["path"])
    for i, (path, same) in enumerate(zip(manifest["path"], content, strict=True)):
        links += [(i, first.setdefault(parse_name(path)[1], i)), (i, first.setdefault(same, i))]
    start, end = np.array(links).T
    graph = coo_array((np.ones(len(links)), (start, end)), shape=(len(manifest), len(manifest)))
    return connected_components(graph, directed=False)[1]


def check_split(splits: pd.DataFrame) -> None:
    """Raise InputError unless train and validation share no group, patient or bare number, and have both classes."""
    train, validation = (splits[splits["split"] == s] for s in ("train", "validation"))
    numbers = [{parse_name(p)[1] for p in part["path"]} for part in (train, validation)]
    shared = set(train["group"]) & set(validation["group"]) or numbers[0] & numbers[1]
    if shared:
        raise InputError(f"{len(shared)} groups of images are on both sides of the validation split.")
    for part in (train, validation):
        if part["label"].nunique() < len(LABELS):
            raise InputError(
                "the validation split leaves one class on one side only: the dataset has too few patients."
            )


def image_flow(manifest: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """
    Count the images on their way from the dataset folder to train, validation and test.

    Parameters
    ----------
    manifest, splits : DataFrame
        manifest.csv and splits.csv of a run.

    Returns
    -------
    DataFrame
        Columns step (found, excluded, used, train, validation, test), why (of what is excluded), images, patients,
        NORMAL and PNEUMONIA (images). Excluded are counted by reason, without the names of other files.
    """
    parts = [("found", "", manifest)]
    parts += [("excluded", why, part) for why, part in manifest[manifest["excluded"]].groupby(short_reasons(manifest))]
    parts += [("used", "", splits)] + [(s, "", splits[splits["split"] == s]) for s in ("train", "validation", "test")]
    rows = [
        (step, why, len(part), part["patient"].nunique(), *((part["label"] == label).sum() for label in LABELS))
        for step, why, part in parts
    ]
    return pd.DataFrame(rows, columns=["step", "why", "images", "patients", *LABELS])


def prepare_evaluation(settings: Settings, run: Path, size: int) -> pd.DataFrame:
    """
    Prepare the evaluation of a saved model on another dataset: manifest.csv, splits.csv and images.npy.

    Parameters
    ----------
    settings : Settings
        `data` names the dataset. Its test folder counts or, where it has none, every readable image.
    run : Path
        The run folder to write to. The images get the split "test".
    size : int
        Side of the square that the model sees, pixels.

    Returns
    -------
    DataFrame
        The rows of the manifest that cannot be read.

    Raises
    ------
    InputError
        Where not one image can be read.
    """
    root = find_root(settings)
    scanned = scan(root, size, run)
    manifest = scanned.manifest
    write_table(manifest, run / "manifest.csv")
    tested = manifest["split"] == "test"
    counted = manifest[tested | ~tested.any()]
    unreadable = counted["why"].str.startswith("unreadable")
    used = counted[~unreadable]
    if used.empty:
        raise InputError(f"{root} has no image that can be read{' in test' if tested.any() else ''}.")
    write_table(used[["path", "split", "label", "patient", "subtype"]].assign(split="test"), run / "splits.csv")
    images.save_cache(scanned.pixels, used.index.to_numpy(), run / "images.npy")
    return counted[unreadable]
