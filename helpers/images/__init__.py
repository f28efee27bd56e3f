"""From bytes to pixels: JPEG, PNG, DICOM and other files, and the array of all images of a run."""

from helpers.images.decode import MOST_PIXELS, quantisation
from helpers.images.greys import almost_uniform
from helpers.images.header import NOT_A_CHILD
from helpers.images.reading import (
    Decoded,
    build_cache,
    file_bytes,
    load_cache,
    looks_like_dicom,
    new_array,
    read,
    read_image,
    resize,
)
