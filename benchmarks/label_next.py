"""Which particles to label next: the suggestion against choosing at random, at the same number of labels.

From a few labels per class a model is fitted; then, round by round, more labels are asked for, chosen by
`tumble.metrics.choose_to_label` or at random, and the model is fitted anew. Both begin with the same labels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import common
from tumble import SSRVAEClassifier
from tumble.datasets import make_agglomerates, make_cards
from tumble.metrics import balanced_accuracy, choose_to_label

ROUNDS = 3


def data(name: str, seed: int, quick: bool) -> tuple[Any, Any, Any, Any]:
    """Give images and classes to label from, and others to test on."""
    if name == "cards":
        n = 40 if quick else 500
        pool, test = (make_cards(n, angle=180, translation=0.1, random_state=2 * seed + part) for part in (0, 1))
    else:
        counts = (20, 15, 12, 10) if quick else (304, 93, 49, 31)
        pool, test = (make_agglomerates(counts, random_state=2 * seed + part) for part in (0, 1))
    return pool.X, np.asarray(pool.y), test.X, np.asarray(test.y)


def first_labels(y: Any, per_class: int, rng: np.random.Generator) -> Any:
    """Positions of as many objects of each class."""
    return np.concatenate([rng.choice(np.flatnonzero(y == name), per_class, replace=False) for name in np.unique(y)])


def run(name: str, method: str, seed: int, settings: dict[str, Any], quick: bool) -> common.Row:
    """Give the balanced accuracy on the test images after each round."""
    X, y, X_test, y_test = data(name, seed, quick)
    rng = np.random.default_rng(seed)
    labelled = first_labels(y, 3, rng)
    step = 2 if quick else 12
    scores, counts = [], []
    for _ in range(ROUNDS + 1):
        targets = np.full(len(y), None, dtype=object)
        targets[labelled] = y[labelled]
        model = SSRVAEClassifier(
            labelled_orientation="arbitrary", random_state=seed, **{"max_epochs": 1 if quick else 30, **settings}
        ).fit(X, targets)
        scores.append(balanced_accuracy(y_test.astype(str), np.asarray(model.predict(X_test)).astype(str)))
        counts.append(len(labelled))
        open_ = np.setdiff1d(np.arange(len(y)), labelled)
        if method == "suggested":
            said = model.predict_proba(X[open_]), model.transform(X[open_])
            chosen = open_[choose_to_label(*said, step, random_state=seed)]
        else:
            chosen = rng.choice(open_, step, replace=False)
        labelled = np.concatenate([labelled, chosen])
    return {"labels": counts, "balanced_accuracies": scores, "balanced_accuracy": scores[-1]}


def main(argv: list[str] | None = None) -> None:
    """Compare both ways on both data sets."""
    methods = ("suggested", "random")
    parser = common.arguments("label_next", __doc__, methods=methods, default_methods=methods, seeds=5)
    options = common.parse(parser, argv)
    record = common.Record(options.out, since=options.since, rounds=ROUNDS)
    for seed in range(options.seeds):
        for name in ("cards", "agglomerates"):
            for method in options.methods:
                case = common.with_options({"data": name, "method": method, "seed": seed}, options)
                record.measure(case, partial(run, name, method, seed, options.settings, options.quick))
    print(record.table(["data", "method"], "balanced_accuracy"))


if __name__ == "__main__":
    main()
