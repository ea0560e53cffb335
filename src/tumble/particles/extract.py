"""The whole way from a micrograph to its particles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

from tumble.errors import ConfigError
from tumble.particles.assemble import (
    Border,
    CropSettings,
    Neighbours,
    SizeLimits,
    assemble_particles,
    check_choice,
    select_labels,
)
from tumble.particles.segment import Background, Polarity, Split, Threshold, nothing_found, segment_particles

if TYPE_CHECKING:
    from tumble.types import Micrograph, Particles

__all__ = ["extract_particles"]


def extract_particles(
    micrograph: Micrograph,
    *,
    polarity: Polarity = "auto",
    threshold: Threshold = "local",
    smoothing_px: float = 1.0,
    background: Background = "surface",
    min_area_px: int | None = None,
    max_area_px: int | None = None,
    min_size_nm: float | None = None,
    max_size_nm: float | None = None,
    split_touching: Split = False,
    fill_holes: bool = True,
    border: Border = "pad",
    crop_size: int = 48,
    window_px: int | None = None,
    crop_nm_per_px: float | None = None,
    neighbours: Neighbours = "mask",
) -> Particles:
    """Find the particles of a micrograph, measure them and cut them out.

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
        Standard deviation of the Gaussian that suppresses the noise of single pixels before the threshold;
        0 for none. Measurements and crops are always those of the unsmoothed image.
    background : {"surface", "local"}, default="surface"
        Uneven illumination that is removed before the threshold: a surface of second degree, or a running median
        over a quarter of the image, which follows any slow change but takes larger objects for background.
    min_area_px, max_area_px : int or None, default=None
        Objects outside of these areas are left out. None for the smallest takes the footprint of the
        smoothing filter, ``pi * (2 * smoothing_px) ** 2`` px, below which noise and objects look the same;
        None for the largest is no limit.
    min_size_nm, max_size_nm : float or None, default=None
        The same as diameters of discs of equal area, which needs the pixel size.
    split_touching : bool or {"distance", "intensity"}, default=False
        Cut clusters of touching particles by a watershed: of the distance from the edge, which cuts at necks
        ("distance", the same as True), or of the intensity, which cuts where it dips between two peaks. By default
        a cluster is one object, as agglomerates are often what is to be classified.
    fill_holes : bool, default=True
        Count holes in an object as part of it.
    border : {"pad", "keep", "exclude"}, default="pad"
        Particles at the edge of the image, of which a part may be missing (``touches_border`` in the table). "pad"
        keeps them in the middle of their crops, continued by background beyond the edge; "keep" keeps them and moves
        the crop into the image, so that no pixel of it is made up; "exclude" leaves out those that touch the edge.
        "flag" and "drop" are former names of "pad" and "exclude".
    crop_size : int, default=48
        Side of the crops.
    window_px : int or None, default=None
        Side of the part of the image that a crop shows. None is `crop_size`; with any other value the
        windows are resampled to `crop_size`.
    crop_nm_per_px : float or None, default=None
        Edge of a pixel of the crops in nm, in place of `window_px`, so that crops of micrographs of different pixel
        size have one scale. It needs the pixel size.
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
    crops = CropSettings(crop_size, window_px, crop_nm_per_px, border, neighbours)
    crops.check()
    _check_settings(polarity, threshold, background, split_touching)
    limits = SizeLimits(min_area_px, max_area_px, min_size_nm, max_size_nm)
    shorter = min(micrograph.pixels.shape)
    if not 0 <= smoothing_px <= shorter / 4:
        raise ConfigError(f"smoothing_px={smoothing_px!r}: must be from 0 to {shorter // 4} px for this image.")
    smallest, largest = limits.in_px(micrograph, max(1, round(math.pi * (2 * smoothing_px) ** 2)))
    crops.scale_px(micrograph)
    found = segment_particles(
        micrograph,
        polarity=polarity,
        threshold=threshold,
        smoothing_px=smoothing_px,
        background=background,
        split_touching=split_touching,
        fill_holes=fill_holes,
    )
    chosen = select_labels(found.labels, smallest, largest, crops)
    if len(chosen) == 0:
        raise nothing_found(micrograph.source, f"{found.threshold_used}; {found.labels.max()} objects rejected")
    parameters = {
        "polarity": found.polarity,
        "threshold": threshold if isinstance(threshold, str) else float(threshold),
        "smoothing_px": float(smoothing_px),
        "background": background,
        "min_area_px": smallest,
        "max_area_px": largest,
        "split_touching": split_touching,
        "fill_holes": fill_holes,
        "threshold_used": found.threshold_used,
        "typical_width_px": found.typical_width_px,
    }
    # Neighbours are all objects found, also those too small or too large to be particles.
    return assemble_particles(micrograph, found.labels, chosen, found.background, crops, parameters)


def _check_settings(polarity: str, threshold: Threshold, background: str, split_touching: Split) -> None:
    check_choice("polarity", polarity, get_args(Polarity))
    check_choice("background", background, get_args(Background))
    check_choice("split_touching", split_touching, (False, True, "distance", "intensity"))
    if isinstance(threshold, str):
        if threshold not in ("local", "otsu"):
            raise ConfigError(f"threshold={threshold!r}: must be 'local', 'otsu' or an intensity.")
    elif not math.isfinite(threshold):
        raise ConfigError(f"threshold={threshold!r}: must be a finite intensity.")
