"""The tables of a particle library.

How the layout was chosen, for libraries of a million particles and more in one SQLite file:

* Crops and outlines have a table of their own. A row with its pixels fills a page of the database or more, so
  a query over measurements would otherwise read through gigabytes of images.
* Each measurement that `tumble` makes is a typed column, a third of the size of JSON and open to plain SQL;
  those that people search by have an index, with which a range query takes milliseconds. Measurements from
  elsewhere share one JSON column, so that they need no migration. All are merged again when they are read:
  `micrographs.measurements` keeps the names, order and types of a table's columns.
* A prediction's first latent coordinate has an indexed column beside the vector: the nearest neighbours of a
  particle lie within a window of it, which needs no other index and is exact, see `neighbours.py`.
* Labels are never changed or removed. Those given at once are one action; an undo is an action that retracts another.
* Whatever is only ever read whole (history, evaluation, label image, latent vector) is JSON or a blob.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

__all__ = [
    "KNOWN_REVISIONS",
    "MEASUREMENT_COLUMNS",
    "SCHEMA_VERSION",
    "VERSION_TABLE",
    "Json",
    "classes",
    "label_actions",
    "labels",
    "metadata",
    "micrographs",
    "models",
    "particle_images",
    "particles",
    "predictions",
    "runs",
]

#: Revisions of the schema, oldest first. They repeat the files in ``migrations/versions`` so that opening an
#: up-to-date library need not import Alembic.
KNOWN_REVISIONS = ("0001", "0002", "0003")

#: The revision that this version of `tumble` writes.
SCHEMA_VERSION = KNOWN_REVISIONS[-1]

#: Alembic's usual name is avoided: a library may share a database with other applications.
VERSION_TABLE = "tumble_schema_version"


def _plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays into what JSON knows."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored as JSON")


class Json(TypeDecorator[Any]):
    """JSON in a text column: the same in every database, and floats (NaN included) come back unchanged."""

    impl = sa.Text
    cache_ok = True

    @staticmethod
    def dumps(value: Any) -> str:
        """Return `value` as JSON text."""
        return json.dumps(value, default=_plain, separators=(",", ":"))

    def process_bind_param(  # noqa: D102 - the contract of TypeDecorator
        self, value: Any, dialect: sa.Dialect
    ) -> str | None:
        return None if value is None else self.dumps(value)

    def process_result_value(  # noqa: D102 - the contract of TypeDecorator
        self, value: str | None, dialect: sa.Dialect
    ) -> Any:
        return None if value is None else json.loads(value)


# SQLite numbers rows only in a column declared INTEGER; elsewhere 64 bits must be asked for.
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_PIXELS, _REAL, _FLAG = sa.Integer(), sa.Double(), sa.Boolean()

# The columns of `tumble.particles.measurement_columns`, with and without known pixel size.
_MEASUREMENTS: dict[str, sa.types.TypeEngine[Any]] = {
    **dict.fromkeys(("centroid_row_px", "centroid_col_px"), _REAL),
    **dict.fromkeys((f"bbox_{end}_{axis}_px" for end in ("min", "max") for axis in ("row", "col")), _PIXELS),
    **dict.fromkeys(("area_px", "equivalent_diameter_px", "feret_max_px", "perimeter_px"), _REAL),
    **dict.fromkeys(("major_axis_px", "minor_axis_px", "eccentricity", "solidity", "extent"), _REAL),
    **dict.fromkeys(("intensity_mean", "intensity_std", "intensity_max"), _REAL),
    **dict.fromkeys(("circularity", "orientation_rad", "background_mean", "contrast"), _REAL),
    **dict.fromkeys(("touches_border", "truncated"), _FLAG),
    **dict.fromkeys(("centroid_row_nm", "centroid_col_nm", "area_nm2", "equivalent_diameter_nm"), _REAL),
    **dict.fromkeys(("feret_max_nm", "perimeter_nm", "major_axis_nm", "minor_axis_nm"), _REAL),
}

#: Measurements with a column of their own in `particles`; any others go to `other_measurements`.
MEASUREMENT_COLUMNS = tuple(_MEASUREMENTS)

# Sizes are what people search by; each further index makes every insertion slower.
_SEARCHED = ("area_px", "equivalent_diameter_px", "equivalent_diameter_nm", "feret_max_px", "feret_max_nm")

micrographs = sa.Table(
    "micrographs",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("content_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("height_px", sa.Integer, nullable=False),
    sa.Column("width_px", sa.Integer, nullable=False),
    sa.Column("dtype", sa.String(16), nullable=False),
    sa.Column("pixel_size_nm", sa.Double),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("notes", Json, nullable=False),
    sa.Column("extraction", Json, nullable=False),
    # [[name, dtype], ...]: the measurement table of this micrograph, in its order
    sa.Column("measurements", Json, nullable=False),
    sa.Column("intensity_low", sa.Double, nullable=False),
    sa.Column("intensity_high", sa.Double, nullable=False),
    sa.Column("crop_side_px", sa.Integer, nullable=False),
    sa.Column("preview", sa.LargeBinary, nullable=False),  # PNG
    sa.Column("preview_scale", sa.Double, nullable=False),
    sa.Column("mask", sa.LargeBinary, nullable=False),  # label image, see encoding.pack_array
    sa.Column("tumble_version", sa.String(64), nullable=False),
    sa.Column("added_at", sa.String(32), nullable=False),  # UTC, ISO 8601
    sa.Column("file_hash", sa.String(64)),  # SHA-256 of the file's bytes; content_hash is of the pixel values
)

particles = sa.Table(
    "particles",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("micrograph_id", _Id, sa.ForeignKey("micrographs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("index_in_micrograph", sa.Integer, nullable=False),
    *(sa.Column(name, type_) for name, type_ in _MEASUREMENTS.items()),
    sa.Column("other_measurements", Json),
    # Of the crop, see `fingerprints.py`: equal only for equal pixels, and alike for alike pixels.
    sa.Column("crop_hash", sa.BigInteger, index=True),
    sa.Column("crop_dhash", sa.BigInteger),
    sa.UniqueConstraint("micrograph_id", "index_in_micrograph"),
    *(sa.Index(f"ix_particles_{name}", name) for name in _SEARCHED),
)

particle_images = sa.Table(
    "particle_images",
    metadata,
    sa.Column(
        "particle_id",
        _Id,
        sa.ForeignKey("particles.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("crop", sa.LargeBinary, nullable=False),  # uint8, side in micrographs.crop_side_px
    sa.Column("outline", sa.LargeBinary, nullable=False),  # little-endian float32, (row, column) pairs
)

label_actions = sa.Table(
    "label_actions",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),  # "label", "undo" or "redo"
    sa.Column("target_id", _Id, index=True),  # what an undo retracts and a redo restores
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    sqlite_autoincrement=True,
)

labels = sa.Table(
    "labels",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("particle_id", _Id, sa.ForeignKey("particles.id", ondelete="CASCADE"), nullable=False),
    sa.Column("label", sa.Text),  # NULL: the label was withdrawn
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("action_id", _Id, index=True),  # one of `label_actions`
    sa.Index("ix_labels_particle_id_id", "particle_id", "id"),
    sa.Index("ix_labels_label", "label"),
    sqlite_autoincrement=True,  # ids only ever grow: they order the history
)

# How labels are shown; a label needs no row here.
classes = sa.Table(
    "classes",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("colour", sa.String(7), nullable=False),  # #rrggbb
    sa.Column("position", sa.Integer, nullable=False),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("classes", Json, nullable=False),
    sa.Column("config", Json, nullable=False),
    sa.Column("environment", Json, nullable=False),
    sa.Column("history", Json, nullable=False),
    sa.Column("evaluation", Json),
    sa.Column("labelled_particle_ids", Json, nullable=False),
    sa.Column("fit_seconds", sa.Double, nullable=False),
    sa.Column("manifold", sa.LargeBinary),  # npz of images and axis
    sa.Column("created_at", sa.String(32), nullable=False),
    sqlite_autoincrement=True,  # the newest of a name is the one with the highest id
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("model_id", _Id, sa.ForeignKey("models.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("tumble_version", sa.String(64), nullable=False),
    sa.Column("started_at", sa.String(32), nullable=False),
)

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column(
        "model_id",
        _Id,
        sa.ForeignKey("models.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column(
        "particle_id",
        _Id,
        sa.ForeignKey("particles.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        index=True,
    ),
    sa.Column("class_index", sa.Integer, nullable=False),
    sa.Column("class_name", sa.Text, nullable=False),
    sa.Column("probability", sa.Double, nullable=False),
    sa.Column("probabilities", sa.LargeBinary, nullable=False),  # little-endian float32 (K,)
    sa.Column("latent", sa.LargeBinary, nullable=False),  # little-endian float32 (L,)
    sa.Column("angle_rad", sa.Double),
    sa.Column("angle_std_rad", sa.Double),
    sa.Column("shift_row_px", sa.Double),
    sa.Column("shift_col_px", sa.Double),
    sa.Column("scale", sa.Double),
    sa.Column("novelty", sa.Double),
    sa.Column("latent_0", sa.Double),
    sa.Column("run_id", _Id),  # one of `runs`: which version of tumble said so, and when
    sa.Index("ix_predictions_model_id_class_name_probability", "model_id", "class_name", "probability"),
    sa.Index("ix_predictions_model_id_probability", "model_id", "probability"),
    sa.Index("ix_predictions_model_id_novelty", "model_id", "novelty"),
    sa.Index("ix_predictions_model_id_latent_0", "model_id", "latent_0"),
)
