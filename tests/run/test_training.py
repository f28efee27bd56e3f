"""Stages of training: what moves, what a stage depends on, cached activations, what validation says."""

from __future__ import annotations

import shutil
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers
from scipy import optimize
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from helpers import config, model, phantom, training
from helpers.config import InputError, make_settings
from tests import notebook_code
from tests.conftest import Killed, same_weights

SIZE = 32
pytestmark = pytest.mark.usefixtures("eager")


# Images: bright ones are ill


def images_network(kind: str = "plain") -> keras.Model:
    """A small flat classifier with the names of notebook 03; "residual": its last layers have two inputs."""
    keras.utils.set_random_seed(2)
    pixels = layers.Input((SIZE, SIZE, 1), name="pixels")
    x = layers.Rescaling(1 / 40, -3, name="preprocessing")(pixels)
    x = layers.Conv2D(4, 3, padding="same", name="one")(x)
    x = layers.BatchNormalization(name="one_bn")(x)
    skipped = x = layers.ReLU(name="one_relu")(x)
    x = layers.Conv2D(4, 3, padding="same", name="two")(x)
    x = layers.BatchNormalization(name="two_bn")(x)
    if kind == "residual":
        x = layers.Add(name="add")([skipped, x])
    x = layers.ReLU(name="two_relu")(x)
    return notebook_code.add_head(keras.Model(pixels, x), make_settings("smoke", {"dense_units": 8, "dropout": 0.2}))


def settings(**changed):
    small = {
        "image_size": SIZE,
        "batch_size": 8,
        "cached_views": 2,
        "head_epochs": 3,
        "fine_tuning_epochs": 2,
        "patience": 9,
    }
    rates = {"head_rate": 0.03, "fine_tuning_rate": 0.01, "unfrozen_layers": 3, "dense_units": 8}
    return make_settings("smoke", small | rates | changed)


