"""What every fitted image model offers: latent factors, pose, drawings, and a folder on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator

from tumble.errors import ConfigError, ModelFileError, NotFittedError
from tumble.fit.batches import as_images
from tumble.fit.checkpoint import load_model, save_model
from tumble.types import Pose
from tumble.validation import check_images, check_number

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from torch import Tensor

    from tumble.model.ssrvae import SSRVAE, PosteriorZPose

__all__ = ["ImageModel", "resolve_device", "stacked"]

_BATCH = 512


class ImageModel(BaseEstimator):
    """Methods of a fitted model that do not depend on how it was fitted.

    A subclass has the constructor and `fit`, which sets the attributes below.

    Attributes
    ----------
    model_ : SSRVAE
        The fitted module.
    classes_ : ndarray of shape (n_classes,)
        Classes.
    history_, n_iter_, stop_reason_, fit_seconds_
        How the fit went.
    """

    model_: SSRVAE
    classes_: npt.NDArray[Any]
    history_: dict[str, list[float]]
    n_iter_: int
    stop_reason_: str
    fit_seconds_: float

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Latent factors: posterior mean of z given the most probable class; shape (n, latent_dim).

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.

        Returns
        -------
        ndarray of shape (n, latent_dim)
        """
        return stacked(self._posterior(x)[0].qz.loc for x in self._batches(X))

    def pose(self, X: Any) -> Pose:
        """Angle, shift and scale of the object in each image, given the most probable class.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.

        Returns
        -------
        Pose
            Angles in rad, counter-clockwise as displayed; shifts in px. Where the angle is not inferred, its standard
            deviation is 0.
        """
        parts = []
        for x in self._batches(X):
            posterior, _ = self._posterior(x)
            pose = posterior.mean_pose()
            width = posterior.qangle.circular_std() if posterior.qangle else torch.zeros_like(pose.angle)
            parts.append(torch.cat([torch.stack([pose.angle, pose.scale, width], dim=1), pose.shift], dim=1))
        numbers = stacked(iter(parts))
        return Pose(angle_rad=numbers[:, 0], scale=numbers[:, 1], angle_std_rad=numbers[:, 2], shift_px=numbers[:, 3:])

    def reconstruct(self, X: Any) -> npt.NDArray[np.float32]:
        """Image that the model draws for the mean latent factors and pose of each image.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.

        Returns
        -------
        ndarray of the shape of `X`
            float32; in [0, 1] where the model was fitted to uint8 images.
        """
        drawn = []
        for x in self._batches(X):
            posterior, y = self._posterior(x)
            drawn.append(self.model_.decode(posterior.qz.loc, y, posterior.mean_pose()))
        images = stacked(iter(drawn))
        return images if np.ndim(X) == 4 else images[:, 0]

    def traverse(self, y: Any = None, *, n: int = 8, extent: float = 2.0) -> npt.NDArray[np.float32]:
        """Canonical images over a grid of the first two latent dimensions, for each class.

        The grid is centred on the mean latent factors of the class's objects; the other dimensions stay there.

        Parameters
        ----------
        y : label or None, default=None
            One class, or None for all in the order of `classes_`.
        n : int, default=8
            Steps per dimension.
        extent : float, default=2.0
            The grid spans [-extent, extent], in standard deviations of the class's objects.

        Returns
        -------
        ndarray of shape (K, n, n, H, W), or (K, n, n, C, H, W) for several channels
            Rows follow the first latent dimension, columns the second. H and W are the longer side of the image.

        Raises
        ------
        ConfigError
            If `y` is not one of the classes.
        """
        self._check_fitted()
        check_number("n", n, low=1, integer=True)
        indices = range(len(self.classes_)) if y is None else [self._class_index(y)]
        axis = torch.linspace(-extent, extent, n)
        steps = torch.zeros(n * n, self.model_.config.latent_dim)
        n_dims = min(2, steps.shape[1])
        steps[:, :n_dims] = torch.cartesian_prod(axis, axis)[:, :n_dims]
        steps = steps.to(_device_of(self.model_))
        drawn = []
        with torch.inference_mode():
            for k in indices:
                z = self.model_.latent_loc[k] + self.model_.latent_scale[k] * steps
                y = torch.full((n * n,), k, device=z.device)
                drawn.append(self.model_.to_mean(self.model_.canonical(z, y)))
        images = torch.stack(drawn).unflatten(1, (n, n)).cpu().numpy()
        return images[:, :, :, 0] if images.shape[3] == 1 else images

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``weights.safetensors`` into a folder, which is made if need be.

        Parameters
        ----------
        folder : path
            Where to.

        Raises
        ------
        ModelFileError
            If the folder cannot be written.
        """
        self._check_fitted()
        description = {
            "estimator": type(self).__name__,
            "params": _jsonable(self.get_params()),
            "classes": self.classes_.tolist(),
            "history": self.history_,
            "stop_reason": self.stop_reason_,
            "fit_seconds": self.fit_seconds_,
        }
        save_model(Path(folder), self.model_, description)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Read a model written by :meth:`save`.

        Parameters
        ----------
        folder : path
            Where from.
        device : str, default="auto"
            Where the model shall run.

        Returns
        -------
        The estimator, fitted.

        Raises
        ------
        ModelFileError
            If the folder is missing, incomplete, damaged, or of a format that this version does not know.
        """
        path = Path(folder)
        model, config = load_model(path)
        try:
            params = dict(config["params"])
            params["invariances"] = tuple(params["invariances"])
            estimator = cls(**params)
            estimator.classes_ = np.array(config["classes"])
            estimator.history_ = dict(config["history"])
            estimator.stop_reason_ = str(config["stop_reason"])
            estimator.fit_seconds_ = float(config["fit_seconds"])
            estimator.n_iter_ = max(map(len, estimator.history_.values()), default=0)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path / 'config.json'}: the description is damaged ({error}).") from error
        if len(estimator.classes_) != model.config.n_classes:
            raise ModelFileError(f"{path / 'config.json'}: the number of classes does not fit the networks.")
        estimator.model_ = model.to(resolve_device(device))
        return estimator

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet; call fit(X, y) first.")

    def _class_index(self, y: Any) -> int:
        found = np.flatnonzero(self.classes_ == y)
        if not len(found):
            raise ConfigError(f"y={y!r}: not one of the classes {self.classes_.tolist()}.")
        return int(found[0])

    def _batches(self, X: Any) -> Iterator[Tensor]:
        """Give checked images on the model's device, in pieces, within inference mode."""
        self._check_fitted()
        images = check_images(X, image_shape=self.model_.config.image_shape)
        device = _device_of(self.model_)
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                yield as_images(images[start : start + _BATCH], device)

    def _posterior(self, x: Tensor) -> tuple[PosteriorZPose, Tensor]:
        y = self.model_.classify(x).argmax(dim=1)
        return self.model_.encode(self.model_.features(x), y), y


def stacked(parts: Iterator[Tensor]) -> npt.NDArray[np.float32]:
    """Join tensors of batches into one array."""
    return np.concatenate([part.cpu().numpy() for part in parts])


def _device_of(model: SSRVAE) -> torch.device:
    return model.pixel_scale.device


def resolve_device(device: str) -> torch.device:
    """Turn the parameter `device` into a torch device, or raise a ConfigError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device!r}: torch cannot use it here. Use 'auto' or 'cpu'.") from error
    return resolved


def _jsonable(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON can hold them; a generator object, which it cannot, becomes None."""
    plain: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, np.random.RandomState):
            plain[name] = None
        elif isinstance(value, np.generic):
            plain[name] = value.item()
        elif isinstance(value, (tuple, list, np.ndarray)):
            plain[name] = np.asarray(value).tolist()
        else:
            plain[name] = value
    return plain
