"""Dataset folders as people have them: taken, or refused, or counted with the reason; no image is lost in silence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from helpers import config, dataset
from helpers.config import InputError

GOOD = [f"{s}/{c}/{c[0]}{s}{i}.jpeg" for s in ("train", "test") for c in ("NORMAL", "PNEUMONIA") for i in range(3)]
LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")


def lay(root: Path, *paths: str, data: bytes = b"\xff\xd8\xff film") -> None:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def taken(root: Path) -> dict[str, tuple[str, str]]:
    """path -> (split, label); every other file must be listed with a reason."""
    found = dataset.survey(root)
    assert not found.problem
    there = [path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    assert sorted(there) == sorted([path for path, *_ in found.images] + [path for path, _ in found.unused])
    assert all(why for _, why in found.unused)
    return {path: (split, label) for path, split, label in found.images}


def why(root: Path) -> dict[str, str]:
    return dict(dataset.survey(root).unused)


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as refused:
        dataset.scan(root)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("valid", "val"), ("Validation", "val"), ("dev", "val"), ("VAL", "val"), ("training", "train"),
        ("Train_set", "train"), ("train images", "train"), ("Testing", "test"), ("test-data", "test"),
        ("ｔｒａｉｎ", "train"), (" train ", "train"), ("test\u200b", "test"),
    ],
)  # fmt: skip
def test_splits_are_told_by_names_much_like_theirs(tmp_path, name, split):
    lay(tmp_path, "train/NORMAL/a.jpeg", "train/PNEUMONIA/b.jpeg", f"{name}/NORMAL/c.jpeg", f"{name}/Pneumonia /d.jpeg")
    found = taken(tmp_path)
    assert found[f"{name}/NORMAL/c.jpeg"] == (split, "NORMAL")
    assert found[f"{name}/Pneumonia /d.jpeg"] == (split, "PNEUMONIA")


@pytest.mark.parametrize("name", ["holdout", "contest", "testes", "backup train", "train_old", "fold1"])
def test_another_folder_of_labels_is_counted_not_guessed(tmp_path, name):
    lay(tmp_path, *GOOD, f"{name}/NORMAL/x.jpeg")
    assert len(taken(tmp_path)) == 12
    assert why(tmp_path) == {f"{name}/NORMAL/x.jpeg": "outside of train, val and test"}


def test_folders_of_one_name_in_other_letters_are_joined(tmp_path):
    lay(tmp_path, *GOOD, "Train/NORMAL/x.jpeg", "train/NORMAL /y.jpeg", "train/normal/z.jpeg", "training/NORMAL/w.jpeg")
    found = taken(tmp_path)
    assert len(found) == 16
    assert set(found.values()) == {(s, c) for s in ("train", "test") for c in config.LABELS}


@pytest.mark.parametrize("above", ["chest_xray", "archive/chest_xray", "ChestXRay2017/chest_xray", "a/b/c"])
def test_a_dataset_is_found_in_a_folder_above_it(tmp_path, above):
    lay(tmp_path, *(f"{above}/{path}" for path in GOOD))
    lay(tmp_path, *(f"__MACOSX/{above}/{path}" for path in GOOD), "OCT2017/train/NORMAL/o.jpeg", "README.md")
    settings = config.make_settings("chest_xray", {"data": str(tmp_path)})
    root = dataset.find_root(settings)
    assert root == tmp_path.resolve() / above
    assert sorted(taken(root)) == sorted(GOOD)
    assert {path for path, *_ in dataset.image_files(tmp_path)} == {f"{above}/{path}" for path in GOOD}


def test_kaggles_archive_holds_itself_and_a_shadow(tmp_path):
    lay(tmp_path, *(f"chest_xray/{path}" for path in GOOD), "chest_xray/.DS_Store", "chest_xray/train/NORMAL/._a.jpeg")
    lay(tmp_path, *(f"chest_xray/chest_xray/{path}" for path in GOOD))
    lay(tmp_path, *(f"chest_xray/__MACOSX/chest_xray/{path}" for path in GOOD))
    root = dataset.find_root(config.make_settings("chest_xray", {"data": str(tmp_path)}))
    assert sorted(taken(root)) == sorted(GOOD)
    reasons = why(root)
    assert reasons["chest_xray/train/NORMAL/Ntrain0.jpeg"] == "outside of train, val and test"
    for path in ("__MACOSX/chest_xray/train/NORMAL/Ntrain0.jpeg", ".DS_Store", "train/NORMAL/._a.jpeg"):
        assert reasons[path] == "hidden, or a file of the system"


def test_several_datasets_are_refused_by_name(tmp_path):
    lay(tmp_path, *(f"{name}/{path}" for name in ("one", "two") for path in GOOD))
    assert "several datasets: one and two" in refusal(tmp_path)
    with pytest.raises(InputError, match="one and two"):
        dataset.find_root(config.make_settings("chest_xray", {"data": str(tmp_path)}))


@pytest.mark.parametrize(
    "path",
    [
        "train/NORMAL/masks/a.png", "train/NORMAL/lung_masks/a.png", "train/masks/a.png", "masks/train/NORMAL/a.png",
        "train/NORMAL/a_mask.png", "train/NORMAL/MASK_1.png", "train/NORMAL/a-lungmask.png", "train/NORMAL/a_seg.png",
        "train/NORMAL/Segmentations/a.png", "train/NORMAL/heatmaps/a.jpeg", "train/NORMAL/a_gradcam.jpeg",
        "train/NORMAL/a_annotated.png",
    ],
)  # fmt: skip
def test_masks_are_no_films(tmp_path, path):
    lay(tmp_path, *GOOD, path)
    assert len(taken(tmp_path)) == 12
    assert why(tmp_path) == {path: "a mask or annotation"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a_preview.png", "a preview"), ("thumb_1.jpeg", "a preview"), ("Thumbnails/a.jpeg", "a preview"),
        ("a-thumb.jpg", "a preview"), ("aug_0_1234.jpeg", "an augmented copy"), ("IM-1_aug3.png", "an augmented copy"),
        ("augmented/IM-1.png", "an augmented copy"), ("Thumbs.db", "hidden, or a file of the system"),
        ("desktop.ini", "hidden, or a file of the system"), ("@eaDir/x.jpg", "hidden, or a file of the system"),
        (".ipynb_checkpoints/a-checkpoint.jpeg", "hidden, or a file of the system"),
        ("notes.txt", "a file type we do not read (.txt)"), ("scan.nii.gz", "a file type we do not read (.gz)"),
        ("README", "a file type we do not read (no suffix)"), ("DICOMDIR", "an index of DICOM files"),
        ("PNEUMONIA/a.jpeg", "in NORMAL, but in PNEUMONIA as well"), ("val/a.jpeg", "in NORMAL, but in val as well"),
    ],
)  # fmt: skip
def test_what_is_no_film_is_counted_with_its_reason(tmp_path, name, reason):
    lay(tmp_path, *GOOD)
    lay(tmp_path, f"train/NORMAL/{name}", data=b"\0\1 no picture")
    assert len(taken(tmp_path)) == 12
    assert why(tmp_path) == {f"train/NORMAL/{name}": reason}


@pytest.mark.parametrize(
    "name",
    [
        "2019-august-12.jpeg", "#12.jpeg", "@home.png", "Thumbay_hospital.jpeg", "damask.png", "segal_12.jpeg",
        "  blanks  .jpeg", "IM-0115-0001 (1).jpeg", "NORMAL/deeper/a.jpeg", "images/a.jpeg", "_a.jpeg", "-dash.jpeg",
    ],
)  # fmt: skip
def test_odd_names_are_films(tmp_path, name):
    lay(tmp_path, *GOOD, f"train/NORMAL/{name}")
    assert f"train/NORMAL/{name}" in taken(tmp_path)


@pytest.mark.parametrize(
    "suffix", [".dicom", ".DCM", ".ima", ".tif", ".TIFF", ".bmp", ".webp", ".jfif", ".jpe", ".gif"]
)
def test_files_with_an_images_suffix_are_taken(tmp_path, suffix):
    lay(tmp_path, *GOOD)
    lay(tmp_path, f"train/NORMAL/y{suffix}", data=b"")  # read, and left out as empty, by the scan
    assert f"train/NORMAL/y{suffix}" in taken(tmp_path)


@pytest.mark.parametrize("name", ["IM000001", "1.2.840.113619.2.55.3", "film.img", "00012"])
@pytest.mark.parametrize(
    ("data", "image"),
    [
        (bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0", True),
        (b"\x08\0\5\0CS\n\0ISO_IR 100", True),  # without preamble
        (b"\xff\xd8\xff\xe0 JFIF", True),
        (b"\x89PNG\r\n\x1a\n", True),
        (b"RIFF\0\0\0\0WEBPVP8 ", True),
        (b"patient,label\n1,NORMAL\n", False),
        (b"", False),
    ],
)
def test_other_files_are_told_by_their_first_bytes(tmp_path, name, data, image):
    lay(tmp_path, *GOOD)
    lay(tmp_path, f"test/NORMAL/{name}", data=data)
    assert (f"test/NORMAL/{name}" in taken(tmp_path)) == image


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["train/0/a.jpeg", "train/1/b.jpeg", "test/0/c.jpeg"], "train (0 and 1)"),
        (["train/NORMAL/a.jpeg", "train/BACTERIA/b.jpeg", "train/VIRUS/c.jpeg"], "holds BACTERIA, NORMAL and VIRUS"),
        ([*GOOD[:6], "test/healthy/a.jpeg", "test/sick/b.jpeg"], "test in . holds healthy and sick"),
        (["NORMAL/a.jpeg", "BACTERIA/b.jpeg", "VIRUS/c.jpeg"], "holds BACTERIA, NORMAL and VIRUS"),
        (["images/1.png", "images/2.png", "labels.csv"], "Labels in a table (labels.csv) are not read"),
        (["NORMAL/train/a.jpeg", "PNEUMONIA/train/b.jpeg"], "NORMAL (train) and PNEUMONIA (train)"),
        (["a.jpeg", "b.jpeg"], "It holds 2 files"),
        ([], "It holds nothing"),
    ],
)  # fmt: skip
def test_other_layouts_are_refused_with_what_is_wanted(tmp_path, paths, said):
    lay(tmp_path, *paths)
    text = refusal(tmp_path).replace(str(tmp_path), ".")
    assert said in text
    assert "NORMAL" in text
    assert "PNEUMONIA" in text


def test_a_test_folder_without_labels_is_counted(tmp_path):
    lay(tmp_path, *GOOD[:6], "test/1.jpeg", "test/2.jpeg", "train/COVID/c.jpeg")
    assert len(taken(tmp_path)) == 6
    reasons = why(tmp_path)
    assert reasons["test/1.jpeg"] == "in test, but neither in NORMAL nor in PNEUMONIA"
    assert reasons["train/COVID/c.jpeg"] == "in a folder that is neither NORMAL nor PNEUMONIA: COVID"


@LINKS
def test_links_are_followed_down_to_the_labels(tmp_path):
    lay(tmp_path / "away", *GOOD)
    (tmp_path / "here/train").mkdir(parents=True)
    (tmp_path / "here/test").symlink_to(tmp_path / "away/test")
    (tmp_path / "here/train/PNEUMONIA").symlink_to(tmp_path / "away/train/PNEUMONIA")
    lay(tmp_path, "here/train/NORMAL/a.jpeg")
    (tmp_path / "here/train/NORMAL/b.jpeg").symlink_to(tmp_path / "away/train/NORMAL/Ntrain0.jpeg")
    (tmp_path / "here/train/NORMAL/loop").symlink_to(tmp_path / "here")
    found = dataset.survey(tmp_path / "here")
    assert len(found.images) == 11
    assert found.unused == [("train/NORMAL/loop", "a link to a folder, which is not followed")]


def test_a_split_that_cannot_be_opened_stops_the_survey(tmp_path, monkeypatch):
    lay(tmp_path, *GOOD)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "test" and access(path, mode))
    assert "test cannot be opened" in dataset.survey(tmp_path).problem


def test_a_folder_that_cannot_be_opened_is_counted(tmp_path, monkeypatch):
    lay(tmp_path, *GOOD, "train/NORMAL/closed/x.jpeg")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    assert why(tmp_path) == {"train/NORMAL/closed": "a folder that cannot be opened"}


def test_an_archive_in_place_of_a_folder_is_named(tmp_path):
    lay(tmp_path, "archive.zip", data=b"PK")
    with pytest.raises(InputError, match="unpack"):
        dataset.find_root(config.make_settings("chest_xray", {"data": str(tmp_path / "archive.zip")}))


def test_scan_reports_what_it_leaves_aside(tmp_path):
    lay(tmp_path, *GOOD, "train/NORMAL/a_mask.png", "LICENSE")
    scanned = dataset.scan(tmp_path)
    assert scanned.unused.to_dict("list") == {
        "path": ["LICENSE", "train/NORMAL/a_mask.png"],
        "why": ["outside of train, val and test", "a mask or annotation"],
    }
    assert len(scanned.manifest) == 12
