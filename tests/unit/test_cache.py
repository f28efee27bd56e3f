"""The array of all images of a run."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import images

PIXELS = np.random.default_rng(0).integers(0, 256, (2300, 4, 4), np.uint8)


def test_the_cache_holds_the_rows_in_their_order(tmp_path):
    rows = np.random.default_rng(1).permutation(len(PIXELS))[:2100]  # more than one block
    cache = images.save_cache(PIXELS, rows, tmp_path / "images.npy")
    assert np.array_equal(cache, PIXELS[rows])
    assert np.array_equal(images.load_cache(tmp_path / "images.npy"), cache)
    assert not cache.flags.writeable
    assert [file.name for file in tmp_path.iterdir()] == ["images.npy"]


def test_a_cache_that_fails_leaves_the_old_one(tmp_path):
    images.save_cache(PIXELS, np.arange(3), tmp_path / "images.npy")
    with pytest.raises(IndexError):
        images.save_cache(PIXELS, np.array([0, len(PIXELS)]), tmp_path / "images.npy")
    assert np.array_equal(images.load_cache(tmp_path / "images.npy"), PIXELS[:3])


def test_a_scratch_array_is_zero_and_leaves_no_file(tmp_path):
    array = images.scratch_array(tmp_path, (5, 3, 3))
    assert (array.dtype, array.shape, array.max()) == (np.uint8, (5, 3, 3), 0)
    array[4] = 9
    assert array[4].min() == 9
    assert not list(tmp_path.iterdir())
    assert images.scratch_array(None, (5, 0, 0)).shape == (5, 0, 0)
