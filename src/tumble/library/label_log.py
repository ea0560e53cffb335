"""The append-only log of labels: the newest entry that nobody retracted counts; one without a label withdraws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from tumble.errors import LabelError, LibraryError, TumbleError
from tumble.library.encoding import utc_now
from tumble.library.images import chunks, inserted_id, some, unknown_particles
from tumble.library.schema import label_actions, labels, micrographs, particles

#: Particle ids as a caller may give them.
IdsLike = Sequence[int] | npt.NDArray[Any]

__all__ = [
    "IdsLike",
    "as_particle_ids",
    "check_labels",
    "check_text",
    "insert_action",
    "insert_labels",
    "label_text",
    "newest_labels",
    "particles_of_log",
    "read_current_labels",
    "read_label_history",
    "read_label_log",
    "read_labels_by_author",
    "retracted_actions",
    "stands",
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
    check_text("author", author)
    check_text("source", source)
    now = utc_now()
    return [
        {"particle_id": i, "label": text, "author": author, "source": source, "created_at": now}
        for i, text in zip(ids, texts, strict=True)
    ]


def check_text(name: str, text: str) -> None:
    """Raise `LabelError` unless `text` can say where labels come from."""
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise LabelError(f"{name} must be a non-empty text that says where the labels come from.")


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


def insert_labels(connection: sa.Connection, rows: list[dict[str, Any]], author: str, source: str) -> None:
    """Append to the log as one action of `author`, unless a particle is unknown."""
    unknown = unknown_particles(connection, [row["particle_id"] for row in rows])
    if unknown:
        raise LabelError(
            f"there is no particle with id {some(unknown)} in this library. No label was stored; "
            "check that the labels belong to this library."
        )
    if not rows:
        return
    action_id = insert_action(connection, "label", author, source)
    for chunk in chunks(rows):
        connection.execute(sa.insert(labels), [{**row, "action_id": action_id} for row in chunk])


def insert_action(connection: sa.Connection, kind: str, author: str, source: str, target_id: int | None = None) -> int:
    """Append an action and return its id."""
    row = {"kind": kind, "target_id": target_id, "author": author, "source": source, "created_at": utc_now()}
    return inserted_id(connection, label_actions, row)


def retracted_actions() -> sa.Select[Any]:
    """Select the ids of the actions whose newest undo was not followed by a redo."""
    actions = label_actions.alias()
    newest = sa.select(sa.func.max(actions.c.id)).where(actions.c.target_id.is_not(None)).group_by(actions.c.target_id)
    return sa.select(label_actions.c.target_id).where(label_actions.c.kind == "undo", label_actions.c.id.in_(newest))


def stands() -> sa.ColumnElement[bool]:
    """Give the condition that an entry of `labels` is not retracted."""
    return sa.func.coalesce(labels.c.action_id, 0).not_in(retracted_actions())


def newest_labels(*by: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select the id of the newest standing entry of each particle, or of each particle and `by`."""
    return sa.select(sa.func.max(labels.c.id)).where(stands()).group_by(labels.c.particle_id, *by)


def read_current_labels(connection: sa.Connection, micrograph_id: int | None = None) -> pd.Series:
    """Return the label of each labelled particle."""
    newest = newest_labels()
    if micrograph_id is not None:
        newest = newest.join(particles).where(particles.c.micrograph_id == int(micrograph_id))
    query = sa.select(labels.c.particle_id, labels.c.label).where(labels.c.id.in_(newest), labels.c.label.is_not(None))
    rows = connection.execute(query.order_by(labels.c.particle_id)).all()
    index = pd.Index([row.particle_id for row in rows], dtype=np.int64, name="particle_id")
    return pd.Series([row.label for row in rows], index=index, dtype=object, name="label")


def read_labels_by_author(connection: sa.Connection) -> pd.DataFrame:
    """Return the newest standing label of each particle by each author."""
    query = sa.select(labels.c.particle_id, labels.c.author, labels.c.label).where(
        labels.c.id.in_(newest_labels(labels.c.author)), labels.c.label.is_not(None)
    )
    rows = connection.execute(query.order_by(labels.c.particle_id, labels.c.author)).all()
    frame = pd.DataFrame(
        {name: pd.Series([row[i] for row in rows], dtype=object) for i, name in enumerate(("id", "author", "label"))}
    )
    wide = frame.pivot(index="id", columns="author", values="label").astype(object)
    wide = wide.where(wide.notna(), None)
    wide.index = pd.Index(wide.index, dtype=np.int64, name="particle_id")
    return wide


def read_label_log(connection: sa.Connection, *, history: bool) -> pd.DataFrame:
    """Return present labels, or every standing entry, with what identifies their particles in any library."""
    names = ("particle_id", "label", "author", "created_at", "content_hash", "index_in_micrograph")
    columns = [table.c[name] for table, name in zip((*(labels,) * 4, micrographs, particles), names, strict=True)]
    query = sa.select(*columns).select_from(labels.join(particles).join(micrographs)).order_by(labels.c.id)
    if history:
        query = query.where(stands())
    else:
        query = query.where(labels.c.id.in_(newest_labels()), labels.c.label.is_not(None))
    rows = connection.execute(query).all()
    return pd.DataFrame({name: pd.Series([row[i] for row in rows], dtype=object) for i, name in enumerate(names)})


def particles_of_log(connection: sa.Connection, log: pd.DataFrame, where: str) -> list[int]:
    """Return the ids that the particles of a log have in this library."""
    wanted = sorted(set(log["content_hash"]))
    found = {
        (row.content_hash, row.index_in_micrograph): int(row.id)
        for chunk in chunks(wanted)
        for row in connection.execute(
            sa.select(particles.c.id, particles.c.index_in_micrograph, micrographs.c.content_hash)
            .select_from(particles.join(micrographs))
            .where(micrographs.c.content_hash.in_(chunk))
        )
    }
    ids = []
    for position, key in enumerate(zip(log["content_hash"], log["index_in_micrograph"].astype(int), strict=True)):
        if key not in found:
            raise LabelError(
                f"{where}, line {position + 2}: this library has no particle {key[1]} of the micrograph "
                f"{key[0][:12]}... Extract that image with the same settings first; no label was stored."
            )
        ids.append(found[key])
    return ids


def read_label_history(connection: sa.Connection, particle_id: int | None) -> pd.DataFrame:
    """Return the log, oldest entry first."""
    names = ("id", "particle_id", "label", "author", "source", "created_at", "action_id")
    query = sa.select(*(labels.c[name] for name in names), (~stands()).label("retracted")).order_by(labels.c.id)
    if particle_id is not None:
        query = query.where(labels.c.particle_id == int(particle_id))
    rows = connection.execute(query).all()
    data = {name: [row[i] for row in rows] for i, name in enumerate((*names, "retracted"))}
    frame = pd.DataFrame(data, dtype=object).rename(columns={"id": "label_id"})
    types = {"label_id": np.int64, "particle_id": np.int64, "action_id": np.int64, "retracted": bool}
    return frame.astype(types).set_index("label_id")
