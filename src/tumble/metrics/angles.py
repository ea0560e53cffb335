"""Scores of inferred angles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tumble.errors import ConfigError, DataError

__all__ = ["angle_error", "circular_correlation"]


def angle_error(
    true: npt.ArrayLike, predicted: npt.ArrayLike, *, symmetry: npt.ArrayLike = 1
) -> npt.NDArray[np.float64]:
    """Return the least absolute difference of angles, modulo the rotational symmetry of the object.

    Parameters
    ----------
    true, predicted : array of shape (n,)
        Angles in rad, of any number of turns.
    symmetry : int or array of shape (n,), default=1
        Order of the symmetry: an object of order m looks the same after every turn by 2 pi / m.

    Returns
    -------
    ndarray of shape (n,), float64
        In rad, from 0 to pi / `symmetry`.

    Raises
    ------
    ConfigError
        If `symmetry` is not a whole number of at least 1.

    Examples
    --------
    >>> angle_error([0.1, 0.0], [0.1 - 2 * np.pi, np.pi]).round(6)
    array([0.      , 3.141593])
    >>> angle_error([0.0], [np.pi], symmetry=2).round(6)
    array([0.])
    """
    order = np.asarray(symmetry)
    if not np.issubdtype(order.dtype, np.number) or not np.all((order >= 1) & (order % 1 == 0)):
        msg = f"symmetry={symmetry!r} must be whole numbers of at least 1"
        raise ConfigError(msg)
    period = 2 * np.pi / order
    difference = np.asarray(true, dtype=np.float64) - np.asarray(predicted, dtype=np.float64)
    # Subtracting the nearest whole number of periods is symmetric in both angles, which "%" is not.
    return np.abs(difference - period * np.round(difference / period))


def circular_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the circular correlation coefficient of two sets of angles [1]_.

    Parameters
    ----------
    a, b : array of shape (n,)
        Angles in rad. Multiply both by m to compare angles modulo an m-fold symmetry.

    Returns
    -------
    float
        In [-1, 1]; 1 if the angles differ by a constant, NaN if one of them does not vary. Where the angles
        are uniform over the circle their mean direction is arbitrary and so is the coefficient: then judge by
        :func:`angle_error`.

    Raises
    ------
    DataError
        If the arrays differ in shape, are not one-dimensional or are empty.

    References
    ----------
    .. [1] S. R. Jammalamadaka and A. SenGupta, "Topics in Circular Statistics", World Scientific, 2001,
       section 8.2.

    Examples
    --------
    >>> a = np.array([0.1, 0.7, 1.5, 3.0])
    >>> round(circular_correlation(a, a + 2.0), 6), round(circular_correlation(a, -a), 6)
    (1.0, -1.0)
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        msg = f"a has shape {a.shape} and b {b.shape}; both must be (n,) with n > 0"
        raise DataError(msg)
    sine_a, sine_b = (np.sin(angles - np.angle(np.exp(1j * angles).mean())) for angles in (a, b))
    scale = np.sqrt((sine_a**2).sum() * (sine_b**2).sum())
    # A constant has deviations of rounding size only; their ratio would be noise.
    return float((sine_a * sine_b).sum() / scale) if scale > 1e-12 * len(a) else float("nan")
