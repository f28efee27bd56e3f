"""The model folder: model.keras and the card model.json beside it, with the checksums that tie them together."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np

from helpers import config, storage
from helpers.config import InputError, Settings
from helpers.model import ood
from helpers.model.build import first_line

FORMAT = 1


def save(model: keras.Model, folder: Path, card: dict) -> None:
    """Write a model folder: model.keras, without the optimizer, and model.json.

    An out-of-distribution check in the folder is removed: it was an older model's.

    Parameters
    ----------
    model : keras.Model
        With one input, (n, size, size, 1).
    folder : Path
        Made where it is missing; the files of another model in it are replaced.
    card : dict, ready for JSON
        As from `make_card`. model.json gets it with the format, input size and checksum.

    Raises
    ------
    ValueError
        Where a number of the card is NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / "part.keras"
    keras.Model(model.inputs[0], model.output, name=model.name).save(aside)  # not compiled: without the optimizer
    storage.replace_file(aside, folder / "model.keras")
    (folder / ood.FILE).unlink(missing_ok=True)  # an older model's: notebook 05 makes one for this model
    write_card(folder, card | {"input_size": list(model.input_shape[1:])})


def write_card(folder: Path, card: dict) -> None:
    """Write model.json beside model.keras, with the current format and the checksums of the files beside it."""
    sums = {"sha256": storage.sha256(folder / "model.keras")}
    if (folder / ood.FILE).is_file():
        sums["guard_sha256"] = storage.sha256(folder / ood.FILE)
    given = {name: value for name, value in card.items() if name != "guard_sha256"}
    storage.write_json(folder / "model.json", given | {"format": FORMAT} | sums)


def read_card(folder: Path) -> dict:
    """model.json of a model folder; InputError where it is missing, damaged, newer than this code, or does not fit."""
    card_file, model_file = folder / "model.json", folder / "model.keras"
    if not (card_file.is_file() and model_file.is_file()):
        raise InputError(f"{folder} is not a model folder: it needs model.keras and model.json.")
    try:
        card = json.loads(card_file.read_text(encoding="utf-8"))
        number, digest = int(card["format"]), card["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{card_file} is damaged: {error!r}.") from error
    if number > FORMAT:
        raise InputError(f"{card_file} has format {number}; this code reads up to {FORMAT}: update it.")
    for file, wanted in ((model_file, digest), (folder / ood.FILE, card.get("guard_sha256"))):
        if wanted and not (file.is_file() and storage.sha256(file) == wanted):
            raise InputError(f"{file} does not fit the checksum in model.json: one of them was changed or damaged.")
    size, calibration = card.get("input_size"), card.get("calibration")
    if not isinstance(size, list) or (card.get("threshold") is not None and not isinstance(calibration, dict)):
        raise InputError(f"{card_file} is damaged: it needs input_size, a list, and with a threshold a calibration.")
    return card


def load(folder: Path) -> tuple[keras.Model, dict]:
    """Load a model and its card; this runs no code from the file (Keras' safe mode).

    Parameters
    ----------
    folder : Path
        A model folder: model.keras and model.json.

    Returns
    -------
    tuple of keras.Model and dict
        The model, not compiled, and what model.json holds.

    Raises
    ------
    InputError
        Where a file is missing, damaged, newer than this code, does not fit its checksum, or asks to run code.
    """
    card = read_card(folder)
    try:
        return keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True), card
    except Exception as error:  # zipfile, h5py and keras raise several kinds
        raise InputError(f"{folder / 'model.keras'} cannot be loaded: {first_line(error)}") from error


def shrink(folder: Path) -> None:
    """Round the kernels of a model folder to 12 of their 23 binary digits, and pack the file. InputError as `load`."""
    classifier, card = load(folder)
    for weight in classifier.weights:
        if weight.ndim > 1:
            bits = weight.numpy().view(np.uint32) + np.uint32(1 << 10)
            weight.assign((bits & np.uint32(0xFFFFF800)).view(np.float32))
    loose, packed = folder / "part.keras", folder / "packed.part"
    classifier.save(loose)
    with zipfile.ZipFile(loose) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    loose.unlink()
    storage.replace_file(packed, folder / "model.keras")
    write_card(folder, card)


def make_card(settings: Settings, fingerprint: str, public: bool) -> dict:
    """What model.json says of a model that has no threshold yet; notebook 05 fills the rest.

    Parameters
    ----------
    settings : Settings
        Those of the training.
    fingerprint : str
        Of the dataset it was trained on, as from `dataset.dataset_fingerprint`.
    public : bool
        Whether that is the public one, as far as names tell.

    Returns
    -------
    dict, ready for JSON
        labels, backbone, weights_origin, dataset_fingerprint, phantoms (whether it was trained on them), public, traps
        and versions. None for what is still unknown: threshold, threshold_policy, calibration, uncertain, certain,
        operating_points and metrics.
    """
    unknown = ("threshold", "threshold_policy", "calibration", "uncertain", "certain", "operating_points", "metrics")
    return dict.fromkeys(unknown) | {
        "labels": list(config.LABELS),
        "backbone": settings.backbone,
        "weights_origin": config.weights_origin(settings),
        "dataset_fingerprint": fingerprint,
        "phantoms": settings.phantoms > 0,
        "public": public,
        "traps": settings.traps,
        "versions": config.versions(),
    }


def copy(source: Path, target: Path) -> None:
    """Copy a model folder, refusing one that does not hold together; each file is put in place whole, the card last.

    Parameters
    ----------
    source : Path
        A model folder.
    target : Path
        Made where it is missing; a model in it is replaced. Where it is `source`, nothing is done.

    Raises
    ------
    InputError
        Where a file of `source` is missing, damaged, newer than this code, or does not fit its checksum.
    """
    card = read_card(source)
    if source.resolve() == target.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    names = ("model.keras", *([ood.FILE] if "guard_sha256" in card else []), "model.json")
    try:
        for name in names:
            shutil.copyfile(source / name, target / f"{name}.part")
        (target / ood.FILE).unlink(missing_ok=True)
        for name in names:
            storage.replace_file(target / f"{name}.part", target / name)
    finally:
        for name in names:
            (target / f"{name}.part").unlink(missing_ok=True)
