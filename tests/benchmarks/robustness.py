"""How a saved model does on test images framed, turned and toned otherwise, and on images from elsewhere.

`python -m tests.benchmarks.robustness --model data/pretrained --data DATASET [FOLDER ...]` predicts the test images of
DATASET as they are, under each of VIEWS and with each part of HIDDEN: AUC, accuracy, sensitivity and specificity with
95% intervals by patient, the proportions that are out of distribution, and uncertain otherwise, and the numbers that
get no warning at all, and are wrong without one. A model that tells the classes apart by the edge alone has a shortcut.

Of each FOLDER and below, it then predicts the images in each folder that holds some: how many are warned of, uncertain,
and called pneumonia or normal without any warning. Images named as one of DATASET are compared with it: original
against copy.

`--keep` also writes the tables to robustness.json in the model folder. `python -m helpers.publish` then puts them into
the model card, and notebook 07 shows them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy.stats import binomtest
from tqdm import tqdm

from helpers import config, dataset, evaluation, images, storage
from helpers.config import InputError
from helpers.predict import Prediction, Predictor, reframed

FILE = "robustness.json"


def tilted(image: np.ndarray, degrees: float) -> np.ndarray:
    """uint8 (height, width) turned about its centre, the same size, black in the corners."""
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


def equalised(image: np.ndarray) -> np.ndarray:
    """uint8 (height, width) after histogram equalisation."""
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def covered(image: np.ndarray, edge: bool) -> np.ndarray:
    """uint8 (height, width) with its mean grey on the outer tenth at each side, or on all but that."""
    height, width = image.shape
    middle = np.zeros(image.shape, bool)
    middle[height // 10 : height - height // 10, width // 10 : width - width // 10] = True
    return np.where(middle != edge, np.uint8(image.mean()), image)


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda image: image,
    "cropped by 5%": lambda image: reframed(image, 0.05),
    "cropped by 8%": lambda image: reframed(image, 0.08),
    "cropped by 12%": lambda image: reframed(image, 0.12),
    "tilted by 8 degrees": lambda image: tilted(image, 8),
    "equalised": equalised,
}
HIDDEN = {  # a test of shortcuts, and nothing to choose by
    "the outer tenth hidden": lambda image: covered(image, edge=True),
    "all but the outer tenth hidden": lambda image: covered(image, edge=False),
}


def predict_all(
    predictor: Predictor, paths: Iterable[Path], change: Callable[[np.ndarray], np.ndarray], what: str
) -> list[Prediction | None]:
    """A prediction of each file after `change`; None of one that cannot be read."""
    found: list[Prediction | None] = []
    files = list(paths)
    for start in tqdm(range(0, len(files), 16), desc=what, mininterval=5):
        decoded = []
        for path in files[start : start + 16]:
            try:
                one = images.read(path)
                decoded.append(one._replace(pixels=change(one.pixels)))
            except InputError:
                decoded.append(None)
        readable = [one for one in decoded if one]
        predictions = predictor.predict_decoded(readable) if readable else iter(())
        found += [next(predictions) if one else None for one in decoded]
    return found


def on_test(predictor: Predictor, root: Path) -> pd.DataFrame:
    """A row for each of VIEWS and HIDDEN, of the test images of a dataset folder."""
    files = sorted(row for row in dataset.image_files(root) if row[1] == "test")
    if not files:
        raise SystemExit(f"{root} has no test images.")
    frame = pd.DataFrame(files, columns=["path", "split", "label"])
    frame["patient"], _, frame["subtype"] = zip(*map(dataset.parse_name, frame["path"]), strict=True)
    rows = {}
    for name, change in (VIEWS | HIDDEN).items():
        answers = predict_all(predictor, [root / path for path in frame["path"]], change, name)
        if unreadable := [path for path, one in zip(frame["path"], answers, strict=True) if one is None]:
            raise SystemExit(f"{', '.join(unreadable)} cannot be read: take these files out of test.")
        predictions = [one for one in answers if one]
        frame["probability"] = [one.probability for one in predictions]
        summary = evaluation.summarise(frame, predictor.threshold, "", 1000, 1)
        shown = {"AUC": "auc"} | {metric: metric for metric in ("accuracy", "sensitivity", "specificity")}
        rows[name] = {title: evaluation.with_interval(summary[metric]) for title, metric in shown.items()}
        wrong = [one.label != label for one, label in zip(predictions, frame["label"], strict=True)]
        beyond = predictor.card["uncertain"][1] if predictor.card.get("uncertain") else predictor.threshold
        above = frame.loc[frame["label"] == "NORMAL", "probability"] > beyond
        strange, unsure = np.array([(one.out_of_distribution, one.uncertain) for one in predictions]).T
        rows[name] |= {
            "n": len(frame),
            "out of distribution, proportion": round(strange.mean(), 3),
            "uncertain, proportion": round((unsure & ~strange).mean(), 3),
            "without a warning": sum(not one.warnings for one in predictions),
            "wrong without a warning": sum(
                bad and not one.warnings for bad, one in zip(wrong, predictions, strict=True)
            ),
            "normal images above the uncertain range, proportion": round(above.mean(), 3),
        }
    return pd.DataFrame(rows).T


def elsewhere(predictor: Predictor, folder: Path) -> pd.DataFrame:
    """A row for each folder in and below `folder` that holds images."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in config.SUFFIXES)
    predictions = pd.Series(predict_all(predictor, files, VIEWS["plain"], folder.name), files)
    rows = {}
    for place, part in predictions.groupby([path.parent.relative_to(folder.parent).as_posix() for path in files]):
        read = [one for one in part if one]
        sure = [one.label for one in read if not one.warnings]
        called = binomtest(sure.count("PNEUMONIA"), len(read)).proportion_ci() if read else (np.nan, np.nan)
        rows[place] = {
            "images": len(part),
            "unreadable": len(part) - len(read),
            "out of distribution": sum(one.out_of_distribution for one in read),
            "uncertain": sum(one.uncertain and not one.out_of_distribution for one in read),
            "called pneumonia": sum(one.label == "PNEUMONIA" for one in read),
            "pneumonia without a warning": sure.count("PNEUMONIA"),
            "95% interval, proportion": f"{called[0]:.2f} to {called[1]:.2f}",
            "normal without a warning": sure.count("NORMAL"),
        }
    return pd.DataFrame(rows).T


