"""The embedded default: radiograph-like phantoms, drawn by code into the dataset layout."""

from helpers.phantom.embedded import FINDINGS, RECIPE, VERSION, draw, make_patient, mask_path, masks
from helpers.phantom.embedded import pretraining_set, write_dataset
