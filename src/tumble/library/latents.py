"""Where a model puts each particle in its latent space, with what views colour it by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import sqlalchemy as sa

from tumble.library.encoding import float32_from_bytes
from tumble.library.label_log import read_current_labels
from tumble.library.models import find_model
from tumble.library.schema import particles, predictions
from tumble.library.search import among

__all__ = ["read_latents"]

_SIZES = ("equivalent_diameter_px", "equivalent_diameter_nm")


def read_latents(
    connection: sa.Connection, model_name: str | None = None, *, at_most: int | None = None, random_state: int = 0
) -> tuple[pd.DataFrame, int]:
    """Return one row per particle that a model has classified, and how many there are in all.

    Parameters
    ----------
    connection : Connection
        To the library.
    model_name : str, optional
        The model; the newest of all if not given.
    at_most : int, optional
        A random sample of so many where there are more.
    random_state : int, default 0
        Seed of the sample: the same library gives the same one.

    Returns
    -------
    table : DataFrame
        Indexed by `particle_id`: `micrograph_id`, `label`, `predicted`, `probability`, `novelty`, both equivalent
        diameters, and `latent_0` ...
    n : int
        Particles of the model, shown or not.
    """
    model = find_model(connection, model_name)
    said = predictions.c
    n = int(connection.scalar(sa.select(sa.func.count()).where(said.model_id == model.id)) or 0)
    query = (
        sa.select(said.particle_id, said.class_name, said.probability, said.novelty, said.latent)
        .add_columns(particles.c.micrograph_id, *(particles.c[name] for name in _SIZES))
        .select_from(predictions.join(particles, particles.c.id == said.particle_id))
        .where(said.model_id == model.id)
        .order_by(said.particle_id)
    )
    if at_most is not None and n > at_most:
        ids = connection.scalars(sa.select(said.particle_id).where(said.model_id == model.id)).all()
        drawn = np.random.default_rng(random_state).choice(np.sort(ids), at_most, replace=False)
        query = query.where(among(connection, said.particle_id, drawn.tolist()))
    rows = connection.execute(query).all()
    columns = list(zip(*rows, strict=True)) if rows else [()] * (6 + len(_SIZES))
    ids, classes, probability, novelty, latent, micrographs, *sizes = columns
    index = pd.Index(np.array(ids, np.int64), name="particle_id")
    table = pd.DataFrame({"micrograph_id": np.array(micrographs, np.int64)}, index=index)
    table["label"] = read_current_labels(connection).reindex(index).astype(object)
    table["label"] = table["label"].where(table["label"].notna(), None)
    table["predicted"] = pd.Series(classes, index=index, dtype=object)
    numbers = {"probability": probability, "novelty": novelty, **dict(zip(_SIZES, sizes, strict=True))}
    for name, values in numbers.items():
        table[name] = np.array(values, dtype=object).astype(np.float64)
    factors = float32_from_bytes(b"".join(latent), (len(rows), -1)) if rows else np.empty((0, 0), np.float32)
    for j in range(factors.shape[1]):
        table[f"latent_{j}"] = factors[:, j].astype(np.float64)
    return table, n
