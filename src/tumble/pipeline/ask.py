"""What a library's labels and predictions amount to: agreement, counts, what to label next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tumble.errors import ConfigError, DataError, LabelError
from tumble.library import Query
from tumble.metrics.agreement import cohen_kappa, fleiss_kappa, pairwise_agreement
from tumble.metrics.classes import confusion
from tumble.metrics.fractions import bootstrap_counts, corrected_fractions
from tumble.metrics.labelling import POOL, choose_to_label, choose_varied, uncertainty

if TYPE_CHECKING:
    from tumble.library import Library

__all__ = [
    "ClassCounts",
    "Comparison",
    "LabelAgreement",
    "class_counts",
    "compare_models",
    "label_agreement",
    "suggest_labels",
    "varied_particles",
]

#: Below so many tested particles of a class its error rates are a guess.
MIN_TESTED = 5
#: What tells particles apart at a glance, and of how many at most a varied choice is made.
_VARIED_BY = ("area_px", "solidity", "eccentricity")
_VARIED_OF, _VARIED_FROM_LABELS = 100_000, 1000


@dataclass(frozen=True)
class LabelAgreement:
    """How far people agree on labels.

    Parameters
    ----------
    pairs : DataFrame
        As :func:`tumble.metrics.pairwise_agreement` gives it.
    fleiss_kappa : float
        Of all people, on the particles that each of them labelled; NaN where there are none.
    n_common : int
        How many particles all of them labelled.
    disagreements : DataFrame
        Indexed by `particle_id`: each person's label, for the particles on which two differ.
    """

    pairs: pd.DataFrame
    fleiss_kappa: float
    n_common: int
    disagreements: pd.DataFrame


@dataclass(frozen=True)
class Comparison:
    """What two models say of the same particles.

    Parameters
    ----------
    table : DataFrame
        Particles by class of the first model (rows) and of the second (columns).
    n : int
        Particles that both classified.
    agreement, kappa : float
        Share of equal classes, and Cohen's kappa.
    """

    table: pd.DataFrame
    n: int
    agreement: float
    kappa: float


@dataclass(frozen=True)
class ClassCounts:
    """How many particles there are of each class.

    Parameters
    ----------
    table : DataFrame
        Indexed by class: `count`, `fraction`, `fraction_low`, `fraction_high`, and where the model's errors are known
        `corrected`, `corrected_low`, `corrected_high`.
    model : str
        Whose word it is.
    resampled : str
        What the bootstrap drew: "particles" or "micrographs".
    tested : str
        Where the errors are known from, or why they are not.
    """

    table: pd.DataFrame
    model: str
    resampled: str
    tested: str


def label_agreement(library: Library) -> LabelAgreement:
    """Compare the labels that people gave, each person's newest of a particle.

    Parameters
    ----------
    library : Library
        An open library.

    Returns
    -------
    LabelAgreement

    Raises
    ------
    LabelError
        Fewer than two people have labelled.
    """
    ratings = library.labels_by_author()
    if ratings.shape[1] < 2:
        raise LabelError(f"{library.url}: labels of {ratings.shape[1]} person; agreement needs two (label --author).")
    common = ratings.loc[ratings.notna().all(axis=1)]
    classes = sorted(set(ratings.stack().dropna()))
    counts = np.array([[(row == name).sum() for name in classes] for row in common.to_numpy()]).reshape(
        -1, len(classes)
    )
    differ = ratings.nunique(axis=1, dropna=True) > 1
    return LabelAgreement(pairwise_agreement(ratings), fleiss_kappa(counts), len(common), ratings.loc[differ])


def compare_models(library: Library, first: str, second: str) -> Comparison:
    """Compare what two models say of the particles that both classified.

    Parameters
    ----------
    library : Library
        An open library.
    first, second : str
        Names of models. The particles on which they differ are those of ``Query(model=first, disagrees_with=second)``.

    Returns
    -------
    Comparison

    Raises
    ------
    LibraryError
        There is no such model.
    DataError
        There is no particle that both classified.
    """
    table = library.contingency(first, second)
    n = int(table.to_numpy().sum())
    if n == 0:
        raise DataError(
            f"{first!r} and {second!r} have classified no particle in common. Run `tumble classify` for both."
        )
    cells = table.stack()
    pairs = cells.index.to_frame(index=False)
    names = [np.repeat(pairs.iloc[:, i].to_numpy(dtype=str), cells.to_numpy()) for i in (0, 1)]
    return Comparison(table, n, float((names[0] == names[1]).mean()), cohen_kappa(*names))


def class_counts(
    library: Library, query: Query | None = None, *, level: float = 0.95, random_state: int = 0
) -> ClassCounts:
    """Count the particles of each predicted class, with intervals, and corrected for the model's errors.

    The errors are those that were measured when the model was evaluated; where it was not, those on labelled particles
    whose labels the fit did not use.

    Parameters
    ----------
    library : Library
        An open library with predictions.
    query : Query, optional
        Which particles, of which model; all if not given.
    level : float, default 0.95
        Of the intervals.
    random_state : int
        Seeds the bootstrap.

    Returns
    -------
    ClassCounts

    Raises
    ------
    ConfigError
        No model has classified the particles.
    DataError
        No particle is meant.
    """
    query = query or Query()
    name = query.model or library.predicting_model()
    if name is None:
        raise ConfigError(f"{library.url}: no model has classified the particles yet. Run `tumble classify` first.")
    by_micrograph = library.predicted_counts(query)
    if not int(by_micrograph.to_numpy().sum()):
        raise DataError(f"{library.url}: no particle meets these conditions; there is nothing to count.")
    counts = by_micrograph.to_numpy()
    raw = bootstrap_counts(counts, level=level, random_state=random_state)
    table = pd.DataFrame(
        {
            "count": by_micrograph.sum(),
            "fraction": raw.value,
            "fraction_low": raw.low,
            "fraction_high": raw.high,
        }
    )
    table.index.name = "class"
    matrix, tested = _measured_confusion(library, name)
    if matrix is not None:
        better = corrected_fractions(counts, matrix, level=level, random_state=random_state)
        table = table.assign(corrected=better.value, corrected_low=better.low, corrected_high=better.high)
    return ClassCounts(table, name, "particles" if len(counts) == 1 else "micrographs", tested)


def _measured_confusion(library: Library, name: str) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Return tested particles by true and predicted class, None where too few were, and where they are from."""
    record = library.model_record(name)
    stored: Any = record.evaluation
    if stored and stored.get("confusion") and list(stored["classes"]) == list(record.classes):
        matrix = np.array(stored["confusion"], dtype=np.int64)
        where = f"the evaluation of the model ({stored.get('region') or 'test particles'})"
    else:
        n_labelled = len(library.current_labels())
        both = library.search(Query(label_state="labelled", model=name, limit=max(n_labelled, 1))).particles
        both = both.loc[both["predicted"].notna() & both["label"].isin(record.classes)]
        both = both.loc[~both.index.isin(record.labelled_particle_ids)]
        if both.empty:
            return None, "no particle has a label that the fit did not use"
        matrix = confusion(both["label"].to_numpy(str), both["predicted"].to_numpy(str), classes=list(record.classes))
        where = "labels that the fit did not use"
    few = [f"{key} {n}" for key, n in zip(record.classes, matrix.sum(axis=1), strict=True) if n < MIN_TESTED]
    if few:
        missing = (
            f"too few particles were tested to correct by ({', '.join(few)}; {MIN_TESTED} of each class are needed)"
        )
        return None, missing
    return matrix, f"{int(matrix.sum())} particles, from {where}"


