"""What the manifold view draws: one object at a place and pose, and the sheet of its class around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tumble.errors import ConfigError
from tumble.types import Pose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tumble.estimators import SSRVAEClassifier

__all__ = ["MAX_EXTENT", "MAX_STEPS", "Place", "draw_one", "draw_sheet", "read_z", "sheet_table", "tiled"]

#: Furthest place on a slider, in standard deviations of the class.
MAX_EXTENT = 4.0
MAX_STEPS = 15


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in the manifold of a class, and at which pose.

    Parameters
    ----------
    k : int
        Number of the class.
    z : tuple of float
        Each latent factor, in standard deviations of the objects of the class from their mean.
    angle_deg : float
        Counter-clockwise as displayed.
    down_px, right_px : float
        Shift.
    rows, columns : int
        The factors along the sheet, downwards and to the right.
    steps : int
        Images of the sheet along each of them.
    extent : float
        The sheet spans [-extent, extent].
    """

    k: int
    z: tuple[float, ...]
    angle_deg: float = 0.0
    down_px: float = 0.0
    right_px: float = 0.0
    rows: int = 0
    columns: int = 1
    steps: int = 9
    extent: float = 2.0

    def axis(self) -> npt.NDArray[np.float32]:
        """Return the values of a factor along the sheet."""
        if self.steps == 1:
            return np.zeros(1, np.float32)
        return np.linspace(-self.extent, self.extent, self.steps, dtype=np.float32)

    def sheet(self) -> npt.NDArray[np.float32]:
        """Return the latent factors of the sheet, (rows, columns, latent_dim), in standard deviations."""
        axis = self.axis()
        n_rows = len(axis) if self.rows != self.columns else 1  # a model of one factor has one row
        grid = np.tile(np.array(self.z, np.float32), (n_rows, len(axis), 1))
        if self.rows != self.columns:
            grid[:, :, self.rows] = axis[:, None]
        grid[:, :, self.columns] = axis[None, :]
        return grid


def read_z(text: str, latent_dim: int) -> tuple[float, ...]:
    """Read latent factors from an address; those that are left out are 0.

    Parameters
    ----------
    text : str
        Numbers with commas between them.
    latent_dim : int
        How many the model has.

    Returns
    -------
    tuple of float

    Raises
    ------
    ConfigError
        They cannot be read, are too many or out of range.
    """
    parts = text.split(",") if text else []
    try:
        values = [float(part) for part in parts]
    except ValueError as error:
        raise ConfigError(f"z={text!r}: write numbers with commas between them, for example 0.5,-1.") from error
    if len(values) > latent_dim:
        raise ConfigError(f"z={text!r}: {len(values)} numbers, but this model has {latent_dim} latent factors.")
    if not all(math.isfinite(value) and abs(value) <= MAX_EXTENT for value in values):
        raise ConfigError(f"z={text!r}: each number must be from -{MAX_EXTENT:g} to {MAX_EXTENT:g}.")
    return (*values, *(0.0,) * (latent_dim - len(values)))


def draw_one(model: SSRVAEClassifier, place: Place) -> npt.NDArray[np.uint8]:
    """Draw the object at a place and pose.

    Parameters
    ----------
    model : SSRVAEClassifier
        A fitted model.
    place : Place
        What to draw.

    Returns
    -------
    ndarray of shape (H, W), uint8
    """
    pose = Pose(
        angle_rad=np.array([math.radians(place.angle_deg)], np.float32),
        shift_px=np.array([[place.down_px, place.right_px]], np.float32),
        scale=np.ones(1, np.float32),
        angle_std_rad=np.zeros(1, np.float32),
    )
    z = latent(model, place.k, np.array([place.z], np.float32))
    return _grey(model.decode(z, model.classes_[place.k], pose=pose))[0]


def draw_sheet(model: SSRVAEClassifier, place: Place) -> npt.NDArray[np.uint8]:
    """Draw the class, upright and centred, over two latent factors; the others stay where they are.

    Parameters
    ----------
    model : SSRVAEClassifier
        A fitted model.
    place : Place
        Class, factors and extent.

    Returns
    -------
    ndarray of shape (rows, columns, H, W), uint8
    """
    steps = place.sheet()
    z = latent(model, place.k, steps.reshape(-1, steps.shape[-1]))
    drawn = _grey(model.decode(z, model.classes_[place.k]))
    return drawn.reshape(*steps.shape[:2], *drawn.shape[1:])


def latent(model: SSRVAEClassifier, k: int, steps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn places in standard deviations of a class into latent factors; both of shape (n, latent_dim)."""
    loc, scale = (buffer[k].cpu().numpy() for buffer in (model.model_.latent_loc, model.model_.latent_scale))
    return loc + scale * steps


def tiled(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Put a grid of images (rows, columns, H, W) into one."""
    rows, columns, height, width = images.shape
    return np.ascontiguousarray(images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width))


def sheet_table(
    model: SSRVAEClassifier, place: Place, images: npt.NDArray[np.uint8], classes: Sequence[str]
) -> pd.DataFrame:
    """Return a sheet as numbers: a row per image, with its latent factors and the grey level of each pixel."""
    steps = place.sheet().reshape(-1, len(place.z))
    z = latent(model, place.k, steps)
    pixels = images.reshape(len(steps), -1)
    height, width = images.shape[2:]
    data: dict[str, Any] = {"class": [classes[place.k]] * len(steps)}
    data |= {f"z{i + 1}_in_standard_deviations": steps[:, i] for i in range(steps.shape[1])}
    data |= {f"latent_{i}": z[:, i] for i in range(z.shape[1])}
    names = [f"grey_{row}_{column}" for row in range(height) for column in range(width)]
    return pd.concat([pd.DataFrame(data), pd.DataFrame(pixels, columns=pd.Index(names))], axis=1)


def _grey(images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Turn what a model of uint8 crops draws, 0 to 1, into grey levels; several channels become one."""
    flat = images.mean(axis=1) if images.ndim == 4 else images
    return np.clip(np.rint(255 * flat), 0, 255).astype(np.uint8)
