"""Who trains, who validates, who tests: nobody on two sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import config, dataset
from helpers.config import InputError

NO_PAIRS = pd.DataFrame({"path_a": [], "path_b": [], "correlation": []})


def make_manifest(normal: int = 60, sick: int = 90, seed: int = 0) -> pd.DataFrame:
    """A manifest of so many patients per class (one to three images each), a tenth of them in test."""
    rng, rows = np.random.default_rng(seed), []
    for k in range(normal):
        split, patient = ("test" if k % 10 == 9 else "train"), f"{'NORMAL2-' if k % 3 == 0 else ''}IM-{k:04d}"
        for j in range(rng.integers(1, 4)):
            rows.append((f"{split}/NORMAL/{patient}-{j:04d}.jpeg", split, "NORMAL", patient, ""))
    for k in range(sick):
        # every fifth number belongs to a bacterial and to a viral patient
        number, subtype = (k - 1 if k % 5 == 4 else k), ("virus" if k % 5 == 4 or k % 3 == 0 else "bacteria")
        split = "test" if number % 10 == 9 else "train"
        for j in range(rng.integers(1, 4)):
            name = f"person{number}_{subtype}_{10 * k + j}.jpeg"
            rows.append((f"{split}/PNEUMONIA/{name}", split, "PNEUMONIA", f"person{number}_{subtype}", subtype))
    table = pd.DataFrame(rows, columns=["path", "split", "label", "patient", "subtype"])
    digests = [f"{i:064x}" for i in range(len(table))]
    return table.assign(width=1, height=1, sha256=digests, excluded=False, why="").sort_values(
        "path", ignore_index=True
    )


def part(splits: pd.DataFrame, name: str) -> pd.DataFrame:
    return splits[splits["split"] == name]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_nobody_is_on_both_sides_and_the_shares_are_kept(seed, fraction):
    manifest = make_manifest(seed=seed)
    splits = dataset.split(manifest, NO_PAIRS, fraction, seed)
    train, validation = part(splits, "train"), part(splits, "validation")
    assert list(splits.columns) == ["path", "split", "label", "patient", "subtype", "group"]
    assert list(splits["path"]) == sorted(manifest["path"])
    for one in ("patient", "group"):
        assert not set(train[one]) & set(validation[one])
    bare = [{dataset.parse_name(path)[1] for path in side["path"]} for side in (train, validation)]
    assert not bare[0] & bare[1]
    share = len(validation) / (len(train) + len(validation))
    assert share == pytest.approx(fraction, abs=0.05)
    whole = pd.concat([train, validation])
    for column in ("label", "subtype"):
        for value, expected in (whole[column].value_counts(normalize=True)).items():
            assert (validation[column] == value).mean() == pytest.approx(expected, abs=0.07)


def test_the_test_images_stay_where_they_are():
    manifest = make_manifest()
    splits = dataset.split(manifest, NO_PAIRS, 0.2, 1)
    assert set(part(splits, "test")["path"]) == set(manifest.loc[manifest["split"] == "test", "path"])


def test_equal_seeds_split_equally_whatever_the_order_of_rows():
    manifest = make_manifest()
    once = dataset.split(manifest, NO_PAIRS, 0.2, 1)
    pd.testing.assert_frame_equal(once, dataset.split(manifest.sample(frac=1, random_state=5), NO_PAIRS, 0.2, 1))
    other = dataset.split(manifest, NO_PAIRS, 0.2, 2)
    assert set(part(other, "validation")["path"]) != set(part(once, "validation")["path"])
    assert manifest["split"].isin(["train", "test"]).all()  # the argument is left alone


def test_exact_and_near_duplicates_stay_together():
    manifest = make_manifest()
    train = manifest.index[manifest["split"] == "train"]
    chosen = np.random.default_rng(0).permutation(train)[:40].reshape(20, 2)
    for a, b in chosen[:10]:
        manifest.loc[b, "sha256"] = manifest.loc[a, "sha256"]
    path = manifest["path"]
    near = pd.DataFrame([(path[a], path[b], 0.995) for a, b in chosen[10:]], columns=NO_PAIRS.columns)
    near.loc[len(near)] = ("not/in/manifest.jpeg", path[0], 0.999)
    for seed in range(4):
        side = dataset.split(manifest, near, 0.5, seed).set_index("path")[["split", "group"]]
        for a, b in chosen:
            assert side.loc[path[a]].equals(side.loc[path[b]])


def test_groups_join_through_a_chain():
    """a and b are one patient, b and c near duplicates, c and d of one content: all four stay together."""
    manifest = make_manifest()
    names = ["IM-9001-0001", "IM-9001-0002", "IM-9002-0001", "IM-9003-0001"]
    paths = [f"train/NORMAL/{name}.jpeg" for name in names]
    more = manifest.head(4).assign(
        path=paths, split="train", label="NORMAL", patient=[n[:7] for n in names], subtype=""
    )
    manifest = pd.concat([manifest, more.assign(sha256=["a" * 64, "b" * 64, "c" * 64, "c" * 64])], ignore_index=True)
    near = pd.DataFrame([(paths[1], paths[2], 0.999)], columns=NO_PAIRS.columns)
    groups = dataset.split(manifest, near, 0.2, 1).set_index("path").loc[paths, "group"]
    assert len(set(groups)) == 1


def test_an_excluded_copy_still_joins_its_patients():
    manifest = make_manifest()
    train = manifest[(manifest["split"] == "train") & (manifest["label"] == "NORMAL")]
    one, other = [rows.index for _, rows in train.groupby("patient") if len(rows) > 1][:2]
    manifest.loc[other[0], ["sha256", "excluded"]] = [manifest.loc[one[0], "sha256"], True]
    groups = dataset.split(manifest, NO_PAIRS, 0.2, 1).set_index("path")["group"]
    assert manifest.loc[other[0], "path"] not in groups
    assert groups[manifest.loc[one[0], "path"]] == groups[manifest.loc[other[1], "path"]]


def test_unreadable_files_with_equal_bytes_join_nothing():
    manifest = make_manifest()
    expected = dataset.split(manifest, NO_PAIRS, 0.2, 1)["group"].nunique()
    lost = manifest.index[(manifest["split"] == "train") & manifest.duplicated("patient")][:6]
    assert len(lost) == 6
    manifest.loc[lost, ["sha256", "excluded", "why"]] = ["e" * 64, True, "unreadable: it holds nothing"]
    assert dataset.split(manifest, NO_PAIRS, 0.2, 1)["group"].nunique() == expected


def test_val_joins_train_before_validation_is_cut():
    manifest = make_manifest()
    moved = manifest["patient"].isin(manifest.loc[manifest["split"] == "train", "patient"].unique()[:12])
    manifest.loc[moved, "split"] = "val"
    splits = dataset.split(manifest, NO_PAIRS, 0.2, 1)
    assert set(splits["split"]) == {"train", "validation", "test"}
    in_val = splits[splits["path"].isin(manifest.loc[manifest["split"] == "val", "path"])]
    assert (in_val["split"] == "train").any()


def test_excluded_images_are_in_no_split():
    manifest = make_manifest()
    manifest.loc[::7, ["excluded", "why"]] = [True, "unreadable: x"]
    splits = dataset.split(manifest, NO_PAIRS, 0.2, 1)
    assert set(splits["path"]) == set(manifest.loc[~manifest["excluded"], "path"])


@pytest.mark.parametrize("label", config.LABELS)
def test_a_missing_class_is_refused(label):
    manifest = make_manifest()
    only_test = manifest[(manifest["label"] != label) | (manifest["split"] == "test")]
    with pytest.raises(InputError, match=f"train has no usable image of {label}"):
        dataset.split(only_test, NO_PAIRS, 0.2, 1)
    manifest.loc[manifest["label"] == label, "excluded"] = True
    with pytest.raises(InputError, match=f"train has no usable image of {label}"):
        dataset.split(manifest, NO_PAIRS, 0.2, 1)


def test_a_single_patient_of_a_class_is_refused():
    manifest = make_manifest()
    sick = manifest["label"] == "PNEUMONIA"
    with pytest.raises(InputError, match="single patient"):
        dataset.split(manifest[~sick | (manifest["patient"] == "person1_bacteria")], NO_PAIRS, 0.2, 1)


@pytest.mark.filterwarnings("ignore:The least populated class")  # of the subtypes; the classes are large enough
@pytest.mark.parametrize("seed", range(10))
def test_few_patients_are_enough(seed):
    """Seven and six patients: a fold may happen to lack a class, another one does not."""
    splits = dataset.split(make_manifest(7, 6, seed), NO_PAIRS, 0.2, seed)
    assert part(splits, "train")["label"].nunique() == part(splits, "validation")["label"].nunique() == 2


def test_check_split_finds_what_crosses():
    splits = dataset.split(make_manifest(), NO_PAIRS, 0.2, 1)
    dataset.check_split(splits)
    train, validation = part(splits, "train").index, part(splits, "validation").index
    same_group = splits.copy()
    same_group.loc[train[0], "group"] = splits.loc[validation[0], "group"]
    with pytest.raises(InputError, match="1 groups of images are on both sides"):
        dataset.check_split(same_group)
    same_number = splits.copy()
    same_number.loc[train[0], "path"] = splits.loc[validation[0], "path"].replace(".jpeg", "-0009.jpeg")
    with pytest.raises(InputError, match="on both sides"):
        dataset.check_split(same_number)
    one_class = splits.drop(index=[i for i in validation if splits.loc[i, "label"] == "NORMAL"])
    with pytest.raises(InputError, match="too few patients"):
        dataset.check_split(one_class)


# For any manifest


@st.composite
def manifests(draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A manifest of few patients and numbers, with copies and excluded images, and pairs of near duplicates."""
    kinds = ("person{}_bacteria_{}", "person{}_virus_{}", "IM-{:04d}-{:04d}", "NORMAL2-IM-{:04d}-{:04d}", "free{}-{}")
    image = st.tuples(st.integers(0, 4), st.integers(1, 12), st.sampled_from(["train", "train", "val", "test"]))
    drawn = draw(st.lists(image, min_size=12, max_size=60))
    rows = []
    for k, (kind, number, split) in enumerate(drawn):
        label = "PNEUMONIA" if kind < 2 or (kind == 4 and number % 2) else "NORMAL"
        path = f"{split}/{label}/{kinds[kind].format(number, k)}.jpeg"
        patient, _, subtype = dataset.parse_name(path)
        rows.append((path, split, label, patient, subtype, draw(st.integers(0, 40)), draw(st.integers(0, 9)) == 0))
    columns = ["path", "split", "label", "patient", "subtype", "sha256", "excluded"]
    table = pd.DataFrame(rows, columns=columns).sort_values("path", ignore_index=True)
    table = table.assign(sha256=table["sha256"].map("{:064x}".format), why="")
    pairs = draw(st.lists(st.tuples(*2 * [st.sampled_from(list(table["path"]))]), max_size=6))
    return table, pd.DataFrame([(*sorted(pair), 0.995) for pair in pairs], columns=NO_PAIRS.columns)