def suggest_labels(library: Library, n: int = 20, *, model: str | None = None, random_state: int = 0) -> pd.DataFrame:
    """Suggest unlabelled particles whose labels would teach a model most.

    Parameters
    ----------
    library : Library
        An open library with predictions.
    n : int, default 20
        How many.
    model : str, optional
        The model that is unsure; the newest with predictions if not given.
    random_state : int
        Seeds the grouping, see :func:`tumble.metrics.choose_to_label`.

    Returns
    -------
    DataFrame
        Indexed by `particle_id`, the most uncertain first: `predicted`, `probability`, `second` (class), `uncertainty`.

    Raises
    ------
    ConfigError
        No model has classified the particles.
    DataError
        All of them are labelled.
    """
    name = model or library.predicting_model()
    if name is None:
        raise ConfigError(f"{library.url}: no model has classified the particles yet. Run `tumble classify` first.")
    ids, p, latent = library.least_sure(name, POOL * n)
    if not len(ids):
        raise DataError(f"{library.url}: every particle that {name!r} classified has a label already.")
    chosen = choose_to_label(p, latent, n, random_state=random_state)
    order = np.argsort(-p[chosen], axis=1)
    classes = np.asarray(library.model_record(name).classes, dtype=object)
    return pd.DataFrame(
        {
            "predicted": classes[order[:, 0]],
            "probability": p[chosen].max(axis=1).astype(np.float64),
            "second": classes[order[:, 1]],
            "uncertainty": uncertainty(p[chosen]),
        },
        index=pd.Index(ids[chosen], name="particle_id"),
    )


def varied_particles(library: Library, n: int = 20) -> pd.DataFrame:
    """Suggest unlabelled particles that differ in size and shape, for the first labels, when there is no model yet.

    Parameters
    ----------
    library : Library
        An open library.
    n : int, default 20
        How many.

    Returns
    -------
    DataFrame
        Indexed by `particle_id`, in the order of their choice, see :func:`tumble.metrics.choose_varied`: `area_px`,
        `solidity`, `eccentricity`. Of a library of more than 100,000 particles, every k-th is a candidate.

    Raises
    ------
    ConfigError
        n is below 1.
    DataError
        Every particle has a label.
    """
    anything: dict[str, tuple[None, None]] = dict.fromkeys(_VARIED_BY, (None, None))
    query = Query(label_state="unlabelled", measurements=anything, limit=_VARIED_OF)
    step = -(-library.count(Query()) // _VARIED_OF)
    some = replace(query, particle_ids=tuple(range(1, library.newest_particle() + 1, step))) if step > 1 else query
    free = library.search(some).particles
    if free.empty:  # those in between may be without a label still
        free = library.search(query).particles
    if free.empty:
        raise DataError(f"{library.url}: no particle is without a label.")
    labelled = Query(label_state="labelled", measurements=anything, limit=_VARIED_FROM_LABELS)
    known = _shapes(library.search(labelled).particles)
    return free.iloc[choose_varied(_shapes(free), n, known=known)][list(_VARIED_BY)]


def _shapes(particles: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Measurements that tell particles apart; of areas it is the ratio that counts."""
    table = particles.reindex(columns=list(_VARIED_BY)).astype(np.float64)
    return table.assign(area_px=np.log(table["area_px"].clip(lower=1e-9))).to_numpy()
