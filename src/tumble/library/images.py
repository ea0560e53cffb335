"""Micrographs and the images of their particles: rows of the database from arrays, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from tumble._version import __version__
from tumble.errors import DataError, LibraryError
from tumble.library.encoding import (
    float32_from_bytes,
    float32_to_bytes,
    pack_array,
    png_from_image,
    png_to_image,
    storable_text,
    unpack_array,
    utc_now,
)
from tumble.library.fingerprints import difference_hashes, exact_hash
from tumble.library.measurements import measurement_layout, measurement_rows
from tumble.library.schema import Json, micrographs, particle_images, particles

if TYPE_CHECKING:
    from tumble.types import Micrograph, Particles

__all__ = [
    "CHUNK",
    "chunks",
    "find_micrograph",
    "insert_micrograph",
    "inserted_id",
    "json_form",
    "micrograph_row",
    "read_crops",
    "read_mask",
    "read_micrographs",
    "read_outlines",
    "read_preview",
    "require_micrograph",
    "some",
    "unknown_particles",
]

#: Rows per statement: below the number of variables that any SQLite allows, large enough to be fast.
CHUNK = 500

#: Longest side of the preview of a micrograph, in px.
PREVIEW_SIDE_PX = 2048


def chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut `items` into lists of at most `CHUNK`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def find_micrograph(connection: sa.Connection, content_hash: str) -> Any | None:
    """Return id and extraction settings of the micrograph with this content."""
    query = sa.select(micrographs.c.id, micrographs.c.extraction).where(micrographs.c.content_hash == content_hash)
    return connection.execute(query).first()


def micrograph_row(micrograph: Micrograph, found: Particles, file_hash: str | None = None) -> dict[str, Any]:
    """Check that the parts fit each other and return the row of the micrograph."""
    n, shape = len(found.table), micrograph.pixels.shape
    if found.mask.shape != shape:
        raise DataError(f"{micrograph.source}: mask of shape {found.mask.shape} for an image of shape {shape}.")
    if not len(found.crops) == len(found.outlines) == n:
        raise DataError(
            f"{micrograph.source}: {n} particles are measured, but there are {len(found.crops)} crops and "
            f"{len(found.outlines)} outlines."
        )
    crops = found.crops
    if crops.dtype != np.uint8 or crops.ndim != 3 or crops.shape[1] != crops.shape[2]:
        raise DataError(f"{micrograph.source}: crops must be uint8 (n, S, S), not {crops.dtype} {crops.shape}.")
    if found.mask.size and not 0 <= int(found.mask.min()) <= int(found.mask.max()) <= n:
        raise DataError(f"{micrograph.source}: the mask has labels outside 0..{n}.")
    low, high = intensity_range(micrograph, found)
    preview, scale = make_preview(micrograph.pixels, low, high)
    return {
        "content_hash": micrograph.content_hash,
        "source": storable_text(micrograph.source),
        "height_px": shape[0],
        "width_px": shape[1],
        "dtype": str(micrograph.pixels.dtype),
        "pixel_size_nm": None if micrograph.pixel_size_nm is None else float(micrograph.pixel_size_nm),
        "metadata": dict(micrograph.metadata),
        "notes": list(micrograph.notes),
        "extraction": dict(found.parameters),
        "measurements": measurement_layout(found.table),
        "intensity_low": low,
        "intensity_high": high,
        "crop_side_px": crops.shape[1],
        "preview": png_from_image(preview),
        "preview_scale": scale,
        "mask": pack_array(found.mask.astype(np.min_scalar_type(n))),
        "tumble_version": __version__,
        "added_at": utc_now(),
        "file_hash": file_hash,
    }


def intensity_range(micrograph: Micrograph, found: Particles) -> tuple[float, float]:
    """Return the intensities that are black and white in the crops."""
    stated = found.parameters.get("intensity_range")
    if isinstance(stated, Sequence) and len(stated) == 2:
        return float(stated[0]), float(stated[1])
    if micrograph.pixels.dtype == np.uint8:
        return 0.0, 255.0
    return float(micrograph.pixels.min()), float(micrograph.pixels.max())


def make_preview(pixels: npt.NDArray[Any], low: float, high: float) -> tuple[npt.NDArray[np.uint8], float]:
    """Return a grey image of at most `PREVIEW_SIDE_PX` and the preview px per image px.

    Whole blocks of k x k px are averaged, so that positions scale by exactly 1 / k.
    """
    k = max(1, -(-max(pixels.shape) // PREVIEW_SIDE_PX))
    values = pixels.astype(np.float32)
    if k > 1:
        margins = [(0, -side % k) for side in pixels.shape]
        values = np.pad(values, margins, mode="edge")
        values = values.reshape(values.shape[0] // k, k, values.shape[1] // k, k).mean(axis=(1, 3))
    contrast = 255.0 / (high - low) if high > low else 0.0
    return np.clip(np.rint((values - low) * contrast), 0, 255).astype(np.uint8), 1.0 / k


def insert_micrograph(
    connection: sa.Connection,
    row: dict[str, Any],
    found: Particles,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Insert one micrograph with all its particles; the caller's transaction makes it all or nothing."""
    micrograph_id = inserted_id(connection, micrographs, row)
    for chunk in chunks(_particle_rows(micrograph_id, found)):
        connection.execute(sa.insert(particles), chunk)
    ids = connection.scalars(
        sa.select(particles.c.id)
        .where(particles.c.micrograph_id == micrograph_id)
        .order_by(particles.c.index_in_micrograph)
    ).all()
    done = 0
    for chunk in chunks(zip(ids, found.crops, found.outlines, strict=True)):
        rows = [
            {"particle_id": i, "crop": crop.tobytes(), "outline": float32_to_bytes(outline)}
            for i, crop, outline in chunk
        ]
        connection.execute(sa.insert(particle_images), rows)
        done += len(rows)
        if progress is not None:
            progress(done, len(ids))
    return micrograph_id


