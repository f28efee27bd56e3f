"""The table of settings; values by name, checked and converted."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from helpers import storage
from helpers.config.recipes import PROFILES, RECIPES, TRAPS

LABELS = ("NORMAL", "PNEUMONIA")
SUFFIXES = (
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".dcm", ".dicom", ".ima", ".tif", ".tiff", ".bmp", ".webp", ".gif",
)  # of image files  # fmt: skip
WEIGHTS = ("imagenet", "none", "phantoms")  # what the setting of that name can be instead of a file
FEWEST_PHANTOMS = 20  # patients: with fewer, a split lacks a class or a subtype
BACKBONES = (
    "ResNet50", "DenseNet121", "EfficientNetV2B0", "EfficientNetLite0", "MobileNetV3Large", "Xception", "XceptionShort",
    "SmallCNN",
)  # fmt: skip


class InputError(ValueError):
    """Something the user gave cannot be used; its message says what, where, and what to do."""


def _setting(
    default: Any, notebook: str, help: str, low: float | None = None, high: float | None = None, choices: tuple = ()
) -> Any:
    return field(
        default=default,
        metadata={"notebook": notebook, "help": help, "low": low, "high": high, "choices": choices},
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
        0.0,
        "02",
        "augmentation: strongest histogram equalisation of half of the images, some in tiles",
        0.0,
        1.0,
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

    teacher: str = _setting(
        "", "04", "fine-tuning: a saved model folder; half of each target is what that model predicts"
    )
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
_TYPES = typing.get_type_hints(Settings)
FIELDS = {f.name: f for f in fields(Settings)}
AUGMENTATIONS: tuple[str, ...]
AUGMENTATIONS = ("rotation", "zoom", "shear", "translation", "brightness", "contrast", "mirror", "gamma", "sharpness")
AUGMENTATIONS += ("noise", "frame", "crop_area", "equalisation", "compression", "downscaling")


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)
    return close[0] if close else ""


def _convert(name: str, value: Any) -> Any:
    """`value` (a literal, or text from a command line) as the type of setting `name`, within its range."""
    wanted, meta = _TYPES[name], FIELDS[name].metadata
    converted = value
    if wanted is bool and isinstance(value, str):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        converted = words.get(value.strip().lower(), value)
    elif (wanted is int and isinstance(value, str)) or (wanted is float and type(value) in (str, int)):
        with contextlib.suppress(ValueError, OverflowError):
            converted = number = float(value)
            converted = int(number) if wanted is int and number == int(number) else number
    elif wanted is str and isinstance(value, os.PathLike | float | int) and type(value) is not bool:
        converted = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if type(converted) is not wanted:
        kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[wanted]
        raise InputError(f"setting {name}={value!r} is not {kind} ({meta['help']}).")
    low, high = meta["low"], meta["high"]
    if low is not None and not low <= converted <= high:
        nearest = min(max(converted, low), high) if converted == converted else low
        raise InputError(f"setting {name}={value} is outside {low} to {high}; the nearest possible value is {nearest}.")
    choices = PROFILES if name == "profile" else meta["choices"]
    if choices and converted not in choices:
        raise InputError(
            f"setting {name}={value} is not one of {', '.join(choices)}; the nearest is {_nearest(converted, choices)}."
        )
    if name == "threshold_policy":
        parse_policy(converted)
    if name == "fold":
        parse_fold(converted)
    return converted


def parse_fold(fold: str) -> tuple[int, int] | str | None:
    """Split the setting `fold`: "2/5" -> (2, 5), "series:IM" -> "IM", "" -> None; InputError for anything else."""
    if match := re.fullmatch(r"(\d{1,3})/(\d{1,3})", fold.replace(" ", "")):
        number, of = int(match[1]), int(match[2])
        if 1 <= number <= of and of >= 2:
            return number, of
    elif fold.startswith("series:") and fold != "series:":
        return fold.removeprefix("series:")
    elif not fold:
        return None
    raise InputError(f"setting fold={fold} is no fold; use 1/5 to 5/5 (of five), or series:IM, or leave it empty.")


def parse_policy(policy: str) -> tuple[str, float | None]:
    """Split a threshold policy into ("sensitivity", target), ("youden", None) or ("fixed", threshold).

    Raises InputError for anything else, and for numbers outside (0, 1].
    """
    text = policy.replace(" ", "")
    if text == "youden":
        return "youden", None
    match = re.fullmatch(r"(sensitivity>=)?(\d*\.?\d+(?:e-?\d+)?)", text)
    if match and 0 < float(match.group(2)) <= 1:
        return ("sensitivity" if match.group(1) else "fixed"), float(match.group(2))
    raise InputError(
        f"setting threshold_policy={policy} is not a policy; use sensitivity>=0.97, youden, or a number above 0 "
        "and at most 1 such as 0.5."
    )


def _check_together(settings: Settings) -> None:
    """Refuse, with an InputError, settings that no run could carry out together."""
    if 0 < settings.phantoms < FEWEST_PHANTOMS:
        raise InputError(
            f"setting phantoms={settings.phantoms} is too few patients for both classes and subtypes in each split; "
            f"the nearest possible value is {FEWEST_PHANTOMS}."
        )
    if settings.traps != "none" and not settings.phantoms:
        raise InputError(f"traps={settings.traps} breaks a run of phantoms on purpose: on real images leave it out.")
    if settings.backbone == "SmallCNN" and settings.weights == "imagenet":
        raise InputError("backbone=SmallCNN has no ImageNet weights: add weights=none, or choose another backbone.")
    if settings.weights == "phantoms" and not (settings.pretraining_phantoms > 1 and settings.pretraining_epochs):
        raise InputError(
            "weights=phantoms first trains the backbone on phantoms: add pretraining_phantoms=1500 "
            "pretraining_epochs=15, or weights=none."
        )
    new = [name for name in ("teacher", "frame") if getattr(settings, name)]
    if new and settings.cached_views and settings.unfrozen_layers >= 0:
        raise InputError(
            f"{new[0]} needs new augmented images in every epoch: set unfrozen_layers=-1 or cached_views=0, or leave "
            f"{new[0]} out."
        )


def non_default(settings: Settings, names: Iterable[str]) -> dict:
    """Those of `names` whose value is not the default of `Settings`, which does nothing special, with their values.

    What a result depends on, in a form that stays the same when settings are added.
    """
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != FIELDS[name].default}


def _fresh(profile: str, recipe: str) -> Settings:
    return replace(Settings(), **(RECIPES[recipe] | PROFILES[profile] | {"profile": profile, "recipe": recipe}))


def make_settings(
    profile: str = "demo", overrides: dict | None = None, base: Settings | None = None, named: Iterable[str] = ()
) -> Settings:
    """Settings of `profile` (or a recorded `base`, of which `named` were set by hand) with `overrides` by field name.

    A recipe sets what neither the profile, nor `overrides`, nor `named` name. Where `data` names a folder, that is read
    and nothing drawn; `phantoms` then says how many were drawn into it, unless it is named too. InputError for an
    unknown profile or name (naming the nearest right one), an impossible value, or values that are impossible together.
    """
    checked: dict[str, Any] = {}
    given = overrides or {}
    if base is None:
        profile = _convert("profile", profile)
        base = _fresh(profile, _convert("recipe", given.get("recipe", PROFILES[profile].get("recipe", "classic"))))
        if given.get("data"):
            drawn = storage.read_json(expanded(str(given["data"])) / "phantoms.json")
            checked["phantoms"] = phantoms_in(expanded(str(given["data"])))
            checked["traps"] = drawn.get("trap", "none")
            if given.get("traps", "none") not in ("none", "threshold", checked["traps"]):
                raise InputError(f"traps={given['traps']} changes how phantoms are drawn: leave data out.")
    elif "recipe" in given:
        before, after = (_fresh(base.profile, name) for name in (base.recipe, _convert("recipe", given["recipe"])))
        differing = [name for name in FIELDS if getattr(after, name) != getattr(before, name)]
        base = replace(base, **{name: getattr(after, name) for name in differing if name not in set(named)})
    for name, value in given.items():
        if name not in FIELDS:
            raise InputError(f"there is no setting {name!r}; the nearest is {_nearest(name, FIELDS)!r}.")
        checked[name] = _convert(name, value)
    settings = replace(base, **checked)
    _check_together(settings)
    return settings


def expanded(path: str) -> Path:
    """`path` with ~ as the home folder; as it is where nobody is called so."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises


def phantoms_in(folder: Path) -> int:
    """How many phantom patients were drawn into a dataset folder, by its phantoms.json; 0 where there is none."""
    patients = storage.read_json(folder / "phantoms.json").get("patients")
    return patients if isinstance(patients, int) else 0


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """["backbone=Xception", "seed=2"] -> {"backbone": "Xception", "seed": "2"}; InputError where "=" is missing."""
    pairs = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set {text!r} is not NAME=VALUE, such as backbone=DenseNet121.")
        pairs[name.strip()] = value
    return pairs


def list_settings(profile: str) -> str:
    """Every setting with its value in `profile`, its range, and what it does: first those that most readers change."""
    values, lines = make_settings(profile), []
    for title, names in (("Basic", BASIC), ("Advanced", [name for name in FIELDS if name not in BASIC])):
        lines += ["", f"{title} settings of the profile {profile}:"]
        for name in names:
            meta, kind = FIELDS[name].metadata, {bool: "True or False", str: "text"}.get(_TYPES[name], "")
            choices = ", ".join(PROFILES if name == "profile" else meta["choices"])
            possible = choices or kind or f"{meta['low']:,} to {meta['high']:,}"
            lines += [f"  {name} = {getattr(values, name)}  ({possible})", f"      {meta['help']}"]
    return "\n".join(lines[1:])
