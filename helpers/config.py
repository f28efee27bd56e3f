"""Settings of a run: profiles, overrides by name, and where things live on disk."""

from __future__ import annotations

import ast
import contextlib
import difflib
import os
import platform
import re
import textwrap
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path

from helpers import storage

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
REPORTS = ROOT / "reports"
NOTEBOOKS = ROOT / "notebooks"
PRETRAINED = DATA / "pretrained"  # the model that comes with the clone

LABELS = ("NORMAL", "PNEUMONIA")
SUFFIXES = (
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".dcm", ".dicom", ".ima", ".tif", ".tiff", ".bmp", ".webp", ".gif",
)  # of image files  # fmt: skip
WEIGHTS = ("imagenet", "none", "phantoms")  # what the setting of that name can be instead of a file
FEWEST_PHANTOMS = 20  # patients: with fewer, a split lacks a class or a subtype
BACKBONES = (
    "ResNet50", "DenseNet121", "EfficientNetV2B0", "MobileNetV3Large", "Xception", "XceptionShort", "SmallCNN",
)  # fmt: skip


class InputError(ValueError):
    """Something the user gave cannot be used; its message says what, where, and what to do."""


def _setting(default, notebook: str, help: str, low=None, high=None, choices=None):
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
        "", "02", "validation instead of a share: 1/5 (first of five folds), or series:IM (one series of normal names)"
    )
    validation_fraction: float = _setting(
        0.1, "02", "share of the training patients kept for validation, rounded to 1/2, 1/3, 1/4 ...", 0.02, 0.5
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
    class_weights: bool = _setting(True, "03", "weigh both classes equally in the loss")
    label_smoothing: float = _setting(0.0, "03", "label smoothing of the loss", 0.0, 0.4)
    rotation: float = _setting(15.0, "02", "augmentation: largest rotation either way, degrees", 0.0, 180.0)
    zoom: float = _setting(0.15, "02", "augmentation: largest zoom in or out, share of the size", 0.0, 0.9)
    shear: float = _setting(8.0, "02", "augmentation: largest shear either way, degrees", 0.0, 60.0)
    translation: float = _setting(0.06, "02", "augmentation: largest shift either way, share of the size", 0.0, 0.5)
    brightness: float = _setting(0.15, "02", "augmentation: largest change of brightness, share of 255", 0.0, 1.0)
    contrast: float = _setting(0.25, "02", "augmentation: largest change of contrast, share", 0.0, 0.95)
    mirror: bool = _setting(False, "02", "augmentation: swap left and right in half of the images")
    gamma: float = _setting(0.0, "02", "augmentation: largest gamma either way, as its logarithm", 0.0, 2.0)
    sharpness: float = _setting(0.0, "02", "augmentation: most blurring or sharpening, share of a 5x5 blur", 0.0, 1.0)
    noise: float = _setting(0.0, "02", "augmentation: largest standard deviation of noise, share of 255", 0.0, 0.5)
    frame: float = _setting(
        0.0, "02", "augmentation, not of cached views: widest strip replaced at each edge, share of the size", 0.0, 0.45
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
        "", "04", "fine-tuning: a saved model folder; half of what each image is taught to be is what that model says"
    )
    validation_views: int = _setting(
        0, "04", "augmented views of validation images that set the threshold and (all layers) choose epochs too", 0, 20
    )

    model: str = _setting("", "05", "evaluate this saved model folder instead of the run's own")
    threshold_policy: str = _setting(
        "sensitivity>=0.97", "05", "sensitivity>=X, youden, or a number; chosen on validation"
    )
    resamples: int = _setting(1000, "05", "bootstrap resamples of patients behind every interval", 10, 100_000)

    explained: int = _setting(4, "06", "heatmaps shown per outcome (TP, FP, TN, FN)", 1, 100)
    localised: int = _setting(300, "06", "images, drawn at random, whose heatmaps are scored", 1, 10_000)


# What a recipe sets, below the profile and what is named by hand.
RECIPES: dict[str, dict] = {
    "classic": {"head_epochs": 10},
    # Linear probing, then all layers (Kumar et al. 2022, ICLR); augmentation that blurs what gives the source away;
    # weights averaged over steps at a rate that does not fall (Izmailov et al. 2018; under a shift, Cha et al. 2021).
    "full": {
        "backbone": "Xception",
        "image_size": 224,
        "label_smoothing": 0.05,
        "rotation": 15.0,
        "zoom": 0.25,
        "shear": 6.0,
        "translation": 0.1,
        "brightness": 0.15,
        "contrast": 0.3,
        "mirror": True,
        "gamma": 0.35,
        "sharpness": 0.8,
        "noise": 0.04,
        "frame": 0.15,  # what shows around the chest must not decide
        "cached_views": 1,
        "head_epochs": 10,
        "batch_size": 16,
        "unfrozen_layers": -1,
        "fine_tuning_epochs": 10,
        "fine_tuning_rate": 1e-4,
        "rate_schedule": "warm-up",
        "weight_average": 0.997,  # the last 300 steps or so, about an epoch
        "weight_decay": 1e-4,
        "patience": 5,
        "validation_views": 3,
    },
}
_PHANTOM_RECIPE = {
    "backbone": "SmallCNN",
    "weights": "phantoms",
    "dense_units": 64,
    "image_size": 96,
    "validation_fraction": 0.2,
    "fine_tuning_rate": 5e-5,
    "resamples": 500,
}
PROFILES: dict[str, dict] = {
    "demo": _PHANTOM_RECIPE
    | {
        "phantoms": 600,
        "pretraining_phantoms": 1500,
        "pretraining_epochs": 15,
        "cached_views": 12,
        "head_epochs": 40,
        "head_rate": 3e-3,
        "fine_tuning_epochs": 24,
        "patience": 8,
    },
    "smoke": _PHANTOM_RECIPE
    | {
        "phantoms": 60,
        "image_size": 64,
        "pretraining_phantoms": 64,
        "pretraining_epochs": 1,
        "cached_views": 2,
        "head_epochs": 2,
        "fine_tuning_epochs": 2,
        "resamples": 50,
        "explained": 2,
        "localised": 20,
    },
    "chest_xray": {"recipe": "full", "deterministic": False, "mixed_precision": True},
}
_TYPES = typing.get_type_hints(Settings)
FIELDS = {f.name: f for f in fields(Settings)}
AUGMENTATIONS = ("rotation", "zoom", "shear", "translation", "brightness", "contrast", "mirror", "gamma", "sharpness")
AUGMENTATIONS += ("noise", "frame")


def _nearest(name: str, names) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)
    return close[0] if close else ""