@pytest.fixture(scope="module")
def cache() -> np.ndarray:
    rng = np.random.default_rng(0)
    level = np.where(np.arange(32) % 2, 150, 90)[:, None, None]
    return np.clip(level + rng.normal(0, 30, (32, SIZE, SIZE)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def splits() -> pd.DataFrame:
    labels = np.where(np.arange(32) % 2, "PNEUMONIA", "NORMAL")
    sides = ["train"] * 20 + ["validation"] * 8 + ["test"] * 4
    return pd.DataFrame({"path": [f"{i:02d}.png" for i in range(32)], "split": sides, "label": labels})


def augmented(cache: np.ndarray, rows: np.ndarray, view: int) -> np.ndarray:
    """The pixels of a view, as the whole network would see them."""
    change = training.draw_augmentation(settings(), len(rows), np.random.default_rng([settings().seed, 0, view]))
    return training.augment(cache[rows][..., None].astype(np.float32), change, settings()).numpy()


ROWS = {"train": np.array([4, 1, 9, 30, 7]), "validation": np.array([2, 3])}


@pytest.mark.parametrize(("kind", "unfrozen", "tensors"), [("plain", 0, 1), ("plain", 3, 1), ("residual", 2, 2)])
def test_the_tail_on_cached_activations_equals_the_whole_network(tmp_path, cache, kind, unfrozen, tensors):
    classifier = images_network(kind)
    chosen = settings(unfrozen_layers=unfrozen)
    head, fine = training.features.build(classifier, cache, ROWS, chosen, tmp_path / "kept", "key")
    assert len(head.train) == len(fine.train) == 2
    assert len(fine.validation) == tensors
    for depth, part in ((0, head), (unfrozen, fine)):
        tail = training.learning_layers(classifier, depth)
        for view in (0, 1):
            stored = training.cached_batches(part.train[view], np.arange(5), 2)
            whole = np.asarray(classifier(augmented(cache, ROWS["train"], view)))
            np.testing.assert_allclose(tail.predict(stored, verbose=0), whole, atol=1e-3)
        stored = training.cached_batches(part.validation, np.arange(2), 2)
        whole = np.asarray(classifier(cache[ROWS["validation"]][..., None].astype(np.float32)))
        np.testing.assert_allclose(tail.predict(stored, verbose=0), whole, atol=1e-3)
    assert all(array.dtype == np.float16 for array in [*fine.validation, *fine.train[0]])


def test_more_unfrozen_layers_than_there_are_leave_none_frozen():
    classifier = images_network()
    count = len(model.backbone_layers(classifier))
    for unfrozen in (count, count + 1, 3 * count):
        assert training.learning_layers(classifier, unfrozen).count_params() == classifier.count_params()


def test_the_tail_shares_its_weights_with_the_classifier():
    classifier = images_network()
    tail = training.learning_layers(classifier, 3)
    assert {x.name for x in tail.layers if x.weights} == {"two", "two_bn", "dense", "logit"}
    tail.get_layer("logit").set_weights([np.full((8, 1), 0.5, np.float32), np.full(1, 0.25, np.float32)])
    assert classifier.get_layer("logit").get_weights()[1] == 0.25


def test_cached_batches_keep_rows_and_their_targets_together():
    arrays = [np.arange(12, dtype=np.float16).reshape(6, 2), np.arange(6, dtype=np.float16)[:, None] * 10]
    targets, order = np.arange(6) * 100, np.array([5, 0, 3, 1])
    found = list(training.cached_batches(arrays, order, 3, targets))
    assert [len(answers) for _, answers in found] == [3, 1]
    one, two = (np.concatenate([inputs[i] for inputs, _ in found]) for i in (0, 1))
    assert one.dtype == np.float32
    assert np.array_equal(one, arrays[0][order])
    assert np.array_equal(two[:, 0], order * 10)
    assert np.array_equal(np.concatenate([answers for _, answers in found]), order * 100)


def test_activations_on_disk_are_used_and_only_missing_ones_made(tmp_path, cache, capsys):
    classifier, chosen = images_network(), settings()

    def build(key="key"):
        part = training.features.build(classifier, cache, ROWS, chosen, tmp_path / "kept", key)[1]
        copy = [np.array(array) for array in (part.train[0][0], part.train[1][0], part.validation[0])]
        return copy, capsys.readouterr().out.count(" images in ")

    first, made = build()
    assert made == 3  # two views and validation
    assert build()[1] == 0
    (tmp_path / "kept" / "train-1-1.npy").unlink()
    (tmp_path / "kept" / "train-1-1.part").write_bytes(b"half a file")
    again, made = build()
    assert made == 1
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    classifier.get_layer("one").set_weights([w * 2 for w in classifier.get_layer("one").get_weights()])
    assert all(np.array_equal(a, b) for a, b in zip(first, build()[0], strict=True))  # the key says what to trust
    (tmp_path / "kept" / "train-7-0.npy").touch()
    other, made = build("other key")
    assert made == 3
    assert not np.array_equal(first[0], other[0])
    assert not (tmp_path / "kept" / "train-7-0.npy").exists()


def test_activations_that_were_interrupted_are_made_again(tmp_path, cache, monkeypatch):
    classifier, chosen = images_network(), settings()
    expected = training.features.build(classifier, cache, ROWS, chosen, tmp_path / "whole", "key")[1]

    def interrupted(*arguments):
        yield from list(batches_of(*arguments))[:0]
        raise Killed

    batches_of = training.viewed_batches
    monkeypatch.setattr(training.augmentation, "viewed_batches", interrupted)
    with pytest.raises(Killed):
        training.features.build(classifier, cache, ROWS, chosen, tmp_path / "kept", "key")
    monkeypatch.undo()
    assert not list((tmp_path / "kept").glob("*.npy"))
    found = training.features.build(classifier, cache, ROWS, chosen, tmp_path / "kept", "key")[1]
    assert np.array_equal(found.train[1][0], expected.train[1][0])
    assert not list((tmp_path / "kept").glob("*.part"))


def validation_figures(classifier: keras.Model, cache: np.ndarray, splits: pd.DataFrame) -> dict[str, float]:
    """val_loss and val_auc of a whole classifier on the validation images as they are."""
    rows, *about = training.training_parts(splits)["validation"]
    return training.binary_validation(lambda: training.viewed_batches(cache, rows), *about)(classifier)


def weights_by_layer(classifier: keras.Model) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in classifier.layers if layer.weights}


@pytest.mark.parametrize("views", [0, 2])
def test_both_ways_to_train_move_what_may_move_and_learn(tmp_path, cache, splits, views):
    still = dict.fromkeys(("rotation", "zoom", "shear", "translation", "brightness", "contrast"), 0)
    classifier, chosen = images_network(), settings(cached_views=views, **still)
    for stage, moving in (("head", {"dense", "logit"}), ("fine_tuning", {"two", "dense", "logit"})):
        before = weights_by_layer(classifier)
        figures = validation_figures(classifier, cache, splits)
        trained, history = notebook_code.train_stage(classifier, stage, cache, splits, chosen, tmp_path)
        after = weights_by_layer(trained)
        same = {n for n in before if all(np.array_equal(a, b) for a, b in zip(before[n], after[n], strict=True))}
        assert set(before) - same == moving
        assert history["val_loss"].iloc[0] == pytest.approx(figures["val_loss"], abs=2e-3)
        kept = validation_figures(trained, cache, splits)
        assert kept["val_loss"] == pytest.approx(history["val_loss"].min(), abs=2e-3)
        assert kept["val_loss"] < figures["val_loss"]
        stored = tmp_path / "training" / "activations"
        assert stored.exists() == (bool(views) and stage == "head")  # dropped when nothing needs them any more


@pytest.mark.parametrize("views", [0, 2])
def test_more_epochs_go_on_with_a_finished_training(tmp_path, cache, splits, views):
    chosen = {"cached_views": views, "rate_schedule": "warm-up", "weight_average": 0.5}

    def fine_tune(run, epochs):
        return notebook_code.train_stage(
            images_network(),
            "fine_tuning",
            cache,
            splits,
            settings(**chosen, fine_tuning_epochs=epochs),
            run,
        )

    _, first = fine_tune(tmp_path / "more", 1)
    trained, history = fine_tune(tmp_path / "more", 3)
    whole, expected = fine_tune(tmp_path / "whole", 3)
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(history.head(2), first)  # seconds, too: not trained again
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), expected.drop(columns="seconds"))
    assert same_weights(trained, whole)


