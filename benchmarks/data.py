"""The data of the benchmarks: what is labelled, what is not, and what is kept for the test.

All seeds lie above 900,000; those below 100,000 were used for tuning. Labelled, unlabelled and test images of synthetic
data come from seeds of their own, so that nothing of the test was seen before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.utils import Bunch

from tumble.datasets import load_mnist, make_agglomerates, make_cards
from tumble.types import UNLABELLED

LABELLED, UNLABELLED_CARDS, TEST = 910_000, 920_000, 930_000
AGGLOMERATES, AGGLOMERATES_TEST = 940_000, 950_000
MNIST, MNIST_TEST = 960_000, 970_000
PLANKTON = 980_000

#: Disorder of the MNIST images: 90 degrees leave 6 and 9 apart.
MNIST_ANGLE_DEG, MNIST_SHIFT_PX = 90.0, 2.8
#: Numbers of images of 1, 2, 3 and 4 particles in the paper's set of gold particles.
GOLD_COUNTS = (304, 93, 49, 31)
LABELS_PER_CLASS = 15


@dataclass(frozen=True)
class Split:
    """Images to fit with their labels (-1: none), and test images with theirs.

    Parameters
    ----------
    X, y : ndarray
        To fit.
    X_test, y_test : ndarray
        To score.
    classes : tuple of str
        Names; labels are their indices.
    truth : Bunch
        Whatever else is known of the test images.
    """

    X: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    X_test: npt.NDArray[Any]
    y_test: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    truth: Bunch


def cards(n_labelled: int, n_unlabelled: int, n_test: int, seed: int, *, angle: float = 180) -> Split:
    """Cards: so many of each class; the labelled ones upright, the others at any angle up to `angle` and place."""
    labelled = make_cards(n_labelled, angle=5, translation=0, random_state=LABELLED + seed)
    unlabelled = make_cards(n_unlabelled, angle=angle, random_state=UNLABELLED_CARDS + seed)
    test = make_cards(n_test, angle=angle, random_state=TEST + seed)
    X = np.concatenate([labelled.X, unlabelled.X])
    y = np.concatenate([labelled.y, np.full(len(unlabelled.y), UNLABELLED)])
    return Split(X, y, test.X, test.y, test.classes, test)


def cards_without_labels(n_unlabelled: int, n_test: int, seed: int, suit: str | None = None) -> Split:
    """Cards of one suit (None: of all four) at any angle and place, none of them labelled."""
    drawn = make_cards(n_unlabelled, angle=180, random_state=UNLABELLED_CARDS + seed)
    test = make_cards(n_test, angle=180, random_state=TEST + seed)
    X = drawn.X if suit is None else drawn.X[drawn.y == drawn.classes.index(suit)]
    return Split(X, np.full(len(X), UNLABELLED), test.X, test.y, test.classes, test)


def agglomerates(n_labelled: int, n_test: int, seed: int, *, counts: tuple[int, ...] = GOLD_COUNTS) -> Split:
    """Agglomerates in the paper's numbers, of which `n_labelled` of each class keep their label."""
    drawn = make_agglomerates(counts, random_state=AGGLOMERATES + seed)
    test = make_agglomerates([n_test] * len(counts), random_state=AGGLOMERATES_TEST + seed)
    y = keep_labels(drawn.y, n_labelled, np.random.default_rng(AGGLOMERATES + seed))
    return Split(drawn.X, y, test.X, test.y, test.classes, test)


def mnist(folder: Path, n_labelled: int, seed: int, *, n_unlabelled: int = 12_000, n_test: int | None = None) -> Split:
    """Digits: `n_labelled` of each class upright, other training digits and all test digits turned and shifted."""
    train, test = load_mnist(folder, "train"), load_mnist(folder, "test")
    rng = np.random.default_rng(MNIST + seed)
    order = rng.permutation(len(train.X))
    upright = pick(train.y[order], n_labelled)
    others = np.setdiff1d(np.arange(len(order)), upright)[:n_unlabelled]
    unlabelled, _ = turn_and_shift(train.X[order[others]], MNIST_ANGLE_DEG, MNIST_SHIFT_PX, rng)
    X = np.concatenate([train.X[order[upright]], unlabelled])
    y = np.concatenate([train.y[order[upright]], np.full(len(others), UNLABELLED)])
    test_rng = np.random.default_rng(MNIST_TEST + seed)
    rows = np.arange(len(test.X)) if n_test is None else test_rng.permutation(len(test.X))[:n_test]
    X_test, truth = turn_and_shift(test.X[rows], MNIST_ANGLE_DEG, MNIST_SHIFT_PX, test_rng)
    return Split(X, y, X_test, test.y[rows], test.classes, truth)


def plankton(file: Path, n_labelled: int, seed: int) -> Split:
    """Plankton: 40 % of each class for the test, `n_labelled` of the rest labelled, what is left unlabelled."""
    with np.load(file, allow_pickle=False) as content:
        X, labels, names = content["X"], content["y"], content["classes"]
    y = np.unique(labels, return_inverse=True)[1] if labels.dtype.kind in "US" else labels.astype(np.int64)
    rng = np.random.default_rng(PLANKTON + seed)
    order = rng.permutation(len(X))
    X, y = X[order], y[order]
    test = np.zeros(len(X), dtype=bool)
    for k in np.unique(y):
        members = np.flatnonzero(y == k)
        test[members[: round(0.4 * len(members))]] = True
    given = keep_labels(y[~test], n_labelled, rng)
    return Split(X[~test], given, X[test], y[test], tuple(map(str, names)), Bunch())


def pick(y: npt.NDArray[np.int64], n_per_class: int) -> npt.NDArray[np.intp]:
    """Rows of the first `n_per_class` of each class."""
    return np.concatenate([np.flatnonzero(y == k)[:n_per_class] for k in np.unique(y)])


def keep_labels(y: npt.NDArray[np.int64], n_per_class: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Labels of so many of each class, drawn at random; -1 for all others."""
    order = rng.permutation(len(y))
    kept = order[pick(y[order], n_per_class)]
    given = np.full(len(y), UNLABELLED, dtype=np.int64)
    given[kept] = y[kept]
    return given


def turn_and_shift(
    X: npt.NDArray[np.uint8], angle_deg: float, shift_px: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], Bunch]:
    """Turn images counter-clockwise by U(-a, a) and shift them by U(-s, s) on each axis, with 0 outside."""
    angle = np.deg2rad(rng.uniform(-angle_deg, angle_deg, len(X)))
    shift = rng.uniform(-shift_px, shift_px, (len(X), 2))
    cos, sin = np.cos(angle), np.sin(angle)
    # From a pixel of the result back to the image, in (row, column): the inverse of the turn.
    inverses = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
    middle = (np.array(X.shape[1:]) - 1) / 2
    out = np.empty_like(X)
    for image, inverse, moved, result in zip(X, inverses, shift, out, strict=True):
        offset = middle - inverse @ (middle + moved)
        ndimage.affine_transform(image, inverse, offset, output=result, order=1, mode="grid-constant")
    return out, Bunch(angle=angle, shift=shift)
