"""A fitted model's word on every particle of a library."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from tumble.errors import ConfigError, DataError, LibraryError
from tumble.library import Query
from tumble.pipeline.cluster import open_cluster
from tumble.pipeline.fit import describe_model, fingerprint
from tumble.pipeline.model_folder import MODEL_FILES
from tumble.types import Pose, Predictions

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterator

    import numpy.typing as npt

    from tumble.estimators import SSRVAEClassifier
    from tumble.library import Library
    from tumble.pipeline.cluster import Cluster
    from tumble.pipeline.extract import ProgressCallback

__all__ = ["ClassifiedLibrary", "classify_library"]

BATCH = 512

#: Crops of a piece of work for a worker: messages of a scheduler should not grow beyond some megabytes.
SENT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class ClassifiedLibrary:
    """What `classify_library` did.

    Parameters
    ----------
    model_name : str
        Name under which the predictions are stored.
    counts : dict of str to int
        Particles of each predicted class, in the model's order.
    """

    model_name: str
    counts: dict[str, int]

    @property
    def n_particles(self) -> int:
        """Number of particles classified."""
        return sum(self.counts.values())


def classify_library(
    library: Library,
    model_dir: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    again: bool = False,
    progress: ProgressCallback | None = None,
    scheduler: str | None = None,
) -> ClassifiedLibrary:
    """Predict class, latent, pose and novelty of every particle of a library, and store them.

    The model need not have been fitted to this library; it is then entered into it. Predictions are stored one
    micrograph after the other: after an interruption, or where micrographs were added, only what is missing is done.

    Parameters
    ----------
    library : Library
        An open library.
    model_dir : path
        Folder of a saved model.
    model_name : str, optional
        Name for the predictions. If not given, the name by which the library knows these very weights, or
        else the name of the folder.
    again : bool, default False
        Predict those particles anew for which this very model's predictions are stored.
    progress : callable, optional
        Called with a text, the number of particles done and their total.
    scheduler : str, optional
        Let the workers of a Dask cluster predict, see :func:`tumble.pipeline.open_cluster`. This process sends them
        the crops and the model, and alone reads and writes the library.

    Returns
    -------
    ClassifiedLibrary

    Raises
    ------
    ModelFileError
        If there is no such model or it is damaged.
    DataError
        If the model was made for crops of another size.
    LibraryError
        If the library has no particles.
    ConfigError
        If the name belongs to another model of the library.
    """
    from tumble.estimators import SSRVAEClassifier

    folder = Path(model_dir).expanduser()
    weights = fingerprint(folder)
    estimator = SSRVAEClassifier.load(folder)
    ids = library.particle_ids().tolist()
    if not ids:
        raise LibraryError(f"{library.url}: holds no particles. Add a micrograph first, with `tumble extract`.")
    name, is_known = _model_name(library, weights, model_name or None, folder)
    first = _predict(library, estimator, ids[:1], folder)  # before anything is stored: do the crops fit at all?
    if not is_known:
        library.ensure_model(describe_model(estimator, name=name, folder=folder, weights=weights, labelled=()))
    missing = library.unpredicted(name, without_novelty=first.novelty is not None)
    if again:
        missing = library.micrograph_particles()
    if missing:
        work = _Work(library, estimator, folder, name, progress)
        if scheduler is None:
            work.store(missing, (_predict(library, estimator, ids, folder) for ids in _portions(missing)))
        else:
            with (
                open_cluster(scheduler) as cluster,
                closing(work.predict_on(cluster, _portions(missing))) as predicted,
            ):
                work.store(missing, predicted)
    counts = library.predicted_counts(Query(model=name)).sum()
    return ClassifiedLibrary(name, {str(key): int(value) for key, value in counts.items()})


def _portions(missing: list[tuple[int, int]]) -> Iterator[list[int]]:
    """Give the particles of whole micrographs, of several at once where they are small."""
    waiting: list[int] = []
    for _, group in groupby(missing, key=itemgetter(0)):
        waiting += [particle for _, particle in group]
        if len(waiting) >= BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


@dataclass(frozen=True)
class _Work:
    """What is classified, by which model, and for which library."""

    library: Library
    estimator: SSRVAEClassifier
    folder: Path
    name: str
    progress: ProgressCallback | None

    def store(self, missing: list[tuple[int, int]], predicted: Iterator[Predictions]) -> None:
        """Store the predictions of one portion after the other."""
        run = self.library.begin_run(self.name)
        done = 0
        if self.progress:
            self.progress("Classifying", 0, len(missing))
        for ids, predictions in zip(_portions(missing), predicted, strict=True):
            self.library.add_predictions(self.name, ids, predictions, run_id=run)
            done += len(ids)
            if self.progress:
                self.progress("Classifying", done, len(missing))

    def predict_on(self, cluster: Cluster, portions: Iterator[list[int]]) -> Generator[Predictions]:
        """Let workers predict, in pieces that a scheduler can pass on at once."""
        files = {entry.name: entry.read_bytes() for entry in self.folder.iterdir() if entry.name in MODEL_FILES}

        def pieces() -> Iterator[_Piece]:
            for ids in portions:
                side = self.estimator.model_.config.image_shape[-1]
                size = min(BATCH, max(1, SENT_BYTES // side**2))
                for start in range(0, len(ids), size):
                    crops = _crops(self.library, self.estimator, ids[start : start + size], self.folder)
                    yield _Piece(crops, is_last=start + size >= len(ids))

        parts: list[Predictions] = []
        with closing(cluster.in_order(_predict_on_worker, pieces(), files)) as results:
            for piece, part in results:
                parts.append(part)
                if piece.is_last:
                    yield _joined(parts)
                    parts = []


@dataclass(frozen=True)
class _Piece:
    """Crops for a worker, and whether they are the last of those that are stored together."""

    crops: npt.NDArray[np.uint8]
    is_last: bool


#: The model that this worker loaded last, by the hash of its files.
_loaded: dict[str, SSRVAEClassifier] = {}


def _predict_on_worker(piece: _Piece, files: dict[str, bytes]) -> Predictions:
    """Do the share of a worker; models are sent as files, and read as any others."""
    from tumble.estimators import SSRVAEClassifier

    key = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
    estimator = _loaded.get(key)
    if estimator is None:
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            estimator = SSRVAEClassifier.load(folder)
        _loaded.clear()
        _loaded[key] = estimator
    return _predict_crops(estimator, piece.crops)


def _model_name(library: Library, weights: str, wanted: str | None, folder: Path) -> tuple[str, bool]:
    """Return the model's name in the library, and whether it is there already.

    Names are compared by weights, not by path: folders are copied and reused.
    """
    known = {str(name): library.model_record(str(name)) for name in library.models()["name"].unique()}
    same = [key for key, record in known.items() if record.environment.get("weights_sha256") == weights]
    name = wanted or (same[-1] if same else folder.resolve().name)
    if name in known and name not in same:
        raise ConfigError(
            f"{library.url}: the name {name!r} belongs to another model, fitted in {known[name].path}. Give "
            "this one a name of its own (--name)."
        )
    return name, name in same


def _predict(
    library: Library,
    estimator: SSRVAEClassifier,
    ids: list[int],
    folder: Path,
) -> Predictions:
    starts = range(0, len(ids), BATCH)
    crops = (_crops(library, estimator, ids[start : start + BATCH], folder) for start in starts)
    return _joined([_predict_crops(estimator, part) for part in crops])


def _crops(library: Library, estimator: SSRVAEClassifier, ids: list[int], folder: Path) -> npt.NDArray[np.uint8]:
    """Read crops, and check that the model takes such."""
    crops = library.crops(ids)
    expected = estimator.model_.config.image_shape[-2:]
    if crops.shape[1:] != expected:
        raise DataError(
            f"{folder}: this model takes crops of {expected[0]} x {expected[1]} px, those of "
            f"{library.url} are {crops.shape[1]} x {crops.shape[2]} px. Extract with the crop size of the "
            f"model (--crop-size {expected[0]}) into a new library, or fit a model to this one."
        )
    return crops


def _predict_crops(estimator: SSRVAEClassifier, crops: npt.NDArray[np.uint8]) -> Predictions:
    return Predictions(
        classes=tuple(str(name) for name in estimator.classes_),
        probabilities=estimator.predict_proba(crops),
        latent=estimator.transform(crops),
        pose=estimator.pose(crops),
        novelty=None if estimator.model_.novelty is None else estimator.novelty(crops),
    )


def _joined(parts: list[Predictions]) -> Predictions:
    pose = {field.name: np.concatenate([getattr(part.pose, field.name) for part in parts]) for field in fields(Pose)}
    return Predictions(
        classes=parts[0].classes,
        probabilities=np.concatenate([part.probabilities for part in parts]),
        latent=np.concatenate([part.latent for part in parts]),
        pose=Pose(**pose),
        novelty=None
        if parts[0].novelty is None
        else np.concatenate([part.novelty for part in parts if part.novelty is not None]),
    )
