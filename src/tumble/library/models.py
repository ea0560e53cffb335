"""Models and their predictions: rows of the database from records and arrays, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from tumble.errors import LibraryError
from tumble.library.encoding import (
    float32_from_bytes,
    float32_to_bytes,
    pack_arrays,
    storable_text,
    unpack_arrays,
    utc_now,
)
from tumble.library.images import chunks, inserted_id, some, unknown_particles
from tumble.library.schema import models, particles, predictions
from tumble.types import ModelRecord, Pose, Predictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "find_model",
    "insert_model",
    "prediction_columns",
    "read_models",
    "read_predictions",
    "record_from_row",
    "replace_predictions",
    "update_evaluation",
]


def insert_model(connection: sa.Connection, record: ModelRecord) -> int:
    """Insert one model and return its id."""
    if not record.name.strip():
        raise LibraryError("a model needs a name. Nothing was stored.")
    arrays = {"images": record.manifold, "axis": record.manifold_axis}
    present = {name: array for name, array in arrays.items() if array is not None}
    row = {
        "name": record.name,
        "path": storable_text(record.path),
        "classes": list(record.classes),
        "config": dict(record.config),
        "environment": dict(record.environment),
        "history": {name: list(values) for name, values in record.history.items()},
        "evaluation": None if record.evaluation is None else dict(record.evaluation),
        "labelled_particle_ids": [int(i) for i in record.labelled_particle_ids],
        "fit_seconds": float(record.fit_seconds),
        "manifold": pack_arrays(present) if present else None,
        "created_at": utc_now(),
    }
    return inserted_id(connection, models, row)


def find_model(connection: sa.Connection, name: str | None) -> Any:
    """Return the row of the newest model of this name, or of all where `name` is None."""
    query = sa.select(models).order_by(models.c.id.desc()).limit(1)
    row = connection.execute(query if name is None else query.where(models.c.name == name)).first()
    if row is not None:
        return row
    names = sorted(set(connection.scalars(sa.select(models.c.name))))
    if not names:
        raise LibraryError("this library has no model yet. Fit one first (tumble fit).")
    raise LibraryError(f"this library has no model named {name!r}. It has: {', '.join(names)}.")


def record_from_row(row: Any) -> ModelRecord:
    """Return what was given to :func:`insert_model`."""
    arrays = unpack_arrays(row.manifold) if row.manifold is not None else {}
    return ModelRecord(
        name=row.name,
        path=row.path,
        classes=tuple(row.classes),
        config=row.config,
        environment=row.environment,
        history=row.history,
        labelled_particle_ids=tuple(row.labelled_particle_ids),
        fit_seconds=row.fit_seconds,
        manifold=arrays.get("images"),
        manifold_axis=arrays.get("axis"),
        evaluation=row.evaluation,
    )


def read_models(connection: sa.Connection) -> pd.DataFrame:
    """Return one row per model, oldest first."""
    counts = sa.select(predictions.c.model_id, sa.func.count().label("n")).group_by(predictions.c.model_id).subquery()
    query = (
        sa.select(models, sa.func.coalesce(counts.c.n, 0).label("n_predictions"))
        .select_from(models.outerjoin(counts, counts.c.model_id == models.c.id))
        .order_by(models.c.id)
    )
    rows = connection.execute(query).all()
    data = {
        "name": pd.Series([row.name for row in rows], dtype=object),
        "path": pd.Series([row.path for row in rows], dtype=object),
        "classes": pd.Series([tuple(row.classes) for row in rows], dtype=object),
        "n_labelled": np.array([len(row.labelled_particle_ids) for row in rows], dtype=np.int64),
        "n_predictions": np.array([row.n_predictions for row in rows], dtype=np.int64),
        "balanced_accuracy": np.array(
            [(row.evaluation or {}).get("balanced_accuracy") for row in rows], dtype=object
        ).astype(np.float64),
        "fit_seconds": np.array([row.fit_seconds for row in rows], dtype=np.float64),
        "created_at": pd.Series([row.created_at for row in rows], dtype=object),
    }
    frame = pd.DataFrame(data)
    frame.index = pd.Index([row.id for row in rows], dtype=np.int64, name="model_id")
    return frame


def update_evaluation(connection: sa.Connection, name: str, evaluation: Mapping[str, Any]) -> None:
    """Replace the evaluation of the newest model of this name."""
    model_id = find_model(connection, name).id
    connection.execute(sa.update(models).where(models.c.id == model_id).values(evaluation=dict(evaluation)))


def replace_predictions(connection: sa.Connection, model_name: str, ids: Sequence[int], values: Predictions) -> None:
    """Store the predictions of a model, in place of earlier ones for these particles."""
    model = find_model(connection, model_name)
    if tuple(model.classes) != tuple(values.classes):
        raise LibraryError(
            f"predictions for classes {', '.join(values.classes)} do not belong to model {model_name!r} "
            f"with classes {', '.join(model.classes)}."
        )
    if len(ids) != len(values) or len(set(ids)) != len(ids):
        raise LibraryError(f"{len(values)} predictions for {len(set(ids))} different particles; they must match.")
    unknown = unknown_particles(connection, ids)
    if unknown:
        raise LibraryError(f"there is no particle with id {some(unknown)} in this library.")
    for chunk in chunks(ids):
        connection.execute(
            sa.delete(predictions).where(predictions.c.model_id == model.id, predictions.c.particle_id.in_(chunk))
        )
    for chunk in chunks(_prediction_rows(model.id, ids, values)):
        connection.execute(sa.insert(predictions), chunk)


def _prediction_rows(model_id: int, ids: Sequence[int], values: Predictions) -> Iterator[dict[str, Any]]:
    best = values.probabilities.argmax(axis=1).tolist()
    pose = values.pose
    for i, particle_id in enumerate(ids):
        yield {
            "model_id": model_id,
            "particle_id": particle_id,
            "class_index": best[i],
            "class_name": values.classes[best[i]],
            "probability": float(values.probabilities[i, best[i]]),
            "probabilities": float32_to_bytes(values.probabilities[i]),
            "latent": float32_to_bytes(values.latent[i]),
            "angle_rad": float(pose.angle_rad[i]),
            "angle_std_rad": float(pose.angle_std_rad[i]),
            "shift_row_px": float(pose.shift_px[i, 0]),
            "shift_col_px": float(pose.shift_px[i, 1]),
            "scale": float(pose.scale[i]),
        }


def _prediction_query(model_id: int) -> sa.Select[Any]:
    return sa.select(predictions).where(predictions.c.model_id == model_id).order_by(predictions.c.particle_id)


def _float32(values: Sequence[Any]) -> npt.NDArray[np.float32]:
    return np.array(values, dtype=object).astype(np.float32)  # NULL becomes NaN


def read_predictions(connection: sa.Connection, model_name: str | None) -> tuple[npt.NDArray[np.int64], Predictions]:
    """Return particle ids and what the model says of them, by id."""
    model = find_model(connection, model_name)
    rows = connection.execute(_prediction_query(model.id)).all()
    n, classes = len(rows), tuple(model.classes)
    latent_dim = len(rows[0].latent) // 4 if rows else 0
    pose = Pose(
        angle_rad=_float32([row.angle_rad for row in rows]),
        shift_px=_float32([(row.shift_row_px, row.shift_col_px) for row in rows]).reshape(n, 2),
        scale=_float32([row.scale for row in rows]),
        angle_std_rad=_float32([row.angle_std_rad for row in rows]),
    )
    found = Predictions(
        classes=classes,
        probabilities=float32_from_bytes(b"".join(row.probabilities for row in rows), (n, len(classes))),
        latent=float32_from_bytes(b"".join(row.latent for row in rows), (n, latent_dim)),
        pose=pose,
    )
    return np.array([row.particle_id for row in rows], dtype=np.int64), found


def prediction_columns(connection: sa.Connection, model_name: str, micrograph_id: int | None) -> pd.DataFrame:
    """Return predictions as columns beside the measurements, indexed by particle id."""
    query = _prediction_query(find_model(connection, model_name).id)
    if micrograph_id is not None:
        query = query.join(particles).where(particles.c.micrograph_id == int(micrograph_id))
    rows = connection.execute(query).all()
    latent_dim = len(rows[0].latent) // 4 if rows else 0
    latent = float32_from_bytes(b"".join(row.latent for row in rows), (len(rows), latent_dim))
    data: dict[str, Any] = {
        "predicted": pd.array([row.class_name for row in rows], dtype=object),
        "probability": np.array([row.probability for row in rows], dtype=np.float64),
    }
    data |= {f"latent_{j}": latent[:, j].astype(np.float64) for j in range(latent_dim)}
    for name in ("angle_rad", "angle_std_rad", "shift_row_px", "shift_col_px", "scale"):
        data[name] = np.array([getattr(row, name) for row in rows], dtype=object).astype(np.float64)
    return pd.DataFrame(data, index=pd.Index([row.particle_id for row in rows], dtype=np.int64))
