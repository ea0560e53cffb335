"""Posteriors of the rotation angle, behind one interface.

All give the same four things to the objective: draws with their weights (:meth:`AnglePosterior.draw`), the divergence
from the prior, a density, and the directions they hold likely. Which one suits depends on the objects:

=================  ============================================================================
``mixture``        several directions at once; symmetric objects, and the default (:mod:`tumble.model.angle_mixture`)
``normal``         the paper's: a Normal on the line with prior N(0, 1) rad; objects nearly upright
``von_mises``      one direction on the circle, as broad as the uniform if need be
``projected``      direction of a two-dimensional Normal (projected normal); likewise
=================  ============================================================================

But for ``normal`` the prior is uniform on the circle or, where it is known that objects lie near upright, a von Mises
density about 0 of concentration k: ``KL(q || VM(0, k)) = KL(q || uniform) + log I0(k) - k E_q[cos angle]``. Computed
as ``KL(q || uniform) + k E_q[1 - cos angle] + log(I0(k) exp(-k))`` nothing large cancels where k is large.

References
----------
.. [1] M. A. Ziatdinov et al., Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b
.. [2] D. Hernandez-Stumpfhauser, F. J. Breidt, M. J. van der Woerd, "The general projected normal distribution of
       arbitrary dimension", Bayesian Analysis 12, 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from scipy.special import ive
from torch import Tensor
from torch.distributions import Normal

from tumble.model.distributions import (
    QUADRATURE,
    VonMisesQuantile,
    WrappedNormal,
    kl_normal,
    missing_length,
    randn,
)

if TYPE_CHECKING:
    from torch import Generator

__all__ = [
    "AngleDraw",
    "AnglePosterior",
    "NormalAngle",
    "ProjectedNormal",
    "VonMises",
    "circular_std_of",
    "one_minus_cos",
]

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class AngleDraw:
    """Draws of the angle: several per observation where several directions are likely.

    Parameters
    ----------
    rows : Tensor of shape (n_draws,)
        The observation of each draw.
    angle : Tensor of shape (n_draws,)
        Radians; carries gradients.
    weights : Tensor of shape (n_draws,)
        They sum to 1 within an observation, and carry gradients.
    kl : Tensor of shape (batch,)
        Divergence of what was drawn from, from the prior, in nats.
    """

    rows: Tensor
    angle: Tensor
    weights: Tensor
    kl: Tensor


class AnglePosterior(Protocol):
    """q(angle | x, y) of a batch."""

    def draw(self, generator: Generator | None, *, max_modes: int) -> AngleDraw:
        """Draw angles, differentiably."""
        ...

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density on the circle at `angle` (batch, ...), in nats per radian."""
        ...

    def directions(self) -> tuple[Tensor, Tensor]:
        """Mean directions (batch, M) in radians and their weights (batch, M)."""
        ...

    def best(self) -> Tensor:
        """Likeliest direction, (batch,), in radians."""
        ...

    def circular_std(self) -> Tensor:
        """Circular standard deviation sqrt(-2 log R), (batch,), in radians; R is the mean resultant length."""
        ...


class _OneDirection:
    """What the posteriors with a single direction share."""

    loc: Tensor

    def directions(self) -> tuple[Tensor, Tensor]:
        """Return the one direction, of weight 1."""
        return self.loc[:, None], torch.ones_like(self.loc)[:, None]

    def best(self) -> Tensor:
        """Return the direction, (batch,), in radians."""
        return self.loc


def _one_draw(angle: Tensor, kl: Tensor) -> AngleDraw:
    return AngleDraw(torch.arange(len(angle), device=angle.device), angle, torch.ones_like(angle), kl)


@dataclass(frozen=True)
class NormalAngle(_OneDirection):
    """Normal posterior on the line with the prior N(0, `prior`), as published.

    Parameters
    ----------
    loc, scale : Tensor of shape (batch,)
        Radians.
    prior : float
        Standard deviation of the prior in radians; the paper has 1.
    """

    loc: Tensor
    scale: Tensor
    prior: float = 1.0

    def kl_from_prior(self) -> Tensor:
        """KL(N(loc, scale) || N(0, prior)), (batch,)."""
        zero = self.loc.new_zeros(())
        mine = Normal(self.loc[:, None], self.scale[:, None], validate_args=False)
        return kl_normal(mine, Normal(zero, zero + self.prior))

    def draw(self, generator: Generator | None, *, max_modes: int) -> AngleDraw:
        """Draw one angle per observation."""
        return _one_draw(self.loc + self.scale * randn(self.loc, generator), self.kl_from_prior())

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density on the circle, where the Normal is wrapped around it."""
        extra = (1,) * (angle.dim() - 1)
        return WrappedNormal(self.loc.reshape(-1, *extra), self.scale.reshape(-1, *extra)).log_prob(angle)

    def circular_std(self) -> Tensor:
        """Of a wrapped Normal this is the standard deviation itself."""
        return self.scale


@dataclass(frozen=True)
class VonMises(_OneDirection):
    """Von Mises posterior with the uniform or a von Mises prior on the circle.

    Parameters
    ----------
    loc : Tensor of shape (batch,)
        Mean direction in radians.
    concentration : Tensor of shape (batch,)
        kappa; 0 is the uniform density, and for large values the width is 1 / sqrt(kappa).
    prior_concentration : float
        k of the prior about 0; 0 is the uniform prior.
    """

    loc: Tensor
    concentration: Tensor
    prior_concentration: float = 0.0

    @property
    def resultant_length(self) -> Tensor:
        """I1(kappa) / I0(kappa), (batch,)."""
        return torch.special.i1e(self.concentration) / torch.special.i0e(self.concentration)

    @property
    def _log_i0(self) -> Tensor:
        return torch.special.i0e(self.concentration).log() + self.concentration

    def kl_from_prior(self) -> Tensor:
        """KL from the prior, (batch,); from the uniform density it is kappa R - log I0(kappa) with R = I1 / I0."""
        k = self.prior_concentration
        if not k:
            return self.concentration * self.resultant_length - self._log_i0
        # E[1 - cos angle] = (1 - R) + R (1 - cos loc); the divergence from the uniform density is written with 1 - R as
        # well, since both terms grow with the concentrations, and their difference does not.
        missing = missing_length(self.concentration)
        deviation = (k - self.concentration) * missing + k * (1 - missing) * one_minus_cos(self.loc)
        return deviation + math.log(ive(0, k)) - torch.special.i0e(self.concentration).log()

    def draw(self, generator: Generator | None, *, max_modes: int) -> AngleDraw:
        """Draw one angle per observation; implicit reparametrisation gives the gradient in the concentration."""
        uniform = torch.rand(self.loc.shape, generator=generator, device=self.loc.device, dtype=self.loc.dtype)
        offset: Any = VonMisesQuantile.apply(uniform, self.concentration)
        return _one_draw(self.loc + offset, self.kl_from_prior())

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density at `angle` (batch, ...)."""
        extra = (1,) * (angle.dim() - 1)
        loc, kappa, log_i0 = (t.reshape(-1, *extra) for t in (self.loc, self.concentration, self._log_i0))
        return kappa * torch.cos(angle - loc) - log_i0 - _LOG_2PI

    def circular_std(self) -> Tensor:
        """Circular standard deviation, (batch,), in radians."""
        return circular_std_of(self.resultant_length)


