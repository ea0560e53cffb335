"""What is trained and measured, each thing once: kept in a folder, and taken from there when its settings agree."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble._version import __version__
from tumble.errors import ConfigError, ModelFileError
from tumble.estimators import RVAE, SSRVAEClassifier
from tumble.metrics import balanced_accuracy, confusion
from tumble.paper.methods import BASELINES, Fit, estimator
from tumble.paper.record import environment, plain, worked_on, write_json
from tumble.paper.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tumble.fit import EpochReport
    from tumble.paper.sizes import Sizes

__all__ = ["Lab"]

logger = logging.getLogger(__name__)


def _nothing(*_: Any) -> None:
    """Stand in for a callback."""


@dataclass
class Lab:
    """Models and measurements of one folder.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    sizes : Sizes
        Sizes of all studies.
    seed : int
        Seeds data and fits.
    methods : sequence of str
        What is compared.
    device : str
        Where networks run.
    since : float
        What was kept before this time (seconds since 1970) is trained and measured anew.
    beside : int
        Processes that fit side by side, for the record: each takes longer than it would alone.
    tell : callable
        Called with what is being done, steps done, steps in all.
    epoch : callable
        Called with a :class:`tumble.fit.EpochReport` after each epoch.
    """

    folder: Path
    sizes: Sizes
    seed: int
    methods: Sequence[str]
    device: str = "auto"
    since: float = 0.0
    beside: int = 1
    tell: Callable[[str, int, int], None] = _nothing
    epoch: Callable[[EpochReport], None] = _nothing
    _models: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _cells: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    # Models

    def fitted(self, fit: Fit) -> Any:
        """Give a fitted estimator: from memory, from the folder, or by fitting it now.

        A fit that was cut off goes on after its last epoch.
        """
        key = self._key(fit.case(self.sizes))
        if key not in self._models:
            self._models[key] = self._kept(fit, key) or self._train(fit, key)
        return self._models[key]

    def missing(self, fits: Sequence[Fit]) -> list[Fit]:
        """Give the fits that :meth:`fitted` would have to make, each once; classifiers on pixels are no such."""
        found: dict[str, Fit] = {}
        for fit in fits:
            key = self._key(fit.case(self.sizes))
            there = key in self._models or self._fresh(self._record(fit, key)) or self._only_scored(fit)
            if fit.method not in BASELINES and not there:
                found[key] = fit
        return list(found.values())

    def about(self, fit: Fit) -> dict[str, Any]:
        """Give how a fit went: its losses, its seconds, where it ran. The fit is made if need be."""
        self.fitted(fit)
        return json.loads(self._record(fit, self._key(fit.case(self.sizes))).read_text(encoding="utf-8"))

    def snapshots(self, fit: Fit) -> Snapshots:
        """Give what was kept as a fit went on. The fit is made if need be."""
        self.fitted(fit)
        return self._snapshots(fit, self._key(fit.case(self.sizes)))

    def _snapshots(self, fit: Fit, key: str) -> Snapshots:
        return Snapshots(
            self._place(fit, key) / "snapshots",
            estimator(fit, self.sizes, device=self.device),
            fit.source.split(),
            n_points=self.sizes.film_points,
            n_grid=self.sizes.film_grid,
            every=fit.film_every(self.sizes),
        )

    def _place(self, fit: Fit, key: str) -> Path:
        kind = type(fit.source).__name__.lower()
        return self.folder / "models" / f"{fit.method}{'' if fit.supervised else '-unlabelled'}-{kind}-{key}"

    def _record(self, fit: Fit, key: str) -> Path:
        """Give the file whose presence says that a fit is complete."""
        return self._place(fit, key) / "fit.json"

    def _kept(self, fit: Fit, key: str) -> Any:
        if fit.method in BASELINES or not self._fresh(self._record(fit, key)):
            return None
        place = self._place(fit, key) / "model"
        try:
            return (SSRVAEClassifier if fit.supervised else RVAE).load(place, device=self.device)
        except ModelFileError as error:
            logger.warning("%s Fitting it again.", error)
            return None

    def _train(self, fit: Fit, key: str) -> Any:
        self.tell(f"Fitting {fit.title}, {describe(fit)}", 0, 0)
        split = fit.source.split()
        model = estimator(fit, self.sizes, device=self.device)
        started = time.perf_counter()
        if fit.method in BASELINES:
            model.fit(split.X, split.y)
            model.fit_seconds_ = time.perf_counter() - started
            return model
        place = self._place(fit, key)
        # Neither a model that could not be read nor the first half of one that is to be made anew is gone on with.
        if self._record(fit, key).exists() or (self.since and not self._fresh(place)):
            shutil.rmtree(place, ignore_errors=True)
        callbacks: list[Any] = [self.epoch, *([self._snapshots(fit, key)] if fit.filmed else [])]
        given = (split.X, split.y) if fit.supervised else (split.X,)
        model.fit(*given, callbacks=callbacks, checkpoint=place / "state", resume=True)
        model.save(place / "model")
        notes = {"seconds": model.fit_seconds_, "epochs": model.n_iter_, "swept": fit.swept, "history": model.history_}
        machine = {**environment(self.device), "side_by_side": self.beside}
        write_json(self._record(fit, key), {**fit.case(self.sizes), **notes, "version": __version__, **machine})
        shutil.rmtree(place / "state", ignore_errors=True)
        return model

    # Measurements

    def cell(self, case: dict[str, Any], work: Callable[[], Any]) -> Any:
        """Give a measurement: from the folder, or by doing `work` now.

        Parameters
        ----------
        case : dict
            Everything that the outcome depends on, but for the version.
        work : callable
            Measures; its result must be of what JSON knows, or arrays.

        Returns
        -------
        The result, as JSON gives it back.
        """
        key = self._key(case)
        if key not in self._cells:
            path = self._cell_path(key)
            if not self._fresh(path):
                write_json(
                    path, {"case": case, "version": __version__, "device": worked_on(self.device), "value": work()}
                )
            self._cells[key] = _read_cell(path)
        return self._cells[key]["value"]

    def forget(self) -> None:
        """Let go of the models in memory; what is in the folder stays."""
        self._models.clear()

    def machines(self) -> list[str]:
        """Name the processors on which the measurements that this lab has given so far were made."""
        return sorted({cell["device"] for cell in self._cells.values()})

    def scores(self, fit: Fit) -> dict[str, Any]:
        """Accuracy, recall per class and confusion of a classifier on its test images, and seconds of its fit."""

        def work() -> dict[str, Any]:
            split = fit.source.split()
            model = self.fitted(fit)
            predicted = model.predict(split.X_test)
            counts = confusion(split.y_test, predicted, classes=np.arange(len(split.classes)))
            recalls = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
            return {
                "accuracy": float(np.mean(predicted == split.y_test)),
                "balanced_accuracy": balanced_accuracy(split.y_test, predicted),
                "recall": dict(zip(split.classes, recalls.tolist(), strict=True)),
                "confusion": counts,
                "classes": split.classes,
                "n_test": len(split.y_test),
                # A model that was read from the folder does not know; its record does.
                "fit_seconds": model.fit_seconds_ if fit.method in BASELINES else self.about(fit)["seconds"],
            }

        return self.cell(self._scores_case(fit), work)

    def _scores_case(self, fit: Fit) -> dict[str, Any]:
        return {"what": "scores", **fit.case(self.sizes)}

    def _only_scored(self, fit: Fit) -> bool:
        """Whether a fit of which only the scores are drawn has them; its model may be gone."""
        return fit.swept and self._fresh(self._cell_path(self._key(self._scores_case(fit))))

    def _cell_path(self, key: str) -> Path:
        # A file for each measurement: several processes may measure side by side.
        return self.folder / "cells" / f"{key}.json"

    def _key(self, case: dict[str, Any]) -> str:
        text = json.dumps(plain({**case, "version": __version__}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _fresh(self, path: Path) -> bool:
        """Whether there is such a file or folder, and it need not be made anew."""
        return path.exists() and path.stat().st_mtime >= self.since


def _read_cell(path: Path) -> dict[str, Any]:
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(cell, dict) or not {"value", "device"} <= set(cell):
            raise ValueError("no measurement")
    except ValueError as error:
        raise ConfigError(
            f"{path}: is damaged ({error}). Move it away to measure again; trained models are kept."
        ) from error
    return cell


def describe(fit: Fit) -> str:
    """Say in a few words what a fit is of."""
    source: Any = fit.source
    if type(source).__name__ == "Cards":
        return f"cards within ±{source.angle_deg:g}°, {source.n_labelled} labelled per class"
    return {"Agglomerates": "agglomerates", "Gold": "gold micrograph"}[type(source).__name__]
