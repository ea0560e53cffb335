"""The loss of one step: the model's terms, weighted and averaged over the batch."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tumble.fit.augment import degrade, disturb_geometry, disturb_intensity, mirror
from tumble.fit.batches import read_numbers
from tumble.model import objectives

if TYPE_CHECKING:
    from tumble.fit.batches import Batch
    from tumble.fit.config import Disorder, FitConfig
    from tumble.model.coordinates import Placement
    from tumble.model.ssrvae import SSRVAE

__all__ = ["Teacher", "training_loss"]

#: Share by which a learned class prior moves towards the mean of q(y | x) of a batch.
_PRIOR_RATE = 0.02
#: Where there are no classes, agreement on the pose gains weight with this power of that of the divergences.
_LATE = 6


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
    """The images of one step, the disorder applied to them, and what the teacher says of them."""

    labelled: Tensor
    labelled_pose: Placement
    undisturbed: Tensor
    disturbed: Tensor
    disturbed_pose: Placement
    teacher_p: Tensor


def _views(teacher: SSRVAE, batch: Batch, settings: FitConfig, generator: torch.Generator) -> _Views:
    x_labelled, undisturbed = batch.x_labelled, batch.x_unlabelled
    if settings.disorder.mirror:
        # Upright objects stay upright in the mirror; those that stand for all without classes lie at any angle.
        x_labelled = x_labelled if teacher.classifier is None else mirror(x_labelled, generator)
        undisturbed = mirror(undisturbed, generator)
    labelled, labelled_pose = disturb_geometry(x_labelled, _disorder_of_labelled(teacher, settings), generator)
    with torch.no_grad():
        teacher_p = torch.softmax(teacher.classify(undisturbed), dim=1)
        angle, shift = _present_pose(teacher, undisturbed, teacher_p, settings)
    disturbed, disturbed_pose = disturb_geometry(
        undisturbed, settings.disorder, generator, present_angle=angle, present_shift=shift
    )
    return _Views(labelled, labelled_pose, undisturbed, disturbed, disturbed_pose, teacher_p)


def _disorder_of_labelled(model: SSRVAE, settings: FitConfig) -> Disorder:
    """Give the disorder that is applied to labelled images.

    Without classes these are a few objects, in the end one, which may itself be sheared as far as any: its copies must
    reach all others.
    """
    if model.classifier is not None:
        return settings.disorder
    return dataclasses.replace(settings.disorder, shear=2 * settings.disorder.shear)


def _present_pose(
    teacher: SSRVAE, x: Tensor, teacher_p: Tensor, settings: FitConfig
) -> tuple[Tensor | None, Tensor | None]:
    """Where the teacher believes unlabelled objects lie, as far as the disturbance has to know.

    Their angle, where angles are known and limited in range; their shift, where there are no labels at all.
    """
    turns, moves = ("rotation" in teacher.config.invariances, "translation" in teacher.config.invariances)
    alone = teacher.classifier is None
    wants_angle = turns and settings.aligned and not alone and 0 < settings.disorder.angle_rad < math.pi
    wants_shift = turns and moves and alone
    if not wants_angle and not wants_shift:
        return None, None
    pose = teacher.mean_pose(teacher.encode(teacher.features(x), teacher_p.argmax(dim=1)))
    return pose.angle if wants_angle else None, pose.shift if wants_shift else None


def training_loss(
    model: SSRVAE,
    teacher: SSRVAE,
    batch: Batch,
    settings: FitConfig,
    *,
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
    views = _views(teacher, batch, settings, generator)
    if model.classifier is None:
        logits_u = views.undisturbed.new_zeros(_n_drawn(settings, len(views.undisturbed)), 1)
        class_loss, parts = views.undisturbed.new_zeros(()), {}
    else:
        class_loss, logits_u, parts = _class_losses(model, batch, views, settings, generator)
        if settings.learn_class_prior:
            model.move_prior(views.teacher_p.mean(dim=0), _PRIOR_RATE)
    generative, pose, more = _generative_losses(model, batch, views, logits_u, settings, kl_weight, generator)
    loss = class_loss + settings.generative_weight * generative + settings.pose_weight * pose
    return loss, read_numbers({"loss": loss, **parts, "consistency_pose": pose, **more})


def _n_drawn(settings: FitConfig, n_unlabelled: int) -> int:
    """Images that encoder and decoder see. Batches are in random order, so the first rows are a fair sample."""
    return max(1, round(settings.generative_share * n_unlabelled))


def _class_losses(
    model: SSRVAE, batch: Batch, views: _Views, settings: FitConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Weighted loss of the classifier, logits of the undisturbed images that are drawn, and parts for the record."""
    # Without the consistency nothing asks for the class of disturbed copies, half of what the classifier would do.
    disturbed = views.disturbed if settings.pseudo_label_weight else views.disturbed[:0]
    # One pass of the classifier over all views: batch normalisation then sees the mixture it will meet later.
    seen = torch.cat([views.labelled, disturbed])
    seen = disturb_intensity(seen, settings.disorder, model.pixel_scale, generator)
    seen = degrade(seen, settings.disorder, model.pixel_scale, generator)
    n_drawn = _n_drawn(settings, len(views.undisturbed))
    logits = model.classify(torch.cat([seen, views.undisturbed[:n_drawn]]))
    logits_l, logits_d, logits_u = logits.split([len(batch.y), len(disturbed), n_drawn])
    classification = objectives.classification_loss(logits_l, batch.y, label_smoothing=settings.label_smoothing).mean()
    loss = settings.classification_weight * classification
    parts = {"classification": classification}
    if len(disturbed):
        pseudo = objectives.pseudo_label_loss(logits_d, views.teacher_p, threshold=settings.threshold).mean()
        loss = loss + settings.pseudo_label_weight * pseudo
        sure = views.teacher_p.amax(dim=1) >= settings.threshold
        parts |= {"consistency_class": pseudo, "pseudo_labelled": sure.to(loss.dtype).mean()}
    return loss, logits_u, parts


