"""The scikit-learn face of the model: arrays in, arrays out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state

from tumble.errors import ConfigError, DataError
from tumble.estimators.base import ImageModel, resolve_device, stacked
from tumble.fit import FitConfig, fit_ssrvae
from tumble.fit.batches import TrainingData
from tumble.fit.config import Disorder
from tumble.model.ssrvae import INVARIANCES, LIKELIHOODS, ModelConfig
from tumble.validation import check_choice, check_images, check_labels, check_number, encode_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tumble.fit import EpochReport

__all__ = ["SSRVAEClassifier"]

_DECODERS = ("template",)
_ORIENTATIONS = ("aligned", "arbitrary")


class SSRVAEClassifier(ClassifierMixin, ImageModel):
    """Semi-supervised classifier of objects that lie at any angle and place, with pose and latent factors.

    A semi-supervised rotationally (and translationally) invariant variational autoencoder: q(y | x) classifies,
    q(z, angle, shift | x, y) finds the pose and the remaining factors of variation, and a decoder draws a canonical
    image that is placed at that pose. It learns from few labels and all unlabelled images, and treats the disorder of
    the pose as known: labelled images are seen at all poses, and an image must keep its class, and change its pose
    by just so much, when it is turned and shifted.

    Parameters
    ----------
    latent_dim : int, default=2
        Dimension of z.
    invariances : tuple of str, default=("rotation", "translation")
        Parts of the pose that objects are free in: any of "rotation", "translation", "scale".
    decoder : {"template"}, default="template"
        How images are drawn; "template" draws one canonical image and places it by resampling.
    likelihood : {"gaussian", "bernoulli"}, default="gaussian"
        p(x | ...). "gaussian" has one learned width; "bernoulli" needs pixels in [0, 1].
    labelled_orientation : {"aligned", "arbitrary"}, default="aligned"
        Whether the labelled objects lie upright and centred, so that they define angle 0, or lie anyhow. With
        "arbitrary", angles are relative to a canonical orientation that each class finds for itself.
    translation_prior : float, default=0.1
        Expected displacement as a fraction of the longer side of the image.
    scale_jitter, shear_jitter, intensity_jitter : float, default=0.2, 0.2, 0.1
        Small changes that keep the class: logarithm of the magnification, tangent of the shear, gain.
    max_epochs : int or None, default=None
        Passes over all images; None makes about 1,000 optimiser steps.
    batch_size, labelled_batch_size : int, default=96, 64
        Images per step without regard to labels, and labelled images per step.
    learning_rate, weight_decay : float, default=2e-3, 1e-3
        Of AdamW; the rate warms up, then falls along a cosine to 0.
    kl_weight : float, default=1.0
        Weight of the Kullback-Leibler terms (beta); reached over the first third of the steps.
    pseudo_label_threshold : float, default=0.95
        Least probability at which an unlabelled image's own class is taken as its label.
    pseudo_label_weight, generative_weight, pose_weight : float, default=1.0
        Weights of the consistency of the class, of the evidence bounds, and of the consistency of the pose.
    class_prior : array-like of shape (n_classes,) or None, default=None
        p(y), in the order of `classes_`; None is uniform.
    hidden : int, default=128
        Width of the dense layers.
    device : str, default="auto"
        "auto" is a GPU where torch sees one, otherwise the CPU; or the name of a torch device.
    random_state : int, RandomState instance or None, default=None
        Seeds everything that is drawn. Two fits with one seed on one machine agree.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Classes in the order of `predict_proba`.
    history_ : dict of str to list of float
        Training curves, one value per epoch.
    n_iter_ : int
        Number of epochs.
    stop_reason_ : str
        Why training ended.
    fit_seconds_ : float
        Wall time of the fit.
    model_ : SSRVAE
        The fitted module.

    References
    ----------
    .. [1] M. A. Ziatdinov et al., "Semi-supervised learning of images with strong rotational disorder: assembling
           nanoparticle libraries", Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b

    Examples
    --------
    >>> import numpy as np
    >>> from tumble import SSRVAEClassifier
    >>> from tumble.datasets import make_cards
    >>> upright = make_cards(5, angle=5, translation=0, random_state=0)
    >>> tumbled = make_cards(30, angle=180, random_state=1)
    >>> X = np.concatenate([upright.X, tumbled.X])
    >>> y = np.concatenate([upright.y, np.full(len(tumbled.y), -1)])
    >>> model = SSRVAEClassifier(max_epochs=1, random_state=0).fit(X, y)
    >>> model.predict_proba(tumbled.X).shape
    (120, 4)
    >>> model.transform(tumbled.X).shape
    (120, 2)
    """

    def __init__(
        self,
        latent_dim: int = 2,
        invariances: Sequence[str] = ("rotation", "translation"),
        decoder: str = "template",
        *,
        likelihood: str = "gaussian",
        labelled_orientation: str = "aligned",
        translation_prior: float = 0.1,
        scale_jitter: float = 0.2,
        shear_jitter: float = 0.2,
        intensity_jitter: float = 0.1,
        max_epochs: int | None = None,
        batch_size: int = 96,
        labelled_batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-3,
        kl_weight: float = 1.0,
        pseudo_label_threshold: float = 0.95,
        pseudo_label_weight: float = 1.0,
        generative_weight: float = 1.0,
        pose_weight: float = 1.0,
        class_prior: Sequence[float] | None = None,
        hidden: int = 128,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.invariances = invariances
        self.decoder = decoder
        self.likelihood = likelihood
        self.labelled_orientation = labelled_orientation
        self.translation_prior = translation_prior
        self.scale_jitter = scale_jitter
        self.shear_jitter = shear_jitter
        self.intensity_jitter = intensity_jitter
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.labelled_batch_size = labelled_batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.kl_weight = kl_weight
        self.pseudo_label_threshold = pseudo_label_threshold
        self.pseudo_label_weight = pseudo_label_weight
        self.generative_weight = generative_weight
        self.pose_weight = pose_weight
        self.class_prior = class_prior
        self.hidden = hidden
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, callbacks: Sequence[Callable[[EpochReport], None]] = ()) -> Self:
        """Fit to labelled and unlabelled images together.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            uint8 (taken as X / 255) or float images; may be a memory map.
        y : array-like of shape (n,)
            Labels of any integer or string kind; -1 (or None in an object array) for unlabelled.
        callbacks : sequence of callable
            Each is called with a :class:`tumble.fit.EpochReport` after each epoch.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If `X` is not a stack of finite images of one size.
        LabelError
            If `y` has the wrong length or fewer than two classes.
        ConfigError
            If a parameter has a value that it cannot have.
        """
        self._check_params()
        images = check_images(X)
        labels, unlabelled = check_labels(y, len(images))
        classes, indices = encode_labels(labels, unlabelled)
        if self.likelihood == "bernoulli":
            _check_unit_range(images)
        config = self._model_config(len(classes), images.shape[1:])
        try:
            result = fit_ssrvae(
                TrainingData(images, indices),
                config,
                self._fit_config(config),
                class_prior=self._class_prior(len(classes)),
                seed=self._seed(),
                device=resolve_device(self.device),
                callbacks=callbacks,
            )
        except FloatingPointError as error:
            raise ConfigError(f"learning_rate={self.learning_rate!r}: {error}.") from error
        self.classes_ = classes
        self.model_ = result.model
        self.history_ = result.history
        self.n_iter_ = len(next(iter(result.history.values())))
        self.stop_reason_ = result.stop_reason
        self.fit_seconds_ = result.seconds
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Most probable class of each image; shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.

        Returns
        -------
        ndarray of shape (n,)
        """
        winners = self.predict_proba(X).argmax(axis=1)
        return self.classes_[winners]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """q(y | x) of each image.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to 1; columns in the order of `classes_`.
        """
        return stacked(torch.softmax(self.model_.classify(x), dim=1) for x in self._batches(X))

    def _check_params(self) -> None:
        check_number("latent_dim", self.latent_dim, low=1, integer=True)
        for name in self.invariances:
            check_choice("invariances", name, INVARIANCES)
        check_choice("decoder", self.decoder, _DECODERS)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        check_choice("labelled_orientation", self.labelled_orientation, _ORIENTATIONS)
        for name, low in (("batch_size", 2), ("labelled_batch_size", 2), ("hidden", 1)):
            check_number(name, getattr(self, name), low=low, integer=True)
        if self.max_epochs is not None:
            check_number("max_epochs", self.max_epochs, low=1, integer=True)
        for name in ("scale_jitter", "shear_jitter", "intensity_jitter", "translation_prior"):
            check_number(name, getattr(self, name), low=0, high=0.9)
        for name in ("learning_rate", "weight_decay", "kl_weight"):
            check_number(name, getattr(self, name), low=0)
        for name in ("pseudo_label_weight", "generative_weight", "pose_weight"):
            check_number(name, getattr(self, name), low=0)
        check_number("pseudo_label_threshold", self.pseudo_label_threshold, low=0, high=1)

    def _seed(self) -> int:
        try:
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        except ValueError as error:
            raise ConfigError(
                f"random_state={self.random_state!r}: expected a whole number, a RandomState or None."
            ) from error

    def _class_prior(self, n_classes: int) -> npt.NDArray[np.float64] | None:
        if self.class_prior is None:
            return None
        prior = np.asarray(self.class_prior, dtype=float)
        if prior.shape != (n_classes,) or not (prior > 0).all():
            raise ConfigError(
                f"class_prior={self.class_prior!r}: expected {n_classes} positive numbers, one per class."
            )
        return prior / prior.sum()

    def _model_config(self, n_classes: int, image_shape: tuple[int, ...]) -> ModelConfig:
        channels, height, width = image_shape
        return ModelConfig(
            n_classes=n_classes,
            image_shape=(channels, height, width),
            latent_dim=self.latent_dim,
            invariances=tuple(name for name in INVARIANCES if name in self.invariances),
            likelihood=self.likelihood,
            # A prior of no width would make the divergence infinite; a hundredth of the image is as good as none.
            translation_prior=max(0.01, self.translation_prior),
            hidden=self.hidden,
        )

    def _fit_config(self, config: ModelConfig) -> FitConfig:
        disorder = Disorder(
            angle_rad=math.pi if "rotation" in config.invariances else 0.0,
            shift_px=self.translation_prior * config.side if "translation" in config.invariances else 0.0,
            log_scale=self.scale_jitter,
            shear=self.shear_jitter,
            intensity=self.intensity_jitter,
        )
        return FitConfig(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            labelled_batch_size=self.labelled_batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            disorder=disorder,
            aligned=self.labelled_orientation == "aligned",
            threshold=self.pseudo_label_threshold,
            kl_weight=self.kl_weight,
            pseudo_label_weight=self.pseudo_label_weight,
            generative_weight=self.generative_weight,
            pose_weight=self.pose_weight,
        )


def _check_unit_range(images: npt.NDArray[Any]) -> None:
    if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 1):
        raise DataError(
            f"X: likelihood='bernoulli' needs pixels in [0, 1], these span [{images.min():.3g}, {images.max():.3g}]. "
            "Rescale them or use likelihood='gaussian'."
        )
