"""From bytes to pixels: JPEG, PNG, DICOM and other files, and the array of all images of a run."""

from helpers.images.ahead import read_all
from helpers.images.decode import MOST_PIXELS, quantisation
from helpers.images.cache import load_cache, new_array, save_cache, scratch_array
from helpers.images.dicom import looks_like_dicom
from helpers.images.greys import almost_uniform
from helpers.images.header import NOT_A_CHILD
from helpers.images.reading import Decoded, file_bytes, read, read_image, resize
