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

__all__ = ["WrappedNormal", "draw_normal", "kl_normal", "randn"]

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


def kl_normal(q: Normal, p: Normal) -> Tensor:
    """KL between diagonal Normals, summed over the last dimension; shape (batch,)."""
    return torch.distributions.kl_divergence(q, p).sum(dim=-1)


def randn(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard Normal noise of the shape of `like` from an explicit generator, which `rsample` does not take."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def draw_normal(q: Normal, generator: torch.Generator | None) -> Tensor:
    """Reparametrised draw from a Normal with an explicit generator."""
    return q.loc + q.scale * randn(q.loc, generator)