@pytest.mark.usefixtures("graphs")
def test_with_all_layers_unfrozen_only_batch_normalisation_stays(tmp_path, cache, splits):
    chosen = settings(cached_views=1, unfrozen_layers=-1, weight_decay=0.01, rate_schedule="cosine")
    classifier = images_network()
    head, _ = notebook_code.train_stage(classifier, "head", cache, splits, chosen, tmp_path)
    before = weights_by_layer(head)
    trained, history = notebook_code.train_stage(head, "fine_tuning", cache, splits, chosen, tmp_path)
    after = weights_by_layer(trained)
    moved = {n for n in before if not all(np.array_equal(a, b) for a, b in zip(before[n], after[n], strict=True))}
    assert moved == {n for n in before if not n.endswith("_bn")}
    assert history["epoch"].tolist() == [0, 1, 2]
    assert not (tmp_path / "training" / "activations").exists()


def test_the_cosine_schedule_rises_falls_and_is_zero_at_the_last_step():
    chosen = settings(fine_tuning_epochs=10, batch_size=8, fine_tuning_rate=0.5, rate_schedule="cosine")
    rate = training.fine_tuning_rate(chosen, 33)  # 5 steps an epoch
    course = np.array([float(rate(step)) for step in range(51)])
    assert course[0] == 0
    assert course.max() == pytest.approx(0.5)
    assert course.argmax() <= 3
    assert (np.diff(course[course.argmax() :]) < 1e-6).all()
    assert course[50] == pytest.approx(0, abs=1e-6)
    assert course[45] > 0.001
    assert training.fine_tuning_rate(settings(fine_tuning_rate=0.25), 33) == 0.25


@pytest.mark.parametrize("epochs", [1, 6])
def test_the_warm_up_schedule_rises_in_the_first_epoch_and_then_stays(epochs):
    chosen = settings(fine_tuning_epochs=epochs, batch_size=8, fine_tuning_rate=0.5, rate_schedule="warm-up")
    rate = training.fine_tuning_rate(chosen, 80)  # 10 steps an epoch
    course = [float(rate(step)) for step in range(100)]
    assert course[:3] == pytest.approx([0, 0.5 / 3, 1 / 3])
    assert course[3:] == [0.5] * 97


