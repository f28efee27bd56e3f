"""What is trained, on what and how: pre-training, the head, fine-tuning; and what validation says of it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import config, model, phantom, storage
from helpers.config import InputError, Settings
from helpers.training import augmentation, features
from helpers.training.resumable import fit
from helpers.training.validation import augmented_validation_batches, binary_validation, predict_rows

WARM_UP = 0.3  # share of an epoch in which the schedule of that name rises


def set_up(settings: Settings) -> None:
    """Seed Python, NumPy and TensorFlow; several GPUs share every batch.

    Parameters
    ----------
    settings : Settings
        `seed`; and `deterministic`: operations repeat to the last bit, until the process ends.
    """
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if len(gpus) > 1:
        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(gpus))


def precision(settings: Settings) -> str:
    """Keras' name of what training computes in, by the setting `mixed_precision` and the hardware; weights are float32.

    "mixed_float16" on GPUs, "mixed_bfloat16" on processors with instructions for it (elsewhere slower), else "float32".
    """
    if not settings.mixed_precision:
        return "float32"
    if tf.config.list_logical_devices("GPU"):
        return "mixed_float16"
    listed = Path("/proc/cpuinfo")  # Linux; there is no such list elsewhere
    flags = listed.read_text(encoding="utf-8").split() if listed.exists() else []
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


def fine_tuning_rate(settings: Settings, images: int) -> float | LearningRateSchedule:
    """The learning rate of fine-tuning, constant or as a schedule over its steps.

    Parameters
    ----------
    settings : Settings
        `fine_tuning_rate` is the highest rate, `rate_schedule` its course. "constant": none. "warm-up" rises from 0
        over WARM_UP of the first epoch and stays, however many follow. "cosine" rises from 0 in the first twentieth of
        all steps (`fine_tuning_epochs` epochs) and then falls to 0.
    images : int
        Training images in an epoch; with `batch_size` they give its steps.

    Returns
    -------
    float or LearningRateSchedule
        What an optimizer takes as its learning rate; a float where it is constant.

    References
    ----------
    Loshchilov and Hutter (2017), SGDR: stochastic gradient descent with warm restarts, ICLR.
    """
    rate, epoch_steps = settings.fine_tuning_rate, -(-images // settings.batch_size)
    if settings.rate_schedule == "constant":
        return rate
    if settings.rate_schedule == "warm-up":
        steps, warm_up, lowest = epoch_steps, max(1, int(WARM_UP * epoch_steps)), 1.0  # of the highest: it never falls
    else:
        steps, lowest = settings.fine_tuning_epochs * epoch_steps, 0.0
        warm_up = max(1, steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), lowest, warmup_target=rate, warmup_steps=warm_up
    )


class Part(NamedTuple):
    """Train or validation: rows of the image cache, labels (0, 1) and weights of the loss."""

    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


def training_parts(splits: pd.DataFrame) -> dict[str, Part]:
    """ "train" and "validation" of a run's splits."""
    parts = {}
    for name in ("train", "validation"):
        rows = np.flatnonzero(splits["split"] == name)
        labels = (splits["label"].to_numpy()[rows] == "PNEUMONIA").astype(np.int64)
        parts[name] = Part(rows, labels, augmentation.sample_weights(labels))
    return parts


