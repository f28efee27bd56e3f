"""The dataset folder: manifest, audit, split by patient, download."""

from helpers.dataset.download import DESTINATION, differences, find_dataset
from helpers.dataset.manifest import MANIFEST_COLUMNS, NEAR_DUPLICATE, Scan, check_classes, check_split
from helpers.dataset.manifest import dataset_fingerprint, find_root, image_files, near_duplicates, number_series
from helpers.dataset.manifest import parse_name, prepare_evaluation, public_names, read_table, scan, shared_numbers
from helpers.dataset.manifest import shortcuts, split, write_table
