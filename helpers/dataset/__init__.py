"""The dataset folder: manifest, audit, split by patient, download."""

from helpers.dataset.folders import find_root, image_files, survey
from helpers.dataset.manifest import MANIFEST_COLUMNS, Scan, check_classes, dataset_fingerprint, parse_name
from helpers.dataset.manifest import files_fingerprint, public_names, read_table, scan, short_reasons, write_table
from helpers.dataset.audit import NEAR_DUPLICATE, exclude_near_duplicates, near_duplicates, number_series, series_of
from helpers.dataset.audit import shared_numbers, shortcuts
from helpers.dataset.splits import check_split, image_flow, prepare_evaluation, split
from helpers.dataset.download import find_dataset, wrong_counts
