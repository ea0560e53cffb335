"""Gather from a library everything that a report shows: read, counted and sorted, never estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from tumble.errors import LibraryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tumble.library import Library
    from tumble.types import ModelRecord

__all__ = ["ClassSamples", "MicrographView", "ReportData", "collect"]

#: Columns of the particle table that the report reads when they are there.
DIAMETER_PX = "equivalent_diameter_px"
DIAMETER_NM = "equivalent_diameter_nm"
TOUCHES_BORDER = "touches_border"

#: Limits that keep a page readable however large the library is; each caption says what was left out.
MAX_MICROGRAPHS = 4
MAX_SAMPLES = 10
MAX_DISAGREEMENTS = 40


@dataclass(frozen=True)
class MicrographView:
    """One micrograph as the report draws it.

    Parameters
    ----------
    micrograph_id : int
        Its identity in the library.
    source : str
        Where it came from: the last part of what the library says.
    preview : ndarray of shape (h, w), uint8
        The image to draw.
    preview_scale : float
        Preview px per px of the micrograph.
    pixel_size_nm : float or None
        Edge of a pixel of the micrograph, None where unknown.
    outlines : mapping of int to ndarray of shape (m, 2)
        Particle id to closed outline in (row, column) px of the micrograph.
    """

    micrograph_id: int
    source: str
    preview: npt.NDArray[np.uint8]
    preview_scale: float
    pixel_size_nm: float | None
    outlines: Mapping[int, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class ClassSamples:
    """The particles of one predicted class that the model is most and least certain about, in that order.

    Parameters
    ----------
    name : str
        The predicted class.
    count : int
        How many particles are predicted to be of it.
    most, least : tuple of int
        Particle ids; no particle is in both.
    """

    name: str
    count: int
    most: tuple[int, ...]
    least: tuple[int, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Parameters
    ----------
    library_name : str
        Name of the database without folder, host or password: a report is made to be passed on.
    schema_version : str
        Version of the library's schema.
    micrographs : DataFrame
        As :meth:`tumble.library.Library.micrographs` gives it.
    views : tuple of MicrographView
        The micrographs that are drawn, at most `MAX_MICROGRAPHS`.
    particles : DataFrame
        As :meth:`tumble.library.Library.particles` gives it, with predictions where there is a model.
    classes : tuple of str
        Classes of the model in its order, then any further ones that occur as labels.
    record : ModelRecord or None
        The model the report is about.
    samples : tuple of ClassSamples
        Sample particles of each predicted class.
    disagreements : tuple of int
        Particles of the test region whose prediction is not their label, the most certain first.
    n_disagreements : int
        How many there are; `disagreements` holds at most `MAX_DISAGREEMENTS` of them.
    crops : mapping of int to ndarray of shape (S, S), uint8
        Crops of all the particles named in `samples` and `disagreements`.
    """

    library_name: str
    schema_version: str
    micrographs: pd.DataFrame
    views: tuple[MicrographView, ...]
    particles: pd.DataFrame
    classes: tuple[str, ...]
    record: ModelRecord | None
    samples: tuple[ClassSamples, ...]
    disagreements: tuple[int, ...]
    n_disagreements: int
    crops: Mapping[int, npt.NDArray[np.uint8]]

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """Scores of the model on held-out particles, None where none are stored."""
        return None if self.record is None else self.record.evaluation or None

    @property
    def has_predictions(self) -> bool:
        """Whether any particle has a predicted class."""
        return "predicted" in self.particles and bool(self.particles["predicted"].notna().any())

    @property
    def shown_classes(self) -> pd.Series:
        """Class that the figures colour by: the prediction, or the label where nothing is predicted."""
        return _column(self.particles, "predicted" if self.has_predictions else "label")

    @property
    def latent(self) -> npt.NDArray[np.float64] | None:
        """Latent coordinates of shape (n, L) in the order of `particles`, NaN where not predicted."""
        columns = [name for name in self.particles if str(name).startswith("latent_")]
        columns.sort(key=lambda name: int(str(name).rpartition("_")[2]))
        return self.particles[columns].to_numpy(dtype=float) if columns else None

    @property
    def touches_border(self) -> pd.Series:
        """True for particles cut off by the edge of their micrograph."""
        if TOUCHES_BORDER not in self.particles:
            return pd.Series(False, index=self.particles.index)
        return _column(self.particles, TOUCHES_BORDER).astype(bool)

    @property
    def test_errors(self) -> pd.Series:
        """True for particles of the test region whose predicted class is not their label."""
        return _test_errors(self.particles, self.evaluation)

    def diameters(self, unit: str) -> pd.Series:
        """Equivalent diameters in ``"px"`` or ``"nm"``, NaN where unknown.

        Parameters
        ----------
        unit : {"px", "nm"}
            Unit wanted; nothing is converted, the library's own column is read.

        Returns
        -------
        Series
            One value per particle.
        """
        column = DIAMETER_PX if unit == "px" else DIAMETER_NM
        if column not in self.particles:
            return pd.Series(np.nan, index=self.particles.index)
        return _column(self.particles, column).astype(float)


