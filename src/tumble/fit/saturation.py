"""Whether the first layers of the published networks still tell images apart."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from sklearn.exceptions import ConvergenceWarning

from tumble.fit.batches import as_images
from tumble.model.dense import DenseClassifier, DenseEncoder

if TYPE_CHECKING:
    from tumble.fit.batches import TrainingData
    from tumble.model.ssrvae import SSRVAE

__all__ = ["first_layer_spread", "warn_if_saturated"]

#: Images that are looked at, evenly from all.
_N_LOOKED_AT = 256
#: Mean spread of a unit's tanh below which the layer passes nothing on. Gold on its grey background ended at 0.0004
#: where nothing was learned; in its first thirty passes there, and on black, it lay above 0.02.
_LEAST_SPREAD = 0.005


def first_layer_spread(model: SSRVAE, x: torch.Tensor) -> float:
    """Give how much the first layer's tanh varies among images, in the mean over units; the least of the networks.

    Parameters
    ----------
    model : SSRVAE
        With fully connected networks.
    x : Tensor of shape (n, C, H, W)
        Two images or more.

    Returns
    -------
    float
        Standard deviation, from 0 (all images look the same) to 1.
    """
    layers = []
    if isinstance(model.encoder, DenseEncoder):
        layers.append(model.encoder.pixels)
    if isinstance(model.classifier, DenseClassifier):
        layers.append(model.classifier.layers[0])
    with torch.inference_mode():
        return min(float(torch.tanh(layer(x.flatten(1))).std(dim=0).mean()) for layer in layers)


def warn_if_saturated(model: SSRVAE, data: TrainingData) -> None:
    """Warn where all training images look the same to a network behind its first layer.

    Parameters
    ----------
    model : SSRVAE
        Fitted with ``method="paper"``, on any device.
    data : TrainingData
        What it was fitted to.

    Warns
    -----
    ConvergenceWarning
        If so; the message says what to do.
    """
    images = data.x[:: max(1, len(data.x) // _N_LOOKED_AT)]
    x = as_images(images, next(model.parameters()).device)
    if len(x) < 2 or bool((x == x[:1]).all()):
        return
    spread = first_layer_spread(model, x)
    if spread < _LEAST_SPREAD:
        warnings.warn(
            f'method="paper": the first layer is saturated, so that all images look alike to the network (its tanh '
            f"varies by {spread:.2g} among them). The usual cause is a bright background (mean pixel "
            f'{float(x.mean()):.2g}): subtract it so that it is 0, or use method="default", which normalises images.',
            ConvergenceWarning,
            stacklevel=4,
        )
