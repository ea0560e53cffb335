"""Probability distributions that the model needs and `torch.distributions` does not offer.

Each divergence is a function that returns one value per observation, shape ``(batch,)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tumble.model.coordinates import wrap_angle

if TYPE_CHECKING:
    from torch.distributions import Normal

__all__ = ["QUADRATURE", "VonMisesQuantile", "WrappedNormal", "draw_normal", "kl_normal", "missing_length", "randn"]

#: Points of a periodic quadrature: exact to rounding for concentrations up to some thousands.
QUADRATURE = 256
_LOG_2PI = math.log(2 * math.pi)
#: Beyond this width the density is flat to 1e-5: 2 exp(-sigma^2 / 2) < 1e-5.
_WIDE = 5.0
#: Concentration beyond which five terms of an asymptotic series give 1 - I1 / I0 to 1e-7.
_CONCENTRATED = 30.0


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


class VonMisesQuantile(torch.autograd.Function):
    """Quantiles of von Mises distributions around 0, by quadrature of the density.

    From ``F(angle; kappa) = u`` follows ``d angle / d kappa = -(dF / d kappa) / p(angle)``; both are integrals over
    the same points: implicit reparametrisation [1]_.

    References
    ----------
    .. [1] M. Figurnov, S. Mohamed, A. Mnih, "Implicit reparameterization gradients", 2018,
           https://arxiv.org/abs/1805.08498 (equation 4, and section 4 for the von Mises distribution).
    """

    @staticmethod
    def forward(ctx: Any, uniform: Tensor, kappa: Tensor) -> Tensor:
        """Angles (batch,) in radians below which the shares `uniform` (batch,) of the densities lie."""
        # Points follow the width, so that a narrow density is resolved as well as the uniform one.
        reach = (10 / kappa.clamp(min=1e-9).sqrt()).clamp(max=math.pi)[:, None]
        step = torch.linspace(-1, 1, QUADRATURE + 1, device=kappa.device, dtype=kappa.dtype)
        points = reach * step
        density = torch.exp(kappa[:, None] * (torch.cos(points) - 1))
        cumulative = torch.zeros_like(points)
        cumulative[:, 1:] = torch.cumsum((density[:, 1:] + density[:, :-1]) / 2, dim=1)
        total = cumulative[:, -1:]
        cdf = cumulative / total
        right = torch.searchsorted(cdf, uniform[:, None].contiguous()).clamp(1, QUADRATURE)
        low, high = cdf.gather(1, right - 1), cdf.gather(1, right)
        share = (uniform[:, None] - low) / (high - low).clamp(min=1e-12)
        width = reach * (2 / QUADRATURE)
        angle = points.gather(1, right - 1) + share * width
        # dF/dkappa = integral up to the angle of p (cos - E[cos]).
        mean_cos = (
            torch.trapezoid(density * torch.cos(points), dim=1)[:, None] / torch.trapezoid(density, dim=1)[:, None]
        )
        slope = density * (torch.cos(points) - mean_cos) / total
        grown = torch.zeros_like(points)
        grown[:, 1:] = torch.cumsum((slope[:, 1:] + slope[:, :-1]) / 2, dim=1)
        d_cdf = grown.gather(1, right - 1) * (1 - share) + grown.gather(1, right) * share
        p = torch.exp(kappa[:, None] * (torch.cos(angle) - 1)) / (total * width)
        ctx.save_for_backward(-(d_cdf / p.clamp(min=1e-12))[:, 0])
        return angle[:, 0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor]:
        """Gradient in the concentration; the shares are drawn and have none."""
        (d_kappa,) = ctx.saved_tensors
        return None, grad_outputs[0] * d_kappa


def missing_length(concentration: Tensor) -> Tensor:
    """``1 - I1(kappa) / I0(kappa)``: what the mean resultant length of a von Mises distribution lacks; (batch,).

    Examples
    --------
    >>> [round(v, 6) for v in missing_length(torch.tensor([0.0, 1.0, 1e4])).tolist()]
    [1.0, 0.55361, 5e-05]
    """
    # As a difference of numbers near 1 it would lose its digits, and its slope before them.
    small, u = concentration.clamp(max=_CONCENTRATED), 1 / concentration.clamp(min=_CONCENTRATED)
    series = u * (1 / 2 + u * (1 / 8 + u * (1 / 8 + u * (25 / 128 + u * 13 / 32))))
    direct = 1 - torch.special.i1e(small) / torch.special.i0e(small)
    return torch.where(concentration > _CONCENTRATED, series, direct)


def kl_normal(q: Normal, p: Normal) -> Tensor:
    """KL between diagonal Normals, summed over the last dimension; shape (batch,)."""
    return torch.distributions.kl_divergence(q, p).sum(dim=-1)


def randn(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard Normal noise of the shape of `like` from an explicit generator, which `rsample` does not take."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def draw_normal(q: Normal, generator: torch.Generator | None) -> Tensor:
    """Reparametrised draw from a Normal with an explicit generator."""
    return q.loc + q.scale * randn(q.loc, generator)