def test_weight_decay_reaches_the_optimizer_and_0_is_none():
    network = images_network()
    notebook_code.compile_stage(network, "fine_tuning", settings(weight_decay=0.02))
    assert network.optimizer.weight_decay == 0.02
    notebook_code.compile_stage(network, "fine_tuning", settings())
    assert not network.optimizer.weight_decay


@pytest.mark.usefixtures("graphs")
def test_a_killed_stage_goes_on_to_the_same_weights(tmp_path, cache, splits, monkeypatch):
    chosen = settings(head_epochs=2)

    def run(name: str) -> keras.Model:
        return notebook_code.train_stage(images_network(), "head", cache, splits, chosen, tmp_path / name)[0]

    expected = run("undisturbed")
    save = training.resumable._save_epoch

    def killed(network, folder, state, figures, *stepped):
        save(network, folder, state, figures, *stepped)
        if figures["epoch"] == 1:
            raise Killed

    monkeypatch.setattr(training.resumable, "_save_epoch", killed)
    with pytest.raises(Killed):
        run("killed")
    in_hand = images_network()  # a cell that was interrupted is run again, with the classifier that it left
    with pytest.raises(Killed):
        notebook_code.train_stage(in_hand, "head", cache, splits, chosen, tmp_path / "cell")
    monkeypatch.undo()
    again, _ = notebook_code.train_stage(in_hand, "head", cache, splits, chosen, tmp_path / "cell")
    assert same_weights(again, expected)
    assert same_weights(run("killed"), expected)
    shutil.rmtree(tmp_path / "killed" / "training" / "activations")  # not needed to read off a finished stage
    assert same_weights(run("killed"), expected)
    assert not (tmp_path / "killed" / "training" / "activations").exists()


def test_a_stage_wants_a_compiled_classifier_and_trains_no_earlier_layer(tmp_path, cache, splits):
    classifier, chosen = images_network(), settings(unfrozen_layers=3)
    with pytest.raises(InputError, match=r"not compiled: call classifier\.compile"):
        training.train_stage(classifier, "head", cache, splits, chosen, tmp_path)
    classifier.get_layer("one").trainable = True
    notebook_code.compile_stage(classifier, "fine_tuning", chosen)
    with pytest.raises(InputError, match="one is trainable, but this stage trains only the last 3 layers"):
        training.train_stage(classifier, "fine_tuning", cache, splits, chosen, tmp_path)


def test_another_optimizer_is_another_training_and_the_same_is_loaded(tmp_path, cache, splits):
    def losses(rate: float) -> list[float]:
        classifier = images_network()
        classifier.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
        return training.train_stage(classifier, "head", cache, splits, settings(), tmp_path)[1]["loss"].tolist()

    first = losses(0.03)
    written = (tmp_path / "training/head/state.json").stat().st_mtime_ns
    assert losses(0.03)[1:] == first[1:]
    assert (tmp_path / "training/head/state.json").stat().st_mtime_ns == written
    assert losses(0.01)[1:] != first[1:]


def test_another_backbone_computes_activations_of_its_own(tmp_path, cache, splits):
    def losses(factor: float) -> list[float]:
        classifier = images_network()
        layer = model.backbone_layers(classifier)[0]
        layer.set_weights([factor * weights for weights in layer.get_weights()])
        return notebook_code.train_stage(classifier, "head", cache, splits, settings(), tmp_path)[1]["loss"].tolist()

    assert losses(1.0)[1:] != losses(-1.0)[1:]


@pytest.mark.usefixtures("graphs")
def test_fine_tuning_begins_with_the_given_head_not_an_earlier_training_s(tmp_path, cache, splits):
    chosen = settings(fine_tuning_epochs=1, unfrozen_layers=2)

    def fine_tune(shift: float) -> pd.DataFrame:
        network = images_network()
        weights = network.get_weights()
        network.set_weights([*weights[:-2], weights[-2] + np.float32(shift), weights[-1]])
        return notebook_code.train_stage(network, "fine_tuning", cache, splits, chosen, tmp_path)[1]

    first = fine_tune(0.0)
    assert fine_tune(0.0).equals(first)  # seconds included: read off, not trained again
    assert fine_tune(0.5)["loss"][1] != first["loss"][1]


