"""Scores of predicted classes and of their probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, recall_score

from tumble.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["balanced_accuracy", "confusion", "expected_calibration_error", "recall_per_class"]


def recall_per_class(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, classes: npt.ArrayLike | None = None
) -> dict[Hashable, float]:
    """Return the fraction of each class that was recognised.

    Parameters
    ----------
    y_true, y_pred : array of shape (n,)
        True and predicted classes.
    classes : array of shape (K,), optional
        Classes to report, in order; those of `y_true`, sorted, if not given.

    Returns
    -------
    dict of class to float
        NaN for a class that does not occur in `y_true`.

    Examples
    --------
    >>> recall_per_class(["a", "a", "b"], ["a", "b", "b"])
    {'a': 0.5, 'b': 1.0}
    """
    y_true, y_pred = _two_label_arrays(y_true, y_pred)
    names = np.unique(y_true) if classes is None else np.asarray(classes)
    recalls = recall_score(y_true, y_pred, labels=names, average=None, zero_division=np.nan)  # type: ignore[arg-type]
    return dict(zip(names.tolist(), np.asarray(recalls).tolist(), strict=True))


def balanced_accuracy(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """Return the mean of the recalls of the classes that occur in `y_true`.

    The value is that of :func:`sklearn.metrics.balanced_accuracy_score`, without its warning about predicted
    classes that do not occur in `y_true`: for a small test set that is nothing unusual.

    Parameters
    ----------
    y_true, y_pred : array of shape (n,)
        True and predicted classes.

    Returns
    -------
    float

    Examples
    --------
    >>> balanced_accuracy(["a", "a", "b"], ["a", "c", "b"])
    0.75
    """
    return float(np.mean(list(recall_per_class(y_true, y_pred).values())))


def confusion(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, classes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count how often each class was taken for each.

    Unlike :func:`sklearn.metrics.confusion_matrix` with ``labels`` it refuses labels that are none of
    `classes` rather than leave them out of the counts.

    Parameters
    ----------
    y_true, y_pred : array of shape (n,)
        True and predicted classes.
    classes : array of shape (K,)
        All classes, in the order of rows and columns.

    Returns
    -------
    ndarray of shape (K, K), int64
        Row: true class; column: predicted class; the sum is n.

    Raises
    ------
    DataError
        If the shapes do not fit or a label is none of `classes`.

    Examples
    --------
    >>> confusion(["a", "a", "b"], ["a", "b", "b"], classes=["a", "b"])
    array([[1, 1],
           [0, 1]])
    """
    y_true, y_pred = _two_label_arrays(y_true, y_pred)
    names = np.asarray(classes)
    strangers = np.setdiff1d(np.concatenate([y_true, y_pred]), names)
    if len(strangers):
        msg = f"labels {strangers.tolist()} are none of classes={names.tolist()}"
        raise DataError(msg)
    return np.asarray(confusion_matrix(y_true, y_pred, labels=names), dtype=np.int64)


def expected_calibration_error(
    y_true: npt.ArrayLike, proba: npt.ArrayLike, *, n_bins: int = 15, classes: npt.ArrayLike | None = None
) -> float:
    """Return the mean gap between the confidence of a prediction and how often it is right [1]_.

    Predictions are binned by the probability of their class, in bins of equal width; the gaps are averaged
    with the number of predictions as weight.

    Parameters
    ----------
    y_true : array of shape (n,)
        True classes.
    proba : array of shape (n, K)
        Predicted probabilities.
    n_bins : int, default=15
        Number of bins over [0, 1].
    classes : array of shape (K,), optional
        Class of each column of `proba`; 0, 1, ... if not given.

    Returns
    -------
    float
        From 0 (calibrated) to 1.

    Raises
    ------
    ConfigError
        If `n_bins` is not a positive whole number.
    DataError
        If the shapes do not fit or `proba` does not hold probabilities.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML,
       2017.

    Examples
    --------
    Four predictions made with a confidence of 0.75, of which three are right:

    >>> expected_calibration_error([0, 0, 0, 1], [[0.75, 0.25]] * 4)
    0.0
    """
    if not isinstance(n_bins, int | np.integer) or n_bins < 1:
        msg = f"n_bins={n_bins!r} must be a whole number of at least 1"
        raise ConfigError(msg)
    y_true, proba = np.asarray(y_true), np.asarray(proba, dtype=np.float64)
    columns = np.arange(proba.shape[-1] if proba.ndim else 0) if classes is None else np.asarray(classes)
    shapes = (y_true.shape, proba.shape, columns.shape)
    if proba.ndim != 2 or proba.size == 0 or shapes != (proba.shape[:1], proba.shape, proba.shape[1:]):
        msg = f"y_true, proba and classes have shapes {shapes}; they must be (n,), (n, K), (K,) with n, K > 0"
        raise DataError(msg)
    if not (np.all(proba >= 0) and np.allclose(proba.sum(axis=1), 1, atol=1e-3)):
        msg = "proba must be non-negative and each row must sum to 1"
        raise DataError(msg)
    confidence = proba.max(axis=1)
    correct = columns[proba.argmax(axis=1)] == y_true
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(y_true))


def _two_label_arrays(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return both as arrays, which must be one-dimensional, of one length and not empty."""
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != predicted.shape or true.ndim != 1 or not len(true):
        msg = f"y_true has shape {true.shape} and y_pred {predicted.shape}; both must be (n,) with n > 0"
        raise DataError(msg)
    return true, predicted
