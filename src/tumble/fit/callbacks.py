"""What may follow a fit from epoch to epoch: a progress bar, early stopping, the best weights, checkpoints.

A callback is any callable that takes an :class:`EpochReport`. The classes here are callbacks that also keep something
from one epoch to the next; a run that is resumed gives it back to them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tumble.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from torch import Tensor

    #: Whatever is called after each epoch.
    AnyCallback = Callable[["EpochReport"], None]

__all__ = ["BestWeights", "Callback", "Checkpoint", "EarlyStopping", "EpochReport", "Progress", "RunHandle"]

log = logging.getLogger(__name__)

_MODES = ("min", "max")
#: The stages of a fit. That of the pre-training is also the folder of its checkpoint within that of the fit.
TRAINING, PRETRAINING = "training", "pre-training"
#: What a bar calls them.
_SHOWN_AS = {TRAINING: "Fitting", PRETRAINING: "Pre-training"}


class RunHandle(Protocol):
    """What a callback may do with the run that it follows."""

    @property
    def stopping(self) -> bool:
        """Whether a callback has asked for the end."""
        ...

    def request_stop(self, reason: str) -> None:
        """End training after this epoch; the first reason given is kept."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Copy the weights that the fit would return if it ended now, its latent axes not yet turned."""
        ...

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the weights that the fit returns."""
        ...

    def save(self, folder: Path) -> None:
        """Write the whole state of the run into a folder."""
        ...


@dataclass(frozen=True)
class EpochReport:
    """State of a fit after an epoch, as given to callbacks.

    Parameters
    ----------
    epoch : int
        Number of the epoch that just ended, from 1.
    max_epochs : int
        Number of epochs of the stage.
    losses : dict of str to float
        Means of the epoch; with a validation set also `validation_loss` and `validation_accuracy`.
    elapsed_s, remaining_s : float
        Wall time so far, and an estimate of what is left of the stage.
    run : RunHandle or None
        The run itself, for callbacks that act on it.
    stage : {"training", "pre-training"}
        "pre-training" is the rVAE without labels that comes first with ``pretrain_epochs``: another model, with other
        curves, whose epochs count from 1.
    """

    epoch: int
    max_epochs: int
    losses: dict[str, float]
    elapsed_s: float
    remaining_s: float
    run: RunHandle | None = field(default=None, repr=False, compare=False)
    stage: str = TRAINING

    def stop(self, reason: str = "callback") -> None:
        """End training, or the pre-training alone, after this epoch.

        Parameters
        ----------
        reason : str, default="callback"
            Becomes the `stop_reason` of the fit where it was the training that ended.
        """
        if self.run is None:
            raise RuntimeError("this report belongs to no run that could be stopped")
        self.run.request_stop(reason)


class Callback:
    """Base of callbacks that keep something between epochs.

    A subclass has ``__call__(report)``, and whichever of these methods it needs. The constructor only stores, so that
    one callback may serve several fits, one after the other.
    """

    #: Whether the outcome of the fit depends on it, so that a run cannot be resumed without it.
    matters: bool = False
    #: Whether it also follows the pre-training, which has other curves and another model, as plain callables do; the
    #: methods below are then called once for each stage.
    follows_pretraining: bool = False

    def __call__(self, report: EpochReport) -> None:
        """Follow the end of an epoch."""
        raise NotImplementedError

    def start(self, run: RunHandle) -> None:
        """Forget earlier fits; called before the first epoch."""

    def end(self, run: RunHandle) -> None:
        """Act on the result; called after the last epoch."""

    def close(self) -> None:
        """Let go of what is held; called when the fit ends in any way."""

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments, by which a resumed run knows its callbacks."""
        return {}

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Give what must be kept in a checkpoint: plain values, and tensors."""
        return {}, {}

    def load(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""


class _Monitor(Callback):
    """A callback that follows the best value of one curve.

    Attributes
    ----------
    best_ : float or None
        Best value so far.
    best_epoch_ : int
        Its epoch; 0 before the first.
    """

    matters = True

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        if mode not in _MODES:
            raise ConfigError(f"mode={mode!r}: expected one of {', '.join(map(repr, _MODES))}.")
        if not min_delta >= 0:
            raise ConfigError(f"min_delta={min_delta!r}: expected a number of at least 0.")
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta
        self.best_: float | None = None
        self.best_epoch_ = 0

    def start(self, run: RunHandle) -> None:
        """Forget earlier fits."""
        self.best_, self.best_epoch_ = None, 0

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments."""
        return {"monitor": self.monitor, "mode": self.mode, "min_delta": self.min_delta}

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Give what must be kept in a checkpoint."""
        return {"best": self.best_, "best_epoch": self.best_epoch_}, {}

    def load(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        best = values["best"]
        self.best_, self.best_epoch_ = None if best is None else float(best), int(values["best_epoch"])

    def improved(self, report: EpochReport) -> bool:
        """Take in an epoch and tell whether it is the best so far."""
        try:
            value = report.losses[self.monitor]
        except KeyError:
            raise ConfigError(
                f"monitor={self.monitor!r}: there is no such curve. Curves of this fit are "
                f"{', '.join(sorted(report.losses))}; those of validation need validation data."
            ) from None
        if self.best_ is not None:
            gain = self.best_ - value if self.mode == "min" else value - self.best_
            # Written so that NaN never counts as better.
            if not gain > self.min_delta:
                return False
        elif value != value:
            return False
        self.best_, self.best_epoch_ = value, report.epoch
        return True


class EarlyStopping(_Monitor):
    """End training when a curve has stopped getting better.

    The rate of the default method falls to 0 over the whole run, and much is gained while it falls: a run that is cut
    short is worse than one of that length. Use it against overfitting, and `max_epochs` to save time.

    Parameters
    ----------
    monitor : str, default="validation_loss"
        Name of the curve, among the losses of an :class:`EpochReport`.
    patience : int, default=10
        Epochs without improvement after which training ends.
    min_delta : float, default=0.0
        An improvement must be larger than this.
    mode : {"min", "max"}, default="min"
        Whether smaller or larger values are better.
    """

    def __init__(
        self, monitor: str = "validation_loss", patience: int = 10, min_delta: float = 0.0, mode: str = "min"
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ConfigError(f"patience={patience!r}: expected a whole number of at least 1.")
        self.patience = patience

    def __call__(self, report: EpochReport) -> None:
        """Follow the end of an epoch."""
        if not self.improved(report) and report.epoch - self.best_epoch_ >= self.patience:
            report.stop(f"early_stopping: {self.monitor} has not improved since epoch {self.best_epoch_}")

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments."""
        return super().settings() | {"patience": self.patience}


