"""What is measured on each particle. The table is data: one line per column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import find_contours, regionprops_table

__all__ = ["measure_particles", "measurement_columns", "trace_outlines"]


@dataclass(frozen=True)
class _Measurement:
    """One column of the table.

    `unit` decides on the column in nm: a "length" has one with suffix ``_nm``, an "area" with ``_nm2``; a
    "pixel" is a position on the grid and has none. `regionprop` is the name of the property in scikit-image;
    None marks the columns that are computed here.
    """

    name: str
    unit: Literal["length", "area", "pixel", "none"]
    regionprop: str | None
    description: str


_M = _Measurement
_MEASUREMENTS = (
    _M("centroid_row_px", "length", None, "row of the centroid"),
    _M("centroid_col_px", "length", None, "column of the centroid"),
    _M("bbox_min_row_px", "pixel", "bbox-0", "first row of the bounding box"),
    _M("bbox_min_col_px", "pixel", "bbox-1", "first column of the bounding box"),
    _M("bbox_max_row_px", "pixel", "bbox-2", "row after the last of the bounding box"),
    _M("bbox_max_col_px", "pixel", "bbox-3", "column after the last of the bounding box"),
    _M("area_px", "area", "area", "area, as the number of pixels"),
    _M(
        "equivalent_diameter_px",
        "length",
        "equivalent_diameter_area",
        "diameter of the disc of equal area",
    ),
    _M("feret_max_px", "length", None, "largest distance between two points of the outline"),
    _M("perimeter_px", "length", "perimeter_crofton", "perimeter by Crofton's formula"),
    _M("major_axis_px", "length", None, "major axis of the ellipse of equal second moments"),
    _M("minor_axis_px", "length", None, "minor axis of the ellipse of equal second moments"),
    _M("eccentricity", "none", None, "eccentricity of that ellipse, 0 for a disc"),
    _M("solidity", "none", None, "area within the outline over the area of its convex hull"),
    _M("extent", "none", "extent", "area over the area of the bounding box"),
    _M("circularity", "none", None, "4 pi area / perimeter^2, 1 for a disc"),
    _M(
        "orientation_rad",
        "none",
        None,
        "direction of the major axis in radians, counter-clockwise as displayed from the direction of "
        "increasing column, in (-pi/2, pi/2]",
    ),
    _M("intensity_mean", "none", "intensity_mean", "mean intensity"),
    _M("intensity_std", "none", "intensity_std", "standard deviation of the intensity"),
    _M("intensity_max", "none", "intensity_max", "largest intensity"),
    _M(
        "background_mean",
        "none",
        None,
        "mean intensity of the background interpolated beneath the particle",
    ),
    _M("contrast", "none", None, "intensity_mean - background_mean, negative for dark particles"),
    _M("touches_border", "none", None, "whether the particle touches the edge of the micrograph"),
    _M("truncated", "none", None, "whether the particle reaches beyond its crop"),
)

#: For each unit that has a column in nm: suffix, unit as displayed, power of the pixel size.
_PHYSICAL = {"length": ("_nm", "nm", 1), "area": ("_nm2", "nm^2", 2)}


def measurement_columns(pixel_size_known: bool) -> dict[str, str]:
    """Describe the columns of :attr:`tumble.types.Particles.table`.

    Parameters
    ----------
    pixel_size_known : bool
        Whether to include the columns in nanometres.

    Returns
    -------
    dict of str to str
        Name -> description with unit, in the order of the columns.

    Examples
    --------
    >>> measurement_columns(True)["area_nm2"]
    'area, as the number of pixels [nm^2]'
    >>> "area_nm2" in measurement_columns(False)
    False
    """
    in_px = {"length": " [px]", "area": " [px^2]", "pixel": " [px]", "none": ""}
    columns = {m.name: m.description + in_px[m.unit] for m in _MEASUREMENTS}
    if pixel_size_known:
        for m in _MEASUREMENTS:
            if m.unit in _PHYSICAL:
                suffix, unit, _ = _PHYSICAL[m.unit]
                columns[m.name.removesuffix("_px") + suffix] = f"{m.description} [{unit}]"
    return columns


def measure_particles(
    labels: npt.NDArray[np.int32],
    pixels: npt.NDArray[Any],
    background: npt.NDArray[np.float32],
    outlines: tuple[npt.NDArray[np.float32], ...],
    pixel_size_nm: float | None,
) -> pd.DataFrame:
    """Measure every object of a label image.

    Parameters
    ----------
    labels : ndarray of shape (H, W), int32
        Label image with labels 1 to n.
    pixels : ndarray of shape (H, W)
        Intensities.
    background : ndarray of shape (H, W)
        Background intensity beneath the objects.
    outlines : tuple of n ndarrays of shape (m, 2)
        Outlines of the objects, see :func:`trace_outlines`.
    pixel_size_nm : float or None
        Edge of a pixel; None leaves the columns in nm out.

    Returns
    -------
    DataFrame of n rows
        The columns of :func:`measurement_columns` but "truncated", which depends on the crop.
    """
    properties = {m.name: m.regionprop for m in _MEASUREMENTS if m.regionprop}
    needed = sorted({regionprop.split("-")[0] for regionprop in properties.values()})
    raw = regionprops_table(labels, pixels.astype(np.float32), properties=needed)
    table = pd.DataFrame({name: raw[regionprop] for name, regionprop in properties.items()})
    table = table.assign(**_ellipses(labels))
    table["feret_max_px"], table["solidity"] = np.array([_feret_and_solidity(line) for line in outlines]).T
    table["circularity"] = 4 * np.pi * table["area_px"] / table["perimeter_px"] ** 2
    index = np.arange(1, len(table) + 1)
    table["background_mean"] = np.asarray(ndimage.mean(background, labels, index), dtype=np.float64)
    table["contrast"] = table["intensity_mean"] - table["background_mean"]
    height, width = labels.shape
    table["touches_border"] = (
        (table["bbox_min_row_px"] == 0)
        | (table["bbox_min_col_px"] == 0)
        | (table["bbox_max_row_px"] == height)
        | (table["bbox_max_col_px"] == width)
    )
    if pixel_size_nm is not None:
        for m in _MEASUREMENTS:
            if m.unit in _PHYSICAL:
                suffix, _, power = _PHYSICAL[m.unit]
                table[m.name.removesuffix("_px") + suffix] = table[m.name] * pixel_size_nm**power
    return table


def trace_outlines(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.float32], ...]:
    """Trace the outer outline of every object.

    Parameters
    ----------
    labels : ndarray of shape (H, W), int32
        Label image with labels 1 to n.

    Returns
    -------
    tuple of n ndarrays of shape (m, 2), float32
        Closed outlines in (row, column) px, half-way between the outermost pixels and their neighbours.
    """
    outlines = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        # A frame of background closes the outline of objects, which all reach the edge of their box.
        alone = np.pad(labels[box] == number, 1)
        outer = max(find_contours(alone.astype(np.float32), 0.5), key=len)
        outlines.append((outer + np.array([box[0].start - 1, box[1].start - 1])).astype(np.float32))
    return tuple(outlines)


def _feret_and_solidity(outline: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Give the largest distance within a closed outline, and its share of its convex hull."""
    points = outline.astype(np.float64)
    hull = ConvexHull(points)
    row, column = (points - points[0]).T
    area = 0.5 * abs(np.dot(row[:-1], column[1:]) - np.dot(row[1:], column[:-1]))
    # The two points farthest apart are corners of the hull, whose "volume" in the plane is its area.
    return float(pdist(points[hull.vertices]).max()), min(1.0, float(area / hull.volume))


def _ellipses(labels: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[np.float64]]:
    """Fit to each object the ellipse of equal second moments, for all objects at once.

    A pixel is a square and not a point: its own second moment, 1/12 along each axis, is part of the object's.
    """
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns] - 1
    n = np.bincount(which)
    row = np.bincount(which, rows) / n
    column = np.bincount(which, columns) / n
    # As displayed: x to the right, y up, which is the direction of decreasing row.
    x, y = columns - column[which], row[which] - rows
    xx = np.bincount(which, x * x) / n + 1 / 12
    yy = np.bincount(which, y * y) / n + 1 / 12
    xy = np.bincount(which, x * y) / n
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    largest, smallest = middle + spread, middle - spread
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    return {
        "centroid_row_px": row,
        "centroid_col_px": column,
        "major_axis_px": 4 * np.sqrt(largest),
        "minor_axis_px": 4 * np.sqrt(smallest),
        "eccentricity": np.sqrt(1 - smallest / largest),
        "orientation_rad": np.where(angle <= -np.pi / 2, np.pi / 2, angle),
    }
