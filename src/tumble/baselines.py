"""What a user would pick instead: simple classifiers to compare with, behind the face of the estimator.

Rows of y that are unlabelled are left out of the fit (but for label spreading, which uses them): -1, None or NaN, and
"-1", which is what -1 becomes in an array of strings.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.semi_supervised import LabelSpreading
from sklearn.tree import DecisionTreeClassifier

from tumble.errors import DataError, NotFittedError
from tumble.validation import check_labels, encode_labels

__all__ = [
    "AreaTreeClassifier",
    "PixelBoostingClassifier",
    "PixelForestClassifier",
    "PixelSpreadingClassifier",
    "PixelTreeClassifier",
]

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
        return self._proba(table)

    def _proba(self, table: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(self._model.predict_proba(table))

    def _table(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        raise NotImplementedError

    def _make_model(self) -> DecisionTreeClassifier | RandomForestClassifier | HistGradientBoostingClassifier:
        raise NotImplementedError


class _PixelClassifier(_TableClassifier):
    """A classifier on raw pixels, one row of the table per image."""

    def _table(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        images = np.asarray(X)
        if images.ndim not in (3, 4) or images.size == 0:
            msg = f"X has shape {images.shape}; give images, (n, H, W) or (n, C, H, W)"
            raise DataError(msg)
        table = images.reshape(len(images), -1)
        # Trees work in float32; the grey levels of uint8 keep their order, so no scaling is needed, but one
        # and the same picture must mean the same in both forms.
        return _finite(table.astype(np.float32) / (255 if images.dtype == np.uint8 else 1))


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


class PixelForestClassifier(_PixelClassifier):
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

    def _make_model(self) -> RandomForestClassifier:
        return RandomForestClassifier(
            n_estimators=self.n_estimators, class_weight="balanced", random_state=self.random_state
        )


class PixelTreeClassifier(_PixelClassifier):
    """One decision tree on raw pixels.

    Parameters
    ----------
    max_depth : int or None, default=None
        Greatest depth of the tree; None lets it grow until its leaves are pure.
    random_state : int, RandomState or None, default=None
        Seed, as in scikit-learn.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Classes, sorted.

    Notes
    -----
    X and the weight of the classes are as in :class:`PixelForestClassifier`.
    """

    def __init__(self, max_depth: int | None = None, random_state: _Seed = None) -> None:
        self.max_depth = max_depth
        self.random_state = random_state

    def _make_model(self) -> DecisionTreeClassifier:
        return DecisionTreeClassifier(max_depth=self.max_depth, class_weight="balanced", random_state=self.random_state)


class PixelBoostingClassifier(_PixelClassifier):
    """Gradient-boosted trees on raw pixels.

    Parameters
    ----------
    max_iter : int, default=100
        Number of rounds; each makes one tree per class.
    min_samples_leaf : int, default=2
        Fewest labelled images in a leaf. scikit-learn's own 20 would forbid every split where labels are few.
    random_state : int, RandomState or None, default=None
        Seed, as in scikit-learn.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Classes, sorted.

    Notes
    -----
    X and the weight of the classes are as in :class:`PixelForestClassifier`. No labels are held back to stop early.
    """

    def __init__(self, max_iter: int = 100, min_samples_leaf: int = 2, random_state: _Seed = None) -> None:
        self.max_iter = max_iter
        self.min_samples_leaf = min_samples_leaf
        self.random_state = random_state

    def _make_model(self) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            max_iter=self.max_iter,
            min_samples_leaf=self.min_samples_leaf,
            early_stopping=False,  # pyright: ignore[reportArgumentType]  (the stub knows only its default "auto")
            class_weight="balanced",
            random_state=self.random_state,
        )


class PixelSpreadingClassifier(_PixelClassifier):
    """Label spreading [1]_ over the neighbours of all images, labelled or not, in principal components of the pixels.

    Parameters
    ----------
    n_components : int, default=50
        Principal components of all images; fewer where there are fewer images or pixels.
    n_neighbors : int, default=7
        Neighbours of each image in the graph.
    alpha : float, default=0.2
        Share of its label that an image takes from its neighbours, between 0 and 1.
    random_state : int, RandomState or None, default=None
        Seed of the principal components, as in scikit-learn.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Classes, sorted.

    Notes
    -----
    X is as in :class:`PixelForestClassifier`. An image none of whose neighbours any label reached has the same
    probability of every class.

    References
    ----------
    .. [1] D. Zhou, O. Bousquet, T. N. Lal, J. Weston and B. Schölkopf, "Learning with local and global consistency",
       NeurIPS, 2003.
    """

    def __init__(
        self, n_components: int = 50, n_neighbors: int = 7, alpha: float = 0.2, random_state: _Seed = None
    ) -> None:
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit to all rows, labelled and unlabelled.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, C, H, W)
            Images.
        y : array of shape (n,)
            Labels, whole numbers or strings; -1 or None where there is none.

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
        self.classes_, indices = encode_labels(labels, unlabelled)
        self._components = PCA(min(self.n_components, *table.shape), random_state=self.random_state).fit(table)
        spreading = LabelSpreading(
            kernel="knn", n_neighbors=min(self.n_neighbors, len(table)), alpha=self.alpha, max_iter=3000, tol=1e-7
        )
        self._model = spreading.fit(self._components.transform(table), indices)
        self.n_features_in_ = table.shape[1]
        return self

    def _proba(self, table: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        # scikit-learn divides by the sum of what reached the neighbours, which may be nothing.
        with np.errstate(invalid="ignore"):
            probabilities = np.asarray(self._model.predict_proba(self._components.transform(table)))
        return np.where(np.isfinite(probabilities), probabilities, 1 / len(self.classes_))


def _finite(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.isfinite(table).all():
        msg = f"X has {np.sum(~np.isfinite(table))} values that are not finite; remove those rows"
        raise DataError(msg)
    return table
