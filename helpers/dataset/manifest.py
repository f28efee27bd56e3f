"""From a dataset folder to a manifest, its audit, and patient-grouped splits."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import mannwhitneyu
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from helpers import config, images, phantom, storage
from helpers.config import LABELS, InputError, Settings

MANIFEST_COLUMNS = ["path", "split", "label", "patient", "subtype", "width", "height", "sha256", "excluded", "why"]
NEAR_DUPLICATE = 0.99  # correlation of 32-pixel thumbnails above which two images are taken for one
_THUMBNAIL = 32


class Scan(NamedTuple):
    """A manifest, with facts about every file that only the audit needs (rows in the same order)."""

    manifest: pd.DataFrame
    facts: pd.DataFrame  # bytes: file size; mean: grey level, 0-255, NaN where unreadable; quantisation: see decode
    thumbnails: np.ndarray  # float32 (n, 1024): zero mean, unit length; zeros where unreadable


def parse_name(path: str) -> tuple[str, str, str]:
    """(patient, bare number, subtype) from a file's name; its whole path and no subtype where no pattern fits.

    person7_bacteria_25.jpeg -> ("person7_bacteria", "person7", "bacteria");
    NORMAL2-IM-0007-0001.jpeg -> ("NORMAL2-IM-0007", "IM-0007", "").
    """
    stem = Path(path).stem
    if match := re.fullmatch(r"(person\d+)_(bacteria|virus)_\d+(?:_\d+)*", stem):
        return f"{match[1]}_{match[2]}", match[1], match[2]
    if match := re.fullmatch(r"((?:NORMAL2-)?(IM-\d+))-\d+(?:-\d+)*", stem):
        return match[1], match[2], ""
    return path, path, ""


def find_root(settings: Settings) -> Path:
    """The dataset folder of `settings`, drawn first where it is one of phantoms; InputError where there is none."""
    root = config.dataset_folder(settings)
    if settings.phantoms and not settings.data:
        phantom.write_dataset(root, settings.phantoms, settings.seed)
    if not root.is_dir():
        raise InputError(
            f"the dataset folder {root} does not exist: run `make data`, or give a folder that holds train/NORMAL and "
            "train/PNEUMONIA with --data."
        )
    return root


def image_files(root: Path) -> Iterator[tuple[str, str, str]]:
    """(path, split, label) of every file with an image's suffix; a root with bare label folders counts as test."""
    folders = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    if not {"train", "test", "val"} & folders.keys():
        folders = {"test": root}
    for split in ("train", "val", "test"):
        for folder in sorted(folders[split].iterdir()) if split in folders else ():
            if folder.name.upper() in LABELS and folder.is_dir():
                for directory, below, names in os.walk(folder):
                    below[:] = [name for name in below if not name.startswith(".")]
                    for name in names:
                        if not name.startswith(".") and name.lower().endswith(config.SUFFIXES):
                            path = (Path(directory) / name).relative_to(root).as_posix()
                            yield path, split, folder.name.upper()


def _examine(file: Path) -> tuple:
    """(width, height, sha256, why, bytes, mean, quantisation, thumbnail); `why` says what makes a file unreadable."""
    none = np.nan, np.nan, np.zeros(_THUMBNAIL**2, np.float32)
    if storage.writable(str(file)) != str(file):
        return 0, 0, "", "unreadable: its name is not UTF-8, rename it", 0, *none
    try:
        data = images.file_bytes(file)
    except OSError as error:
        return 0, 0, "", f"unreadable: {error.strerror}", 0, *none
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels = images.read_image(data)
    except InputError as error:
        return 0, 0, digest, f"unreadable: {error}", len(data), *none
    small = images.resize(pixels, _THUMBNAIL).astype(np.float32).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    measured = float(pixels.mean()), images.quantisation(data), small / length if length else none[-1]
    return *pixels.shape[::-1], digest, "", len(data), *measured


