"""Scores of classes, probabilities, angles and segmentations; agreement, fractions, what to label next.

Pure functions of arrays. What scikit-learn already measures as we need it is not wrapped again.
"""

from __future__ import annotations

from tumble.metrics.agreement import cohen_kappa, fleiss_kappa, pairwise_agreement
from tumble.metrics.angles import angle_error, circular_correlation
from tumble.metrics.classes import balanced_accuracy, confusion, expected_calibration_error, recall_per_class
from tumble.metrics.fractions import bootstrap_counts, corrected_fractions
from tumble.metrics.labelling import choose_to_label, choose_varied
from tumble.metrics.segmentation import SegmentationMatch, match_segmentations

__all__ = [
    "SegmentationMatch",
    "angle_error",
    "balanced_accuracy",
    "bootstrap_counts",
    "choose_to_label",
    "choose_varied",
    "circular_correlation",
    "cohen_kappa",
    "confusion",
    "corrected_fractions",
    "expected_calibration_error",
    "fleiss_kappa",
    "match_segmentations",
    "pairwise_agreement",
    "recall_per_class",
]
