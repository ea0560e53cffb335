"""The whole way from a micrograph to its particles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tumble.errors import ConfigError
from tumble.micrograph import intensity_range, to_uint8
from tumble.particles.crop import cut_windows, resample, window_corners
from tumble.particles.measure import measure_particles, measurement_columns, trace_outlines
from tumble.particles.segment import Polarity, Threshold, nothing_found, segment_particles
from tumble.types import Micrograph, Particles

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["extract_particles"]

Border = Literal["flag", "drop"]
Neighbours = Literal["mask", "keep"]


def extract_particles(
    micrograph: Micrograph,
    *,
    polarity: Polarity = "auto",
    threshold: Threshold = "local",
    smoothing_px: float = 1.0,
    min_area_px: int | None = None,
    max_area_px: int | None = None,
    split_touching: bool = False,
    fill_holes: bool = True,
    border: Border = "flag",
    crop_size: int = 48,
    window_px: int | None = None,
    neighbours: Neighbours = "mask",
) -> Particles:
    """Find the particles of a micrograph, measure them and cut them out.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    polarity : {"auto", "bright", "dark"}, default="auto"
        Whether particles are brighter or darker than the background. "auto" takes the side that covers less
        of the image.
    threshold : {"local", "otsu"} or float, default="local"
        "local": half-way between each particle and the background around it. "otsu": one level for the whole
        image after its uneven illumination is removed. A number: that intensity, as in the micrograph.
    smoothing_px : float, default=1.0
        Standard deviation of the Gaussian that suppresses the noise of single pixels before the threshold;
        0 for none. Measurements and crops are always those of the unsmoothed image.
    min_area_px, max_area_px : int or None, default=None
        Objects outside of these areas are left out. None for the smallest takes the footprint of the
        smoothing filter, ``pi * (2 * smoothing_px) ** 2`` px, below which noise and objects look the same;
        None for the largest is no limit.
    split_touching : bool, default=False
        Cut clusters of touching particles at their necks. By default a cluster is one object, as
        agglomerates are often what is to be classified.
    fill_holes : bool, default=True
        Count holes in an object as part of it.
    border : {"flag", "drop"}, default="flag"
        Whether particles at the edge of the image, of which a part is missing, are kept, with
        ``touches_border`` in the table, or left out.
    crop_size : int, default=48
        Side of the crops.
    window_px : int or None, default=None
        Side of the part of the image that a crop shows. None is `crop_size`; with any other value the
        windows are resampled to `crop_size`.
    neighbours : {"mask", "keep"}, default="mask"
        Whether other objects within a crop are replaced by the background, so that it shows one particle.

    Returns
    -------
    Particles
        Crops, measurements, label image and outlines, ordered from top to bottom.

    Raises
    ------
    DataError
        No particle was found.
    ConfigError
        A setting has a value that it cannot have.

    Examples
    --------
    >>> import numpy as np
    >>> from tumble.micrograph import micrograph_from_array
    >>> image = np.full((64, 64), 20, dtype=np.uint8)
    >>> image[10:20, 30:40] = 200
    >>> particles = extract_particles(micrograph_from_array(image, source="square"), crop_size=24)
    >>> len(particles), particles.crops.shape
    (1, (1, 24, 24))
    """
    window = crop_size if window_px is None else window_px
    _check_settings(polarity, threshold, min_area_px, max_area_px, border, crop_size, window, neighbours)
    shorter = min(micrograph.pixels.shape)
    if not 0 <= smoothing_px <= shorter / 4:
        raise ConfigError(f"smoothing_px={smoothing_px!r}: must be from 0 to {shorter // 4} px for this image.")
    found = segment_particles(
        micrograph,
        polarity=polarity,
        threshold=threshold,
        smoothing_px=smoothing_px,
        split_touching=split_touching,
        fill_holes=fill_holes,
    )
    footprint = max(1, round(math.pi * (2 * smoothing_px) ** 2))
    smallest = footprint if min_area_px is None else int(min_area_px)
    chosen = _select(found.labels, smallest, max_area_px, drop_border=border == "drop")
    if len(chosen) == 0:
        raise nothing_found(micrograph.source, f"{found.threshold_used}; {found.labels.max()} objects rejected")

    mask, own_labels = _number_in_order(found.labels, chosen)
    outlines = trace_outlines(mask)
    table = measure_particles(mask, micrograph.pixels, found.background, outlines, micrograph.pixel_size_nm)
    corners = window_corners(table[["centroid_row_px", "centroid_col_px"]].to_numpy(), window)
    bounds = table[["bbox_min_row_px", "bbox_min_col_px", "bbox_max_row_px", "bbox_max_col_px"]].to_numpy()
    table["truncated"] = ((bounds[:, :2] < corners) | (bounds[:, 2:] > corners + window)).any(axis=1)
    table = table.reindex(columns=list(measurement_columns(micrograph.pixel_size_nm is not None)))

    # Neighbours are all objects found, also those too small or too large to be particles.
    windows = cut_windows(
        micrograph.pixels,
        found.background,
        found.labels,
        own_labels,
        corners,
        window,
        mask_neighbours=neighbours == "mask",
    )
    grey_range = intensity_range(micrograph.pixels)
    parameters = {
        "polarity": found.polarity,
        "threshold": threshold if isinstance(threshold, str) else float(threshold),
        "smoothing_px": float(smoothing_px),
        "min_area_px": smallest,
        "max_area_px": None if max_area_px is None else int(max_area_px),
        "split_touching": split_touching,
        "fill_holes": fill_holes,
        "border": border,
        "crop_size": int(crop_size),
        "window_px": int(window),
        "neighbours": neighbours,
        "intensity_range": list(grey_range),
        "threshold_used": found.threshold_used,
        "typical_width_px": found.typical_width_px,
    }
    crops = to_uint8(resample(windows, crop_size), grey_range)
    return Particles(crops, table, mask, outlines, parameters)


#: Crops beyond this would hold whole micrographs, once for every particle.
_MAX_CROP_PX = 2048


def _check_settings(
    polarity: str,
    threshold: Threshold,
    min_area_px: int | None,
    max_area_px: int | None,
    border: str,
    crop_size: int,
    window_px: int,
    neighbours: str,
) -> None:
    choices: tuple[tuple[str, Any, Sequence[Any]], ...] = (
        ("polarity", polarity, get_args(Polarity)),
        ("border", border, get_args(Border)),
        ("neighbours", neighbours, get_args(Neighbours)),
    )
    for name, value, allowed in choices:
        if value not in allowed:
            raise ConfigError(f"{name}={value!r}: must be one of {', '.join(map(repr, allowed))}.")
    if isinstance(threshold, str):
        if threshold not in ("local", "otsu"):
            raise ConfigError(f"threshold={threshold!r}: must be 'local', 'otsu' or an intensity.")
    elif not math.isfinite(threshold):
        raise ConfigError(f"threshold={threshold!r}: must be a finite intensity.")
    for name, value, least in (("crop_size", crop_size, 8), ("window_px", window_px, 8)):
        if value != int(value) or not least <= value <= _MAX_CROP_PX:
            raise ConfigError(f"{name}={value!r}: must be a whole number from {least} to {_MAX_CROP_PX} px.")
    if min_area_px is not None and min_area_px < 1:
        raise ConfigError(f"min_area_px={min_area_px!r}: must be at least 1 px.")
    if max_area_px is not None and max_area_px < (min_area_px or 1):
        raise ConfigError(f"max_area_px={max_area_px!r}: must not be less than the smallest area.")


def _select(
    labels: npt.NDArray[np.int32], min_area_px: int, max_area_px: int | None, *, drop_border: bool
) -> npt.NDArray[np.int32]:
    """Labels of the objects that are particles by their area and position."""
    area = np.bincount(labels.ravel())
    keep = area >= min_area_px
    if max_area_px is not None:
        keep &= area <= max_area_px
    if drop_border:
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            keep[edge] = False
    keep[0] = False
    return np.flatnonzero(keep).astype(np.int32)


def _number_in_order(
    labels: npt.NDArray[np.int32], chosen: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Relabel the chosen objects 1 to n from top to bottom, and from left to right in the same row.

    The label image of the chosen objects is returned with their old labels in the new order.
    """
    centroids = np.array(ndimage.center_of_mass(labels > 0, labels, chosen))
    in_order = chosen[np.lexsort((centroids[:, 1], centroids[:, 0]))]
    number = np.zeros(labels.max() + 1, dtype=np.int32)
    number[in_order] = np.arange(1, len(chosen) + 1)
    return number[labels], in_order
