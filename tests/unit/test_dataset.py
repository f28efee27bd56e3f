"""From a folder to a manifest, its audit, and splits on which nobody is on both sides."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import config, dataset, images, phantom
from helpers.config import InputError
from tests.torture import inputs

COLUMNS = ["path", "split", "label", "patient", "subtype", "width", "height", "sha256", "excluded", "why"]


def film(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """Smooth random shades, another picture for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded_at(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write(root: Path, path: str, seed: int, **size) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    film(seed, **size).save(file, "PNG" if file.suffix.lower() == ".png" else "JPEG")
    return file


# Names


@pytest.mark.parametrize(
    ("name", "patient", "number", "subtype"),
    [
        ("person7_bacteria_25.jpeg", "person7_bacteria", "person7", "bacteria"),
        ("person447_virus_921_1.jpeg", "person447_virus", "person447", "virus"),
        ("train/PNEUMONIA/person7_virus_25.jpeg", "person7_virus", "person7", "virus"),
        ("IM-0115-0001.jpeg", "IM-0115", "IM-0115", ""),
        ("NORMAL2-IM-0587-0001-0002.jpeg", "NORMAL2-IM-0587", "IM-0587", ""),
        ("NORMAL2-IM-0007-0001.jpeg", "NORMAL2-IM-0007", "IM-0007", ""),
        ("VIRUS-1173548-0003.jpeg", "VIRUS-1173548", "1173548", "virus"),
        ("NORMAL-28501-0001.jpeg", "NORMAL-28501", "28501", ""),
        ("IM-0115.jpeg", "IM-0115.jpeg", "IM-0115.jpeg", ""),
        ("person7_fungus_3.png", "person7_fungus_3.png", "person7_fungus_3.png", ""),
        ("person7_bacteria_25 (copy).jpeg", "person7_bacteria_25 (copy).jpeg", "person7_bacteria_25 (copy).jpeg", ""),
        ("00000013_005.png", "00000013_005.png", "00000013_005.png", ""),
        ("a/b/scan.of.chest.dcm", "a/b/scan.of.chest.dcm", "a/b/scan.of.chest.dcm", ""),
    ],
)
def test_names_tell_patient_number_and_subtype(name, patient, number, subtype):
    assert dataset.parse_name(name) == (patient, number, subtype)


# Scanning


@pytest.fixture(scope="module")
def messy(tmp_path_factory) -> Path:
    """A folder with everything that real folders have."""
    root = tmp_path_factory.mktemp("messy")
    write(root, "train/NORMAL/IM-0001-0001.jpeg", 1)
    write(root, "train/NORMAL/IM-0002-0001.jpeg", 2)
    write(root, "train/NORMAL/deeper/still/IM-0003-0001.JPG", 3, width=50, height=20)
    write(root, "train/PNEUMONIA/person1_bacteria_1.jpeg", 11)
    write(root, "train/PNEUMONIA/person2_virus_2.jpeg", 12)
    write(root, "train/PNEUMONIA/holiday.png", 13)
    write(root, "val/normal/NORMAL2-IM-0004-0001.jpeg", 4)
    write(root, "test/NORMAL/IM-0001-0001.jpeg", 21)
    write(root, "test/pneumonia/person1_virus_3.jpeg", 22)

    def copy(source: str, target: str) -> None:
        shutil.copyfile(root / source, root / target)

    copy("train/PNEUMONIA/person1_bacteria_1.jpeg", "train/PNEUMONIA/person9_bacteria_4.jpeg")  # in train twice
    copy("train/PNEUMONIA/person1_bacteria_1.jpeg", "val/normal/person1_bacteria_1.png")  # and as healthy
    copy("train/NORMAL/IM-0002-0001.jpeg", "train/NORMAL/IM-0009-0001.jpeg")
    copy("test/pneumonia/person1_virus_3.jpeg", "train/PNEUMONIA/person3_virus_5.jpeg")  # known to test
    (root / "train/NORMAL/broken.jpeg").write_bytes(b"\xff\xd8\xff\xe0 no film")
    (root / "train/NORMAL/empty.jpeg").write_bytes(b"")
    (root / "train/NORMAL/.hidden.jpeg").write_bytes((root / "train/NORMAL/IM-0002-0001.jpeg").read_bytes())
    (root / "train/NORMAL/notes.txt").write_text("not an image")
    (root / "train/NORMAL/Thumbs.db").write_bytes(b"x")
    (root / "masks/train/PNEUMONIA").mkdir(parents=True)
    write(root, "masks/train/PNEUMONIA/person1_bacteria_1.png", 30)
    write(root, "train/COVID/person5_virus_1.jpeg", 31)
    write(root, "train/loose.jpeg", 32)
    write(root, "loose.jpeg", 33)
    return root


@pytest.fixture(scope="module")
def scanned(messy) -> dataset.Scan:
    return dataset.scan(messy)


def row(scanned: dataset.Scan, path: str) -> pd.Series:
    return scanned.manifest.set_index("path").loc[path]


def test_the_manifest_has_the_columns_of_the_contract_sorted_by_path(scanned):
    manifest = scanned.manifest
    assert list(manifest.columns) == COLUMNS == dataset.MANIFEST_COLUMNS
    assert list(manifest["path"]) == sorted(manifest["path"])
    assert manifest["path"].is_unique
    assert manifest["excluded"].dtype == bool
    assert (manifest["excluded"] == (manifest["why"] != "")).all()
    assert len(scanned.facts) == len(scanned.thumbnails) == len(manifest)


def test_every_image_in_a_label_folder_is_listed_and_nothing_else(scanned):
    assert set(scanned.manifest["path"]) == {
        "test/NORMAL/IM-0001-0001.jpeg",
        "test/pneumonia/person1_virus_3.jpeg",
        "train/NORMAL/IM-0001-0001.jpeg",
        "train/NORMAL/IM-0002-0001.jpeg",
        "train/NORMAL/IM-0009-0001.jpeg",
        "train/NORMAL/broken.jpeg",
        "train/NORMAL/deeper/still/IM-0003-0001.JPG",
        "train/NORMAL/empty.jpeg",
        "train/PNEUMONIA/holiday.png",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person2_virus_2.jpeg",
        "train/PNEUMONIA/person3_virus_5.jpeg",
        "train/PNEUMONIA/person9_bacteria_4.jpeg",
        "val/normal/NORMAL2-IM-0004-0001.jpeg",
        "val/normal/person1_bacteria_1.png",
    }


def test_a_row_says_what_the_file_and_its_name_say(scanned):
    nested = row(scanned, "train/NORMAL/deeper/still/IM-0003-0001.JPG")
    assert (nested["split"], nested["label"], nested["patient"], nested["subtype"]) == (
        "train",
        "NORMAL",
        "IM-0003",
        "",
    )
    assert (nested["width"], nested["height"], nested["excluded"]) == (50, 20, False)
    lower = row(scanned, "test/pneumonia/person1_virus_3.jpeg")
    assert (lower["label"], lower["patient"], lower["subtype"]) == ("PNEUMONIA", "person1_virus", "virus")
    assert row(scanned, "val/normal/NORMAL2-IM-0004-0001.jpeg")["split"] == "val"
    assert row(scanned, "train/PNEUMONIA/holiday.png")["patient"] == "train/PNEUMONIA/holiday.png"


def test_facts_are_the_files_own(messy, scanned):
    index = list(scanned.manifest["path"]).index("train/PNEUMONIA/holiday.png")
    file = messy / "train/PNEUMONIA/holiday.png"
    assert scanned.facts["bytes"][index] == file.stat().st_size
    assert scanned.facts["mean"][index] == pytest.approx(images.read_image(file).mean())
    assert np.array_equal(scanned.thumbnails[index], images.resize(images.read_image(file), 32))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("train/NORMAL/broken.jpeg", "unreadable: the image cannot be read"),
        ("train/NORMAL/empty.jpeg", "unreadable: the image is empty"),
        ("train/NORMAL/IM-0002-0001.jpeg", ""),
        ("train/NORMAL/IM-0009-0001.jpeg", "copy of train/NORMAL/IM-0002-0001.jpeg"),
        ("train/PNEUMONIA/person3_virus_5.jpeg", "copy of the test image test/pneumonia/person1_virus_3.jpeg"),
        ("train/PNEUMONIA/person1_bacteria_1.jpeg", "the same image is filed under both labels"),
        ("train/PNEUMONIA/person9_bacteria_4.jpeg", "the same image is filed under both labels"),
        ("val/normal/person1_bacteria_1.png", "the same image is filed under both labels"),
        ("test/pneumonia/person1_virus_3.jpeg", ""),
    ],
)
def test_what_must_not_train_is_excluded_and_why(scanned, path, why):
    found = row(scanned, path)
    assert found["why"].startswith(why)
    assert found["excluded"] == bool(why)


