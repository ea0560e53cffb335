"""The append-only log of labels: the newest entry counts, and one without a label withdraws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from tumble.errors import LabelError, LibraryError, TumbleError
from tumble.library.encoding import utc_now
from tumble.library.images import chunks, some, unknown_particles
from tumble.library.schema import labels, particles

#: Particle ids as a caller may give them.
IdsLike = Sequence[int] | npt.NDArray[Any]

__all__ = [
    "IdsLike",
    "as_particle_ids",
    "check_labels",
    "insert_labels",
    "read_current_labels",
    "read_label_history",
]


def check_labels(
    particle_ids: IdsLike, values: Sequence[Any] | npt.NDArray[Any], author: str, source: str
) -> list[dict[str, Any]]:
    """Return the rows to be stored, or raise `LabelError`."""
    if isinstance(values, str):
        raise LabelError(f"labels must be a sequence with one label per particle, not the text {values!r}.")
    ids, texts = as_particle_ids(particle_ids, LabelError), [label_text(value) for value in values]
    if len(ids) != len(texts):
        raise LabelError(f"{len(ids)} particle ids but {len(texts)} labels. Give one label per particle.")
    for name, text in (("author", author), ("source", source)):
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise LabelError(f"{name} must be a non-empty text that says where the labels come from.")
    now = utc_now()
    return [
        {"particle_id": i, "label": text, "author": author, "source": source, "created_at": now}
        for i, text in zip(ids, texts, strict=True)
    ]


def as_particle_ids(values: IdsLike, error: type[TumbleError] = LibraryError) -> list[int]:
    """Return plain integers; refuse anything that would have to be rounded or that no id can be."""
    array = np.asarray(values)
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise error(f"particle ids must be a sequence of integers, not {array.dtype} of shape {array.shape}.")
    if int(array.max()) > np.iinfo(np.int64).max:
        raise error(f"{array.max()} is not the id of a particle.")
    return array.tolist()


def label_text(value: Any) -> str | None:
    """Return a label as text, None for one that is withdrawn."""
    if value is None:
        return None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    text = value.strip() if isinstance(value, str) else ""
    if not text or not text.isprintable():
        raise LabelError(f"{value!r} is not a label. A label is a printable text or an integer.")
    return text


def insert_labels(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Append to the log, unless a particle is unknown."""
    unknown = unknown_particles(connection, [row["particle_id"] for row in rows])
    if unknown:
        raise LabelError(
            f"there is no particle with id {some(unknown)} in this library. No label was stored; "
            "check that the labels belong to this library."
        )
    for chunk in chunks(rows):
        connection.execute(sa.insert(labels), chunk)


def read_current_labels(connection: sa.Connection, micrograph_id: int | None = None) -> pd.Series:
    """Return the label of each labelled particle."""
    newest = sa.select(sa.func.max(labels.c.id)).group_by(labels.c.particle_id)
    query = sa.select(labels.c.particle_id, labels.c.label).where(labels.c.id.in_(newest), labels.c.label.is_not(None))
    if micrograph_id is not None:
        newest = newest.join(particles).where(particles.c.micrograph_id == int(micrograph_id))
        query = sa.select(labels.c.particle_id, labels.c.label).where(
            labels.c.id.in_(newest), labels.c.label.is_not(None)
        )
    rows = connection.execute(query.order_by(labels.c.particle_id)).all()
    index = pd.Index([row.particle_id for row in rows], dtype=np.int64, name="particle_id")
    return pd.Series([row.label for row in rows], index=index, dtype=object, name="label")


def read_label_history(connection: sa.Connection, particle_id: int | None) -> pd.DataFrame:
    """Return the log, oldest entry first."""
    query = sa.select(labels).order_by(labels.c.id)
    if particle_id is not None:
        query = query.where(labels.c.particle_id == int(particle_id))
    columns = [column.name for column in labels.columns]
    rows = connection.execute(query).all()
    data = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
    frame = pd.DataFrame(data, dtype=object).rename(columns={"id": "label_id"})
    return frame.astype({"label_id": np.int64, "particle_id": np.int64}).set_index("label_id")