@pytest.mark.filterwarnings("ignore:The least populated class")
@settings(max_examples=60, deadline=None)
@given(manifests(), st.sampled_from(["", "1/2", "2/3", "series:IM", "series:virus"]), st.integers(0, 3))
def test_no_patient_number_or_duplicate_is_on_both_sides(made, fold, seed):
    manifest, near = made
    try:
        splits = dataset.split(manifest, near, 0.25, seed, fold)
    except InputError:  # too few patients, or none of the series
        return
    assert list(splits["path"]) == list(manifest.loc[~manifest["excluded"], "path"])
    assert set(splits["split"]) <= {"train", "validation", "test"}
    tested = splits["path"].isin(manifest.loc[manifest["split"] == "test", "path"])
    assert ((splits["split"] == "test") == tested).all()
    train, validation = part(splits, "train"), part(splits, "validation")
    assert set(train["label"]) == set(validation["label"]) == set(config.LABELS)
    digest = manifest.set_index("path")["sha256"]
    for of in (
        lambda side: set(side["patient"]),
        lambda side: set(side["group"]),
        lambda side: {dataset.parse_name(path)[1] for path in side["path"]},
        lambda side: set(digest[side["path"]]),
    ):
        assert not of(train) & of(validation)
    for patients in manifest.groupby("sha256")["patient"].agg(set):  # of one content, excluded copies too
        assert not (patients & set(train["patient"]) and patients & set(validation["patient"]))
    side = splits.set_index("path")["split"]
    for a, b in zip(near["path_a"], near["path_b"], strict=True):
        assert {side.get(a), side.get(b)} != {"train", "validation"}