def train_stage(
    classifier: keras.Model, stage: str, images: np.ndarray, splits: pd.DataFrame, settings: Settings, run: Path
) -> tuple[keras.Model, pd.DataFrame]:
    """
    Train a compiled classifier: what `Model.fit` does with early stopping, checkpoints and the best weights restored.

    A training that was interrupted goes on from its last epoch, to the same weights.

    Parameters
    ----------
    classifier : keras.Model
        Compiled; the layers that are trainable learn, in place. Their optimizer starts afresh.
    stage : str
        "head" (at most `head_epochs`) or "fine_tuning" (at most `fine_tuning_epochs`, and none but the head and the
        last `unfrozen_layers` of the backbone).
    images : ndarray of uint8, (n, size, size)
        Grey pixels, 0-255.
    splits : DataFrame
        splits.csv: a row for each image.
    settings : Settings
        With `cached_views`, the frozen layers run once per view and the rest is trained on their activations. Else,
        and where no layer is frozen, every epoch goes through the whole network with new augmentation, and is judged on
        `augmented_validation_batches`.
    run : Path
        The run folder; checkpoints go to training/<stage> in it.

    Returns
    -------
    tuple of keras.Model and DataFrame
        The classifier with the weights of its best epoch, and the history, as from `fit`.

    Raises
    ------
    InputError
        Where the classifier is not compiled, a layer is trainable that this stage does not train, or training diverges.
    """
    head = stage == "head"
    epochs = settings.head_epochs if head else settings.fine_tuning_epochs
    unfrozen = 0 if head else settings.unfrozen_layers
    first = 0 if head else settings.head_epochs  # each stage has its own epoch numbers: no order is drawn twice
    folder = run / "training" / stage
    key = storage.fingerprint([stage_key(stage, images, splits, settings), _beginning(classifier, unfrozen)])
    train, validation = training_parts(splits).values()
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(classifier.optimizer))
    policy = precision(settings)
    model.set_precision(classifier, policy)
    if settings.cached_views and unfrozen >= 0:
        network, kept = features.learning_layers(classifier, unfrozen), run / "training" / "activations"
        backbone = keras.Model(classifier.inputs, model.backbone_layers(classifier)[-1].output)
        cut_key = storage.fingerprint([stage_key("cut", images, splits, settings), model.weights_sha256(backbone)])

        @functools.cache
        def cached() -> features.Activations:
            rows = {"train": train.rows, "validation": validation.rows}
            return features.build(classifier, images, rows, settings, kept, cut_key)[not head]

        def epoch_batches(epoch: int) -> tf.data.Dataset:
            order = np.random.default_rng([settings.seed, first + epoch]).permutation(len(train.rows))
            view = cached().train[(first + epoch) % settings.cached_views]
            targets = train.labels.astype(np.float32)[:, None]
            return features.cached_batches(view, order, settings.batch_size, targets, train.weights)

        def held_out() -> tf.data.Dataset:
            return features.cached_batches(cached().validation, np.arange(len(validation.rows)), 64)
    else:
        network = classifier
        held_rows, views = validation.rows, 1 + settings.validation_views
        validation = Part(*(np.tile(part, views) for part in validation))

        def epoch_batches(epoch: int) -> tf.data.Dataset:
            return augmentation.training_batches(images, *train, settings, first + epoch)

        def held_out() -> tf.data.Dataset:
            return augmented_validation_batches(images, held_rows, settings)

    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)  # small gradients would vanish in float16
    network.compile(optimizer, classifier.loss, jit_compile=False)
    validate = binary_validation(held_out, validation.labels, validation.weights)
    before = classifier.get_weights()
    try:
        best, history = fit(
            network, epoch_batches, validate, epochs, settings.patience, folder, key, [settings.seed, 2, first]
        )
    except BaseException:  # interrupted: the cell that is run again begins with the same weights, and goes on
        model.set_precision(classifier, "float32")
        classifier.set_weights(before)
        raise
    for layer in best.layers:
        if layer.weights:
            classifier.get_layer(layer.name).set_weights(layer.get_weights())
    model.set_precision(classifier, "float32")
    if not head:
        shutil.rmtree(run / "training" / "activations", ignore_errors=True)  # gigabytes that nothing needs any more
    return classifier, history


