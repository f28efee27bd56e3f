"""From bytes to pixels: JPEG, PNG and DICOM files, and the array of all images of a run."""

from helpers.images.decode import MOST_PIXELS, quantisation
from helpers.images.cache import load_cache, new_array, save_cache, scratch_array
from helpers.images.reading import Decoded, file_bytes, looks_like_dicom, read, read_image, resize