def test_a_stage_depends_on_its_settings_the_split_and_what_files_hold(splits, tmp_path):
    pixels = np.zeros((len(splits), 4, 4), np.uint8)

    def keys(images=pixels, **changed):
        stages = ("cut", "head", "fine_tuning")
        return [training.stage_key(stage, images, splits, settings(**changed)) for stage in stages]

    before = keys()
    assert len(set(before)) == 3

    def changes(**changed):
        return [a != b for a, b in zip(before, keys(**changed), strict=True)]

    assert changes(seed=9) == [True, True, True]
    assert changes(head_epochs=9) == [False, False, True]  # more epochs of the head go on; then all after it is new
    assert changes(fine_tuning_epochs=9) == [False, False, False]
    falling = keys(rate_schedule="cosine")[2]
    assert falling != keys(rate_schedule="cosine", fine_tuning_epochs=9)[2]  # its rate depends on their number
    assert changes(fine_tuning_rate=0.5) == [False, False, True]
    assert changes(unfrozen_layers=4) == [True, False, True]
    assert changes(deterministic=False) == [True, True, True]  # of the pre-training, too
    assert changes(validation_views=3) == [False, False, True]
    judged = keys(cached_views=0)[1]  # the head's epochs, too
    assert judged != keys(cached_views=0, validation_views=3)[1]
    drawn = [name for name, field in config.FIELDS.items() if field.metadata["help"].startswith("augmentation")]
    assert sorted(drawn) == sorted(config.AUGMENTATIONS)
    for name in drawn:  # frames are not for cached views
        without = keys(cached_views=0)
        assert not set(without) & set(
            keys(cached_views=0, **{name: {"mirror": True, "crop_area": 0.5}.get(name, 0.01)})
        ), name
    assert changes(weight_decay=0.1) == changes(rate_schedule="cosine") == [False, False, True]
    assert changes(weight_average=0.9) == [False, False, True]
    assert changes(resamples=99) == changes(threshold_policy="0.5") == [False, False, False]
    assert changes(data="elsewhere", phantoms=settings().phantoms) == [False, False, False]  # equal data elsewhere
    moved = splits.assign(split=splits["split"].replace("test", "train"))
    assert training.stage_key("head", pixels, moved, settings()) != before[1]
    assert changes(images=pixels + np.uint8(1)) == [True, True, True]  # other pixels under the same names
    assert changes(batch_size=3) == [True, True, True]  # of the pre-training, too
    weights = tmp_path / "x.weights.h5"
    weights.write_bytes(b"one")
    first = keys(weights=str(weights))
    weights.write_bytes(b"two")
    assert [a != b for a, b in zip(first, keys(weights=str(weights)), strict=True)] == [True, True, True]
    unseen = {"weights": "none"}
    assert keys(**unseen)[0] == keys(batch_size=3, **unseen)[0]


# Figures


def test_parts_hold_rows_labels_and_weights(splits):
    parts = training.training_parts(splits.drop(index=range(0, 20, 4)).reset_index(drop=True))
    assert list(parts) == ["train", "validation"]
    train = parts["train"]
    assert train.rows.tolist() == list(range(15))
    assert train.labels.sum() == 10  # of the healthy, every second was dropped
    assert set(np.round(train.weights, 3)) == {1.5, 0.75}
    assert parts["validation"].rows.tolist() == list(range(15, 23))
    assert parts["validation"].weights.tolist() == [1.0] * 8


def sigmoid_network() -> keras.Model:
    start = layers.Input((1,))
    return keras.Model(start, layers.Activation("sigmoid")(start))


