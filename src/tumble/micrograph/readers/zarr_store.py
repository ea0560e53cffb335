"""Zarr arrays of either version, and OME-Zarr images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import zarr

from tumble.errors import InputFileError
from tumble.micrograph.convert import plain_metadata
from tumble.micrograph.frames import Frame, Frames, FrameSource, array_frames, check_size
from tumble.micrograph.units import length_nm, square_pixel_size

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

__all__ = ["check_chunks", "open_zarr", "stored_bytes"]


@contextmanager
def open_zarr(source: FrameSource) -> Iterator[Frames]:
    """Open one array of a Zarr folder; of an OME-Zarr image the one of full resolution."""
    node: Any = zarr.open(source.file, mode="r", path=(source.inside or "").strip("/") or None)
    group_attributes: Mapping[str, Any] = {}
    scale: list[float | None] = []
    if not isinstance(node, zarr.Array):
        group_attributes = dict(node.attrs)
        node, scale = _choose(node, group_attributes, source)
    pixel_size_nm, note = square_pixel_size(scale)
    notes = tuple(filter(None, (note, check_chunks(node, source))))
    settings = plain_metadata({**group_attributes, **dict(node.attrs)})
    metadata: dict[str, Any] = {"dataset": node.path or "/"}
    if settings:
        metadata["settings"] = settings

    def describe(values: np.ndarray[Any, Any], shape_notes: tuple[str, ...]) -> Frame:
        return Frame(values, pixel_size_nm, metadata, (*shape_notes, *notes))

    shape = tuple(int(n) for n in node.shape)
    yield array_frames(source.name, shape, node.dtype, stored_bytes(source.file), lambda where: node[where], describe)


def check_chunks(array: Any, source: FrameSource) -> str:
    """Refuse chunks that would fill the memory, and note those that are missing, which read as the fill value."""
    # A chunk is unpacked as a whole, however little of it is asked for.
    check_size(source.name, (math.prod(array.chunks), 1), array.dtype.itemsize, stored_bytes(source.file))
    missing = array.nchunks - array.nchunks_initialized
    return (
        f"{missing} of {array.nchunks} chunks are not stored; their pixels have the fill value" if missing > 0 else ""
    )


def stored_bytes(file: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if file.is_file():
        return file.stat().st_size
    return sum(item.stat().st_size for item in file.rglob("*") if item.is_file())


def _choose(group: Any, attributes: Mapping[str, Any], source: FrameSource) -> tuple[Any, list[float | None]]:
    """Array of a group and the edges of its pixels in nm, from the multiscales of OME-NGFF 0.4 or 0.5."""
    ome = attributes.get("ome")
    multiscales = (ome if isinstance(ome, Mapping) else attributes).get("multiscales")
    if isinstance(multiscales, list) and multiscales:
        image = multiscales[0]
        finest = image["datasets"][0]
        axes = image.get("axes", [])
        units = [axis.get("unit") if isinstance(axis, Mapping) else None for axis in axes]
        scales = [t["scale"] for t in finest.get("coordinateTransformations", []) if t.get("type") == "scale"]
        edges = [length_nm(n, unit) for n, unit in zip(scales[0], units, strict=False)] if scales else []
        names = [axis.get("name") if isinstance(axis, Mapping) else axis for axis in axes]
        plane = [edge for name, edge in zip(names, edges, strict=False) if name in ("x", "y")]
        return group[finest["path"]], plane
    arrays = [name for name, _ in group.arrays()]
    if len(arrays) != 1:
        found = ", ".join(arrays[:8]) or "none"
        example = f", for example {source.name}:{arrays[0]}" if arrays else ""
        raise InputFileError(f"{source.name}: is a group with {len(arrays)} arrays ({found}). Name one{example}.")
    return group[arrays[0]], []
