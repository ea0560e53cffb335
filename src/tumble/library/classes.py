"""The classes that people label with: their names, colours and order.

A label is a text in the log; a class needs no more than that to exist. What is kept here is how it is shown, and
classes that have no labels yet.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tumble.errors import LabelError
from tumble.library.encoding import utc_now
from tumble.library.label_log import insert_labels, label_text, newest_labels
from tumble.library.schema import classes, labels

__all__ = ["CLASS_COLOURS", "put_class", "read_classes", "remove_class", "rename_class"]

#: Colours of classes that were given none, in turn: Okabe and Ito's, which people who see fewer colours tell apart,
#: and three more.
CLASS_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
    "#f0e442",
    "#7f6bb3",
    "#8c5a2b",
    "#6b7780",
)
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LONGEST_NAME = 80


def read_classes(connection: sa.Connection) -> pd.DataFrame:
    """Return every class, in order: those that were given a place, then others that are in use."""
    kept = connection.execute(sa.select(classes).order_by(classes.c.position, classes.c.name)).all()
    standing = sa.select(labels.c.label, sa.func.count()).where(
        labels.c.id.in_(newest_labels()), labels.c.label.is_not(None)
    )
    counts = {str(name): int(n) for name, n in connection.execute(standing.group_by(labels.c.label))}
    colours = {row.name: row.colour for row in kept}
    names = [*colours, *sorted(set(counts) - set(colours))]
    shown = [colours.get(name) or CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, name in enumerate(names)]
    frame = pd.DataFrame({"colour": pd.Series(shown, dtype=object)})
    frame["n_labels"] = np.array([counts.get(name, 0) for name in names], dtype=np.int64)
    frame.index = pd.Index(names, dtype=object, name="class_name")
    return frame


def put_class(connection: sa.Connection, name: str, colour: str | None) -> None:
    """Store a class, in the last place if it is new."""
    name = _checked_name(name)
    if colour is not None and not _COLOUR.fullmatch(colour.lower()):
        raise LabelError(f"colour {colour!r}: write it as #1f5f8b. Nothing was stored.")
    _keep_all(connection)
    row = connection.execute(sa.select(classes).where(classes.c.name == name)).first()
    if row is None:
        _insert(connection, name, colour)
    elif colour is not None:
        connection.execute(sa.update(classes).where(classes.c.name == name).values(colour=colour.lower()))


def rename_class(connection: sa.Connection, old: str, new: str, author: str, source: str) -> int:
    """Give every particle of one class the label of another, which is new or takes them in; return how many."""
    new = _checked_name(new)
    _keep_all(connection)
    row = connection.execute(sa.select(classes).where(classes.c.name == old)).first()
    if row is None:
        raise LabelError(f"there is no class {old!r}.")
    if new == old:
        return 0
    standing = sa.select(labels.c.particle_id).where(labels.c.id.in_(newest_labels()), labels.c.label == old)
    ids = [int(i) for i in connection.scalars(standing.order_by(labels.c.particle_id))]
    now = utc_now()
    entry = {"label": new, "author": author, "source": source, "created_at": now}
    insert_labels(connection, [{"particle_id": i, **entry} for i in ids], author, source)
    merged = connection.execute(sa.select(classes.c.name).where(classes.c.name == new)).first() is not None
    if merged:
        connection.execute(sa.delete(classes).where(classes.c.name == old))
    else:
        connection.execute(sa.update(classes).where(classes.c.name == old).values(name=new))
    return len(ids)


def remove_class(connection: sa.Connection, name: str) -> None:
    """Forget a class without labels."""
    found = read_classes(connection)
    if name not in found.index:
        raise LabelError(f"there is no class {name!r}.")
    n = int(found["n_labels"].to_dict()[name])
    if n:
        raise LabelError(f"class {name!r} has {n} labels. Merge it into another one, or withdraw them first.")
    connection.execute(sa.delete(classes).where(classes.c.name == name))


def _checked_name(name: Any) -> str:
    text = label_text(name)
    if text is None or len(text) > _LONGEST_NAME:
        raise LabelError(f"the name of a class has 1 to {_LONGEST_NAME} characters.")
    return text


def _keep_all(connection: sa.Connection) -> None:
    """Store the classes that are in use as they are shown, so that one more does not change the others."""
    known = set(connection.scalars(sa.select(classes.c.name)))
    for name, colour in read_classes(connection)["colour"].items():
        if name not in known:
            _insert(connection, str(name), str(colour))


def _insert(connection: sa.Connection, name: str, colour: str | None) -> None:
    last = connection.scalar(sa.select(sa.func.max(classes.c.position)))
    position = 0 if last is None else int(last) + 1
    if colour is None:
        taken = set(connection.scalars(sa.select(classes.c.colour)))
        free = [value for value in CLASS_COLOURS if value not in taken]
        colour = free[0] if free else CLASS_COLOURS[position % len(CLASS_COLOURS)]
    connection.execute(sa.insert(classes), [{"name": name, "colour": colour.lower(), "position": position}])
