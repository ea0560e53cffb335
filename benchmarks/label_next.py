"""Which particles to label next: the suggestion against choosing at random, at the same number of labels.

A model is fitted to a few labels of each class among images without. Then twenty more are labelled, those that
`tumble.metrics.choose_to_label` suggests or as many at random, and a model is fitted to both. Both begin with the same
labels, images and seed, so that each seed gives a pair; the balanced accuracy is that on as many other images of each
class. The agglomerates are as unequal in number as the published ones, the cards are not. `--model shape` takes a
logistic regression on descriptors that no turn changes in place of the network: within a second a pair, so that many
seeds show what the choice of labels itself is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import wilcoxon
from skimage.transform import warp_polar
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks import common
from tumble import SSRVAEClassifier
from tumble.datasets import make_agglomerates, make_cards
from tumble.metrics import balanced_accuracy, choose_to_label

DATA = ("cards", "agglomerates")
#: Seeds below were used to try what to suggest.
FIRST_SEED = 100
#: Seeds from here on repeat a comparison whose first pairs had been looked at.
REPEATED_SEED = 200


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


class Network:
    """The estimator of this package, and what it is given."""

    def __init__(self, images: tuple[Any, Any], seed: int, settings: dict[str, Any], size: Size) -> None:
        self.images = images
        self.options = {"max_epochs": size.max_epochs, "random_state": seed, **settings}

    def fit(self, y: Any, labelled: Any) -> tuple[Any, Any, Any]:
        """Fit to all images and some labels; give classes, latent factors of the pool, and predictions of the test."""
        targets = np.full(len(y), None, dtype=object)
        targets[labelled] = y[labelled]
        model = SSRVAEClassifier(labelled_orientation="arbitrary", **self.options).fit(self.images[0], targets)
        pool, test = self.images
        return model.predict_proba(pool), model.transform(pool), np.asarray(model.predict(test))


class Shape:
    """A logistic regression on amplitudes of the image around its centre of brightness, which no turn changes."""

    def __init__(self, images: tuple[Any, Any], seed: int, settings: dict[str, Any], size: Size) -> None:
        scaler = StandardScaler()
        self.pool = scaler.fit_transform(descriptors(images[0]))
        self.test = scaler.transform(descriptors(images[1]))
        self.factors = PCA(8, random_state=0).fit_transform(self.pool)

    def fit(self, y: Any, labelled: Any) -> tuple[Any, Any, Any]:
        """Fit to some labels; as :meth:`Network.fit`."""
        model = LogisticRegression(max_iter=2000, class_weight="balanced")
        model.fit(self.pool[labelled], y[labelled])
        return model.predict_proba(self.pool), self.factors, model.predict(self.test)


MODELS = {"network": Network, "shape": Shape}


def descriptors(images: Any) -> Any:
    """Give amplitudes of the waves along circles around the centre of brightness, for radii up to half the image."""
    side = images.shape[-1]
    rows, columns = np.mgrid[:side, :side]
    table = []
    for image in images:
        weights = np.clip(image - np.median(image), 0, None) + 1e-9
        centre = (weights * rows).sum() / weights.sum(), (weights * columns).sum() / weights.sum()
        rings = warp_polar(image, centre, radius=side / 2, output_shape=(48, 16))
        table.append(np.abs(np.fft.rfft(rings, axis=0))[:9].ravel())
    return np.log1p(np.array(table))


def compare(name: str, seed: int, kind: str, settings: dict[str, Any], size: Size) -> common.Row:
    """Give the balanced accuracy with the first labels, with more at random and with those suggested."""
    X, y, X_test, y_test = data(name, seed, size)
    rng = np.random.default_rng(seed)
    model = MODELS[kind]((X, X_test), seed, settings, size)

    def score(predicted: Any) -> float:
        return balanced_accuracy(y_test.astype(str), predicted.astype(str))

    first = np.concatenate([rng.choice(np.flatnonzero(y == k), size.per_class, replace=False) for k in np.unique(y)])
    open_ = np.setdiff1d(np.arange(len(y)), first)
    p, factors, predicted = model.fit(y, first)
    chosen = {
        "random": rng.choice(open_, size.step, replace=False),
        "suggested": open_[choose_to_label(p[open_], factors[open_], size.step, random_state=seed)],
    }
    scores = {method: score(model.fit(y, np.concatenate([first, more]))[2]) for method, more in chosen.items()}
    row: common.Row = {"labels": len(first) + size.step, "start": score(predicted), **scores}
    return {**row, "gain": scores["suggested"] - scores["random"]}


def paired(gains: list[float]) -> dict[str, Any]:
    """Give the mean of the differences of pairs, its bootstrap interval, and the p of Wilcoxon's signed-rank test."""
    values = np.array(gains)
    means = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    result: Any = wilcoxon(values) if np.any(values) else None
    p = result.pvalue if result else 1.0
    return {"pairs": len(gains), "mean_gain": float(values.mean()), "from": float(low), "to": float(high), "p": p}


def _which(seed: int) -> str:
    return ", tuning seeds" if seed < FIRST_SEED else "" if seed < REPEATED_SEED else f", seeds from {REPEATED_SEED}"


def main(argv: list[str] | None = None) -> None:
    """Compare on both data sets."""
    parser = common.arguments("label_next", __doc__, seeds=10)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="(default: both)")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="(default: %(default)s)")
    parser.add_argument("--model", choices=MODELS, default="network", help="(default: %(default)s)")
    parser.add_argument("--per-class", type=int, help="labels of each class to begin with (default: 3)")
    parser.add_argument("--step", type=int, help="labels to add (default: 20)")
    options = common.parse(parser, argv)
    record = common.Record(options.out, since=options.since)
    usual = QUICK if options.quick else FULL
    size = replace(usual, per_class=options.per_class or usual.per_class, step=options.step or usual.step)
    numbers = {} if size == usual else {"per_class": size.per_class, "step": size.step}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.data:
            case = common.with_options({"data": name, "model": options.model, "seed": seed, **numbers}, options)
            record.measure(case, partial(compare, name, seed, options.model, options.settings, size))
    gains: dict[str, list[float]] = {}
    for row in record.rows:
        if bool(row.get("quick")) == options.quick and "settings" not in row:
            name = f"{row['data']}, {row['model']}" + _which(row["seed"])
            if "step" in row:
                name += f", {row['per_class']} per class and {row['step']} more"
            gains.setdefault(name, []).append(row["gain"])
    record.notes["paired"] = {name: paired(values) for name, values in gains.items()}
    record.write()
    for name, found in record.notes["paired"].items():
        print(name, found)


if __name__ == "__main__":
    main()