def _generative_losses(
    model: SSRVAE,
    batch: Batch,
    views: _Views,
    logits_u: Tensor,
    settings: FitConfig,
    kl_weight: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Negative bounds per pixel, pose terms, and their parts for the record."""
    n_l = max(1, round(settings.generative_share * len(batch.y))) if len(batch.y) else 0
    n_u = len(logits_u)
    x_l, y, x_u, x_d = views.labelled[:n_l], batch.y[:n_l], views.undisturbed[:n_u], views.disturbed[:n_u]
    n_pixels = x_u[0].numel()
    prior = objectives.pose_prior_for(model, x_u)
    features_l, features_u, features_d = model.features(torch.cat([x_l, x_u, x_d])).split([n_l, n_u, n_u])
    shared = {"prior": prior, "generator": generator}
    bounds_u, terms = objectives.unlabelled_bound(
        model,
        x_u,
        logits_u,
        features_u,
        kl_weight=kl_weight,
        floor=settings.class_floor,
        max_classes=settings.max_classes,
        **shared,
    )
    bound = bounds_u.mean() / n_pixels
    parts = {"elbo_unlabelled": bound}
    pseudo_y = views.teacher_p[:n_u].argmax(dim=1)
    before, after = model.encode(features_u, pseudo_y), model.encode(features_d, pseudo_y)
    applied, alone = views.disturbed_pose.rows(n_u), model.classifier is None
    pose = objectives.pose_consistency(model, before, after, applied, sharpness=2.0 if alone else 1.0).mean()
    if alone and settings.kl_weight:
        # Copies of objects of known orientation have to set the zero first: agreement alone would make several of them.
        pose = pose * (kl_weight / settings.kl_weight) ** _LATE
    if n_l:
        posterior_l = model.encode(features_l, y)
        terms = objectives.elbo_terms(model, x_l, y, posterior_l, **shared)
        bound_l = terms.bound(kl_weight).mean() / n_pixels
        bound = bound + bound_l
        parts["elbo_labelled"] = bound_l
        if settings.aligned:
            pose = pose + objectives.pose_surprise(model, posterior_l, views.labelled_pose.rows(n_l)).mean()
    parts |= {"kl_z": terms.kl_z.mean(), "kl_pose": terms.kl_pose.mean()}
    return -bound, pose, parts
