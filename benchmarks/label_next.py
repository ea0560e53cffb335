"""Which particles to label next: the suggestion against choosing at random, at the same number of labels.

A model is fitted to a few labels of each class among images without. Then twenty more are labelled, those that
`tumble.metrics.choose_to_label` suggests or as many at random, and a model is fitted to both. Both begin with the same
labels, images and seed, so that each seed gives a pair; the balanced accuracy is that on as many other images of each
class. The agglomerates are as unequal in number as the published ones, the cards are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from benchmarks import common
from tumble import SSRVAEClassifier
from tumble.datasets import make_agglomerates, make_cards
from tumble.metrics import balanced_accuracy, choose_to_label

DATA = ("cards", "agglomerates")
#: Seeds below were used to try what to suggest.
FIRST_SEED = 100


@dataclass(frozen=True)
class Size:
    """How much is asked: objects to label from and to test on, labels to begin with and to add, epochs of each fit."""

    cards: int = 120
    agglomerates: tuple[int, int, int, int] = (304, 93, 49, 31)
    test: int = 200
    per_class: int = 3
    step: int = 20
    max_epochs: int = 80


FULL, QUICK = Size(), Size(cards=12, agglomerates=(20, 15, 12, 10), test=5, step=2, max_epochs=1)


def data(name: str, seed: int, size: Size) -> tuple[Any, Any, Any, Any]:
    """Give images and classes to label from, and others to test on, the same number of each class."""
    if name == "cards":
        numbers = (size.cards, size.test)
        pool, test = (
            make_cards(n, angle=180, translation=0.1, random_state=2 * seed + i) for i, n in enumerate(numbers)
        )
    else:
        pool = make_agglomerates(size.agglomerates, random_state=2 * seed)
        test = make_agglomerates((size.test,) * 4, random_state=2 * seed + 1)
    return pool.X, np.asarray(pool.y), test.X, np.asarray(test.y)


def compare(name: str, seed: int, settings: dict[str, Any], size: Size) -> common.Row:
    """Give the balanced accuracy with the first labels, with more at random and with those suggested."""
    X, y, X_test, y_test = data(name, seed, size)
    rng = np.random.default_rng(seed)

    def fit(labelled: Any) -> tuple[SSRVAEClassifier, float]:
        targets = np.full(len(y), None, dtype=object)
        targets[labelled] = y[labelled]
        options = {"max_epochs": size.max_epochs, "random_state": seed, **settings}
        model = SSRVAEClassifier(labelled_orientation="arbitrary", **options).fit(X, targets)
        return model, balanced_accuracy(y_test.astype(str), np.asarray(model.predict(X_test)).astype(str))

    first = np.concatenate([rng.choice(np.flatnonzero(y == k), size.per_class, replace=False) for k in np.unique(y)])
    open_ = np.setdiff1d(np.arange(len(y)), first)
    model, start = fit(first)
    said = model.predict_proba(X[open_]), model.transform(X[open_])
    chosen = {
        "random": rng.choice(open_, size.step, replace=False),
        "suggested": open_[choose_to_label(*said, size.step, random_state=seed)],
    }
    scores = {method: fit(np.concatenate([first, more]))[1] for method, more in chosen.items()}
    row: common.Row = {"labels": len(first) + size.step, "start": start, **scores}
    return {**row, "gain": scores["suggested"] - scores["random"]}


def paired(gains: list[float]) -> dict[str, Any]:
    """Give the mean of the differences of pairs, its bootstrap interval, and the p of Wilcoxon's signed-rank test."""
    values = np.array(gains)
    means = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    p = float(wilcoxon(values).pvalue) if np.any(values) else 1.0
    return {"pairs": len(gains), "mean_gain": float(values.mean()), "from": float(low), "to": float(high), "p": p}


def main(argv: list[str] | None = None) -> None:
    """Compare on both data sets."""
    parser = common.arguments("label_next", __doc__, seeds=10)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="(default: both)")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="(default: %(default)s)")
    options = common.parse(parser, argv)
    record = common.Record(options.out, since=options.since)
    size = QUICK if options.quick else FULL
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.data:
            case = common.with_options({"data": name, "seed": seed}, options)
            record.measure(case, partial(compare, name, seed, options.settings, size))
    kept = [row for row in record.rows if bool(row.get("quick")) == options.quick and "settings" not in row]
    gains = {name: [row["gain"] for row in kept if row["data"] == name] for name in DATA}
    record.notes["paired"] = {name: paired(values) for name, values in gains.items() if values}
    record.write()
    for name, found in record.notes["paired"].items():
        print(name, found)


if __name__ == "__main__":
    main()
