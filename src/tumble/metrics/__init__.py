"""Scores: of classes, of probabilities, of angles and of segmentations.

Pure functions of arrays. What scikit-learn already measures as we need it is not wrapped again.
"""

from __future__ import annotations

from tumble.metrics.angles import angle_error, circular_correlation
from tumble.metrics.classes import balanced_accuracy, confusion, expected_calibration_error, recall_per_class
from tumble.metrics.segmentation import SegmentationMatch, match_segmentations

__all__ = [
    "SegmentationMatch",
    "angle_error",
    "balanced_accuracy",
    "circular_correlation",
    "confusion",
    "expected_calibration_error",
    "match_segmentations",
    "recall_per_class",
]
