"""Touching spheres and what a scanning electron microscope shows of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["Scene", "grow_cluster", "orientation", "render", "sphere_mask"]

_SUBPIXELS = 4
_BACKGROUND = 0.2
_BRIGHTNESS = 0.58
_BRIGHTNESS_STD = 0.03
_EDGE_GAIN = 0.6
_MAX_SECANT = 3.0
_POCKET_PROBABILITY = 0.5
_OVERLAP_TOLERANCE = 1e-9

_Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Conditions of imaging.

    Parameters
    ----------
    blur_px : float
        Standard deviation of the point spread function.
    electrons : float or None
        Mean number of electrons at grey level 1; None for no shot noise.
    background_gradient : float
        Greatest change of the grey level across the image.
    """

    blur_px: float
    electrons: float | None
    background_gradient: float


def grow_cluster(diameters: _Float, rng: np.random.Generator) -> _Float:
    """Put spheres together one by one so that each touches an earlier one and none overlap.

    Parameters
    ----------
    diameters : ndarray of shape (k,)
        Diameters in px.
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of shape (k, 2)
        Centres (row, column) in px, with the centre of the projected area at (0, 0).
    """
    radii = diameters / 2
    centres = np.zeros((1, 2))
    for k in range(1, len(radii)):
        while True:
            new = _touching_position(centres, radii[: k + 1], rng)
            if new is None:
                continue
            gaps = np.hypot(*(centres - new).T) - (radii[:k] + radii[k])
            if gaps.min() > -_OVERLAP_TOLERANCE:
                break
        centres = np.vstack([centres, new])
    return centres - np.average(centres, axis=0, weights=radii**2)


def _touching_position(centres: _Float, radii: _Float, rng: np.random.Generator) -> _Float | None:
    """Propose a place for the last of `radii`: in the pocket between two spheres, or anywhere on one."""
    new = radii[-1]
    if len(centres) > 1 and rng.random() < _POCKET_PROBABILITY:
        i, j = rng.choice(len(centres), 2, replace=False)
        # Intersection of the circles about i and j on which the new centre touches each.
        axis = centres[j] - centres[i]
        distance = float(np.hypot(*axis))
        to_i, to_j = radii[i] + new, radii[j] + new
        along = (distance**2 + to_i**2 - to_j**2) / (2 * distance)
        if abs(along) > to_i:
            return None
        across = np.sqrt(to_i**2 - along**2) * rng.choice([-1.0, 1.0])
        normal = np.array([-axis[1], axis[0]])
        return centres[i] + (along * axis + across * normal) / distance
    i = rng.integers(len(centres))
    direction = rng.uniform(-np.pi, np.pi)
    return centres[i] + (radii[i] + new) * np.array([np.sin(direction), np.cos(direction)])


def orientation(centres: _Float, diameters: _Float) -> float:
    """Return the direction of the long axis in rad, in (-pi/2, pi/2], counter-clockwise as displayed.

    It is the bond of a pair and the principal axis of the projected area beyond; NaN for a single sphere.
    """
    if len(centres) < 2:
        return float("nan")
    offsets = centres - np.average(centres, axis=0, weights=diameters**2)
    moments = (offsets * diameters[:, np.newaxis] ** 2).T @ offsets
    # The eigenvector of the greatest eigenvalue; rows grow downwards, so up is -row.
    row, column = np.linalg.eigh(moments)[1][:, -1]
    angle = np.arctan2(-row, column)
    return float(np.pi / 2 - (np.pi / 2 - angle) % np.pi)


def render(
    shape: tuple[int, int], centres: _Float, diameters: _Float, scene: Scene, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], _Float]:
    """Draw an image of spheres.

    The yield of secondary electrons grows with the inverse cosine of the slope, which makes edges bright. The
    image is blurred, then laid on a linear background, then counted as electrons.

    Parameters
    ----------
    shape : tuple of int
        Height and width in px.
    centres : ndarray of shape (k, 2)
        Centres (row, column) in px; they may lie outside.
    diameters : ndarray of shape (k,)
        Diameters in px.
    scene : Scene
        Conditions of imaging.
    rng : Generator
        Source of randomness.

    Returns
    -------
    image : ndarray of `shape`, float32
        Grey levels in [0, 1].
    gradient : ndarray of shape (2,)
        Change of the background across the image along rows and columns.
    """
    fine = np.full((shape[0] * _SUBPIXELS, shape[1] * _SUBPIXELS), _BACKGROUND, dtype=np.float32)
    brightness = rng.normal(_BRIGHTNESS, _BRIGHTNESS_STD, len(centres))
    for centre, diameter, level in zip(centres, diameters, brightness, strict=True):
        _draw_sphere(fine, centre, diameter, level)
    blocks = fine.reshape(shape[0], _SUBPIXELS, shape[1], _SUBPIXELS).mean(axis=(1, 3))
    image = ndimage.gaussian_filter(blocks, scene.blur_px, mode="nearest")
    direction = rng.uniform(-np.pi, np.pi)
    strength = rng.uniform(0, scene.background_gradient)
    gradient = strength * np.array([np.sin(direction), np.cos(direction)])
    rows, columns = (np.linspace(-0.5, 0.5, n) for n in shape)
    image = image + gradient[0] * rows[:, np.newaxis] + gradient[1] * columns
    if scene.electrons is not None:
        image = rng.poisson(np.clip(image, 0, None) * scene.electrons) / scene.electrons
    return np.clip(image, 0, 1).astype(np.float32), gradient


def _draw_sphere(fine: npt.NDArray[np.float32], centre: _Float, diameter: float, level: float) -> None:
    """Draw one sphere into an image of sub-pixels, in place, as far as it lies inside."""
    radius = diameter / 2 * _SUBPIXELS
    # Pixel centres are at whole coordinates, so sub-pixel i is at (i + 0.5) / _SUBPIXELS - 0.5.
    middle = (centre + 0.5) * _SUBPIXELS - 0.5
    low = np.maximum(np.floor(middle - radius), 0).astype(int)
    high = np.minimum(np.ceil(middle + radius) + 1, fine.shape).astype(int)
    if np.any(high <= low):
        return
    window = fine[low[0] : high[0], low[1] : high[1]]
    rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
    slope = ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / radius**2
    inside = slope < 1
    secant = np.minimum(1 / np.sqrt(np.maximum(1 - slope, 1e-6)), _MAX_SECANT)
    yields = level * (1 + _EDGE_GAIN * (secant - 1) / (_MAX_SECANT - 1))
    window[inside] = yields[inside]


def sphere_mask(shape: tuple[int, int], centres: _Float, diameters: _Float) -> npt.NDArray[np.bool_]:
    """Return which pixels have their centre within the outline of a sphere."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=bool)
    for (row, column), diameter in zip(centres, diameters, strict=True):
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= (diameter / 2) ** 2
    return mask