def test_only_those_are_excluded(scanned):
    assert scanned.manifest["excluded"].sum() == 7


def test_unreadable_files_keep_their_row_without_a_size(scanned):
    broken = row(scanned, "train/NORMAL/broken.jpeg")
    assert (broken["width"], broken["height"]) == (0, 0)
    assert len(broken["sha256"]) == 64
    index = list(scanned.manifest["path"]).index("train/NORMAL/broken.jpeg")
    assert np.isnan(scanned.facts["mean"][index])
    assert not scanned.thumbnails[index].any()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_cannot_be_written_down_is_left_out_with_the_reason(tmp_path):
    write(tmp_path, "train/NORMAL/IM-0001-0001.png", 1)
    unwritable = os.fsdecode(os.fsencode(tmp_path) + b"/train/NORMAL/R\xf6n.png")
    (tmp_path / "train/NORMAL/IM-0001-0001.png").rename(unwritable)
    write(tmp_path, "train/NORMAL/IM-0002-0001.png", 2)
    manifest = dataset.scan(tmp_path).manifest
    assert manifest["excluded"].tolist() == [False, True]
    assert manifest["why"][1] == "unreadable: its name is not UTF-8, rename it"
    dataset.write_table(manifest, tmp_path / "manifest.csv")
    assert dataset.read_table(tmp_path / "manifest.csv", "01")["path"][1] == "train/NORMAL/R\\udcf6n.png"