def _convert(name: str, value):
    """`value` (a literal, or text from a command line) as the type of setting `name`, within its range."""
    wanted, meta = _TYPES[name], FIELDS[name].metadata
    converted = value
    if wanted is bool and isinstance(value, str):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        converted = words.get(value.strip().lower(), value)
    elif wanted in (int, float) and isinstance(value, str):
        try:
            number = float(value)
            converted = int(number) if wanted is int and number == int(number) else number
        except (ValueError, OverflowError):
            converted = value
    elif wanted is float and type(value) is int:
        converted = float(value)
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
    if settings.backbone == "SmallCNN" and settings.weights == "imagenet":
        raise InputError("backbone=SmallCNN has no ImageNet weights: add weights=none, or choose another backbone.")
    if settings.weights == "phantoms" and not (settings.pretraining_phantoms > 1 and settings.pretraining_epochs):
        raise InputError(
            "weights=phantoms first trains the backbone on phantoms: add pretraining_phantoms=1500 "
            "pretraining_epochs=15, or weights=none."
        )
    asked = [name for name in ("teacher", "frame") if getattr(settings, name)]
    if asked and settings.cached_views and settings.unfrozen_layers >= 0:
        raise InputError(
            f"{asked[0]} needs new augmented images in every epoch: set unfrozen_layers=-1 or cached_views=0, or leave "
            f"{asked[0]} out."
        )