def test_validation_loss_is_the_lowest_that_a_slope_and_an_intercept_reach():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    logits = (labels - 0.5 + rng.normal(0, 1, 60)).astype(np.float32)[:, None]
    weights = rng.uniform(0.5, 2, 60)
    data = tf.data.Dataset.from_tensor_slices(logits).batch(9)
    figures = training.binary_validation(lambda: data, labels, weights)(sigmoid_network())

    def loss(line: np.ndarray) -> float:
        p = expit(line[0] * logits[:, 0].astype(float) + line[1])
        return float(np.average(-np.log(np.where(labels == 1, p, 1 - p)), weights=weights))

    assert figures["val_loss"] == pytest.approx(optimize.minimize(loss, [1.0, 0.0]).fun, abs=1e-4)
    assert figures["val_loss"] < loss(np.array([1.0, 0.0]))
    assert figures["val_auc"] == pytest.approx(roc_auc_score(labels, logits[:, 0]))


def test_a_ranking_that_is_the_wrong_way_round_is_no_better_than_none():
    labels, weights = np.array([0, 0, 1, 1]), np.ones(4, np.float32)
    wrong = tf.data.Dataset.from_tensor_slices(np.array([[3.0], [2.0], [-2.0], [-3.0]], np.float32)).batch(4)
    figures = training.binary_validation(lambda: wrong, labels, weights)(sigmoid_network())
    assert figures == pytest.approx({"val_loss": np.log(2), "val_auc": 0.0}, abs=1e-6)


def test_a_training_that_diverged_says_what_to_do():
    data = tf.data.Dataset.from_tensor_slices(np.array([[np.nan], [1.0]], np.float32)).batch(2)
    with pytest.raises(InputError, match="lower rate"):
        training.binary_validation(lambda: data, np.array([0, 1]), np.ones(2, np.float32))(sigmoid_network())


def test_a_shift_of_all_probabilities_does_not_change_the_validation_loss():
    labels, weights = np.array([0, 1, 0, 1, 1]), np.ones(5)
    logits = np.array([[-1.0], [2.0], [0.5], [1.0], [0.2]], np.float32)
    found = [
        training.binary_validation(
            lambda shift=shift: tf.data.Dataset.from_tensor_slices(logits + shift).batch(3), labels, weights
        )(sigmoid_network())["val_loss"]
        for shift in (0.0, 3.0)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_linear_probe_tells_good_features_from_useless_ones(cache, splits):
    pixels = layers.Input((SIZE, SIZE, 1))
    brightness = keras.Model(pixels, layers.Rescaling(1 / 255)(pixels))
    assert training.linear_probe(brightness, cache, splits) == 1.0
    nothing = keras.Model(pixels, layers.Rescaling(0.0)(pixels))
    assert training.linear_probe(nothing, cache, splits) == 0.5


def test_augmented_validation_logits_are_the_plain_ones_then_each_view_s(cache):
    classifier, chosen = images_network(), settings(validation_views=2, noise=0.1, mirror=True)
    rows = np.array([7, 2, 30])
    found = training.augmented_validation_logits(classifier, cache, rows, chosen)
    assert found.shape == (9,)
    assert np.array_equal(found[:3], training.predict_logits(classifier, cache, rows))
    change = training.draw_augmentation(chosen, 3, np.random.default_rng([chosen.seed, 1, 1]))
    films = training.augment(cache[rows][..., None].astype(np.float32), change, chosen)
    np.testing.assert_allclose(found[6:], model.logit_model(classifier)(films)[:, 0], atol=1e-4)
    plain = training.augmented_validation_logits(classifier, cache, rows, settings(validation_views=0))
    assert np.array_equal(plain, found[:3])


def test_the_check_sees_features_where_there_are_augmented_views(cache):
    classifier, train, held_out = images_network(), np.arange(20), np.arange(20, 32)
    plain, viewed = (
        training.fit_ood_check(classifier, cache, train, held_out, settings(validation_views=views, noise=0.1))
        for views in (0, 2)
    )
    assert plain.features is None
    assert np.array_equal(plain.thumbnails.mean, viewed.thumbnails.mean)  # thumbnails are of plain images alone
    features = training.predict_rows(model.ood.feature_model(classifier), cache, held_out)
    assert not viewed.features.outside(viewed.features.distances(features)).any()  # the limit was set on these, too
    assert viewed.judge(cache[held_out], features + 1e3)[0].all()


def test_augmented_validation_has_no_crop_that_could_miss_an_opacity(cache):
    classifier, rows = images_network(), np.arange(20)
    narrow, wide = (
        training.augmented_validation_logits(classifier, cache, rows, settings(validation_views=1, crop_area=area))
        for area in (0.1, 0.5)
    )
    assert np.array_equal(narrow, wide)
    assert not np.array_equal(narrow[20:], narrow[:20])


@pytest.mark.usefixtures("graphs")
def test_epochs_are_judged_on_the_views_too(tmp_path, cache, splits):
    chosen = settings(validation_views=2, noise=0.5, cached_views=0, unfrozen_layers=-1, fine_tuning_epochs=1)
    classifier = images_network()
    rows = training.training_parts(splits)["validation"].rows
    logits = training.augmented_validation_logits(classifier, cache, rows, chosen)
    labels = np.tile(splits["label"].to_numpy()[rows] == "PNEUMONIA", 3)
    _, history = notebook_code.train_stage(classifier, "fine_tuning", cache, splits, chosen, tmp_path)
    assert history["val_auc"].iloc[0] == pytest.approx(roc_auc_score(labels, logits), abs=1e-6)


def test_logits_and_rows_come_in_order(cache):
    classifier = images_network()
    rows = np.array([5, 1, 30])
    logits = training.predict_logits(classifier, cache, rows)
    probabilities = np.asarray(classifier(cache[rows][..., None].astype(np.float32)))[:, 0]
    assert logits.dtype == np.float64
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probabilities, atol=1e-6)


