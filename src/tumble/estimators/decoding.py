"""Images that a fitted model draws: for latent factors and poses, and over grids of the former."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from tumble.errors import ConfigError
from tumble.model.ssrvae import PoseSample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tumble.model.ssrvae import SSRVAE
    from tumble.types import Pose

__all__ = ["draw", "draw_grids", "latent_rows"]

#: Images per pass through the decoder.
_BATCH = 256


def latent_rows(Z: Any, latent_dim: int) -> npt.NDArray[np.float32]:
    """Return what a caller passed as Z as an array (n, latent_dim), or raise a ConfigError."""
    try:
        z = np.asarray(Z, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError("Z: latent factors must be numbers, one row per image.") from error
    if z.ndim != 2 or z.shape[1] != latent_dim or not np.isfinite(z).all():
        raise ConfigError(f"Z: expected finite numbers of shape (n, {latent_dim}), got shape {z.shape}.")
    return z


def draw(
    model: SSRVAE, z: npt.NDArray[np.float32], indices: Sequence[int], pose: Pose | None
) -> npt.NDArray[np.float32]:
    """Draw images at a pose; see :meth:`tumble.estimators.base.ImageModel.decode`.

    Parameters
    ----------
    model : SSRVAE
        The fitted module.
    z : ndarray of shape (n, latent_dim)
        Latent factors.
    indices : sequence of int
        Number of the class of each image, or one for all.
    pose : Pose or None
        Of each image.
    """
    n = len(z)
    if len(indices) not in (1, n):
        raise ConfigError(f"y: {len(indices)} classes for {n} images; give one per image, or one for all.")
    if pose is not None and len(pose.angle_rad) != n:
        raise ConfigError(f"pose: of {len(pose.angle_rad)} objects, but there are {n} images.")
    device = model.pixel_scale.device
    y = torch.tensor(indices if len(indices) == n else list(indices) * n, dtype=torch.long, device=device)
    rows, sample = torch.from_numpy(z).to(device), _sample(pose, n, device)
    drawn = [np.empty((0, *model.config.image_shape), np.float32)]
    with torch.inference_mode():
        for start in range(0, n, _BATCH):
            part = slice(start, start + _BATCH)
            here = PoseSample(sample.angle[part], sample.shift[part], sample.scale[part])
            drawn.append(model.expectation(model.decode(rows[part], y[part], here)).cpu().numpy())
    images = np.concatenate(drawn)
    return images[:, 0] if images.shape[1] == 1 else images


def _sample(pose: Pose | None, n: int, device: torch.device) -> PoseSample:
    if pose is None:
        return PoseSample(torch.zeros(n, device=device), torch.zeros(n, 2, device=device), torch.ones(n, device=device))
    parts = (torch.as_tensor(np.asarray(part, np.float32)) for part in (pose.angle_rad, pose.shift_px, pose.scale))
    return PoseSample(*(part.to(device) for part in parts))


def draw_grids(model: SSRVAE, indices: Iterable[int], n: int, extent: float) -> npt.NDArray[np.float32]:
    """Draw grids of canonical images; see :meth:`tumble.estimators.base.ImageModel.traverse`.

    Parameters
    ----------
    model : SSRVAE
        The fitted module.
    indices : iterable of int
        Numbers of the classes.
    n : int
        Steps per dimension.
    extent : float
        Half of what the grid spans, in standard deviations of the class's objects.
    """
    axis = torch.linspace(-extent, extent, n)
    steps = torch.zeros(n * n, model.config.latent_dim)
    n_dims = min(2, steps.shape[1])
    steps[:, :n_dims] = torch.cartesian_prod(axis, axis)[:, :n_dims]
    steps = steps.to(model.pixel_scale.device)
    drawn = []
    with torch.inference_mode():
        for k in indices:
            z = model.latent_loc[k] + model.latent_scale[k] * steps
            y = torch.full((n * n,), k, device=z.device)
            drawn.append(model.expectation(model.to_mean(model.canonical(z, y))))
    images = torch.stack(drawn).unflatten(1, (n, n)).cpu().numpy()
    return images[:, :, :, 0] if images.shape[3] == 1 else images
