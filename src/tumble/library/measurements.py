"""Measurement tables: typed columns where there are any, JSON for the rest, one DataFrame when read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tumble.errors import DataError
from tumble.library.schema import MEASUREMENT_COLUMNS, micrographs, particles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["measurement_layout", "measurement_rows", "read_measurements"]

# Names that :meth:`tumble.library.Library.particles` gives a meaning of its own.
_POSE = ("angle_rad", "angle_std_rad", "shift_row_px", "shift_col_px", "scale")
_RESERVED = frozenset(("micrograph_id", "label", "predicted", "probability", "novelty", *_POSE))

_KEYS = ("particle_id", "micrograph_id")

#: Rows that are read at a time.
ROWS = 20_000

Layout = list[list[str]]


def measurement_layout(table: pd.DataFrame) -> Layout:
    """Return name and dtype of each column, in order; refuse a table that could not be read back."""
    names = [str(name) for name in table.columns]
    if len(set(names)) < len(names):
        raise DataError("the particle table names a column twice. Rename one of them.")
    taken = sorted(name for name in names if name in _RESERVED or name.startswith("latent_"))
    if taken:
        raise DataError(f"the particle table has columns named {', '.join(taken)}, which a library uses itself.")
    return [[name, str(dtype)] for name, dtype in zip(names, table.dtypes, strict=True)]


def measurement_rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the values of one particle after the other, by column of the database."""
    own = {name: _typed_values(table, name) for name in MEASUREMENT_COLUMNS}
    others = {str(name): _json_values(table[name]) for name in table.columns if name not in own}
    for i in range(len(table)):
        row: dict[str, Any] = {name: values[i] for name, values in own.items()}
        row["other_measurements"] = {name: values[i] for name, values in others.items()} or None
        yield row


def _typed_values(table: pd.DataFrame, name: str) -> Sequence[Any]:
    if name not in table.columns:
        return [None] * len(table)
    kind = {sa.Boolean: bool, sa.Integer: np.int64}.get(type(particles.columns[name].type), np.float64)
    try:
        return table[name].astype(kind).to_numpy().tolist()  # SQL has no NaN: it becomes NULL and back
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r} of the particle table is not numeric: {error}") from error


def _json_values(column: Any) -> list[Any]:
    values = column.astype(object).tolist()
    return [None if value is None or value is pd.NA or value != value else value for value in values]


def read_measurements(connection: sa.Connection, micrograph_id: int | None = None) -> pd.DataFrame:
    """Return all measurements, indexed by particle id, after a column `micrograph_id`."""
    own = [particles.columns[name] for name in MEASUREMENT_COLUMNS]
    # As plain text: the JSON of many rows is decoded here in one go, several times faster than row by row.
    other = sa.type_coerce(particles.c.other_measurements, sa.Text)
    query = sa.select(particles.c.id, particles.c.micrograph_id, other, *own).order_by(particles.c.id)
    layouts = sa.select(micrographs.c.id, micrographs.c.measurements).order_by(micrographs.c.id)
    if micrograph_id is not None:
        query = query.where(particles.c.micrograph_id == micrograph_id)
        layouts = layouts.where(micrographs.c.id == micrograph_id)
    layout = _common_layout(connection.execute(layouts).all())
    # Piece by piece: a million rows of Python objects would take ten times the memory of the table itself.
    rows = connection.execute(query.execution_options(yield_per=ROWS))
    pieces = [_piece(part, layout) for part in rows.partitions()] or [_piece([], layout)]
    data = {name: _joined([piece[name] for piece in pieces]) for name in pieces[0]}
    index = pd.Index(data.pop("particle_id"), dtype=np.int64, name="particle_id")
    return pd.DataFrame(data, index=index)


def _piece(rows: Sequence[Any], layout: Mapping[str, str]) -> dict[str, Any]:
    """Return some rows as columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * (3 + len(MEASUREMENT_COLUMNS))
    others = json.loads(f"[{','.join(text or '{}' for text in columns[2])}]")
    by_name = dict(zip(MEASUREMENT_COLUMNS, columns[3:], strict=True))
    data: dict[str, Any] = {name: np.array(columns[i], dtype=np.int64) for i, name in enumerate(_KEYS)}
    for name, dtype in layout.items():
        values = by_name[name] if name in by_name else [values.get(name) for values in others]
        data[name] = _column(values, dtype)
    return data


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pd.concat([pd.Series(p) for p in parts]).array


def _common_layout(layouts: Sequence[Any]) -> Mapping[str, str]:
    """Return the columns of all micrographs with a dtype that can hold each of them."""
    dtypes: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for _, layout in layouts:
        for name, dtype in layout:
            dtypes.setdefault(name, set()).add(dtype)
            counts[name] = counts.get(name, 0) + 1
    return {name: _common_dtype(found, counts[name] == len(layouts)) for name, found in dtypes.items()}


def _common_dtype(dtypes: set[str], everywhere: bool) -> str:
    """Return the dtype itself where all agree; otherwise one in which a value can also be missing."""
    if len(dtypes) == 1 and everywhere:
        return next(iter(dtypes))
    try:
        numeric = all(np.dtype(dtype).kind in "iuf" for dtype in dtypes)
    except TypeError:  # a dtype of pandas
        numeric = False
    return "float64" if numeric else "object"


def _column(values: Sequence[Any], dtype: str) -> Any:
    if dtype.startswith(("float", "int", "uint", "bool")):
        return np.array(values, dtype=object).astype(dtype)
    return pd.Series(list(values), dtype=dtype).array
