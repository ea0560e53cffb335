"""Plain, frozen containers that cross the borders between the parts of `tumble`.

Conventions, the same everywhere: axis order is (row, column); angles are radians, counter-clockwise as
displayed with row 0 on top; units are part of the name (``_px``, ``_nm``, ``_rad``, ``_s``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

__all__ = ["UNLABELLED", "Micrograph", "ModelRecord", "Particles", "Pose", "Predictions"]

#: The value of ``y`` that means "no label", as in :mod:`sklearn.semi_supervised`.
UNLABELLED = -1


@dataclass(frozen=True)
class Micrograph:
    """One image of a microscope with what is known about it.

    Parameters
    ----------
    pixels : ndarray of shape (H, W)
        Intensities as the file holds them: ``uint8``, ``uint16`` or ``float32``; finite.
    source : str
        Where it came from, as given by the user (a path or a name).
    content_hash : str
        SHA-256 of pixel values, shape and dtype, in hexadecimal: the identity of the micrograph.
    pixel_size_nm : float or None
        Edge of a pixel in nanometres, None where it is not known. Never guessed.
    metadata : mapping
        Instrument metadata that the file gave, JSON-serialisable.
    notes : tuple of str
        What the reader changed on the way in (for example a conversion from RGB), for the user to see.
    """

    pixels: npt.NDArray[Any]
    source: str
    content_hash: str
    pixel_size_nm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Particles:
    """The objects found in one micrograph.

    Parameters
    ----------
    crops : ndarray of shape (n, S, S), uint8
        Equal square crops centred on each particle. Grey level 0 is intensity ``intensity_range[0]`` of the
        micrograph and 255 is ``intensity_range[1]``; for an 8-bit image the range is (0, 255), that is
        unchanged.
    table : DataFrame of n rows
        One measurement per column, see :func:`tumble.particles.measurement_columns`. Positions and sizes in
        px, and again in nm (suffix ``_nm``) where the pixel size is known.
    mask : ndarray of shape (H, W), int32
        Label image: 0 is background, ``i + 1`` belongs to row ``i`` of `table`.
    outlines : tuple of n ndarrays of shape (m, 2), float32
        Closed outline of each particle in (row, column) px.
    parameters : mapping
        Every setting of the extraction, JSON-serialisable, sufficient to repeat it.
    """

    crops: npt.NDArray[np.uint8]
    table: pd.DataFrame
    mask: npt.NDArray[np.int32]
    outlines: tuple[npt.NDArray[np.float32], ...]
    parameters: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Pose:
    """Where and how objects lie in their crops.

    Parameters
    ----------
    angle_rad : ndarray of shape (n,)
        Rotation from the canonical object to the observed one, in [-pi, pi), counter-clockwise as displayed.
    shift_px : ndarray of shape (n, 2)
        Displacement (rows, columns) of the object from the centre of the crop, in px of the crop.
    scale : ndarray of shape (n,)
        Magnification of the canonical object; 1 where scale is not one of the model's invariances.
    angle_std_rad : ndarray of shape (n,)
        Standard deviation of the angle's posterior; large where the object has no unique angle.
    """

    angle_rad: npt.NDArray[np.float32]
    shift_px: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    angle_std_rad: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """What a model says of n particles.

    Parameters
    ----------
    classes : tuple of str
        The K classes, in the order of the columns of `probabilities`.
    probabilities : ndarray of shape (n, K)
        Rows sum to 1.
    latent : ndarray of shape (n, L)
        Posterior mean of z given the most probable class.
    pose : Pose
        Posterior mean pose given the most probable class.
    novelty : ndarray of shape (n,), or None
        How unlike the labelled classes each particle is, in this model's own scale; None where the model has no such
        score.
    """

    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    latent: npt.NDArray[np.float32]
    pose: Pose
    novelty: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class ModelRecord:
    """What a library keeps about a fitted model, enough to report on it without loading the weights.

    Parameters
    ----------
    name : str
        Name of the model within its library.
    path : str
        Folder of the saved model (``config.json``, ``weights.safetensors``).
    classes : tuple of str
        Class names in the model's order.
    config : mapping
        All parameters of the estimator, JSON-serialisable.
    environment : mapping of str to str
        Versions of `tumble` and what it runs on.
    history : mapping of str to list of float
        One value per epoch and curve, for example ``"loss"``, ``"elbo_labelled"``, ``"elbo_unlabelled"``.
    labelled_particle_ids : tuple of int
        The particles whose labels the model was trained with.
    fit_seconds : float
        Wall time of the fit.
    manifold : ndarray of shape (K, G, G, S, S), uint8, or None
        Decoded images over a G x G grid of the first two latent dimensions, for each class.
    manifold_axis : ndarray of shape (G,) or None
        Values of each of the two latent dimensions along the grid, from the mean of the class's particles and in
        units of their standard deviation.
    evaluation : mapping or None
        Scores on particles that gave no training labels, see :func:`tumble.pipeline.evaluate`.
    """

    name: str
    path: str
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    history: Mapping[str, list[float]]
    labelled_particle_ids: tuple[int, ...]
    fit_seconds: float
    manifold: npt.NDArray[np.uint8] | None = None
    manifold_axis: npt.NDArray[np.float32] | None = None
    evaluation: Mapping[str, Any] | None = None
