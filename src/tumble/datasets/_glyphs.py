"""Four suits of playing cards, drawn from circles and straight lines."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GLYPH_CLASSES", "card_glyphs"]

#: Names of the glyphs of :func:`card_glyphs`, in order.
GLYPH_CLASSES = ("club", "spade", "diamond", "heart")

_SIZE_PX = 64
_SUBPIXELS = 8

_Bool = npt.NDArray[np.bool_]
_Float = npt.NDArray[np.float64]


def card_glyphs() -> npt.NDArray[np.float32]:
    """Return the four glyphs: upright, anti-aliased, intensity 1 on a background of 0.

    Returns
    -------
    ndarray of shape (4, 64, 64), float32
        Club, spade, diamond and heart, with the centre of mass of each in the middle of the image and no part
        of it farther than 18 px from there: it stays within 48 x 48 px at any angle when magnified 1.3 times.

    Examples
    --------
    >>> card_glyphs().shape
    (4, 64, 64)
    """
    return _draw_glyphs().copy()


@cache
def _draw_glyphs() -> npt.NDArray[np.float32]:
    return np.stack([_render(shape) for shape in (_club, _spade, _diamond, _heart)])


def _render(shape: Callable[[_Float, _Float], _Bool]) -> npt.NDArray[np.float32]:
    """Draw with sub-pixels, then again with the centre of mass moved to the middle."""
    n = _SIZE_PX * _SUBPIXELS
    axis = ((np.arange(n) + 0.5) / _SUBPIXELS) - _SIZE_PX / 2
    right, up = axis[np.newaxis, :], -axis[:, np.newaxis]
    inside = shape(right, up)
    centre_up = float((inside * up).sum() / inside.sum())
    inside = shape(right, up + centre_up)
    blocks = inside.reshape(_SIZE_PX, _SUBPIXELS, _SIZE_PX, _SUBPIXELS)
    return blocks.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)


def _disc(right: _Float, up: _Float, x: float, y: float, radius: float) -> _Bool:
    return (right - x) ** 2 + (up - y) ** 2 <= radius**2


def _stem(right: _Float, up: _Float, top: float, bottom: float, half_width: float) -> _Bool:
    """Return a foot that flares out towards the bottom."""
    depth = np.clip((top - up) / (top - bottom), 0.0, 1.0)
    return (np.abs(right) <= 1.2 + half_width * depth**3) & (up <= top) & (up >= bottom)


def _heart_shape(right: _Float, up: _Float, lobe_x: float, radius: float, height: float) -> _Bool:
    """Two discs at height 0, and the sides that touch them and meet in a tip `height` below."""
    lobes = _disc(right, up, -lobe_x, 0.0, radius) | _disc(right, up, lobe_x, 0.0, radius)
    # The right-hand side is the tangent from the tip (0, -height) to the right-hand disc.
    distance = np.hypot(lobe_x, height)
    lean = np.arctan2(lobe_x, height) + np.arcsin(radius / distance)
    reach = np.sqrt(distance**2 - radius**2)
    touch_up = reach * np.cos(lean) - height
    wedge = (np.abs(right) <= (up + height) * np.tan(lean)) & (up <= touch_up)
    # Between the points of touch and the centres of the discs, fill the space that the wedge leaves.
    filling = (np.abs(right) <= lobe_x) & (up <= 0.0) & (up >= touch_up)
    return lobes | wedge | filling


def _heart(right: _Float, up: _Float) -> _Bool:
    return _heart_shape(right, up, lobe_x=6.3, radius=7.0, height=19.5)


def _spade(right: _Float, up: _Float) -> _Bool:
    leaf = _heart_shape(right, -up, lobe_x=6.0, radius=6.6, height=19.0)
    return leaf | _stem(right, up, top=0.0, bottom=-11.0, half_width=4.2)


def _club(right: _Float, up: _Float) -> _Bool:
    leaves = [_disc(right, up, x, y, 6.5) for x, y in ((0.0, 7.9), (-8.0, -2.6), (8.0, -2.6))]
    middle = _disc(right, up, 0.0, 0.5, 3.2)
    return np.any(leaves, axis=0) | middle | _stem(right, up, top=0.0, bottom=-14.0, half_width=4.2)


def _diamond(right: _Float, up: _Float) -> _Bool:
    return np.abs(right) / 11.0 + np.abs(up) / 15.0 <= 1.0
