"""A database of micrographs, their particles, labels, models and predictions."""

from tumble.library.label_actions import LabelAction
from tumble.library.labels import labels_from_mask, read_label_csv, read_label_log, write_label_csv, write_label_log
from tumble.library.search import Page, Query
from tumble.library.store import Library

__all__ = [
    "LabelAction",
    "Library",
    "Page",
    "Query",
    "labels_from_mask",
    "read_label_csv",
    "read_label_log",
    "write_label_csv",
    "write_label_log",
]
