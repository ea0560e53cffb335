"""Background, noise and intensity range of a micrograph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["estimate_background", "estimate_local_background", "estimate_noise", "intensity_range", "to_uint8"]

#: Percentiles that become black and white in the crops of an image that is not 8-bit.
RANGE_PERCENTILES = (0.1, 99.9)

#: A surface with six coefficients needs no more samples than this, however large the image is.
MAX_BACKGROUND_SAMPLES = 20_000

#: Side of the coarse image on which the running median is taken; its cost grows with the fourth power.
COARSE_SIDE_PX = 64

#: Factor from the median absolute deviation to the standard deviation of a normal distribution.
MAD_TO_STD = 1.4826


def estimate_background(pixels: npt.NDArray[Any], *, n_iter: int = 20) -> npt.NDArray[np.float32]:
    """Estimate the slow variation of a micrograph's background.

    Uneven illumination, charging and a tilted substrate vary over the whole field of view, so a surface of
    second degree describes them, and objects of any size leave it alone. It is fitted by iteratively
    reweighted least squares with Tukey's biweight, for which particles are outliers as long as they cover
    less than about half of the image.

    Parameters
    ----------
    pixels : ndarray of shape (H, W)
        Intensities.
    n_iter : int, default=20
        Number of reweightings.

    Returns
    -------
    ndarray of shape (H, W), float32
        Background in the units of `pixels`.

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.linspace(10, 50, 64)[None, :] + np.zeros((64, 1))
    >>> image = ramp.copy()
    >>> image[20:30, 20:30] += 100
    >>> bool(np.abs(estimate_background(image) - ramp).max() < 0.1)
    True
    """
    height, width = pixels.shape
    stride = max(1, int(np.ceil(np.sqrt(pixels.size / MAX_BACKGROUND_SAMPLES))))
    rows, columns = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    values = pixels[::stride, ::stride].astype(np.float64)
    basis = _quadratic_basis(rows[::stride], columns[::stride])

    # The median is where the surface starts: least squares would start between background and particles.
    values = values.ravel()
    coefficients = np.array([np.median(values), 0, 0, 0, 0, 0])
    for _ in range(n_iter):
        residual = values - basis @ coefficients
        residual_scale = MAD_TO_STD * np.median(np.abs(residual))
        if residual_scale == 0:
            break
        weight = np.clip(1 - (residual / (3 * residual_scale)) ** 2, 0, None)
        weighted = (basis * weight[:, None] ** 2).T
        coefficients = np.linalg.lstsq(weighted @ basis, weighted @ values, rcond=None)[0]
    c0, c_row, c_column, c_row2, c_mixed, c_column2 = coefficients
    row_part = c0 + c_row * rows + c_row2 * rows**2
    column_part = c_column * columns + c_column2 * columns**2
    surface = row_part[:, None] + column_part[None, :] + c_mixed * np.outer(rows, columns)
    return surface.astype(np.float32)


def estimate_local_background(pixels: npt.NDArray[Any], *, window: float = 0.25) -> npt.NDArray[np.float32]:
    """Estimate a background that varies in any slow way, by a running median.

    Unlike the surface of :func:`estimate_background` it follows stripes, steps of a substrate and stains, and it
    takes everything for background that covers more than half of the window.

    Parameters
    ----------
    pixels : ndarray of shape (H, W)
        Intensities.
    window : float, default=0.25
        Side of the window, as a part of the shorter side of the image.

    Returns
    -------
    ndarray of shape (H, W), float32
        Background in the units of `pixels`.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.where(np.arange(128) < 64, 20.0, 90.0) + np.zeros((128, 1))
    >>> image[50:58, 20:28] += 100
    >>> float(estimate_local_background(image)[54, 24])
    20.0
    """
    step = max(1, -(-max(pixels.shape) // COARSE_SIDE_PX))
    padded = np.pad(pixels, [(0, -n % step) for n in pixels.shape], mode="edge").astype(np.float32)
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    # Medians of blocks rather than single pixels, which would carry their noise into the background.
    coarse = np.median(blocks, axis=(1, 3))
    size = max(3, round(window * min(coarse.shape)) | 1)
    ground = ndimage.median_filter(coarse, size=size, mode="nearest")
    positions = [(np.arange(n) - (step - 1) / 2) / step for n in pixels.shape]
    grid = np.meshgrid(*positions, indexing="ij")
    return ndimage.map_coordinates(ground, grid, order=1, mode="nearest").astype(np.float32)


def _quadratic_basis(rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """All monomials up to degree two of the pixel positions, shape (n_rows * n_columns, 6)."""
    r, c = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    return np.stack([np.ones_like(r), r, c, r * r, r * c, c * c], axis=1)


def estimate_noise(pixels: npt.NDArray[Any]) -> float:
    """Estimate the standard deviation of the noise of single pixels.

    A mask that is blind to constant, linear and quadratic structure along rows and columns [1]_ leaves noise
    alone; the median of its magnitude is not moved by the edges of particles.

    Parameters
    ----------
    pixels : ndarray of shape (H, W)
        Intensities.

    Returns
    -------
    float
        Standard deviation in the units of `pixels`.

    References
    ----------
    .. [1] J. Immerkær, "Fast noise variance estimation", Computer Vision and Image Understanding 64 (1996)
           300-302.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).normal(scale=5.0, size=(256, 256))
    >>> round(estimate_noise(noise))
    5
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    response = ndimage.convolve(pixels.astype(np.float32), mask, mode="reflect")
    return float(MAD_TO_STD * np.median(np.abs(response)) / np.linalg.norm(mask))


def intensity_range(pixels: npt.NDArray[Any]) -> tuple[float, float]:
    """Give the intensities that become black (0) and white (255) in crops.

    Parameters
    ----------
    pixels : ndarray
        Intensities.

    Returns
    -------
    tuple of float
        (0, 255) for 8-bit images, whose crops therefore keep their values; otherwise the percentiles 0.1 and
        99.9, so that a few hot or dead pixels do not take the contrast away.

    Examples
    --------
    >>> import numpy as np
    >>> intensity_range(np.array([[3, 7]], dtype=np.uint8))
    (0.0, 255.0)
    """
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    low, high = (float(value) for value in np.percentile(pixels, RANGE_PERCENTILES))
    if low == high:  # nearly all pixels are equal: the few others carry the image
        low, high = float(pixels.min()), float(pixels.max())
    return low, high


def to_uint8(values: npt.NDArray[Any], value_range: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Map intensities linearly so that `value_range` becomes 0 to 255, clipping what lies outside.

    Parameters
    ----------
    values : ndarray
        Intensities.
    value_range : tuple of float
        Intensities that become 0 and 255; the second is the greater.

    Returns
    -------
    ndarray of uint8
        Grey levels, same shape as `values`.

    Examples
    --------
    >>> import numpy as np
    >>> to_uint8(np.array([-1.0, 0.0, 0.5, 1.0]), (0.0, 1.0))
    array([  0,   0, 128, 255], dtype=uint8)
    """
    low, high = value_range
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