def beside_copies(predictor: Predictor, folder: Path, root: Path) -> str:
    """In words: how far predictions of the images in and below `folder` are from those of their namesakes in `root`."""
    copies = {Path(path).stem: root / path for path, _, _ in dataset.image_files(root)}
    pairs = {path: copies[path.stem] for path in sorted(folder.rglob("*.*")) if path.stem in copies}
    if not pairs:
        return f"{folder.name}: no image is named as one of the dataset"
    ours, theirs = (predict_all(predictor, paths, VIEWS["plain"], "pairs") for paths in (pairs, pairs.values()))
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a and b]
    if not both:
        return f"{folder.name}: no pair can be read"
    changes = sum(a.label != b.label for a, b in both)
    difference = np.mean([abs(a.probability - b.probability) for a, b in both])
    return (
        f"{folder.name}: {len(both)} beside their namesakes: {changes} decisions change, mean change {difference:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.robustness", description=__doc__)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="write the tables into the model folder, too")
    given = parser.parse_args()
    predictor, root = Predictor.load(given.model), given.data
    views, others = on_test(predictor, root), []
    print(views.T.to_string(), flush=True)
    for folder in given.folders:
        others.append(elsewhere(predictor, folder))
        print("", others[-1].to_string(), beside_copies(predictor, folder, root), sep="\n", flush=True)
    if given.keep:
        tables = {"test images": views} | ({"other images": pd.concat(others)} if others else {})
        storage.write_json(given.model / FILE, {name: table.to_dict("split") for name, table in tables.items()})


if __name__ == "__main__":
    main()
