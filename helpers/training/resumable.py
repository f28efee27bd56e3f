"""Train a model an epoch at a time, so that a killed training goes on from its last epoch with the same result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from helpers import storage

Epoch = Callable[[int], tf.data.Dataset]
Validate = Callable[[keras.Model], dict[str, float]]


class _LastStep(keras.callbacks.Callback):
    """Keeps the weights that an epoch's last step left: an optimizer that averages puts its average in their place."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.weights = self.model.get_weights()


def fit(
    classifier: keras.Model,
    epoch_batches: Epoch,
    validate: Validate,
    epochs: int,
    patience: int,
    folder: Path,
    key: str,
    seed: Sequence[int],
) -> tuple[keras.Model, pd.DataFrame]:
    """Train a compiled model for at most `epochs`, stopping after `patience` epochs without a lower validation loss.

    `epoch_batches(epoch)` gives the batches of an epoch, counted from 1; `validate(model)` its figures, `val_loss`
    among them. After every epoch the model with its optimizer goes to `folder`, so a second call with the same `key` (a
    fingerprint of all else that the result depends on) goes on after the last finished epoch, and returns at once when
    all are done; asked for fewer than were trained, it starts anew. What Dropout draws depends on `seed` and the epoch
    alone. Epoch 0 is the model as it came: where no epoch is better, it is what is returned. Where the optimizer
    averages the weights, an epoch's model is the average at its end, while training goes on from its last step.

    Returns the model with the best weights, and the history: epoch, loss, what `validate` gives, seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "state.json"
    state = json.loads(state_file.read_text(encoding="utf-8")) if state_file.exists() else {}
    if state.get("key") != key or state["history"][-1]["epoch"] > epochs:
        state_file.unlink(missing_ok=True)  # it must not outlive its epochs
        state = {"key": key, "history": []}
        _save_epoch(classifier, folder, state, {"epoch": 0, "loss": None} | validate(classifier) | {"seconds": 0.0})
    elif not _finished(state, epochs, patience):
        epoch = state["history"][-1]["epoch"]
        file = _stepped_file(epoch) if epoch and _averages(classifier) else _file(epoch)
        classifier = keras.saving.load_model(folder / file)
    while not _finished(state, epochs, patience):
        epoch, start = state["history"][-1]["epoch"] + 1, time.perf_counter()
        seed_draws(classifier, [*seed, epoch])
        last = _LastStep()
        losses = classifier.fit(
            epoch_batches(epoch), epochs=epoch, initial_epoch=epoch - 1, shuffle=False, verbose=0, callbacks=[last]
        )
        figures = {"epoch": epoch, "loss": losses.history["loss"][0]} | validate(classifier)
        figures |= {"seconds": round(time.perf_counter() - start, 1)}
        _save_epoch(classifier, folder, state, figures, last.weights if _averages(classifier) else None)
        print("  ".join(f"{name} {value:.4g}" for name, value in state["history"][-1].items()), flush=True)
    best = keras.saving.load_model(folder / _file(_best(state)), compile=False)
    history = pd.DataFrame(state["history"])
    columns = sorted(set(history) - {"epoch", "loss", "seconds"})  # the file of the state sorts them, too
    return best, history[["epoch", "loss", *columns, "seconds"]]


def seed_draws(classifier: keras.Model, seed: Sequence[int]) -> None:
    """Set what Dropout draws: Keras does not save how far its generators have come."""
    rng = np.random.default_rng(seed)
    for state in (v for v in classifier.variables if v.path.endswith("seed_generator_state")):
        state.assign(rng.integers(2**31, size=2))


def _averages(classifier: keras.Model) -> bool:
    return getattr(classifier.optimizer, "inner_optimizer", classifier.optimizer).use_ema


def _file(epoch: int) -> str:
    return f"epoch-{epoch:03d}.keras"


def _stepped_file(epoch: int) -> str:
    return f"epoch-{epoch:03d}-stepped.keras"


def _best(state: dict) -> int:
    return min(state["history"], key=lambda row: (row["val_loss"], row["epoch"]))["epoch"]


def _finished(state: dict, epochs: int, patience: int) -> bool:
    last = state["history"][-1]["epoch"]
    return last >= epochs or last - _best(state) >= patience


def _save_epoch(classifier: keras.Model, folder: Path, state: dict, figures: dict, stepped: list | None = None) -> None:
    """Store the model, then the state that names it, then drop epochs that neither resuming nor the best needs.

    `stepped` are the weights to go on from, where they are not those that were judged; the model has them afterwards.
    """
    files = [_file(figures["epoch"])]
    _save(classifier, folder / files[0])
    if stepped:
        classifier.set_weights(stepped)
        files.append(_stepped_file(figures["epoch"]))
        _save(classifier, folder / files[1])
    state["history"].append(figures)
    storage.write_json(folder / "state.json", state)
    for file in folder.glob("epoch-*.keras"):
        if file.name not in (*files, _file(_best(state))):
            file.unlink()


def _save(classifier: keras.Model, file: Path) -> None:
    aside = file.with_name("part.keras")
    classifier.save(aside)
    storage.replace_file(aside, file)
