"""The sizes of all particles with their classes, without their other measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tumble.library.label_log import read_current_labels
from tumble.library.models import find_model
from tumble.library.schema import particles, predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_sizes"]

_SIZES = ("equivalent_diameter_px", "equivalent_diameter_nm")


def read_sizes(connection: sa.Connection, model_name: str | None = None) -> pd.DataFrame:
    """Return one row per particle.

    Parameters
    ----------
    connection : Connection
        To the library.
    model_name : str, optional
        Whose predictions; none if not given.

    Returns
    -------
    DataFrame
        Indexed by `particle_id`: both equivalent diameters (NaN where unknown), `touches_border`, `label` and
        `predicted` (None where there is none).
    """
    own = [particles.c[name] for name in (*_SIZES, "touches_border")]
    source: Any = particles
    columns: list[Any] = [particles.c.id, *own]
    if model_name is not None:
        said = (predictions.c.particle_id == particles.c.id) & (
            predictions.c.model_id == find_model(connection, model_name).id
        )
        source = particles.join(predictions, said, isouter=True)
        columns.append(predictions.c.class_name)
    rows = connection.execute(sa.select(*columns).select_from(source).order_by(particles.c.id)).all()
    read = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    index = pd.Index(np.array(read[0], np.int64), name="particle_id")
    table = pd.DataFrame(index=index)
    for name, values in zip(_SIZES, read[1:3], strict=True):
        table[name] = np.array(values, dtype=object).astype(np.float64)
    table["touches_border"] = np.array([bool(value) for value in read[3]], dtype=bool)
    table["label"] = _texts(read_current_labels(connection).reindex(index).to_list(), index)
    table["predicted"] = _texts(read[4] if model_name is not None else [None] * len(index), index)
    return table


def _texts(values: Sequence[Any], index: pd.Index) -> pd.Series:
    return pd.Series([value if isinstance(value, str) else None for value in values], index=index, dtype=object)
