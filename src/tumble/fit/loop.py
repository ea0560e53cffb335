"""The training loop: data and settings in, a fitted model and its history out."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from tumble.fit.batches import Batch, TrainingData, as_images, iterate_batches
from tumble.fit.losses import Teacher, training_loss
from tumble.model.ssrvae import SSRVAE, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tumble.fit.config import FitConfig

__all__ = ["EpochReport", "FitResult", "fit_ssrvae"]

log = logging.getLogger(__name__)

#: Images that set the offset and scale of the pixels; more would not change them noticeably.
_STATISTICS_SAMPLE = 2000
#: Fewer objects than this say too little of the spread within a class.
_MIN_MEMBERS = 5
_WARM_UP = 0.05
_KL_RAMP = 1 / 3
_MAX_GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class EpochReport:
    """State of a fit after an epoch, as given to callbacks.

    Parameters
    ----------
    epoch : int
        Number of the epoch that just ended, from 1.
    max_epochs : int
        Number of epochs in all.
    losses : dict of str to float
        Means of the epoch.
    elapsed_s, remaining_s : float
        Wall time so far, and an estimate of what is left.
    """

    epoch: int
    max_epochs: int
    losses: dict[str, float]
    elapsed_s: float
    remaining_s: float


@dataclass(frozen=True)
class FitResult:
    """A fitted model and how it came about.

    Parameters
    ----------
    model : SSRVAE
        In evaluation mode; weights are the running mean over the run.
    history : dict of str to list of float
        One value per epoch and curve.
    stop_reason : str
        Why training ended.
    seconds : float
        Wall time.
    """

    model: SSRVAE
    history: dict[str, list[float]] = field(default_factory=dict)
    stop_reason: str = ""
    seconds: float = 0.0


def fit_ssrvae(
    data: TrainingData,
    model_config: ModelConfig,
    settings: FitConfig,
    *,
    class_prior: np.ndarray | None = None,
    seed: int,
    device: torch.device,
    callbacks: Sequence[Callable[[EpochReport], None]] = (),
) -> FitResult:
    """Train an ss-rVAE.

    Parameters
    ----------
    data : TrainingData
        Images and class indices.
    model_config : ModelConfig
        Shape of the networks.
    settings : FitConfig
        Everything else.
    class_prior : ndarray of shape (K,), optional
        p(y); uniform by default.
    seed : int
        Seeds initial weights, order of the images, disorder and draws. No global generator is touched.
    device : torch.device
        Where to train.
    callbacks : sequence of callable
        Each is called with an :class:`EpochReport` after each epoch.

    Returns
    -------
    FitResult

    Raises
    ------
    FloatingPointError
        If the loss stops being finite.
    """
    started = time.perf_counter()
    run = _Run(data, model_config, settings, class_prior=class_prior, seed=seed, device=device)
    n_epochs = settings.epochs_for(len(data))
    history: dict[str, list[float]] = {}
    for epoch in range(1, n_epochs + 1):
        means = run.epoch()
        for name, value in means.items():
            history.setdefault(name, []).append(value)
        elapsed = time.perf_counter() - started
        report = EpochReport(epoch, n_epochs, means, elapsed, elapsed / epoch * (n_epochs - epoch))
        log.debug("epoch %d of %d: %s", epoch, n_epochs, means)
        for callback in callbacks:
            callback(report)
    _describe_latents(run.teacher.model, data, run.rng, device)
    return FitResult(run.teacher.model, history, "max_epochs", time.perf_counter() - started)


class _Run:
    """What lives from step to step: weights, their running mean, the optimiser, the generators."""

    def __init__(
        self,
        data: TrainingData,
        config: ModelConfig,
        settings: FitConfig,
        *,
        class_prior: np.ndarray | None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.model = _initial_model(data, config, self.rng, seed, device).train()
        self.teacher = Teacher(self.model, settings.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        prior = np.full(config.n_classes, 1 / config.n_classes) if class_prior is None else class_prior
        self.log_py = torch.tensor(np.log(prior), dtype=torch.float32, device=device)
        self.n_steps = settings.epochs_for(len(data)) * settings.steps_per_epoch(len(data))
        self.step = 0

    def epoch(self) -> dict[str, float]:
        """Make one pass over all images and return the means of the parts of the loss."""
        sums: dict[str, float] = {}
        batches = iterate_batches(
            self.data,
            batch_size=self.settings.batch_size,
            labelled_batch_size=self.settings.labelled_batch_size,
            rng=self.rng,
            device=self.device,
        )
        for batch in batches:
            for name, value in self._one_step(batch).items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: total / self.settings.steps_per_epoch(len(self.data)) for name, total in sums.items()}

    def _one_step(self, batch: Batch) -> dict[str, float]:
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * _rate(self.step, self.n_steps)
        ramp = min(1.0, (self.step + 1) / max(1.0, _KL_RAMP * self.n_steps))
        loss, parts = training_loss(
            self.model,
            self.teacher.model,
            batch,
            settings,
            log_py=self.log_py,
            kl_weight=settings.kl_weight * ramp,
            generator=self.generator,
        )
        if not math.isfinite(parts["loss"]):
            raise FloatingPointError(f"the loss became {parts['loss']} in step {self.step}; use a lower rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_GRADIENT_NORM)
        self.optimiser.step()
        self.teacher.update(self.step)
        self.step += 1
        return parts


def _initial_model(
    data: TrainingData, config: ModelConfig, rng: np.random.Generator, seed: int, device: torch.device
) -> SSRVAE:
    rows = np.sort(rng.permutation(len(data))[:_STATISTICS_SAMPLE])
    sample = as_images(data.x[rows], torch.device("cpu"))
    scale = max(float(sample.std()), 1e-6)
    # Layers draw their initial weights from torch's global CPU generator; the fork gives it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SSRVAE(config, pixel_offset=float(sample.mean()), pixel_scale=scale)
    return model.to(device)


@torch.inference_mode()
def _describe_latents(model: SSRVAE, data: TrainingData, rng: np.random.Generator, device: torch.device) -> None:
    """Measure mean and spread of the latent factors within each class, for traversals to follow the data.

    The prior is where they would lie were the divergence all that counts. In practice the likelihood of thousands of
    pixels moves whole classes away from it, and images decoded there would show no object of the class.
    """
    rows = np.sort(rng.permutation(len(data))[:_STATISTICS_SAMPLE])
    means, classes = [], []
    for start in range(0, len(rows), 512):
        x = as_images(data.x[rows[start : start + 512]], device)
        y = model.classify(x).argmax(dim=1)
        means.append(model.encode(model.features(x), y).qz.loc)
        classes.append(y)
    z, y = torch.cat(means), torch.cat(classes)
    for k in range(model.config.n_classes):
        members = z[y == k]
        if len(members) >= _MIN_MEMBERS:
            model.latent_loc[k] = members.mean(dim=0)
            model.latent_scale[k] = members.std(dim=0)


def _rate(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to 0."""
    warm_up = max(1, round(_WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
