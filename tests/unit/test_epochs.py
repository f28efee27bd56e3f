"""Training that can be killed: the same weights and history as an undisturbed one. On a network so small that an epoch
takes no time.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers

from helpers import storage
from helpers.training import Validate, seed_draws
from helpers.training import fit as fit_epochs
from tests.conftest import Killed, same_weights

EPOCHS = 3
pytestmark = pytest.mark.usefixtures("eager")


def numbers_network(average: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(3)
    start = layers.Input((6,))
    x = layers.Dense(8, "relu", name="dense")(start)
    x = layers.Dropout(0.3, seed=5)(x)
    x = layers.Dropout(0.3)(x)  # its own seed: another one in every process
    network = keras.Model(start, layers.Dense(1, "sigmoid", name="last")(x))
    averaging = {"use_ema": True, "ema_momentum": average} if average else {}
    network.compile(keras.optimizers.Adam(0.05, **averaging), "binary_crossentropy", jit_compile=False)
    return network


NUMBERS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
ANSWERS = (NUMBERS[:, 0] + NUMBERS[:, 1] > 0).astype(np.float32)[:, None]


def number_batches(epoch: int) -> tf.data.Dataset:
    order = np.random.default_rng([1, epoch]).permutation(32)
    return tf.data.Dataset.from_tensor_slices((NUMBERS[order], ANSWERS[order])).batch(16)


def loss_on_held_out(network: keras.Model) -> dict[str, float]:
    probability = np.clip(np.asarray(network(NUMBERS[32:])), 1e-6, 1 - 1e-6)
    truth = ANSWERS[32:]
    return {"val_loss": float(-np.mean(truth * np.log(probability) + (1 - truth) * np.log(1 - probability)))}


def fit(folder, epochs=EPOCHS, validate=loss_on_held_out, key="key", patience=100, data=number_batches, average=0.0):
    return fit_epochs(numbers_network(average), data, validate, epochs, patience, folder, key, [7])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("fit"))


def assert_as_undisturbed(result, undisturbed) -> None:
    (best, history), (expected, expected_history) = result, undisturbed
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), expected_history.drop(columns="seconds"))
    assert same_weights(best, expected)


def test_a_history_has_a_row_per_epoch_from_the_start(undisturbed):
    _, history = undisturbed
    assert list(history.columns) == ["epoch", "loss", "val_loss", "seconds"]
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["loss"].isna().tolist() == [True, False, False, False]
    assert history["val_loss"].is_monotonic_decreasing  # it learns


@pytest.mark.parametrize("moment", ["after training", "after saving the model"])
def test_a_training_killed_in_every_epoch_ends_as_an_undisturbed_one(tmp_path, monkeypatch, undisturbed, moment):
    write, trained = storage.write_json, []
    for killed_at in range(EPOCHS + 1):

        def number_batches_told(epoch):
            trained.append(epoch)
            return number_batches(epoch)

        def killed_validate(network, at=killed_at):
            if moment == "after training" and max(trained, default=0) == at:
                raise Killed
            return loss_on_held_out(network)

        def killed_write(file, value, at=killed_at):
            if moment == "after saving the model" and value["history"][-1]["epoch"] == at:
                raise Killed
            write(file, value)

        monkeypatch.setattr(storage, "write_json", killed_write)
        with pytest.raises(Killed):
            fit(tmp_path, validate=killed_validate, data=number_batches_told)
        monkeypatch.undo()
    assert trained == [1, 1, 2, 2, 3]  # the killed epoch again, and no other
    assert_as_undisturbed(fit(tmp_path), undisturbed)


def test_fewer_epochs_and_then_more_are_the_same_as_all_at_once(tmp_path, undisturbed):
    for epochs in (1, 2, EPOCHS):
        result = fit(tmp_path, epochs)
    assert_as_undisturbed(result, undisturbed)


def test_fewer_epochs_than_were_trained_are_trained_anew(tmp_path):
    fit(tmp_path / "more", EPOCHS)
    assert_as_undisturbed(fit(tmp_path / "more", 1), fit(tmp_path / "one", 1))


def test_averaged_weights_are_kept_and_training_goes_on_from_the_last_step(tmp_path):
    def fit_average(folder, epochs):
        return fit(folder, epochs, average=0.5)

    network, steps = numbers_network(), []
    for epoch in range(1, EPOCHS + 1):
        seed_draws(network, [7, epoch])
        keep = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: steps.append([np.array(v) for v in network.trainable_variables])
        )
        network.fit(number_batches(epoch), shuffle=False, verbose=0, callbacks=[keep])
    average = steps[0]
    for step in steps[1:]:
        average = [0.5 * a + 0.5 * s for a, s in zip(average, step, strict=True)]
    whole, history = fit_average(tmp_path / "whole", EPOCHS)
    assert history["val_loss"].idxmin() == EPOCHS
    for kept, expected in zip(whole.trainable_variables, average, strict=True):
        np.testing.assert_allclose(np.array(kept), expected, rtol=1e-5, atol=1e-6)
    for epochs in (1, 2, EPOCHS):
        result = fit_average(tmp_path / "parts", epochs)
    assert_as_undisturbed(result, (whole, history))
    assert {file.name for file in (tmp_path / "parts").iterdir()} == {
        "state.json", "epoch-003.keras", "epoch-003-stepped.keras",
    }  # fmt: skip


def test_a_finished_training_returns_at_once(tmp_path, undisturbed):
    fit(tmp_path)

    def never(_):
        pytest.fail("trained or validated again")

    assert_as_undisturbed(fit(tmp_path, validate=never, data=never), undisturbed)


def test_another_key_starts_anew(tmp_path):
    fit(tmp_path, 2)
    trained = []
    _, history = fit(tmp_path, 1, key="other", data=lambda epoch: trained.append(epoch) or number_batches(epoch))
    assert trained == [1]
    assert history["epoch"].tolist() == [0, 1]
    assert json.loads((tmp_path / "state.json").read_text())["key"] == "other"


def scripted(losses: list[float], seen: list) -> Validate:
    """Validation losses by epoch; the weights of every epoch go to `seen`."""

    def validate(network):
        seen.append(network.get_weights())
        return {"val_loss": losses[len(seen) - 1], "val_auc": 0.5}

    return validate


def one_batch(epoch: int) -> tf.data.Dataset:
    return number_batches(epoch).take(1)


@pytest.mark.parametrize(
    ("losses", "patience", "last", "best"),
    [
        ([1.0, 0.8, 0.9, 0.85, 0.1], 2, 3, 1),  # the better epoch 4 comes too late
        ([1.0, 0.8, 0.9, 0.7, 0.8, 0.9], 2, 5, 3),
        ([0.5, 0.6, 0.7], 1, 1, 0),  # never better than at the start
        ([1.0, 0.8, 0.8, 0.8], 2, 3, 1),  # of equals the first
        ([1.0, 0.9, 0.8], 9, 2, 2),
    ],
)
def test_training_stops_when_patience_ends_and_the_best_epoch_is_returned(tmp_path, losses, patience, last, best):
    seen = []
    network, history = fit(tmp_path, len(losses) - 1, scripted(losses, seen), patience=patience, data=one_batch)
    assert history["epoch"].tolist() == list(range(last + 1))
    assert history["val_loss"].tolist() == losses[: last + 1]
    for weights, expected in zip(network.get_weights(), seen[best], strict=True):
        assert np.array_equal(weights, expected)
    kept = {f"epoch-{epoch:03d}.keras" for epoch in (best, last)}
    assert {file.name for file in tmp_path.iterdir()} == kept | {"state.json"}


def test_patience_goes_on_over_an_interruption(tmp_path):
    seen = []
    fit(tmp_path, 2, scripted([1.0, 0.8, 0.9], seen), patience=2, data=one_batch)
    _, history = fit(tmp_path, 9, scripted([0, 0, 0, 0.95, 0.1], seen), patience=2, data=one_batch)
    assert history["epoch"].tolist() == [0, 1, 2, 3]
