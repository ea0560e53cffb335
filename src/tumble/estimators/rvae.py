"""The unsupervised model with the scikit-learn face: images in, latent factors and pose out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tumble.estimators.base import FitOptions, ImageModel
from tumble.estimators.settings import check_params, check_unit_range, model_config
from tumble.fit.batches import TrainingData

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from tumble.fit import EpochReport

__all__ = ["RVAE"]


class RVAE(ImageModel):
    """Unsupervised, rotationally (and translationally) invariant variational autoencoder (rVAE).

    Finds the pose of each object and a few latent factors that describe what remains of its appearance. Without
    invariances it is the plain VAE. Angles are relative to an orientation that the model finds for itself, the same
    for objects that look alike.

    Parameters
    ----------
    latent_dim : int, default=2
        Dimension of z.
    invariances : tuple of str, default=("rotation", "translation")
        Parts of the pose that objects are free in: any of "rotation", "translation", "scale"; none gives the VAE.
        "reflection" shows mirror images in training as well.
    method : {"default", "paper"}, default="default"
        "paper" is the published architecture and objective, as in :class:`SSRVAEClassifier`.
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli"} or None, default=None
        p(x | ...). The Bernoulli kinds need pixels in [0, 1]. None is "gaussian", and "bernoulli" for the paper's.
    sigma : float or None, default=None
        Width of the Gaussian likelihood in units of X; None learns it.
    encoder : {"convolutional", "dense"}, default="convolutional"
        Network that infers.
    decoder : {"template", "coordinate"}, default="template"
        How images are drawn.
    angle_posterior : {"mixture", "normal", "von_mises", "projected"}, default="mixture"
        Family of q(angle | x), see :mod:`tumble.model.angles`.
    angle_prior_rad : float or None, default=None
        Width of the prior of the angle, as in :class:`SSRVAEClassifier`; None is the uniform density, and N(0, 1) rad
        for "normal" and the paper's method. Images are seen turned by up to `rotation_range_rad` in training, so an
        informed prior belongs with a small one.
    rotation_range_rad : float, default=pi
        Images are turned by up to this angle in training.
    translation_prior : float, default=0.1
        Expected displacement as a fraction of the longer side of the image.
    scale_jitter, shear_jitter, intensity_jitter : float, default=0.2, 0.2, 0.1
        Small changes of the copies whose pose is compared.
    degradation : float, default=0.0
        As in :class:`SSRVAEClassifier`; has no effect without a classifier.
    max_epochs : int or None, default=None
        Passes over all images; None makes about 3,000 optimiser steps (100 epochs for the paper's method).
    batch_size : int or None, default=None
        Images per step; None is 96 (64 for the paper's method).
    learning_rate : float or None, default=None
        Of AdamW, 2e-3 by default (Adam, 5e-4, for the paper's method).
    weight_decay : float, default=1e-3
        Of AdamW.
    ema_decay : float, default=0.995
        Of the running mean of the weights, as in :class:`SSRVAEClassifier`; the paper's method has none.
    kl_weight : float, default=1.0
        Weight of the Kullback-Leibler terms (beta); reached over the first third of the steps.
    generative_weight, pose_weight : float, default=1.0
        Weights of the evidence bound and of the consistency of the pose.
    pixel_fraction : float, default=1.0
        Of the paper's method, as in :class:`SSRVAEClassifier`.
    encoder_channels : tuple of int, default=(32, 64)
        Channels per stage of the convolutional encoder.
    hidden : int, default=128
        Width of the dense layers.
    novelty_score : bool, default=True
        Whether to learn, after the training, what `novelty` needs; it takes some seconds.
    compile : bool, default=False
        Whether to compile the networks with :func:`torch.compile`.
    precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the networks in training.
    device : str, default="auto"
        "auto" is a GPU where torch sees one, otherwise the CPU; or the name of a torch device.
    random_state : int, RandomState instance or None, default=None
        Seeds everything that is drawn.

    Attributes
    ----------
    history_, n_iter_, stop_reason_, fit_seconds_
        How the fit went, as for :class:`SSRVAEClassifier`.
    model_ : SSRVAE
        The fitted module.

    References
    ----------
    .. [1] M. A. Ziatdinov et al., Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b (Fig. 5)

    Examples
    --------
    >>> from tumble import RVAE
    >>> from tumble.datasets import make_cards
    >>> X = make_cards(30, angle=180, random_state=0).X
    >>> model = RVAE(max_epochs=1, random_state=0).fit(X)
    >>> model.transform(X).shape, model.pose(X).angle_rad.shape
    ((120, 2), (120,))
    """

    def __init__(
        self,
        latent_dim: int = 2,
        invariances: Sequence[str] = ("rotation", "translation"),
        *,
        method: str = "default",
        likelihood: str | None = None,
        sigma: float | None = None,
        encoder: str = "convolutional",
        decoder: str = "template",
        angle_posterior: str = "mixture",
        angle_prior_rad: float | None = None,
        rotation_range_rad: float = math.pi,
        translation_prior: float = 0.1,
        scale_jitter: float = 0.2,
        shear_jitter: float = 0.2,
        intensity_jitter: float = 0.1,
        degradation: float = 0.0,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float = 1e-3,
        ema_decay: float = 0.995,
        kl_weight: float = 1.0,
        generative_weight: float = 1.0,
        pose_weight: float = 1.0,
        pixel_fraction: float = 1.0,
        encoder_channels: tuple[int, ...] = (32, 64),
        hidden: int = 128,
        novelty_score: bool = True,
        compile: bool = False,
        precision: str = "float32",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.invariances = invariances
        self.method = method
        self.likelihood = likelihood
        self.sigma = sigma
        self.encoder = encoder
        self.decoder = decoder
        self.angle_posterior = angle_posterior
        self.angle_prior_rad = angle_prior_rad
        self.rotation_range_rad = rotation_range_rad
        self.translation_prior = translation_prior
        self.scale_jitter = scale_jitter
        self.shear_jitter = shear_jitter
        self.intensity_jitter = intensity_jitter
        self.degradation = degradation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.kl_weight = kl_weight
        self.generative_weight = generative_weight
        self.pose_weight = pose_weight
        self.pixel_fraction = pixel_fraction
        self.encoder_channels = encoder_channels
        self.hidden = hidden
        self.novelty_score = novelty_score
        self.compile = compile
        self.precision = precision
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        callbacks: Sequence[Callable[[EpochReport], None]] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Self:
        """Fit to images.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            uint8 (taken as X / 255) or float images; may be a memory map.
        y : ignored
            Present for scikit-learn's pipelines.
        callbacks : sequence of callable
            Each is called with a :class:`tumble.fit.EpochReport` after each epoch; see :mod:`tumble.fit.callbacks`.
        checkpoint : path or None, default=None
            Folder for the state of the run, written after each epoch.
        resume : bool, default=False
            Go on from the state in `checkpoint`, if there is one; the result is that of an unbroken run.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If `X` is not a stack of finite images of one size.
        ConfigError
            If a parameter has a value that it cannot have.
        """
        params = self._params()
        check_params(params)
        images = self._images(X)
        check_unit_range(images, params["likelihood"])
        config = model_config(params, 0, images.shape[1:])
        unlabelled = np.full(len(images), -1, dtype=np.int64)
        self._run_fit(
            TrainingData(images, unlabelled), config, params, options=FitOptions(callbacks, checkpoint, resume)
        )
        return self
