"""Particles whose places were found elsewhere: by another program, a network or by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from tumble.errors import DataError
from tumble.particles.assemble import CropSettings, SizeLimits, assemble_particles, check_choice, select_labels
from tumble.particles.segment import Polarity, Segmentation, background_around, segment_particles

if TYPE_CHECKING:
    from tumble.types import Micrograph, Particles

__all__ = ["Outline", "particles_from_boxes", "particles_from_centroids", "particles_from_masks"]

Outline = Literal["segment", "shape"]

#: An object that fills less of its box than this is a speck beside what the box is about.
LEAST_FILLED = 0.05


def particles_from_masks(
    micrograph: Micrograph,
    masks: npt.ArrayLike,
    *,
    limits: SizeLimits | None = None,
    crops: CropSettings | None = None,
    origin: str = "masks",
) -> Particles:
    """Take the objects of a label image or of a mask for the particles.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    masks : array-like of shape (H, W)
        Label image, in which 0 is background and each object has its own number, or a mask (boolean, or of 0 and one
        other value), whose connected parts are the objects. It may have the rows of a data banner that the micrograph
        has lost.
    limits : SizeLimits, optional
        Smallest and largest particle; all by default.
    crops : CropSettings, optional
        What crops show.
    origin : str, default="masks"
        Where they come from, for the library.

    Returns
    -------
    Particles
        Ordered from top to bottom.

    Raises
    ------
    DataError
        The masks do not fit the image, or hold no object.
    ConfigError
        A setting has a value that it cannot have.

    Examples
    --------
    >>> import numpy as np
    >>> from tumble.micrograph import micrograph_from_array
    >>> image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    >>> masks = np.zeros((64, 64), int)
    >>> masks[10:20, 30:40], masks[10:20, 40:50] = 7, 3
    >>> len(particles_from_masks(micrograph_from_array(image, source="two"), masks))
    2
    """
    labels = _fitted(np.asarray(masks), micrograph, origin)
    if labels.dtype.kind not in "bui":
        if labels.dtype.kind != "f" or np.any(labels != np.rint(labels)):
            raise DataError(f"{origin}: must be whole numbers, 0 for background and one for each object.")
        labels = labels.astype(np.int64)
    if labels.size and labels.min() < 0:
        raise DataError(f"{origin}: has negative numbers; 0 is background, and objects count from 1.")
    values = np.unique(labels)
    objects = values[values > 0]
    if len(objects) == 0:
        raise DataError(f"{origin}: holds no object for {micrograph.source}; all of it is 0.")
    if len(objects) == 1:  # a mask, not a label image
        numbered = np.asarray(label(labels > 0, connectivity=1), dtype=np.int32)
    else:
        numbered = np.searchsorted(objects, labels).astype(np.int32) + 1
        numbered[labels == 0] = 0
    return _assemble(micrograph, numbered, None, limits, crops, {"origin": origin, "from": "masks"})


def particles_from_boxes(
    micrograph: Micrograph,
    boxes: npt.ArrayLike,
    *,
    outline: Outline = "segment",
    polarity: Polarity = "auto",
    limits: SizeLimits | None = None,
    crops: CropSettings | None = None,
    origin: str = "boxes",
) -> Particles:
    """Take what lies in boxes for the particles.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    boxes : array-like of shape (n, 4)
        First row, first column, row after the last, column after the last, in px; fractions are rounded.
    outline : {"segment", "shape"}, default="segment"
        Whether a particle is the largest object that segmentation finds within its box (the box where it finds
        none), or the box itself.
    polarity : {"auto", "bright", "dark", "both"}, default="auto"
        For the segmentation.
    limits, crops, origin
        As for :func:`particles_from_masks`.

    Returns
    -------
    Particles
        Ordered from top to bottom.

    Raises
    ------
    DataError
        There is no box, or one lies outside of the image.
    ConfigError
        A setting has a value that it cannot have.
    """
    check_choice("outline", outline, get_args(Outline))
    edges = np.asarray(boxes, dtype=np.float64)
    if edges.ndim != 2 or edges.shape[1:] != (4,) or not len(edges) or not np.isfinite(edges).all():
        raise DataError(f"{origin}: must be rows of four finite numbers, at least one; has shape {edges.shape}.")
    height, width = micrograph.pixels.shape
    whole = np.floor(edges + 0.5).astype(np.int64)
    _check_inside(
        (edges[:, :2] < -1).any(axis=1) | (edges[:, 2] > height + 1) | (edges[:, 3] > width + 1), micrograph, origin
    )
    whole = np.clip(whole, 0, [height, width, height, width])
    if (whole[:, 2:] <= whole[:, :2]).any():
        number = int(np.flatnonzero((whole[:, 2:] <= whole[:, :2]).any(axis=1))[0])
        raise DataError(f"{origin}: box {number} (from 0) has no area: {edges[number].tolist()}.")
    found = _segment(micrograph, polarity) if outline == "segment" else None
    labels = np.zeros((height, width), dtype=np.int32)
    # The smallest last, so that a box within another keeps its place.
    order = np.argsort(-np.prod(whole[:, 2:] - whole[:, :2], axis=1), kind="stable")
    for number in order:
        top, left, bottom, right = whole[number]
        part = labels[top:bottom, left:right]
        inside = np.ones(part.shape, bool) if found is None else _largest(found.labels[top:bottom, left:right] > 0)
        part[inside] = number + 1
    return _assemble(micrograph, labels, found, limits, crops, {"origin": origin, "from": "boxes", "outline": outline})


def particles_from_centroids(
    micrograph: Micrograph,
    centroids: npt.ArrayLike,
    *,
    diameter_px: float | None = None,
    polarity: Polarity = "auto",
    limits: SizeLimits | None = None,
    crops: CropSettings | None = None,
    origin: str = "centroids",
) -> Particles:
    """Take what lies at some points for the particles.

    Each object that segmentation finds goes to the points in it, cut between them by a watershed where there are
    several. At a point without an object a disc is taken.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    centroids : array-like of shape (n, 2)
        Points (row, column) in px, where whole numbers are the middles of pixels.
    diameter_px : float or None, default=None
        Take discs of this diameter and do not segment. With None, the discs have the typical width of the objects.
    polarity : {"auto", "bright", "dark", "both"}, default="auto"
        For the segmentation.
    limits, crops, origin
        As for :func:`particles_from_masks`.

    Returns
    -------
    Particles
        Ordered from top to bottom.

    Raises
    ------
    DataError
        There is no point, or one lies outside of the image.
    ConfigError
        A setting has a value that it cannot have.
    """
    points = np.asarray(centroids, dtype=np.float64)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points) or not np.isfinite(points).all():
        raise DataError(f"{origin}: must be rows of two finite numbers, at least one; has shape {points.shape}.")
    if diameter_px is not None and not 1 <= diameter_px <= max(micrograph.pixels.shape):
        raise DataError(f"diameter_px={diameter_px!r}: must be from 1 px to the size of the image.")
    shape = np.array(micrograph.pixels.shape)
    outside = np.any((points < -0.5) | (points > shape - 0.5), axis=1)
    _check_inside(np.asarray(outside), micrograph, origin)
    places = np.clip(np.floor(points + 0.5).astype(np.int64), 0, shape - 1)
    markers = np.zeros(micrograph.pixels.shape, dtype=np.int32)
    markers[tuple(places.T)] = np.arange(1, len(points) + 1)
    found = _segment(micrograph, polarity) if diameter_px is None else None
    objects = found.labels > 0 if found is not None else np.zeros(markers.shape, bool)
    # High at necks, and half-way between points where there is no neck.
    to_point = np.asarray(ndimage.distance_transform_edt(markers == 0))
    height = to_point - np.asarray(ndimage.distance_transform_edt(objects))
    labels = np.asarray(watershed(height, np.where(objects, markers, 0), mask=objects), dtype=np.int32)
    if diameter_px is None and found is None:
        raise DataError(f"{origin}: nothing in {micrograph.source} stands out at these points. Give their diameter.")
    width = diameter_px or (found.typical_width_px if found is not None else 1.0)
    for number in np.unique(markers[(markers > 0) & ~objects]):
        _draw_disc(labels, points[number - 1], width / 2, int(number))
    settings = {"origin": origin, "from": "centroids", "diameter_px": diameter_px}
    return _assemble(micrograph, labels, found, limits, crops, settings)


def _assemble(
    micrograph: Micrograph,
    labels: npt.NDArray[np.int32],
    found: Segmentation | None,
    limits: SizeLimits | None,
    crops: CropSettings | None,
    settings: dict[str, Any],
) -> Particles:
    crops, limits = crops or CropSettings(), limits or SizeLimits()
    crops.check()
    smallest, largest = limits.in_px(micrograph, 1)
    chosen = select_labels(labels, smallest, largest, crops)
    if len(chosen) == 0:
        raise DataError(
            f"{settings['origin']}: none of the {len(np.unique(labels)) - 1} objects for {micrograph.source} is left "
            "by the limits of size and the border."
        )
    background, width = background_around(micrograph.pixels, labels > 0)
    inside = micrograph.pixels[labels > 0].astype(np.float64).mean() - background[labels > 0].mean()
    parameters = {
        "polarity": found.polarity if found is not None else "bright" if inside >= 0 else "dark",
        "threshold_used": f"{settings['from']} made elsewhere",
        "min_area_px": smallest,
        "max_area_px": largest,
        "typical_width_px": width,
        **settings,
    }
    return assemble_particles(micrograph, labels, chosen, background, crops, parameters)


def _fitted(masks: npt.NDArray[Any], micrograph: Micrograph, origin: str) -> npt.NDArray[Any]:
    """Masks in the shape of the image, without the rows of a data banner that it has lost."""
    masks = np.squeeze(masks)
    shape = micrograph.pixels.shape
    banner_rows = int(micrograph.metadata.get("banner_rows", 0))
    if banner_rows and masks.shape == (shape[0] + banner_rows, shape[1]):
        return masks[: shape[0]]
    if masks.shape != shape:
        hint = " It fits when turned: rows and columns are exchanged." if masks.shape == shape[::-1] else ""
        raise DataError(f"{origin}: has shape {masks.shape}, but {micrograph.source} has {shape}.{hint}")
    return masks


def _check_inside(outside: npt.NDArray[np.bool_], micrograph: Micrograph, origin: str) -> None:
    if outside.any():
        raise DataError(
            f"{origin}: {int(outside.sum())} of {len(outside)} lie outside of {micrograph.source} "
            f"({' x '.join(map(str, micrograph.pixels.shape))} px). Are the positions in px, and of this image?"
        )


def _segment(micrograph: Micrograph, polarity: Polarity) -> Segmentation | None:
    try:
        return segment_particles(micrograph, polarity=polarity)
    except DataError:  # nothing stands out; the places are known all the same
        return None


def _largest(objects: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Select the largest connected part of what is in a box, or all of the box where nothing fills it."""
    numbered = np.asarray(label(objects, connectivity=1))
    area = np.bincount(numbered.ravel())
    area[0] = 0
    if area.max() < LEAST_FILLED * objects.size:
        return np.ones(objects.shape, dtype=bool)
    return numbered == area.argmax()


def _draw_disc(labels: npt.NDArray[np.int32], centre: npt.NDArray[np.float64], radius: float, number: int) -> None:
    """Draw a disc where there is no object yet."""
    low = np.maximum(np.floor(centre - radius).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 1, labels.shape)
    rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]]
    part = labels[low[0] : high[0], low[1] : high[1]]
    part[(np.hypot(rows - centre[0], columns - centre[1]) <= max(radius, 0.71)) & (part == 0)] = number
