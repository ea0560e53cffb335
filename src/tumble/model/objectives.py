"""Terms of the objective; each function gives one value per observation, shape ``(batch,)``.

Symbols are those of the paper and of Kingma et al. (2014): ``L(x, y)`` is the bound for a labelled observation (here
:meth:`ElboTerms.bound`), ``U(x)`` that for an unlabelled one (:func:`unlabelled_bound`).

References
----------
.. [1] D. P. Kingma, D. J. Rezende, S. Mohamed, M. Welling, "Semi-supervised learning with deep generative models",
       2014, https://arxiv.org/abs/1406.5298 (equations 6 to 9).
.. [2] K. Sohn et al., "FixMatch: simplifying semi-supervised learning with consistency and confidence", 2020,
       https://arxiv.org/abs/2001.07685 (equation 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional as F

from tumble.model.distributions import draw_normal, kl_normal
from tumble.model.ssrvae import SSRVAE, PoseSample, PosteriorZPose

if TYPE_CHECKING:
    from tumble.model.coordinates import Placement

__all__ = [
    "ElboTerms",
    "PosePrior",
    "classification_loss",
    "elbo_terms",
    "plausible_classes",
    "pose_consistency",
    "pose_prior_for",
    "pose_surprise",
    "pseudo_label_loss",
    "unlabelled_bound",
]


@dataclass(frozen=True)
class PosePrior:
    """p(shift) and p(scale variable), broadcasting over observations. p(angle) belongs to the posterior's family."""

    shift: Normal
    scale: Normal


def pose_prior_for(model: SSRVAE, like: Tensor) -> PosePrior:
    """Build the prior of objects about whose pose nothing is known; broadcasts over the rows of `like`."""
    zero = like.new_zeros(1, 1)
    config = model.config
    unchecked = {"validate_args": False}  # a check of values would wait for a GPU
    return PosePrior(
        Normal(zero, zero + config.shift_unit_px, **unchecked), Normal(zero, zero + config.scale_prior, **unchecked)
    )


@dataclass(frozen=True)
class ElboTerms:
    """The terms of ``L(x, y)`` for each observation; all of shape (batch,), in nats.

    Parameters
    ----------
    log_px : Tensor
        log p(x | y, z, pose) at one draw from the posterior.
    log_py : Tensor
        log p(y).
    kl_z : Tensor
        KL(q(z | x, y) || p(z)).
    kl_pose : Tensor
        Sum of the divergences of angle, shift and log scale from their priors.
    """

    log_px: Tensor
    log_py: Tensor
    kl_z: Tensor
    kl_pose: Tensor

    def bound(self, kl_weight: float = 1.0) -> Tensor:
        """Evidence lower bound ``L(x, y)`` with divergences weighted by `kl_weight` (1: the bound itself)."""
        return self.log_px + self.log_py - kl_weight * (self.kl_z + self.kl_pose)


def kl_shift_and_scale(posterior: PosteriorZPose, prior: PosePrior) -> Tensor:
    """KL of shift and log scale from their priors, summed over the parts that are inferred; (batch,)."""
    total = posterior.qz.loc.new_zeros(posterior.qz.loc.shape[0])
    if posterior.qshift is not None:
        total = total + kl_normal(posterior.qshift, prior.shift)
    if posterior.qscale is not None:
        total = total + kl_normal(posterior.qscale, prior.scale)
    return total


