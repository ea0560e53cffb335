"""Taking labels back, and giving them again: actions that retract or restore others, in an append-only log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tumble.errors import LabelError
from tumble.library.encoding import utc_now
from tumble.library.images import chunks
from tumble.library.label_log import check_text, insert_action, label_text, retracted_actions, stands
from tumble.library.schema import label_actions, labels

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LabelAction", "import_rows", "newest_action", "read_actions", "redo", "undo"]


@dataclass(frozen=True)
class LabelAction:
    """Labels that were stored at once, and were now taken back or restored.

    Parameters
    ----------
    action_id : int
        Its number among the actions of the library.
    author, source, created_at : str
        Who labelled, how, and when (UTC, ISO 8601).
    n_labels : int
        How many labels it stored.
    """

    action_id: int
    author: str
    source: str
    created_at: str
    n_labels: int


def read_actions(connection: sa.Connection) -> pd.DataFrame:
    """Return every action, oldest first."""
    counts = sa.select(labels.c.action_id, sa.func.count().label("n")).group_by(labels.c.action_id).subquery()
    c = label_actions.c
    query = (
        sa.select(c.id, c.kind, c.target_id, c.author, c.source, c.created_at)
        .add_columns(sa.func.coalesce(counts.c.n, 0), c.id.in_(retracted_actions()))
        .select_from(label_actions.outerjoin(counts, counts.c.action_id == c.id))
        .order_by(c.id)
    )
    names = ("action_id", "kind", "target_id", "author", "source", "created_at", "n_labels", "retracted")
    rows = connection.execute(query).all()
    frame = pd.DataFrame({name: pd.Series([row[i] for row in rows], dtype=object) for i, name in enumerate(names)})
    types = {"action_id": np.int64, "target_id": "Int64", "n_labels": np.int64, "retracted": bool}
    return frame.astype(types).set_index("action_id")


def newest_action(connection: sa.Connection) -> int:
    """Return the id of the newest action, 0 where there is none."""
    return int(connection.scalar(sa.select(sa.func.max(label_actions.c.id))) or 0)


def undo(connection: sa.Connection, author: str, action_id: int | None) -> LabelAction:
    """Append an action that retracts the newest standing one of `author`, or the one named."""
    check_text("author", author)
    query = _labelling().where(label_actions.c.id.not_in(retracted_actions()))
    if action_id is None:
        row = connection.execute(query.where(label_actions.c.author == author)).first()
        missing = f"{author} has no labels that could be taken back."
    else:
        row = connection.execute(query.where(label_actions.c.id == int(action_id))).first()
        missing = f"there is no action {action_id} that could be taken back."
    if row is None:
        raise LabelError(f"{missing} `tumble undo LIBRARY --list` shows who labelled what.")
    insert_action(connection, "undo", author, "undo", row.id)
    return _described(connection, row)


def redo(connection: sa.Connection, author: str) -> LabelAction:
    """Append an action that restores what `author` took back last, unless they have labelled since."""
    check_text("author", author)
    mine = sa.select(label_actions).where(label_actions.c.author == author).order_by(label_actions.c.id)
    undone: list[Any] = []
    for row in connection.execute(mine):
        if row.kind == "undo":
            undone.append(row)
        elif row.kind == "redo":
            undone = [other for other in undone if other.target_id != row.target_id]
        else:  # as in an editor: whoever goes another way has nothing to go forward to
            undone = []
    retracted = set(connection.scalars(retracted_actions()))
    undone = [row for row in undone if row.target_id in retracted]
    if not undone:
        raise LabelError(f"{author} has taken back nothing that could be restored.")
    target = undone[-1].target_id
    insert_action(connection, "redo", author, "redo", target)
    return _described(connection, connection.execute(_labelling().where(label_actions.c.id == target)).one())


def _labelling() -> sa.Select[Any]:
    return sa.select(label_actions).where(label_actions.c.kind == "label").order_by(label_actions.c.id.desc()).limit(1)


def _described(connection: sa.Connection, row: Any) -> LabelAction:
    n = connection.scalar(sa.select(sa.func.count()).where(labels.c.action_id == row.id))
    return LabelAction(int(row.id), row.author, row.source, row.created_at, int(n or 0))


def import_rows(connection: sa.Connection, table: pd.DataFrame, author: str, source: str) -> list[dict[str, Any]]:
    """Return the entries of a table of labels that the log does not have yet.

    An entry keeps the author and the time that the table gives it, so that a log that was written to a file and read
    again is the same log; one without them is of `author` and of now.
    """
    check_text("author", author)
    check_text("source", source)
    now = utc_now()
    rows = []
    for particle_id, label, who, when in zip(
        table["particle_id"], table["label"], table["author"], table["created_at"], strict=True
    ):
        text = label_text(None if label is None or label == "" else label)
        entry = {"particle_id": int(particle_id), "label": text, "author": who or author, "source": source}
        check_text("author", entry["author"])
        rows.append({**entry, "created_at": _moment(when) if when else now})
    known = _known_entries(connection, [row["particle_id"] for row in rows])
    key = ("particle_id", "label", "author", "created_at")
    return [row for row in rows if tuple(row[name] for name in key) not in known]


def _known_entries(connection: sa.Connection, ids: Sequence[int]) -> set[tuple[Any, ...]]:
    c = labels.c
    found: set[tuple[Any, ...]] = set()
    for chunk in chunks(sorted(set(ids))):
        query = sa.select(c.particle_id, c.label, c.author, c.created_at).where(c.particle_id.in_(chunk), stands())
        found.update(tuple(row) for row in connection.execute(query))
    return found


def _moment(text: str) -> str:
    try:
        moment = pd.Timestamp(text)
    except ValueError as error:
        raise LabelError(f"created_at {text!r} is not a time. Write it as 2026-01-31T12:00:00+00:00.") from error
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return moment.to_pydatetime().isoformat(timespec="microseconds")
