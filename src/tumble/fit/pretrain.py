"""Before the training: convolutions that know the objects from having drawn all of them, without a label.

An rVAE of all images is trained first. Its encoder has convolutions of the kind that classify; the classifier then
begins with them, and the encoder of the semi-supervised model as well if its own are of that kind.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tumble.fit.batches import TrainingData
from tumble.model.nets import Classifier, ConvTrunk, Encoder
from tumble.model.ssrvae import SSRVAE

if TYPE_CHECKING:
    from tumble.fit.config import FitConfig
    from tumble.model.config import ModelConfig

__all__ = ["begin_with", "draw_with_classifier", "without_labels"]


def without_labels(
    data: TrainingData, config: ModelConfig, settings: FitConfig
) -> tuple[TrainingData, ModelConfig, FitConfig]:
    """Give data, networks and settings of the rVAE that comes before a semi-supervised model of these."""
    alone = dataclasses.replace(
        settings,
        max_epochs=settings.pretrain_epochs,
        pretrain_epochs=0,
        # The objects of known orientation are the rVAE's own, see tumble.fit.reference.
        aligned=True,
        # Nothing else teaches it to draw.
        generative_weight=settings.generative_weight or 1.0,
        learn_class_prior=False,
        calibrate=False,
        novelty=False,
    )
    unlabelled = TrainingData(data.x, np.full(len(data), -1, dtype=np.int64))
    return unlabelled, dataclasses.replace(config, n_classes=0), alone


def draw_with_classifier(rvae: SSRVAE, config: ModelConfig) -> None:
    """Give the encoder of an rVAE new convolutions, of the kind that classify in a model of this configuration.

    They see no distance from the centre, and without the unstrided ones at the end no more of the object than need be:
    on plankton the classifier learned less well from convolutions that had both.
    """
    # One class, whatever there are: what is drawn at random then hangs on the images and the kind of network alone.
    kind = dataclasses.replace(config, n_classes=1, radius=False, extra_convolutions=0)
    classifier = SSRVAE(kind).classifier
    assert isinstance(classifier, Classifier)
    assert isinstance(rvae.encoder, Encoder)
    rvae.encoder.trunk = classifier.trunk
    rvae.encoder.features_layer = nn.Linear(math.prod(classifier.trunk.out_shape), config.hidden)


def begin_with(rvae: SSRVAE, model: SSRVAE) -> None:
    """Copy the convolutions of an rVAE's encoder into the classifier of a model, and into its encoder if alike."""
    assert isinstance(model.classifier, Classifier)
    assert isinstance(model.encoder, Encoder)
    assert isinstance(rvae.encoder, Encoder)
    source, own = rvae.encoder.trunk, model.encoder.trunk
    _take(model.classifier.trunk, source)
    if isinstance(own, ConvTrunk) and isinstance(source, ConvTrunk) and own.block == source.block:
        own.load_state_dict(source.state_dict())


@torch.no_grad()
def _take(target: nn.Module, source: nn.Module) -> None:
    """Copy all tensors of a source that has fewer layers, and does not see the distance from the centre.

    The first convolution of the target, whose last channel that distance is, begins without regard to it.
    """
    there = target.state_dict()
    for name, given in source.state_dict().items():
        tensor = there[name]
        if given.shape == tensor.shape:
            tensor.copy_(given)
        else:
            tensor.zero_()[:, :-1].copy_(given)
