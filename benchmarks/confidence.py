"""Whether probabilities mean what they say, and whether an object of an unlabelled class is noticed.

- Calibration on the cards (5 upright labels per class, as in `benchmarks.cards`), and with ``--data FOLDER`` on the
  turned and shifted MNIST digits (10 labels per class, as in `benchmarks.mnist`), or with ``--labels N`` of each class:
  expected calibration error in 15 bins, and the bins themselves for a reliability diagram. With at least 20 labels of
  each class a temperature is fitted; it is in the row.
- Novelty: one suit is left out of the labels; it stays among the unlabelled and the test cards. Area under the ROC
  curve of `novelty` for telling it from the labelled suits; and which shares of the suit and of the labelled ones
  ``predict(X, reject=0.05)`` gives up.

The reliability diagram is drawn beside the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from benchmarks import data
from benchmarks import mnist as mnist_benchmark
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import Fitted, compare
from tumble import SSRVAEClassifier
from tumble.metrics import expected_calibration_error

N_BINS = 15
REJECT = 0.05
_Float = npt.NDArray[np.floating]


def reliability(y: npt.NDArray[np.int64], proba: npt.NDArray[np.floating], n_bins: int = N_BINS) -> Row:
    """Count predictions in bins of equal width, with mean confidence and accuracy; None where a bin is empty."""
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)

    def means(values: npt.NDArray[np.floating]) -> list[float | None]:
        sums = np.bincount(bins, weights=values, minlength=n_bins)
        return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]

    return {"n": counts, "confidence": means(confidence), "accuracy": means(right.astype(float))}


def score_calibration(model: Fitted, split: data.Split) -> Row:
    """Accuracy, expected calibration error and reliability on the test images."""
    proba = np.asarray(model.predict_proba(split.X_test), dtype=float)
    own = isinstance(model, SSRVAEClassifier)
    return {
        **({"temperature": float(model.model_.log_temperature.exp())} if own else {}),
        "accuracy": float(np.mean(model.classes_[proba.argmax(axis=1)] == split.y_test)),
        "ece": expected_calibration_error(split.y_test, proba, n_bins=N_BINS, classes=model.classes_),
        "mean_confidence": float(proba.max(axis=1).mean()),
        "reliability": reliability(split.y_test, proba),
    }


def score_novelty(model: Fitted, split: data.Split) -> Row:
    """Area under the ROC curve of the novelty, and the accuracy on the suits that were labelled."""
    known = np.isin(split.y_test, model.classes_)
    given_up = ~np.isin(model.predict(split.X_test, reject=REJECT), model.classes_)
    return {
        "auroc": float(roc_auc_score(~known, model.novelty(split.X_test))),
        "known_accuracy": float(np.mean(model.predict(split.X_test[known]) == split.y_test[known])),
        "rejected_novel": float(np.mean(given_up[~known])),
        "rejected_known": float(np.mean(given_up[known])),
    }


def without_class(split: data.Split, k: int) -> data.Split:
    """Take the labels of one class away, and its labelled images with them: the others are many enough."""
    kept = split.y != k
    return replace(split, X=split.X[kept], y=split.y[kept])


def calibration(record: Record, options: argparse.Namespace, seed: int) -> None:
    """Measure the calibration for one seed."""
    sizes = (2, 8, 8) if options.quick else (options.labels or 5, 3000, 1000)
    case = {"what": "calibration on cards", "labels_per_class": sizes[0], "seed": seed}
    compare(record, options, case, lambda: data.cards(*sizes, seed), score_calibration)
    if options.data is None:
        return
    n_labelled = 2 if options.quick else options.labels or 10

    def digits() -> data.Split:
        few = {"n_unlabelled": 20, "n_test": 20} if options.quick else {}
        return data.mnist(options.data, n_labelled, seed, **few)

    case = {"what": "calibration on MNIST", "labels_per_class": n_labelled, "seed": seed}
    compare(record, options, case, digits, score_calibration, settings=mnist_benchmark.SETTINGS)


def novelty(record: Record, options: argparse.Namespace, seed: int) -> None:
    """Measure the novelty of each suit for one seed."""
    methods = [m for m in options.methods if m in ("tumble", "paper")]
    if not hasattr(SSRVAEClassifier, "novelty"):
        print("novelty: this version of tumble does not have it; left out", flush=True)
        return
    sizes = (2, 8, 8) if options.quick else (5, 3000, 1000)
    for k, suit in enumerate(("club", "spade", "diamond", "heart")):
        case = {"what": "novelty", "novel": suit, "labels_per_class": sizes[0], "seed": seed}

        def split(k: int = k) -> data.Split:
            return without_class(data.cards(*sizes, seed), k)

        compare(record, options, case, split, score_novelty, methods=methods)


_MEASURES = {"calibration": calibration, "novelty": novelty}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the reliability diagram of tumble, all seeds together, beside how many predictions fall into each bin."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    own = [row for row in rows if row["method"] == "tumble" and "reliability" in row]
    names = sorted({(row["what"], row["labels_per_class"]) for row in own})
    if not names:
        return
    figure, axes = plt.subplots(
        2,
        len(names),
        figsize=(3.6 * len(names), 4.4),
        height_ratios=[3, 1],
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for (name, n_labels), (upper, lower) in zip(names, axes.T, strict=True):
        chosen = [row for row in own if (row["what"], row["labels_per_class"]) == (name, n_labels)]
        parts = [row["reliability"] for row in chosen]
        n, confidence, accuracy = merged(parts)
        upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=0)
        upper.plot(confidence, accuracy, "o-", color="#0072b2", markersize=4)
        ece = np.mean([row["ece"] for row in chosen])
        seeds = "1 seed" if len(parts) == 1 else f"{len(parts)} seeds"
        upper.set(title=f"{name},\n{n_labels} labels per class\nECE {ece:.3f}, {seeds}", ylabel="accuracy")
        upper.set(ylim=(0, 1.02), xlim=(0, 1.02))
        lower.bar((np.arange(N_BINS) + 0.5) / N_BINS, n, width=0.9 / N_BINS, color="0.6")
        lower.set(yscale="log", ylabel="predictions", xlabel="probability of the predicted class")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def merged(parts: Sequence[Row]) -> tuple[_Float, _Float, _Float]:
    """Add up the counts of all bins, and take mean confidence and accuracy of those that are not empty."""
    counts = np.array([part["n"] for part in parts], dtype=float)

    def mean(key: str) -> _Float:
        values = np.array([part[key] for part in parts], dtype=float)  # None becomes NaN
        total = counts.sum(axis=0)
        return (np.nan_to_num(values) * counts).sum(axis=0)[total > 0] / total[total > 0]

    return counts.sum(axis=0), mean("confidence"), mean("accuracy")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every method for every seed, then print the tables."""
    choices = ("tumble", "paper", "cnn", "fixmatch", "pyroved")
    parser = arguments("confidence", __doc__, methods=choices, default_methods=choices[:1] + choices[2:4], seeds=3)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of the MNIST idx files")
    parser.add_argument("--what", nargs="+", choices=tuple(_MEASURES), default=list(_MEASURES))
    parser.add_argument("--labels", type=int, metavar="N", help="labels per class for the calibration (default: 5, 10)")
    options = parse(parser, argv)
    record = Record(options.out, options.since)
    for seed in range(options.seeds):
        for what in options.what:
            _MEASURES[what](record, options, seed)
    draw(record.rows, options.out.with_suffix(".png"))
    print("\n" + record.table(["what", "labels_per_class", "method"], "ece", less_is_better=True))
    for value in ("auroc", "rejected_novel", "rejected_known"):
        print("\n" + record.table(["novel", "method"], value, less_is_better=value == "rejected_known"))


if __name__ == "__main__":
    main()