def scan(root: Path) -> Scan:
    """Read every image below `root` once (`<root>/{train,test[,val]}/{NORMAL,PNEUMONIA}/...`).

    The manifest has a row per file, sorted by path; `excluded` is True, and `why` says it, for unreadable files,
    training images filed under both labels, later copies inside train, and training copies of a test image. Raises
    InputError where there is nothing to read.
    """
    found = sorted(image_files(root))
    if not found:
        raise InputError(f"{root} has no images in train/ or test/ below NORMAL and PNEUMONIA ({config.SUFFIXES}).")
    facts, thumbnails = [], np.empty((len(found), _THUMBNAIL**2), np.float32)
    with ThreadPoolExecutor(4) as pool:
        examined = pool.map(lambda row: _examine(root / row[0]), found)
        for row, (*fact, thumbnail) in enumerate(tqdm(examined, total=len(found), desc="scan", mininterval=1)):
            facts.append(fact)
            thumbnails[row] = thumbnail
    width, height, digest, why, size, mean, steps = (list(column) for column in zip(*facts, strict=True))
    path, split, label = (list(column) for column in zip(*found, strict=True))
    path = list(map(storage.writable, path))
    patient, _, subtype = (list(column) for column in zip(*map(parse_name, path), strict=True))
    manifest = pd.DataFrame(
        {"path": path, "split": split, "label": label, "patient": patient, "subtype": subtype}
        | {"width": width, "height": height, "sha256": digest, "excluded": False, "why": why}
    )[MANIFEST_COLUMNS]
    _exclude_copies(manifest)
    manifest["excluded"] = manifest["why"] != ""
    return Scan(manifest, pd.DataFrame({"bytes": size, "mean": mean, "quantisation": steps}), thumbnails)


def _exclude_copies(manifest: pd.DataFrame) -> None:
    """Fill `why` for byte-identical images that must not train."""
    readable = manifest[manifest["why"] == ""]
    for _, group in readable.groupby("sha256"):
        if len(group) == 1:
            continue
        in_test = group[group["split"] == "test"]
        in_train = group[group["split"] != "test"]
        if len(set(group["label"])) > 1:
            manifest.loc[in_train.index, "why"] = "the same image is filed under both labels"
        elif len(in_test):
            manifest.loc[in_train.index, "why"] = f"copy of the test image {in_test['path'].iloc[0]}"
        else:
            manifest.loc[in_train.index[1:], "why"] = f"copy of {in_train['path'].iloc[0]}"


def near_duplicates(scanned: Scan, above: float = NEAR_DUPLICATE) -> pd.DataFrame:
    """Pairs of images whose thumbnails correlate `above` (0-1) and whose bytes differ: path_a, path_b, correlation."""
    vectors, pairs = scanned.thumbnails, []
    for start in range(0, len(vectors), 250):
        similar = vectors[start : start + 250] @ vectors.T
        rows, columns = np.nonzero(similar > above)
        pairs += [(a + start, b, similar[a, b]) for a, b in zip(rows, columns, strict=True) if a + start < b]
    table = pd.DataFrame(pairs, columns=["a", "b", "correlation"])
    path, digest = (scanned.manifest[c].to_numpy() for c in ("path", "sha256"))
    table = table[digest[table["a"].to_numpy(int)] != digest[table["b"].to_numpy(int)]]
    a, b = table["a"].to_numpy(int), table["b"].to_numpy(int)
    return pd.DataFrame({"path_a": path[a], "path_b": path[b], "correlation": table["correlation"].to_numpy()})


def shortcuts(scanned: Scan) -> pd.DataFrame:
    """AUC with which facts that need no look at the lungs tell the classes, by split, and "p", whether that is chance.

    Whether more or less of a fact means pneumonia is taken from the first split, train: an AUC below 0.5 in test says
    that there it is the other way round. "p" is of that split, too (Mann and Whitney 1947), times the number of facts
    (Bonferroni); images of one patient count as independent. NaN where a fact is the same for all images of that split,
    or unknown: such a copy of the dataset cannot tell.
    """
    manifest, facts = scanned.manifest, scanned.facts
    candidates = {
        "JPEG compression": facts["quantisation"],
        "file size per pixel": facts["bytes"] / (manifest["width"] * manifest["height"]),
        "aspect ratio": manifest["width"] / manifest["height"],
        "image width": manifest["width"],
        "mean grey level": facts["mean"],
    }
    names = list(candidates)
    table = {}
    for split in ("train", "test"):
        use = ((manifest["split"] == "test") == (split == "test")) & facts["mean"].notna()  # val belongs to train
        sick, well = use & (manifest["label"] == "PNEUMONIA"), use & (manifest["label"] == "NORMAL")
        if not (sick.any() and well.any()):
            continue
        if not table:  # the first split
            candidates = {name: values for name, values in candidates.items() if values[use].max() > values[use].min()}
        tests, auc = {}, {}
        for name, values in candidates.items():
            one, other = values[sick].dropna(), values[well].dropna()
            if len(one) and len(other):
                tests[name] = mannwhitneyu(one, other)
                auc[name] = tests[name].statistic / (len(one) * len(other))
        table[split] = auc
        table.setdefault("p", {name: min(1.0, len(tests) * test.pvalue) for name, test in tests.items()})
    found = pd.DataFrame(table, index=names, dtype=float)
    splits = [name for name in found if name != "p"]
    less = found[splits[0]] < 0.5
    found.loc[less, splits] = 1 - found.loc[less, splits]
    return found[[*splits, "p"]]


