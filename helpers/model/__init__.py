"""The classifier: build and freeze it; save, load and describe it; know what it was not made for."""

from helpers.model import guard
from helpers.model.build import (
    add_head,
    backbone_layers,
    build_backbone,
    freeze,
    layers_table,
    logit_model,
    parameter_counts,
    parts_table,
    set_precision,
    small_cnn,
    weight_change,
    weights_sha256,
)
from helpers.model.folder import FORMAT, copy, load, make_card, read_card, save, write_card

__all__ = [
    "FORMAT",
    "add_head",
    "backbone_layers",
    "build_backbone",
    "copy",
    "freeze",
    "guard",
    "layers_table",
    "load",
    "logit_model",
    "make_card",
    "parameter_counts",
    "parts_table",
    "read_card",
    "save",
    "set_precision",
    "small_cnn",
    "weight_change",
    "weights_sha256",
    "write_card",
]
