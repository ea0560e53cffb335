"""A training run that is under way: its curves, its callbacks and its state."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tumble.fit.callbacks import Callback, EpochReport
from tumble.fit.state import RunState, damaged, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from tumble.fit.batches import TrainingData
    from tumble.fit.callbacks import AnyCallback
    from tumble.fit.run import Run
    from tumble.model.ssrvae import SSRVAE

__all__ = ["FitResult", "Session", "mattering"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """A fitted model and how it came about.

    Parameters
    ----------
    model : SSRVAE
        In evaluation mode, with the running mean of the weights (the last ones where `ema_decay` is 0).
    history : dict of str to list of float
        One value per epoch and curve.
    stop_reason : str
        Why training ended: "max_epochs", or what a callback gave as its reason.
    seconds : float
        Wall time; of a resumed run, that of all its parts.
    """

    model: SSRVAE
    history: dict[str, list[float]] = field(default_factory=dict)
    stop_reason: str = ""
    seconds: float = 0.0


def mattering(callbacks: Sequence[AnyCallback]) -> list[Callback]:
    """Give the callbacks whose settings and state belong to the run, and are kept with it."""
    return [c for c in callbacks if isinstance(c, Callback) and c.matters]


class Session:
    """A run with its curves and callbacks, and what callbacks may do with it.

    Parameters
    ----------
    run : Run
        The weights and their steps.
    validation : TrainingData or None
        Labelled images that are scored after each epoch.
    callbacks : sequence of callable
        In the order in which they are called; those of the leading process count.
    identity : dict
        What a checkpoint must be of for this run to go on from it.
    started : float
        By the clock of `time.perf_counter`.
    stage : str
        What the epochs are of, "training" or "pre-training".
    """

    def __init__(
        self,
        run: Run,
        validation: TrainingData | None,
        callbacks: Sequence[AnyCallback],
        identity: dict[str, Any],
        started: float,
        stage: str,
    ) -> None:
        self._run, self._validation, self._identity, self._started = run, validation, identity, started
        self._stage = stage
        # The other processes follow what the leader's callbacks decide.
        self._callbacks = callbacks if run.ranks.leads else []
        self._history: dict[str, list[float]] = {}
        self._epoch = 0
        self._stop_reason = ""
        self._seconds_before = 0.0
        # When this stage began, or went on: how long an epoch takes is told from there.
        self._began_epoch, self._began_s = 0, 0.0

    @property
    def stopping(self) -> bool:
        """Whether a callback has asked for the end."""
        return bool(self._stop_reason)

    def request_stop(self, reason: str) -> None:
        """End training after this epoch; the first reason given is kept."""
        self._stop_reason = self._stop_reason or reason

    def weights(self) -> dict[str, Tensor]:
        """Copy the weights that the fit would return if it ended now."""
        return {name: t.clone() for name, t in self._run.teacher.model.state_dict().items()}

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the weights that the fit returns."""
        self._run.teacher.model.load_state_dict(weights)

    def fit(self, folder: Path | None, state: RunState | None) -> FitResult:
        """Train from the beginning or from a state to the end."""
        run, ours = self._run, [c for c in self._callbacks if isinstance(c, Callback)]
        with run.ready():
            try:
                for callback in ours:
                    callback.start(self)
                if folder is not None and state is not None:
                    self._restore(folder, state)
                self._began_epoch, self._began_s = self._epoch, self._seconds()
                while self._epoch < run.n_epochs and not self.stopping:
                    self._one_epoch()
                for callback in ours:
                    callback.end(self)
            finally:
                for callback in ours:
                    callback.close()
            for tensor in run.teacher.model.state_dict().values():
                run.ranks.from_leader(tensor)
            run.finish()
        return FitResult(run.teacher.model, self._history, self._stop_reason or "max_epochs", self._seconds())

    def _one_epoch(self) -> None:
        run = self._run
        self._epoch += 1
        means = run.epoch(self._epoch)
        if self._validation is not None:
            means |= run.validate(self._validation)
        for name, value in means.items():
            self._history.setdefault(name, []).append(value)
        log.debug("%s: epoch %d of %d: %s", self._stage, self._epoch, run.n_epochs, means)
        elapsed = self._seconds()
        per_epoch = (elapsed - self._began_s) / (self._epoch - self._began_epoch)
        remaining = per_epoch * (run.n_epochs - self._epoch)
        report = EpochReport(self._epoch, run.n_epochs, means, elapsed, remaining, self, self._stage)
        for callback in self._callbacks:
            callback(report)
        self._stop_reason = run.ranks.text_from_leader(self._stop_reason)

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def save(self, folder: Path) -> None:
        """Write the whole state of the run into a folder."""
        values = {
            "epoch": self._epoch,
            "stop_reason": self._stop_reason,
            "history": self._history,
            "seconds": self._seconds(),
            "run": self._run.values(),
        }
        tensors = self._run.tensors()
        kept = [c.state() for c in mattering(self._callbacks)]
        values["callbacks"] = [plain for plain, _ in kept]
        for i, (_, own) in enumerate(kept):
            tensors |= {f"callback.{i}.{name}": t for name, t in own.items()}
        write_state(folder, RunState(self._identity, values, tensors))

    def _restore(self, folder: Path, state: RunState) -> None:
        values, tensors = state.values, state.tensors
        try:
            self._run.load(values["run"], tensors)
            self._epoch, self._stop_reason = int(values["epoch"]), str(values["stop_reason"])
            self._history = {name: [float(v) for v in curve] for name, curve in values["history"].items()}
            self._seconds_before = float(values["seconds"])
            for i, callback in enumerate(mattering(self._callbacks)):
                prefix = f"callback.{i}."
                own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
                callback.load(values["callbacks"][i], own)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise damaged(folder, error) from error
        log.info("%s: going on after epoch %d of %d", folder, self._epoch, self._run.n_epochs)
