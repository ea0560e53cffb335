"""The training: data and settings in, a fitted model and its history out."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
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
from tumble.fit.session import FitResult, Session, mattering
from tumble.fit.state import (
    RunState,
    check_identity,
    defaults_of,
    discard_state,
    fingerprint,
    has_state,
    read_state,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import torch

    from tumble.fit.batches import TrainingData
    from tumble.fit.callbacks import AnyCallback
    from tumble.fit.config import FitConfig
    from tumble.fit.distributed import Ranks
    from tumble.fit.objective import Objective
    from tumble.model.config import ModelConfig
    from tumble.model.ssrvae import SSRVAE

__all__ = ["EpochReport", "FitResult", "fit_ssrvae"]


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
    # What the leader finds counts, or the others would wait for one that has raised.
    unfinished = ranks.int_from_leader(int(folder is not None and has_state(folder / PRETRAINING)))
    if unfinished and resume and not wanted and state is None:
        raise ConfigError(
            f"checkpoint={str(folder)!r}: it is of a run that has not ended its pre-training, and this one has none. "
            "Give what that run was given, another folder, or resume=False to start anew."
        )
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
    callbacks: Sequence[AnyCallback]
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
        session = Session(run, self.validation, callbacks, identity, started, self.stage)
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
            "callbacks": [[type(c).__name__, c.settings()] for c in mattering(self.callbacks)],
        }

    def _older(self) -> dict[str, Any]:
        """Give what a run had of settings that did not exist yet when its checkpoint was written."""
        return {
            "model": defaults_of(self.model_config),
            "settings": defaults_of(self.settings),
            "objective": [type(self.objective).__name__, _settings_of(self.objective, defaults_of)],
        }


def _follows_pretraining(callback: AnyCallback) -> bool:
    return not isinstance(callback, Callback) or callback.follows_pretraining


def _in_pretraining(callback: AnyCallback) -> AnyCallback:
    """Give what follows the pre-training in place of a callback: itself, or a checkpoint in a folder of its own."""
    return Checkpoint(callback.folder / PRETRAINING, callback.every) if isinstance(callback, Checkpoint) else callback


def _digest(state: RunState | None) -> str:
    return state.digest if state is not None else "0" * 64


def _in_order(callbacks: Sequence[AnyCallback], folder: Path | None) -> list[AnyCallback]:
    """Put checkpoints last, for they also keep what the other callbacks make of an epoch."""
    every = [*callbacks, Checkpoint(folder)] if folder is not None else [*callbacks]
    return sorted(every, key=lambda c: isinstance(c, Checkpoint))


def _settings_of(objective: Objective, read: Callable[[Any], dict[str, Any]] = dataclasses.asdict) -> dict[str, Any]:
    # Those of the default one are the run's, which are compared anyway.
    if isinstance(objective, DefaultObjective) or not dataclasses.is_dataclass(objective):
        return {}
    return read(objective)


def _agreed_seed(seed: int | None, state: RunState | None, ranks: Ranks) -> int:
    """Give the seed: the one asked for, that of the run that goes on, or a new one; the same in all processes."""
    if seed is None:
        found = state.identity.get("seed") if state is not None else None
        seed = found if isinstance(found, int) else int(np.random.default_rng().integers(2**31 - 1))
    return ranks.int_from_leader(seed)
