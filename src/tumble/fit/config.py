"""Settings of a training run, all in one frozen place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["TARGET_STEPS", "TARGET_STEPS_UNLABELLED", "Disorder", "FitConfig"]

#: Optimiser steps of a run whose number of epochs was left to the method: with labels, and without.
TARGET_STEPS = 1000
#: Without labels the pose has no teacher; after a third of this, objects may still be taken for their own upside down.
TARGET_STEPS_UNLABELLED = 3000


@dataclass(frozen=True)
class Disorder:
    """How images are disturbed in training: the known disorder of the objects, and small jitter of the rest.

    Parameters
    ----------
    angle_rad : float
        Rotations are uniform in +-angle_rad.
    shift_px : float
        Displacements are uniform in +-shift_px on each axis.
    log_scale : float
        Logarithms of the magnification are uniform in +-log_scale.
    shear : float
        Tangents of the shear are uniform in +-shear on each axis.
    intensity : float
        Gain is uniform in 1 +- intensity; offset in +-intensity/2 standard deviations of the pixels.
    mirror : bool
        Whether images are mirrored at random.
    degradation : float
        Largest strength of simulated noise, specks, covers and blur (see :func:`tumble.fit.augment.degrade`), in
        units of four standard deviations of the pixels; 0 leaves images as sharp as they are.
    """

    angle_rad: float = math.pi
    shift_px: float = 4.8
    log_scale: float = 0.2
    shear: float = 0.2
    intensity: float = 0.1
    mirror: bool = False
    degradation: float = 0.0


@dataclass(frozen=True)
class FitConfig:
    """Everything about training that is not the shape of the networks.

    Parameters
    ----------
    max_epochs : int or None
        Passes over all images, after those of `pretrain_epochs`; None makes about :data:`TARGET_STEPS` optimiser
        steps, or without labels :data:`TARGET_STEPS_UNLABELLED`.
    batch_size : int
        Images without regard to labels per step.
    labelled_batch_size : int
        Labelled images per step, drawn with equal share of each class.
    learning_rate : float
        Peak rate of AdamW; linear warm-up over 5 % of the steps, then a cosine to 0.
    weight_decay : float
        Of AdamW.
    disorder : Disorder
        What the consistency terms and the augmentation apply.
    aligned : bool
        Whether labelled objects lie upright and centred, so that their pose is known.
    threshold : float
        Least teacher probability for a pseudo-label.
    label_smoothing : float
        Of the classification loss.
    ema_decay : float
        Of the running mean of the weights, which is the teacher and the final model; reached gradually (see
        :class:`tumble.fit.losses.Teacher`). 0 is no mean.
    kl_weight : float
        Weight of the divergences, reached linearly over the first third of the steps.
    class_floor : float
        Classes of smaller q(y | x) are skipped in the sum over classes.
    max_classes : int
        Most classes per image in that sum, so that many classes cost little more than few while q(y | x) is flat.
    generative_share : float
        Part of each batch that the encoder and the decoder see. Classes need large batches, drawings do not, and
        this is half of the cost of a step.
    classification_weight, pseudo_label_weight, generative_weight, pose_weight : float
        Weights of the terms of the loss. The bound is divided by the number of pixels, so that weights keep their
        meaning for any size of image.
    learn_class_prior : bool
        Whether p(y) follows the mean of q(y | x) over the unlabelled images; otherwise it stays as given.
    calibrate : bool
        Whether part of the labels is held out to calibrate the probabilities, where there are many
        (see :func:`tumble.fit.confidence.hold_out_labels`).
    novelty : bool
        Whether a score of novelty is learned after the training (see :func:`tumble.fit.confidence.fit_novelty`).
    compile : bool
        Whether the networks are compiled with :func:`torch.compile`.
    precision : {"float32", "bfloat16"}
        Arithmetic of the networks in training; bfloat16 is for hardware that has it.
    pretrain_epochs : int
        Passes over all images of the rVAE whose convolutions the model begins with (see :mod:`tumble.fit.pretrain`);
        0 begins with drawn ones.
    """

    max_epochs: int | None = None
    batch_size: int = 96
    labelled_batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    disorder: Disorder = field(default_factory=Disorder)
    aligned: bool = True
    threshold: float = 0.95
    label_smoothing: float = 0.0
    ema_decay: float = 0.995
    kl_weight: float = 1.0
    class_floor: float = 0.01
    max_classes: int = 4
    generative_share: float = 0.5
    classification_weight: float = 1.0
    pseudo_label_weight: float = 1.0
    generative_weight: float = 1.0
    pose_weight: float = 1.0
    learn_class_prior: bool = False
    calibrate: bool = True
    novelty: bool = True
    compile: bool = False
    precision: str = "float32"
    pretrain_epochs: int = 0

    def epochs_for(self, n_images: int, *, labels: bool = True) -> int:
        """Return the number of epochs for a data set of `n_images`, with or without labels."""
        if self.max_epochs is not None:
            return self.max_epochs
        return max(1, round((TARGET_STEPS if labels else TARGET_STEPS_UNLABELLED) / self.steps_per_epoch(n_images)))

    def steps_per_epoch(self, n_images: int) -> int:
        """Optimiser steps in one pass over `n_images`."""
        return max(1, math.ceil(n_images / self.batch_size))
