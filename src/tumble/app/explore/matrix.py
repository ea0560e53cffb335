"""Tables of particles by two classes, whose cells open their particles: what several views show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd

from tumble.app.selection import encode_ids
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt
    from matplotlib.figure import Figure

__all__ = ["Matrix", "count_pairs", "gallery_link", "selection_link"]

#: Shades of a cell, from none to the whole row.
SHADES = 10


def gallery_link(**conditions: str | None) -> str:
    """Return the address of the gallery with conditions, ``class_`` being the predicted class; None is left out."""
    return f"/label?{urlencode({name.rstrip('_'): value for name, value in conditions.items() if value})}"


def selection_link(ids: Iterable[int], model: str | None = None) -> str | None:
    """Return the address of the gallery with these particles, None where they are none or too many for an address."""
    chosen = [int(i) for i in ids]
    if not chosen:
        return None
    try:
        return gallery_link(ids=encode_ids(chosen), model=model, sort="id")
    except ConfigError:  # the page shows the count without a link
        return None


def count_pairs(first: Any, second: Any, rows: Sequence[str], columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """Count how often each pair of classes occurs in two columns of them, (rows, columns)."""
    table = pd.crosstab(np.asarray(first, dtype=object), np.asarray(second, dtype=object))
    return table.reindex(index=list(rows), columns=list(columns), fill_value=0).to_numpy(np.int64)


@dataclass(frozen=True)
class Matrix:
    """Particles by two classes.

    Parameters
    ----------
    rows, columns : sequence of str
        Classes.
    counts : ndarray of shape (rows, columns)
        Particles.
    row_name, column_name : str
        Whose word the rows and the columns are.
    link : callable of (row class, column class) -> str or None
        Address of a cell's particles.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    counts: npt.NDArray[np.int64]
    row_name: str
    column_name: str
    link: Callable[[str, str], str | None]

    @property
    def total(self) -> int:
        """Number of particles."""
        return int(self.counts.sum())

    @property
    def agreed(self) -> int:
        """Number of particles for which both say the same."""
        return sum(int(self.counts[i, self.columns.index(n)]) for i, n in enumerate(self.rows) if n in self.columns)

    def recalls(self) -> dict[str, float]:
        """Return the share of each row that is in the column of its class; NaN for an empty row."""
        return {name: self._share(self.counts[i], name, self.columns) for i, name in enumerate(self.rows)}

    def precisions(self) -> dict[str, float]:
        """Return the share of each column that is in the row of its class; NaN for an empty column."""
        return {name: self._share(self.counts[:, j], name, self.rows) for j, name in enumerate(self.columns)}

    @staticmethod
    def _share(counts: npt.NDArray[np.int64], name: str, names: Sequence[str]) -> float:
        n = int(counts.sum())
        if n == 0:
            return float("nan")
        return float(counts[names.index(name)]) / n if name in names else 0.0

    def table(self) -> pd.DataFrame:
        """Return one row per cell: both classes, particles, and their share of the row."""
        sums = self.counts.sum(axis=1, keepdims=True)
        shares = np.divide(self.counts, sums, out=np.full(self.counts.shape, np.nan), where=sums > 0)
        return pd.DataFrame(
            {
                self.row_name: np.repeat(np.array(self.rows, dtype=object), len(self.columns)),
                self.column_name: np.tile(np.array(self.columns, dtype=object), len(self.rows)),
                "particles": self.counts.ravel(),
                "share_of_row": shares.ravel(),
            }
        )

    def cells(self) -> list[dict[str, Any]]:
        """Return what the template shows: a row per class, with its cells, sum and recall."""
        recalls = self.recalls()
        lines = []
        for i, row in enumerate(self.rows):
            n = int(self.counts[i].sum())
            cells = [self._cell(row, column, int(self.counts[i, j]), n) for j, column in enumerate(self.columns)]
            lines.append({"name": row, "cells": cells, "n": n, "recall": recalls[row]})
        return lines

    def _cell(self, row: str, column: str, n: int, of: int) -> dict[str, Any]:
        share = n / of if of else 0.0
        shade = int(np.ceil(SHADES * share))
        return {
            "n": n,
            "share": share,
            "shade": shade,
            "same": row == column,
            "link": self.link(row, column) if n else None,
            "column": column,
        }

    def figure(self) -> Figure:
        """Draw it as the report does."""
        from tumble.report.figures import confusion_figure

        names = list(dict.fromkeys([*self.rows, *self.columns]))
        square = pd.DataFrame(self.counts, index=list(self.rows), columns=list(self.columns))
        counts = square.reindex(index=names, columns=names, fill_value=0).to_numpy(np.int64)
        return confusion_figure(counts, names, row_name=self.row_name, column_name=self.column_name)
