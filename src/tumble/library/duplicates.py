"""Particles that are in the library twice: the same pixels, or nearly the same, in two micrographs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from tumble.errors import ConfigError
from tumble.library.fingerprints import hamming_distance
from tumble.library.images import CHUNK, chunks
from tumble.library.schema import particle_images, particles

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BITS", "identical_crops", "similar_crops"]

logger = logging.getLogger(__name__)

#: Of two hashes that differ in at most three of 64 bits, one of the four 16-bit quarters is equal.
MAX_BITS = 3

#: Candidates of one quarter that are compared with each other. Smooth round objects all have a few hashes: beyond this
#: the hash says nothing, and comparing them all would take for ever.
MAX_BUCKET = 2000

_COLUMNS = ("particle_id", "other_id", "micrograph_id", "other_micrograph_id", "correlation")


def identical_crops(connection: sa.Connection) -> pd.DataFrame:
    """Return the pairs of particles of two micrographs whose crops have the same pixels."""
    a, b = particles.alias(), particles.alias()
    query = (
        sa.select(a.c.id, b.c.id, a.c.micrograph_id, b.c.micrograph_id)
        .select_from(a.join(b, (a.c.crop_hash == b.c.crop_hash) & (a.c.id < b.c.id)))
        .where(a.c.micrograph_id != b.c.micrograph_id)
        .order_by(a.c.id, b.c.id)
    )
    rows = [(*map(int, row), 1.0) for row in connection.execute(query)]
    return _table(rows)


def similar_crops(connection: sa.Connection, min_correlation: float, max_size_ratio: float = 1.05) -> pd.DataFrame:
    """Return the pairs of particles of two micrographs whose crops are nearly the same.

    Candidates are crops whose difference hashes differ in at most `MAX_BITS` bits and whose areas are alike; of these,
    the pairs whose pixels correlate at least as asked for are given.
    """
    if not 0 < min_correlation <= 1:
        raise ConfigError(f"min_correlation is {min_correlation}; it must be above 0 and at most 1.")
    c = particles.c
    rows = connection.execute(sa.select(c.id, c.micrograph_id, c.crop_dhash, c.area_px).order_by(c.id)).all()
    known = [row for row in rows if row.crop_dhash is not None]
    ids = np.array([row.id for row in known], dtype=np.int64)
    micrographs = np.array([row.micrograph_id for row in known], dtype=np.int64)
    hashes = np.array([row.crop_dhash for row in known], dtype=np.int64)
    areas = np.array([row.area_px for row in known], dtype=object).astype(np.float64)
    pairs: set[tuple[int, int]] = set()
    for first, second in _candidates(hashes):
        near = (micrographs[first] != micrographs[second]) & (
            hamming_distance(hashes[first], hashes[second]) <= MAX_BITS
        )
        large, small = np.maximum(areas[first], areas[second]), np.minimum(areas[first], areas[second])
        near &= ~(large > max_size_ratio * small)  # unknown areas do not exclude
        pairs.update(zip(first[near].tolist(), second[near].tolist(), strict=True))
    found = []
    ordered = sorted(pairs)
    for start in range(0, len(ordered), CHUNK):
        chunk = np.array(ordered[start : start + CHUNK])
        for (i, j), value in zip(chunk, _correlations(connection, ids[chunk]), strict=True):
            if value >= min_correlation:
                found.append((ids[i], ids[j], micrographs[i], micrographs[j], value))
    return _table(found)


def _candidates(hashes: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield positions of pairs that have one of the four quarters of the hash in common."""
    quarters = hashes.view(np.uint64)[:, None] >> np.array([0, 16, 32, 48], dtype=np.uint64) & np.uint64(0xFFFF)
    skipped = 0
    for quarter in quarters.T:
        order = np.argsort(quarter, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(quarter[order])) + 1):
            if len(bucket) > MAX_BUCKET:
                skipped = max(skipped, len(bucket))
            elif len(bucket) > 1:
                first, second = np.triu_indices(len(bucket), 1)
                yield bucket[first], bucket[second]
    if skipped:
        logger.warning(
            "%d particles look so alike that their hashes do not tell them apart; pairs among them are left out",
            skipped,
        )


def _correlations(connection: sa.Connection, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    query = sa.select(particle_images.c.particle_id, particle_images.c.crop)
    wanted = np.unique(pairs).tolist()
    crops = {
        int(i): np.frombuffer(crop, dtype=np.uint8).astype(np.float64)
        for chunk in chunks(wanted)
        for i, crop in connection.execute(query.where(particle_images.c.particle_id.in_(chunk)))
    }
    return np.array([_correlation(crops[first], crops[second]) for first, second in pairs.tolist()])


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    if a.shape != b.shape:
        return 0.0
    if np.array_equal(a, b):
        return 1.0
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _table(rows: list[tuple[float, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_COLUMNS)
    kinds = (np.int64, np.int64, np.int64, np.int64, np.float64)
    data = {name: np.array(column, dtype=kind) for name, column, kind in zip(_COLUMNS, columns, kinds, strict=True)}
    return pd.DataFrame(data)