def shared_numbers(manifest: pd.DataFrame) -> pd.DataFrame:
    """How many bare numbers, and how many patients, occur both in train (with val) and in test."""
    train, test = manifest[manifest["split"] != "test"], manifest[manifest["split"] == "test"]
    both = {"bare number": lambda frame: {parse_name(p)[1] for p in frame["path"]}}
    both["patient (number and subtype)"] = lambda frame: set(frame["patient"])
    rows = [(name, len(of(train)), len(of(test)), len(of(train) & of(test))) for name, of in both.items()]
    return pd.DataFrame(rows, columns=["identity", "in train", "in test", "in both"]).set_index("identity")


def number_series(manifest: pd.DataFrame) -> pd.DataFrame:
    """Which numbers of each series of patients (bacteria, virus, IM, NORMAL2-IM) are in train (with val) and in test.

    Columns train and test ("1 to 77"; "–" for none), in both (how many numbers), and blocks: into how many runs of one
    side, or of both, the series falls from its lowest number to its highest. A row for each series; names of
    no pattern are left out.
    """
    named = manifest[manifest["patient"] != manifest["path"]]  # see parse_name
    known = pd.DataFrame(
        {
            "series": named["patient"].str.replace(r"^person\d+_|-\d+$", "", regex=True),
            "number": named["patient"].str.extract(r"(?:person|IM-)(\d+)", expand=False).astype(int),
            "side": np.where(named["split"] == "test", "test", "train"),
        }
    ).drop_duplicates()
    rows = {}
    for name, part in known.groupby("series"):
        held = {side: part.loc[part["side"] == side, "number"] for side in ("train", "test")}
        rows[name] = {side: f"{some.min()} to {some.max()}" if len(some) else "–" for side, some in held.items()}
        where = part.groupby("number")["side"].agg(lambda sides: "both" if len(sides) > 1 else sides.iloc[0])
        rows[name] |= {"in both": int((where == "both").sum()), "blocks": int((where != where.shift()).sum())}
    return pd.DataFrame(rows, index=["train", "test", "in both", "blocks"]).T.rename_axis("series")


