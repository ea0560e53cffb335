"""Accuracy and pose on the cards: a few upright examples, everything else at any angle and place.

Labelled: angle U(-5, 5) degrees, no translation. Unlabelled (3,000 per class) and test (1,000 per class): angle
U(-180, 180), translation 0.1. Three disjoint seeds per run; those of the test were never used for tuning. Angles are
scored against the polar angle of the card (shear turns a card a little too), modulo the diamond's half turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks import data
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import DEFAULT_METHODS, METHODS, Fitted, compare
from tumble.metrics import angle_error, recall_per_class


def score(model: Fitted, split: data.Split) -> Row:
    """Accuracy, recall of each suit, and the errors of the pose where the method infers one."""
    predicted = model.predict(split.X_test)
    recalls = recall_per_class(split.y_test, predicted, classes=np.arange(len(split.classes)))
    row = {
        "accuracy": float(np.mean(predicted == split.y_test)),
        "recall": dict(zip(split.classes, recalls.values(), strict=True)),
    }
    return row | pose_errors(model, split) if hasattr(model, "pose") else row


def pose_errors(model: Fitted, split: data.Split) -> Row:
    """Median errors of the angle for each suit, modulo its symmetry, and of the shift."""
    pose = model.pose(split.X_test)
    symmetry = np.where(split.y_test == split.classes.index("diamond"), 2, 1)
    off = np.degrees(angle_error(split.truth.polar_angle, pose.angle_rad, symmetry=symmetry))
    shift = np.hypot(*(pose.shift_px - split.truth.shift).T)
    return {
        "angle_error_deg": {c: float(np.median(off[split.y_test == k])) for k, c in enumerate(split.classes)},
        "shift_error_px": float(np.median(shift)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every method for every seed, then print the table."""
    parser = arguments("cards", __doc__, methods=tuple(METHODS), default_methods=DEFAULT_METHODS)
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 1], help="labels per class (default: 5 1)")
    parser.add_argument("--unlabelled", type=int, default=3000, help="unlabelled cards per class")
    options = parse(parser, argv)
    record = Record(options.out, options.since)
    n_unlabelled, n_test = (8, 8) if options.quick else (options.unlabelled, 1000)
    for n_labels in options.labels:
        for seed in range(options.seeds):
            case = {"labels_per_class": n_labels, "seed": seed, "unlabelled_per_class": n_unlabelled}

            def split(n_labels: int = n_labels, seed: int = seed) -> data.Split:
                return data.cards(n_labels, n_unlabelled, n_test, seed)

            compare(record, options, case, split, score)
    print("\n" + record.table(["labels_per_class", "method"], "accuracy"))


if __name__ == "__main__":
    main()
