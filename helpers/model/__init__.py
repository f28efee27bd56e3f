"""The classifier: build and freeze it; save, load and describe it; know what it was not made for."""

from helpers.model import ood
from helpers.model.build import backbone_layers, build_backbone, logit_model, set_precision, small_cnn
from helpers.model.build import weight_change, weights_sha256
from helpers.model.efficientnet_lite import read_torch_weights
from helpers.model.folder import FORMAT, copy, load, make_card, read_card, save, shrink, write_card
