"""The backbone of the classifier, as one flat graph with the head that notebook 03 puts on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
from keras import layers

from helpers import config
from helpers.config import WEIGHTS, InputError, Settings
from helpers.model.efficientnet_lite import efficientnet_lite0

_IMAGENET_MEAN, _IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def small_cnn(include_top: bool, weights: str | None, input_tensor: keras.KerasTensor) -> keras.Model:
    """A small convolutional network for the phantoms, called like those of keras.applications (0.2 M weights)."""
    x = input_tensor
    for block, (filters, stride) in enumerate(((16, 2), (32, 2), (64, 2), (96, 1)), start=1):
        for part, step in (("a", stride), ("b", 1)):
            x = layers.Conv2D(filters, 3, step, "same", use_bias=False, name=f"block{block}{part}")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"block{block}{part}_bn")(x)
            x = layers.ReLU(name=f"block{block}{part}_relu")(x)
    network = keras.Model(keras.utils.get_source_inputs(input_tensor), x, name="small_cnn")
    if weights:
        network.load_weights(weights)
    return network


# name -> (constructor, what its preprocess_input does: pixel * scale + offset, channels red, green, blue)
_BACKBONES: dict[str, tuple[Callable, object, object]] = {
    # ResNet50 wants blue, green, red with ImageNet's mean taken off; the three channels of a radiograph are equal
    "ResNet50": (keras.applications.ResNet50, 1.0, [-103.939, -116.779, -123.68]),
    "DenseNet121": (
        keras.applications.DenseNet121,
        list(1 / (255 * _IMAGENET_STD)),
        list(-_IMAGENET_MEAN / _IMAGENET_STD),
    ),
    "EfficientNetV2B0": (keras.applications.EfficientNetV2B0, 1.0, 0.0),  # scales inside
    "MobileNetV3Large": (keras.applications.MobileNetV3Large, 1.0, 0.0),  # scales inside
    "EfficientNetLite0": (efficientnet_lite0, 1 / 128, -127 / 128),
    "Xception": (keras.applications.Xception, 1 / 127.5, -1.0),
    "SmallCNN": (small_cnn, 1 / 127.5, -1.0),
}


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def build_backbone(settings: Settings) -> keras.Model:
    """Build the backbone with its preprocessing inside: from raw grey pixels to feature maps.

    One flat graph, so that Grad-CAM can reach every layer.

    Parameters
    ----------
    settings : Settings
        `backbone` (its name), `image_size` (pixels), and `weights`: "imagenet", a file of weights, or "none" and
        "phantoms", which both start from random weights.

    Returns
    -------
    keras.Model
        From pixels (n, size, size, 1), 0-255, to the last feature maps (n, height, width, channels), without a head.

    Raises
    ------
    InputError
        Where the file is missing or holds other weights, or those of ImageNet cannot be downloaded.
    """
    size, weights = settings.image_size, settings.weights
    constructor, scale, offset = _BACKBONES[settings.backbone]
    file = config.expanded(weights)
    if weights not in WEIGHTS and not file.is_file():
        raise InputError(f"setting weights={weights} is neither imagenet, none, phantoms nor a file that exists.")
    start = None if weights in ("none", "phantoms") else weights if weights == "imagenet" else str(file)
    pixels = layers.Input((size, size, 1), name="pixels")
    x = layers.Concatenate(name="grey_to_three")([pixels] * 3)
    x = layers.Rescaling(scale, offset, name="preprocessing")(x)
    try:
        return constructor(include_top=False, weights=start, input_tensor=x)
    except Exception as error:  # keras' downloader and h5py raise several kinds
        if start is None:
            raise
        if weights != "imagenet":
            raise InputError(f"{file} does not hold weights of {settings.backbone}: {first_line(error)}") from error
        raise InputError(
            f"the ImageNet weights of {settings.backbone} are not on this machine and could not be downloaded "
            f"({first_line(error)}): go online once, or give a file with weights=PATH.weights.h5, or "
            "start from nothing with weights=none."
        ) from error


def logit_model(classifier: keras.Model) -> keras.Model:
    """`classifier` without its last sigmoid: pixels to logits (n, 1), which do not saturate."""
    return keras.Model(classifier.inputs[0], classifier.get_layer("logit").output)


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers between the preprocessing and the head.

    Parameters
    ----------
    model : keras.Model
        A classifier, with the layers "preprocessing" and "pooling".

    Returns
    -------
    list of keras.layers.Layer
        From the first after "preprocessing" to the last before "pooling", in order, with or without weights.

    Raises
    ------
    ValueError
        Where one of these two layers is missing, as it is in a backbone without a head.
    """
    start, end = (model.layers.index(model.get_layer(name)) for name in ("preprocessing", "pooling"))
    return model.layers[start + 1 : end]


def set_precision(classifier: keras.Model, policy: str) -> None:
    """Let the backbone compute as `policy` says: "float32", "mixed_float16" or "mixed_bfloat16". Compile afterwards.

    Weights stay float32, and so does what the preprocessing and the head compute.
    """
    for layer in backbone_layers(classifier):
        layer.dtype_policy = policy


def weights_sha256(model: keras.Model) -> str:
    """Fingerprint of a model's weights as they are, whatever file they came from."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def weight_change(before: keras.Model, after: keras.Model) -> pd.DataFrame:
    """How far each layer moved between two models of one architecture: |after - before| / |before|.

    Parameters
    ----------
    before, after : keras.Model
        With the same layers in the same order.

    Returns
    -------
    DataFrame, one row for each layer that has weights
        Index layer (names in `before`), column "relative change", 0 and up: Euclidean norms over all weights of the
        layer, moving averages of batch normalisation among them. |before| counts as at least 1e-12.

    Raises
    ------
    ValueError
        Where the models have different numbers of layers, or of weights in a layer.
    """
    rows = []
    for old, new in zip(before.layers, after.layers, strict=True):
        if old.weights:
            a, b = (np.concatenate([np.ravel(w) for w in layer.get_weights()]) for layer in (old, new))
            rows.append((old.name, float(np.linalg.norm(b - a) / max(float(np.linalg.norm(a)), 1e-12))))
    return pd.DataFrame(rows, columns=["layer", "relative change"]).set_index("layer")
