"""A fitted model's word on every particle of a library."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tumble.errors import ConfigError, DataError, LibraryError
from tumble.library import Query
from tumble.pipeline.fit import describe_model, fingerprint
from tumble.types import Pose, Predictions

if TYPE_CHECKING:
    import os

    from tumble.estimators import SSRVAEClassifier
    from tumble.library import Library
    from tumble.pipeline.extract import ProgressCallback

__all__ = ["ClassifiedLibrary", "classify_library"]

BATCH = 512


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
        _predict_by_micrograph(library, estimator, missing, folder, name, progress)
    counts = library.predicted_counts(Query(model=name)).sum()
    return ClassifiedLibrary(name, {str(key): int(value) for key, value in counts.items()})


def _predict_by_micrograph(
    library: Library,
    estimator: SSRVAEClassifier,
    missing: list[tuple[int, int]],
    folder: Path,
    name: str,
    progress: ProgressCallback | None,
) -> None:
    """Predict and store whole micrographs, several at once where they are small."""
    run = library.begin_run(name)
    done, waiting = 0, []
    if progress:
        progress("Classifying", 0, len(missing))
    for _, group in groupby(missing, key=itemgetter(0)):
        waiting += [particle for _, particle in group]
        done_after = done + len(waiting)
        if len(waiting) < BATCH and done_after < len(missing):
            continue
        library.add_predictions(name, waiting, _predict(library, estimator, waiting, folder), run_id=run)
        done, waiting = done_after, []
        if progress:
            progress("Classifying", done, len(missing))


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
    parts = []
    for start in range(0, len(ids), BATCH):
        crops = library.crops(ids[start : start + BATCH])
        expected = estimator.model_.config.image_shape[-2:]
        if crops.shape[1:] != expected:
            raise DataError(
                f"{folder}: this model takes crops of {expected[0]} x {expected[1]} px, those of "
                f"{library.url} are {crops.shape[1]} x {crops.shape[2]} px. Extract with the crop size of the "
                f"model (--crop-size {expected[0]}) into a new library, or fit a model to this one."
            )
        parts.append(
            Predictions(
                classes=tuple(str(name) for name in estimator.classes_),
                probabilities=estimator.predict_proba(crops),
                latent=estimator.transform(crops),
                pose=estimator.pose(crops),
                novelty=None if estimator.model_.novelty is None else estimator.novelty(crops),
            )
        )
    return _joined(parts)


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
