"""The training loop: data and settings in, a fitted model and its history out."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.errors import ConfigError, DataError
from tumble.fit.callbacks import PRETRAINING, TRAINING, Callback, Checkpoint, EpochReport
from tumble.fit.distributed import join_processes
from tumble.fit.objective import DefaultObjective
from tumble.fit.pretrain import begin_with, draw_with_classifier, without_labels
from tumble.fit.run import Run
from tumble.fit.state import (
    RunState,
    check_identity,
    damaged,
    defaults_of,
    discard_state,
    fingerprint,
    read_state,
    write_state,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import Tensor

    from tumble.fit.batches import TrainingData
    from tumble.fit.config import FitConfig
    from tumble.fit.distributed import Ranks
    from tumble.fit.objective import Objective
    from tumble.model.config import ModelConfig
    from tumble.model.ssrvae import SSRVAE

    _AnyCallback = Callable[[EpochReport], None]

__all__ = ["EpochReport", "FitResult", "fit_ssrvae"]

log = logging.getLogger(__name__)


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
        Why training ended: "max_epochs", or what a callback gave as its reason.
    seconds : float
        Wall time; of a resumed run, that of all its parts.
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
    seed: int | None,
    device: torch.device,
    callbacks: Sequence[Callable[[EpochReport], None]] = (),
    objective: Objective | None = None,
    validation: TrainingData | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> FitResult:
    """Train an ss-rVAE.

    With `pretrain_epochs` among the settings, an rVAE of all images comes first, whose convolutions the model begins
    with (see :mod:`tumble.fit.pretrain`); plain callables, and those callbacks that say so, follow it as well.

    Under `torchrun` the processes train one model together (see :mod:`tumble.fit.distributed`); all of them must call
    this with the same arguments, and all get the same model.

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
    seed : int or None
        Seeds initial weights, order of the images, disorder and draws. No global generator is touched. None draws a
        seed, or takes that of the run that goes on.
    device : torch.device
        Where to train.
    callbacks : sequence of callable
        Each is called with an :class:`EpochReport` after each epoch, in the leading process; see
        :mod:`tumble.fit.callbacks`.
    objective : Objective, optional
        Loss, optimiser and schedules; by default :class:`DefaultObjective`.
    validation : TrainingData, optional
        Labelled images that play no part in training. Each epoch reports `validation_loss` (cross-entropy) and
        `validation_accuracy` of the running mean of the weights.
    checkpoint : path, optional
        Folder for the state of the run after each epoch, as with a :class:`Checkpoint` among the callbacks; that of
        the pre-training is in a folder within it.
    resume : bool, default=False
        Go on from the state in `checkpoint`, if there is one. The result is that of an unbroken run. Otherwise such a
        state is removed.

    Returns
    -------
    FitResult

    Raises
    ------
    FloatingPointError
        If the loss stops being finite.
    DataError
        If no image of `validation` is labelled.
    ConfigError
        If the state in `checkpoint` is of a run with other data, settings or seed, or a model without convolutions
        that classify is to have `pretrain_epochs`.
    ModelFileError
        If that state is damaged, or cannot be written.
    """
    started = time.perf_counter()
    folder = None if checkpoint is None else Path(checkpoint)
    if validation is not None and not (model_config.n_classes and bool((validation.y >= 0).any())):
        raise DataError("validation: none of its images has a label of the classes that are fitted.")
    if settings.pretrain_epochs and not (model_config.n_classes and model_config.encoder == "convolutional"):
        raise ConfigError(
            f"pretrain_epochs={settings.pretrain_epochs}: what is trained before are convolutions that classify, and "
            "this model has none. Give it classes and encoder='convolutional', or pretrain_epochs=0."
        )
    objective = objective if objective is not None else DefaultObjective(settings)
    callbacks, ranks = tuple(callbacks), join_processes(device)
    state = read_state(folder) if folder is not None and resume else None
    wanted = settings.pretrain_epochs > 0 and state is None
    before = read_state(folder / PRETRAINING) if folder is not None and resume and wanted else None
    ranks.check_same("X and y", fingerprint(data))
    # All processes have read the state when this returns, so that it may be removed or replaced.
    ranks.check_same("checkpoint", _digest(state or before))
    seed = _agreed_seed(seed, state or before, ranks)
    task = _Task(data, model_config, settings, objective, class_prior, validation, seed, ranks, callbacks)
    if ranks.leads and state is None:  # at once: a kill must not leave what an older run wrote
        if folder is not None:
            discard_state(folder)
        task.forget_pretraining(folder, unless=before)
    begin = None
    if wanted:
        rvae = task.without_labels().train(None if folder is None else folder / PRETRAINING, before, started)
        begin, started = partial(begin_with, rvae.model), time.perf_counter() - rvae.seconds
    result = dataclasses.replace(task, begin=begin).train(folder, state, started)
    if ranks.leads:
        task.forget_pretraining(folder)
    return result


@dataclass(frozen=True)
class _Task:
    """A training run that is yet to come; the parameters are those of :func:`fit_ssrvae`."""

    data: TrainingData
    model_config: ModelConfig
    settings: FitConfig
    objective: Objective
    class_prior: np.ndarray | None
    validation: TrainingData | None
    seed: int
    ranks: Ranks
    callbacks: Sequence[_AnyCallback]
    begin: Callable[[SSRVAE], None] | None = None
    stage: str = TRAINING

    def without_labels(self) -> _Task:
        """Give the run of the rVAE that comes before this one."""
        data, model_config, settings = without_labels(self.data, self.model_config, self.settings)
        return _Task(
            data,
            model_config,
            settings,
            DefaultObjective(settings),
            class_prior=None,
            validation=None,
            seed=self.seed,
            ranks=self.ranks,
            callbacks=[*map(_in_pretraining, filter(_follows_pretraining, self.callbacks))],
            begin=partial(draw_with_classifier, config=self.model_config),
            stage=PRETRAINING,
        )

    def forget_pretraining(self, folder: Path | None, *, unless: RunState | None = None) -> None:
        """Remove what a pre-training left within `folder` and those of callbacks, unless the run goes on from there."""
        places = {c.folder for c in self.callbacks if isinstance(c, Checkpoint)} | ({folder} if folder else set())
        for place in places if unless is None else ():
            discard_state(place / PRETRAINING, folder_too=True)

    def train(self, folder: Path | None, state: RunState | None, started: float) -> FitResult:
        """Train from the beginning or from a state to the end; `folder` is for checkpoints."""
        callbacks, identity = _in_order(self.callbacks, folder), self._identity()
        run = Run(
            self.data,
            self.model_config,
            self.settings,
            self.objective,
            class_prior=self.class_prior,
            seed=self.seed,
            ranks=self.ranks,
            begin=self.begin,
        )
        session = _Session(run, self.validation, callbacks, identity, started, self.stage)
        if folder is not None and state is not None:
            check_identity(folder, state.identity, identity, self._older())
        return session.fit(folder, state)

    def _identity(self) -> dict[str, Any]:
        """Give what a checkpoint must be of for this run to go on from it."""
        return {
            "data": fingerprint(self.data),
            "validation": fingerprint(self.validation),
            "model": dataclasses.asdict(self.model_config),
            "settings": dataclasses.asdict(self.settings),
            "objective": [type(self.objective).__name__, _settings_of(self.objective)],
            "class_prior": None if self.class_prior is None else self.class_prior.tolist(),
            "seed": self.seed,
            "device": self.ranks.device.type,
            "callbacks": [[type(c).__name__, c.settings()] for c in _mattering(self.callbacks)],
        }

    def _older(self) -> dict[str, Any]:
        """Give what a run had of settings that did not exist yet when its checkpoint was written."""
        return {
            "model": defaults_of(self.model_config),
            "settings": defaults_of(self.settings),
            "objective": [type(self.objective).__name__, _settings_of(self.objective, defaults_of)],
        }


def _follows_pretraining(callback: _AnyCallback) -> bool:
    return not isinstance(callback, Callback) or callback.follows_pretraining


def _in_pretraining(callback: _AnyCallback) -> _AnyCallback:
    """Give what follows the pre-training in place of a callback: itself, or a checkpoint in a folder of its own."""
    return Checkpoint(callback.folder / PRETRAINING, callback.every) if isinstance(callback, Checkpoint) else callback


def _digest(state: RunState | None) -> str:
    return state.digest if state is not None else "0" * 64


def _in_order(callbacks: Sequence[_AnyCallback], folder: Path | None) -> list[_AnyCallback]:
    """Put checkpoints last, for they also keep what the other callbacks make of an epoch."""
    every = [*callbacks, Checkpoint(folder)] if folder is not None else [*callbacks]
    return sorted(every, key=lambda c: isinstance(c, Checkpoint))


def _settings_of(objective: Objective, read: Callable[[Any], dict[str, Any]] = dataclasses.asdict) -> dict[str, Any]:
    # Those of the default one are the run's, which are compared anyway.
    if isinstance(objective, DefaultObjective) or not dataclasses.is_dataclass(objective):
        return {}
    return read(objective)


def _mattering(callbacks: Sequence[_AnyCallback]) -> list[Callback]:
    return [c for c in callbacks if isinstance(c, Callback) and c.matters]


def _agreed_seed(seed: int | None, state: RunState | None, ranks: Ranks) -> int:
    """Give the seed: the one asked for, that of the run that goes on, or a new one; the same in all processes."""
    if seed is None:
        found = state.identity.get("seed") if state is not None else None
        seed = found if isinstance(found, int) else int(np.random.default_rng().integers(2**31 - 1))
    return ranks.int_from_leader(seed)


class _Session:
    """A run with its curves and callbacks, and what callbacks may do with it."""

    def __init__(
        self,
        run: Run,
        validation: TrainingData | None,
        callbacks: Sequence[_AnyCallback],
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
        kept = [c.state() for c in _mattering(self._callbacks)]
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
            for i, callback in enumerate(_mattering(self._callbacks)):
                prefix = f"callback.{i}."
                own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
                callback.load(values["callbacks"][i], own)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise damaged(folder, error) from error
        log.info("%s: going on after epoch %d of %d", folder, self._epoch, self._run.n_epochs)