# Folds


def test_folds_share_nothing_and_are_all_of_train():
    manifest = make_manifest()
    held = [part(dataset.split(manifest, NO_PAIRS, 0.1, 3, f"{k}/5"), "validation") for k in range(1, 6)]
    joined = pd.concat(held)
    assert sorted(joined["path"]) == sorted(manifest.loc[manifest["split"] == "train", "path"])
    assert joined.groupby("patient")["group"].nunique().max() == 1
    numbers = [{dataset.parse_name(path)[1] for path in fold["path"]} for fold in held]
    assert sum(map(len, numbers)) == len(set.union(*numbers))
    for fold in held:
        assert (fold["label"] == "NORMAL").mean() == pytest.approx((joined["label"] == "NORMAL").mean(), abs=0.1)


def test_a_series_left_out_is_whole_in_validation():
    manifest = make_manifest()
    manifest.loc[manifest["path"].str.contains("/IM-0001-"), "patient"] = "IM-0001"
    splits = dataset.split(manifest, NO_PAIRS, 0.2, 1, "series:NORMAL2-IM")
    normal = splits[splits["label"] == "NORMAL"]
    of = dataset.series_of(normal["patient"]) == "NORMAL2-IM"
    assert set(normal.loc[of & (normal["split"] != "test"), "split"]) == {"validation"}
    assert set(normal.loc[~of & (normal["split"] != "test"), "split"]) == {"train"}
    usual = dataset.split(manifest, NO_PAIRS, 0.2, 1)
    of_pneumonia = [part(some, "validation").query("label == 'PNEUMONIA'")["path"].tolist() for some in (splits, usual)]
    assert of_pneumonia[0] == of_pneumonia[1]


