"""helpers.download with kagglehub replaced: no test here touches the network."""

from __future__ import annotations

import errno
import types

import kagglehub
import pytest

from helpers import config, dataset

COUNTS = {"train": 6, "val": 2, "test": 4}


def draw_dataset(root, counts=COUNTS):
    for split, count in counts.items():
        for number in range(count):
            label = config.LABELS[number % 2]
            path = root / split / label / f"IM-{number:04}-0001.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{split} {number}".encode())
    return root


@pytest.fixture
def destination(tmp_path, monkeypatch):
    """A place for the dataset, small expected counts, and no kagglehub unless the test brings one."""
    monkeypatch.setattr(dataset.download, "EXPECTED", COUNTS)
    monkeypatch.setattr(dataset.download, "DESTINATION", tmp_path / "data" / "chest_xray")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: pytest.fail("nothing should be downloaded"))
    (tmp_path / "data").mkdir()
    return dataset.download.DESTINATION


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """What Kaggle's archive unpacks to: the dataset, the same nested once more, and the shadow of a Mac."""
    root = tmp_path / "cache" / "versions" / "2"
    draw_dataset(root / "chest_xray")
    draw_dataset(root / "chest_xray" / "chest_xray")
    draw_dataset(root / "chest_xray" / "__MACOSX" / "chest_xray")
    (root / "chest_xray" / "train" / ".DS_Store").write_bytes(b"x")
    (root / "chest_xray" / "train" / "NORMAL" / "._IM-0000-0001.jpeg").write_bytes(b"x")
    (root / "chest_xray" / "train" / "NORMAL" / "Thumbs.db").write_bytes(b"x")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(root))
    return root


def test_copies_the_images_and_nothing_else(destination, archive, capsys):
    assert dataset.download.main([]) == 0
    files = [p for p in destination.rglob("*") if p.is_file()]
    assert len(files) == sum(COUNTS.values())
    assert {p.suffix for p in files} == {".jpeg"}
    assert (destination / "train" / "PNEUMONIA" / "IM-0001-0001.jpeg").read_bytes() == b"train 1"
    assert [p.name for p in destination.parent.iterdir()] == ["chest_xray"]
    assert str(archive) in capsys.readouterr().out


def test_asks_for_the_published_handle(destination, archive, monkeypatch):
    asked = []
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: asked.append(handle) or str(archive))
    assert dataset.download.main([]) == 0
    assert asked == ["paultimothymooney/chest-xray-pneumonia"]


def test_a_complete_dataset_is_left_alone(destination, capsys):
    draw_dataset(destination)
    assert dataset.download.main([]) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_a_file_in_the_place_of_the_dataset_is_named(destination, capsys):
    destination.write_text("x")
    assert dataset.download.main([]) == 1
    assert "is there but no folder; move it away" in capsys.readouterr().err


def test_an_incomplete_dataset_is_left_alone_and_named(destination, capsys):
    draw_dataset(destination, {"train": 6, "test": 3})
    assert dataset.download.main([]) == 1
    said = capsys.readouterr().err
    assert "0 instead of 2 images in val, 3 instead of 4 images in test" in said
    assert "train" not in said.partition("(")[2]
    assert len(list(destination.rglob("*.jpeg"))) == 9


def test_other_counts_than_published_are_not_copied(destination, archive, capsys):
    for extra in archive.rglob("IM-0003-0001.jpeg"):
        extra.unlink()
    assert dataset.download.main([]) == 1
    assert "5 instead of 6 images in train, 3 instead of 4 images in test" in capsys.readouterr().err
    assert not destination.exists()


def test_the_nested_copy_serves_where_the_outer_one_is_damaged(destination, archive):
    (archive / "chest_xray" / "val" / "NORMAL" / "IM-0000-0001.jpeg").unlink()
    assert dataset.find_dataset(archive) == archive / "chest_xray" / "chest_xray"
    assert dataset.download.main([]) == 0
    assert dataset.wrong_counts(destination) == ""


def test_a_download_without_a_dataset(destination, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(tmp_path / "data"))
    assert dataset.download.main([]) == 1
    assert "holds no folder with train/NORMAL" in capsys.readouterr().err


class Refused(Exception):
    response = types.SimpleNamespace(status_code=403)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("Max retries exceeded"), "Kaggle could not be reached: ConnectionError"),
        (Refused("You don't have permission"), "Kaggle refused it: HTTP 403"),
        (OSError(errno.ENOSPC, "No space left on device"), "(No space left on device)"),
    ],
)
def test_offline_or_refused_is_one_sentence_with_the_way_out(destination, monkeypatch, capsys, error, words):
    def fail(handle):
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    assert dataset.download.main([]) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert said.count("\n") == 1
    assert words in said
    assert "by hand" in said
    assert str(destination / "train" / "NORMAL") in said
    assert not destination.exists()


def test_a_full_disk_leaves_no_half_dataset(destination, archive, monkeypatch, capsys):
    copied = []

    def copyfile(source, target):
        if len(copied) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(target)
        target.write_bytes(b"half")

    monkeypatch.setattr(dataset.download.shutil, "copyfile", copyfile)
    assert dataset.download.main([]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(destination.parent.iterdir()) == []


def test_a_copy_that_was_killed_is_started_over(destination, archive):
    left = destination.with_name("chest_xray.part") / "train" / "NORMAL" / "IM-9999-0001.jpeg"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert dataset.download.main([]) == 0
    assert dataset.wrong_counts(destination) == ""
    assert [p.name for p in destination.parent.iterdir()] == ["chest_xray"]
