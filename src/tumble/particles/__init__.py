"""From a micrograph to its particles: finding, measuring and cutting them out."""

from tumble.particles.annotations import read_boxes, read_centroids, read_masks
from tumble.particles.assemble import CropSettings, SizeLimits
from tumble.particles.extract import extract_particles
from tumble.particles.imported import particles_from_boxes, particles_from_centroids, particles_from_masks
from tumble.particles.measure import measurement_columns
from tumble.particles.preview import draw_preview
from tumble.particles.segment import Segmentation, segment_particles

__all__ = [
    "CropSettings",
    "Segmentation",
    "SizeLimits",
    "draw_preview",
    "extract_particles",
    "measurement_columns",
    "particles_from_boxes",
    "particles_from_centroids",
    "particles_from_masks",
    "read_boxes",
    "read_centroids",
    "read_masks",
    "segment_particles",
]