def inserted_id(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> int:
    """Insert one row and return its id."""
    key = connection.execute(sa.insert(table), row).inserted_primary_key
    assert key is not None
    return int(key[0])


def _particle_rows(micrograph_id: int, found: Particles) -> Iterator[dict[str, Any]]:
    alike = difference_hashes(found.crops).tolist()
    for i, values in enumerate(measurement_rows(found.table)):
        hashes = {"crop_hash": exact_hash(found.crops[i].tobytes()), "crop_dhash": alike[i]}
        yield {"micrograph_id": micrograph_id, "index_in_micrograph": i, **hashes, **values}


def unknown_particles(connection: sa.Connection, ids: Sequence[int]) -> list[int]:
    """Return those of `ids` that the library does not have."""
    known: set[int] = set()
    for chunk in chunks(set(ids)):
        known.update(connection.scalars(sa.select(particles.c.id).where(particles.c.id.in_(chunk))))
    return sorted(set(ids) - known)


def read_crops(connection: sa.Connection, ids: Sequence[int] | None) -> npt.NDArray[np.uint8]:
    """Return crops in the order of `ids`, or all of them by id."""
    query = sa.select(particles.c.id, micrographs.c.crop_side_px, particle_images.c.crop).select_from(
        particles.join(micrographs).join(particle_images)
    )
    if ids is None:
        rows = list(connection.execute(query.order_by(particles.c.id)))
        order: Sequence[int] = [row.id for row in rows]
    else:
        rows = []
        for chunk in chunks(set(ids)):
            rows.extend(connection.execute(query.where(particles.c.id.in_(chunk))))
        order = ids
    sides = sorted({row.crop_side_px for row in rows})
    if len(sides) > 1:
        raise LibraryError(
            f"the crops have different sides ({', '.join(map(str, sides))} px) and do not fit one array. "
            "Ask for those of one micrograph, or add all micrographs with the same crop size."
        )
    by_id = {row.id: row.crop for row in rows}
    missing = sorted(set(order) - set(by_id))
    if missing:
        raise LibraryError(f"there is no particle with id {some(missing)} in this library.")
    if not rows:
        side = connection.scalar(sa.select(micrographs.c.crop_side_px).limit(1)) or 0
        return np.empty((0, side, side), dtype=np.uint8)
    crops = np.empty((len(order), sides[0], sides[0]), dtype=np.uint8)
    for i, particle_id in enumerate(order):
        crops[i] = np.frombuffer(by_id[particle_id], dtype=np.uint8).reshape(sides[0], sides[0])
    return crops


def some(ids: Sequence[int], at_most: int = 5) -> str:
    """Write the first few of `ids`."""
    text = ", ".join(str(i) for i in ids[:at_most])
    return text if len(ids) <= at_most else f"{text} and {len(ids) - at_most} more"


def json_form(value: Any) -> Any:
    """Return `value` as it comes back from the database, for example with lists for tuples."""
    return json.loads(Json.dumps(value))


def read_micrographs(connection: sa.Connection) -> pd.DataFrame:
    """Return what is known about each micrograph, without its images."""
    counts = (
        sa.select(particles.c.micrograph_id, sa.func.count().label("n_particles"))
        .group_by(particles.c.micrograph_id)
        .subquery()
    )
    c = micrographs.c
    columns = (c.source, c.content_hash, c.height_px, c.width_px, c.pixel_size_nm)
    more = (c.notes, c.extraction, c.added_at, c.dtype, c.crop_side_px, c.intensity_low, c.intensity_high)
    query = (
        sa.select(c.id, *columns, sa.func.coalesce(counts.c.n_particles, 0).label("n_particles"), *more)
        .add_columns(c.metadata, c.tumble_version, c.file_hash)
        .select_from(micrographs.outerjoin(counts, counts.c.micrograph_id == c.id))
        .order_by(c.id)
    )
    result = connection.execute(query)
    names, rows = list(result.keys()), result.all()
    frame = pd.DataFrame({name: _objects([row[i] for row in rows]) for i, name in enumerate(names)})
    frame["notes"] = _objects([tuple(notes) for notes in frame["notes"]])
    numeric: dict[str, Any] = dict.fromkeys(("id", "height_px", "width_px", "n_particles", "crop_side_px"), np.int64)
    numeric |= dict.fromkeys(("pixel_size_nm", "intensity_low", "intensity_high"), np.float64)
    frame = frame.astype(numeric).rename(columns={"id": "micrograph_id"})
    return frame.set_index("micrograph_id")


def read_sources(connection: sa.Connection) -> dict[int, str]:
    """Return the source of each micrograph by its id, in the order of the ids."""
    rows = connection.execute(sa.select(micrographs.c.id, micrographs.c.source).order_by(micrographs.c.id))
    return {int(number): source for number, source in rows}


def read_beginning(connection: sa.Connection) -> str:
    """Return content and date of the first micrograph as one text, "" where there is none."""
    columns = (micrographs.c.content_hash, micrographs.c.added_at)
    row = connection.execute(sa.select(*columns).order_by(micrographs.c.id).limit(1)).first()
    return "" if row is None else "".join(map(str, row))


def _objects(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Return a column in which each value stays the Python object that it is."""
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def require_micrograph(connection: sa.Connection, micrograph_id: int) -> None:
    """Raise `LibraryError` where there is no such micrograph."""
    _micrograph(connection, micrograph_id, micrographs.c.id)


def _micrograph(connection: sa.Connection, micrograph_id: int, *columns: sa.Column[Any]) -> Any:
    row = connection.execute(sa.select(*columns).where(micrographs.c.id == int(micrograph_id))).first()
    if row is None:
        raise LibraryError(f"there is no micrograph with id {micrograph_id} in this library.")
    return row


def read_preview(connection: sa.Connection, micrograph_id: int) -> tuple[npt.NDArray[np.uint8], float]:
    """Return the preview image and its scale."""
    row = _micrograph(connection, micrograph_id, micrographs.c.preview, micrographs.c.preview_scale)
    return png_to_image(row.preview), row.preview_scale


def read_outlines(connection: sa.Connection, micrograph_id: int) -> dict[int, npt.NDArray[np.float32]]:
    """Return the outlines of one micrograph by particle id."""
    require_micrograph(connection, micrograph_id)
    query = (
        sa.select(particles.c.id, particle_images.c.outline)
        .select_from(particles.join(particle_images))
        .where(particles.c.micrograph_id == int(micrograph_id))
        .order_by(particles.c.id)
    )
    return {i: float32_from_bytes(outline, (-1, 2)) for i, outline in connection.execute(query)}


def read_mask(connection: sa.Connection, micrograph_id: int) -> npt.NDArray[np.int32]:
    """Return the label image of one micrograph with particle ids in place of row numbers."""
    mask = unpack_array(_micrograph(connection, micrograph_id, micrographs.c.mask).mask)
    query = sa.select(particles.c.index_in_micrograph, particles.c.id).where(
        particles.c.micrograph_id == int(micrograph_id)
    )
    pairs = connection.execute(query).all()
    ids = np.zeros(len(pairs) + 1, dtype=np.int32)
    for index, particle_id in pairs:
        ids[index + 1] = particle_id
    return ids[mask]
