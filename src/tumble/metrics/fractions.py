"""How many objects there are of each class, with intervals, and corrected for the classifier's known errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from sklearn.utils import check_random_state

from tumble.errors import ConfigError, DataError

__all__ = ["Interval", "bootstrap_counts", "corrected_fractions", "unmixed"]

#: Weight of the condition that fractions sum to 1, beside equations of order 1.
_SUM_WEIGHT = 1e4


@dataclass(frozen=True)
class Interval:
    """Estimates with their intervals.

    Parameters
    ----------
    value, low, high : ndarray of shape (K,)
        One of each per class.
    level : float
        The share of repetitions of the whole measurement whose interval should hold the true value.
    """

    value: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    level: float


def bootstrap_counts(
    counts: npt.ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    random_state: int | np.random.RandomState | None = 0,
) -> Interval:
    """Return the fraction of each class with a percentile interval of the bootstrap.

    Parameters
    ----------
    counts : array of shape (K,) or (G, K)
        Objects of each class; or the same for each of G micrographs. Of a single row the objects are resampled, of
        several whole micrographs, since objects of one image are more alike than those of different ones.
    level : float, default 0.95
        Of the interval.
    n_resamples : int, default 2000
        How often.
    random_state : int, RandomState or None
        As in scikit-learn.

    Returns
    -------
    Interval

    Raises
    ------
    DataError
        There are no objects, or a count is negative.
    ConfigError
        The level is not between 0 and 1.
    """
    table = _checked_counts(counts)
    fractions = _fractions(_resampled(table, n_resamples, check_random_state(random_state)))
    return _interval(_fractions(table.sum(axis=0)), fractions, level)


def corrected_fractions(
    counts: npt.ArrayLike,
    confusion: npt.ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    random_state: int | np.random.RandomState | None = 0,
) -> Interval:
    """Return the fraction of each class, corrected by the errors that the classifier makes on objects of known class.

    Of the objects of class k, the classifier takes a share C[k, j] for class j. So the share that it takes for j is the
    sum over k of f[k] C[k, j]; the fractions f that fit best in the least-squares sense, none of them negative and all
    together 1, are the estimate [1]_. The interval holds the chance in both: objects (or micrographs) are drawn again,
    and so are the tested objects of each class.

    Parameters
    ----------
    counts : array of shape (K,) or (G, K)
        Objects that the classifier took for each class, as in :func:`bootstrap_counts`.
    confusion : array of shape (K, K)
        Tested objects: true class by row, predicted class by column.
    level, n_resamples, random_state
        As in :func:`bootstrap_counts`.

    Returns
    -------
    Interval

    Raises
    ------
    DataError
        A class was never tested, or the shapes do not fit.

    References
    ----------
    .. [1] W. J. Rogan, B. Gladen, Estimating prevalence from the results of a screening test, Am. J. Epidemiology 107
       (1978) 71.
    """
    table, tested = _checked_counts(counts), np.asarray(confusion, dtype=np.float64)
    k = table.shape[1]
    if tested.shape != (k, k) or (tested.size and tested.min() < 0):
        raise DataError(f"confusion must be of shape ({k}, {k}) and not negative; it is of shape {tested.shape}.")
    sums = tested.sum(axis=1)
    if (sums == 0).any():
        raise DataError(f"no object of class {int(np.flatnonzero(sums == 0)[0])} was tested: nothing is known of it.")
    rng = check_random_state(random_state)
    resampled = _fractions(_resampled(table, n_resamples, rng))
    rates = tested / sums[:, None]
    repeats = np.stack([rng.multinomial(int(n), row, size=n_resamples) / n for n, row in zip(sums, rates, strict=True)])
    estimates = np.array([unmixed(resampled[i], repeats[:, i]) for i in range(n_resamples)])
    return _interval(unmixed(_fractions(table.sum(axis=0)), rates), estimates, level)


def unmixed(observed: npt.NDArray[np.float64], rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the fractions (K,), not negative and of sum 1, whose mixture by `rates` is nearest to `observed`.

    Parameters
    ----------
    observed : ndarray of shape (K,)
        Share of objects taken for each class.
    rates : ndarray of shape (K, K)
        Of the objects of class k (row), the share that is taken for class j (column).

    Returns
    -------
    ndarray of shape (K,)
    """
    matrix = np.vstack([rates.T, np.full(len(observed), _SUM_WEIGHT)])
    fractions, _ = nnls(matrix, np.append(observed, _SUM_WEIGHT))
    return fractions / fractions.sum()


def _checked_counts(counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    table = np.atleast_2d(np.asarray(counts))
    if table.ndim != 2 or table.dtype.kind not in "iu" or table.size == 0 or table.min() < 0 or table.sum() == 0:
        raise DataError("counts must be integers of shape (classes,) or (micrographs, classes), some above 0.")
    return table.astype(np.int64)


def _resampled(table: npt.NDArray[np.int64], n: int, rng: np.random.RandomState) -> npt.NDArray[Any]:
    """Draw micrographs again where there are several, objects otherwise; counts of shape (n, K)."""
    if len(table) == 1:
        return rng.multinomial(int(table.sum()), table[0] / table.sum(), size=n)
    times = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=n)
    return times @ table


def _fractions(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    totals = counts.sum(axis=-1, keepdims=True)
    return counts / np.maximum(totals, 1)


def _interval(value: npt.NDArray[np.float64], draws: npt.NDArray[np.float64], level: float) -> Interval:
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; it must be between 0 and 1, such as 0.95.")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(value, low, high, level)
