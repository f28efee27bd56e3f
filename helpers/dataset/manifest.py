"""The manifest: a row per image file, with what it holds and why it is left out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import config, images, storage
from helpers.config import LABELS, InputError
from helpers.dataset.decoded import Decoded, decoded_once
from helpers.dataset.folders import image_files, survey, why_no_dataset

MANIFEST_COLUMNS = ["path", "split", "label", "patient", "subtype", "width", "height", "sha256", "excluded", "why"]
_THUMBNAIL = 32
_BLOCK = 32  # files that a thread reads before it takes others


class Scan(NamedTuple):
    """A manifest, with facts about every file that only the audit needs (rows in the same order)."""

    manifest: pd.DataFrame
    facts: pd.DataFrame  # bytes: file size; mean: grey level, 0-255, NaN where unreadable; quantisation: see decode
    thumbnails: np.ndarray  # uint8 (n, 32, 32); zeros where unreadable
    pixels: np.ndarray  # uint8 (n, size, size), on disk; zeros where unreadable
    unused: pd.DataFrame  # path, why: the other files of the folder


def parse_name(path: str) -> tuple[str, str, str]:
    """(patient, bare number, subtype) from a file's name; its whole path and no subtype where no pattern fits.

    The names of the public dataset on Kaggle, and of its first edition (Mendeley Data):

    >>> parse_name("person7_bacteria_25.jpeg")
    ('person7_bacteria', 'person7', 'bacteria')
    >>> parse_name("NORMAL2-IM-0007-0001.jpeg")
    ('NORMAL2-IM-0007', 'IM-0007', '')
    >>> parse_name("VIRUS-1173548-0003.jpeg")
    ('VIRUS-1173548', '1173548', 'virus')
    """
    stem = Path(path).stem
    if match := re.fullmatch(r"(person\d+)_(bacteria|virus)_\d+(?:_\d+)*", stem):
        return f"{match[1]}_{match[2]}", match[1], match[2]
    if match := re.fullmatch(r"((?:NORMAL2-)?(IM-\d+))-\d+(?:-\d+)*", stem):
        return match[1], match[2], ""
    if match := re.fullmatch(r"((BACTERIA|VIRUS|NORMAL)-(\d+))-\d+", stem):
        return match[1], match[3], match[2].lower().replace("normal", "")
    return path, path, ""


def scan(root: Path, size: int = 0, folder: Path | None = None) -> Scan:
    """
    Read and decode every image of a dataset, each once.

    Parameters
    ----------
    root : Path
        The dataset: `<root>/{train,test[,val]}/{NORMAL,PNEUMONIA}/...`; nothing is written there.
    size : int
        Side of the squares in `pixels`; 0 keeps none.
    folder : Path, optional
        Where these are kept, in a file without a name, as long as they are needed.

    Returns
    -------
    Scan
        Its manifest has a row per image, sorted by path. `excluded` is True, and `why` says it, for unreadable files,
        training images filed under both labels, later copies inside train, and training copies of a test image.

    Raises
    ------
    InputError
        Where there is nothing to read, or the folders are named otherwise.
    """
    found, unused, problem = survey(root)
    if problem or not found:
        raise InputError(problem or why_no_dataset(root))
    files = [root / path for path, *_ in found]
    rows, thumbnails, pixels = decoded_once(files, size, lambda: _decode(files, size, folder))
    facts = pd.DataFrame(rows, columns=["width", "height", "sha256", "why", "bytes", "mean", "quantisation"])
    named = [(storage.writable(path), *rest, *parse_name(storage.writable(path))) for path, *rest in found]
    manifest = pd.DataFrame(named, columns=["path", "split", "label", "patient", "number", "subtype"])
    manifest = manifest.join(facts).assign(excluded=False)[MANIFEST_COLUMNS]
    _exclude_copies(manifest)
    manifest["excluded"] = manifest["why"] != ""
    left = pd.DataFrame([(storage.writable(path), why) for path, why in unused], columns=["path", "why"])
    return Scan(manifest, facts[["bytes", "mean", "quantisation"]], thumbnails, pixels, left)


def _decode(files: list[Path], size: int, folder: Path | None) -> Decoded:
    """What `scan` keeps of every file, four of them at a time."""
    thumbnails = np.zeros((len(files), _THUMBNAIL, _THUMBNAIL), np.uint8)
    pixels = images.scratch_array(folder, (len(files), size, size))
    facts: list[tuple] = []
    blocks = [range(start, min(start + _BLOCK, len(files))) for start in range(0, len(files), _BLOCK)]

    def examine(rows: Sequence[int]) -> list[tuple]:
        return [_examine(files[row], thumbnails[row], pixels[row]) for row in rows]

    with ThreadPoolExecutor(4) as pool, tqdm(total=len(files), desc="scan", mininterval=1) as progress:
        for block in pool.map(examine, blocks):
            facts += block
            progress.update(len(block))
    return Decoded(facts, thumbnails, pixels)


def _examine(file: Path, thumbnail: np.ndarray, square: np.ndarray) -> tuple:
    """(width, height, sha256, why, bytes, mean, quantisation); `why` says what makes a file unreadable.

    Fills `thumbnail` and `square`, uint8 (side, side), with the image.
    """
    if storage.writable(str(file)) != str(file):
        return 0, 0, "", "unreadable: its name is not UTF-8, rename it", 0, np.nan, np.nan
    try:
        data = images.file_bytes(file)
    except OSError as error:
        return 0, 0, "", f"unreadable: {error.strerror}", 0, np.nan, np.nan
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels = images.read_image(data)
    except InputError as error:
        return 0, 0, digest, f"unreadable: {error}", len(data), np.nan, np.nan
    for small in (thumbnail, square):
        if small.size:
            small[:] = images.resize(pixels, len(small))
    return *pixels.shape[::-1], digest, "", len(data), float(pixels.mean()), images.quantisation(data)


def _exclude_copies(manifest: pd.DataFrame) -> None:
    """Fill `why` for byte-identical images that must not train."""
    readable = manifest[manifest["why"] == ""]
    for _, group in readable[readable.duplicated("sha256", keep=False)].groupby("sha256"):
        in_test = group[group["split"] == "test"]
        in_train = group[group["split"] != "test"]
        if len(set(group["label"])) > 1:
            manifest.loc[in_train.index, "why"] = "the same image is filed under both labels"
        elif len(in_test):
            manifest.loc[in_train.index, "why"] = f"copy of the test image {in_test['path'].iloc[0]}"
        else:
            manifest.loc[in_train.index[1:], "why"] = f"copy of {in_train['path'].iloc[0]}"


def short_reasons(manifest: pd.DataFrame) -> pd.Series:
    """Why images are left out, without the names of other files and the details: to be counted."""
    why = manifest["why"].str.replace(r"copy of (?!the test image ).*", "copy of another image", regex=True)
    return why.str.replace(r"(the test image) .*|: .*", r"\1", regex=True)


def dataset_fingerprint(manifest: pd.DataFrame) -> str:
    """SHA-256 over the sorted "path sha256" lines of a manifest: equal for equal datasets, wherever they lie."""
    lines = sorted(f"{p} {d}\n" for p, d in zip(manifest["path"], manifest["sha256"], strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files_fingerprint(root: Path) -> str:
    """Fingerprint of a dataset folder's images by name, size and time, without reading them."""
    return storage.fingerprint(sorted((path, *storage.stamp(root / path)[:2]) for path, *_ in image_files(root)))


