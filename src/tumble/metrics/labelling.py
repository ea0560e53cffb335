"""Which objects to label next: those that the model is least sure of, and not the same ones over and over."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state

from tumble.errors import ConfigError, DataError

__all__ = ["choose_to_label", "choose_varied", "uncertainty"]

#: Candidates are this many times as many as are asked for.
POOL = 10
#: Measurements further out than this many times the spread of most objects count as just as far.
_FARTHEST = 4.0


def uncertainty(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return one minus the lead of the most probable class over the second: 0 for a sure guess, 1 for a tie.

    Parameters
    ----------
    probabilities : array of shape (n, K)
        With K of at least 2; rows sum to 1.

    Returns
    -------
    ndarray of shape (n,)
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2:
        raise DataError(f"probabilities must be of shape (objects, 2 or more classes), not {p.shape}.")
    best = np.partition(p, -2, axis=1)[:, -2:]
    return 1 - (best[:, 1] - best[:, 0])


def choose_to_label(
    probabilities: npt.ArrayLike,
    features: npt.ArrayLike,
    n: int,
    *,
    random_state: int | np.random.RandomState | None = 0,
) -> npt.NDArray[np.int64]:
    """Choose objects whose labels would teach a model most.

    The most uncertain objects are the candidates, ten times as many as asked for. They are parted into n groups by
    k-means on their features, weighted by uncertainty, and the object next to the middle of each group is chosen [1]_:
    n doubtful objects that differ, where the n most doubtful alone may all show one and the same.

    Parameters
    ----------
    probabilities : array of shape (m, K)
        What the model says of the objects that have no label.
    features : array of shape (m, L)
        What they look like to the model, for example latent factors; each is brought to unit variance.
    n : int
        How many to choose; all, if there are no more.
    random_state : int, RandomState or None
        As in scikit-learn.

    Returns
    -------
    ndarray of shape (min(n, m),), int64
        Positions, the most uncertain first.

    Raises
    ------
    ConfigError, DataError
        n is below 1, or the arrays do not fit.

    References
    ----------
    .. [1] F. Zhdanov, Diverse mini-batch active learning, 2019, arXiv:1901.05954.
    """
    doubt = uncertainty(probabilities)
    x = _checked(features, n, len(doubt))
    pool = np.argsort(-doubt, kind="stable")[: POOL * n]
    if len(pool) <= n:
        return pool.astype(np.int64)
    # Probabilities stand beside the factors: which classes are in question is part of what makes doubts differ.
    x = np.hstack([_unit_variance(x)[pool], _unit_variance(np.asarray(probabilities, dtype=np.float64))[pool]])
    weights = np.maximum(doubt[pool], 1e-6)
    # n_init may be a number, whatever the annotation of scikit-learn says
    means = KMeans(n, n_init=3, random_state=check_random_state(random_state))  # pyright: ignore[reportArgumentType]
    groups = means.fit(x, sample_weight=weights)
    distances = groups.transform(x)
    chosen: list[int] = []
    for group in range(n):  # the nearest that was not taken already: a group may be empty where objects coincide
        order = np.argsort(distances[:, group], kind="stable")
        chosen.append(next(int(i) for i in order if int(i) not in chosen))
    return pool[np.sort(chosen)].astype(np.int64)


def choose_varied(features: npt.ArrayLike, n: int, *, known: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """Choose objects that differ, for a first set of labels.

    Starts with the most usual object, or with those that are known, and takes again and again the one that is farthest
    from all before (farthest-first traversal [1]_). Of rare objects there are many among the first, where a random
    choice has hardly any.

    Parameters
    ----------
    features : array of shape (m, L)
        Measurements of the objects. Each is centred on its median and divided by the distance between its first and
        last tenth; NaN counts as the median.
    n : int
        How many to choose; all, if there are no more.
    known : array of shape (k, L), optional
        Measurements of objects that have a label already.

    Returns
    -------
    ndarray of shape (min(n, m),), int64
        Positions in the order of their choice.

    Raises
    ------
    ConfigError, DataError
        n is below 1, or the arrays do not fit.

    References
    ----------
    .. [1] T. F. Gonzalez, Theoretical Computer Science, 1985, 38, 293-306.

    Examples
    --------
    >>> choose_varied([[1.0], [1.1], [1.2], [9.0], [5.0]], 3).tolist()
    [2, 3, 4]
    """
    x = _checked(features, n)
    old = np.empty((0, x.shape[1])) if known is None else np.asarray(known, dtype=np.float64)
    if old.ndim != 2 or old.shape[1] != x.shape[1]:
        raise DataError(f"known must be of shape (objects, {x.shape[1]}), not {old.shape}.")
    scaled = _robust(np.concatenate([old, x]))
    old, x = scaled[: len(old)], scaled[len(old) :]
    distance = np.full(len(x), np.inf)
    for one in old:
        np.minimum(distance, np.square(x - one).sum(axis=1), out=distance)
    chosen: list[int] = []
    for _ in range(min(n, len(x))):
        i = int(np.argmax(distance) if chosen or len(old) else np.argmin(np.square(x).sum(axis=1)))
        chosen.append(i)
        np.minimum(distance, np.square(x - x[i]).sum(axis=1), out=distance)
        distance[i] = -1.0  # not again, even where objects coincide
    return np.array(chosen, dtype=np.int64)


def _checked(features: npt.ArrayLike, n: int, rows: int | None = None) -> npt.NDArray[np.float64]:
    """Give features as an array of two axes with so many rows, where n of them can be chosen at all."""
    x = np.asarray(features, dtype=np.float64)
    if n < 1:
        raise ConfigError(f"n is {n}; choose at least one.")
    if x.ndim != 2 or (rows is not None and len(x) != rows):
        wanted = "objects" if rows is None else rows
        raise DataError(f"features must be of shape ({wanted}, numbers of each), not {x.shape}.")
    return x


def _robust(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Centre on the median, divide by the spread of most, and bound what is far out."""
    if not len(x):
        return x
    x = np.where(np.isnan(x).all(axis=0), 0.0, x)  # a measurement that no object has tells none apart
    x = x - np.nanmedian(x, axis=0)
    low, high = np.nanpercentile(x, [10, 90], axis=0)
    spread = high - low
    return np.clip(np.nan_to_num(x / np.where(spread > 0, spread, 1.0)), -_FARTHEST, _FARTHEST)


def _unit_variance(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = x.std(axis=0)
    return x / np.where(spread > 0, spread, 1.0)
