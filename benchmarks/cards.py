"""Accuracy and pose on the cards: a few upright examples, everything else at any angle and place.

Labelled: angle U(-5, 5) degrees, no translation. Unlabelled (3,000 per class) and test (1,000 per class): angle
U(-180, 180), translation 0.1. Three disjoint seeds per run; those of the test were never used for tuning. Angles are
scored against the polar angle of the card (shear turns a card a little too), modulo the diamond's half turn.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.common import Record, Row, arguments
from tumble import SSRVAEClassifier
from tumble.baselines import PixelForestClassifier
from tumble.datasets import make_cards
from tumble.metrics import angle_error

#: Offsets that keep the seeds of labelled, unlabelled and test cards apart, and apart from those used for tuning.
_LABELLED, _UNLABELLED, _TEST = 910_000, 920_000, 930_000


def main() -> None:
    """Measure every method for every seed, then print the table."""
    parser = arguments("cards", __doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=[5], help="labels per class")
    parser.add_argument("--unlabelled", type=int, default=3000, help="unlabelled cards per class")
    options = parser.parse_args()
    record = Record(options.out)
    for n_labels in options.labels:
        for seed in range(options.seeds):
            labelled = make_cards(n_labels, angle=5, translation=0, random_state=_LABELLED + seed)
            unlabelled = make_cards(options.unlabelled, angle=180, random_state=_UNLABELLED + seed)
            test = make_cards(1000, angle=180, random_state=_TEST + seed)
            X = np.concatenate([labelled.X, unlabelled.X])
            y = np.concatenate([labelled.y, np.full(len(unlabelled.y), -1)])

            def default_method(X=X, y=y, test=test, seed=seed) -> Row:
                started = time.perf_counter()
                model = SSRVAEClassifier(random_state=seed).fit(X, y)
                seconds = time.perf_counter() - started
                pose = model.pose(test.X)
                symmetry = np.where(test.y == test.classes.index("diamond"), 2, 1)
                off = np.degrees(angle_error(test.polar_angle, pose.angle_rad, symmetry=symmetry))
                shift = np.hypot(*(pose.shift_px - test.shift).T)
                return {
                    "accuracy": float(model.score(test.X, test.y)),
                    "seconds": seconds,
                    "angle_error_deg": {c: float(np.median(off[test.y == k])) for k, c in enumerate(test.classes)},
                    "shift_error_px": float(np.median(shift)),
                }

            def forest(X=X, y=y, test=test, seed=seed) -> Row:
                model = PixelForestClassifier(random_state=seed).fit(X, y)
                return {"accuracy": float(model.score(test.X, test.y))}

            case = {"labels_per_class": n_labels, "seed": seed, "unlabelled_per_class": options.unlabelled}
            record.measure({"method": "tumble", **case}, default_method)
            record.measure({"method": "random forest on pixels", **case}, forest)
    print("\n" + record.table(["labels_per_class", "method"], "accuracy"))


if __name__ == "__main__":
    main()