@pytest.mark.parametrize(
    ("fold", "said"), [("series:AP", "no such series of names; it has"), ("1/60", "too few for 60 folds")]
)
def test_a_fold_that_cannot_be_is_refused(fold, said):
    with pytest.raises(InputError, match=said):
        dataset.split(make_manifest(), NO_PAIRS, 0.2, 1, fold)


# The flow


def test_the_flow_counts_images_and_patients_by_reason():
    manifest = make_manifest()
    manifest.loc[:2, ["excluded", "why"]] = [
        [True, "unreadable: the image is empty (0 bytes)."],
        [True, "copy of train/NORMAL/x: y.jpeg"],
        [True, "copy of the test image test/NORMAL/x.jpeg"],
    ]
    flow = dataset.image_flow(manifest, dataset.split(manifest, NO_PAIRS, 0.2, 1))
    assert list(flow.columns) == ["step", "why", "images", "patients", "NORMAL", "PNEUMONIA"]
    count = flow.set_index(["step", "why"])["images"]
    assert set(flow.loc[flow["step"] == "excluded", "why"]) == {
        "unreadable", "copy of another image", "copy of the test image",
    }  # fmt: skip
    assert (count["excluded"] == 1).all()
    assert count["found", ""] == len(manifest) == count["used", ""] + 3
    assert count["used", ""] == sum(count[step, ""] for step in ("train", "validation", "test"))
    assert (flow["NORMAL"] + flow["PNEUMONIA"] == flow["images"]).all()
