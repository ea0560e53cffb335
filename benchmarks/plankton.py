"""Balanced accuracy on real plankton images, which lie at any orientation.

3,757 in-situ images of ten classes in one npz file: 40 % of each class held out as test, 15 labels per class of the
rest, what is left unlabelled. The CNN is measured with 70 labels per class as well: what the unlabelled images would
have to be worth. Splits come from seeds above 900,000, but of one set of images: tuning saw other splits of the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import METHODS, Fitted, compare
from tumble.metrics import balanced_accuracy, recall_per_class

#: All that tumble is told about the data.
SETTINGS: Row = {"labelled_orientation": "arbitrary"}
#: What serves it best, as `docs/how-to/settings.md` says; a table of it is made with --best.
BEST: Row = {
    "classifier": "detailed",
    "invariances": ["rotation", "translation", "reflection"],
    "intensity_jitter": 0.4,
    "degradation": 0.25,
    "scale_jitter": 0.25,
    "pseudo_label_weight": 0.0,
    "predict_views": 8,
    "max_epochs": 64,
    "precision": "bfloat16",
}
MANY_LABELS = 70
#: One seed each, measured when the competitors were chosen; the splits were others.
REFERENCE = {"CNN of six convolutions": 0.53, "CNN of six convolutions, 70 labels": 0.634, "FixMatch": 0.53}


def score(model: Fitted, split: data.Split) -> Row:
    """Balanced accuracy, and recall of each class."""
    predicted = model.predict(split.X_test)
    recalls = recall_per_class(split.y_test, predicted, classes=np.arange(len(split.classes)))
    return {
        "balanced_accuracy": balanced_accuracy(split.y_test, predicted),
        "recall": dict(zip(split.classes, recalls.values(), strict=True)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every method for every seed, then print the table."""
    chosen = ("tumble", "cnn-six", "fixmatch-six")
    parser = arguments("plankton", __doc__, methods=tuple(METHODS), default_methods=chosen, seeds=3)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="plankton48.npz")
    parser.add_argument("--best", action="store_true", help="with the settings that serve such images best")
    options = parse(parser, argv)
    if options.best:
        options.settings = {**BEST, **options.settings}
    record = Record(options.out, options.since, settings=SETTINGS, one_seed_reference=REFERENCE)
    for n_labels in (data.LABELS_PER_CLASS, MANY_LABELS):
        # With many labels the CNNs alone: they set the mark.
        methods = [m for m in options.methods if n_labels < MANY_LABELS or m.startswith("cnn")]
        for seed in range(options.seeds):

            def split(n_labels: int = n_labels, seed: int = seed) -> data.Split:
                return data.plankton(options.data, n_labels, seed)

            case = {"labels_per_class": n_labels, "seed": seed}
            compare(record, options, case, split, score, settings=SETTINGS, methods=methods)
    print("\n" + record.table(["labels_per_class", "method"], "balanced_accuracy"))


if __name__ == "__main__":
    main()
