"""The data of the studies: what is fitted, what of it is labelled, and what is scored.

Labelled, unlabelled and test cards come from seeds of their own; the published notebooks reuse the seed of the
validation set for the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tumble.datasets import load_nanogold, make_agglomerates, make_cards
from tumble.metrics import match_segmentations
from tumble.micrograph import read_micrograph
from tumble.particles import extract_particles
from tumble.types import UNLABELLED

__all__ = ["Agglomerates", "Cards", "Gold", "Source", "Split", "cards_test", "stretch"]

_LABELLED, _UNLABELLED, _TEST = 910_000, 920_000, 930_000
_AGGLOMERATES = 940_000
#: Percentiles of the pixels of nanoparticles that become black and white.
_BLACK, _WHITE = 5.0, 99.9
#: As published: labelled cards lie within this angle, and are not displaced.
LABELLED_ANGLE_DEG = 4.0


@dataclass(frozen=True)
class Split:
    """Images to fit, and those among them, or others, to score.

    Parameters
    ----------
    X : ndarray of shape (n, H, W)
        Images to fit.
    y : ndarray of shape (n,)
        Their labels as indices of classes; -1 for unlabelled.
    truth : ndarray of shape (n,)
        Their classes; -1 where unknown.
    X_test, y_test : ndarray
        Images to score, and their classes.
    classes : tuple of str
        Names.
    """

    X: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    X_test: npt.NDArray[Any]
    y_test: npt.NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Cards:
    """Cards: so many of each class; labelled ones upright, the others within an angle and displaced.

    Parameters
    ----------
    angle_deg : float
        Orientational disorder of the unlabelled and of the test cards.
    n_labelled, n_unlabelled, n_test : int
        Cards per class.
    seed : int
        Seed.
    """

    angle_deg: float
    n_labelled: int
    n_unlabelled: int
    n_test: int
    seed: int

    def split(self) -> Split:
        """Draw the cards."""
        return _cards_split(self)


@dataclass(frozen=True)
class Agglomerates:
    """Agglomerates of 1, 2, ... particles; the unlabelled ones are scored, as published.

    Parameters
    ----------
    counts : tuple of int
        Images per class.
    n_labelled : int
        Of these, labelled.
    seed : int
        Seed.
    stretched : bool
        Whether the background is made black, see :func:`stretch`.
    """

    counts: tuple[int, ...]
    n_labelled: int
    seed: int
    stretched: bool = True

    def split(self) -> Split:
        """Draw the agglomerates."""
        return _agglomerates_split(self)


@dataclass(frozen=True)
class Gold:
    """Crops of the gold micrograph: labels from its left half, scored on its right half.

    Parameters
    ----------
    n_labelled : int
        Labelled crops per class.
    n_unlabelled, n_test : int or None
        Most unlabelled and test crops; None is all.
    seed : int
        Seed of what is labelled and left out.
    stretched : bool
        Whether the background is made black, see :func:`stretch`.
    """

    n_labelled: int
    n_unlabelled: int | None
    n_test: int | None
    seed: int
    stretched: bool = True

    def split(self) -> Split:
        """Cut the micrograph, and draw the labels."""
        return _gold_split(self)


Source = Cards | Agglomerates | Gold


@lru_cache(maxsize=2)
def _cards_split(source: Cards) -> Split:
    labelled = make_cards(
        source.n_labelled, angle=LABELLED_ANGLE_DEG, translation=0, random_state=_LABELLED + source.seed
    )
    free = make_cards(source.n_unlabelled, angle=source.angle_deg, random_state=_UNLABELLED + source.seed)
    X_test, y_test = cards_test(source.n_test, source.seed, angle=source.angle_deg)
    return Split(
        np.concatenate([labelled.X, free.X]),
        np.concatenate([labelled.y, np.full(len(free.y), UNLABELLED)]),
        np.concatenate([labelled.y, free.y]),
        X_test,
        y_test,
        labelled.classes,
    )


# A row of a map, for one method after the other.
@lru_cache(maxsize=16)
def cards_test(
    n_per_class: int,
    seed: int,
    *,
    angle: float = 60.0,
    shear: float = 15.0,
    noise: float = 0.0,
    density: float = 0.0,
    intensity: float = 1.0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Draw test cards: images (n, 48, 48) and classes (n,).

    Parameters
    ----------
    n_per_class : int
        Cards per class.
    seed : int
        Seed; no card of the same seed is in a fit.
    angle, shear, noise, density, intensity : float
        As in :func:`tumble.datasets.make_cards`.

    Returns
    -------
    X, y : ndarray
    """
    drawn = make_cards(
        n_per_class,
        angle=angle,
        shear=shear,
        noise=noise,
        contamination_density=density,
        contamination_intensity=intensity,
        random_state=_TEST + seed,
    )
    return drawn.X, drawn.y