@dataclass(frozen=True)
class ProjectedNormal:
    """Direction of a two-dimensional Normal N(mean, 1), with the uniform or a von Mises prior on the circle.

    Parameters
    ----------
    mean : Tensor of shape (batch, 2)
        (cos, sin) components; its length is the concentration, 0 gives the uniform density.
    prior_concentration : float
        k of the prior about 0; 0 is the uniform prior.
    """

    mean: Tensor
    prior_concentration: float = 0.0

    @property
    def loc(self) -> Tensor:
        """Mean direction, (batch,), in radians."""
        return torch.atan2(self.mean[:, 1], self.mean[:, 0])

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density at `angle` (batch, ...), in nats per radian; [2], for the identity as covariance."""
        extra = (1,) * (angle.dim() - 1)
        cos, sin = (self.mean[:, i].reshape(-1, *extra) for i in (0, 1))
        along = cos * torch.cos(angle) + sin * torch.sin(angle)
        half_square = 0.5 * (cos**2 + sin**2)
        # 1 + t Phi(t) / phi(t), through log Phi: stable where t is very negative as well as very positive.
        log_ratio = torch.special.log_ndtr(along) + 0.5 * along**2 + 0.5 * _LOG_2PI
        grown = torch.where(along > 0, along, torch.ones_like(along))
        positive = torch.logaddexp(torch.zeros_like(along), grown.log() + log_ratio)
        negative = torch.log1p((along.clamp(max=0) * log_ratio.clamp(max=20).exp()).clamp(min=-1 + 1e-6))
        return -_LOG_2PI - half_square + torch.where(along > 0, positive, negative)

    def kl_from_prior(self) -> Tensor:
        """KL from the prior by periodic quadrature, (batch,)."""
        angle = torch.linspace(-math.pi, math.pi, QUADRATURE + 1, device=self.mean.device, dtype=self.mean.dtype)[:-1]
        # Centred on the direction of each observation, so that the error does not depend on it.
        angle = self.loc.detach()[:, None] + angle
        log_p = self.log_prob(angle)
        log_ratio = log_p + _LOG_2PI
        k = self.prior_concentration
        if k:
            # In the same sum: the mean resultant length in closed form loses its slope to rounding where it is near 1.
            log_ratio = log_ratio + k * one_minus_cos(angle) + math.log(ive(0, k))
        return (log_p.exp() * log_ratio).sum(dim=1) * (2 * math.pi / QUADRATURE)

    def draw(self, generator: Generator | None, *, max_modes: int) -> AngleDraw:
        """Draw one angle per observation."""
        vector = self.mean + randn(self.mean, generator)
        return _one_draw(torch.atan2(vector[:, 1], vector[:, 0]), self.kl_from_prior())

    def directions(self) -> tuple[Tensor, Tensor]:
        """Return the one direction, of weight 1."""
        return self.loc[:, None], torch.ones_like(self.mean[:, :1])

    def best(self) -> Tensor:
        """Return the direction, (batch,), in radians."""
        return self.loc

    def circular_std(self) -> Tensor:
        """Circular standard deviation, (batch,), in radians."""
        # R = sqrt(pi s / 2) exp(-s) (I0(s) + I1(s)) with s = |mean|^2 / 4.
        s = self.mean.square().sum(dim=1) / 4
        return circular_std_of(torch.sqrt(math.pi * s / 2) * (torch.special.i0e(s) + torch.special.i1e(s)))


def circular_std_of(resultant_length: Tensor) -> Tensor:
    """Circular standard deviation of a mean resultant length, in radians."""
    return torch.sqrt(-2 * torch.log(resultant_length.clamp(1e-6, 1.0)))


def one_minus_cos(angle: Tensor) -> Tensor:
    """Give ``1 - cos angle`` without the loss of digits near 0."""
    return 2 * torch.sin(0.5 * angle).square()
