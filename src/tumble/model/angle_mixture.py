"""The posterior of the rotation angle that has several modes; see :mod:`tumble.model.angles` for the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from scipy.special import ive
from torch import Tensor
from torch.distributions import Normal

from tumble.model.angles import AngleDraw, circular_std_of, one_minus_cos
from tumble.model.distributions import WrappedNormal, kl_normal, randn

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["ANGLE_MODE_PRIOR", "N_ANGLE_MODES", "CircularMixture", "mode_directions"]

#: Modes of the angle's posterior: 30 degrees apart, which every symmetry of order 2, 3, 4 or 6 maps onto each other.
N_ANGLE_MODES = 12
#: Width of the angle's prior within a mode. At half the distance of the modes the sum over modes is flat to 2 %.
ANGLE_MODE_PRIOR = math.pi / N_ANGLE_MODES
#: Modes of the angle below this part of the heaviest one are not worth a placement of the image. The floor is relative:
#: while the posterior is flat, at least two modes must compete, or the likelihood could not tell them apart.
_MODE_FLOOR = 0.1
#: Waves of the circle that the prior within a mode damps to rounding: exp(-(32 ANGLE_MODE_PRIOR)^2 / 2) < 1e-15.
_WAVES = 32


@dataclass(frozen=True)
class CircularMixture:
    """Mixture of wrapped Normals around M equidistant directions: a density of an angle with several modes.

    An object with a symmetry has several equivalent angles, and a network that must name one is torn between them: the
    mean of two opposite directions is neither. Here each mode is a discrete alternative with a local offset, and the
    joint prior of mode and angle is uniform over the modes and wide within each, so that it is close to uniform on the
    circle. An informed prior is that joint prior times ``exp(k cos angle)``, normalised: as close to von Mises.

    Parameters
    ----------
    logits : Tensor of shape (batch, M)
        Unnormalised logarithms of the modes' weights.
    offset : Tensor of shape (batch, M)
        Distance of each mode from its direction ``2 pi m / M``, in radians.
    scale : Tensor of shape (batch, M)
        Standard deviations in radians.
    prior_concentration : float
        k of the prior about 0; 0 is the uniform prior.
    """

    logits: Tensor
    offset: Tensor
    scale: Tensor
    prior_concentration: float = 0.0

    @classmethod
    def from_outputs(cls, raw: Tensor, prior_concentration: float = 0.0) -> CircularMixture:
        """Build it from 3 M numbers per observation that a network gives."""
        logits, offset, log_scale = raw.chunk(3, dim=1)
        # Neighbouring modes overlap by half, so that no direction lies at the end of every mode's reach.
        reach = 1.5 * math.pi / N_ANGLE_MODES
        scale = ANGLE_MODE_PRIOR * log_scale.clamp(-2.5, 1.0).exp()
        return cls(logits, reach * torch.tanh(offset), scale, prior_concentration)

    @property
    def loc(self) -> Tensor:
        """Mean direction of each mode, (batch, M), in radians."""
        return mode_directions(self.offset) + self.offset

    @property
    def log_weights(self) -> Tensor:
        """Normalised logarithms of the weights, (batch, M)."""
        return torch.log_softmax(self.logits, dim=-1)

    def plausible_modes(self, *, max_modes: int, floor: float = _MODE_FLOOR) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs (row, mode) that the sum over modes visits, and their renormalised weights.

        Leaving modes out restricts the posterior to the others, which is a posterior too: the bound stays a bound.

        Parameters
        ----------
        max_modes : int
            Modes per row at most, the heaviest ones.
        floor : float
            Modes of less than this part of the heaviest one's weight are left out.

        Returns
        -------
        rows, modes : Tensor of shape (n_pairs,)
            Indices.
        weights : Tensor of shape (n_pairs,)
            They sum to 1 within a row, and carry gradients.
        """
        weights = self.log_weights.exp()
        heaviest, order = weights.detach().topk(min(max_modes, weights.shape[1]), dim=1)
        keep = heaviest >= floor * heaviest[:, :1]
        keep[:, 0] = True  # also where weights are NaN: the loss must show it, not an empty batch
        rows, column = keep.nonzero(as_tuple=True)
        modes = order[rows, column]
        kept = weights[rows, modes]
        total = kept.new_zeros(len(weights)).index_add(0, rows, kept)
        return rows, modes, kept / total[rows]

    def kl(self, rows: Tensor, modes: Tensor, weights: Tensor) -> Tensor:
        """KL of (mode, angle within it) from their joint prior, summed over the visited modes; (batch,).

        ``sum_m w_m [log(w_m M) + KL(q(angle | m) || p(angle | m))]`` with p(m) = 1 / M. By the chain rule this is at
        least the divergence of the mixtures themselves, so that the bound stays a bound.

        An informed prior adds ``sum_m w_m k E[1 - cos angle | m]`` and a constant. The sum is over the same modes with
        the same renormalised weights: only then is the whole the divergence of one posterior, the restricted one, from
        one normalised prior. With the mean cosine of all modes it would be neither's, and could fall below the
        divergence of what is drawn from.
        """
        # Unwrapped: wrapping loses information on both sides, so that this is an upper bound of the divergence as well.
        offset = Normal(self.offset[rows, modes, None], self.scale[rows, modes, None], validate_args=False)
        zero = self.offset.new_zeros(())
        within = kl_normal(offset, Normal(zero, zero + ANGLE_MODE_PRIOR))
        between = torch.log(weights.clamp(min=1e-30) * self.logits.shape[1])
        surprise = between + within
        if self.prior_concentration:
            surprise = surprise + self._tilt(rows, modes)
        return weights.new_zeros(len(self.logits)).index_add(0, rows, weights * surprise)

    def _tilt(self, rows: Tensor, modes: Tensor) -> Tensor:
        """E[log of the uniform joint prior / the informed one] within modes, (n_pairs,)."""
        half_square = 0.5 * self.scale[rows, modes].square()
        # E[1 - cos] of a wrapped Normal; small numbers are never the difference of large ones.
        deviation = -torch.expm1(-half_square) + torch.exp(-half_square) * one_minus_cos(self.loc[rows, modes])
        k = self.prior_concentration
        return k * deviation + _log_mean_tilt(k, self.logits.shape[1])

    def draw(self, generator: Generator | None, *, max_modes: int) -> AngleDraw:
        """Draw one angle from each plausible mode."""
        rows, modes, weights = self.plausible_modes(max_modes=max_modes)
        loc, scale = self.loc[rows, modes], self.scale[rows, modes]
        angle = loc + scale * randn(loc, generator)
        return AngleDraw(rows, angle, weights, self.kl(rows, modes, weights))

    def log_prob(self, angle: Tensor) -> Tensor:
        """Log density of the mixture at `angle` (batch, ...), in nats per radian."""
        extra = (1,) * (angle.dim() - 1)
        loc, scale = (t.reshape(len(t), *extra, -1) for t in (self.loc, self.scale))
        per_mode = WrappedNormal(loc, scale).log_prob(angle.unsqueeze(-1))
        return torch.logsumexp(self.log_weights.reshape(len(loc), *extra, -1) + per_mode, dim=-1)

    def directions(self) -> tuple[Tensor, Tensor]:
        """All modes and their weights."""
        return self.loc, self.log_weights.exp()

    def best(self) -> Tensor:
        """Direction of the heaviest mode, (batch,), in radians."""
        return self.loc.gather(1, self.logits.argmax(dim=1, keepdim=True))[:, 0]

    def circular_std(self) -> Tensor:
        """Circular standard deviation of the mixture, (batch,), in radians."""
        length = self.log_weights.exp() * torch.exp(-0.5 * self.scale**2)
        cos, sin = (length * torch.cos(self.loc)).sum(dim=1), (length * torch.sin(self.loc)).sum(dim=1)
        return circular_std_of(torch.hypot(cos, sin))


@cache
def _log_mean_tilt(concentration: float, n_modes: int) -> float:
    """``log E[exp(k (cos angle - 1))]`` under the joint prior of `n_modes` modes and the offsets from them.

    On the circle that prior has the waves ``1 + 2 sum_j exp(-(j M width)^2 / 2) cos(j M angle)`` over 2 pi, and
    ``E[exp(k cos angle) cos(n angle)] = I_n(k)`` under the uniform density. The first term alone, log I0(k), would be
    that of a von Mises prior; the others, 1.4 % of it at most, make the prior a normalised one.
    """
    waves = range(n_modes, _WAVES + 1, n_modes)
    rest = sum(2 * math.exp(-0.5 * (n * ANGLE_MODE_PRIOR) ** 2) * ive(n, concentration) for n in waves)
    return math.log(ive(0, concentration) + rest)


def mode_directions(like: Tensor) -> Tensor:
    """Directions ``2 pi m / M`` of M modes, with M the last dimension of `like`."""
    n_modes = like.shape[-1]
    return torch.arange(n_modes, device=like.device, dtype=like.dtype) * (2 * math.pi / n_modes)
