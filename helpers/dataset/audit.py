"""What can go wrong with a dataset before anything is learnt: near duplicates, shortcuts, shared numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.fft import dctn

from helpers.dataset.manifest import Scan, parse_name

NEAR_DUPLICATE = 0.99  # correlation of 32-pixel thumbnails above which two images are taken for one
_FREQUENCIES = 8  # of the cosine transform of a thumbnail, along each side, that the search looks at
_TABLES, _DIRECTIONS = 240, 20  # hash tables, and the random directions of each
_BLOCK = 4096  # images, or pairs of them, that are computed with at once


def near_duplicates(scanned: Scan, above: float = NEAR_DUPLICATE) -> pd.DataFrame:
    """
    Find pairs of images that look alike though their bytes differ.

    Locality-sensitive hashing: thumbnails of zero mean and unit length whose correlation is r lie sqrt(2 - 2r) apart,
    and their low frequencies (discrete cosine transform) at most as far. Along a random direction such neighbours
    mostly fall into one cell. Images that do so along twenty directions at once are compared exactly. With 240 such
    tables a pair just at the correlation asked for is missed at most once in 1,000, one of 0.995 practically never.

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
    Datar et al. 2004, Locality-sensitive hashing scheme based on p-stable distributions, Symposium on Computational
    Geometry.
    """
    paths, digests = (scanned.manifest[column].to_numpy() for column in ("path", "sha256"))
    flat = scanned.thumbnails.reshape(len(paths), -1)
    varied = np.flatnonzero(flat.max(axis=1) > flat.min(axis=1))  # uniform images resemble nothing
    found: set[tuple[str, str, float]] = set()
    for a, b in _candidates(flat, varied, np.sqrt(2 - 2 * above)):
        correlation = _correlation(flat[a], flat[b])
        keep = (correlation > above) & (digests[a] != digests[b])
        found.update(zip(paths[a[keep]], paths[b[keep]], correlation[keep], strict=True))
    return pd.DataFrame(sorted(found), columns=["path_a", "path_b", "correlation"])


def _candidates(flat: np.ndarray, rows: np.ndarray, radius: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs a < b of `rows` whose standardised thumbnails may lie within `radius`, some more than once."""
    if len(rows) < 2:
        return
    blocks = (flat[rows[start : start + _BLOCK]] for start in range(0, len(rows), _BLOCK))
    positions = np.concatenate([_low_frequencies(block) for block in blocks])
    rng, width = np.random.default_rng(0), 5 * radius
    for _ in range(_TABLES):
        cells = positions @ rng.standard_normal((_FREQUENCIES**2, _DIRECTIONS)) / width + rng.random(_DIRECTIONS)
        keys = np.floor(cells).astype(np.int64) @ rng.integers(-(2**62), 2**62, _DIRECTIONS)
        order = np.argsort(keys, kind="stable")
        keys, first, step = keys[order], np.arange(len(order) - 1), 1
        while len(first := first[keys[first + step] == keys[first]]):  # equal keys lie side by side
            for start in range(0, len(first), _BLOCK):
                a, b = order[first[start : start + _BLOCK]], order[first[start : start + _BLOCK] + step]
                near = ((positions[a] - positions[b]) ** 2).sum(axis=1) <= radius**2 + 1e-6
                yield rows[a[near]], rows[b[near]]
            step += 1
            first = first[first + step < len(keys)]


def _low_frequencies(flat: np.ndarray) -> np.ndarray:
    """The lowest frequencies of thumbnails, after these were brought to zero mean and unit length."""
    centred = flat - flat.mean(axis=1, keepdims=True, dtype=np.float32)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    side = math.isqrt(flat.shape[1])
    frequencies = dctn(centred.reshape(-1, side, side), axes=(1, 2), norm="ortho")
    return frequencies[:, :_FREQUENCIES, :_FREQUENCIES].reshape(len(flat), -1)


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
        split, or unknown, and where no split has both classes. "with pneumonia" says which values those images have in
        train: "larger", or "smaller".

    References
    ----------
    Mann and Whitney 1947, On a test of whether one of two random variables is stochastically larger than the other,
    Annals of Mathematical Statistics.
    """
    from scipy.stats import mannwhitneyu  # takes a second, which commands save

    manifest, facts = scanned.manifest, scanned.facts
    candidates = {
        "JPEG compression": facts["quantisation"],
        "file size per pixel": facts["bytes"] / (manifest["width"] * manifest["height"]),
        "aspect ratio": manifest["width"] / manifest["height"],
        "image width": manifest["width"],
        "mean grey level": facts["mean"],
        # a letter that marks a side is nearly white; a tenth of a thumbnail's width is 3 pixels
        "brightest spot at the sides": pd.Series(
            scanned.thumbnails[:, :, [0, 1, 2, -3, -2, -1]].max(axis=(1, 2)).astype(float), manifest.index
        ),
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
    less = found.iloc[:, 0] < 0.5 if table else pd.Series(False, names)
    found[less] = 1 - found[less]
    found["p"] = pd.Series(p, dtype=float)
    found["with pneumonia"] = less.map({True: "smaller", False: "larger"}).where(found["p"].notna())
    return found


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
    """The series of names that patients belong to: bacteria, virus, IM, NORMAL2-IM; BACTERIA, VIRUS, NORMAL.

    The last three are those of the first edition, see `parse_name`.
    """
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
        A row per series (bacteria, virus, IM, NORMAL2-IM; of the first edition BACTERIA, VIRUS, NORMAL). Columns: train
        and test ("1 to 77"; "–" for none), "in both" (how many numbers), and "blocks": into how many runs of one side,
        or of both, the series falls from its lowest number to its highest. Names of no pattern are left out.
    """
    named = manifest[manifest["patient"] != manifest["path"]]  # see parse_name
    numbers = pd.DataFrame(
        {
            "series": series_of(named["patient"]),
            "number": named["patient"].str.extract(r"(\d+)\D*$", expand=False).astype(int),
            "side": np.where(named["split"] == "test", "test", "train"),
        }
    ).drop_duplicates()
    rows: dict[str, dict[str, str | int]] = {}
    for name, part in numbers.groupby("series"):
        held = {side: part.loc[part["side"] == side, "number"] for side in ("train", "test")}
        rows[name] = {side: f"{some.min()} to {some.max()}" if len(some) else "–" for side, some in held.items()}
        where = part.groupby("number")["side"].agg(lambda sides: "both" if len(sides) > 1 else sides.iloc[0])
        rows[name] |= {"in both": int((where == "both").sum()), "blocks": int((where != where.shift()).sum())}
    return pd.DataFrame(rows, index=["train", "test", "in both", "blocks"]).T.rename_axis("series")
