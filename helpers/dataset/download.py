"""`python -m helpers.download` (`make data`): the public dataset into data/chest_xray."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

from helpers.config import DATA, InputError
from helpers.dataset.folders import image_files

HANDLE = "paultimothymooney/chest-xray-pneumonia"
DESTINATION = DATA / "chest_xray"
EXPECTED = {"train": 5216, "val": 16, "test": 624}


def wrong_counts(root: Path) -> str:
    """What the dataset at `root` holds instead of the published counts, in words; empty where they are all right."""
    counts = Counter(split for _, split, _ in image_files(root))
    return ", ".join(f"{counts[s]:,} instead of {n:,} images in {s}" for s, n in EXPECTED.items() if counts[s] != n)


def find_dataset(download: Path) -> Path:
    """The dataset inside Kaggle's archive, which repeats it one level down and adds a `__MACOSX` shadow of it."""
    folders = [train.parent for train in download.rglob("train") if (train / "NORMAL").is_dir()]
    folders = [f for f in folders if (f / "test").is_dir() and "__MACOSX" not in f.relative_to(download).parts]
    if not folders:
        raise InputError(f"the download in {download} holds no folder with train/NORMAL and test; nothing was copied.")
    return min(folders, key=lambda folder: (wrong_counts(folder) != "", len(folder.parts), str(folder)))


def copy_dataset(source: Path, destination: Path) -> None:
    """Copy the images aside, then rename, so that `destination` is either whole or not there."""
    aside = destination.with_name(destination.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for path, _, _ in image_files(source):
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, aside / path)
        aside.rename(destination)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise InputError(f"{destination} could not be written: {error.strerror or error}.") from error


def fetch() -> Path:
    """Kaggle's archive, unpacked in kagglehub's cache; InputError with the way out where it cannot be had."""
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(HANDLE))
    except Exception as error:  # whatever the network, Kaggle or the disk came up with
        reason = getattr(error, "strerror", None) or f"Kaggle could not be reached: {type(error).__name__}"
        if (response := getattr(error, "response", None)) is not None:
            reason = f"Kaggle refused it: HTTP {response.status_code}"
        raise InputError(
            f"the dataset was not downloaded ({reason}); place a copy by hand so that "
            f"{DESTINATION / 'train' / 'NORMAL'} exists (data/README.md says from where), or name one with --data."
        ) from error


def ensure_dataset() -> str:
    """Make DESTINATION the complete public dataset; returns what was done. InputError where that fails."""
    complete = f"{DESTINATION} is complete: {', '.join(f'{n:,} {split}' for split, n in EXPECTED.items())} images."
    if DESTINATION.exists():
        if not DESTINATION.is_dir():
            raise InputError(f"{DESTINATION} is there but no folder; move it away, then ask again.")
        if wrong := wrong_counts(DESTINATION):
            raise InputError(f"{DESTINATION} is there but not complete ({wrong}); move it away, then ask again.")
        return f"Nothing to do: {complete}"
    download = fetch()
    source = find_dataset(download)
    if wrong := wrong_counts(source):
        raise InputError(f"the download in {source} is not the published dataset ({wrong}); nothing was copied.")
    print(f"Copying the images to {DESTINATION} ...", flush=True)
    copy_dataset(source, DESTINATION)
    return f"{complete} The download is still in {download} and can be deleted. Next: make reports PROFILE=chest_xray"


def main(argv: list[str] | None = None) -> int:
    """0 when the dataset is in place, 1 with one sentence on stderr when it is not."""
    argparse.ArgumentParser(prog="python -m helpers.download", description=__doc__).parse_args(argv)
    try:
        print(ensure_dataset())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
