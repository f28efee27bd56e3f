"""What can go wrong with a dataset before anything is learnt: near duplicates, shortcuts, shared numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.stats import mannwhitneyu

from helpers.dataset.manifest import Scan, parse_name

NEAR_DUPLICATE = 0.99  # correlation of 32-pixel thumbnails above which two images are taken for one
_AXES = 16  # principal axes of the thumbnails among which neighbours are searched
_SAMPLE = 2000  # thumbnails that these axes are computed from
_BLOCK = 500  # images that are searched, and pairs that are compared, at once


def near_duplicates(scanned: Scan, above: float = NEAR_DUPLICATE) -> pd.DataFrame:
    """
    Find pairs of images that look alike though their bytes differ.

    Thumbnails of zero mean and unit length whose correlation is r lie sqrt(2 - 2r) apart. Their distance along some
    orthogonal axes is never larger. So all pairs are found among the neighbours on the first principal axes, by a k-d
    tree in about n log n steps, and each of these is compared exactly.

    Parameters
    ----------
    scanned : Scan
        What `scan` returned.
    above : float
        Correlation of two thumbnails, 0-1, above which the images count as near duplicates.

    Returns
    -------
    DataFrame
        path_a, path_b, correlation; sorted by path.

    References
    ----------
    Bentley 1975, Multidimensional binary search trees used for associative searching, Communications of the ACM.
    """
    paths, digests = (scanned.manifest[column].to_numpy() for column in ("path", "sha256"))
    flat = scanned.thumbnails.reshape(len(paths), -1)
    varied = np.flatnonzero(
        flat.max(axis=1, initial=0) > flat.min(axis=1, initial=255)
    )  # uniform ones resemble nothing
    found = []
    for one, other in _neighbours(flat, varied, np.sqrt(2 - 2 * above)):
        a, b = np.minimum(one, other), np.maximum(one, other)
        correlation = _correlation(flat[a], flat[b])
        keep = (correlation > above) & (digests[a] != digests[b])
        found.append(pd.DataFrame({"path_a": paths[a], "path_b": paths[b], "correlation": correlation})[keep])
    empty = pd.DataFrame({"path_a": [], "path_b": [], "correlation": np.empty(0)})
    return pd.concat(found or [empty]).sort_values(["path_a", "path_b"], ignore_index=True)


def _neighbours(flat: np.ndarray, rows: np.ndarray, radius: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of `rows`, each once, whose standardised thumbnails lie within `radius` along the principal axes."""
    if len(rows) < 2:
        return
    sample = _standardised(flat[rows[:: -(-len(rows) // _SAMPLE)]])
    axes = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][:_AXES].T
    blocks = range(0, len(rows), _BLOCK)
    positions = np.concatenate([_standardised(flat[rows[start : start + _BLOCK]]) @ axes for start in blocks])
    tree = cKDTree(positions)
    order = tree.indices  # images that lie close together
    for start in blocks:
        part = order[start : start + _BLOCK]
        near = cKDTree(positions[part]).sparse_distance_matrix(tree, radius + 1e-6, output_type="ndarray")
        one, other = part[near["i"]], near["j"]
        once = one < other
        for first in range(0, once.sum(), 20 * _BLOCK):
            some = slice(first, first + 20 * _BLOCK)
            yield rows[one[once][some]], rows[other[once][some]]


def _standardised(flat: np.ndarray) -> np.ndarray:
    """Rows of zero mean and unit length."""
    centred = flat - flat.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row of `a` with that of `b`, both uint8; from whole numbers, alike everywhere."""
    a, b = a.astype(np.int64), b.astype(np.int64)

    def covariance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return one.shape[1] * np.einsum("ij,ij->i", one, other) - one.sum(axis=1) * other.sum(axis=1)

    return covariance(a, b) / np.sqrt(covariance(a, a) * covariance(b, b).astype(float))


def exclude_near_duplicates(manifest: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """
    Leave out the training images that are near duplicates of a test image: the model would have seen it.

    Parameters
    ----------
    manifest : DataFrame
        That of `scan`.
    near : DataFrame
        Pairs of `near_duplicates`.

    Returns
    -------
    DataFrame
        A copy, in which `excluded` and `why` are filled for these images of train and val.
    """
    split = manifest.set_index("path")["split"]
    both = pd.concat([near, near.rename(columns={"path_a": "path_b", "path_b": "path_a"})])
    leaks = both[(both["path_a"].map(split) != "test") & (both["path_b"].map(split) == "test")]
    twins = leaks.sort_values(["path_a", "correlation", "path_b"]).drop_duplicates("path_a", keep="last")
    reason = manifest["path"].map("near duplicate of the test image " + twins.set_index("path_a")["path_b"])
    now = ~manifest["excluded"] & reason.notna()
    return manifest.assign(excluded=manifest["excluded"] | now, why=manifest["why"].mask(now, reason))


def shortcuts(scanned: Scan) -> pd.DataFrame:
    """
    Measure how well facts that need no look at the lungs tell the classes apart.

    Whether more or less of a fact means pneumonia is taken from the first split, train: an AUC below 0.5 in test says
    that there it is the other way round.

    Parameters
    ----------
    scanned : Scan
        What `scan` returned.

    Returns
    -------
    DataFrame
        A row per fact. Columns: the AUC in train (with val) and in test, where these have both classes, and p: how
        easily chance alone would do as much in the first of them (Mann and Whitney), times the number of facts
        (Bonferroni). Images of one patient count as independent. NaN where a fact is the same for all images of that
        split, or unknown, and where no split has both classes.

    References
    ----------
    Mann and Whitney 1947, On a test of whether one of two random variables is stochastically larger than the other,
    Annals of Mathematical Statistics.
    """
    manifest, facts = scanned.manifest, scanned.facts
    candidates = {
        "JPEG compression": facts["quantisation"],
        "file size per pixel": facts["bytes"] / (manifest["width"] * manifest["height"]),
        "aspect ratio": manifest["width"] / manifest["height"],
        "image width": manifest["width"],
        "mean grey level": facts["mean"],
    }
    names = list(candidates)
    table: dict[str, dict[str, float]] = {}
    p: dict[str, float] = {}
    for split in ("train", "test"):
        use = ((manifest["split"] == "test") == (split == "test")) & facts["mean"].notna()  # val belongs to train
        pneumonia, normal = (use & (manifest["label"] == label) for label in ("PNEUMONIA", "NORMAL"))
        if not (pneumonia.any() and normal.any()):
            continue
        if not table:  # the first split
            candidates = {name: values for name, values in candidates.items() if values[use].max() > values[use].min()}
        tests, table[split] = {}, {}
        for name, values in candidates.items():
            one, other = values[pneumonia].dropna(), values[normal].dropna()
            if len(one) and len(other):
                tests[name] = mannwhitneyu(one, other)
                table[split][name] = tests[name].statistic / (len(one) * len(other))
        if len(table) == 1:
            p = {name: min(1.0, len(tests) * test.pvalue) for name, test in tests.items()}
    found = pd.DataFrame(table, index=names, dtype=float)
    if table:
        less = found.iloc[:, 0] < 0.5
        found[less] = 1 - found[less]
    return found.assign(p=pd.Series(p, index=names, dtype=float))


def shared_numbers(manifest: pd.DataFrame) -> pd.DataFrame:
    """
    Count the bare numbers, and the patients, that occur both in train (with val) and in test.

    Parameters
    ----------
    manifest : DataFrame
        That of `scan`.

    Returns
    -------
    DataFrame
        Rows "bare number" and "patient (number and subtype)"; columns "in train", "in test" and "in both".
    """
    train, test = manifest[manifest["split"] != "test"], manifest[manifest["split"] == "test"]
    both = {"bare number": lambda frame: {parse_name(p)[1] for p in frame["path"]}}
    both["patient (number and subtype)"] = lambda frame: set(frame["patient"])
    rows = [(name, len(of(train)), len(of(test)), len(of(train) & of(test))) for name, of in both.items()]
    return pd.DataFrame(rows, columns=["identity", "in train", "in test", "in both"]).set_index("identity")


def series_of(patients: pd.Series) -> pd.Series:
    """The series of names that patients belong to: bacteria, virus, IM, NORMAL2-IM."""
    return patients.str.replace(r"^person\d+_|-\d+$", "", regex=True)


def number_series(manifest: pd.DataFrame) -> pd.DataFrame:
    """
    Say which numbers of each series of patients are in train (with val) and in test.

    Parameters
    ----------
    manifest : DataFrame
        That of `scan`.

    Returns
    -------
    DataFrame
        A row per series (bacteria, virus, IM, NORMAL2-IM). Columns: train and test ("1 to 77"; "–" for none), "in both"
        (how many numbers), and "blocks": into how many runs of one side, or of both, the series falls from its lowest
        number to its highest. Names of no pattern are left out.
    """
    named = manifest[manifest["patient"] != manifest["path"]]  # see parse_name
    numbers = pd.DataFrame(
        {
            "series": series_of(named["patient"]),
            "number": named["patient"].str.extract(r"(\d+)\D*$", expand=False).astype(int),
            "side": np.where(named["split"] == "test", "test", "train"),
        }
    ).drop_duplicates()
    rows = {}
    for name, part in numbers.groupby("series"):
        held = {side: part.loc[part["side"] == side, "number"] for side in ("train", "test")}
        rows[name] = {side: f"{some.min()} to {some.max()}" if len(some) else "–" for side, some in held.items()}
        where = part.groupby("number")["side"].agg(lambda sides: "both" if len(sides) > 1 else sides.iloc[0])
        rows[name] |= {"in both": int((where == "both").sum()), "blocks": int((where != where.shift()).sum())}
    return pd.DataFrame(rows, index=["train", "test", "in both", "blocks"]).T.rename_axis("series")