def not_neutral(settings: Settings, names: Iterable[str]) -> dict:
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
    checked = {}
    given = overrides or {}
    if base is None:
        profile = _convert("profile", profile)
        base = _fresh(profile, _convert("recipe", given.get("recipe", PROFILES[profile].get("recipe", "classic"))))
        if given.get("data"):
            checked["phantoms"] = phantoms_in(Path(str(given["data"])).expanduser())
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


def notebook_settings(namespace: dict) -> tuple[Settings, Path]:
    """Settings and run folder of a notebook, from its `globals()`.

    Reads what the cells that start with "# Parameters" assigned: the notebook's own, and the one papermill injects
    below it. Any setting may be named there beside `profile` and `run` (folder below reports/, by default named
    like the profile). A literal counts as it is written there: by now its name may be another's, as `model` is that of
    a module.
    """
    values: dict = {}
    for source in namespace.get("In", []):
        if source.lstrip().startswith("# Parameters"):
            cell = ast.parse(source)
            nodes = [n for n in ast.walk(cell) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            values |= {node.id: namespace[node.id] for node in nodes if node.id in namespace}
            for statement in cell.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    with contextlib.suppress(ValueError):
                        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    run = values.pop("run", "")
    settings = make_settings(values.pop("profile", "demo"), values)
    folder = run_folder(run or settings.profile)
    folder.mkdir(parents=True, exist_ok=True)
    return settings, folder


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on most."""
    packages = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "pillow")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def describe(settings: Settings, run: Path) -> str:
    """A few lines for a notebook's opening: what it works on, where results go, seed, versions."""
    source = f"{settings.phantoms} phantom patients, drawn by code" if settings.phantoms else dataset_folder(settings)
    indents = {"initial_indent": "versions  ", "subsequent_indent": " " * 10}
    lines = [
        f"profile   {settings.profile}",
        f"data      {source}",
        f"run       {shown(run)}",
        f"seed      {settings.seed}",
        textwrap.fill(", ".join(f"{n} {v}" for n, v in versions().items()), 80, **indents),
    ]
    if settings.phantoms:
        lines.append("note      phantoms: the numbers below measure the machinery, not medicine")
    return "\n".join(lines)


def shown(path: Path) -> str:
    """`path` to read: relative to the clone where it lies in it."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def weights_origin(settings: Settings) -> str:
    """Where the backbone's weights come from, without the folders of a file's path."""
    return settings.weights if settings.weights in WEIGHTS else Path(settings.weights).name


def run_folder(name: str) -> Path:
    """reports/<name>; InputError for a name that could leave reports/ or that some system cannot store."""
    reserved = re.fullmatch(r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)  # devices on Windows
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) or name.endswith(".") or reserved:
        raise InputError(
            f"run name {name!r} cannot be a folder; use letters, digits, '-', '_' and '.', at most 80, and no name "
            "that Windows keeps for devices (con, nul)."
        )
    return REPORTS / name


def dataset_folder(settings: Settings) -> Path:
    """The dataset of `settings`: `data` where given, else the profile's own folder below data/.

    Phantoms of another number or seed than the profile's have a folder of their own, such as data/demo-600-seed2, so
    that runs with different seeds leave each other's images alone.
    """
    if settings.data:
        return Path(settings.data).expanduser().resolve()
    drawn, usual = (settings.phantoms, settings.seed), make_settings(settings.profile)
    own = not settings.phantoms or drawn == (usual.phantoms, usual.seed)
    return DATA / (settings.profile if own else f"{settings.profile}-{drawn[0]}-seed{drawn[1]}")


def needs(path: Path, notebook: str) -> Path:
    """`path`, or an InputError that names the notebook which writes it."""
    if not path.exists():
        raise InputError(f"{path.name} is missing in {path.parent}: run {notebook} first.")
    return path