@pytest.mark.parametrize("names", [("NORMAL", "PNEUMONIA"), ("normal", "Pneumonia")])
def test_bare_label_folders_count_as_test(tmp_path, names):
    for k, name in enumerate(names):
        write(tmp_path, f"{name}/{k}.png", k)
    manifest = dataset.scan(tmp_path).manifest
    assert list(manifest["split"]) == ["test", "test"]
    assert sorted(manifest["label"]) == ["NORMAL", "PNEUMONIA"]


def test_split_folders_may_be_spelled_differently(tmp_path):
    write(tmp_path, "Train/Normal/a.png", 1)
    write(tmp_path, "TEST/PNEUMONIA/b.png", 2)
    manifest = dataset.scan(tmp_path).manifest
    assert dict(zip(manifest["path"], manifest["split"], strict=True)) == {
        "TEST/PNEUMONIA/b.png": "test",
        "Train/Normal/a.png": "train",
    }


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "train" / "NORMAL").mkdir(parents=True)
    (tmp_path / "train" / "NORMAL" / "a.txt").write_text("x")
    with pytest.raises(InputError, match="has no images in train/ or test/ below NORMAL and PNEUMONIA"):
        dataset.scan(tmp_path)


def test_a_missing_dataset_is_refused_with_the_way_out(tmp_path):
    settings = config.make_settings("chest_xray", {"data": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"none does not exist: run `make data`.*--data"):
        dataset.find_root(settings)
    assert dataset.find_root(config.make_settings("chest_xray", {"data": str(tmp_path)})) == tmp_path.resolve()


def test_a_named_folder_is_never_drawn_into(tmp_path):
    settings = config.make_settings("smoke", {"data": str(tmp_path), "phantoms": 20})
    assert dataset.find_root(settings) == tmp_path.resolve()
    assert not any(tmp_path.iterdir())


# The audit


def test_near_duplicates_find_a_copy_that_was_encoded_again(tmp_path):
    write(tmp_path, "train/NORMAL/a.png", 1, width=200, height=160)
    write(tmp_path, "train/NORMAL/b.png", 2, width=200, height=160)
    film(1, 200, 160).resize((120, 100)).save(tmp_path / "train/NORMAL/c.jpeg", quality=40)
    shutil.copyfile(tmp_path / "train/NORMAL/b.png", tmp_path / "train/NORMAL/d.png")  # equal bytes: no near one
    Image.new("L", (20, 20), 7).save(tmp_path / "train/NORMAL/e.png")
    Image.new("L", (20, 20), 9).save(tmp_path / "train/NORMAL/f.png")  # uniform images resemble nothing
    near = dataset.near_duplicates(dataset.scan(tmp_path))
    assert list(near.columns) == ["path_a", "path_b", "correlation"]
    assert list(zip(near["path_a"], near["path_b"], strict=True)) == [("train/NORMAL/a.png", "train/NORMAL/c.jpeg")]
    assert 0.99 < near["correlation"][0] <= 1.0001


def test_near_duplicates_of_nothing_are_an_empty_table(tmp_path):
    write(tmp_path, "train/NORMAL/a.png", 1)
    near = dataset.near_duplicates(dataset.scan(tmp_path))
    assert list(near.columns) == ["path_a", "path_b", "correlation"]
    assert near.empty


def test_a_planted_shortcut_is_detected(tmp_path):
    for split in ("train", "test"):
        for k in range(6):
            write(tmp_path, f"{split}/NORMAL/n{k}.png", k, width=60, height=40)  # healthy: wide
            write(tmp_path, f"{split}/PNEUMONIA/p{k}.png", 100 + k, width=40 if split == "train" else 60, height=40)
    found = dataset.shortcuts(dataset.scan(tmp_path))
    assert list(found.columns) == ["train", "test", "p", "with pneumonia"]
    assert found.loc["aspect ratio", "with pneumonia"] == "smaller"
    assert found.loc["aspect ratio", "train"] == found.loc["image width", "train"] == 1.0
    assert found.loc["aspect ratio", "test"] == found.loc["image width", "test"] == 0.5
    assert found["train"].dropna().between(0.5, 1).all()
    assert found.loc["image width", "p"] < 0.05
    assert found.loc["JPEG compression"].isna().all()  # none of these is one


def test_harder_compression_is_a_shortcut_what_is_alike_everywhere_unknown(tmp_path):
    for split in ("train", "test"):
        for k in range(6):
            for label, quality in (("NORMAL", 95), ("PNEUMONIA", 75 if split == "train" else 95)):
                file = write(tmp_path, f"{split}/{label}/x{k}.jpeg", 10 + k)
                Image.open(file).save(file, quality=quality)
    found = dataset.shortcuts(dataset.scan(tmp_path))
    assert found.loc["JPEG compression", ["train", "test", "with pneumonia"]].tolist() == [1.0, 0.5, "larger"]
    assert found.loc[["aspect ratio", "image width"]].isna().all(axis=None)
    for file in list(tmp_path.rglob("NORMAL/*.jpeg")):  # so is another kind of file
        Image.open(file).save(file.with_suffix(".png"))
        file.unlink()
    assert dataset.shortcuts(dataset.scan(tmp_path)).loc["JPEG compression", ["train", "test"]].tolist() == [1.0, 1.0]


def test_a_letter_at_the_side_is_a_shortcut(tmp_path):
    for split, side in (("train", 38), ("test", 20)):  # in test it stands in the middle
        for k in range(6):
            for label in ("NORMAL", "PNEUMONIA"):
                film = np.random.default_rng(k).integers(0, 120, (40, 40)).astype(np.uint8)
                if label == "PNEUMONIA":
                    film[5:9, side - 2 : side + 2] = 255
                file = tmp_path / split / label / f"x{k}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(film).save(file)
    found = dataset.shortcuts(dataset.scan(tmp_path)).loc["brightest spot at the sides"]
    assert found["train"] == 1.0
    assert found["test"] == 0.5


def test_a_reversed_shortcut_lies_below_a_half_and_noise_is_called_noise(tmp_path):
    for split, wide in (("train", "NORMAL"), ("test", "PNEUMONIA")):
        for label in ("NORMAL", "PNEUMONIA"):
            for k in range(8):
                width = 60 if label == wide else 40
                write(tmp_path, f"{split}/{label}/x{k}.png", 10 + k, width=width, height=width)
    found = dataset.shortcuts(dataset.scan(tmp_path))
    assert found.loc["image width", ["train", "test"]].tolist() == [1.0, 0.0]
    assert found.loc["aspect ratio"].isna().all()
    assert found.loc["mean grey level", "p"] == 1.0


def test_shortcuts_leave_out_what_has_one_class_or_no_pixels(messy, scanned, tmp_path):
    write(tmp_path, "train/NORMAL/a.png", 1)
    write(tmp_path, "train/PNEUMONIA/b.png", 2)
    (tmp_path / "train/NORMAL/c.png").write_bytes(b"broken")
    write(tmp_path, "test/NORMAL/d.png", 4)
    found = dataset.shortcuts(dataset.scan(tmp_path))
    assert list(found.columns) == ["train", "p", "with pneumonia"]
    assert found.loc["mean grey level"].notna().all()
    assert set(dataset.shortcuts(scanned).columns) == {"train", "test", "p", "with pneumonia"}


def test_shortcuts_without_a_split_of_both_classes_are_unknown(tmp_path):
    write(tmp_path, "train/NORMAL/a.png", 1)
    write(tmp_path, "test/PNEUMONIA/b.png", 2)
    found = dataset.shortcuts(dataset.scan(tmp_path))
    assert list(found.columns) == ["p", "with pneumonia"]
    assert len(found) == 6
    assert found.isna().all(axis=None)


def test_a_training_image_that_looks_like_a_test_image_is_left_out(tmp_path):
    for k, path in enumerate(("train/NORMAL/a.png", "train/NORMAL/b.png", "val/NORMAL/c.png", "test/NORMAL/d.png")):
        write(tmp_path, path, 1 + k, width=120, height=100)
    likes = {
        "train/NORMAL/like-d.jpeg": (4, 60),
        "val/NORMAL/like-d.jpeg": (4, 70),
        "train/NORMAL/like-a.jpeg": (1, 60),
    }
    for path, (seed, quality) in likes.items():
        film(seed, 120, 100).save(tmp_path / path, quality=quality)
    (tmp_path / "test/NORMAL/like-d.jpeg").write_bytes(encoded_at(film(4, 120, 100), 80))
    scanned = dataset.scan(tmp_path)
    near = dataset.near_duplicates(scanned)
    manifest = dataset.exclude_near_duplicates(scanned.manifest, near).set_index("path")
    assert set(manifest.index[manifest["excluded"]]) == {"train/NORMAL/like-d.jpeg", "val/NORMAL/like-d.jpeg"}
    for path in ("train/NORMAL/like-d.jpeg", "val/NORMAL/like-d.jpeg"):
        assert manifest.loc[path, "why"].startswith("near duplicate of the test image test/NORMAL/")
    assert not scanned.manifest["excluded"].any()  # the argument is left alone
    reasons = dataset.short_reasons(manifest[manifest["excluded"]])
    assert set(reasons) == {"near duplicate of the test image"}


def test_an_excluded_copy_keeps_its_first_reason(tmp_path):
    write(tmp_path, "test/NORMAL/a.png", 1)
    shutil.copyfile(tmp_path / "test/NORMAL/a.png", write(tmp_path, "train/NORMAL/b.png", 2))
    manifest = dataset.scan(tmp_path).manifest
    near = pd.DataFrame([("test/NORMAL/a.png", "train/NORMAL/b.png", 1.0)], columns=["path_a", "path_b", "correlation"])
    pd.testing.assert_frame_equal(dataset.exclude_near_duplicates(manifest, near), manifest)


@pytest.mark.parametrize("above", [0.99, 0.97])
def test_near_duplicates_are_those_of_an_exhaustive_search(above):
    """On phantoms, with copies under noise, brightness and a shift of half a pixel."""
    drawn, _ = phantom.pretraining_set(40, 66, 0)
    rng = np.random.default_rng(0)
    changed = [np.clip(drawn[:20] * 0.8 + 9, 0, 255), drawn[:20] + rng.normal(0, 4, drawn[:20].shape), drawn[:20]]
    large = np.concatenate([drawn[:, 1:65, 1:65], *(part[:, 1:65, k : k + 64] for k, part in enumerate(changed))])
    small = np.stack([images.resize(np.clip(image, 0, 255).astype(np.uint8), 32) for image in large])
    small = np.concatenate([small, np.zeros((2, 32, 32), np.uint8)])  # uniform ones resemble nothing
    paths = [f"{k:03d}.png" for k in range(len(small))]
    manifest = pd.DataFrame({"path": paths, "sha256": [*paths[:-1], paths[0]]})
    found = dataset.near_duplicates(dataset.Scan(manifest, None, small, None, None), above)
    flat = small[:-2].reshape(len(small) - 2, -1)
    correlation = np.corrcoef(flat)
    wanted = {(paths[a], paths[b]) for a, b in np.argwhere(np.triu(correlation, 1) > above)}
    assert len(wanted) >= 20
    assert set(zip(found["path_a"], found["path_b"], strict=True)) == wanted
    values = [correlation[int(a[:3]), int(b[:3])] for a, b in zip(found["path_a"], found["path_b"], strict=True)]
    assert found["correlation"].tolist() == pytest.approx(values)


def test_shared_numbers_are_counted(scanned):
    shared = dataset.shared_numbers(scanned.manifest)
    # bare numbers in both: IM-0001 and person1; as patients only IM-0001, since person1 is bacterial here, viral there
    assert shared.loc["bare number", ["in test", "in both"]].tolist() == [2, 2]
    assert shared.loc["patient (number and subtype)", ["in test", "in both"]].tolist() == [2, 1]
    train = scanned.manifest[scanned.manifest["split"] != "test"]
    assert shared.loc["patient (number and subtype)", "in train"] == train["patient"].nunique()


def test_series_of_numbers_are_told_apart_and_cut_into_blocks():
    patients = [f"person{n}_virus" for n in (3, 9, 10, 40, 9)]
    patients += ["person7_bacteria", "IM-0115", "NORMAL2-IM-0007", "x.png"]
    sides = ["test", "train", "val", "test", "test", "train", "test", "train", "train"]
    series = dataset.number_series(pd.DataFrame({"path": "x.png", "patient": patients, "split": sides}))
    assert series.loc["virus"].tolist() == ["9 to 10", "3 to 40", 1, 4]  # 3 | 9 in both | 10 | 40
    assert series.loc["bacteria"].tolist() == ["7 to 7", "–", 0, 1]
    assert series.loc["IM"].tolist() == ["–", "115 to 115", 0, 1]
    assert list(series.index) == ["IM", "NORMAL2-IM", "bacteria", "virus"]
    assert dataset.number_series(pd.DataFrame({"path": ["x.png"], "patient": ["x.png"], "split": ["train"]})).empty


def test_the_fingerprint_depends_on_names_and_bytes_only(scanned):
    manifest = scanned.manifest
    print_ = dataset.dataset_fingerprint(manifest)
    assert dataset.dataset_fingerprint(manifest.sample(frac=1, random_state=3)) == print_
    assert dataset.dataset_fingerprint(manifest.assign(split="x", why="y")) == print_
    assert dataset.dataset_fingerprint(manifest.iloc[1:]) != print_
    renamed = manifest.assign(path=manifest["path"].str.replace("holiday", "other"))
    assert dataset.dataset_fingerprint(renamed) != print_
    assert len(print_) == 64


# Tables


def test_tables_come_back_as_they_were_written(scanned, tmp_path):
    file = tmp_path / "manifest.csv"
    dataset.write_table(scanned.manifest.sample(frac=1, random_state=0), file)
    assert file.read_bytes().startswith((",".join(COLUMNS) + "\n").encode())
    assert b"\r" not in file.read_bytes()
    back = dataset.read_table(file, "01_eda")
    pd.testing.assert_frame_equal(back, scanned.manifest, check_dtype=False)
    assert back["excluded"].dtype == bool


def test_names_that_look_like_numbers_or_nothing_survive(tmp_path):
    table = pd.DataFrame({"path": ["b/NA.png", "a/007.png"], "patient": ["NA", "007"], "subtype": ["", ""]})
    table["probability"] = [1 / 3, 2e-17]
    dataset.write_table(table, tmp_path / "t.csv")
    back = dataset.read_table(tmp_path / "t.csv", "05_evaluation")
    assert back["patient"].tolist() == ["007", "NA"]
    assert back["probability"].tolist() == [2e-17, 1 / 3]  # to the last bit
    assert (back["subtype"] == "").all()


def test_a_missing_table_names_the_notebook(tmp_path):
    with pytest.raises(InputError, match=r"predictions\.csv is missing .* run 05_evaluation first"):
        dataset.read_table(tmp_path / "predictions.csv", "05_evaluation")


# Another dataset for a saved model


def test_evaluation_takes_the_test_folder_and_every_readable_image_of_it(messy, tmp_path):
    shutil.copytree(messy, tmp_path / "data")
    (tmp_path / "data/test/NORMAL/broken.png").write_bytes(b"broken")
    settings = config.make_settings("chest_xray", {"data": str(tmp_path / "data")})
    run = tmp_path / "run"
    run.mkdir()
    dataset.prepare_evaluation(settings, run, 16)
    splits = dataset.read_table(run / "splits.csv", "02")
    assert list(splits["path"]) == ["test/NORMAL/IM-0001-0001.jpeg", "test/pneumonia/person1_virus_3.jpeg"]
    assert set(splits["split"]) == {"test"}
    assert list(dataset.read_table(run / "manifest.csv", "01").columns) == COLUMNS
    pixels = images.load_cache(run / "images.npy")
    for path, cached in zip(splits["path"], pixels, strict=True):
        assert np.array_equal(cached, images.resize(images.read_image(tmp_path / "data" / path), 16))


def test_evaluation_without_a_test_folder_takes_everything(tmp_path):
    write(tmp_path, "data/train/NORMAL/a.png", 1)
    write(tmp_path, "data/val/PNEUMONIA/b.png", 2)
    shutil.copyfile(tmp_path / "data/train/NORMAL/a.png", tmp_path / "data/train/NORMAL/c.png")
    settings = config.make_settings("chest_xray", {"data": str(tmp_path / "data")})
    dataset.prepare_evaluation(settings, tmp_path, 16)
    splits = dataset.read_table(tmp_path / "splits.csv", "02")
    assert len(splits) == len(images.load_cache(tmp_path / "images.npy")) == 3  # a copy is no reason not to evaluate
    assert set(splits["split"]) == {"test"}


@pytest.mark.parametrize("folder", ["test", "train"])
def test_evaluation_of_unreadable_images_only_is_refused(tmp_path, folder):
    write(tmp_path, "data/train/NORMAL/a.png", 1)
    (tmp_path / "data" / folder / "PNEUMONIA").mkdir(parents=True)
    (tmp_path / "data" / folder / "PNEUMONIA" / "b.png").write_bytes(b"broken")
    if folder == "train":
        (tmp_path / "data/train/NORMAL/a.png").write_bytes(b"broken")
    settings = config.make_settings("chest_xray", {"data": str(tmp_path / "data")})
    with pytest.raises(InputError, match="no image that can be read"):
        dataset.prepare_evaluation(settings, tmp_path, 16)


def test_pixels_of_the_scan_are_those_of_read_image(tmp_path):
    """EXIF turns the image before its size is recorded."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    film(1, 60, 40).save(buffer, "JPEG", exif=exif)
    (tmp_path / "train" / "NORMAL").mkdir(parents=True)
    (tmp_path / "train/NORMAL/a.jpeg").write_bytes(buffer.getvalue())
    manifest = dataset.scan(tmp_path).manifest
    assert manifest[["width", "height"]].to_numpy().tolist() == [[40, 60]]


# Each file is decoded once


def test_a_run_decodes_each_image_once(tmp_path, monkeypatch):
    """What 01 and 02 do, then what 05 does with a saved model on this folder."""
    root, run = tmp_path / "data", tmp_path / "run"
    phantom.write_dataset(root, 20, 1)
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in root.rglob("*")}
    run.mkdir()
    decoded, resized = Counter(), images.resize
    read = images.read_image

    def counting(source):
        decoded[hashlib.sha256(source).hexdigest()] += 1
        return read(source)

    monkeypatch.setattr(images, "read_image", counting)
    scanned = dataset.scan(root, 48, run)
    files = Counter(scanned.manifest["sha256"])
    near = dataset.near_duplicates(scanned)
    manifest = dataset.exclude_near_duplicates(scanned.manifest, near)
    dataset.write_table(manifest, run / "manifest.csv")
    dataset.write_table(near, run / "near_duplicates.csv")
    images.save_cache(scanned.pixels, np.flatnonzero(~manifest["excluded"]), run / "images.npy")
    near = dataset.read_table(run / "near_duplicates.csv", "01_eda")
    splits = dataset.split(dataset.read_table(run / "manifest.csv", "01_eda"), near, 0.2, 1)
    pixels = images.load_cache(run / "images.npy")
    assert decoded == files
    assert len(pixels) == len(splits)
    for path, square in zip(splits["path"], pixels, strict=True):
        assert np.array_equal(square, resized(read(root / path), 48))
    decoded.clear()
    settings = config.make_settings("chest_xray", {"data": str(root)})
    dataset.prepare_evaluation(settings, run, 32)
    assert decoded == files
    after = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in root.rglob("*")}
    assert after == before  # so that a folder that cannot be written to does


# oddities


@pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and names that Windows does not have")
def test_every_oddity_is_taken_or_left_out_with_the_reason(tmp_path):
    expected = inputs.odd_dataset(tmp_path / "odd")
    if os.geteuid() == 0:  # root may read everything
        expected["train/normal/forbidden.jpeg"] = inputs.READ
    found = dataset.scan(tmp_path / "odd").manifest.set_index("path")
    assert set(found.index) == set(expected)
    assert {path for path, why in expected.items() if why} == set(found.index[found["excluded"]])
    for path, why in expected.items():
        assert why in found.loc[path, "why"], path
    dataset.write_table(found.reset_index(), tmp_path / "manifest.csv")
    again = dataset.read_table(tmp_path / "manifest.csv", "01_eda")
    assert list(again["path"]) == sorted(expected)
