"""From a micrograph to its particles: finding, measuring and cutting them out."""

from tumble.particles.extract import extract_particles
from tumble.particles.measure import measurement_columns
from tumble.particles.segment import Segmentation, segment_particles

__all__ = ["Segmentation", "extract_particles", "measurement_columns", "segment_particles"]
