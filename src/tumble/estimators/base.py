"""What every fitted image model offers: latent factors, pose, drawings, and a folder on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils import check_random_state

from tumble.errors import ConfigError, NotFittedError
from tumble.estimators.decoding import draw, draw_grids, latent_rows
from tumble.estimators.settings import fit_config, objective
from tumble.estimators.show import explore, fit_html
from tumble.estimators.storage import describe, restored
from tumble.fit import fit_ssrvae
from tumble.fit.batches import as_images
from tumble.fit.checkpoint import load_model, save_model
from tumble.fit.saturation import warn_if_saturated
from tumble.types import Pose
from tumble.validation import check_images, check_number

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sklearn.utils import Tags
    from torch import Tensor

    from tumble.fit import EpochReport
    from tumble.fit.batches import TrainingData
    from tumble.model.config import ModelConfig
    from tumble.model.ssrvae import SSRVAE, PosteriorZPose
    from tumble.notebook import HtmlView

__all__ = ["FitOptions", "ImageModel", "resolve_device", "stacked"]

#: Images per pass through the networks: more would only leave the processor's caches.
_BATCH = 256


class _NotFitted(NotFittedError, SklearnNotFittedError):
    """Caught under either name."""


@dataclass(frozen=True)
class FitOptions:
    """What `fit` takes beside the data.

    Parameters
    ----------
    callbacks : sequence of callable
        See :mod:`tumble.fit.callbacks`.
    checkpoint : path or None
        Folder for the state of the run.
    resume : bool
        Whether to go on from that state.
    """

    callbacks: Sequence[Callable[[EpochReport], None]] = ()
    checkpoint: str | os.PathLike[str] | None = None
    resume: bool = False


class ImageModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Methods of a fitted model that do not depend on how it was fitted.

    A subclass has the constructor and `fit`, which sets the attributes below.

    Attributes
    ----------
    model_ : SSRVAE
        The fitted module.
    classes_ : ndarray of shape (n_classes,)
        Classes; absent where the model was fitted without.
    history_, n_iter_, stop_reason_, fit_seconds_
        How the fit went.
    """

    model_: SSRVAE
    classes_: npt.NDArray[Any]
    class_prior_: npt.NDArray[np.float32]
    history_: dict[str, list[float]]
    n_iter_: int
    stop_reason_: str
    fit_seconds_: float

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # Stacks of images, (n, H, W) or (n, C, H, W); scikit-learn has no word for the latter.
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    @property
    def _n_features_out(self) -> int:
        """Number of latent factors, for scikit-learn to name them."""
        self._check_fitted()
        return self.model_.config.latent_dim

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
            pose = self.model_.mean_pose(posterior)
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
            drawn.append(
                self.model_.expectation(self.model_.decode(posterior.qz.loc, y, self.model_.mean_pose(posterior)))
            )
        images = stacked(iter(drawn))
        return images if np.asarray(X).ndim == 4 else images[:, 0]

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
        indices = range(self.model_.config.n_components) if y is None else [self._class_index(y)]
        return draw_grids(self.model_, indices, n, extent)

    def decode(self, Z: Any, y: Any = None, *, pose: Pose | None = None) -> npt.NDArray[np.float32]:
        """Image that the model draws for given latent factors, classes and poses: the way back from :meth:`transform`.

        ``decode(transform(X), predict(X), pose=pose(X))`` is ``reconstruct(X)``.

        Parameters
        ----------
        Z : array-like of shape (n, latent_dim)
            Latent factors.
        y : label, array-like of n labels, or None
            Class of each image, or of all; None where the model was fitted without classes.
        pose : Pose, optional
            How each object lies; as drawn, upright and centred, if not given. Parts that are not among the invariances
            of the model have no effect.

        Returns
        -------
        ndarray of shape (n, H, W), or (n, C, H, W) for several channels
            float32; in [0, 1] where the model was fitted to uint8 images.

        Raises
        ------
        ConfigError
            If `y` is not one of the classes, or a shape does not fit.
        """
        self._check_fitted()
        z = latent_rows(Z, self.model_.config.latent_dim)
        wanted = [y] if y is None or np.ndim(y) == 0 else list(y)
        known = {label: self._class_index(label) for label in set(wanted) - {None}}
        indices = [known.get(label, 0) for label in wanted]
        if None in wanted and self._classes() is not None:
            raise ConfigError("y: this model draws each class in its own way; give the class of each image.")
        return draw(self.model_, z, indices, pose)

    def explore(self, *, n: int = 9, extent: float = 2.0) -> HtmlView:
        """Show in a notebook what the model draws, with sliders for class, latent factors, angle and shift.

        Parameters
        ----------
        n : int, default=9
            Steps of each latent factor; the first two have sliders, as in :meth:`traverse`.
        extent : float, default=2.0
            The sliders span [-extent, extent], in standard deviations of the class's objects.

        Returns
        -------
        HtmlView
            Self-contained: it works without a kernel, and in a notebook that was exported.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        """
        return explore(self, n=n, extent=extent)

    def _repr_html_inner(self) -> str:
        return self._repr_mimebundle_()["text/html"]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """Add what came of the fit to scikit-learn's table of parameters."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle and hasattr(self, "model_"):
            bundle["text/html"] += fit_html(self)
        return bundle

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
        save_model(Path(folder), self.model_, describe(self))

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
        estimator = restored(cls, config, model, path)
        estimator.model_ = model.to(resolve_device(device))
        return estimator

    def novelty(self, X: Any) -> npt.NDArray[np.float32]:
        """How little each object resembles the labelled ones, and the training images at all; shape (n,).

        Without labels only the latter counts. See :mod:`tumble.fit.confidence` for what it can and cannot find.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.

        Returns
        -------
        ndarray of shape (n,)
            0 is the median of known objects and 1 their upper tenth; larger is more novel.

        Raises
        ------
        ConfigError
            If the model has no such score: it was fitted with ``novelty_score=False``, or by a version without.
        """
        self._check_fitted()
        head = self.model_.novelty
        if head is None:
            raise ConfigError("novelty: this model has no such score; fit it again with novelty_score=True to get one.")
        return stacked(head(self.model_.evidence(x)) for x in self._batches(X))

    def _params(self) -> dict[str, Any]:
        """Parameters with what the method fills in."""
        params = self.get_params()
        if params["likelihood"] is None:
            params["likelihood"] = "bernoulli" if params["method"] == "paper" else "gaussian"
        return params

    def _run_fit(
        self,
        data: TrainingData,
        config: ModelConfig,
        params: Mapping[str, Any],
        *,
        class_prior: npt.NDArray[np.float64] | None = None,
        validation: TrainingData | None = None,
        options: FitOptions,
    ) -> None:
        """Train, and keep the model and the record of its training."""
        random_state = self.get_params()["random_state"]
        try:
            result = fit_ssrvae(
                data,
                config,
                fit_config(params, config),
                class_prior=class_prior,
                # Without a seed, a run that goes on takes the one it began with.
                seed=None if random_state is None else _seed(random_state),
                device=resolve_device(params["device"]),
                callbacks=options.callbacks,
                objective=objective(params),
                validation=validation,
                checkpoint=options.checkpoint,
                resume=options.resume,
            )
        except FloatingPointError as error:
            raise ConfigError(f"learning_rate={params['learning_rate']!r}: {error}.") from error
        self.model_ = result.model
        self.history_ = result.history
        self.n_iter_ = len(next(iter(result.history.values())))
        self.stop_reason_ = result.stop_reason
        self.fit_seconds_ = result.seconds
        if params["method"] == "paper":
            warn_if_saturated(self.model_, data)

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            raise _NotFitted(f"This {type(self).__name__} is not fitted yet; call fit(X, y) first.")

    def _classes(self) -> npt.NDArray[Any] | None:
        return getattr(self, "classes_", None)

    def _class_index(self, y: Any) -> int:
        classes = self._classes()
        if classes is None:
            raise ConfigError(f"y={y!r}: this model was fitted without classes; leave y out.")
        found = np.flatnonzero(classes == y)
        if not len(found):
            raise ConfigError(f"y={y!r}: not one of the classes {classes.tolist()}.")
        return int(found[0])

    def _images(self, X: Any, *, image_shape: tuple[int, int, int] | None = None) -> npt.NDArray[Any]:
        """Give what a caller passed as X as checked images (n, C, H, W)."""
        return check_images(X, image_shape=image_shape)

    def _batches(self, X: Any) -> Iterator[Tensor]:
        """Give checked images on the model's device, in pieces, within inference mode."""
        self._check_fitted()
        images = self._images(X, image_shape=self.model_.config.image_shape)
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


def _seed(random_state: Any) -> int:
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError as error:
        raise ConfigError(f"random_state={random_state!r}: expected a whole number, a RandomState or None.") from error


def _device_of(model: SSRVAE) -> torch.device:
    return model.pixel_scale.device


def resolve_device(device: str) -> torch.device:
    """Turn the parameter `device` into a torch device, or raise a ConfigError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
        if resolved.type == "meta":
            raise RuntimeError("it has shapes and no numbers")
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device!r}: torch cannot use it here. Use 'auto' or 'cpu'.") from error
    return resolved
