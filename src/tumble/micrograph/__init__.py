"""Reading micrographs and bringing their intensities into shape."""

from tumble.micrograph.label_image import read_label_image
from tumble.micrograph.preprocess import (
    estimate_background,
    estimate_local_background,
    estimate_noise,
    intensity_range,
    to_uint8,
)
from tumble.micrograph.read import READABLE_SUFFIXES, iter_micrographs, micrograph_from_array, read_micrograph

__all__ = [
    "READABLE_SUFFIXES",
    "estimate_background",
    "estimate_local_background",
    "estimate_noise",
    "intensity_range",
    "iter_micrographs",
    "micrograph_from_array",
    "read_label_image",
    "read_micrograph",
    "to_uint8",
]
