"""What a user would pick instead: simple classifiers to compare with, behind the face of the estimator.

Rows of y that are unlabelled are left out of the fit: -1, None or NaN, and "-1", which is what -1 becomes in
an array of strings.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from tumble.errors import DataError, NotFittedError
from tumble.validation import check_labels

__all__ = ["AreaTreeClassifier", "PixelForestClassifier"]

_Seed = int | np.random.RandomState | None


class _TableClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn on a table that `_table` makes of X, without the unlabelled rows."""

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit to the labelled rows.

        Parameters
        ----------
        X : array of n rows
            What the class says.
        y : array of shape (n,)
            Labels, whole numbers or strings; unlabelled rows are left out.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If `X` has another shape, or values that are not finite.
        LabelError
            If `y` has another length or labels fewer than two classes.
        """
        table = self._table(X)
        labels, unlabelled = check_labels(y, len(table))
        self._model = self._make_model().fit(table[~unlabelled], labels[~unlabelled])
        self.classes_ = self._model.classes_
        self.n_features_in_ = table.shape[1]
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array of n rows
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,)
        """
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the probability of each class of `classes_`.

        Parameters
        ----------
        X : array of n rows
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, K), float64
            Rows sum to 1.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If `X` has another shape than in `fit`, or values that are not finite.
        """
        if not hasattr(self, "_model"):
            msg = f"this {type(self).__name__} is not fitted; call fit first"
            raise NotFittedError(msg)
        table = self._table(X)
        if table.shape[1] != self.n_features_in_:
            msg = f"X has {table.shape[1]} values per row; fit saw {self.n_features_in_}"
            raise DataError(msg)
        return np.asarray(self._model.predict_proba(table))

    def _table(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        raise NotImplementedError

    def _make_model(self) -> DecisionTreeClassifier | RandomForestClassifier:
        raise NotImplementedError


class AreaTreeClassifier(_TableClassifier):
    """A decision tree on the area of the particle and nothing else.

    Where classes differ in the number of particles the area alone says much. A method that looks at shape
    must do better than this.

    Parameters
    ----------
    max_depth : int, default=3
        Greatest depth of the tree.
    random_state : int, RandomState or None, default=None
        Seed, as in scikit-learn.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Classes, sorted.

    Notes
    -----
    X is the area, of shape (n,) or (n, 1), in any unit as long as it is the same. Classes have equal weight
    however many labels they have.

    Examples
    --------
    >>> area = [50, 55, 100, 105, 70]
    >>> tree = AreaTreeClassifier(random_state=0).fit(area, ["one", "one", "two", "two", None])
    >>> tree.predict([52, 110]).tolist()
    ['one', 'two']
    """

    def __init__(self, max_depth: int = 3, random_state: _Seed = None) -> None:
        self.max_depth = max_depth
        self.random_state = random_state

    def _table(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        area = np.asarray(X, dtype=np.float64)
        if area.ndim not in (1, 2) or (area.ndim == 2 and area.shape[1] != 1):
            msg = f"X has shape {area.shape}; give one area per particle, (n,) or (n, 1)"
            raise DataError(msg)
        return _finite(area.reshape(-1, 1))

    def _make_model(self) -> DecisionTreeClassifier:
        return DecisionTreeClassifier(max_depth=self.max_depth, class_weight="balanced", random_state=self.random_state)


class PixelForestClassifier(_TableClassifier):
    """A random forest on raw pixels, which knows nothing of rotation.

    Parameters
    ----------
    n_estimators : int, default=300
        Number of trees.
    random_state : int, RandomState or None, default=None
        Seed, as in scikit-learn.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Classes, sorted.

    Notes
    -----
    X holds images, of shape (n, H, W) or (n, C, H, W). Classes have equal weight however many labels they
    have.

    Examples
    --------
    >>> X = np.zeros((4, 2, 2))
    >>> X[:2, 0, 0] = X[2:, 1, 1] = 1
    >>> forest = PixelForestClassifier(n_estimators=10, random_state=0).fit(X, [0, -1, 1, 1])
    >>> forest.predict(X).tolist()
    [0, 0, 1, 1]
    """

    def __init__(self, n_estimators: int = 300, random_state: _Seed = None) -> None:
        self.n_estimators = n_estimators
        self.random_state = random_state

    def _table(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        images = np.asarray(X)
        if images.ndim not in (3, 4) or images.size == 0:
            msg = f"X has shape {images.shape}; give images, (n, H, W) or (n, C, H, W)"
            raise DataError(msg)
        table = images.reshape(len(images), -1)
        # Trees work in float32; the grey levels of uint8 keep their order, so no scaling is needed, but one
        # and the same picture must mean the same in both forms.
        return _finite(table.astype(np.float32) / (255 if images.dtype == np.uint8 else 1))

    def _make_model(self) -> RandomForestClassifier:
        return RandomForestClassifier(
            n_estimators=self.n_estimators, class_weight="balanced", random_state=self.random_state
        )


def _finite(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.isfinite(table).all():
        msg = f"X has {np.sum(~np.isfinite(table))} values that are not finite; remove those rows"
        raise DataError(msg)
    return table
