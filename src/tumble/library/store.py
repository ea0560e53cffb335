"""The particle library: one object through which everything is stored and read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tumble.library import images, label_log, models
from tumble.library.database import Database
from tumble.library.measurements import read_measurements
from tumble.library.schema import SCHEMA_VERSION, micrographs, particles, predictions
from tumble.library.schema import models as model_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from tumble.library.label_log import IdsLike
    from tumble.types import Micrograph, ModelRecord, Particles, Predictions

__all__ = ["Library"]

logger = logging.getLogger(__name__)


class Library:
    """A database of micrographs, their particles, labels, models and predictions.

    Each method is one transaction: it stores all it was given, or nothing. Use it as a context manager, or
    call :meth:`close`.

    Parameters
    ----------
    url_or_path : str or Path
        Path of an SQLite file, or any SQLAlchemy URL.
    create : bool, default False
        Create the library where there is none. An existing one is opened as it is.

    Raises
    ------
    LibraryError
        The library cannot be opened or created; the message says why and what to do.
    LibraryVersionError
        It was written by a newer version of `tumble`.

    Examples
    --------
    >>> from tumble.library import Library
    >>> with Library("sqlite://", create=True) as library:  # in memory
    ...     library.info()["particles"]
    0
    """

    def __init__(self, url_or_path: str | Path, *, create: bool = False) -> None:
        self._database = Database(url_or_path, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Library({self._database.name!r})"

    def close(self) -> None:
        """Close the database; an SQLite library is then a single file."""
        self._database.close()

    @property
    def url(self) -> str:
        """URL of the database, without its password."""
        return self._database.url.render_as_string(hide_password=True)

    @property
    def schema_version(self) -> str:
        """Revision of the tables."""
        return SCHEMA_VERSION

    def add_micrograph(
        self,
        micrograph: Micrograph,
        particles: Particles,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Store a micrograph with all its particles.

        Parameters
        ----------
        micrograph : Micrograph
            The image; its pixels are kept as a preview only.
        particles : Particles
            What was found in it.
        progress : callable, optional
            Called with the number of particles stored and their total.

        Returns
        -------
        int
            Id of the micrograph. One with the same content is not stored again: its id is returned and
            nothing is changed.
        """
        known = self._known_micrograph(micrograph, particles)
        if known is not None:
            return known
        row = images.micrograph_row(micrograph, particles)  # the slow part, before others are locked out
        with self._database.writing() as connection:
            found = images.find_micrograph(connection, micrograph.content_hash)
            if found is not None:  # another process was faster
                return int(found.id)
            return images.insert_micrograph(connection, row, particles, progress)

    def _known_micrograph(self, micrograph: Micrograph, found: Particles) -> int | None:
        with self._database.reading() as connection:
            row = images.find_micrograph(connection, micrograph.content_hash)
        if row is None:
            return None
        logger.info("%s: already in %s as micrograph %d", micrograph.source, self._database.name, row.id)
        if row.extraction != images.json_form(found.parameters):
            logger.warning(
                "%s: micrograph %d was extracted with other settings; its particles were left as they are",
                micrograph.source,
                row.id,
            )
        return int(row.id)

    def micrographs(self) -> pd.DataFrame:
        """Return one row per micrograph, indexed by `micrograph_id`.

        Returns
        -------
        DataFrame
            Columns `source`, `content_hash`, `height_px`, `width_px`, `pixel_size_nm` (NaN where unknown),
            `n_particles`, `notes`, `extraction`, `added_at`, `dtype`, `crop_side_px`, `intensity_low`,
            `intensity_high`, `metadata`, `tumble_version`.
        """
        with self._database.reading() as connection:
            return images.read_micrographs(connection)

    def micrograph_preview(self, micrograph_id: int) -> tuple[npt.NDArray[np.uint8], float]:
        """Return a grey image of at most 2048 px and its scale, in preview px per px of the micrograph."""
        with self._database.reading() as connection:
            return images.read_preview(connection, micrograph_id)

    def particles(self, micrograph_id: int | None = None, model: str | None = None) -> pd.DataFrame:
        """Return one row per particle, indexed by `particle_id`.

        Parameters
        ----------
        micrograph_id : int, optional
            Only the particles of this micrograph.
        model : str, optional
            Add what this model says of them.

        Returns
        -------
        DataFrame
            `micrograph_id`, the measurements, `label` (None where there is none); with `model` also
            `predicted` (None where there is no prediction), `probability` of that class, `latent_0` ...,
            `angle_rad`, `angle_std_rad`, `shift_row_px`, `shift_col_px`, `scale`.
        """
        with self._database.reading() as connection:
            if micrograph_id is not None:
                images.require_micrograph(connection, micrograph_id)
            frame = read_measurements(connection, micrograph_id)
            labels = label_log.read_current_labels(connection, micrograph_id)
            columns = None if model is None else models.prediction_columns(connection, model, micrograph_id)
        frame["label"] = _aligned(labels, frame.index)
        if columns is not None:
            for name, values in columns.reindex(frame.index).items():
                frame[name] = values
            frame["predicted"] = _aligned(columns["predicted"], frame.index)
        return frame

    def particle_ids(self) -> npt.NDArray[np.int64]:
        """Return the ids of all particles in rising order, without reading their measurements."""
        with self._database.reading() as connection:
            ids = connection.scalars(sa.select(particles.c.id).order_by(particles.c.id)).all()
        return np.array(ids, dtype=np.int64)

    def crops(self, particle_ids: IdsLike | None = None) -> npt.NDArray[np.uint8]:
        """Return the crops (n, S, S) in the order of `particle_ids`, all by id where it is None."""
        ids = None if particle_ids is None else label_log.as_particle_ids(particle_ids)
        with self._database.reading() as connection:
            return images.read_crops(connection, ids)

    def outlines(self, micrograph_id: int) -> dict[int, npt.NDArray[np.float32]]:
        """Return the closed outline (m, 2) in (row, column) px of each particle of a micrograph."""
        with self._database.reading() as connection:
            return images.read_outlines(connection, micrograph_id)

    def particle_masks(self, micrograph_id: int) -> npt.NDArray[np.int32]:
        """Return a label image (H, W) whose values are particle ids, 0 for the background."""
        with self._database.reading() as connection:
            return images.read_mask(connection, micrograph_id)

    def add_labels(
        self,
        particle_ids: IdsLike,
        labels: Sequence[Any] | npt.NDArray[Any],
        *,
        author: str,
        source: str,
    ) -> int:
        """Append labels to the history; the newest label of a particle counts.

        Parameters
        ----------
        particle_ids : sequence of int
            Ids of particles in this library.
        labels : sequence of str, int or None
            One label for each; None withdraws the label that the particle has.
        author : str
            Who labelled.
        source : str
            How, for example the name of a file or ``"app"``.

        Returns
        -------
        int
            Number of entries stored.

        Raises
        ------
        LabelError
            A particle is not in the library or a label is not one; nothing was stored.
        """
        rows = label_log.check_labels(particle_ids, labels, author, source)
        with self._database.writing() as connection:
            label_log.insert_labels(connection, rows)
        return len(rows)

    def current_labels(self) -> pd.Series:
        """Return the newest label of each labelled particle, indexed by `particle_id`."""
        with self._database.reading() as connection:
            return label_log.read_current_labels(connection)

    def label_history(self, particle_id: int | None = None) -> pd.DataFrame:
        """Return every label ever given, oldest first.

        Parameters
        ----------
        particle_id : int, optional
            Only the labels of this particle.

        Returns
        -------
        DataFrame
            Indexed by `label_id`, with `particle_id`, `label` (None: withdrawn), `author`, `source` and
            `created_at` (UTC, ISO 8601).
        """
        with self._database.reading() as connection:
            return label_log.read_label_history(connection, particle_id)

    def add_model(self, record: ModelRecord) -> int:
        """Store what is known about a fitted model; of models with one name, the newest counts."""
        with self._database.writing() as connection:
            return models.insert_model(connection, record)

    def models(self) -> pd.DataFrame:
        """Return one row per model, oldest first, indexed by `model_id`.

        Returns
        -------
        DataFrame
            Columns `name`, `path`, `classes`, `n_labelled`, `n_predictions`, `balanced_accuracy` (NaN where
            it was not evaluated), `fit_seconds`, `created_at`.
        """
        with self._database.reading() as connection:
            return models.read_models(connection)

    def model_record(self, name: str | None = None) -> ModelRecord:
        """Return the newest model of this name, or the newest of all."""
        with self._database.reading() as connection:
            return models.record_from_row(models.find_model(connection, name))

    def update_evaluation(self, name: str, evaluation: Mapping[str, Any]) -> None:
        """Store the scores of the newest model of this name, in place of earlier ones."""
        with self._database.writing() as connection:
            models.update_evaluation(connection, name, evaluation)

    def add_predictions(self, model_name: str, particle_ids: IdsLike, predictions: Predictions) -> None:
        """Store what the newest model of this name says of particles, in place of what it said before."""
        ids = label_log.as_particle_ids(particle_ids)
        with self._database.writing() as connection:
            models.replace_predictions(connection, model_name, ids, predictions)

    def predictions(self, model_name: str | None = None) -> tuple[npt.NDArray[np.int64], Predictions]:
        """Return particle ids and predictions of the newest model of this name, or of the newest of all."""
        with self._database.reading() as connection:
            return models.read_predictions(connection, model_name)

    def info(self) -> dict[str, Any]:
        """Return what the library holds.

        Returns
        -------
        dict
            `url`, `schema_version`, `size_bytes` (None on a server), numbers of `micrographs`, `particles`,
            `labelled`, `models` and `predictions`, and `labels` (class -> number of particles).
        """
        counted = {
            "micrographs": micrographs,
            "particles": particles,
            "models": model_table,
            "predictions": predictions,
        }
        with self._database.reading() as connection:
            counts = {
                name: connection.scalar(sa.select(sa.func.count()).select_from(table))
                for name, table in counted.items()
            }
            labels = label_log.read_current_labels(connection)
        classes = {str(name): int(n) for name, n in labels.value_counts(sort=False).sort_index().items()}
        return {
            "url": self.url,
            "schema_version": self.schema_version,
            "size_bytes": self._database.size_bytes(),
            **counts,
            "labelled": len(labels),
            "labels": classes,
        }


def _aligned(values: Any, index: pd.Index) -> pd.Series:
    """Return `values` along `index`, None (never NaN) where there is none."""
    known = values.to_dict()
    return pd.Series([known.get(i) for i in index], index=index, dtype=object)