def elbo_terms(
    model: SSRVAE,
    x: Tensor,
    y: Tensor,
    posterior: PosteriorZPose,
    *,
    prior: PosePrior,
    max_modes: int = 2,
    generator: torch.Generator | None = None,
) -> ElboTerms:
    """Terms of the bound for observations whose class is given.

    Parameters
    ----------
    model : SSRVAE
        Decoder and likelihood.
    x : Tensor of shape (batch, C, H, W)
        Images.
    y : Tensor of shape (batch,)
        Class indices.
    posterior : PosteriorZPose
        q(z, pose | x, y).
    prior : PosePrior
        p(pose).
    max_modes : int, default=2
        Modes of the angle that are visited per observation, see :class:`tumble.model.angle_mixture.CircularMixture`.
    generator : torch.Generator, optional
        Source of the draws.

    Returns
    -------
    ElboTerms
    """
    z = draw_normal(posterior.qz, generator)
    blank = z.new_zeros(len(z))
    shift = draw_normal(posterior.qshift, generator) if posterior.qshift else z.new_zeros(len(z), 2)
    scale = draw_normal(posterior.qscale, generator)[:, 0] if posterior.qscale else blank
    kl_pose = kl_shift_and_scale(posterior, prior)
    if posterior.qangle is None:
        log_px = model.log_likelihood(x, model.decode(z, y, model.to_pose(blank, shift, scale)))
    else:
        draw = posterior.qangle.draw(generator, max_modes=max_modes)
        rows = draw.rows
        drawn = model.decode(z, y, model.to_pose(draw.angle, shift[rows], scale[rows]), rows)
        log_px = blank.index_add(0, rows, draw.weights * model.log_likelihood(x[rows], drawn))
        kl_pose = kl_pose + draw.kl
    zero = torch.zeros((), device=x.device, dtype=x.dtype)
    return ElboTerms(log_px, model.log_py[y], kl_normal(posterior.qz, Normal(zero, zero + 1)), kl_pose)


