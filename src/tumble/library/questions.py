"""What a library can be asked: tables, images, searches, neighbours; nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tumble.colours import class_colours
from tumble.library import duplicates, images, label_log, latents, models, search, sizes
from tumble.library.label_questions import LabelQuestions
from tumble.library.measurements import read_measurements
from tumble.library.neighbours import nearest_neighbours
from tumble.library.schema import SCHEMA_VERSION, micrographs, particles, predictions
from tumble.library.schema import models as model_table
from tumble.notebook import gallery

if TYPE_CHECKING:
    import numpy.typing as npt

    from tumble.library.label_log import IdsLike
    from tumble.library.search import Page, Query
    from tumble.notebook import HtmlView
    from tumble.types import ModelRecord, Predictions

__all__ = ["Questions"]


class Questions(LabelQuestions):
    """The reading half of :class:`tumble.library.Library`; each method sees one consistent state."""

    @property
    def url(self) -> str:
        """URL of the database, without its password."""
        return self._database.url.render_as_string(hide_password=True)

    @property
    def schema_version(self) -> str:
        """Revision of the tables."""
        return SCHEMA_VERSION

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

    def micrograph_sources(self) -> dict[int, str]:
        """Return the source of each micrograph by its id; quick where :meth:`micrographs` would tell too much."""
        with self._database.reading() as connection:
            return images.read_sources(connection)

    def beginning(self) -> str:
        """Return which micrograph was added first, and when, as one text; "" while there is none."""
        with self._database.reading() as connection:
            return images.read_beginning(connection)

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

    def micrograph_particles(self) -> list[tuple[int, int]]:
        """Return (micrograph, particle) of all particles, in rising order."""
        query = sa.select(particles.c.micrograph_id, particles.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(particles.c.micrograph_id, particles.c.id)).all()
        return [(int(row[0]), int(row[1])) for row in rows]

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

    def newest_particle(self) -> int:
        """Return the largest id of a particle, 0 where there is none: another number means that some were added."""
        with self._database.reading() as connection:
            return int(connection.scalar(sa.select(sa.func.max(particles.c.id))) or 0)

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

    def predictions(self, model_name: str | None = None) -> tuple[npt.NDArray[np.int64], Predictions]:
        """Return particle ids and predictions of the newest model of this name, or of the newest of all."""
        with self._database.reading() as connection:
            return models.read_predictions(connection, model_name)

    def latents(self, model_name: str | None = None, *, at_most: int | None = None) -> tuple[pd.DataFrame, int]:
        """Return where a model puts each particle in its latent space.

        Parameters
        ----------
        model_name : str, optional
            The model; the newest of all if not given.
        at_most : int, optional
            A sample of so many where there are more, always the same one.

        Returns
        -------
        table : DataFrame
            Indexed by `particle_id`: `micrograph_id`, `label`, `predicted`, `probability`, `novelty`, both equivalent
            diameters, and `latent_0` ...
        n : int
            How many particles the model has classified.
        """
        with self._database.reading() as connection:
            return latents.read_latents(connection, model_name, at_most=at_most)

    def sizes(self, model_name: str | None = None) -> pd.DataFrame:
        """Return the sizes and classes of all particles, without their other measurements.

        Parameters
        ----------
        model_name : str, optional
            Whose predictions; none if not given.

        Returns
        -------
        DataFrame
            Indexed by `particle_id`: both equivalent diameters (NaN where unknown), `touches_border`, `label` and
            `predicted` (None where there is none).
        """
        with self._database.reading() as connection:
            return sizes.read_sizes(connection, model_name)

    def least_sure(
        self, model_name: str, wanted: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return ids, probabilities (n, K) and latent vectors (n, L) of unlabelled particles that are hard to tell.

        Parameters
        ----------
        model_name : str
            The model that is unsure.
        wanted : int
            How many at least, if there are so many: those whose most probable class leads the second by least. Others
            are among them, some 10,000 in all in a large library.
        """
        with self._database.reading() as connection:
            return models.read_least_sure(connection, model_name, wanted)

    def predicting_model(self) -> str | None:
        """Return the newest name whose newest model has predictions, None where there is none."""
        with self._database.reading() as connection:
            row = models.predicting_model(connection)
        return None if row is None else str(row.name)

    def runs(self) -> pd.DataFrame:
        """Return every classification, oldest first: `model`, `tumble_version`, `started_at`, `n_predictions`."""
        with self._database.reading() as connection:
            return models.read_runs(connection)

    def unpredicted(self, model_name: str, *, without_novelty: bool = False) -> list[tuple[int, int]]:
        """Return (micrograph, particle) of those that the newest model of this name has not classified.

        Parameters
        ----------
        model_name : str
            Name of a model of this library.
        without_novelty : bool, default False
            Count those, too, whose novelty is not stored.

        Returns
        -------
        list of (int, int)
            In rising order.
        """
        with self._database.reading() as connection:
            return models.unpredicted(connection, model_name, without_novelty=without_novelty)

    def search(self, query: Query) -> Page:
        """Return one page of the particles that meet the conditions of a query.

        Raises
        ------
        ConfigError
            The query needs a model and none has classified the particles.
        LibraryError
            There is no model of that name.
        """
        with self._database.reading() as connection:
            return search.search_particles(connection, query)

    def gallery(self, query: Query | None = None) -> HtmlView:
        """Show particles in a notebook, each framed in the colour of its class.

        Parameters
        ----------
        query : Query, optional
            Which, in which order; `limit` says how many. The first hundred if not given.

        Returns
        -------
        HtmlView
            A solid frame is a label, a dashed one a prediction. It stays in a notebook that is exported.

        Raises
        ------
        ConfigError
            The query needs a model and none has classified the particles.
        LibraryError
            There is no model of that name.
        """
        query = query or search.Query()
        with self._database.reading() as connection:
            page = search.search_particles(connection, query).particles
            total = search.count_particles(connection, query)
            crops: dict[int, npt.NDArray[np.uint8]] = {}
            for _, group in page.groupby("micrograph_id"):  # crops of two micrographs need not be of one size
                ids = [int(i) for i in group.index]
                crops |= zip(ids, images.read_crops(connection, ids), strict=True)
            labels = label_log.read_current_labels(connection)
            row = (
                models.predicting_model(connection)
                if query.model is None
                else models.find_model(connection, query.model)
            )
        classes = list(dict.fromkeys([*(row.classes if row else ()), *sorted(labels.unique())]))
        page = page.reindex(columns=["label", "predicted", "probability"]).astype(object)
        rows = page.where(page.notna(), None).rename_axis("particle_id").reset_index().to_dict("records")
        shown = [crops[int(i)] for i in page.index]
        return gallery(shown, rows, colours=class_colours(classes), total=total)  # type: ignore[arg-type]

    def count(self, query: Query) -> int:
        """Return how many particles meet the conditions of a query, on all its pages."""
        with self._database.reading() as connection:
            return search.count_particles(connection, query)

    def predicted_counts(self, query: Query) -> pd.DataFrame:
        """Return how many particles of each micrograph (rows) the model takes for each class (columns)."""
        with self._database.reading() as connection:
            return search.count_predicted(connection, query)

    def neighbours(self, particle_id: int, n: int = 10, *, model: str | None = None) -> pd.DataFrame:
        """Return the particles nearest to one in the latent space of a model.

        Parameters
        ----------
        particle_id : int
            The particle.
        n : int, default 10
            How many.
        model : str, optional
            The model; the newest that has predictions if not given.

        Returns
        -------
        DataFrame
            Indexed by `particle_id`, nearest first: `distance` (Euclidean, of the posterior means), `micrograph_id`,
            `predicted`, `probability`.

        Raises
        ------
        ConfigError
            The model has said nothing of this particle.
        """
        with self._database.reading() as connection:
            return nearest_neighbours(connection, particle_id, n, model)

    def duplicates(self, *, min_correlation: float | None = None) -> pd.DataFrame:
        """Return pairs of particles of two micrographs that show the same.

        Parameters
        ----------
        min_correlation : float, optional
            Also pairs whose crops are not identical but correlate at least as much. Smooth objects of one size look
            alike without being the same: look at the pairs.

        Returns
        -------
        DataFrame
            `particle_id`, `other_id`, `micrograph_id`, `other_micrograph_id`, `correlation` (1 for equal pixels).
        """
        with self._database.reading() as connection:
            if min_correlation is None:
                return duplicates.identical_crops(connection)
            return duplicates.similar_crops(connection, min_correlation)

    def contingency(self, first: str, second: str) -> pd.DataFrame:
        """Return how many particles one model (rows) and another (columns) take for each class."""
        with self._database.reading() as connection:
            return models.contingency(connection, first, second)

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