def _beginning(classifier: keras.Model, unfrozen: int) -> list:
    """What a training depends on beside settings and images: weights, head, trainable layers, optimizer and loss."""
    if not classifier.compiled:
        raise InputError("the classifier is not compiled: call classifier.compile(optimizer, loss) before training it.")
    inside, start = model.backbone_layers(classifier), classifier.layers.index(classifier.get_layer("pooling"))
    trainable = [i for i, layer in enumerate(inside) if layer.trainable and layer.weights]
    if unfrozen >= 0 and trainable and trainable[0] < len(inside) - unfrozen:
        raise InputError(
            f"{inside[trainable[0]].name} is trainable, but this stage trains only the last {unfrozen} layers of the "
            "backbone: freeze it, or set unfrozen_layers."
        )
    head = [[type(layer).__name__, layer.get_config()] for layer in classifier.layers[start:]]
    optimizer = classifier.optimizer.get_config() | {"name": type(classifier.optimizer).__name__}  # not adam_1, adam_2
    return [model.weights_sha256(classifier), head, trainable, optimizer, keras.losses.serialize(classifier.loss)]


# what pre-training depends on, and what the activations of frozen layers do
_BOTH = ["seed", "image_size", "backbone", "deterministic", "mixed_precision", *config.AUGMENTATIONS]
_PRETRAINING = [*_BOTH, "pretraining_phantoms", "pretraining_epochs", "batch_size", "label_smoothing"]
_PRETRAINING_SEED = 1  # of the weights that the backbone of any run of phantoms starts from
_CUT = [*_BOTH, "validation_fraction", "weights", "cached_views", "unfrozen_layers"]


def _pretraining_key(settings: Settings) -> str:
    return storage.fingerprint([phantom.VERSION, *(getattr(settings, name) for name in _PRETRAINING)])


def stage_key(stage: str, images: np.ndarray, splits: pd.DataFrame, settings: Settings) -> str:
    """Fingerprint of what "cut", "head" or "fine_tuning" depends on.

    Settings, the pixels, which image is in which split, and a file of weights, by content. How
    many epochs a stage itself may take is none of it, unless its rate depends on that: `fit` goes on for more. The
    weights that fine-tuning begins with are added by `train_stage`.
    """
    last = "03" if stage == "head" else "04"
    names = [name for name, field in config.FIELDS.items() if field.metadata["notebook"] <= last]
    if stage == "cut":
        names = _CUT
    elif stage == "head":
        names.remove("head_epochs")
        if settings.cached_views:  # then its epochs are judged on the images as they are
            names.remove("validation_views")
    elif settings.rate_schedule != "cosine":
        names.remove("fine_tuning_epochs")
    by_content = {"data"} | ({"weights"} if settings.weights not in config.WEIGHTS else set())
    chosen = config.non_default(settings, [name for name in names if name not in by_content])
    if stage == "fine_tuning" and settings.rate_schedule == "warm-up":
        chosen["warm-up"] = WARM_UP
    contents = [hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()]
    if settings.weights == "phantoms":
        contents.append(_pretraining_key(settings))
    elif Path(settings.weights).is_file():
        contents.append(storage.sha256(Path(settings.weights)))
    return storage.fingerprint([stage, chosen, contents, splits[["path", "split", "label"]].to_csv(index=False)])