def dataset_fingerprint(manifest: pd.DataFrame) -> str:
    """SHA-256 over the sorted "path sha256" lines of a manifest: equal for equal datasets, wherever they lie."""
    lines = sorted(f"{p} {d}\n" for p, d in zip(manifest["path"], manifest["sha256"], strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def public_names(manifest: pd.DataFrame) -> bool:
    """Whether every image is named as in the public dataset (and as phantoms are)."""
    return bool((manifest["patient"] != manifest["path"]).all())


def check_classes(manifest: pd.DataFrame) -> None:
    """Raise InputError unless train (with val) has usable images of both classes."""
    usable = manifest.loc[~manifest["excluded"] & (manifest["split"] != "test"), "label"]
    if missing := [label for label in LABELS if not (usable == label).any()]:
        raise InputError(f"train has no usable image of {' or '.join(missing)}: both classes are needed to learn.")


def split(manifest: pd.DataFrame, near: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Cut validation from train (with val), stratified by label and subtype, by groups that belong together.

    A group joins all images of one patient, of one bare number, of one content, and near duplicates. Returns the
    images in use, sorted by path: path, split (train, validation, test), label, patient, subtype, group. Raises
    InputError where train has not both classes, or too few groups to leave both on both sides.
    """
    check_classes(manifest)
    used = manifest[~manifest["excluded"]].sort_values("path", ignore_index=True)
    train = used.index[used["split"] != "test"]
    used["group"] = _groups(used, near)
    strata = used.loc[train, "label"] + used.loc[train, "subtype"]
    folds = max(2, round(1 / fraction))
    groups = used.loc[train, "group"]
    fewest = min(groups[used.loc[train, "label"] == label].nunique() for label in LABELS)
    if fewest < 2:
        raise InputError("one class of train has a single patient: validation needs at least two of each class.")
    folds = min(folds, fewest)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    labels = used.loc[train, "label"].to_numpy()
    parts = list(splitter.split(train, strata, groups))
    whole = [held for kept, held in parts if len(set(labels[kept])) == len(set(labels[held])) == 2]
    held_out = (whole or [parts[0][1]])[0]  # in a small dataset, a fold may lack a class
    used.loc[train, "split"] = "train"
    used.loc[train[held_out], "split"] = "validation"
    check_split(used)
    return used[["path", "split", "label", "patient", "subtype", "group"]]


def _groups(used: pd.DataFrame, near: pd.DataFrame) -> np.ndarray:
    """A number per image, equal for images that must stay on one side of the split."""
    row = {path: i for i, path in enumerate(used["path"])}
    first: dict[str, int] = {}
    links = [(row[a], row[b]) for a, b in zip(near["path_a"], near["path_b"], strict=True) if a in row and b in row]
    for i, (path, digest) in enumerate(zip(used["path"], used["sha256"], strict=True)):
        links += [(i, first.setdefault(parse_name(path)[1], i)), (i, first.setdefault(digest, i))]
    start, end = np.array(links).T
    graph = coo_array((np.ones(len(links)), (start, end)), shape=(len(used), len(used)))
    return connected_components(graph, directed=False)[1]


def check_split(splits: pd.DataFrame) -> None:
    """Raise InputError unless train and validation share no group, patient or bare number, and have both classes."""
    train, validation = (splits[splits["split"] == s] for s in ("train", "validation"))
    numbers = [{parse_name(p)[1] for p in part["path"]} for part in (train, validation)]
    shared = set(train["group"]) & set(validation["group"]) or numbers[0] & numbers[1]
    if shared:
        raise InputError(f"{len(shared)} groups of images are on both sides of the validation split.")
    for part in (train, validation):
        if part["label"].nunique() < 2:
            raise InputError(
                "the validation split leaves one class on one side only: the dataset has too few patients."
            )


def write_table(table: pd.DataFrame, file: Path) -> None:
    """CSV, UTF-8, "\\n" line ends, no index, rows sorted by path; floats at full precision."""
    storage.write_text(file, table.sort_values("path").to_csv(index=False, lineterminator="\n"))


def read_table(file: Path, notebook: str) -> pd.DataFrame:
    """A run's CSV; InputError that names `notebook` where it is missing."""
    table = pd.read_csv(
        config.require_file(file, notebook), keep_default_na=False, dtype={"patient": str, "subtype": str}
    )
    return table.sort_values("path", ignore_index=True)


def prepare_evaluation(settings: Settings, run: Path, size: int) -> pd.DataFrame:
    """Write manifest.csv, splits.csv and images.npy (at `size` pixels) to evaluate a saved model on another dataset.

    Its test folder counts or, where it has none, every readable image. The images get the split "test". Returns the
    rows of the manifest that cannot be read. InputError where not one can.
    """
    root = find_root(settings)
    manifest = scan(root).manifest
    write_table(manifest, run / "manifest.csv")
    tested = manifest["split"] == "test"
    counted = manifest[tested | ~tested.any()]
    unreadable = counted["why"].str.startswith("unreadable")
    used = counted[~unreadable]
    if used.empty:
        raise InputError(f"{root} has no image that can be read{' in test' if tested.any() else ''}.")
    write_table(used[["path", "split", "label", "patient", "subtype"]].assign(split="test"), run / "splits.csv")
    images.build_cache(root, sorted(used["path"]), size, run / "images.npy")
    return counted[unreadable]
