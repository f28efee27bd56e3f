"""The table of settings."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field, fields
from typing import Any

from helpers.config.recipes import TRAPS

LABELS = ("NORMAL", "PNEUMONIA")
SUFFIXES = (
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".dcm", ".dicom", ".ima", ".tif", ".tiff", ".bmp", ".webp", ".gif",
)  # of image files  # fmt: skip
WEIGHTS = ("imagenet", "none", "phantoms")  # what the setting of that name can be instead of a file
FEWEST_PHANTOMS = 20  # patients: with fewer, a split lacks a class or a subtype
BACKBONES = (
    "ResNet50", "DenseNet121", "EfficientNetV2B0", "EfficientNetLite0", "MobileNetV3Large", "Xception", "SmallCNN",
)  # fmt: skip


class InputError(ValueError):
    """Something the user gave cannot be used; its message says what, where, and what to do."""


def _setting(
    default: Any, notebook: str, help: str, low: float | None = None, high: float | None = None, choices: tuple = ()
) -> Any:
    return field(
        default=default, metadata={"notebook": notebook, "help": help, "low": low, "high": high, "choices": choices}
    )


@dataclass(frozen=True)
class Settings:
    """Every choice of a run. A field's metadata names the first notebook that depends on it, and its range."""

    profile: str = _setting("demo", "01", "name of the profile these settings started from")
    data: str = _setting("", "01", "dataset folder; empty: the profile's own")
    phantoms: int = _setting(0, "01", "patients drawn for the embedded dataset; 0: a folder of real images", 0, 20_000)
    traps: str = _setting(
        "none", "01", "one mistake to make on purpose in a run of phantoms, as a lesson", choices=("none", *TRAPS)
    )
    seed: int = _setting(1, "01", "seed of the split, the weights, the augmentation and the resampling", 0, 2**31 - 1)

    recipe: str = _setting(
        "classic", "03", "classic: frozen backbone, then its last layers; full: all layers", choices=("classic", "full")
    )
    deterministic: bool = _setting(True, "03", "repeat to the last bit; some steps take up to twice as long")
    mixed_precision: bool = _setting(
        False, "03", "compute training in 16 bits where the hardware is made for it: GPUs, processors with bfloat16"
    )

    image_size: int = _setting(224, "01", "side of the square the model sees, pixels", 32, 1024)
    fold: str = _setting(
        "",
        "02",
        "validation instead of a fraction: 1/5 (first of five folds), or series:IM (one series of normal names)",
    )
    validation_fraction: float = _setting(
        0.1, "02", "fraction of the training patients kept for validation, rounded to 1/2, 1/3, 1/4 ...", 0.02, 0.5
    )

    backbone: str = _setting("ResNet50", "03", "network that turns pixels into features", choices=BACKBONES)
    weights: str = _setting(
        "imagenet", "03", "start of the backbone: imagenet, none, phantoms (demo), or a .weights.h5 file"
    )
    pretraining_phantoms: int = _setting(0, "03", "phantoms that weights=phantoms first trains on", 0, 20_000)
    pretraining_epochs: int = _setting(0, "03", "epochs of that", 0, 500)
    dense_units: int = _setting(256, "03", "width of the Dense layer in the head", 1, 8192)
    dropout: float = _setting(0.5, "03", "Dropout in the head", 0.0, 0.95)
    batch_size: int = _setting(32, "03", "images per training step", 1, 1024)
    label_smoothing: float = _setting(0.0, "03", "label smoothing of the loss", 0.0, 0.4)
    rotation: float = _setting(15.0, "02", "augmentation: largest rotation either way, degrees", 0.0, 180.0)
    zoom: float = _setting(0.15, "02", "augmentation: largest zoom in or out, as a fraction of the size", 0.0, 0.9)
    shear: float = _setting(8.0, "02", "augmentation: largest shear either way, degrees", 0.0, 60.0)
    translation: float = _setting(
        0.06, "02", "augmentation: largest shift either way, as a fraction of the size", 0.0, 0.5
    )
    brightness: float = _setting(
        0.15, "02", "augmentation: largest change of brightness, as a fraction of 255", 0.0, 1.0
    )
    contrast: float = _setting(0.25, "02", "augmentation: largest change of contrast, as a fraction", 0.0, 0.95)
    mirror: bool = _setting(False, "02", "augmentation: swap left and right in half of the images")
    gamma: float = _setting(
        0.0, "02", "augmentation: largest gamma (exponent of the grey levels) either way, as its logarithm", 0.0, 2.0
    )
    sharpness: float = _setting(
        0.0, "02", "augmentation: most blurring or sharpening, as a fraction of a 5x5 blur", 0.0, 1.0
    )
    noise: float = _setting(
        0.0, "02", "augmentation: largest standard deviation of noise, as a fraction of 255", 0.0, 0.5
    )
    frame: float = _setting(
        0.0,
        "02",
        "augmentation, not of cached views: widest strip replaced at each edge, as a fraction of the size",
        0.0,
        0.45,
    )
    crop_area: float = _setting(
        1.0, "02", "augmentation: smallest part of the image that a crop at a random place leaves, by area", 0.02, 1.0
    )
    equalisation: float = _setting(
        0.0, "02", "augmentation: strongest histogram equalisation of half of the images, some in tiles", 0.0, 1.0
    )
    compression: float = _setting(
        0.0, "02", "augmentation: strongest JPEG compression of half of the images; 1: down to a quality of 5", 0.0, 1.0
    )
    downscaling: float = _setting(
        0.0,
        "02",
        "augmentation: most scaling down (and up again) of half of the images, as a fraction of the size",
        0.0,
        0.9,
    )
    cached_views: int = _setting(
        2, "03", "augmented views per image whose frozen activations are computed once; 0: anew in every epoch", 0, 100
    )
    head_epochs: int = _setting(5, "03", "most epochs of training the head", 1, 1000)
    head_rate: float = _setting(1e-3, "03", "Adam's learning rate for the head", 1e-8, 1.0)
    patience: int = _setting(3, "03", "epochs without a better validation loss before training stops", 1, 1000)

    unfrozen_layers: int = _setting(10, "04", "last layers of the backbone that are fine-tuned; -1: all", -1, 10_000)
    fine_tuning_epochs: int = _setting(5, "04", "most epochs of fine-tuning", 1, 1000)
    fine_tuning_rate: float = _setting(1e-5, "04", "Adam's learning rate in fine-tuning", 1e-8, 1.0)
    rate_schedule: str = _setting(
        "constant",
        "04",
        "that rate: constant, warm-up (rising at first), or cosine (warm-up, then down to 0)",
        choices=("constant", "warm-up", "cosine"),
    )
    weight_average: float = _setting(
        0.0, "04", "momentum of a moving average of the weights, judged and kept in their place; 0: none", 0.0, 0.9999
    )
    weight_decay: float = _setting(0.0, "04", "decoupled weight decay in fine-tuning (AdamW); 0: Adam", 0.0, 1.0)

    validation_views: int = _setting(  # the head's, too, where nothing is cached
        0, "03", "augmented views of validation images that set the threshold and (all layers) choose epochs too", 0, 20
    )

    model: str = _setting("", "05", "evaluate this saved model folder instead of the run's own")
    threshold_policy: str = _setting(
        "sensitivity>=0.97", "05", "sensitivity>=X, youden, or a number; chosen on validation"
    )
    resamples: int = _setting(1000, "05", "bootstrap resamples of patients behind every interval", 10, 100_000)

    explained: int = _setting(4, "06", "heatmaps shown per outcome (TP, FP, TN, FN)", 1, 100)
    localised: int = _setting(300, "06", "images, drawn at random, whose heatmaps are scored", 1, 10_000)


# What most readers change; the others are advanced.
BASIC = (
    "profile", "data", "seed", "recipe", "backbone", "weights", "image_size", "batch_size", "unfrozen_layers",
    "head_epochs", "head_rate", "fine_tuning_epochs", "fine_tuning_rate", "threshold_policy",
)  # fmt: skip
TYPES = typing.get_type_hints(Settings)
FIELDS = {f.name: f for f in fields(Settings)}
AUGMENTATIONS: tuple[str, ...]
AUGMENTATIONS = ("rotation", "zoom", "shear", "translation", "brightness", "contrast", "mirror", "gamma", "sharpness")
AUGMENTATIONS += ("noise", "frame", "crop_area", "equalisation", "compression", "downscaling")
