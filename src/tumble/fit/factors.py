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
_ITERATIONS, _TOLERANCE = 1000, 1e-6


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
        factors. Each new axis points the way of the old one that it is most like. None where there is one factor only,
        or too few objects.
    """
    n, dim = z.shape
    if dim < 2 or n < _MIN_PER_FACTOR * dim:
        return None
    centred = _within(z.astype(np.float64), y)
    values, vectors = np.linalg.eigh(centred.T @ centred / n)
    varying = values >= _MIN_SPREAD**2
    axes = vectors.copy()
    if varying.sum() > 1:
        axes[:, varying] = vectors[:, varying] @ _unmixed(centred @ vectors[:, varying])
    axes = axes[:, np.argsort(-(centred @ axes).var(axis=0), kind="stable")]
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dim)])


def _within(z: _Float, y: npt.NDArray[np.integer]) -> _Float:
    """Deviations from the mean of the own class."""
    sums, counts = np.zeros((int(y.max()) + 1, z.shape[1])), np.bincount(y)
    np.add.at(sums, y, z)
    return z - (sums / np.maximum(counts, 1)[:, None])[y]


def _unmixed(z: _Float) -> _Float:
    """Rotation (dim, dim) nearest to the mixing matrix of independent components; none where there are none."""
    ica = FastICA(whiten="unit-variance", random_state=0, max_iter=_ITERATIONS, tol=_TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            mixing = ica.fit(z).mixing_
        except ConvergenceWarning:  # nothing but normal distributions: any axes are as good, and these are principal
            return np.eye(z.shape[1])
    left, _, right = np.linalg.svd(mixing / np.linalg.norm(mixing, axis=0))
    return left @ right