def collect(library: Library, *, model: str | None = None) -> ReportData:
    """Read from a library everything that its report shows.

    Parameters
    ----------
    library : Library
        An open library with at least one particle.
    model : str, optional
        Name of the model to report on; if not given, the newest that has predictions, or else the newest. A library
        without models gives a report
        on the extraction alone.

    Returns
    -------
    ReportData
        What :func:`tumble.report.write_report` draws.

    Raises
    ------
    LibraryError
        If the library has no particles, or no model of that name.
    """
    name = _database_name(str(library.url))
    micrographs = library.micrographs()
    # A model that was fitted last but has classified nothing has less to show than the one before it.
    model = model or library.predicting_model()
    record = None if model is None and library.models().empty else library.model_record(model)
    particles = library.particles(model=None if record is None else record.name)
    if particles.empty:
        raise LibraryError(
            f"The library {name!r} holds {len(micrographs)} micrographs and no particles: there is nothing "
            "to report. Add a micrograph first, or extract again with settings that find its particles."
        )
    evaluation = None if record is None else record.evaluation
    samples = _samples(particles, () if record is None else record.classes)
    errors = particles.loc[_test_errors(particles, evaluation)]
    disagreements = _ids(_by_probability(errors).index[:MAX_DISAGREEMENTS])
    return ReportData(
        library_name=name,
        schema_version=str(library.schema_version),
        micrographs=micrographs,
        views=_views(library, micrographs),
        particles=particles,
        classes=_all_classes(particles, () if record is None else record.classes),
        record=record,
        samples=samples,
        disagreements=disagreements,
        n_disagreements=len(errors),
        crops=_crops(library, particles, samples, disagreements),
    )


def _database_name(url: str) -> str:
    return file_name(urlsplit(url).path if "://" in url else url) or "library"


def file_name(path: str) -> str:
    """Last part of a path: a report is made to be passed on, and folders say more than a reader should know.

    Parameters
    ----------
    path : str
        With slashes of either kind.

    Returns
    -------
    str
        The path itself if it has but one part.
    """
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _column(particles: pd.DataFrame, name: str) -> pd.Series:
    return cast("pd.Series", particles[name])


def _ids(index: pd.Index) -> tuple[int, ...]:
    return tuple(int(value) for value in index)


def _all_classes(particles: pd.DataFrame, classes: Sequence[str]) -> tuple[str, ...]:
    """Classes in the model's order, then the labels that the model does not know, sorted."""
    others = set(particles["label"].dropna())
    if "predicted" in particles:
        others |= set(particles["predicted"].dropna())
    return (*classes, *sorted(others - set(classes)))


def _views(library: Library, micrographs: pd.DataFrame) -> tuple[MicrographView, ...]:
    """Read the first micrographs that have particles, in the order in which they were added."""
    chosen = micrographs[micrographs["n_particles"] > 0].head(MAX_MICROGRAPHS)
    views = []
    sizes: list[float] = chosen["pixel_size_nm"].astype(float).tolist()
    for key, source, pixel_size in zip(chosen.index, chosen["source"], sizes, strict=True):
        preview, scale = library.micrograph_preview(int(key))
        views.append(
            MicrographView(
                micrograph_id=int(key),
                source=file_name(str(source)),
                preview=preview,
                preview_scale=float(scale),
                pixel_size_nm=pixel_size if np.isfinite(pixel_size) else None,
                outlines=library.outlines(int(key)),
            )
        )
    return tuple(views)


def _by_probability(particles: pd.DataFrame) -> pd.DataFrame:
    # A stable sort keeps the order of ids among equals, so that one library always gives one report.
    return particles.sort_values("probability", ascending=False, kind="stable") if len(particles) else particles


def _samples(particles: pd.DataFrame, classes: Sequence[str]) -> tuple[ClassSamples, ...]:
    if "predicted" not in particles:
        return ()
    samples = []
    for name in classes:
        ids = _ids(_by_probability(particles.loc[particles["predicted"] == name]).index)
        most = ids[:MAX_SAMPLES]
        least = ids[len(most) :][-MAX_SAMPLES:][::-1]
        samples.append(ClassSamples(name=name, count=len(ids), most=most, least=least))
    return tuple(samples)


def _test_errors(particles: pd.DataFrame, evaluation: Mapping[str, Any] | None) -> pd.Series:
    if not evaluation or "predicted" not in particles:
        return pd.Series(False, index=particles.index)
    tested = particles.index.isin(list(evaluation.get("test_particle_ids", ())))
    label, predicted = _column(particles, "label"), _column(particles, "predicted")
    return label.notna() & predicted.notna() & tested & (label != predicted)


def _crops(
    library: Library, particles: pd.DataFrame, samples: Sequence[ClassSamples], disagreements: Sequence[int]
) -> dict[int, npt.NDArray[np.uint8]]:
    wanted = sorted(set(disagreements).union(*(sample.most + sample.least for sample in samples)))
    crops: dict[int, npt.NDArray[np.uint8]] = {}
    # Crops of one micrograph are of one size; those of several need not be.
    for _, group in particles.loc[wanted].groupby("micrograph_id"):
        ids = list(_ids(group.index))
        crops |= zip(ids, library.crops(ids), strict=True)
    return crops
