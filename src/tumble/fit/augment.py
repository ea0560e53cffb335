"""The disorder, applied to batches of images with the pose that it gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tumble.model.coordinates import Placement, place

if TYPE_CHECKING:
    from tumble.fit.config import Disorder

__all__ = ["disturb_geometry", "disturb_intensity"]


def _uniform(shape: tuple[int, ...], half_width: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator, device=generator.device) * 2 - 1) * half_width


def disturb_geometry(x: Tensor, disorder: Disorder, generator: torch.Generator) -> tuple[Tensor, Placement]:
    """Rotate, shift, magnify and shear each image at random.

    Parameters
    ----------
    x : Tensor of shape (batch, C, H, W)
        Images.
    disorder : Disorder
        Ranges.
    generator : torch.Generator
        Source of the draws, on the device of `x`.

    Returns
    -------
    disturbed : Tensor of shape (batch, C, H, W)
        Each image at its new pose; what enters at the edges repeats the edge.
    applied : Placement
        What was done, with what it does to the pose.
    """
    batch = len(x)
    angle = _uniform((batch,), disorder.angle_rad, generator)
    shift = _uniform((batch, 2), disorder.shift_px, generator)
    scale = _uniform((batch,), disorder.log_scale, generator).exp()
    shear = _uniform((batch, 2), disorder.shear, generator) if disorder.shear else None
    return place(x, angle, shift, scale, shear=shear), Placement.of(angle, shift, scale, shear)


def disturb_intensity(x: Tensor, disorder: Disorder, pixel_scale: Tensor, generator: torch.Generator) -> Tensor:
    """Change gain and offset of each image at random.

    Parameters
    ----------
    x : Tensor of shape (batch, C, H, W)
        Images.
    disorder : Disorder
        Its `intensity` is the range.
    pixel_scale : Tensor of shape ()
        Standard deviation of the training pixels.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Tensor of shape (batch, C, H, W)
    """
    if not disorder.intensity:
        return x
    shape = (len(x), 1, 1, 1)
    gain = 1 + _uniform(shape, disorder.intensity, generator)
    offset = _uniform(shape, disorder.intensity / 2, generator) * pixel_scale
    return x * gain + offset