def test_pretraining_changes_the_backbone_once(tmp_path, cache, monkeypatch):
    asked = []

    def pretraining_set(count, size, seed):
        asked.append((count, size, seed))
        return cache[:count], np.stack([cache[:count] > 120, cache[:count] > 240], axis=-1)

    monkeypatch.setattr(phantom, "pretraining_set", pretraining_set)
    chosen = settings(pretraining_phantoms=20, pretraining_epochs=1)

    def backbone():
        classifier = images_network()
        network = keras.Model(classifier.inputs[0], classifier.get_layer("two_relu").output)
        for layer in network.layers:
            layer.trainable = True  # as before notebook 03 puts a head on it
        return network

    monkeypatch.setattr(model, "build_backbone", lambda _: backbone())  # which pre-training starts from
    one, other = backbone(), backbone()
    history = training.pretrain(one, chosen, tmp_path)
    assert asked == [(20, chosen.image_size, chosen.seed)]
    assert history["epoch"].tolist() == [0, 1]
    assert history["val_loss"].min() == history["val_loss"].iloc[1]
    assert not same_weights(one, other)
    training.pretrain(other, chosen, tmp_path)  # done before: read off
    assert same_weights(one, other)
    another = make_settings(base=chosen, overrides={"seed": chosen.seed + 1})
    training.pretrain(other, another, tmp_path / "another seed")
    assert same_weights(one, other), "the seed of a run changes its backbone"
    for changed in ({"batch_size": 3}, {"brightness": 0.5}):  # other steps, other images
        before = backbone()
        before.set_weights(other.get_weights())
        training.pretrain(other, make_settings(base=chosen, overrides=changed), tmp_path)
        assert not same_weights(before, other)


def test_the_seed_fixes_what_comes_next():
    drawn = []
    for seed in (4, 4, 5):
        training.set_up(make_settings("smoke", {"seed": seed, "deterministic": False}))
        drawn.append((np.random.rand(), float(keras.random.uniform(())), float(tf.random.uniform(()))))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))


# Several devices


