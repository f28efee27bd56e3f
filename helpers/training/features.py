"""Frozen work done once: what the frozen layers make of every image, for a few augmented views, kept on disk.

While layers are frozen, their output for an image never changes. So each training image goes through them once per
view (a fixed augmentation), each validation image once, and an epoch then trains only the layers that learn, on one
view after the other. Stored as float16, which rounds by less than a part in a thousand.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from helpers import model, storage
from helpers.config import Settings
from helpers.images import new_array
from helpers.training import augmentation


class Activations(NamedTuple):
    """Cached inputs of the layers that learn; an array (n, ...) per tensor, rows as asked for."""

    train: list[list[np.ndarray]]  # one list per view
    validation: list[np.ndarray]


def handover_tensors(classifier: keras.Model, unfrozen: int) -> list[keras.KerasTensor]:
    """The tensors at which frozen layers hand over to the last `unfrozen` backbone layers and the head.

    With `unfrozen` 0 that is the pooled feature vector, since pooling has nothing to learn.
    """
    inside = model.backbone_layers(classifier)
    head = classifier.layers[classifier.layers.index(classifier.get_layer("pooling")) :]
    learning = [*inside[max(0, len(inside) - unfrozen) :], *head] if unfrozen else head[1:]
    made = {id(layer.output) for layer in learning}
    tensors = {}
    for layer in learning:
        for tensor in layer.input if isinstance(layer.input, list) else [layer.input]:
            if id(tensor) not in made:
                tensors[id(tensor)] = tensor
    return list(tensors.values())


def learning_layers(classifier: keras.Model, unfrozen: int) -> keras.Model:
    """The layers that learn, as a model from the `handover_tensors` to the probability; it shares the weights."""
    return keras.Model(handover_tensors(classifier, unfrozen), classifier.output)


def build(
    classifier: keras.Model, images: np.ndarray, rows: dict[str, np.ndarray], settings: Settings, folder: Path, key: str
) -> tuple[Activations, Activations]:
    """Activations for training the head and for fine-tuning, of `rows["train"]` and `rows["validation"]`.

    Both come from one pass per view of the network. Kept in `folder`, one file per view and tensor, each written aside
    and renamed: files that are there are used, files of another `key` (a fingerprint of all they depend on) removed.
    """
    stamp = folder / "key.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
        storage.write_text(stamp, key)
    pooled = handover_tensors(classifier, 0)
    both = pooled + (handover_tensors(classifier, settings.unfrozen_layers) if settings.unfrozen_layers > 0 else [])
    network, views = keras.Model(classifier.inputs[0], both), []
    frozen = tf.function(lambda pixels: keras.tree.flatten(network(pixels, training=False)))  # one graph for all views

    def view(name: str, chosen: np.ndarray, *changed) -> list[np.ndarray]:
        files, count = [folder / f"{name}-{i}.npy" for i in range(len(both))], len(chosen)
        if not all(file.exists() for file in files):
            asides = [file.with_suffix(".part") for file in files]
            stores = [
                new_array(aside, np.float16, (count, *output.shape[1:]))
                for aside, output in zip(asides, both, strict=True)
            ]
            start, done, told = time.perf_counter(), 0, 60
            for pixels in augmentation.viewed_batches(images, chosen, *changed):
                for store, output in zip(stores, frozen(pixels), strict=True):
                    store[done : done + len(pixels)] = output.numpy()
                done += len(pixels)
                if time.perf_counter() - start > told:
                    print(f"activations {name}: {done} of {count}", flush=True)
                    told += 60
            for store in stores:
                store.flush()
            del store, stores  # Windows renames no file that is mapped
            for aside, file in zip(asides, files, strict=True):
                storage.replace_file(aside, file)
            seconds = time.perf_counter() - start
            print(f"activations {name}: {count} images in {seconds:.0f} s ({count / seconds:.0f} images/s)", flush=True)
        return [np.load(file, mmap_mode="r") for file in files]

    for number in range(settings.cached_views):
        rng = np.random.default_rng([settings.seed, 0, number])
        change = augmentation.draw_augmentation(settings, len(rows["train"]), rng)
        views.append(view(f"train-{number}", rows["train"], change, settings))
    validation = view("validation", rows["validation"])
    head = Activations([tensors[:1] for tensors in views], validation[:1])
    return head, Activations(
        [tensors[1:] for tensors in views], validation[1:]
    ) if settings.unfrozen_layers > 0 else head


def cached_batches(arrays: list[np.ndarray], order: np.ndarray, batch_size: int, *rest: np.ndarray) -> tf.data.Dataset:
    """Batches of the cached tensors in `order`, float32, each with its rows of `rest` (targets, weights)."""

    def take(index: np.ndarray) -> list[np.ndarray]:
        return [array[index].astype(np.float32) for array in arrays]

    def read(index: tf.Tensor, *others: tf.Tensor):
        tensors = tf.numpy_function(take, [index], [tf.float32] * len(arrays), stateful=False)
        shaped = [tf.ensure_shape(t, (None, *a.shape[1:])) for t, a in zip(tensors, arrays, strict=True)]
        inputs = tuple(shaped) if len(shaped) > 1 else shaped[0]
        return (inputs, *others)

    return (
        tf.data.Dataset.from_tensor_slices((order, *(part[order] for part in rest)))
        .batch(batch_size)
        .map(read)  # one at a time: more would wait for Python's lock, and hold more in memory
        .prefetch(2)
    )