def public_names(manifest: pd.DataFrame) -> bool:
    """Whether every image is named as in the public dataset (and as phantoms are)."""
    return bool((manifest["patient"] != manifest["path"]).all())


def check_classes(manifest: pd.DataFrame) -> None:
    """Raise InputError unless train (with val) has usable images of both classes."""
    usable = manifest.loc[~manifest["excluded"] & (manifest["split"] != "test"), "label"]
    if missing := [label for label in LABELS if not (usable == label).any()]:
        raise InputError(f"train has no usable image of {' or '.join(missing)}: both classes are needed to learn.")


def write_table(table: pd.DataFrame, file: Path) -> None:
    """CSV, UTF-8, "\\n" line ends, no index, rows sorted by path (or two of them); floats at full precision."""
    storage.write_text(file, _sorted(table).to_csv(index=False, lineterminator="\n"))


def read_table(file: Path, notebook: str) -> pd.DataFrame:
    """
    Read a CSV of a run.

    Parameters
    ----------
    file : Path
        manifest.csv, near_duplicates.csv, splits.csv or predictions.csv of a run folder.
    notebook : str
        The notebook that writes it, such as "01_eda".

    Returns
    -------
    DataFrame
        Its rows, sorted by path.

    Raises
    ------
    InputError
        Where the file is missing; it names the notebook.
    """
    table = pd.read_csv(
        config.require_file(file, notebook), keep_default_na=False, dtype={"patient": str, "subtype": str}
    )
    return _sorted(table)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values([name for name in table if name.startswith("path")], ignore_index=True)