TWO_DEVICES = """
import sys
import numpy as np
import pandas as pd
import tensorflow as tf
count, folder = int(sys.argv[1]), sys.argv[2]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from pathlib import Path
from helpers import config, model, training
from tests import notebook_code
cpus = tf.config.list_logical_devices("CPU")[:count]
tf.config.list_logical_devices = lambda kind=None: cpus if kind == "GPU" and count > 1 else []
still = dict.fromkeys("rotation zoom shear translation brightness contrast dropout".split(), 0)
small = {"image_size": 32, "batch_size": 8, "weights": "none", "dense_units": 4, "resamples": 20, "patience": 9}
epochs = {"head_epochs": 2, "fine_tuning_epochs": 2, "fine_tuning_rate": 0.001}
rng = np.random.default_rng(0)
pixels = np.clip(np.where(np.arange(32) % 2, 150, 90)[:, None, None] + rng.normal(0, 30, (32, 32, 32)), 0, 255)
labels = np.where(np.arange(32) % 2, "PNEUMONIA", "NORMAL")
sides = ["train"] * 24 + ["validation"] * 8
splits = pd.DataFrame({"path": [f"{i:02d}" for i in range(32)], "split": sides, "label": labels})
for views in (0, 1):
    settings = config.make_settings("smoke", small | still | epochs | {"cached_views": views})
    training.set_up(settings)
    classifier = notebook_code.add_head(model.build_backbone(settings), settings)
    for stage in ("head", "fine_tuning"):
        classifier, history = notebook_code.train_stage(
            classifier, stage, pixels.astype(np.uint8), splits, settings, Path(folder) / str(views)
        )
        model.save(classifier, Path(folder) / str(views) / stage, {})
    print("replicas", tf.distribute.get_strategy().num_replicas_in_sync)
    print("losses", *history["val_loss"])
"""


def test_two_devices_share_the_batches_and_learn_the_same(tmp_path):
    """With and without cached views, one after the other in each process."""
    running = {}
    for count in (1, 2):
        command = [sys.executable, "-c", TWO_DEVICES, str(count), str(tmp_path / str(count))]
        running[count] = subprocess.Popen(
            command, cwd=config.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    found = {}
    for count, process in running.items():
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        said = [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith(("replicas ", "losses "))]
        assert said[::2] == [str(count)] * 2
        found[count] = np.array([losses.split() for losses in said[1::2]], float)
    np.testing.assert_allclose(found[2], found[1], atol=2e-3)
    assert (found[1][:, -1] != found[1][:, 0]).all()


# 16 bits


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("views", [0, 1])
def test_training_in_16_bits_learns_and_its_model_computes_in_float32(
    tmp_path, monkeypatch, cache, splits, policy, views
):
    monkeypatch.setattr(training.stages, "precision", lambda chosen: policy)
    classifier, chosen, seen = images_network(), settings(cached_views=views), []
    figures = validation_figures(classifier, cache, splits)
    fit = training.stages.fit

    def watched(network, *rest):
        kinds = {layer.name: layer.compute_dtype for layer in network.layers}
        seen.append((kinds.get("two"), kinds["dense"], kinds["logit"], type(network.optimizer).__name__))
        return fit(network, *rest)

    monkeypatch.setattr(training.stages, "fit", watched)
    for stage in ("head", "fine_tuning"):
        classifier, _ = notebook_code.train_stage(classifier, stage, cache, splits, chosen, tmp_path)
    scaled = "LossScaleOptimizer" if policy == "mixed_float16" else "Adam"
    assert seen[-1] == (policy.removeprefix("mixed_"), "float32", "float32", scaled)
    assert validation_figures(classifier, cache, splits)["val_loss"] < figures["val_loss"]
    model.save(classifier, tmp_path, {})
    loaded, _ = model.load(tmp_path)
    assert {layer.compute_dtype for layer in (*classifier.layers, *loaded.layers)} == {"float32"}


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("flags : avx avx512_bf16", "mixed_bfloat16"),
        ("flags : amx_bf16", "mixed_bfloat16"),
        ("flags : avx2", "float32"),
    ],
)
def test_16_bits_are_for_hardware_made_for_it(monkeypatch, flags, wanted):
    monkeypatch.setattr(training.stages.Path, "exists", lambda path: True)
    monkeypatch.setattr(training.stages.Path, "read_text", lambda path, encoding: flags)
    assert training.precision(settings(mixed_precision=True)) == wanted
    assert training.precision(settings(mixed_precision=False)) == "float32"
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["gpu"])
    assert training.precision(settings(mixed_precision=True)) == "mixed_float16"
    assert training.precision(settings(mixed_precision=False)) == "float32"
