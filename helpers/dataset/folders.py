"""Folders as people have them: which files are the images of a dataset, and why every other file is not used."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers import config, images, phantom, storage
from helpers.config import LABELS, InputError, Settings

_SPLITS = {"train": "train|training", "val": "val|valid|validation|dev", "test": "test|testing"}
_OUTSIDE = "outside of train, val and test"
_SYSTEM = "hidden, or a file of the system"
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini")
_SYSTEM_FOLDERS = ("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found")
_NO_FILMS = {  # what lies beside films and is none, by words in the name of a file or folder
    "a mask or annotation": r"masks?|masked|seg|segment(?:ed|ations?)|annotat(?:ed|ions?)|bbox|overlays?|contours?"
    r"|heat ?maps?|saliency|grad ?cam|ground ?truth",
    "a preview": r"previews?|thumb(?:nail)?s?",
    "an augmented copy": r"augment(?:ed|ations?)",
}
_AUGMENTED = r"^aug(?:[_-]|$)|_aug[_-]?\d{0,3}$"  # not the month
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")  # of files that Pillow reads
_DEPTH = 3  # levels below the folder that was named, in which the dataset is looked for


class Survey(NamedTuple):
    """What a folder holds; paths are relative to it, with "/"."""

    images: list[tuple[str, str, str]]  # path, split, label; sorted
    unused: list[tuple[str, str]]  # path, why; sorted
    problem: str  # why this cannot be read as a dataset; empty where it can


def find_root(settings: Settings) -> Path:
    """
    Find the dataset of a run; draw it first where it is one of phantoms.

    Parameters
    ----------
    settings : Settings
        `data` names the folder, or one up to three levels above it; empty: the profile's own.

    Returns
    -------
    Path
        The folder that holds train, test and perhaps val, or NORMAL and PNEUMONIA.

    Raises
    ------
    InputError
        Where the folder is missing, or holds several datasets. (`scan` says what is wrong with one that holds none.)
    """
    root = config.dataset_folder(settings)
    if settings.phantoms and not settings.data:
        phantom.write_dataset(root, settings.phantoms, trap=config.drawn_trap(settings))
    if not root.is_dir():
        what = "is no folder (unpack an archive first)" if root.exists() else "does not exist"
        raise InputError(
            f"the dataset folder {root} {what}: run `make data`, or give a folder that holds train/NORMAL and "
            "train/PNEUMONIA with --data."
        )
    found = _datasets(root)
    if len(found) > 1:
        raise InputError(why_no_dataset(root, found))
    return found[0] if found else root


def image_files(root: Path) -> Iterator[tuple[str, str, str]]:
    """(path, split, label) of every image of the dataset in or below `root`; a root of bare labels counts as test."""
    yield from survey(root).images


def survey(root: Path) -> Survey:
    """
    Sort all that lies in a dataset folder into images and files that are not used, with the reason.

    A split is named train, val or test, or much like it (valid, Testing, train_set). The folders in it are named NORMAL
    and PNEUMONIA, in any case. Folders of one name in different letters are joined. Images are told by their suffix, or
    by their first bytes. Links to folders are followed down to the labels, not below.

    Parameters
    ----------
    root : Path
        The dataset, or a folder up to three levels above it.

    Returns
    -------
    Survey
        Its `problem` says why this is no dataset, or why it would be wrong to use what it holds.
    """
    found = _datasets(root)
    if len(found) != 1:
        return Survey([], [], why_no_dataset(root, found))
    top = str(found[0])
    folders, files = _inside(top)
    parts = {path: split for path, name in folders if (split := _split_of(name)) and _labels_in([path])}
    if parts:  # a split without labels, too
        parts |= {path: split for path, name in folders if (split := _split_of(name))}
        unused = [(path, _why_not_file(path, name) or _OUTSIDE) for path, name in files]
        for path, name in folders:
            if path not in parts:
                unused += _walk(path, _why_not_folder(name) or _OUTSIDE)
    else:
        parts, unused = {top: "test"}, []
    if closed := [part for part in parts if not os.access(part, os.R_OK | os.X_OK)]:
        return Survey([], [], f"{closed[0]} cannot be opened: change its permissions.")
    taken: list[tuple[str, str, str]] = []
    others: dict[str, list[str]] = {}
    for part, split in parts.items():
        folders, files = _inside(part)
        place = f"in {split}, but neither in NORMAL nor in PNEUMONIA"
        unused += [(path, _why_not_file(path, name) or place) for path, name in files]
        for path, name in folders:
            if label := _label_of(name):
                for file, why in _walk(path, "", label):
                    taken.append((file, split, label)) if not why else unused.append((file, why))
                continue
            reason = _why_not_folder(name)
            below = _walk(path, reason or f"in a folder that is neither NORMAL nor PNEUMONIA: {storage.writable(name)}")
            unused += below
            if below and not reason:
                others.setdefault(split, []).append(storage.writable(name))
    problem = ""
    for split, names in others.items():
        labels = {label for _, of, label in taken if of == split}
        if len(labels) < len(LABELS):
            problem = (
                f"{split} in {top} holds {_in_words({*names, *labels})}, but two folders are wanted, NORMAL and "
                "PNEUMONIA: rename or join them."
            )
    start = len(os.path.join(root, ""))  # noqa: PTH118 - of text: there may be half a million paths
    relative = [(path[start:].replace(os.sep, "/"), split, label) for path, split, label in taken]
    left = [(path[start:].replace(os.sep, "/"), why) for path, why in unused]
    return Survey(sorted(relative), sorted(left), problem)


def _key(name: str) -> str:
    """A name as it is compared: without case, surrounding blanks, and signs that nobody sees."""
    if name.isascii():  # nearly always
        return name.strip().casefold()
    seen = (sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    return "".join(seen).strip().casefold()


def _split_of(name: str) -> str:
    """The split that a folder's name stands for; "" for none."""
    matches = (
        split
        for split, words in _SPLITS.items()
        if re.fullmatch(rf"(?:{words})(?:[ _-]?(?:set|data|images))?", _key(name))
    )
    return next(matches, "")


