"""HDF5: any numeric dataset that looks like an image or a stack of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tumble.errors import InputFileError
from tumble.micrograph.convert import MIN_SIDE_PX, plain_metadata
from tumble.micrograph.frames import Frame, Frames, FrameSource, array_frames
from tumble.micrograph.units import length_nm, square_pixel_size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_hdf5"]

#: Datasets named in a message.
MAX_NAMED = 8

#: Objects looked at in search of images; a file with more is asked for a path.
MAX_VISITED = 10_000


@contextmanager
def open_hdf5(source: FrameSource) -> Iterator[Frames]:
    """Open one dataset of an HDF5 file.

    The pixel size is taken from ``element_size_um``, the attribute that ilastik and Fiji's HDF5 plugin write
    (in µm, one number per axis).
    """
    with h5py.File(source.file, "r") as file:
        dataset = _choose(file, source)
        stored = dataset.id.get_storage_size()
        pixel_size_nm, note = square_pixel_size(_element_size_nm(dataset))
        notes = tuple(filter(None, (note, _missing_chunks(dataset))))
        if dataset.external or dataset.is_virtual:
            # Such a dataset may name any file of this machine.
            raise InputFileError(
                f"{source.name}: takes its pixels from other files; give those, or copy it into one file."
            )
        metadata = {"dataset": dataset.name}
        settings = plain_metadata({key: _attribute(dataset, key) for key in dataset.attrs})
        if settings:
            metadata["settings"] = settings  # type: ignore[assignment]

        def describe(values: np.ndarray[Any, Any], shape_notes: tuple[str, ...]) -> Frame:
            return Frame(values, pixel_size_nm, metadata, (*shape_notes, *notes))

        shape = tuple(int(n) for n in dataset.shape)
        yield array_frames(source.name, shape, dataset.dtype, stored, lambda where: dataset[where], describe)


def _attribute(dataset: h5py.Dataset, key: str) -> Any:
    try:
        return dataset.attrs[key]
    except (OSError, TypeError, ValueError, KeyError):  # of a type that h5py does not know
        return None


def _choose(file: h5py.File, source: FrameSource) -> h5py.Dataset:
    if source.inside is not None:
        try:
            found: Any = file[source.inside]
        except (KeyError, ValueError):
            names = _names(_images(file))
            raise InputFileError(
                f"{source.name}: has no dataset {source.inside!r}; images in it are {names}."
            ) from None
        if not isinstance(found, h5py.Dataset):
            raise InputFileError(f"{source.name}: {source.inside!r} is a group; name a dataset in it.")
        if not found.shape:
            raise InputFileError(f"{source.name}: {source.inside!r} is a single value; name an image.")
        return found
    images = _images(file)
    if not images:
        raise InputFileError(f"{source.name}: holds no dataset that could be an image.")
    if len(images) > 1:
        raise InputFileError(
            f"{source.name}: holds {len(images)} datasets. Name the one that you want, for example "
            f"{source.name}:{next(iter(images))} (found: {_names(images)})."
        )
    return next(iter(images.values()))


def _names(images: dict[str, h5py.Dataset]) -> str:
    more = f" and {len(images) - MAX_NAMED} more" if len(images) > MAX_NAMED else ""
    return (", ".join(list(images)[:MAX_NAMED]) or "none") + more


def _images(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All datasets that could be images, by their paths."""
    images: dict[str, h5py.Dataset] = {}
    visited = 0

    def visit(name: str, item: Any) -> bool | None:
        nonlocal visited
        visited += 1
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "buif":
            sides = [n for n in item.shape or () if n >= MIN_SIDE_PX]
            if len(sides) >= 2:
                images["/" + name] = item
        return True if visited > MAX_VISITED else None

    file.visititems(visit)
    return images


def _element_size_nm(dataset: h5py.Dataset) -> list[float | None]:
    size = _attribute(dataset, "element_size_um")
    edges = np.ravel(np.asarray(size)) if size is not None else np.empty(0)
    if edges.dtype.kind not in "fiu" or len(edges) < 2:
        return []
    return [length_nm(float(edge), "um") for edge in edges[-2:]]


def _missing_chunks(dataset: h5py.Dataset) -> str:
    """Note chunks that were never written, which read as the fill value."""
    if dataset.chunks is None:
        if dataset.id.get_storage_size() == 0:
            return "no pixels were ever stored; all have the fill value"
        return ""
    expected = int(np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)], dtype=object))
    stored = dataset.id.get_num_chunks()
    if stored >= expected:
        return ""
    return f"{expected - stored} of {expected} chunks were never stored; their pixels have the fill value"
