"""ZSPY, HyperSpy's layout in Zarr, read with Zarr itself: RosettaSciIO reads it with Zarr 2 alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import ZipStore

from tumble.errors import InputFileError
from tumble.micrograph.convert import hyperspy_metadata
from tumble.micrograph.frames import Frame, Frames, FrameSource, array_frames
from tumble.micrograph.readers.zarr_store import check_chunks, stored_bytes
from tumble.micrograph.units import length_nm, square_pixel_size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_zspy"]


@contextmanager
def open_zspy(source: FrameSource) -> Iterator[Frames]:
    """Open the signal of a ZSPY folder or file; its navigation axes count frames."""
    store: Any = ZipStore(source.file, mode="r") if source.file.is_file() else source.file
    try:
        experiments: Any = zarr.open_group(store, mode="r", path="Experiments")
        names = sorted(experiments.group_keys())
        wanted = source.inside.strip("/") if source.inside else None
        if wanted not in names and (wanted is not None or len(names) != 1):
            raise InputFileError(
                f"{source.name}: holds {len(names)} signals ({', '.join(names[:8]) or 'none'}). Name one of them, "
                f"as in {source.file.name}:NAME."
            )
        signal = experiments[wanted or names[0]]
        data = signal["data"]
        axes = sorted(
            (dict(group.attrs) for name, group in signal.groups() if name.startswith("axis-")),
            key=lambda axis: axis.get("index_in_array", 0),
        )
        edges = [length_nm(axis.get("scale"), axis.get("units")) for axis in axes[-2:]]
        pixel_size_nm, note = square_pixel_size(edges if all(edge is not None for edge in edges) else [])
        metadata = hyperspy_metadata(_tree(signal["metadata"]) if "metadata" in signal else {})
        notes = tuple(filter(None, (note, check_chunks(data, source))))

        def describe(values: np.ndarray[Any, Any], shape_notes: tuple[str, ...]) -> Frame:
            return Frame(values, pixel_size_nm, metadata, (*shape_notes, *notes))

        shape = tuple(int(n) for n in data.shape)
        yield array_frames(
            source.name, shape, data.dtype, stored_bytes(source.file), lambda where: np.asarray(data[where]), describe
        )
    finally:
        if source.file.is_file():
            store.close()


def _tree(group: Any) -> dict[str, Any]:
    """Attributes of a group and of the groups in it."""
    return {**dict(group.attrs), **{name: _tree(child) for name, child in group.groups()}}
