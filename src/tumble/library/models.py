"""Models and their predictions: rows of the database from records and arrays, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tumble._version import __version__
from tumble.errors import LibraryError
from tumble.library.database import wait_for_turn
from tumble.library.encoding import (
    float32_from_bytes,
    float32_to_bytes,
    pack_arrays,
    storable_text,
    unpack_arrays,
    utc_now,
)
from tumble.library.images import chunks, inserted_id, some, unknown_particles
from tumble.library.label_log import newest_labels
from tumble.library.schema import labels, models, particles, predictions, runs
from tumble.types import ModelRecord, Pose, Predictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "contingency",
    "ensure_model",
    "find_model",
    "insert_model",
    "insert_run",
    "predicting_model",
    "prediction_columns",
    "read_least_sure",
    "read_models",
    "read_predictions",
    "read_runs",
    "record_from_row",
    "replace_predictions",
    "unpredicted",
    "update_evaluation",
]

#: Predictions that are read at a time; as many at least where those are looked for of which a model is least sure.
ROWS = 10_000


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


def ensure_model(connection: sa.Connection, record: ModelRecord) -> int:
    """Return the id of the newest model of this name if it has the same weights, otherwise insert the model."""
    wait_for_turn(connection, f"model {record.name}")
    query = sa.select(models.c.id, models.c.environment).where(models.c.name == record.name)
    known = connection.execute(query.order_by(models.c.id.desc()).limit(1)).first()
    weights = record.environment.get("weights_sha256")
    if known is not None and weights is not None and known.environment.get("weights_sha256") == weights:
        return int(known.id)
    return insert_model(connection, record)


def insert_run(connection: sa.Connection, model_id: int) -> int:
    """Note that a model begins to predict, and return the id of the run."""
    return inserted_id(connection, runs, {"model_id": model_id, "tumble_version": __version__, "started_at": utc_now()})


def read_runs(connection: sa.Connection) -> pd.DataFrame:
    """Return one row per run of a model over the library, oldest first."""
    counts = sa.select(predictions.c.run_id, sa.func.count().label("n")).group_by(predictions.c.run_id).subquery()
    query = (
        sa.select(runs.c.id, models.c.name, runs.c.model_id, runs.c.tumble_version, runs.c.started_at)
        .add_columns(sa.func.coalesce(counts.c.n, 0).label("n_predictions"))
        .select_from(runs.join(models).outerjoin(counts, counts.c.run_id == runs.c.id))
        .order_by(runs.c.id)
    )
    names = ("run_id", "model", "model_id", "tumble_version", "started_at", "n_predictions")
    rows = connection.execute(query).all()
    frame = pd.DataFrame({name: pd.Series([row[i] for row in rows], dtype=object) for i, name in enumerate(names)})
    return frame.astype(dict.fromkeys(("run_id", "model_id", "n_predictions"), np.int64)).set_index("run_id")


def predicting_model(connection: sa.Connection) -> Any | None:
    """Return the row of the newest model that has predictions and is the newest of its name."""
    newer = models.alias()
    query = (
        sa.select(models)
        .where(sa.exists().where(predictions.c.model_id == models.c.id))
        .where(~sa.exists().where(newer.c.name == models.c.name, newer.c.id > models.c.id))
        .order_by(models.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).first()


def unpredicted(connection: sa.Connection, model_name: str, *, without_novelty: bool) -> list[tuple[int, int]]:
    """Return (micrograph, particle) of those without a prediction, or without its novelty where that is asked."""
    said = predictions.alias()
    known = sa.exists().where(
        said.c.model_id == find_model(connection, model_name).id, said.c.particle_id == particles.c.id
    )
    if without_novelty:
        known = known.where(said.c.novelty.is_not(None))
    query = sa.select(particles.c.micrograph_id, particles.c.id).where(~known)
    rows = connection.execute(query.order_by(particles.c.micrograph_id, particles.c.id)).all()
    return [(int(row[0]), int(row[1])) for row in rows]


def contingency(connection: sa.Connection, first: str, second: str) -> pd.DataFrame:
    """Return how many particles one model (rows) and another (columns) take for each class."""
    a, b = predictions.alias(), predictions.alias()
    one, other = find_model(connection, first), find_model(connection, second)
    query = (
        sa.select(a.c.class_name, b.c.class_name, sa.func.count())
        .select_from(a.join(b, a.c.particle_id == b.c.particle_id))
        .where(a.c.model_id == one.id, b.c.model_id == other.id)
        .group_by(a.c.class_name, b.c.class_name)
    )
    table = pd.DataFrame(
        0, index=pd.Index(one.classes, name=first), columns=pd.Index(other.classes, name=second), dtype=np.int64
    )
    for row, column, n in connection.execute(query):
        table.loc[row, column] = int(n)
    return table


def update_evaluation(connection: sa.Connection, name: str, evaluation: Mapping[str, Any]) -> None:
    """Replace the evaluation of the newest model of this name."""
    model_id = find_model(connection, name).id
    connection.execute(sa.update(models).where(models.c.id == model_id).values(evaluation=dict(evaluation)))


def replace_predictions(
    connection: sa.Connection, model_name: str, ids: Sequence[int], values: Predictions, run_id: int | None = None
) -> None:
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
    run_id = insert_run(connection, model.id) if run_id is None else run_id
    statement = _upsert(connection.dialect.name)
    for chunk in chunks(_prediction_rows(model.id, run_id, ids, values)):
        connection.execute(statement, chunk)


def _upsert(dialect: str) -> sa.Executable:
    """Insert or replace in one statement: two processes may store the same predictions at the same time."""
    inserts = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    if dialect not in inserts:
        raise LibraryError(f"predictions cannot be stored in a {dialect} database. Use SQLite or PostgreSQL.")
    insert = inserts[dialect](predictions)
    key = ("model_id", "particle_id")
    changed = {column.name: insert.excluded[column.name] for column in predictions.columns if column.name not in key}
    return insert.on_conflict_do_update(index_elements=key, set_=changed)


def _prediction_rows(model_id: int, run_id: int, ids: Sequence[int], values: Predictions) -> Iterator[dict[str, Any]]:
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
            "angle_rad": _number(pose.angle_rad[i]),
            "angle_std_rad": _number(pose.angle_std_rad[i]),
            "shift_row_px": _number(pose.shift_px[i, 0]),
            "shift_col_px": _number(pose.shift_px[i, 1]),
            "scale": _number(pose.scale[i]),
            "novelty": None if values.novelty is None else _number(values.novelty[i]),
            "latent_0": _number(values.latent[i, 0]) if values.latent.shape[1] else None,
            "run_id": run_id,
        }


def _number(value: Any) -> float | None:
    # SQLite stores NaN as NULL; other databases would keep it and sort it above all numbers.
    return None if np.isnan(value) else float(value)


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
        novelty=_float32([row.novelty for row in rows]) if any(row.novelty is not None for row in rows) else None,
    )
    return np.array([row.particle_id for row in rows], dtype=np.int64), found


def read_least_sure(
    connection: sa.Connection, model_name: str, wanted: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return ids, probabilities and latent vectors of unlabelled particles, those with the smallest lead among them.

    Particles are read by rising probability p of their class. The lead of that class over the second is 2 p - 1 at
    least: once so many have a smaller one than any that is still to come, all that are wanted were read.
    """
    model = find_model(connection, model_name)
    labelled = sa.select(labels.c.particle_id).where(labels.c.id.in_(newest_labels()), labels.c.label.is_not(None))
    said = predictions.c
    query = (
        sa.select(said.particle_id, said.probability, said.probabilities, said.latent)
        .where(said.model_id == model.id, said.particle_id.not_in(labelled))
        .order_by(said.probability, said.particle_id)
        .execution_options(yield_per=ROWS)
    )
    ids: list[int] = []
    p, latent = [np.empty((0, len(model.classes)), np.float32)], []
    leads = np.empty(0)
    for rows in connection.execute(query).partitions():
        ids += [int(row.particle_id) for row in rows]
        p.append(float32_from_bytes(b"".join(row.probabilities for row in rows), (len(rows), -1)))
        latent.append(float32_from_bytes(b"".join(row.latent for row in rows), (len(rows), -1)))
        best = np.partition(p[-1], -2, axis=1)[:, -2:]
        leads = np.concatenate([leads, best[:, 1] - best[:, 0]])
        if (leads < 2 * rows[-1].probability - 1).sum() >= wanted:
            break
    return (
        np.array(ids, np.int64),
        np.concatenate(p),
        np.concatenate(latent) if latent else np.empty((0, 0), np.float32),
    )


