"""The embedded default: radiograph-like phantoms, drawn by code into the dataset layout."""

from helpers.phantom.anatomy import FINDINGS, make_patient
from helpers.phantom.embedded import RECIPE, VERSION, mask_path, masks, pretraining_set, write_dataset
from helpers.phantom.film import draw
