"""Short trainings that rank recipes ("arms") on validation images that resemble the shift of the test images.

`python -m tests.benchmarks.arms --data DATASET --out FOLDER NAME="SETTING=VALUE ..." ...` trains each arm in turn, in
FOLDER/NAME; the same command goes on with what is not finished. Of the normal images, those named `IM-...` validate and
those named `NORMAL2-IM-...` train: another series of files, with other cameras or other years behind it. Images with
pneumonia are cut by patient. Judged on the validation images as they are and under `views`: loss after calibration on
all views (both classes weighted equally), AUC, and specificity at the threshold that has a sensitivity of 0.97 over all
views. No test image trains or is judged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from helpers import config, dataset, images, model, storage, training
from tests import notebook_code
from tests.benchmarks.robustness import VIEWS

SHORT = {  # below what an arm sets; the rate does not depend on the number of epochs, so that arms can go on for more
    "image_size": 160,
    "backbone": "EfficientNetLite0",
    "fine_tuning_epochs": 6,
    "fine_tuning_rate": 3e-4,
    "weight_average": 0.99,
    "validation_views": 0,
}


def prepare(root: Path, folder: Path, size: int, most: int) -> pd.DataFrame:
    """Write splits.csv and images.npy into `folder`, once: at most `most` images of each class train, half validate."""
    if not (folder / "images.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        scanned = dataset.scan(root, size, folder)
        splits = dataset.split(scanned.manifest, dataset.near_duplicates(scanned), 0.2, seed=1)
        splits = splits[splits["split"] != "test"].copy()
        normal = splits["label"] == "NORMAL"
        left_out = splits["path"].str.contains("/IM-")
        splits.loc[normal, "split"] = np.where(left_out[normal], "validation", "train")
        shuffled = splits.sample(frac=1, random_state=1)
        order = shuffled.groupby(["split", "label"]).cumcount()
        drawn = shuffled[order < np.where(shuffled["split"] == "train", most, most // 2)]
        dataset.write_table(drawn, folder / "splits.csv")
        drawn = dataset.read_table(folder / "splits.csv", "02_preprocessing")  # in the order of paths
        rows = pd.Index(scanned.manifest["path"]).get_indexer(drawn["path"])
        images.save_cache(scanned.pixels, rows, folder / "images.npy")
    return dataset.read_table(folder / "splits.csv", "02_preprocessing")


def judge(classifier, pixels: np.ndarray, sick: np.ndarray) -> dict[str, float]:
    """Figures over all `VIEWS` of uint8 (n, size, size), then the AUC and specificity of each."""
    size = pixels.shape[1]
    logits = {
        name: training.predict_logits(
            classifier, np.stack([images.resize(change(image), size) for image in pixels]), np.arange(len(pixels))
        )
        for name, change in VIEWS.items()
    }
    labels, joined = np.tile(sick, len(logits)), np.concatenate(list(logits.values()))
    loss = training.calibrated_loss(labels, joined, training.sample_weights(labels.astype(int)))
    threshold = np.quantile(joined[labels], 0.03)
    found = {"loss": loss, "AUC": roc_auc_score(labels, joined)}
    found["specificity"] = (joined[~labels] < threshold).mean()
    for name, z in logits.items():
        found[f"AUC, {name}"] = roc_auc_score(sick, z)
        found[f"specificity, {name}"] = (z[~sick] < threshold).mean()
        found[f"sensitivity, {name}"] = (z[sick] >= threshold).mean()
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.arms", description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--most", type=int, default=750, help="training images of each class")
    parser.add_argument("arms", nargs="+", metavar='NAME="SETTING=VALUE ..."')
    given = parser.parse_args()
    for words in given.arms:
        name, _, text = words.partition("=")
        folder = given.out / name
        chosen = SHORT | config.parse_assignments(text.split())
        settings = config.make_settings("chest_xray", chosen | {"data": str(given.data)})
        key = storage.fingerprint([str(given.data.resolve()), settings.image_size, given.most])
        drawn = given.out / f"images-{key}"
        splits = prepare(given.data, drawn, settings.image_size, given.most)
        pixels = images.load_cache(drawn / "images.npy")
        arm = {"settings": text, "images": key}
        if not arm.items() <= (storage.read_json(folder / "figures.json") or arm).items():
            raise SystemExit(f"{folder} holds an arm of other settings or images: give this one another name.")
        if not (folder / "figures.json").exists():
            training.set_up(settings)
            classifier = notebook_code.add_head(model.build_backbone(settings), settings)
            classifier, _ = notebook_code.train_stage(classifier, "head", pixels, splits, settings, folder)
            classifier, history = notebook_code.train_stage(classifier, "fine_tuning", pixels, splits, settings, folder)
            rows = np.flatnonzero(splits["split"] == "validation")
            figures = judge(classifier, np.asarray(pixels[rows]), (splits["label"] == "PNEUMONIA").to_numpy()[rows])
            figures |= {"seconds": history["seconds"].sum(), "plain loss, by epoch": list(history["val_loss"])}
            storage.write_json(folder / "figures.json", arm | figures)
        print(pd.Series(storage.read_json(folder / "figures.json")).to_string(), flush=True)


if __name__ == "__main__":
    main()
