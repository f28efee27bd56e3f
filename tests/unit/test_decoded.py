"""Images that the runs of a sweep share: decoded once, and the same as without that."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import config, dataset, images


@pytest.fixture
def root(tmp_path):
    """Eight small films and one broken file."""
    rng = np.random.default_rng(0)
    for number in range(8):
        label = config.LABELS[number % 2]
        file = tmp_path / "films" / "train" / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30), np.uint8)).save(file)
    file.with_name("broken.png").write_bytes(b"no image")
    return tmp_path / "films"


@pytest.fixture
def decodings(monkeypatch) -> list:
    """What is appended to whenever an image is decoded."""
    found, read = [], images.read_image
    monkeypatch.setattr(images, "read_image", lambda data: found.append(1) or read(data))
    return found


def same(one: dataset.Scan, other: dataset.Scan) -> bool:
    pd.testing.assert_frame_equal(one.manifest, other.manifest)
    pd.testing.assert_frame_equal(one.facts, other.facts)
    return np.array_equal(one.thumbnails, other.thumbnails) and np.array_equal(one.pixels, other.pixels)


def test_runs_of_a_sweep_decode_once_and_see_what_one_run_sees(root, tmp_path, monkeypatch, decodings):
    alone = dataset.scan(root, 16, tmp_path)
    decodings.clear()
    monkeypatch.setattr(config, "CACHE", str(tmp_path / "decoded"))
    with ThreadPoolExecutor(2) as pool:  # both at once
        both = list(pool.map(lambda _: dataset.scan(root, 16, tmp_path), range(2)))
    assert len(decodings) == 9
    assert all(same(alone, found) for found in [*both, dataset.scan(root, 16, tmp_path)])
    assert len(decodings) == 9
    assert dataset.scan(root, 20, tmp_path).pixels.shape == (9, 20, 20)
    assert len(decodings) == 18


def test_a_file_that_changed_is_decoded_anew_whatever_its_time_says(root, tmp_path, monkeypatch, decodings):
    monkeypatch.setattr(config, "CACHE", str(tmp_path / "decoded"))
    before = dataset.scan(root, 16, tmp_path)
    file = root / "train" / "NORMAL" / "0.png"
    state = file.stat()
    data = bytearray(file.read_bytes())
    data[-20] ^= 1  # inside the end of the last chunk
    file.write_bytes(data)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = dataset.scan(root, 16, tmp_path)
    assert (before.manifest["sha256"] != after.manifest["sha256"]).sum() == 1


def test_what_cannot_be_opened_is_asked_again_by_the_next_run(root, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE", str(tmp_path / "decoded"))
    read, away = images.file_bytes, {"0.png"}

    def failing(file):
        if file.name in away:
            raise OSError(5, "Input/output error")
        return read(file)

    monkeypatch.setattr(images, "file_bytes", failing)
    assert dataset.scan(root, 16, tmp_path).manifest["why"].str.contains("Input/output").sum() == 1
    away.clear()
    assert dataset.scan(root, 16, tmp_path).manifest["why"].str.contains("Input/output").sum() == 0
