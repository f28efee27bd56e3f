"""From bytes to pixels: JPEG, PNG and DICOM files, and the array of all images of a run."""

from helpers.images.decode import MOST_PIXELS, quantisation
from helpers.images.reading import Decoded, build_cache, file_bytes, load_cache, new_array, read, read_image, resize
