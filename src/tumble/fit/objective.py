"""What one method of training is made of: its loss, its optimiser, and the schedules of the rate and the divergences.

The loop knows nothing of the method but this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from tumble.fit.batches import iterate_batches
from tumble.fit.losses import training_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

    from tumble.fit.batches import Batch, TrainingData
    from tumble.fit.config import FitConfig
    from tumble.model.ssrvae import SSRVAE

__all__ = ["DefaultObjective", "Objective"]

_WARM_UP = 0.05
_KL_RAMP = 1 / 3
_MAX_GRADIENT_NORM = 5.0


class Objective(Protocol):
    """A method of training.

    It may also have an attribute `max_gradient_norm`: longer gradients are shortened to that; and `turns_axes`, whether
    the latent axes are turned after the training, see :mod:`tumble.fit.factors`. A dataclass lets a checkpoint know its
    settings.
    """

    def optimiser(self, model: SSRVAE) -> torch.optim.Optimizer:
        """Make the optimiser of the model's weights."""
        ...

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step (from 0) of a run of `n_steps`."""
        ...

    def kl_weight(self, epoch: int, step: int, n_steps: int) -> float:
        """Weight of the divergences in a step (from 0) of an epoch (from 1)."""
        ...

    def batches(self, data: TrainingData, rng: np.random.Generator, device: torch.device) -> Iterator[Batch]:
        """Give the batches of one epoch."""
        ...

    def loss(
        self,
        model: SSRVAE,
        teacher: SSRVAE,
        batch: Batch,
        *,
        kl_weight: float,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a step, and its parts for the record, among them "loss"."""
        ...


@dataclass(frozen=True)
class DefaultObjective:
    """The project's own method: AdamW, a rate that warms up and falls along a cosine, :func:`training_loss`.

    Parameters
    ----------
    settings : FitConfig
        Rates and weights.
    """

    settings: FitConfig

    @property
    def max_gradient_norm(self) -> float:
        """Longer gradients are shortened to this."""
        return _MAX_GRADIENT_NORM

    @property
    def turns_axes(self) -> bool:
        """Whether the latent axes are turned after the training."""
        return True

    def optimiser(self, model: SSRVAE) -> torch.optim.Optimizer:
        """AdamW over all weights."""
        settings = self.settings
        return torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def rate(self, step: int, n_steps: int) -> float:
        """Linear warm-up, then a cosine to 0."""
        return self.settings.learning_rate * rate_share(step, n_steps)

    def kl_weight(self, epoch: int, step: int, n_steps: int) -> float:
        """Linear rise over the first third of the steps."""
        return self.settings.kl_weight * min(1.0, (step + 1) / max(1.0, _KL_RAMP * n_steps))

    def batches(self, data: TrainingData, rng: np.random.Generator, device: torch.device) -> Iterator[Batch]:
        """One pass over all images, see :func:`iterate_batches`."""
        return iterate_batches(
            data,
            batch_size=self.settings.batch_size,
            labelled_batch_size=self.settings.labelled_batch_size,
            rng=rng,
            device=device,
        )

    def loss(
        self,
        model: SSRVAE,
        teacher: SSRVAE,
        batch: Batch,
        *,
        kl_weight: float,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a step, see :func:`training_loss`."""
        return training_loss(model, teacher, batch, self.settings, kl_weight=kl_weight, generator=generator)


def rate_share(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to 0."""
    warm_up = max(1, round(_WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
