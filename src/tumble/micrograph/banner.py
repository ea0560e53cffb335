"""What software paints into images of scanning microscopes: the data banner at the bottom, and scale bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label

__all__ = ["find_banner", "has_scale_bar"]

#: A banner is no lower than this and no higher than this part of the image.
MIN_HEIGHT_PX = 8
MAX_HEIGHT = 0.25

#: In each row of a banner, at least this part of the pixels has one value, that of its background (or of a line).
BANNER_FLATNESS = 0.45

#: Rows of a micrograph hold noise, so that no value has more than this part of a row.
IMAGE_FLATNESS = 0.3

#: Rows above the banner that must be those of a micrograph.
ROWS_ABOVE = 16

#: Tolerance of equality in grey levels of 8 bits: JPEG blurs the background of a banner.
TOLERANCE_LEVELS = 4


def find_banner(pixels: npt.NDArray[Any]) -> int | None:
    """Find the data banner at the bottom of an image.

    A banner is a strip over the whole width whose rows mostly have one value. It is told from image by the noise of
    the latter, so that an image without noise, or with a strip that is not clearly set off, is taken as it is.

    Parameters
    ----------
    pixels : ndarray of shape (H, W)
        Grey levels.

    Returns
    -------
    int or None
        First row of the banner, None where there is none.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(50, 150, (200, 300)).astype(np.uint8)
    >>> image[180:] = 0
    >>> find_banner(image)
    180
    """
    height = pixels.shape[0]
    lowest = height - max(int(MAX_HEIGHT * height), MIN_HEIGHT_PX)
    if lowest <= ROWS_ABOVE:
        return None
    tail = _eight_bit(pixels)[lowest - ROWS_ABOVE :]
    flatness = np.array([_flatness(row) for row in tail])
    # From the bottom up, as far as rows are flat. Single rows of text or of ticks may be less so.
    flat = ndimage.median_filter(flatness, size=5, mode="nearest") >= BANNER_FLATNESS
    if not flat[-1] or flat.all():
        return None
    first = int(np.flatnonzero(~flat)[-1]) + 1
    # The median moves an edge by at most two rows: the first flat row of its own counts.
    window = np.arange(max(first - 3, 0), min(first + 4, len(flat)))
    jumps = np.diff(flatness[window])
    first = int(window[np.argmax(jumps)]) + 1
    above = flatness[max(first - ROWS_ABOVE, 0) : first]
    if len(tail) - first < MIN_HEIGHT_PX or first < 4 or np.max(above[:-1]) > IMAGE_FLATNESS:
        return None
    return lowest - ROWS_ABOVE + first


def _eight_bit(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    return ((pixels.astype(np.float32) - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8)


def _flatness(row: npt.NDArray[np.uint8]) -> float:
    """Part of a row that has its most frequent value, give or take the tolerance, which noise seldom meets."""
    counts = np.bincount(row, minlength=256)
    return float(counts.max() / row.size) if counts.max() > 0.8 * row.size else _near(counts) / row.size


def _near(counts: npt.NDArray[np.int64]) -> int:
    # Only where one value stands out is the blur around it counted: else it would count a narrow histogram.
    top = int(counts.argmax())
    low, high = max(top - TOLERANCE_LEVELS, 0), top + TOLERANCE_LEVELS + 1
    at_end = top <= 1 or top >= 254
    return int(counts[low:high].sum()) if at_end else int(counts[top])


def has_scale_bar(pixels: npt.NDArray[Any]) -> bool:
    """Tell whether a scale bar is painted into an image: a flat, long rectangle of the extreme grey level.

    Parameters
    ----------
    pixels : ndarray of shape (H, W)
        Grey levels.

    Returns
    -------
    bool

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(50, 150, (200, 300)).astype(np.uint8)
    >>> image[180:184, 220:280] = 255
    >>> has_scale_bar(image)
    True
    """
    width = pixels.shape[1]
    shortest = max(12, width // 25)
    for extreme in (pixels.max(), pixels.min()):
        painted = pixels == extreme
        if np.count_nonzero(painted) > 0.2 * pixels.size:  # a background, not paint
            continue
        rows = np.flatnonzero(np.count_nonzero(painted, axis=1) >= shortest)
        for group in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if len(group) >= 2 and _holds_bar(painted[group[0] : group[-1] + 1], shortest):
                return True
    return False


def _holds_bar(painted: npt.NDArray[np.bool_], shortest: int) -> bool:
    """Whether one of the connected parts of some rows is a long rectangle."""
    labels = np.asarray(label(painted, connectivity=1))
    for box in ndimage.find_objects(labels)[:10_000]:
        height, length = painted[box].shape
        long = length >= shortest and length < 0.8 * painted.shape[1]
        if long and 2 <= height <= length / 5 and painted[box].all():
            return True
    return False
