"""From a label image to particles: the choice by size and border, measurements, outlines and crops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tumble.errors import ConfigError
from tumble.micrograph import intensity_range, to_uint8
from tumble.particles.crop import cut_windows, resample, resample_by, window_corners
from tumble.particles.measure import measure_particles, measurement_columns, trace_outlines
from tumble.types import Micrograph, Particles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Border", "CropSettings", "Neighbours", "SizeLimits", "assemble_particles", "check_choice", "select_labels"]

Border = Literal["pad", "keep", "exclude", "flag", "drop"]
Neighbours = Literal["mask", "keep"]

#: Crops beyond this would hold whole micrographs, once for every particle.
MAX_CROP_PX = 2048

#: Names of earlier versions.
_BORDER_NAMES = {"flag": "pad", "drop": "exclude"}


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise a `ConfigError` where a setting is none of its choices."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
        raise ConfigError(f"{name}={value!r}: must be one of {', '.join(map(repr, allowed))}.")


@dataclass(frozen=True)
class SizeLimits:
    """Areas of the objects that are particles; see :func:`tumble.particles.extract_particles`.

    Parameters
    ----------
    min_area_px, max_area_px : int or None
        Areas in px.
    min_size_nm, max_size_nm : float or None
        Diameters of discs of equal area, in nm.
    """

    min_area_px: int | None = None
    max_area_px: int | None = None
    min_size_nm: float | None = None
    max_size_nm: float | None = None

    def in_px(self, micrograph: Micrograph, default_px: int) -> tuple[int, int | None]:
        """Give the smallest and the largest area in px, and check both.

        Raises
        ------
        ConfigError
            They cannot be, contradict each other, or are in nm where the pixel size is not known.
        """
        for name in ("min_area_px", "max_area_px"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value!r}: must be at least 1 px.")
        smallest = _larger(self.min_area_px, self._area_px("min_size_nm", micrograph, math.ceil))
        largest = _smaller(self.max_area_px, self._area_px("max_size_nm", micrograph, math.floor))
        if largest is not None and largest < (smallest or 1):
            name = "max_size_nm" if self.max_size_nm is not None else "max_area_px"
            raise ConfigError(f"{name}={getattr(self, name)!r}: must not be less than the smallest area.")
        return default_px if smallest is None else smallest, largest

    def _area_px(self, name: str, micrograph: Micrograph, rounded: Any) -> int | None:
        size_nm = getattr(self, name)
        if size_nm is None:
            return None
        if not (math.isfinite(size_nm) and size_nm > 0):
            raise ConfigError(f"{name}={size_nm!r}: must be a positive number of nm.")
        if micrograph.pixel_size_nm is None:
            raise ConfigError(
                f"{name}={size_nm!r}: needs the pixel size of {micrograph.source}, which the file does not say. "
                "Give the pixel size, or the limits in px."
            )
        return max(1, rounded(math.pi / 4 * (size_nm / micrograph.pixel_size_nm) ** 2))


def _larger(a: int | None, b: int | None) -> int | None:
    return max((int(n) for n in (a, b) if n is not None), default=None)


def _smaller(a: int | None, b: int | None) -> int | None:
    return min((int(n) for n in (a, b) if n is not None), default=None)


@dataclass(frozen=True)
class CropSettings:
    """What crops show; see :func:`tumble.particles.extract_particles`."""

    crop_size: int = 48
    window_px: int | None = None
    crop_nm_per_px: float | None = None
    border: Border = "pad"
    neighbours: Neighbours = "mask"

    def check(self) -> None:
        """Raise a `ConfigError` where a setting has a value that it cannot have."""
        check_choice("border", self.border, get_args(Border))
        check_choice("neighbours", self.neighbours, get_args(Neighbours))
        for name, value in (("crop_size", self.crop_size), ("window_px", self.window_px)):
            if value is not None and (value != int(value) or not 8 <= value <= MAX_CROP_PX):
                raise ConfigError(f"{name}={value!r}: must be a whole number from 8 to {MAX_CROP_PX} px.")
        scale = self.crop_nm_per_px
        if scale is not None and self.window_px is not None:
            raise ConfigError("window_px and crop_nm_per_px both say what a crop shows; give one of them.")
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ConfigError(f"crop_nm_per_px={scale!r}: must be a positive number of nm.")

    def border_policy(self) -> str:
        """Name of the border policy, also where it was given by its former name."""
        return _BORDER_NAMES.get(self.border, self.border)

    def scale_px(self, micrograph: Micrograph) -> float:
        """Pixels of the micrograph that make one pixel of a crop.

        Raises
        ------
        ConfigError
            The scale is given in nm and the pixel size is not known, or a crop would show too much.
        """
        if self.crop_nm_per_px is None:
            return (self.window_px or self.crop_size) / self.crop_size
        if micrograph.pixel_size_nm is None:
            raise ConfigError(
                f"crop_nm_per_px={self.crop_nm_per_px!r}: needs the pixel size of {micrograph.source}, which the file "
                "does not say. Give the pixel size."
            )
        scale = self.crop_nm_per_px / micrograph.pixel_size_nm
        if scale * self.crop_size > MAX_CROP_PX or scale * self.crop_size < 2:
            raise ConfigError(
                f"crop_nm_per_px={self.crop_nm_per_px!r}: a crop of {self.crop_size} px would show "
                f"{scale * self.crop_size:.3g} px of {micrograph.source}; from 2 to {MAX_CROP_PX} are possible."
            )
        return scale


def assemble_particles(
    micrograph: Micrograph,
    labels: npt.NDArray[np.int32],
    chosen: npt.NDArray[np.int32],
    background: npt.NDArray[np.float32],
    crops: CropSettings,
    parameters: Mapping[str, Any],
) -> Particles:
    """Measure objects and cut them out.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    labels : ndarray of shape (H, W), int32
        All objects; those that are not chosen are neighbours that crops may hide.
    chosen : ndarray of shape (n,), int32
        Labels of the particles.
    background : ndarray of shape (H, W), float32
        Background intensity.
    crops : CropSettings
        What the crops show.
    parameters : mapping
        How the objects were found.

    Returns
    -------
    Particles
        Ordered from top to bottom; `parameters` with the settings of the crops.
    """
    mask, own_labels = _number_in_order(labels, chosen)
    outlines = trace_outlines(mask)
    table = measure_particles(mask, micrograph.pixels, background, outlines, micrograph.pixel_size_nm)
    scale = crops.scale_px(micrograph)
    exact = crops.crop_nm_per_px is not None
    shown_px = scale * crops.crop_size
    # A pixel more on each side where the window is between whole pixels, for the interpolation.
    window = math.ceil(shown_px) + 2 if exact else round(shown_px)
    corners = window_corners(table[["centroid_row_px", "centroid_col_px"]].to_numpy(), window)
    if crops.border_policy() == "keep":
        # Moved into the image as far as it goes: no pixel is made up, and the particle is off the centre.
        corners = np.clip(corners, 0, np.maximum(np.array(micrograph.pixels.shape) - window, 0))
    bounds = table[["bbox_min_row_px", "bbox_min_col_px", "bbox_max_row_px", "bbox_max_col_px"]].to_numpy()
    margin = (window - shown_px) / 2
    low, high = corners + margin, corners + window - margin
    table["truncated"] = ((bounds[:, :2] < low) | (bounds[:, 2:] > high)).any(axis=1)
    table = table.reindex(columns=list(measurement_columns(micrograph.pixel_size_nm is not None)))

    hide = crops.neighbours == "mask"
    windows = cut_windows(micrograph.pixels, background, labels, own_labels, corners, window, mask_neighbours=hide)
    images = resample_by(windows, crops.crop_size, scale) if exact else resample(windows, crops.crop_size)
    grey_range = intensity_range(micrograph.pixels)
    settings = {
        **parameters,
        "border": crops.border_policy(),
        "crop_size": int(crops.crop_size),
        "window_px": shown_px if exact else int(window),
        "crop_nm_per_px": None if micrograph.pixel_size_nm is None else float(scale * micrograph.pixel_size_nm),
        "neighbours": crops.neighbours,
        "intensity_range": list(grey_range),
    }
    return Particles(to_uint8(images, grey_range), table, mask, outlines, settings)


def select_labels(
    labels: npt.NDArray[np.int32], min_area_px: int, max_area_px: int | None, crops: CropSettings
) -> npt.NDArray[np.int32]:
    """Labels of the objects that are particles by their area and position."""
    area = np.bincount(labels.ravel())
    keep = area >= max(1, min_area_px)
    if max_area_px is not None:
        keep &= area <= max_area_px
    if crops.border_policy() == "exclude":
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
