"""How the manifold of a model grows while it is trained: a few images of each class, kept every few epochs."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.app.frames import frame_path
from tumble.app.images import png_of
from tumble.fit import Callback

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tumble.fit import EpochReport

__all__ = ["FILM_STEPS", "SAMPLE", "Film"]

logger = logging.getLogger(__name__)

#: Images along each of two latent factors, and how far they reach, in standard deviations of the class.
FILM_STEPS = 5
EXTENT = 1.5
#: Frames of a film: enough to see it grow, few enough to cost nothing beside the training.
FRAMES = 24
#: Crops that say where a class lies.
SAMPLE = 400


class Film(Callback):
    """Keeps what the model draws of each class, every few epochs, as PNG files.

    Parameters
    ----------
    folder : Path
        Of the run; each frame is a folder in it that is there whole or not at all.
    estimator : SSRVAEClassifier
        As it is fitted; it is not changed.
    classes : sequence of str
        Of the labels.
    crops : ndarray of shape (n, S, S), uint8
        Some particles, which say where each class lies.
    """

    def __init__(self, folder: Path, estimator: Any, classes: Sequence[str], crops: npt.NDArray[np.uint8]) -> None:
        self.folder, self.estimator = folder, estimator
        self.classes, self.crops = np.unique(np.array(classes, dtype=str)), crops

    def __call__(self, report: EpochReport) -> None:
        """Follow the end of an epoch."""
        every = -(-report.max_epochs // FRAMES)
        if report.run is None or not (report.epoch in (1, report.max_epochs) or report.epoch % every == 0):
            return
        from tumble.estimators.growing import as_fitted, centre_on

        model = as_fitted(self.estimator, report.run.weights(), self.classes, (1, *self.crops.shape[1:]))
        k = np.searchsorted(self.classes, model.predict(self.crops))
        centre_on(model, model.transform(self.crops), k)
        drawn = np.clip(np.rint(255 * model.traverse(n=FILM_STEPS, extent=EXTENT)), 0, 255).astype(np.uint8)
        try:
            self._keep(report.epoch, drawn)
        except OSError as error:  # pictures are not worth a training
            logger.warning("%s: a frame of the manifold could not be kept (%s)", self.folder, error)

    def _keep(self, epoch: int, drawn: npt.NDArray[np.uint8]) -> None:
        target = frame_path(self.folder, epoch, 0).parent
        target.parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
        try:
            for k, images in enumerate(drawn):
                rows, columns, height, width = images.shape
                tiled = images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
                (partial / f"{k}.png").write_bytes(png_of(np.ascontiguousarray(tiled)))
            shutil.rmtree(target, ignore_errors=True)  # of the same epoch, before the run was cut off
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
