"""After the training: turn the latent axes so that each follows one factor of the data, as far as data can tell.

The prior of the latent factors is round and the decoder's first layer is linear in them, so that the bound is nearly
the same for any rotation of the latent space, and a fit ends at any: a model that knows size and shear of its objects
may hold half of both in each latent factor. Factors that vary independently of each other, and not all by a normal
distribution, have one set of axes along which they are independent, which independent component analysis finds [1].

References
----------
.. [1] A. Hyvärinen, E. Oja, "Independent component analysis: algorithms and applications", Neural Networks 13, 411,
       2000, https://doi.org/10.1016/S0893-6080(00)00026-5
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

__all__ = ["independent_axes"]

_Float = npt.NDArray[np.floating]

#: Objects per latent factor, without which the axes stay as they are: independence cannot be seen in a handful.
_MIN_PER_FACTOR = 50
#: Directions along which the posterior means vary by less than this share of the prior's width hold nothing.
_MIN_SPREAD = 0.1
_ITERATIONS, _TOLERANCE = 300, 1e-6


def independent_axes(z: _Float, y: npt.NDArray[np.integer]) -> _Float | None:
    """Give the rotation of the latent space after which the factors are as independent as they can be.

    Parameters
    ----------
    z : ndarray of shape (n, latent_dim)
        Posterior means of objects, in units of the prior.
    y : ndarray of shape (n,)
        Class of each. Only what varies within the classes counts; all classes share the axes.

    Returns
    -------
    ndarray of shape (latent_dim, latent_dim) or None
        Orthogonal; the columns are the new axes, the one of the largest variance first, and ``z @ axes`` are the new
        factors. Each new axis points the way of the old one that it is most like. None where the space has one
        dimension, or there are fewer than 50 objects for each, or a number is not finite.
    """
    n, dim = z.shape
    if dim < 2 or n < _MIN_PER_FACTOR * dim or not np.isfinite(z).all():
        return None
    centred = z.astype(np.float64) - _of_own_class(z, y)
    values, vectors = np.linalg.eigh(centred.T @ centred / n)
    varying = values >= _MIN_SPREAD**2
    axes = vectors.copy()
    if varying.sum() > 1:
        # Classes of different width together would have heavy tails in all directions, most in the diagonal ones.
        widths = np.sqrt(_of_own_class(np.square(centred).mean(axis=1, keepdims=True), y))
        standard = centred / np.maximum(widths, _MIN_SPREAD)
        axes[:, varying] = vectors[:, varying] @ _unmixed(standard @ vectors[:, varying])
    axes = axes[:, np.argsort(-(centred @ axes).var(axis=0), kind="stable")]
    return np.ascontiguousarray(axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dim)]))


def _of_own_class(values: _Float, y: npt.NDArray[np.integer]) -> _Float:
    """Mean of each column over the class that a row belongs to, for each row."""
    sums = np.zeros((int(y.max()) + 1, values.shape[1]))
    np.add.at(sums, y, values)
    return (sums / np.maximum(np.bincount(y), 1)[:, None])[y]


def _unmixed(z: _Float) -> _Float:
    """Rotation (dim, dim) nearest to the mixing matrix of independent components."""
    ica = FastICA(whiten="unit-variance", random_state=0, max_iter=_ITERATIONS, tol=_TOLERANCE)
    with warnings.catch_warnings():
        # Factors that are normally distributed have no axes of their own and turn among themselves without an end; the
        # others have settled long before.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixing = ica.fit(z).mixing_
    left, _, right = np.linalg.svd(mixing / np.linalg.norm(mixing, axis=0))
    return left @ right
