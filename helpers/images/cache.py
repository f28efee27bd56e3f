"""The array of all images of a run, on disk: memory stays small, however many there are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from helpers import storage

_BLOCK = 1000  # images that are copied at once


def _reserve(descriptor: int, size: int) -> None:
    """Claim room on the disk: where that is full, writing to mapped memory would end the process."""
    if hasattr(os, "posix_fallocate"):  # Linux
        os.posix_fallocate(descriptor, 0, size)


def new_array(file: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped .npy to fill, its room reserved."""
    array = np.lib.format.open_memmap(file, "w+", dtype, shape)
    with file.open("rb+") as stream:
        _reserve(stream.fileno(), array.offset + array.nbytes)
    return array


def scratch_array(folder: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    """A uint8 array to fill, in a file without a name that goes with the array; its room is reserved.

    The file lies in `folder`, or where the system keeps temporary files.
    """
    if not np.prod(shape):
        return np.empty(shape, np.uint8)
    stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the array keeps it open
    _reserve(stream.fileno(), int(np.prod(shape)))
    return np.memmap(stream, np.uint8, "r+", shape=shape)


def save_cache(images: np.ndarray, rows: np.ndarray, file: Path) -> np.ndarray:
    """
    Store some images as the array of a run; written aside and renamed when complete.

    Parameters
    ----------
    images : ndarray of uint8, (m, size, size)
        Such as the `pixels` of `dataset.scan`.
    rows : ndarray of int, (n,)
        Which of them, in the order to store.
    file : Path
        The .npy to write.

    Returns
    -------
    ndarray of uint8, (n, size, size)
        The stored array, as `load_cache` gives it.
    """
    aside = file.with_name(file.name + ".part")
    cache = new_array(aside, np.uint8, (len(rows), *images.shape[1:]))
    for start in range(0, len(rows), _BLOCK):
        cache[start : start + _BLOCK] = images[rows[start : start + _BLOCK]]
    cache.flush()
    del cache
    storage.replace_file(aside, file)
    return load_cache(file)


def load_cache(file: Path) -> np.ndarray:
    """
    Open the array of a run's images, memory-mapped and read-only.

    Parameters
    ----------
    file : Path
        images.npy of a run folder.

    Returns
    -------
    ndarray of uint8, (n, size, size)
        Grey pixels, 0-255; row i belongs to row i of splits.csv.
    """
    return np.load(file, mmap_mode="r")