class BestWeights(_Monitor):
    """Keep the weights of the best epoch, and return them at the end instead of the last ones.

    Parameters
    ----------
    monitor : str, default="validation_loss"
        Name of the curve, among the losses of an :class:`EpochReport`.
    mode : {"min", "max"}, default="min"
        Whether smaller or larger values are better.
    """

    def __init__(self, monitor: str = "validation_loss", mode: str = "min") -> None:
        super().__init__(monitor, mode, 0.0)
        self._weights: dict[str, Tensor] = {}

    def __call__(self, report: EpochReport) -> None:
        """Follow the end of an epoch."""
        if self.improved(report) and report.run is not None:
            self._weights = report.run.weights()

    def start(self, run: RunHandle) -> None:
        """Forget earlier fits."""
        super().start(run)
        self._weights = {}

    def end(self, run: RunHandle) -> None:
        """Return the best weights."""
        if self._weights:
            run.set_weights(self._weights)

    def close(self) -> None:
        """Let go of what is held."""
        self._weights = {}

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Give what must be kept in a checkpoint."""
        return super().state()[0], self._weights

    def load(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        super().load(values, tensors)
        self._weights = dict(tensors)


class Checkpoint(Callback):
    """Write the state of the run into a folder, from which `fit` can go on after a crash.

    Parameters
    ----------
    folder : path
        Where to; made if need be. Each checkpoint replaces the one before.
    every : int, default=1
        Epochs between checkpoints. The last epoch always makes one. The state of the pre-training, where there is
        one, is in a folder within, until the fit ends.
    """

    follows_pretraining = True

    def __init__(self, folder: str | os.PathLike[str], every: int = 1) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(f"every={every!r}: expected a whole number of at least 1.")
        self.folder = Path(folder)
        self.every = every

    def __call__(self, report: EpochReport) -> None:
        """Follow the end of an epoch."""
        if report.run is None:
            return
        if report.run.stopping or report.epoch % self.every == 0 or report.epoch == report.max_epochs:
            report.run.save(self.folder)


class Progress(Callback):
    """Show a progress bar with the losses on stderr, where `rich` is installed; lines of the log otherwise.

    Parameters
    ----------
    losses : sequence of str, default=("loss", "classification", "validation_accuracy")
        Which curves to show, where there are such.
    """

    follows_pretraining = True

    def __init__(self, losses: tuple[str, ...] = ("loss", "classification", "validation_accuracy")) -> None:
        self.losses = losses
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __call__(self, report: EpochReport) -> None:
        """Follow the end of an epoch."""
        shown = "  ".join(f"{name} {report.losses[name]:.4g}" for name in self.losses if name in report.losses)
        if self._bar is None:
            self._bar = _rich_bar()
        if self._bar is None:
            log.info("%s: epoch %d of %d  %s", report.stage, report.epoch, report.max_epochs, shown)
            return
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(_SHOWN_AS[report.stage], total=report.max_epochs, detail="")
        self._bar.update(self._task, completed=report.epoch, detail=shown)
        if report.epoch == report.max_epochs:
            self.close()

    def close(self) -> None:
        """Let go of what is held."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def _rich_bar() -> RichProgress | None:
    """Make a bar on stderr, or None where `rich` is missing."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=Console(stderr=True),
    )
