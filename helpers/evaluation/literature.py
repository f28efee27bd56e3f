"""What others report for the public test set, and a run beside them."""

from __future__ import annotations

import pandas as pd

from helpers.evaluation.decisions import in_words, with_interval

# What others report for the dataset's 624 test images: percent, but the AUC a fraction; None where not reported. A
# source owner/name is a repository on GitHub.
_COLUMNS = ("who", "accuracy", "sensitivity", "specificity", "auc", "how", "source")
_SALEHI = (None, None, None, "transfer learning; sensitivity said to be above 91", "Salehi et al. 2021, BJR")
_CONVNEXT = "kiselyovd/chest-xray-classifier"
_AIO = "AIVIETNAM-AIO-PhamTien/chest-xray-pneumonia-detection"
_START = "keshavk215/Pneumonia-Detection-from-Chest-X-Ray-Images"
_EVELYN = "Evelyn-R7/chest-xray-pneumonia-classification"
_KERAS = "keras-io, examples/vision/xray_classification_with_tpus.py"
_ROWS = (
    ("kiselyovd, ConvNeXtV2-Tiny", 96.0, 99.7, 89.7, None, "3 classes, image-level split, 1 seed", _CONVNEXT),
    ("AIVIETNAM, DenseNet121 x 5", 93.4, 99.5, 83.3, 0.985, "out-of-fold threshold; test seen before", _AIO),
    ("Kermany et al., Inception V3", 92.8, 93.2, 90.1, 0.968, "the dataset's own paper", "Kermany et al. 2018, Cell"),
    ("MedMNIST+, DINO ViT-B/16", 91.6, None, None, 0.989, "probe, 224 px; 3 seeds; cut at 0.5", "arXiv:2404.15786"),
    ("MedMNIST+, ResNet18", 91.1, None, None, 0.980, "224 px; 3 seeds; cut at 0.5", "arXiv:2404.15786"),
    ("keshavk215, ResNet50", 89.3, 96.9, 76.5, None, "where this project began; validated on the test images", _START),
    ("MedMNIST v2, ResNet50", 88.4, None, None, 0.962, "224 px; trained from scratch", "MedMNIST v2"),
    ("Salehi et al., DenseNet121", 86.8, *_SALEHI),
    ("Evelyn-R7, EfficientNetB0", 86.7, 99.7, 65.0, 0.975, "3 seeds; strictest protocol: test opened once", _EVELYN),
    ("Salehi et al., Xception", 86.0, *_SALEHI),
    ("pneumonia_model_package 0.3.0", 82.5, 96.9, 58.5, 0.926, "claims 86.1; measured by us, 224 px copies", "PyPI"),
    ("Keras example, custom CNN", 81.4, 97.7, None, None, "train and val joined and split again", _KERAS),
)
PUBLISHED: tuple[dict, ...] = tuple(dict(zip(_COLUMNS, row, strict=True)) | {"n": 624} for row in _ROWS)


def compare_published(summary: dict, name: str, how: str) -> pd.DataFrame:
    """This run, called `name` and obtained as `how` says, on top of PUBLISHED.

    Columns who, accuracy, sensitivity, specificity (percent), AUC (fraction), n, how; the numbers as text, this run's
    with their 95% interval in brackets.
    """
    digits = {"accuracy": (100, 1), "sensitivity": (100, 1), "specificity": (100, 1), "auc": (1, 3)}
    own = {"who": name, "n": summary["n"], "how": how}
    own |= {key: with_interval(summary[key], *form) for key, form in digits.items()}
    others = [r | {k: "–" if r[k] is None else f"{r[k]:.{d}f}" for k, (_, d) in digits.items()} for r in PUBLISHED]
    return pd.DataFrame([own, *others], columns=["who", *digits, "n", "how"]).rename(columns=in_words)
