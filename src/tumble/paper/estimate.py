"""How long training will take, from the time of a few steps on this machine."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from tumble.paper.methods import estimator, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tumble.fit import EpochReport
    from tumble.paper.lab import Lab
    from tumble.paper.methods import Fit

__all__ = ["estimate_seconds"]

#: Images of the trial: a few steps of each epoch.
_TRIAL_IMAGES = 192
_TRIAL_EPOCHS = 3


def estimate_seconds(lab: Lab, fits: Sequence[Fit]) -> float:
    """Estimate the time that fits take together.

    For each kind of fit a few steps are timed, on images of the first such fit.

    Parameters
    ----------
    lab : Lab
        Where the fits will be made.
    fits : sequence of Fit
        What will be fitted.

    Returns
    -------
    float
        Seconds; 0 if there is nothing to fit.
    """
    per_step: dict[tuple[str, bool, str], float] = {}
    total = 0.0
    for i, fit in enumerate(fits):
        kind = (fit.method, fit.supervised, type(fit.source).__name__)
        if kind not in per_step:
            lab.tell("Estimating the time", i, len(fits))
            per_step[kind] = _seconds_per_step(lab, fit)
        total += per_step[kind] * steps(fit, lab.sizes, fit.source.split())
    return total


def _seconds_per_step(lab: Lab, fit: Fit) -> float:
    split = fit.source.split()
    labelled = (split.y >= 0).nonzero()[0]
    free = (split.y < 0).nonzero()[0][:_TRIAL_IMAGES]
    # Few labels of each class, but of every class.
    kept = [rows[:2] for k in range(len(split.classes)) if len(rows := labelled[split.y[labelled] == k])]
    rows = [row for part in kept for row in part] + free.tolist()
    X, y = split.X[rows], split.y[rows]
    model = estimator(fit, lab.sizes, device=lab.device)
    model.set_params(max_epochs=_TRIAL_EPOCHS)
    clock = _EpochClock()
    model.fit(*((X, y) if fit.supervised else (X,)), callbacks=[clock])
    brief = dataclasses.replace(lab.sizes, **{name: {**getattr(lab.sizes, name), "max_epochs": 1} for name in _LENGTHS})
    per_epoch = steps(fit, brief, dataclasses.replace(split, X=X, y=y))
    return clock.shortest() / per_epoch


_LENGTHS = ("paper", "default", "crops", "shown")


class _EpochClock:
    """Times epochs; the first, in which everything warms up, does not count."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, report: EpochReport) -> None:
        self.ends.append(time.perf_counter())

    def shortest(self) -> float:
        return min(b - a for a, b in zip(self.ends, self.ends[1:], strict=False))
