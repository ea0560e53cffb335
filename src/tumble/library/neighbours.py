"""Nearest neighbours of a particle among a model's latent vectors, found through an index on one coordinate.

Whatever lies within a distance d of a point also lies within d of it along the first coordinate. So the particles next
to it along that coordinate are read, as many again on each side until the k-th best of them is nearer than the farthest
of those read: no other can be better then. The answer is exact, needs no index but the database's own, and holds no
more than a window of the library in memory. With few latent factors (two by default) the window is a small part of the
library; with many it becomes the whole. A wider window never reaches beyond the k-th best so far, nothing there can be
better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from tumble.errors import ConfigError
from tumble.library.encoding import float32_from_bytes
from tumble.library.models import find_model, predicting_model
from tumble.library.schema import particles, predictions

__all__ = ["nearest_neighbours"]

#: Particles read on each side at first.
FIRST_WINDOW = 512


def nearest_neighbours(
    connection: sa.Connection, particle_id: int, n: int, model_name: str | None = None
) -> pd.DataFrame:
    """Return the particles whose latent vectors are nearest to that of one particle, nearest first."""
    if n < 1:
        raise ConfigError(f"n is {n}; ask for at least one neighbour.")
    row = predicting_model(connection) if model_name is None else find_model(connection, model_name)
    if row is None:
        raise ConfigError("no model has classified the particles yet. Run `tumble classify` first.")
    mine = sa.select(predictions.c.latent, predictions.c.latent_0).where(
        predictions.c.model_id == row.id, predictions.c.particle_id == int(particle_id)
    )
    found = connection.execute(mine).first()
    if found is None or found.latent_0 is None:
        raise ConfigError(f"model {row.name!r} has no latent factors of a particle {particle_id}.")
    centre = float32_from_bytes(found.latent, (-1,)).astype(np.float64)
    window, nearest = FIRST_WINDOW, np.inf
    while True:
        ids, latents, reach = _window(connection, int(row.id), float(found.latent_0), window, nearest)
        distances = np.sqrt(((latents - centre) ** 2).sum(axis=1))
        distances[ids == particle_id] = np.inf  # itself
        order = np.lexsort((ids, distances))[: min(n, len(ids) - 1)]
        if reach == np.inf or (len(order) == n and distances[order[-1]] < reach):
            break
        window *= 4
        nearest = distances[order[-1]] if len(order) == n else np.inf
    return _table(connection, int(row.id), ids[order], distances[order])


def _window(
    connection: sa.Connection, model: int, centre: float, size: int, within: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]:
    """Return ids and latent vectors next to `centre`, and how far on the nearer side all were read.

    At most `size` are read on each side, and none beyond a distance `within`.
    """
    column = predictions.c.latent_0
    query = sa.select(predictions.c.particle_id, predictions.c.latent, column).where(predictions.c.model_id == model)
    lower, upper = query.where(column < centre), query.where(column >= centre)
    if within < np.inf:
        # Distances are of 32-bit numbers, the column of 64-bit ones: nothing may be lost to rounding.
        margin = within * (1 + 1e-6) + 1e-12
        lower, upper = lower.where(column >= centre - margin), upper.where(column <= centre + margin)
    below = connection.execute(lower.order_by(column.desc()).limit(size)).all()
    above = connection.execute(upper.order_by(column).limit(size)).all()
    reaches = [abs(side[-1].latent_0 - centre) for side in (below, above) if len(side) == size]
    rows: list[Any] = [*below, *above]
    latents = float32_from_bytes(b"".join(row.latent for row in rows), (len(rows), -1)).astype(np.float64)
    ids = np.array([row.particle_id for row in rows], dtype=np.int64)
    return ids, latents, min(reaches, default=np.inf)


def _table(
    connection: sa.Connection, model: int, ids: npt.NDArray[np.int64], distances: npt.NDArray[np.float64]
) -> pd.DataFrame:
    query = (
        sa.select(particles.c.id, particles.c.micrograph_id, predictions.c.class_name, predictions.c.probability)
        .select_from(particles.join(predictions, predictions.c.particle_id == particles.c.id))
        .where(predictions.c.model_id == model, particles.c.id.in_(ids.tolist()))
    )
    known = {int(row[0]): row for row in connection.execute(query)}
    rows = [known[int(i)] for i in ids]
    return pd.DataFrame(
        {
            "distance": distances,
            "micrograph_id": np.array([row[1] for row in rows], dtype=np.int64),
            "predicted": pd.Series([row[2] for row in rows], dtype=object).to_numpy(),
            "probability": np.array([row[3] for row in rows], dtype=np.float64),
        },
        index=pd.Index(ids, name="particle_id"),
    )
