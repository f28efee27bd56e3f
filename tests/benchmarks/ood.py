"""How many other pictures the out-of-distribution check stops, and how many radiographs it stops by mistake.

`python -m tests.benchmarks.ood --model reports/full/model --data DATASET` counts on the test images of DATASET, on
the same turned and as negatives, and on the images of tests/not_radiographs.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import dataset, images, model
from tests import not_radiographs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ood", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    given = parser.parse_args()
    size = model.read_card(Path(given.model))["input_size"][0]
    check, root = model.ood.load(Path(given.model)), Path(given.data)
    network = model.ood.feature_model(model.load(Path(given.model))[0])
    paths = sorted(path for path, split, _ in dataset.image_files(root) if split == "test")
    films = np.stack([images.resize(images.read_image(root / path), size) for path in paths])
    sets = {"test images": films, "top and bottom swapped": films[:, ::-1], "left and right, too": films[:, ::-1, ::-1]}
    sets |= {"a quarter turn": np.rot90(films, axes=(1, 2)), "negatives": 255 - films}
    rng = np.random.default_rng(0)
    for name, make in not_radiographs.KINDS.items():
        sets[name] = np.stack([images.resize(one, size) for one in make(120, rng)])

    def features(pixels: np.ndarray) -> np.ndarray:
        return network.predict(pixels[..., None].astype(np.float32), verbose=0)

    columns = ("images", "stopped", "called upside down")
    rows = {
        name: (len(pixels), *np.mean(check.judge(pixels, features(pixels)), axis=1)) for name, pixels in sets.items()
    }
    print(pd.DataFrame(rows, index=columns).T.astype({"images": int}).round(3).to_string())


if __name__ == "__main__":
    main()
