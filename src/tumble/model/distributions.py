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

__all__ = ["WrappedNormal", "kl_normal", "kl_wrapped_normal", "kl_wrapped_uniform", "wrapped_normal_entropy"]

_LOG_2PI = math.log(2 * math.pi)
#: Below this width the mass beyond +-pi is less than 1e-9 and the wrapped density is the Normal one.
_NARROW = 0.5
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

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one angle per row, differentiably in `loc` and `scale`; shape (batch,), not wrapped."""
        noise = torch.randn(self.loc.shape, generator=generator, device=self.loc.device, dtype=self.loc.dtype)
        return self.loc + self.scale * noise

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density at `angle` (radians, broadcastable), by summing the seven nearest windings."""
        winding = torch.arange(-3, 4, device=self.loc.device, dtype=self.loc.dtype) * (2 * math.pi)
        offset = wrap_angle(angle - self.loc).unsqueeze(-1) + winding
        scale = self.scale.unsqueeze(-1).clamp(max=_WIDE)
        log_terms = -0.5 * (offset / scale) ** 2 - torch.log(scale) - 0.5 * _LOG_2PI
        return torch.logsumexp(log_terms, dim=-1)


def wrapped_normal_entropy(scale: Tensor) -> Tensor:
    """Differential entropy of a wrapped Normal distribution.

    Parameters
    ----------
    scale : Tensor of shape (batch,)
        Standard deviation before wrapping, in radians.

    Returns
    -------
    Tensor of shape (batch,)
        Entropy in nats, at most log(2 pi).

    Notes
    -----
    Narrow densities use the Normal entropy. The others are integrated over 64 equidistant angles, which is exact to
    rounding, since the trapezoidal rule converges exponentially for smooth periodic functions.
    """
    narrow = 0.5 * (_LOG_2PI + 1) + torch.log(scale)
    wide_scale = scale.clamp(min=_NARROW, max=_WIDE)
    angles = torch.arange(64, device=scale.device, dtype=scale.dtype) * (2 * math.pi / 64)
    density = WrappedNormal(torch.zeros_like(wide_scale).unsqueeze(-1), wide_scale.unsqueeze(-1))
    log_p = density.log_prob(angles)
    wide = -(log_p.exp() * log_p).sum(dim=-1) * (2 * math.pi / 64)
    return torch.where(scale < _NARROW, narrow, wide)


def kl_wrapped_uniform(q: WrappedNormal) -> Tensor:
    """KL(q || uniform on the circle) = log(2 pi) - H(q); shape (batch,)."""
    return _LOG_2PI - wrapped_normal_entropy(q.scale)


def kl_wrapped_normal(q: WrappedNormal, p: WrappedNormal) -> Tensor:
    """KL(q || p) of two concentrated wrapped Normals, with a distance that stays smooth on the circle.

    The squared difference of the means is replaced by ``2 (1 - cos difference)``, equal to second order and periodic.
    The result is exact in the limit of small widths and an approximation for widths above about half a radian.

    Parameters
    ----------
    q, p : WrappedNormal of shape (batch,)
        The two densities.

    Returns
    -------
    Tensor of shape (batch,)
        Divergence in nats.
    """
    distance = 2 * (1 - torch.cos(q.loc - p.loc))
    ratio = (q.scale / p.scale) ** 2
    return 0.5 * (ratio + distance / p.scale**2 - 1 - torch.log(ratio))


def kl_normal(q: Normal, p: Normal) -> Tensor:
    """KL between diagonal Normals, summed over the last dimension; shape (batch,)."""
    return torch.distributions.kl_divergence(q, p).sum(dim=-1)
