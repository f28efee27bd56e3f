"""Images decoded once for all runs of a sweep, which share them in the folder that XRAY_CACHE names."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np

from helpers import config, images, storage

_PACKAGES = ("numpy", "pillow", "pydicom", "python-gdcm")  # what decoded pixels depend on, beside our own code


class Decoded(NamedTuple):
    """What the files of a dataset hold, in the order of their paths."""

    rows: list[tuple]  # width, height, sha256, why, bytes, mean, quantisation: see manifest.py
    thumbnails: np.ndarray  # uint8 (n, 32, 32)
    pixels: np.ndarray  # uint8 (n, size, size)


def decoded_once(files: list[Path], size: int, decode: Callable[[], Decoded]) -> Decoded:
    """What `decode` returns for `files` and squares of `size` pixels, or returned to another run of the sweep.

    Runs that begin together wait for the one that decodes. Files count as the same while their path, size and times
    are; the time of the last change of state (ctime) is one that no program can set.
    """
    if not config.CACHE or not size:
        return decode()
    place = Path(config.CACHE).resolve() / _key(files, size)
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{place}.lock"):
        if not place.exists():
            found = decode()
            if not all(digest for _, _, digest, *_ in found.rows):
                return found  # what could not be opened now may be there for the next run
            _write(found, place)
    rows = json.loads((place / "rows.json").read_text(encoding="utf-8"))
    return Decoded(list(map(tuple, rows)), *(images.load_cache(place / f"{name}.npy") for name in Decoded._fields[1:]))


def _write(found: Decoded, place: Path) -> None:
    """Keep `found` in the folder `place`, which is made whole or not at all."""
    aside = Path(tempfile.mkdtemp(dir=place.parent))
    (aside / "rows.json").write_text(json.dumps(found.rows), encoding="utf-8")
    for name in Decoded._fields[1:]:
        images.save_cache(getattr(found, name), np.arange(len(found.rows)), aside / f"{name}.npy")
    aside.rename(place)


def _key(files: list[Path], size: int) -> str:
    """Fingerprint of all that decoded images depend on: files, size, our code, the packages that decode."""
    states = [(os.path.realpath(file), *storage.stamp(file)) for file in files]
    sources = [*sorted(Path(images.__file__).parent.glob("*.py")), Path(__file__).with_name("manifest.py")]
    code = [storage.sha256(source) for source in sources]
    return storage.fingerprint([states, size, code, [metadata.version(name) for name in _PACKAGES]])
