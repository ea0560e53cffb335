"""What a user could train in place of tumble, behind the same face: a plain CNN, FixMatch, pyroVED.

Network, disorder and number of steps are those of `SSRVAEClassifier` with the same parameters, so that a comparison
tells the methods apart and not their budgets; those of six convolutions are what a user might take instead.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.networks import make_network
from benchmarks.pyroved_peer import PyrovedClassifier
from tumble.fit.augment import degrade, disturb_geometry, disturb_intensity, mirror
from tumble.fit.config import Disorder, FitConfig
from tumble.model.coordinates import place
from tumble.validation import check_images, check_labels, encode_labels

__all__ = ["CNNClassifier", "FixMatchClassifier", "PyrovedClassifier"]

_BATCH = 512
_WARM_UP = 0.05
_MAX_GRADIENT_NORM = 5.0
_SMOOTHING_OF_SIX, _COPIES_OF_SIX = 0.1, 8


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional network trained on disturbed copies of the labelled images alone.

    Parameters
    ----------
    network : {"default", "six"}
        tumble's own classifier, or six convolutions with what goes with them: label smoothing, mirror images and the
        mean over 8 rotated copies at prediction.
    n_steps, batch_size : int
        Optimiser steps, and labelled images in each, with equal share of each class.
    max_epochs : int or None
        Where given, in place of `n_steps`: as many steps as `SSRVAEClassifier` makes in so many passes over all images.
    encoder_channels : tuple of int
        Of the network "default", as in `SSRVAEClassifier`.
    learning_rate, weight_decay : float
        Of AdamW; the rate warms up, then falls along a cosine.
    rotation_range_rad, translation_prior, scale_jitter, shear_jitter, intensity_jitter, degradation : float
        The disorder, as in `SSRVAEClassifier`.
    label_smoothing : float or None
        None is 0.1 for "six" and 0 otherwise.
    mirror : bool or None
        Whether mirror images are of the same class; None is yes for "six" and no otherwise.
    n_copies : int or None
        Copies, turned by even shares of a full turn, whose mean is the prediction; None is 8 for "six" where objects
        lie at any angle, and 1 otherwise.
    ema_decay : float
        Of the running mean of the weights, which predicts.
    device, random_state
        As in `SSRVAEClassifier`.
    """

    def __init__(
        self,
        network: str = "default",
        *,
        n_steps: int = 1000,
        max_epochs: int | None = None,
        encoder_channels: tuple[int, ...] = (32, 64),
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-3,
        rotation_range_rad: float = math.pi,
        translation_prior: float = 0.1,
        scale_jitter: float = 0.2,
        shear_jitter: float = 0.2,
        intensity_jitter: float = 0.1,
        degradation: float = 0.0,
        label_smoothing: float | None = None,
        mirror: bool | None = None,
        n_copies: int | None = None,
        ema_decay: float = 0.995,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.network = network
        self.n_steps = n_steps
        self.max_epochs = max_epochs
        self.encoder_channels = encoder_channels
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.rotation_range_rad = rotation_range_rad
        self.translation_prior = translation_prior
        self.scale_jitter = scale_jitter
        self.shear_jitter = shear_jitter
        self.intensity_jitter = intensity_jitter
        self.degradation = degradation
        self.label_smoothing = label_smoothing
        self.mirror = mirror
        self.n_copies = n_copies
        self.ema_decay = ema_decay
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to the images with a label (-1: none)."""
        started = time.perf_counter()
        images = check_images(X)
        labels, unlabelled = check_labels(y, len(images))
        self.classes_, indices = encode_labels(labels, unlabelled)
        self._begin(images)
        members = [np.flatnonzero(indices == k) for k in range(len(self.classes_))]
        optimiser = torch.optim.AdamW(
            self.model_.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        self.n_steps_ = self.n_steps
        if self.max_epochs is not None:
            self.n_steps_ = self.max_epochs * FitConfig().steps_per_epoch(len(images))
        for step in range(self.n_steps_):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * _rate(step, self.n_steps_)
            # A new order of the classes for each step: with more classes than places, all of them get their turn.
            drawn = np.resize(self._rng.permutation(len(members)), self.batch_size)
            rows = np.array([self._rng.choice(members[k]) for k in drawn])
            loss = self._loss(images, rows, torch.from_numpy(indices[rows]).to(self._device), step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model_.parameters(), _MAX_GRADIENT_NORM)
            optimiser.step()
            self._follow(step)
        self.fit_seconds_ = time.perf_counter() - started
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Most probable class of each image."""
        winners = self.predict_proba(X).argmax(axis=1)
        return self.classes_[winners]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Probability of each class of `classes_`, averaged over turned copies where there are several."""
        images = check_images(X)
        n_copies = self.n_copies
        if n_copies is None:
            # Copies beyond the range of angles would be objects that the network never saw.
            n_copies = _COPIES_OF_SIX if self.network == "six" and self.rotation_range_rad >= math.pi else 1
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                x = self._tensor(images[start : start + _BATCH])
                turned = (_turned(x, 2 * math.pi * k / n_copies) for k in range(n_copies))
                shares = [torch.softmax(self._logits(self.teacher_, copied), dim=1) for copied in turned]
                parts.append(torch.stack(shares).mean(dim=0).cpu().numpy())
        return np.concatenate(parts)

    def _begin(self, images: npt.NDArray[Any]) -> None:
        """Make the network, its running mean and the generators."""
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        self._device = torch.device(name)
        self._rng = np.random.default_rng(self.random_state)
        self._generator = torch.Generator(device=self._device).manual_seed(self.random_state)
        sample = self._tensor(images[np.sort(self._rng.permutation(len(images))[:2000])])
        self._offset, self._scale = sample.mean(), sample.std().clamp_min(1e-6)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.random_state)
            own = {"encoder_channels": self.encoder_channels, "degradation": self.degradation}
            network = make_network(self.network, images.shape[1:], len(self.classes_), **own)
        self.model_ = network.to(self._device).train()
        self.teacher_ = copy.deepcopy(self.model_).eval().requires_grad_(False)
        self._disorder = Disorder(
            angle_rad=self.rotation_range_rad,
            shift_px=self.translation_prior * max(images.shape[-2:]),
            log_scale=self.scale_jitter,
            shear=self.shear_jitter,
            intensity=self.intensity_jitter,
            mirror=self.network == "six" if self.mirror is None else self.mirror,
            degradation=self.degradation,
        )

    def _tensor(self, images: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        return tensor.float() / 255 if images.dtype == np.uint8 else tensor.float()

    def _logits(self, network: nn.Module, x: Tensor) -> Tensor:
        return network((x - self._offset) / self._scale)

    def _disturbed(self, x: Tensor) -> Tensor:
        """Images as they might as well have been recorded."""
        if self._disorder.mirror:
            x = mirror(x, self._generator)
        x = disturb_geometry(x, self._disorder, self._generator)[0]
        x = disturb_intensity(x, self._disorder, self._scale, self._generator)
        return degrade(x, self._disorder, self._scale, self._generator)

    def _classification(self, logits: Tensor, y: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        if smoothing is None:
            smoothing = _SMOOTHING_OF_SIX if self.network == "six" else 0.0
        return F.cross_entropy(logits, y, label_smoothing=smoothing)

    def _loss(self, images: npt.NDArray[Any], rows: npt.NDArray[np.intp], y: Tensor, step: int) -> Tensor:
        """Loss of one step, for the labelled images of these rows."""
        return self._classification(self._logits(self.model_, self._disturbed(self._tensor(images[rows]))), y)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Let the running mean follow; in the first steps it is hardly more than the weights themselves."""
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        for mean, now in zip(self.teacher_.state_dict().values(), self.model_.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)


class FixMatchClassifier(CNNClassifier):
    """FixMatch: an unlabelled image whose class the running mean is sure of must keep it when disturbed.

    The disturbance is the known disorder, the same as for the labelled images. K. Sohn et al., "FixMatch: simplifying
    semi-supervised learning with consistency and confidence", NeurIPS, 2020; with the running mean of the weights as
    teacher.

    Parameters
    ----------
    unlabelled_batch_size : int
        Images without regard to labels per step.
    threshold : float
        Least probability at which an image's own class is taken as its label.
    unlabelled_weight : float
        Weight of the consistency.
    ramp : float
        Share of the steps over which this weight is reached.
    network, n_steps, max_epochs, encoder_channels, batch_size, learning_rate, weight_decay, rotation_range_rad,
    translation_prior, scale_jitter, shear_jitter, intensity_jitter, degradation, label_smoothing, mirror, n_copies,
    ema_decay, device, random_state
        As in `CNNClassifier`.
    """

    def __init__(
        self,
        network: str = "default",
        *,
        unlabelled_batch_size: int = 96,
        threshold: float = 0.95,
        unlabelled_weight: float = 1.0,
        ramp: float = 0.0,
        n_steps: int = 1000,
        max_epochs: int | None = None,
        encoder_channels: tuple[int, ...] = (32, 64),
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-3,
        rotation_range_rad: float = math.pi,
        translation_prior: float = 0.1,
        scale_jitter: float = 0.2,
        shear_jitter: float = 0.2,
        intensity_jitter: float = 0.1,
        degradation: float = 0.0,
        label_smoothing: float | None = None,
        mirror: bool | None = None,
        n_copies: int | None = None,
        ema_decay: float = 0.995,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        super().__init__(
            network,
            n_steps=n_steps,
            max_epochs=max_epochs,
            encoder_channels=encoder_channels,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            rotation_range_rad=rotation_range_rad,
            translation_prior=translation_prior,
            scale_jitter=scale_jitter,
            shear_jitter=shear_jitter,
            intensity_jitter=intensity_jitter,
            degradation=degradation,
            label_smoothing=label_smoothing,
            mirror=mirror,
            n_copies=n_copies,
            ema_decay=ema_decay,
            device=device,
            random_state=random_state,
        )
        self.unlabelled_batch_size = unlabelled_batch_size
        self.threshold = threshold
        self.unlabelled_weight = unlabelled_weight
        self.ramp = ramp

    def _loss(self, images: npt.NDArray[Any], rows: npt.NDArray[np.intp], y: Tensor, step: int) -> Tensor:
        others = self._rng.integers(len(images), size=self.unlabelled_batch_size)
        labelled, seen = self._tensor(images[rows]), self._tensor(images[others])
        # One pass over both: batch normalisation then sees the mixture that it will meet later.
        logits = self._logits(self.model_, self._disturbed(torch.cat([labelled, seen])))
        with torch.no_grad():
            sure, pseudo_y = torch.softmax(self._logits(self.teacher_, seen), dim=1).max(dim=1)
        surprise = F.cross_entropy(logits[len(rows) :], pseudo_y, reduction="none")
        consistency = (surprise * (sure >= self.threshold)).mean()
        weight = self.unlabelled_weight * min(1.0, (step + 1) / max(1.0, self.ramp * self.n_steps_))
        return self._classification(logits[: len(rows)], y) + weight * consistency


def _turned(x: Tensor, angle: float) -> Tensor:
    if not angle:
        return x
    return place(x, torch.full((len(x),), angle, device=x.device), torch.zeros(len(x), 2, device=x.device))


def _rate(step: int, n_steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to 0."""
    warm_up = max(1, round(_WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
