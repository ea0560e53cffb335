"""The loss of one step: the model's terms, weighted and averaged over the batch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tumble.fit.augment import disturb_geometry, disturb_intensity
from tumble.model import objectives

if TYPE_CHECKING:
    from tumble.fit.batches import Batch
    from tumble.fit.config import FitConfig
    from tumble.model.coordinates import Placement
    from tumble.model.ssrvae import SSRVAE

__all__ = ["Teacher", "training_loss"]


class Teacher:
    """Exponential moving average of a model's weights and running statistics.

    Parameters
    ----------
    model : SSRVAE
        The model to follow; its present weights are the start.
    decay : float
        Weight of the past per step, reached gradually: early on the average covers a tenth of the steps so far.
    """

    def __init__(self, model: SSRVAE, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._pairs = [
            (ours, theirs)
            for ours, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
            if ours.dtype.is_floating_point  # batch normalisation also counts its batches, in integers
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after optimiser step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for ours, theirs in self._pairs:
            ours.lerp_(theirs, 1 - decay)


@dataclass(frozen=True)
class _Views:
    """The images of one step and the disorder applied to them."""

    labelled: Tensor
    labelled_pose: Placement
    disturbed: Tensor
    disturbed_pose: Placement


def _views(batch: Batch, settings: FitConfig, generator: torch.Generator) -> _Views:
    labelled, labelled_pose = disturb_geometry(batch.x_labelled, settings.disorder, generator)
    disturbed, disturbed_pose = disturb_geometry(batch.x_unlabelled, settings.disorder, generator)
    return _Views(labelled, labelled_pose, disturbed, disturbed_pose)


def training_loss(
    model: SSRVAE,
    teacher: SSRVAE,
    batch: Batch,
    settings: FitConfig,
    *,
    log_py: Tensor,
    kl_weight: float,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one step, and its parts for the record.

    Parameters
    ----------
    model, teacher : SSRVAE
        The model in training and the running mean of its weights.
    batch : Batch
        Labelled and unlabelled images.
    settings : FitConfig
        Weights and ranges.
    log_py : Tensor of shape (K,)
        Logarithm of the class prior.
    kl_weight : float
        Present weight of the divergences.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    loss : Tensor of shape ()
        To be minimised.
    parts : dict of str to float
        Unweighted means of the terms; bounds in nats per pixel.
    """
    views = _views(batch, settings, generator)
    n_labelled, n_unlabelled = len(batch.y), len(batch.x_unlabelled)
    # One pass of the classifier over all views: batch normalisation then sees the mixture it will meet later.
    seen = torch.cat([views.labelled, views.disturbed])
    seen = disturb_intensity(seen, settings.disorder, model.pixel_scale, generator)
    n_drawn = max(1, round(settings.generative_share * n_unlabelled))
    logits = model.classify(torch.cat([seen, batch.x_unlabelled[:n_drawn]]))
    logits_l, logits_d, logits_u = logits.split([n_labelled, n_unlabelled, n_drawn])
    with torch.no_grad():
        teacher_p = torch.softmax(teacher.classify(batch.x_unlabelled), dim=1)

    classification = objectives.classification_loss(logits_l, batch.y, label_smoothing=settings.label_smoothing).mean()
    pseudo = objectives.pseudo_label_loss(logits_d, teacher_p, threshold=settings.threshold).mean()
    generative, pose, parts = _generative_losses(
        model, batch, views, logits_u, teacher_p, settings, log_py, kl_weight, generator
    )
    loss = (
        settings.classification_weight * classification
        + settings.pseudo_label_weight * pseudo
        + settings.generative_weight * generative
        + settings.pose_weight * pose
    )
    parts |= {
        "loss": loss.item(),
        "classification": classification.item(),
        "consistency_class": pseudo.item(),
        "consistency_pose": pose.item(),
        "pseudo_labelled": (teacher_p.amax(dim=1) >= settings.threshold).float().mean().item(),
    }
    return loss, parts


def _generative_losses(
    model: SSRVAE,
    batch: Batch,
    views: _Views,
    logits_u: Tensor,
    teacher_p: Tensor,
    settings: FitConfig,
    log_py: Tensor,
    kl_weight: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Negative bounds per pixel, pose terms, and their parts for the record."""
    # Batches are in random order, so the first rows are a fair sample.
    n_l = max(1, round(settings.generative_share * len(batch.y)))
    n_u = len(logits_u)
    x_l, y, x_u, x_d = views.labelled[:n_l], batch.y[:n_l], batch.x_unlabelled[:n_u], views.disturbed[:n_u]
    n_pixels = x_l[0].numel()
    prior = objectives.pose_prior_for(model, x_l)
    features_l, features_u, features_d = model.features(torch.cat([x_l, x_u, x_d])).split([n_l, n_u, n_u])
    posterior_l = model.encode(features_l, y)
    shared = {"prior": prior, "log_py": log_py, "generator": generator}
    terms = objectives.elbo_terms(model, x_l, y, posterior_l, **shared)
    bound_l = terms.bound(kl_weight).mean() / n_pixels
    bounds_u = objectives.unlabelled_bound(
        model, x_u, logits_u, features_u, kl_weight=kl_weight, floor=settings.class_floor, **shared
    )
    bound_u = bounds_u.mean() / n_pixels
    pseudo_y = teacher_p[:n_u].argmax(dim=1)
    before, after = model.encode(features_u, pseudo_y), model.encode(features_d, pseudo_y)
    pose = objectives.pose_consistency(model, before, after, views.disturbed_pose.rows(n_u)).mean()
    if settings.aligned:
        pose = pose + objectives.pose_surprise(model, posterior_l, views.labelled_pose.rows(n_l)).mean()
    parts = {
        "elbo_labelled": bound_l.item(),
        "elbo_unlabelled": bound_u.item(),
        "kl_z": terms.kl_z.mean().item(),
        "kl_pose": terms.kl_pose.mean().item(),
    }
    return -(bound_l + bound_u), pose, parts
