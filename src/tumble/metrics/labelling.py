"""Which objects to label next: those that the model is least sure of, and not the same ones over and over."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state

from tumble.errors import ConfigError, DataError

__all__ = ["choose_to_label", "uncertainty"]

#: Candidates are this many times as many as are asked for.
POOL = 10


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
    x = np.asarray(features, dtype=np.float64)
    if n < 1:
        raise ConfigError(f"n is {n}; choose at least one.")
    if x.ndim != 2 or len(x) != len(doubt):
        raise DataError(f"features must be of shape ({len(doubt)}, factors), not {x.shape}.")
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


def _unit_variance(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = x.std(axis=0)
    return x / np.where(spread > 0, spread, 1.0)
