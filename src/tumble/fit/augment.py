"""The disorder, applied to batches of images with the pose that it gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tumble.model.coordinates import Placement, place

if TYPE_CHECKING:
    from tumble.fit.config import Disorder

__all__ = ["degrade", "disturb_geometry", "disturb_intensity", "mirror"]


def _uniform(shape: tuple[int, ...], half_width: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator, device=generator.device) * 2 - 1) * half_width


def mirror(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (batch, C, H, W) left to right with probability one half; upright objects stay upright."""
    chosen = torch.rand((len(x), 1, 1, 1), generator=generator, device=generator.device) < 0.5
    return torch.where(chosen, x.flip(3), x)


def disturb_geometry(
    x: Tensor,
    disorder: Disorder,
    generator: torch.Generator,
    *,
    present_angle: Tensor | None = None,
    present_shift: Tensor | None = None,
) -> tuple[Tensor, Placement]:
    """Rotate, shift, magnify and shear each image at random.

    Parameters
    ----------
    x : Tensor of shape (batch, C, H, W)
        Images.
    disorder : Disorder
        Ranges.
    generator : torch.Generator
        Source of the draws, on the device of `x`.
    present_angle : Tensor of shape (batch,), optional
        Where objects lie within a limited range of angles, the angle at which each is believed to lie: it is turned to
        an angle within the range, so that no 6 becomes a 9.
    present_shift : Tensor of shape (batch, 2), optional
        Where each object is believed to lie, in px from the centre: it is brought to a place that does not depend on
        it. Otherwise the direction in which an object lies from the centre turns with its image, and is taken for its
        orientation by a model that has nothing else to go by.

    Returns
    -------
    disturbed : Tensor of shape (batch, C, H, W)
        Each image at its new pose; what enters at the edges repeats the edge.
    applied : Placement
        What was done, with what it does to the pose.
    """
    batch = len(x)
    angle = _uniform((batch,), disorder.angle_rad, generator)
    if present_angle is not None:
        angle = angle - present_angle.clamp(-disorder.angle_rad, disorder.angle_rad)
    shift = _uniform((batch, 2), disorder.shift_px, generator)
    scale = _uniform((batch,), disorder.log_scale, generator).exp()
    shear = _uniform((batch, 2), disorder.shear, generator) if disorder.shear else None
    if present_shift is not None:
        linear = Placement.of(angle, shift, scale, shear).linear
        # Half of the longer side is as far as any object can be from the centre.
        reach = max(x.shape[-2:]) / 2
        shift = shift - (linear @ present_shift.clamp(-reach, reach).unsqueeze(-1)).squeeze(-1)
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


def degrade(x: Tensor, disorder: Disorder, pixel_scale: Tensor, generator: torch.Generator) -> Tensor:
    """Spoil four fifths of the images at random: grainy noise, specks, covers and blur, up to `disorder.degradation`.

    The noise is Laplace-distributed with an amplitude that varies over the image, and in a quarter of the images
    correlated over neighbouring pixels; specks show a random grey at scattered places of one or a few pixels; covers
    blank one rectangle. None of this is what :func:`tumble.datasets.make_cards` does to its test images (Gaussian noise
    of one width, pixels replaced by one value).

    Parameters
    ----------
    x : Tensor of shape (batch, C, H, W)
        Images.
    disorder : Disorder
        Its `degradation` is the range.
    pixel_scale : Tensor of shape ()
        Standard deviation of the training pixels.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Tensor of shape (batch, C, H, W)
    """
    if not disorder.degradation:
        return x
    spoilt = _chosen(x, 0.8, generator)
    specked = spoilt & _chosen(x, 0.4, generator)
    blur = _one_each(x, generator) * (spoilt & _chosen(x, 0.25, generator))
    strength = 4 * pixel_scale * disorder.degradation * _one_each(x, generator).sqrt()
    # Noise on top of specks is weaker: what is spoilt beyond recognition teaches nothing.
    strength = strength * (spoilt & _chosen(x, 0.75, generator)) * (1 - 0.7 * specked.float())
    share = min(1.0, disorder.degradation) * 0.67 * _one_each(x, generator)
    x = x + blur * (_smooth(x) - x)
    x = torch.where(_specks(x, share, generator) & specked, _greys(x, generator), x)
    x = x + strength * _grain(x, generator)
    covered = _cover(x, generator) & spoilt & _chosen(x, 0.3, generator)
    return torch.where(covered, x.mean(dim=(2, 3), keepdim=True), x)


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _one_each(x: Tensor, generator: torch.Generator) -> Tensor:
    """One number of [0, 1) per image, (batch, 1, 1, 1)."""
    return _random((len(x), 1, 1, 1), generator)


def _chosen(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Images picked with this probability; bool (batch, 1, 1, 1)."""
    return _one_each(x, generator) < probability


def _smooth(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _grain(x: Tensor, generator: torch.Generator) -> Tensor:
    """Laplace noise of about unit variance whose amplitude varies from corner to corner; (batch, C, H, W)."""
    uniform = _random(tuple(x.shape), generator) - 0.5
    noise = -uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.499999)) * 0.5**0.5
    noise = torch.where(_chosen(x, 0.25, generator), 2.5 * _smooth(noise), noise)
    corners = 0.75 + 0.5 * _random((len(x), 1, 2, 2), generator)
    return noise * F.interpolate(corners, size=x.shape[-2:], mode="bilinear", align_corners=True)


def _specks(x: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Scattered places, single pixels or blocks of 2 x 2, on a share of each image; bool (batch, 1, H, W)."""
    batch, _, height, width = x.shape
    single = _random((batch, 1, height, width), generator) < share
    coarse = _random((batch, 1, (height + 1) // 2, (width + 1) // 2), generator) < share
    coarse = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[:, :, :height, :width]
    return torch.where(_chosen(x, 0.8, generator), single, coarse)


def _greys(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random greys from a part of each image's range; (batch, 1, H, W) or like `x`."""
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    centre = 1.2 * _one_each(x, generator) - 0.1
    spread = 0.6 * _one_each(x, generator) + 0.1
    shape = (len(x), 1, *x.shape[2:])
    return low + (high - low) * (centre + (_random(shape, generator) - 0.5) * spread)


def _cover(x: Tensor, generator: torch.Generator) -> Tensor:
    """One rectangle of up to a third of each side; bool (batch, 1, H, W)."""
    batch, _, height, width = x.shape
    inside = []
    for axis, length in ((2, height), (3, width)):
        centre = _random((batch, 1, 1, 1), generator) * length
        half = _random((batch, 1, 1, 1), generator) * length / 6
        shape = [1, 1, 1, 1]
        shape[axis] = length
        position = torch.arange(length, device=x.device).reshape(shape)
        inside.append((position - centre).abs() < half)
    return inside[0] & inside[1]