def prediction_columns(connection: sa.Connection, model_name: str, micrograph_id: int | None) -> pd.DataFrame:
    """Return predictions as columns beside the measurements, indexed by particle id."""
    query = _prediction_query(find_model(connection, model_name).id)
    if micrograph_id is not None:
        query = query.join(particles).where(particles.c.micrograph_id == int(micrograph_id))
    # Piece by piece, since rows of Python objects take ten times the memory of the columns.
    rows = connection.execute(query.execution_options(yield_per=ROWS))
    pieces = [_columns_of(part) for part in rows.partitions()]
    return pd.concat(pieces) if pieces else _columns_of([])


def _columns_of(rows: Sequence[Any]) -> pd.DataFrame:
    latent_dim = len(rows[0].latent) // 4 if rows else 0
    latent = float32_from_bytes(b"".join(row.latent for row in rows), (len(rows), latent_dim))
    data: dict[str, Any] = {
        "predicted": pd.array([row.class_name for row in rows], dtype=object),
        "probability": np.array([row.probability for row in rows], dtype=np.float64),
    }
    data |= {f"latent_{j}": latent[:, j].astype(np.float64) for j in range(latent_dim)}
    for name in ("angle_rad", "angle_std_rad", "shift_row_px", "shift_col_px", "scale", "novelty"):
        data[name] = np.array([getattr(row, name) for row in rows], dtype=object).astype(np.float64)
    return pd.DataFrame(data, index=pd.Index([row.particle_id for row in rows], dtype=np.int64))
