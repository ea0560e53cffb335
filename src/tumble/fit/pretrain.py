"""Before the training: convolutions that know the objects from having drawn all of them, without a label.

An rVAE of all images is trained first. Its encoder has the convolutions of the classifier; the classifier then begins
with them, and the encoder of the semi-supervised model with those that are like its own.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tumble.fit.batches import TrainingData
from tumble.model.nets import Classifier, Encoder
from tumble.model.ssrvae import SSRVAE

if TYPE_CHECKING:
    from tumble.fit.config import FitConfig
    from tumble.model.config import ModelConfig

__all__ = ["STAGE", "begin_with", "draw_with_classifier", "without_labels"]

#: What an :class:`EpochReport` calls it, and the folder of its checkpoint within that of the run.
STAGE = "pre-training"


def without_labels(
    data: TrainingData, config: ModelConfig, settings: FitConfig
) -> tuple[TrainingData, ModelConfig, FitConfig]:
    """Give data, networks and settings of the rVAE that comes before a semi-supervised model of these."""
    alone = dataclasses.replace(
        settings,
        max_epochs=settings.pretrain_epochs,
        pretrain_epochs=0,
        # The one object of known orientation is the rVAE's own, see tumble.fit.reference.
        aligned=True,
        learn_class_prior=False,
        calibrate=False,
        novelty=False,
    )
    unlabelled = TrainingData(data.x, np.full(len(data), -1, dtype=np.int64))
    return unlabelled, dataclasses.replace(config, n_classes=0), alone


def draw_with_classifier(rvae: SSRVAE, config: ModelConfig) -> None:
    """Give the encoder of an rVAE new convolutions, of the kind that classify in a model of this configuration."""
    classifier = SSRVAE(config).classifier
    assert isinstance(classifier, Classifier)
    assert isinstance(rvae.encoder, Encoder)
    device = rvae.pixel_scale.device
    rvae.encoder.trunk = classifier.trunk.to(device)
    n_features = math.prod(classifier.trunk.out_shape)
    rvae.encoder.features_layer = nn.Linear(n_features, config.hidden).to(device)


def begin_with(rvae: SSRVAE, model: SSRVAE) -> None:
    """Copy the convolutions of an rVAE's encoder into classifier and encoder of a model."""
    assert isinstance(model.classifier, Classifier)
    assert isinstance(model.encoder, Encoder)
    assert isinstance(rvae.encoder, Encoder)
    model.classifier.trunk.load_state_dict(rvae.encoder.trunk.state_dict())
    _take_alike(model.encoder.trunk, rvae.encoder.trunk)


@torch.no_grad()
def _take_alike(target: nn.Module, source: nn.Module) -> None:
    """Copy the tensors that have the same name and shape.

    A first convolution that does not see the distance from the centre, the last channel of the source's, takes the
    rest.
    """
    have = source.state_dict()
    for name, tensor in target.state_dict().items():
        given = have.get(name, tensor)
        if given.ndim == 4 and given.shape[1] == tensor.shape[1] + 1:
            given = given[:, :-1]
        if given.shape == tensor.shape:
            tensor.copy_(given)
