"""Accuracy on MNIST digits that are turned and shifted, from a few upright ones.

10 or 100 upright labelled digits per class; 12,000 unlabelled and all 10,000 test digits turned by U(-90, 90) degrees
and shifted by U(-2.8, 2.8) px on each axis. 6 and 9 are kept: within 90 degrees to either side they stay apart, though
near the ends of the range some pairs of digits look alike. For comparison: the paper reports about 0.9 for the plain
ss-VAE on unturned digits with about 3 % of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import DEFAULT_METHODS, METHODS, Fitted, compare
from tumble.metrics import recall_per_class

SETTINGS: Row = {
    "rotation_range_rad": math.pi * data.MNIST_ANGLE_DEG / 180,
    "translation_prior": data.MNIST_SHIFT_PX / 28,
    "max_epochs": 40,
}
#: Without those that take mirror images for the same class: of digits they are not.
CHOICES = tuple(
    method for method, (_, _, own) in METHODS.items() if own.get("network") != "six" or own.get("mirror") is False
)


def score(model: Fitted, split: data.Split) -> Row:
    """Accuracy, and recall of each digit."""
    predicted = model.predict(split.X_test)
    recalls = recall_per_class(split.y_test, predicted, classes=np.arange(len(split.classes)))
    return {
        "accuracy": float(np.mean(predicted == split.y_test)),
        "recall": dict(zip(split.classes, recalls.values(), strict=True)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every method for every seed, then print the table."""
    parser = arguments("mnist", __doc__, methods=CHOICES, default_methods=DEFAULT_METHODS, seeds=3)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder of the MNIST idx files")
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 100], help="labels per class (default: 10 100)")
    options = parse(parser, argv)
    record = Record(options.out, options.since, settings=SETTINGS)
    for n_labels in options.labels:
        for seed in range(options.seeds):

            def split(n_labels: int = n_labels, seed: int = seed) -> data.Split:
                sizes = {"n_unlabelled": 20, "n_test": 20} if options.quick else {}
                return data.mnist(options.data, n_labels, seed, **sizes)

            case = {"labels_per_class": n_labels, "seed": seed}
            compare(record, options, case, split, score, settings=SETTINGS)
    print("\n" + record.table(["labels_per_class", "method"], "accuracy"))


if __name__ == "__main__":
    main()
