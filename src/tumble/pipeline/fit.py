"""From the labels of a library to a fitted model, on disk and in the library."""

from __future__ import annotations

import hashlib
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tumble._version import __version__
from tumble.errors import ConfigError, LabelError, LibraryError, ModelFileError
from tumble.pipeline.model_folder import check_target, new_folder
from tumble.types import ModelRecord

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from tumble.estimators import SSRVAEClassifier
    from tumble.fit import EpochReport
    from tumble.library import Library

__all__ = ["describe_model", "estimator_for_crops", "fingerprint", "fit_library", "semi_supervised_targets"]

logger = logging.getLogger(__name__)

MIN_LABELS_PER_CLASS = 2
MIN_CLASSES = 2

#: Grid of decoded images in the report: fine enough to see a trend, small enough to see each image.
MANIFOLD_STEPS = 9
MANIFOLD_EXTENT = 2.0


def fit_library(
    library: Library,
    model_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    estimator: SSRVAEClassifier | None = None,
    particle_ids: Sequence[int] | None = None,
    labels: pd.Series | None = None,
    validation: pd.Series | None = None,
    callbacks: Sequence[Callable[[EpochReport], None]] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> ModelRecord:
    """Fit a model to the particles of a library, labelled and unlabelled together, and store it.

    Parameters
    ----------
    library : Library
        An open library with labels of at least two classes.
    model_dir : path
        Folder for the fitted model; it appears when the fit is complete, or not at all.
    name : str, optional
        Name of the model in the library; the name of the folder if not given.
    estimator : SSRVAEClassifier, optional
        What to fit; if not given, one with default settings for objects of arbitrary orientation.
    particle_ids : sequence of int, optional
        Particles to fit on; all if not given.
    labels : Series, optional
        Label by particle id; those that the library has now if not given.
    validation : Series, optional
        Label by particle id, for particles whose labels are not in `labels`; each epoch reports the accuracy on them.
    callbacks : sequence of callable
        Each is called with a :class:`tumble.fit.EpochReport` after each epoch.
    checkpoint : path, optional
        Folder for the state of the fit, written after each epoch.
    resume : bool, default=False
        Go on from the state in `checkpoint`, if there is one.
    overwrite : bool, default=False
        Replace a model that is in `model_dir` already. Anything else there is never touched.

    Returns
    -------
    ModelRecord
        What the library now holds about the model.

    Raises
    ------
    LabelError
        If there are no labels, labels of one class only, or a class with fewer than two.
    ModelFileError
        If `model_dir` holds something that may not be replaced.
    LibraryError
        If the library has no particles.
    ConfigError
        If a setting of the estimator has a value that it cannot have.
    """
    folder = Path(model_dir).expanduser()
    check_target(folder, overwrite)
    ids = _chosen_particles(library, particle_ids)
    known = library.current_labels() if labels is None else labels
    y = semi_supervised_targets(ids, known, where=str(library.url))
    crops = library.crops(ids)
    if estimator is None:
        from tumble.estimators import SSRVAEClassifier

        # Particles lie in their micrograph as they fell: labelled ones are no more upright than the others.
        estimator = SSRVAEClassifier(labelled_orientation="arbitrary")
    logger.info("fitting on %d particles, %d of them labelled", len(ids), sum(v is not None for v in y))
    held_out = None
    if validation is not None:
        held_out = library.crops(validation.index.to_numpy()), validation.to_numpy(dtype=object)
    estimator.fit(crops, y, callbacks=callbacks, validation=held_out, checkpoint=checkpoint, resume=resume)
    with new_folder(folder) as partial:
        estimator.save(partial)
    # The model is safe on disk before the library is told: should that fail, nothing of the fit is lost.
    record = describe_model(
        estimator,
        name=name or folder.resolve().name,
        folder=folder,
        weights=fingerprint(folder),
        labelled=[particle for particle, label in zip(ids, y, strict=True) if label is not None],
    )
    try:
        library.add_model(record)
    except LibraryError as error:
        raise LibraryError(
            f"{error} The fitted model is in {folder}; `tumble classify` enters it into the library."
        ) from error
    return record


def estimator_for_crops(
    *,
    scale_jitter: float = 0.05,
    shear_jitter: float = 0.05,
    translation_prior: float = 0.03,
    labelled_orientation: str = "arbitrary",
    max_epochs: int | None = None,
    random_state: int | None = 0,
) -> SSRVAEClassifier:
    """Make an estimator with the settings that suit crops of an extraction.

    Such crops all show the same magnification, so that size tells classes apart and must not be jittered much; they
    are centred on the particle already; and labelled particles lie as they lay on the substrate.

    Parameters
    ----------
    scale_jitter, shear_jitter, translation_prior, labelled_orientation, max_epochs, random_state
        As in :class:`tumble.SSRVAEClassifier`.

    Returns
    -------
    SSRVAEClassifier
        Not fitted yet.
    """
    from tumble.estimators import SSRVAEClassifier

    return SSRVAEClassifier(
        scale_jitter=scale_jitter,
        shear_jitter=shear_jitter,
        translation_prior=translation_prior,
        labelled_orientation=labelled_orientation,
        max_epochs=max_epochs,
        random_state=random_state,
    )


def semi_supervised_targets(particle_ids: Sequence[int], labels: pd.Series, *, where: str) -> npt.NDArray[np.object_]:
    """Line labels up with particles, and check that a model can be fitted to them.

    Parameters
    ----------
    particle_ids : sequence of int
        Particles, in the order of the result.
    labels : Series
        Particle id to label, for any particles.
    where : str
        Name of the library, for messages.

    Returns
    -------
    ndarray of object, of the length of `particle_ids`
        The label of each particle, None where it has none.

    Raises
    ------
    LabelError
        If there are no labels, labels of one class only, or a class with fewer than two.
    """
    known = labels.to_dict()
    y = np.array([known.get(particle) for particle in particle_ids], dtype=object)
    counts = pd.Series([label for label in y if label is not None], dtype=object).value_counts()
    if counts.empty:
        raise LabelError(
            f"{where}: none of the {len(y)} particles has a label. Label some of every class first, with "
            "`tumble label` (--csv or --from-mask)."
        )
    if len(counts) < MIN_CLASSES:
        raise LabelError(
            f"{where}: all {counts.iloc[0]} labels are {counts.index[0]!r}. Label particles of at least one "
            "other class with `tumble label`; there is nothing to tell apart yet."
        )
    few = counts.loc[counts < MIN_LABELS_PER_CLASS]
    if len(few):
        classes = ", ".join(repr(label) for label in sorted(few.index, key=str))
        raise LabelError(
            f"{where}: {classes} {'has' if len(few) == 1 else 'have'} one label only; each class needs at "
            f"least {MIN_LABELS_PER_CLASS}. Label another particle of that class, or relabel the one it has "
            "(`tumble label`)."
        )
    return y


def describe_model(
    estimator: SSRVAEClassifier, *, name: str, folder: Path, weights: str, labelled: Sequence[int]
) -> ModelRecord:
    """Collect what a library keeps about a fitted estimator.

    Parameters
    ----------
    estimator : SSRVAEClassifier
        A fitted estimator.
    name : str
        Name of the model in the library.
    folder : Path
        Where the model is saved.
    weights : str
        Fingerprint of the weights, see :func:`fingerprint`.
    labelled : sequence of int
        The particles whose labels it was fitted with.

    Returns
    -------
    ModelRecord
    """
    # Crops are uint8, which the estimator takes and gives back as [0, 1].
    images = estimator.traverse(n=MANIFOLD_STEPS, extent=MANIFOLD_EXTENT)
    return ModelRecord(
        name=name,
        path=str(folder),
        classes=tuple(str(label) for label in estimator.classes_),
        config=_as_json(estimator.get_params()),
        environment={**_environment(), "weights_sha256": weights},
        history={curve: [float(value) for value in values] for curve, values in estimator.history_.items()},
        labelled_particle_ids=tuple(int(particle) for particle in labelled),
        fit_seconds=float(estimator.fit_seconds_),
        manifold=np.clip(np.rint(255 * images), 0, 255).astype(np.uint8),
        manifold_axis=np.linspace(-MANIFOLD_EXTENT, MANIFOLD_EXTENT, MANIFOLD_STEPS, dtype=np.float32),
    )


def fingerprint(model_dir: Path) -> str:
    """Return the SHA-256 of the weights in a model folder: the model's identity, wherever it is copied to.

    Parameters
    ----------
    model_dir : Path
        Folder of a saved model.

    Returns
    -------
    str
        Hexadecimal digest.

    Raises
    ------
    ModelFileError
        If there is no model.
    """
    weights = model_dir / "weights.safetensors"
    if weights.exists() and not weights.is_file():  # a pipe or a device may have no end
        raise ModelFileError(f"{weights}: is no file; do not use this folder unless you know who made it.")
    try:
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelFileError(
            f"{model_dir}: holds no model (no weights.safetensors). Give the folder that `tumble fit --model` made."
        ) from error


def _environment() -> dict[str, str]:
    import torch

    packages = ("torch", "numpy", "scikit-learn", "scikit-image")
    return {
        "tumble": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }


def _as_json(value: Any) -> Any:
    """Turn parameters of an estimator into what JSON can hold; what it cannot is named by its text."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_as_json(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _chosen_particles(library: Library, particle_ids: Sequence[int] | None) -> list[int]:
    known = library.particle_ids().tolist()
    if not known:
        raise LibraryError(f"{library.url}: holds no particles. Add a micrograph first, with `tumble extract`.")
    if particle_ids is None:
        return known
    unknown = sorted(set(particle_ids) - set(known))
    if unknown:
        raise ConfigError(f"particle_ids: {library.url} has no particle {unknown[0]} ({len(unknown)} unknown ids).")
    return [int(value) for value in particle_ids]