def _label_of(name: str) -> str:
    """The label that a folder's name stands for; "" for none."""
    return next((label for label in LABELS if _key(name) == label.casefold()), "")


def _inside(folder: str | Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(path, name) of the folders, and of all else, in a folder, sorted; nothing where it cannot be opened."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return [], []
    folders: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and Path(entry).is_dir())
        (folders if is_folder else others).append((entry.path, entry.name))
    return folders, others


def _labels_in(folders: list[str]) -> set[str]:
    """The labels that are names of folders in any of `folders`."""
    return {_label_of(name) for folder in folders for _, name in _inside(folder)[0]} - {""}


def _datasets(root: Path) -> list[Path]:
    """`root` where it is laid out as a dataset, else the folders with both classes that lie nearest below it."""
    level = [str(root)] if root.is_dir() else []
    for _ in range(_DEPTH + 1):
        found, below = [], []
        for folder in level:
            inside = _inside(folder)[0]
            labels = _labels_in([path for path, name in inside if _split_of(name)]) or _labels_in([folder])
            if len(labels) == len(LABELS) or (labels and folder == str(root)):
                found.append(Path(folder))
            below += [path for path, name in inside if not _why_not_folder(name) and not Path(path).is_symlink()]
        if found:
            return found
        level = below
    return []


def _walk(folder: str, reason: str, label: str = "") -> list[tuple[str, str]]:
    """Every file below `folder` and why it is not used: `reason`, or what speaks against it in a folder of `label`."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return [(folder, "a folder that cannot be opened")]
    folders, files = _inside(folder)
    found = [(path, reason or _why_not_file(path, name)) for path, name in files]
    for path, name in folders:
        other = _split_of(name) or (_label_of(name) if _label_of(name) != label else "")
        conflict = f"in {label}, but in {other} as well" if other else ""
        if Path(path).is_symlink():
            found.append((path, reason or "a link to a folder, which is not followed"))
        else:
            found += _walk(path, reason or _why_not_folder(name) or conflict, label)
    return found


def _no_film(key: str) -> str:
    """What the words in a name say that it is, in place of a film; "" where they say nothing."""
    for why, words in _NO_FILMS.items():
        if re.search(rf"(?:^|lung|[\W\d_])(?:{words})(?:$|[\W\d_])", key):
            return why
    return "an augmented copy" if re.search(_AUGMENTED, key) else ""


def _why_not_folder(name: str) -> str:
    """Why films are not looked for in a folder of this name; "" where they are."""
    key = _key(name)
    system = key.startswith((".", "__")) or key in _SYSTEM_FOLDERS or key == "system volume information"
    return _SYSTEM if system else _no_film(key)


def _why_not_file(path: str, name: str) -> str:
    """Why a file is no film, by its name and, where its suffix does not say it, by its first bytes; "" where it is."""
    key = _key(name)
    if key.startswith((".", "~$")) or key in _SYSTEM_FILES:
        return _SYSTEM
    if key == "dicomdir":
        return "an index of DICOM files"
    named = key.endswith(config.SUFFIXES)
    if why := _no_film(key.rpartition(".")[0] if named else key):
        return why
    if named or _starts_as_image(Path(path)):
        return ""
    return f"a file type we do not read ({storage.writable(Path(name).suffix.lower()) or 'no suffix'})"


def _starts_as_image(file: Path) -> bool:
    """Whether a file's first bytes are those of an image, whatever its name; False where it cannot be opened."""
    try:
        if not file.is_file():  # a pipe may never end
            return False
        with file.open("rb") as stream:
            start = stream.read(144)
    except OSError:
        return False
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return webp or start.startswith(_STARTS) or images.looks_like_dicom(start)


def _in_words(names: Iterable[str]) -> str:
    *first, last = sorted(names)
    return f"{', '.join(first[:8])} and {last}" if first else last


def why_no_dataset(root: Path, found: Sequence[Path] = ()) -> str:
    """What `root` holds instead of one dataset, and what is wanted; `found`: the datasets in it, if several."""
    if found:
        below = _in_words(folder.relative_to(root).as_posix() for folder in found)
        return f"{root} holds several datasets: {below}. Name one of them with --data."
    folders, files = _inside(root)
    inside = {name: [below for _, below in _inside(path)[0]] for path, name in folders}
    holds = (
        [f"the folders {_in_words(f'{n} ({_in_words(b)})' if b else n for n, b in inside.items())}"] if folders else []
    )
    holds += [f"{len(files):,} files"] if files else []
    tables = [name for _, name in files if name.lower().endswith((".csv", ".tsv", ".xlsx", ".json"))]
    text = (
        f"{root} has no images in train/ or test/ below NORMAL and PNEUMONIA ({', '.join(config.SUFFIXES)}). It holds "
        f"{' and '.join(holds) or 'nothing'}. {f'Labels in a table ({tables[0]}) are not read. ' if tables else ''}"
        "Sort the images into train/NORMAL, train/PNEUMONIA, test/NORMAL and test/PNEUMONIA."
    )
    return storage.writable(text)
