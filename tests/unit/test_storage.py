"""Files that are whole or not there, and fingerprints."""

from __future__ import annotations

import json

import pytest

from helpers import storage


def test_written_text_is_whole_and_leaves_nothing_aside(tmp_path):
    file = tmp_path / "deep" / "text.txt"
    storage.write_text(file, "größer\nzwei\n")
    storage.write_text(file, "new\nlines\n")
    assert file.read_bytes() == b"new\nlines\n"
    assert [p.name for p in file.parent.iterdir()] == ["text.txt"]


def test_a_write_that_fails_leaves_the_old_text(tmp_path, monkeypatch):
    file = tmp_path / "text.txt"
    storage.write_text(file, "old")

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        storage.write_text(file, "new")
    assert file.read_text() == "old"


def test_json_is_sorted_and_ends_with_a_line_feed(tmp_path):
    storage.write_json(tmp_path / "a.json", {"b": 1, "a": [0.5, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": [0.5, None], "b": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_that_other_readers_refuse_is_not_written(tmp_path, value):
    file = tmp_path / "a.json"
    storage.write_json(file, {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(file, {"value": value})
    assert json.loads(file.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_fingerprint_is_stable_and_sees_every_value():
    value = {"b": [1, 2.5, None], "a": "text"}
    assert storage.fingerprint(value) == storage.fingerprint(dict(reversed(value.items())))
    # sha256 of '{"a": "text", "b": [1, 2.5, null]}', computed with sha256sum
    assert storage.fingerprint(value) == "f453f1d6a7ae47b7"
    others = [{"b": [1, 2.5, 0], "a": "text"}, {"b": [2.5, 1, None], "a": "text"}, [value], "text"]
    assert len({storage.fingerprint(v) for v in [value, *others]}) == 5