def plausible_classes(probabilities: Tensor, floor: float, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Pairs (row, class) that the sum over classes must visit: those of probability at least `floor`.

    Parameters
    ----------
    probabilities : Tensor of shape (batch, K)
        q(y | x).
    floor : float
        Classes below this probability are skipped; the most probable class of a row never is.
    most : int, optional
        Classes per row at most, the most probable ones.

    Returns
    -------
    rows, classes : Tensor of shape (n_pairs,)
        Indices, in row order.

    Examples
    --------
    >>> rows, classes = plausible_classes(torch.tensor([[0.999, 0.001], [0.4, 0.6]]), floor=0.01)
    >>> rows.tolist(), classes.tolist()
    ([0, 1, 1], [0, 0, 1])
    """
    if floor <= 0 and (most is None or most >= probabilities.shape[1]):
        # All of them, without asking a GPU how many there are.
        n, k = probabilities.shape
        every = torch.arange(n * k, device=probabilities.device)
        return every // k, every % k
    keep = probabilities >= floor
    if most is not None and most < keep.shape[1]:
        keep &= torch.zeros_like(keep).scatter(1, probabilities.topk(most, dim=1).indices, True)
    keep[torch.arange(len(keep)), probabilities.argmax(dim=1)] = True
    rows, classes = keep.nonzero(as_tuple=True)
    return rows, classes


def unlabelled_bound(
    model: SSRVAE,
    x: Tensor,
    logits: Tensor,
    features: Tensor,
    *,
    prior: PosePrior,
    kl_weight: float = 1.0,
    floor: float = 0.0,
    max_classes: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, ElboTerms]:
    """``U(x) = sum_y q(y | x) L(x, y) + H(q(y | x))``, summed exactly over the plausible classes.

    Parameters
    ----------
    model : SSRVAE
        The model.
    x : Tensor of shape (batch, C, H, W)
        Images.
    logits : Tensor of shape (batch, K)
        Of q(y | x).
    features : Tensor of shape (batch, hidden)
        :meth:`SSRVAE.features` of x, computed once however many classes are visited.
    prior, generator
        As in :func:`elbo_terms`.
    kl_weight : float
        Weight of the divergences.
    floor : float
        Classes of smaller q(y | x) are skipped; the kept ones are renormalised, which restricts the posterior to them,
        so that the bound stays a bound. 0 is the full sum.
    max_classes : int, optional
        Classes per image at most, the most probable ones.

    Returns
    -------
    bound : Tensor of shape (batch,)
        In nats.
    terms : ElboTerms
        Of each (row, class) pair that was visited.
    """
    q = torch.softmax(logits, dim=1)
    rows, classes = plausible_classes(q.detach(), floor, max_classes)
    posterior = model.encode(features[rows], classes)
    terms = elbo_terms(model, x[rows], classes, posterior, prior=prior, generator=generator)
    kept = q[rows, classes]
    total = torch.zeros(len(x), device=x.device, dtype=x.dtype).index_add(0, rows, kept)
    weights = kept / total[rows]
    expected = torch.zeros_like(total).index_add(0, rows, weights * terms.bound(kl_weight))
    entropy = torch.zeros_like(total).index_add(0, rows, -weights * torch.log(weights.clamp(min=1e-30)))
    return expected + entropy, terms


def classification_loss(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """``-log q(y | x)`` of labelled images, equation 9 of [1]; (batch,)."""
    return F.cross_entropy(logits, y, reduction="none", label_smoothing=label_smoothing)


def pseudo_label_loss(logits: Tensor, teacher_probabilities: Tensor, *, threshold: float) -> Tensor:
    """Cross-entropy to the teacher's class where the teacher is sure, else 0; equation 4 of [2]; (batch,).

    Parameters
    ----------
    logits : Tensor of shape (batch, K)
        Of the disturbed images.
    teacher_probabilities : Tensor of shape (batch, K)
        Of the undisturbed images; no gradient flows into them.
    threshold : float
        The least probability that counts as sure.

    Returns
    -------
    Tensor of shape (batch,)
    """
    confidence, pseudo_y = teacher_probabilities.detach().max(dim=1)
    return F.cross_entropy(logits, pseudo_y, reduction="none") * (confidence >= threshold).to(logits.dtype)


def pose_consistency(
    model: SSRVAE, before: PosteriorZPose, after: PosteriorZPose, applied: Placement, *, sharpness: float = 1.0
) -> Tensor:
    """How unlikely, to the posterior of a placed image, the pose is that placing it should have given; (batch,).

    An image and its copy that was turned by ``applied.angle`` show the same object at angles that differ by
    ``applied.angle``, whatever the canonical orientation is; likewise for shift and scale. For the angle this is the
    cross-entropy, in nats, from the modes of the first posterior, turned, to the second posterior: a symmetric object
    may keep its several modes, and only the second posterior is taught by it. For shift and scale it is a Huber
    distance in units of the prior, which teaches both.

    With `sharpness` above 1 the weights of the first posterior's modes are raised to that power, so that an object
    that is nearly symmetric settles for one of them.
    """
    pose = model.mean_pose(before)
    angle, shift, scale = applied.compose(pose.angle, pose.shift, pose.scale)
    total = shift_and_scale_distance(model, after, PoseSample(angle, shift, scale))
    if before.qangle is not None and after.qangle is not None:
        directions, weights = before.qangle.directions()
        turned = (directions + applied.angle.unsqueeze(1)).detach()
        weights = weights**sharpness / (weights**sharpness).sum(dim=1, keepdim=True)
        total = total - (weights.detach() * after.qangle.log_prob(turned)).sum(dim=1)
    return total


def pose_surprise(model: SSRVAE, posterior: PosteriorZPose, applied: Placement) -> Tensor:
    """``-log q(angle)`` of an upright, centred object after its image was placed, and shift and scale; (batch,)."""
    target = PoseSample(applied.angle, applied.move, applied.scale)
    total = shift_and_scale_distance(model, posterior, target)
    if posterior.qangle is not None:
        total = total - posterior.qangle.log_prob(target.angle)
    return total


def shift_and_scale_distance(model: SSRVAE, posterior: PosteriorZPose, target: PoseSample) -> Tensor:
    """Huber distance of the mean shift and log scale from known ones, in units of their priors; (batch,)."""
    config = model.config
    seen = model.mean_pose(posterior)
    total = posterior.qz.loc.new_zeros(posterior.qz.loc.shape[0])
    if posterior.qshift is not None:
        total = total + _huber((seen.shift - target.shift) / (config.translation_prior * config.side))
    if posterior.qscale is not None:
        total = total + _huber((seen.scale / target.scale).log().unsqueeze(1) / config.scale_prior)
    return total


def _huber(distance: Tensor) -> Tensor:
    """Quadratic near 0 and linear beyond 1, so that a few hopeless rows do not rule the gradient; (batch,)."""
    return F.huber_loss(distance, torch.zeros_like(distance), reduction="none").sum(dim=1)
