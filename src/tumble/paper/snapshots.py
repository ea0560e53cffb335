"""What a model knows after each epoch: its manifold, and where test images lie in latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.estimators.growing import as_fitted, centre_on
from tumble.fit import Callback
from tumble.paper.record import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from tumble.fit import EpochReport
    from tumble.paper.data import Split

__all__ = ["Snapshot", "Snapshots"]


@dataclass(frozen=True)
class Snapshot:
    """State of a model after an epoch.

    Parameters
    ----------
    epoch : int
        Epochs done.
    manifold : ndarray of shape (K, n, n, H, W), uint8
        Canonical images over the grid of the first two latent factors.
    z : ndarray of shape (m, 2)
        Latent factors of test images.
    truth : ndarray of shape (m,)
        Their classes.
    accuracy : float
        Share of them that is classified right.
    """

    epoch: int
    manifold: npt.NDArray[np.uint8]
    z: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    accuracy: float


class Snapshots(Callback):
    """Keeps a snapshot every few epochs; as a callback of a fit, and as the sequence of what was kept.

    Parameters
    ----------
    folder : Path
        One file per snapshot; a run that goes on after a crash finds those from before.
    estimator : SSRVAEClassifier
        As it is fitted; it is not changed.
    split : Split
        The first `n_points` test images are used.
    n_points, n_grid, every : int
        Test images, steps along a latent axis, epochs between snapshots.
    """

    def __init__(
        self, folder: Path, estimator: Any, split: Split, *, n_points: int, n_grid: int, every: int = 1
    ) -> None:
        self.folder, self.estimator, self.split = folder, estimator, split
        self.n_points, self.n_grid, self.every = n_points, n_grid, every

    def __call__(self, report: EpochReport) -> None:
        """Follow the end of an epoch."""
        last = report.epoch == report.max_epochs
        if report.run is None or not (last or report.epoch % self.every == 0 or report.epoch == 1):
            return
        self._keep(
            take_snapshot(self._model(report.run.weights()), self.split, report.epoch, self.n_points, self.n_grid)
        )

    def __len__(self) -> int:
        return len(self._files())

    def all(self) -> list[Snapshot]:
        """Read what was kept, in the order of the epochs."""
        found = []
        for path in self._files():
            with np.load(path, allow_pickle=False) as content:
                arrays = {name: content[name] for name in ("manifold", "z", "truth")}
                found.append(Snapshot(int(content["epoch"]), **arrays, accuracy=float(content["accuracy"])))
        return found

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))

    def _keep(self, shot: Snapshot) -> None:
        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez_compressed(file, **vars(shot))

        write_whole(self.folder / f"{shot.epoch:05d}.npz", write)

    def _model(self, weights: dict[str, torch.Tensor]) -> Any:
        classes = np.arange(len(self.split.classes))
        return as_fitted(self.estimator, weights, classes, (1, *self.split.X.shape[1:]))


def take_snapshot(model: Any, split: Split, epoch: int, n_points: int, n_grid: int) -> Snapshot:
    """Describe a fitted model.

    Parameters
    ----------
    model : SSRVAEClassifier
        Fitted, or with the weights of an epoch. Its grid of latent factors is laid over the test images' own.
    split : Split
        Where test images come from.
    epoch, n_points, n_grid : int
        As in :class:`Snapshots`.

    Returns
    -------
    Snapshot
    """
    X, truth = split.X_test[:n_points], split.y_test[:n_points]
    z, predicted = model.transform(X), model.predict(X)
    centre_on(model, z, predicted)
    drawn = np.clip(model.traverse(n=n_grid), 0, 1)
    accuracy = float(np.mean(predicted == truth))
    return Snapshot(epoch, np.round(255 * drawn).astype(np.uint8), z[:, :2], truth, accuracy)
