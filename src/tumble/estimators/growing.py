"""A model that is still being fitted, as an estimator that can be asked."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tumble.estimators.base import resolve_device
from tumble.estimators.settings import model_config
from tumble.model.ssrvae import SSRVAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from tumble.estimators.base import ImageModel

__all__ = ["as_fitted", "centre_on"]

Model = TypeVar("Model", bound="ImageModel")

#: Fewer objects than this say too little of where a class lies.
_MIN_MEMBERS = 5


def as_fitted(
    estimator: Model, weights: Mapping[str, Tensor], classes: npt.NDArray[Any], image_shape: tuple[int, int, int]
) -> Model:
    """Return a copy of an estimator with the weights of an epoch; neither it nor the fit is changed.

    Parameters
    ----------
    estimator : ImageModel
        As it is fitted.
    weights : mapping of str to Tensor
        From :meth:`tumble.fit.callbacks.RunHandle.weights`.
    classes : ndarray of shape (K,)
        Classes, in the order of the fit: sorted.
    image_shape : (int, int, int)
        Channels, height and width.

    Returns
    -------
    ImageModel
    """
    params = estimator._params()
    # Layers draw initial weights, for nothing; the fork keeps torch's global generator as it was.
    with torch.random.fork_rng(devices=[]):
        module = SSRVAE(model_config(params, len(classes), image_shape))
    if "turn" in weights:  # they are those of a finished fit
        module.add_turn()
    module.load_state_dict(weights)
    model = copy.copy(estimator)
    model.model_ = module.to(resolve_device(params["device"])).eval()
    model.classes_ = classes
    return model


def centre_on(model: ImageModel, z: npt.NDArray[np.float32], k: npt.NDArray[np.int64]) -> None:
    """Let traversals of a model follow some objects: a fit measures where its classes lie only when it ends.

    Parameters
    ----------
    model : ImageModel
        As :func:`as_fitted` gives it.
    z : ndarray of shape (n, latent_dim)
        Latent factors of the objects.
    k : ndarray of shape (n,)
        Number of the predicted class of each. A class of fewer than five is drawn around the middle of all.
    """
    module = model.model_
    for i in range(len(module.latent_loc)):
        members = z[k == i]
        members = members if len(members) >= _MIN_MEMBERS else z
        module.latent_loc[i] = torch.from_numpy(members.mean(axis=0))
        module.latent_scale[i] = torch.from_numpy(members.std(axis=0))
