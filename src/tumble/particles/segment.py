"""Which pixels belong to which particle.

The boundary of a particle is taken where the intensity is half-way between the particle and the background
around it. There a symmetric blur leaves a straight edge in place, whatever its width, so that the measured
size does not depend on focus or on the brightness of the particle. Both levels are local means, taken over
the width of a typical particle, so faint particles beside bright ones keep their size.
Blurred edges take part in these means, which makes particles of few pixels come out slightly large: ellipses
10 to 30 px wide, blurred by a Gaussian of 1 px, within 6 % of their area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import watershed

from tumble.errors import ConfigError, DataError
from tumble.micrograph import estimate_background, estimate_local_background, estimate_noise

if TYPE_CHECKING:
    from tumble.types import Micrograph

__all__ = ["Background", "Polarity", "Segmentation", "Split", "Threshold", "background_around", "segment_particles"]

Polarity = Literal["auto", "bright", "dark", "both"]
Background = Literal["surface", "local"]
Split = bool | Literal["distance", "intensity"]
Threshold = Literal["local", "otsu"] | float

#: Where between background and particle the boundary lies: the half-maximum.
BOUNDARY_LEVEL = 0.5

#: Standard deviation of the Gaussian window of local means, in widths of a typical particle. Half a width
#: reaches to the nearest neighbours and no further.
WINDOW_PER_WIDTH = 0.5

#: Level and boundary depend on each other; three rounds settle both.
N_ROUNDS = 3

#: A boundary must stand out from the background by this many standard deviations of the smoothed noise.
MIN_SIGNAL_TO_NOISE = 5.0

#: How far the blurred edge of an object reaches beyond its boundary.
EDGE_PX = 2

#: Weight of the mean over the whole image in a local mean that has no pixels nearby.
PRIOR_WEIGHT = 1e-3

FloatImage = npt.NDArray[np.float32]
BoolImage = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Segmentation:
    """Objects of a micrograph and the levels they were found with.

    Parameters
    ----------
    labels : ndarray of shape (H, W), int32
        0 is background; objects are numbered from 1.
    background : ndarray of shape (H, W), float32
        Background intensity, interpolated beneath the objects.
    polarity : {"bright", "dark", "both"}
        Whether the objects are brighter or darker than the background.
    typical_width_px : float
        Typical width of the objects, from which the window of local means was taken.
    threshold_used : str
        The threshold in words, for messages.
    """

    labels: npt.NDArray[np.int32]
    background: FloatImage
    polarity: Literal["bright", "dark", "both"]
    typical_width_px: float
    threshold_used: str


def segment_particles(
    micrograph: Micrograph,
    *,
    polarity: Polarity = "auto",
    threshold: Threshold = "local",
    smoothing_px: float = 1.0,
    background: Background = "surface",
    split_touching: Split = False,
    fill_holes: bool = True,
) -> Segmentation:
    """Find the objects of a micrograph.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    polarity : {"auto", "bright", "dark", "both"}, default="auto"
        Whether particles are brighter or darker than the background. "auto" takes the side that covers less
        of the image, "both" finds those of either kind.
    threshold : {"local", "otsu"} or float, default="local"
        "local": half-way between each particle and the background around it. "otsu": one level for the whole
        image after its uneven illumination is removed. A number: that intensity, as in the micrograph.
    smoothing_px : float, default=1.0
        Standard deviation of the Gaussian that suppresses the noise of single pixels; 0 for none.
    background : {"surface", "local"}, default="surface"
        Uneven illumination that is removed first: a surface of second degree, or a running median over a quarter
        of the image, which follows any slow change but takes larger objects for background.
    split_touching : bool or {"distance", "intensity"}, default=False
        Cut clusters of touching particles by a watershed: of the distance from the edge, which cuts at necks
        ("distance", the same as True), or of the intensity, which cuts where it dips between two peaks. By default
        a cluster is one object.
    fill_holes : bool, default=True
        Count holes in an object as part of it.

    Returns
    -------
    Segmentation
        Label image, background and what was used to find them.

    Raises
    ------
    DataError
        Nothing stands out from the background.
    """
    pixels = micrograph.pixels
    smoothed = _smooth(pixels, smoothing_px)
    surface = estimate_background(pixels) if background == "surface" else estimate_local_background(pixels)
    flat = smoothed - surface
    floor = MIN_SIGNAL_TO_NOISE * _noise_after_smoothing(pixels, smoothing_px)
    if polarity == "both":
        if not isinstance(threshold, str):
            raise ConfigError(f"threshold={threshold!r}: one intensity cannot find both bright and dark particles.")
        signs = [sign for sign in (1, -1) if _stands_out(sign * flat, floor)] or [1]
    else:
        signs = [_sign(polarity, flat, threshold, smoothed)]

    labels = np.zeros(pixels.shape, dtype=np.int32)
    widths, used = [], []
    for sign in signs:
        foreground, words = _foreground(sign * flat, sign * smoothed, sign, threshold, floor)
        width = _typical_width(foreground)
        found = _objects(foreground, width, sign * flat, split_touching=split_touching, fill_holes=fill_holes)
        # Where both kinds claim a pixel, as for a hole in an object, the first keeps it.
        labels = np.where((labels == 0) & (found > 0), found + labels.max(), labels)
        widths.append(width)
        used.append(words)
    if not (labels > 0).any() or (len(signs) == 1 and (labels > 0).all()):
        raise nothing_found(micrograph.source, "; ".join(used))
    width = float(max(widths))
    beneath = surface + _background_beneath(flat, labels > 0, width)
    kind = "both" if polarity == "both" else "bright" if signs[0] > 0 else "dark"
    return Segmentation(labels, beneath, kind, width, "; ".join(used))


def background_around(pixels: npt.NDArray[Any], objects: BoolImage) -> tuple[FloatImage, float]:
    """Estimate the background beneath objects that are known.

    Parameters
    ----------
    pixels : ndarray of shape (H, W)
        Intensities.
    objects : ndarray of shape (H, W), bool
        True within objects.

    Returns
    -------
    background : ndarray of shape (H, W), float32
        In the units of `pixels`.
    typical_width_px : float
        Typical width of the objects.
    """
    surface = estimate_background(pixels)
    width = _typical_width(objects)
    if objects.all():
        return surface, width
    return surface + _background_beneath(pixels - surface, objects, width), width


def _stands_out(flat: FloatImage, floor: float) -> bool:
    return bool((flat > max(float(threshold_otsu(flat)), floor)).any())


def _foreground(
    flat: FloatImage, smoothed: FloatImage, sign: int, threshold: Threshold, floor: float
) -> tuple[BoolImage, str]:
    """Pixels above the threshold, where objects are bright in both images, and the threshold in words."""
    otsu_level = max(float(threshold_otsu(flat)), floor)
    if isinstance(threshold, str):
        foreground = flat > otsu_level
        used = f"Otsu, {otsu_level:.4g} {'above' if sign > 0 else 'below'} the background"
    else:
        foreground = smoothed > sign * threshold
        used = f"{threshold:.4g}"
    if threshold == "local" and foreground.any():
        foreground = _half_way(flat, foreground, WINDOW_PER_WIDTH * _typical_width(foreground), floor)
        used = f"local, starting from {used}"
    return foreground, used


def nothing_found(source: str, threshold_used: str) -> DataError:
    """Build the error of an image in which no particle was found."""
    return DataError(
        f"{source}: no particles found (threshold: {threshold_used}). Try the other polarity, a threshold of "
        "your own, a smaller min_area_px, or a smaller smoothing_px."
    )


def _smooth(pixels: npt.NDArray[Any], smoothing_px: float) -> FloatImage:
    if not (math.isfinite(smoothing_px) and smoothing_px >= 0):
        raise ConfigError(f"smoothing_px={smoothing_px!r}: must be 0 or a positive number of pixels.")
    return _blur(pixels, smoothing_px) if smoothing_px > 0 else pixels.astype(np.float32)


def _noise_after_smoothing(pixels: npt.NDArray[Any], smoothing_px: float) -> float:
    """Give the standard deviation of independent pixel noise behind a Gaussian filter."""
    reduction = 1.0 / (2.0 * math.sqrt(math.pi) * smoothing_px) if smoothing_px > 0 else 1.0
    return estimate_noise(pixels) * min(1.0, reduction)


def _sign(polarity: Polarity, flat: FloatImage, threshold: Threshold, smoothed: FloatImage) -> Literal[1, -1]:
    """+1 where particles are bright, -1 where they are dark."""
    if polarity == "bright":
        return 1
    if polarity == "dark":
        return -1
    bright = smoothed > threshold if not isinstance(threshold, str) else flat > threshold_otsu(flat)
    return 1 if np.count_nonzero(bright) <= bright.size / 2 else -1


def _typical_width(foreground: BoolImage) -> float:
    """Width of a typical object, the diameter where objects are discs.

    The mean distance of a disc's points from its edge is a sixth of its diameter. Taken over all foreground,
    it weights objects by area, so specks of noise count little, and a chain counts with its width.
    """
    if not foreground.any():
        return 1.0
    distance = np.asarray(ndimage.distance_transform_edt(foreground))
    # The transform measures to the centre of the first background pixel, half a pixel beyond the edge.
    return max(1.0, 6.0 * (float(np.mean(distance[foreground])) - 0.5))


def _blur(values: npt.NDArray[Any], sigma_px: float) -> FloatImage:
    blurred = ndimage.gaussian_filter(values.astype(np.float32), sigma_px, truncate=3.0)
    return np.asarray(blurred, dtype=np.float32)


def _mean(total: FloatImage, weight: FloatImage, overall: float) -> FloatImage:
    """Local mean from local sum and local weight; far from any pixel with weight it is `overall`."""
    mean = (total + PRIOR_WEIGHT * overall) / (weight + PRIOR_WEIGHT)
    return mean.astype(np.float32)


def _half_way(flat: FloatImage, foreground: BoolImage, window_px: float, floor: float) -> BoolImage:
    """Move each boundary to the level half-way between the object and the background around it."""
    everything = _blur(flat, window_px)
    for _ in range(N_ROUNDS):
        if not foreground.any() or foreground.all():
            break
        # Foreground and background add up to everything, so two filters give the sums of both.
        weight, total = _blur(foreground, window_px), _blur(flat * foreground, window_px)
        objects = _mean(total, weight, float(flat[foreground].mean()))
        background = _mean(everything - total, 1 - weight, float(flat[~foreground].mean()))
        foreground = flat > background + np.maximum(BOUNDARY_LEVEL * (objects - background), floor)
    return foreground


def _background_beneath(flat: FloatImage, foreground: BoolImage, width: float) -> FloatImage:
    """Background interpolated beneath the objects, from pixels that their blurred edges do not reach."""
    clear = ~np.asarray(ndimage.binary_dilation(foreground, iterations=EDGE_PX), dtype=bool)
    if not clear.any():
        clear = ~foreground
    return _mean(_blur(flat * clear, width), _blur(clear, width), float(flat[clear].mean()))


def _objects(
    foreground: BoolImage, width: float, flat: FloatImage, *, split_touching: Split, fill_holes: bool
) -> npt.NDArray[np.int32]:
    """Label the objects. Pixels that touch only at a corner are not connected."""
    if fill_holes:
        foreground = np.asarray(ndimage.binary_fill_holes(foreground), dtype=bool)
    labels = np.asarray(label(foreground, connectivity=1), dtype=np.int32)
    if not split_touching:
        return labels
    if split_touching == "intensity":
        height = ndimage.gaussian_filter(flat, max(1.0, width / 12))
    else:
        # Smoothing by a pixel removes the many maxima that the rough edge of a digital disc gives.
        height = ndimage.gaussian_filter(np.asarray(ndimage.distance_transform_edt(foreground)), 1.0)
    peaks = peak_local_max(height, min_distance=max(1, round(width / 3)), labels=labels, exclude_border=False)
    markers = np.zeros_like(labels)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-height, markers, mask=foreground), dtype=np.int32)
