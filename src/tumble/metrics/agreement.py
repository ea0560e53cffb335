"""How far people, or models, agree on classes beyond chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from tumble.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["cohen_kappa", "fleiss_kappa", "pairwise_agreement"]


def cohen_kappa(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return Cohen's kappa of two raters of the same objects.

    Parameters
    ----------
    a, b : array of shape (n,)
        The class that each rater gave.

    Returns
    -------
    float
        1 for full agreement, 0 for what chance gives; NaN where both gave one class only, or there is no object.
    """
    a, b = np.asarray(a, dtype=str), np.asarray(b, dtype=str)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"two raters of the same objects are needed, not arrays of shapes {a.shape} and {b.shape}.")
    if len(np.union1d(a, b)) < 2:
        return float("nan")
    return float(cohen_kappa_score(a, b))


def fleiss_kappa(counts: npt.ArrayLike) -> float:
    """Return Fleiss' kappa of several raters.

    Parameters
    ----------
    counts : array of shape (n, K)
        How many raters gave object i the class k; each row has the same sum of at least 2.

    Returns
    -------
    float
        NaN where all ratings are of one class, or there is no object.

    Raises
    ------
    DataError
        The rows have different sums, or too small ones.

    References
    ----------
    .. [1] J. L. Fleiss, Measuring nominal scale agreement among many raters, Psychological Bulletin 76 (1971) 378.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2:
        raise DataError(f"counts must be of shape (objects, classes), not {table.shape}.")
    if len(table) == 0:
        return float("nan")
    raters = table.sum(axis=1)
    if raters.min() != raters.max() or raters[0] < 2:
        raise DataError("each object must have been rated by the same number of raters, of at least two.")
    n = raters[0]
    observed = ((table**2).sum(axis=1) - n).mean() / (n * (n - 1))
    by_chance = ((table.sum(axis=0) / table.sum()) ** 2).sum()
    return float("nan") if by_chance == 1 else float((observed - by_chance) / (1 - by_chance))


def pairwise_agreement(ratings: pd.DataFrame) -> pd.DataFrame:
    """Compare all pairs of raters on the objects that both rated.

    Parameters
    ----------
    ratings : DataFrame
        One row per object and one column per rater; None where a rater said nothing.

    Returns
    -------
    DataFrame
        One row per pair: `rater`, `other`, `n` (objects rated by both), `agreement` (share of equal classes) and
        `kappa` (Cohen's).
    """
    rows = []
    names = list(ratings.columns)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = ratings.loc[ratings[one].notna() & ratings[other].notna(), [one, other]]
            same = (both[one] == both[other]).mean() if len(both) else float("nan")
            kappa = cohen_kappa(both[one].to_numpy(), both[other].to_numpy()) if len(both) else float("nan")
            rows.append((one, other, len(both), float(same), kappa))
    return pd.DataFrame(rows, columns=["rater", "other", "n", "agreement", "kappa"])