def pretrain(backbone: keras.Model, settings: Settings, run: Path) -> pd.DataFrame:
    """Train `backbone` in place on separate phantoms: where is there an opacity, and where a letter?

    The targets say it for each position of the feature maps: whether an opacity covers over a quarter of it, and a
    letter over a tenth. They stay where they are when the augmentation moves a film, by about a position, so the answer
    is a rough one.

    Stands in for ImageNet where nothing can be downloaded. As with ImageNet, the weights are the same for every seed of
    a run. The last tenth of the phantoms validates. A training that was interrupted goes on from its last epoch.

    Parameters
    ----------
    backbone : keras.Model
        From `build_backbone` with the same settings. Its weights are first drawn anew, by a seed of their own.
    settings : Settings
        `weights` is "phantoms"; `pretraining_phantoms` (at least 2), `pretraining_epochs`, `batch_size`,
        `label_smoothing`, and the augmentation. Afterwards `seed` seeds all generators again.
    run : Path
        The run folder; checkpoints go to training/pretraining in it.

    Returns
    -------
    DataFrame
        The history, a row an epoch: epoch (0: before training), loss, val_loss (binary cross-entropy), seconds. The
        backbone gets the weights of the epoch with the lowest val_loss.

    Raises
    ------
    InputError
        Where training diverges.

    References
    ----------
    Lin et al. (2017), Focal loss for dense object detection, ICCV (the initial bias, since few positions are covered).
    """
    run_seed, settings = settings.seed, dataclasses.replace(settings, seed=_PRETRAINING_SEED)
    keras.utils.set_random_seed(settings.seed)
    backbone.set_weights(model.build_backbone(settings).get_weights())  # not those drawn by the seed of the run
    images, masks = phantom.pretraining_set(settings.pretraining_phantoms, settings.image_size, settings.seed)
    covered = tf.image.resize(masks.astype(np.float32), backbone.output_shape[1:3], "area").numpy()
    targets = (covered > (0.25, 0.1)).astype(np.float32).reshape(len(images), -1)  # a letter is thin
    kept = max(1, len(images) // 10)
    train, held_out = np.arange(len(images) - kept), np.arange(len(images) - kept, len(images))
    rare = keras.initializers.Constant(-3.0)  # few positions are covered (Lin et al. 2017, Focal loss)
    x = keras.layers.Conv2D(masks.shape[-1], 1, activation="sigmoid", bias_initializer=rare)(backbone.output)
    network = keras.Model(backbone.input, keras.layers.Flatten()(x))
    loss = keras.losses.BinaryCrossentropy(label_smoothing=settings.label_smoothing)
    network.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)

    def validate(network: keras.Model) -> dict[str, float]:
        probability = np.clip(predict_rows(network, images, held_out).astype(np.float64), 1e-7, 1 - 1e-7)
        if not np.isfinite(probability).all():
            raise InputError(
                "pre-training diverged: the network answers NaN; set weights=none, or weaken the augmentation."
            )
        truth = targets[held_out]
        return {"val_loss": float(-np.mean(truth * np.log(probability) + (1 - truth) * np.log1p(-probability)))}

    def epoch_batches(epoch: int) -> tf.data.Dataset:
        return augmentation.training_batches(
            images, train, targets[train], np.ones(len(train), np.float32), settings, epoch
        )

    key, epochs = _pretraining_key(settings), settings.pretraining_epochs
    folder = run / "training" / "pretraining"
    best, history = fit(network, epoch_batches, validate, epochs, epochs, folder, key, [settings.seed])
    backbone.set_weights(best.get_weights()[: len(backbone.get_weights())])
    keras.utils.set_random_seed(run_seed)
    return history


def linear_probe(backbone: keras.Model, images: np.ndarray, splits: pd.DataFrame) -> float:
    """Validation AUC of a logistic regression on the backbone's pooled features: what its weights are worth as such.

    Features are averaged over all positions of the feature maps, then standardised. Both classes weigh the same.

    Parameters
    ----------
    backbone : keras.Model
        From pixels (n, size, size, 1), 0-255, to feature maps (n, height, width, channels); it stays as it is.
    images : array of uint8, shape (n, size, size)
        The image cache: grey pixels, 0-255.
    splits : DataFrame
        splits.csv, a row for each image: columns split and label. Fitted to train, measured on validation.

    Returns
    -------
    float in [0, 1]
        AUC on the validation images; NaN where these have one class only.

    Raises
    ------
    ValueError
        Where train has one class only, or a feature is NaN or infinite.

    References
    ----------
    Alain and Bengio (2016), Understanding intermediate layers using linear classifier probes, arXiv 1610.01644.
    """
    pooled = keras.Model(backbone.input, keras.layers.GlobalAveragePooling2D()(backbone.output))
    (rows, labels, _), (held_out, truth, _) = training_parts(splits).values()
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    probe.fit(predict_rows(pooled, images, rows), labels)
    return float(roc_auc_score(truth, probe.decision_function(predict_rows(pooled, images, held_out))))
