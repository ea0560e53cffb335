"""The training loop: data and settings in, a fitted model and its history out."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from tumble.fit.batches import TrainingData, as_images, iterate_batches
from tumble.fit.losses import Teacher, training_loss
from tumble.model.ssrvae import SSRVAE, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tumble.fit.config import FitConfig

__all__ = ["EpochReport", "FitResult", "fit_ssrvae"]

log = logging.getLogger(__name__)

#: Images that set the offset and scale of the pixels; more would not change them noticeably.
_STATISTICS_SAMPLE = 2000
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
    rng = np.random.default_rng(seed)
    generator = torch.Generator(device=device).manual_seed(seed)
    model = _initial_model(data, model_config, rng, seed, device)
    prior = np.full(model_config.n_classes, 1 / model_config.n_classes) if class_prior is None else class_prior
    log_py = torch.tensor(np.log(prior), dtype=torch.float32, device=device)
    teacher = Teacher(model, settings.ema_decay)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    n_epochs = settings.epochs_for(len(data))
    n_steps = n_epochs * settings.steps_per_epoch(len(data))
    history: dict[str, list[float]] = {}
    step = 0
    model.train()
    for epoch in range(1, n_epochs + 1):
        sums: dict[str, float] = {}
        batches = iterate_batches(
            data,
            batch_size=settings.batch_size,
            labelled_batch_size=settings.labelled_batch_size,
            rng=rng,
            device=device,
        )
        for count, batch in enumerate(batches, start=1):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * _rate(step, n_steps)
            kl_weight = settings.kl_weight * min(1.0, (step + 1) / max(1, _KL_RAMP * n_steps))
            loss, parts = training_loss(
                model,
                teacher.model,
                batch,
                settings,
                log_py=log_py,
                kl_weight=kl_weight,
                generator=generator,
            )
            if not math.isfinite(parts["loss"]):
                raise FloatingPointError(f"the loss became {parts['loss']} in epoch {epoch}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
            optimiser.step()
            teacher.update(step)
            step += 1
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
        means = {name: total / count for name, total in sums.items()}
        for name, value in means.items():
            history.setdefault(name, []).append(value)
        elapsed = time.perf_counter() - started
        report = EpochReport(epoch, n_epochs, means, elapsed, elapsed / epoch * (n_epochs - epoch))
        log.debug("epoch %d of %d: %s", epoch, n_epochs, means)
        for callback in callbacks:
            callback(report)
    return FitResult(teacher.model, history, "max_epochs", time.perf_counter() - started)


def _initial_model(
    data: TrainingData, config: ModelConfig, rng: np.random.Generator, seed: int, device: torch.device
) -> SSRVAE:
    rows = np.sort(rng.permutation(len(data))[:_STATISTICS_SAMPLE])
    sample = as_images(data.x[rows], torch.device("cpu"))
    scale = max(float(sample.std()), 1e-6)
    # Layers draw their initial weights from torch's global generator; the fork gives it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SSRVAE(config, pixel_offset=float(sample.mean()), pixel_scale=scale)
    return model.to(device)


def _rate(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to 0."""
    warm_up = max(1, round(_WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
