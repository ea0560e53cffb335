"""Probability distributions that the model needs and `torch.distributions` does not offer.

Each divergence is a function that returns one value per observation, shape ``(batch,)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tumble.model.coordinates import wrap_angle

if TYPE_CHECKING:
    from torch.distributions import Normal

__all__ = ["CircularMixture", "WrappedNormal", "kl_normal", "mode_directions"]

_LOG_2PI = math.log(2 * math.pi)
#: Beyond this width the density is flat to 1e-5: 2 exp(-sigma^2 / 2) < 1e-5.
_WIDE = 5.0


@dataclass(frozen=True)
class WrappedNormal:
    """Normal distribution wrapped around the circle: a unimodal density of an angle.

    Parameters
    ----------
    loc : Tensor of shape (batch,)
        Mean direction in radians.
    scale : Tensor of shape (batch,)
        Standard deviation before wrapping, in radians. Towards infinity the density becomes uniform.

    References
    ----------
    .. [1] K. V. Mardia and P. E. Jupp, "Directional Statistics", Wiley, 2000, section 3.5.7.
    """

    loc: Tensor
    scale: Tensor

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density at `angle` (radians, broadcastable), by summing the seven nearest windings."""
        winding = torch.arange(-3, 4, device=self.loc.device, dtype=self.loc.dtype) * (2 * math.pi)
        offset = wrap_angle(angle - self.loc).unsqueeze(-1) + winding
        scale = self.scale.unsqueeze(-1).clamp(max=_WIDE)
        log_terms = -0.5 * (offset / scale) ** 2 - torch.log(scale) - 0.5 * _LOG_2PI
        return torch.logsumexp(log_terms, dim=-1)


@dataclass(frozen=True)
class CircularMixture:
    """Mixture of wrapped Normals around M equidistant directions: a density of an angle with several modes.

    An object with a symmetry has several equivalent angles, and a network that must name one is torn between them: the
    mean of two opposite directions is neither. Here each mode is a discrete alternative with a local offset, and the
    joint prior of mode and angle is uniform over the modes and wide within each, so that it is close to uniform on the
    circle.

    Parameters
    ----------
    logits : Tensor of shape (batch, M)
        Unnormalised logarithms of the modes' weights.
    offset : Tensor of shape (batch, M)
        Distance of each mode from its direction ``2 pi m / M``, in radians.
    scale : Tensor of shape (batch, M)
        Standard deviations in radians.
    """

    logits: Tensor
    offset: Tensor
    scale: Tensor

    @property
    def loc(self) -> Tensor:
        """Mean direction of each mode, (batch, M), in radians."""
        return mode_directions(self.offset) + self.offset

    @property
    def log_weights(self) -> Tensor:
        """Normalised logarithms of the weights, (batch, M)."""
        return torch.log_softmax(self.logits, dim=-1)

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density of the mixture at `angle` (batch, ...), in nats per radian."""
        extra = (1,) * (angle.dim() - 1)
        loc, scale = (t.reshape(len(t), *extra, -1) for t in (self.loc, self.scale))
        per_mode = WrappedNormal(loc, scale).log_prob(angle.unsqueeze(-1))
        return torch.logsumexp(self.log_weights.reshape(len(loc), *extra, -1) + per_mode, dim=-1)

    def best(self) -> Tensor:
        """Direction of the heaviest mode, (batch,), in radians."""
        return self.loc.gather(1, self.logits.argmax(dim=1, keepdim=True))[:, 0]

    def circular_std(self) -> Tensor:
        """Circular standard deviation sqrt(-2 log R), (batch,), in radians; R is the mean resultant length."""
        length = self.log_weights.exp() * torch.exp(-0.5 * self.scale**2)
        cos, sin = (length * torch.cos(self.loc)).sum(dim=1), (length * torch.sin(self.loc)).sum(dim=1)
        return torch.sqrt(-2 * torch.log(torch.hypot(cos, sin).clamp(1e-6, 1.0)))


def mode_directions(like: Tensor) -> Tensor:
    """Directions ``2 pi m / M`` of M modes, with M the last dimension of `like`."""
    n_modes = like.shape[-1]
    return torch.arange(n_modes, device=like.device, dtype=like.dtype) * (2 * math.pi / n_modes)


def kl_normal(q: Normal, p: Normal) -> Tensor:
    """KL between diagonal Normals, summed over the last dimension; shape (batch,)."""
    return torch.distributions.kl_divergence(q, p).sum(dim=-1)