@lru_cache(maxsize=2)
def _agglomerates_split(source: Agglomerates) -> Split:
    drawn = make_agglomerates(source.counts, random_state=_AGGLOMERATES + source.seed)
    y = _keep_labels(drawn.y, source.n_labelled, np.random.default_rng(_AGGLOMERATES + source.seed))
    free = y == UNLABELLED
    X = stretch(drawn.X, drawn.X) if source.stretched else drawn.X
    return Split(X, y, drawn.y, X[free], drawn.y[free], drawn.classes)


@lru_cache(maxsize=2)
def _gold_split(source: Gold) -> Split:
    crops, truth, left, right, classes = gold_crops()
    rng = np.random.default_rng(source.seed)
    given = _keep_labels(np.where(left, truth, UNLABELLED), source.n_labelled, rng)
    labelled, free = np.flatnonzero(given >= 0), np.flatnonzero(given < 0)
    test = np.flatnonzero(right)
    if source.n_test is not None:
        test = np.sort(rng.permutation(test)[: source.n_test])
    if source.n_unlabelled is not None:
        free = rng.permutation(free)[: source.n_unlabelled]
    rows = np.sort(np.concatenate([labelled, free]))
    X, X_test = crops[rows], crops[test]
    if source.stretched:
        X, X_test = stretch(X, X), stretch(X_test, X)
    return Split(X, given[rows], truth[rows], X_test, truth[test], classes)


def stretch(images: npt.NDArray[Any], fitted: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Bring images to [0, 1], so that the background of those that are fitted is black.

    From the grey background of the gold crops the published networks do not learn: its sum over 2,304 pixels saturates
    their first layer, and all images look the same to the second.

    Parameters
    ----------
    images, fitted : ndarray of shape (n, H, W)
        What to bring there, and what says how: the darkest 5 % of all pixels become black, the brightest 0.1 % white.

    Returns
    -------
    ndarray of shape (n, H, W), float32
    """
    return np.interp(images, np.percentile(fitted, (_BLACK, _WHITE)), (0, 1)).astype(np.float32)


@lru_cache(maxsize=1)
def gold_crops() -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], tuple[str, ...]]:
    """Cut the bundled micrograph.

    Returns
    -------
    crops : ndarray of shape (n, S, S), uint8
        One particle each.
    truth : ndarray of shape (n,)
        Class of the reference object that it matches one to one; -1 for none.
    left, right : ndarray of shape (n,), bool
        Particles with a class whose crops lie within one half of the micrograph; no pixel is in both.
    classes : tuple of str
        Names.
    """
    gold = load_nanogold()
    particles = extract_particles(read_micrograph(gold.filename))
    match = match_segmentations(gold.objects, particles.mask, iou_threshold=0.5)
    truth = np.full(len(particles), UNLABELLED)
    truth[match.pairs[:, 1] - 1] = gold.object_classes[match.pairs[:, 0] - 1]
    column = particles.table["centroid_col_px"].to_numpy()
    half, middle = particles.parameters["window_px"] / 2, gold.image.shape[1] / 2
    whole = (truth >= 0) & ~particles.table["touches_border"].to_numpy(dtype=bool)
    classes = tuple(map(str, gold.classes))
    return particles.crops, truth, whole & (column + half <= middle), whole & (column - half >= middle), classes


def _keep_labels(y: npt.NDArray[np.int64], n_per_class: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Labels of so many of each class, drawn at random; -1 for all others."""
    order = rng.permutation(len(y))
    given = np.full(len(y), UNLABELLED, dtype=np.int64)
    for k in np.unique(y[y >= 0]):
        kept = order[y[order] == k][:n_per_class]
        given[kept] = k
    return given
