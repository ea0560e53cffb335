"""A database of micrographs, their particles, labels, models and predictions."""

from tumble.library.labels import labels_from_mask, read_label_csv, write_label_csv
from tumble.library.store import Library

__all__ = ["Library", "labels_from_mask", "read_label_csv", "write_label_csv"]
