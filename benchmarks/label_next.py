"""Which particles to label next: the suggestion against choosing at random, at the same number of labels.

From a few labels per class a model is fitted; then, round by round, more labels are asked for, chosen by
`tumble.metrics.choose_to_label` or at random, and the model is fitted anew. Both begin with the same labels.
`--size small` compares them on fewer objects, within minutes of one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import common
from tumble import SSRVAEClassifier
from tumble.datasets import make_agglomerates, make_cards
from tumble.metrics import balanced_accuracy, choose_to_label


@dataclass(frozen=True)
class Size:
    """How much is asked of the benchmark: objects to label from (and to test on), labels, epochs of each fit."""

    cards: int
    agglomerates: tuple[int, int, int, int]
    per_class: int
    step: int
    rounds: int
    max_epochs: int


SIZES = {
    "full": Size(500, (304, 93, 49, 31), per_class=3, step=12, rounds=3, max_epochs=30),
    "small": Size(60, (121, 37, 20, 12), per_class=5, step=20, rounds=1, max_epochs=40),
    "quick": Size(40, (20, 15, 12, 10), per_class=3, step=2, rounds=1, max_epochs=1),
}


def data(name: str, seed: int, size: Size) -> tuple[Any, Any, Any, Any]:
    """Give images and classes to label from, and others to test on."""
    if name == "cards":
        pool, test = (make_cards(size.cards, angle=180, translation=0.1, random_state=2 * seed + i) for i in (0, 1))
    else:
        pool, test = (make_agglomerates(size.agglomerates, random_state=2 * seed + i) for i in (0, 1))
    return pool.X, np.asarray(pool.y), test.X, np.asarray(test.y)


def first_labels(y: Any, per_class: int, rng: np.random.Generator) -> Any:
    """Positions of as many objects of each class."""
    return np.concatenate([rng.choice(np.flatnonzero(y == name), per_class, replace=False) for name in np.unique(y)])


class Comparison:
    """One data set and seed; the fit to the first labels, which is the same for both ways, is made once."""

    def __init__(self, name: str, seed: int, settings: dict[str, Any], size: Size) -> None:
        self.seed, self.settings, self.size = seed, settings, size
        self.data = data(name, seed, size)
        self.first: tuple[Any, float] | None = None

    def run(self, method: str) -> common.Row:
        """Give the balanced accuracy on the test images after each round."""
        X, y = self.data[:2]
        rng = np.random.default_rng(self.seed)
        labelled = first_labels(y, self.size.per_class, rng)
        if self.first is None:
            self.first = self.fit(labelled)
        model, score = self.first
        counts, scores = [len(labelled)], [score]
        for _ in range(self.size.rounds):
            open_ = np.setdiff1d(np.arange(len(y)), labelled)
            if method == "suggested":
                said = model.predict_proba(X[open_]), model.transform(X[open_])
                chosen = open_[choose_to_label(*said, self.size.step, random_state=self.seed)]
            else:
                chosen = rng.choice(open_, self.size.step, replace=False)
            labelled = np.concatenate([labelled, chosen])
            model, score = self.fit(labelled)
            counts.append(len(labelled))
            scores.append(score)
        return {"labels": counts, "balanced_accuracies": scores, "balanced_accuracy": scores[-1]}

    def fit(self, labelled: Any) -> tuple[SSRVAEClassifier, float]:
        """Fit a model with these labels, and test it."""
        X, y, X_test, y_test = self.data
        targets = np.full(len(y), None, dtype=object)
        targets[labelled] = y[labelled]
        settings = {"max_epochs": self.size.max_epochs, **self.settings}
        model = SSRVAEClassifier(labelled_orientation="arbitrary", random_state=self.seed, **settings).fit(X, targets)
        return model, balanced_accuracy(y_test.astype(str), np.asarray(model.predict(X_test)).astype(str))


def main(argv: list[str] | None = None) -> None:
    """Compare both ways on both data sets."""
    methods = ("suggested", "random")
    parser = common.arguments("label_next", __doc__, methods=methods, default_methods=methods, seeds=5)
    parser.add_argument("--size", choices=("full", "small"), default="full", help="(default: %(default)s)")
    options = common.parse(parser, argv)
    record = common.Record(options.out, since=options.since)
    size = SIZES["quick" if options.quick else options.size]
    for seed in range(options.seeds):
        for name in ("cards", "agglomerates"):
            pair = Comparison(name, seed, options.settings, size)
            for method in options.methods:
                case = {"data": name, "size": options.size, "method": method, "seed": seed}
                record.measure(common.with_options(case, options), partial(pair.run, method))
    print(record.table(["data", "size", "method"], "balanced_accuracy"))


if __name__ == "__main__":
    main()
