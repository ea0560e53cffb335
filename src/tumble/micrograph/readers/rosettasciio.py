"""DM3, DM4, EMD (Velox and Berkeley), SER and HSPY through RosettaSciIO.

RosettaSciIO is under the GNU GPL, which is why it is an extra and is imported nowhere else.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import rsciio  # noqa: F401 - here for the error where the extra is missing

from tumble.errors import InputFileError
from tumble.micrograph.convert import hyperspy_metadata
from tumble.micrograph.frames import Frame, Frames, FrameSource, array_frames
from tumble.micrograph.readers.dm_tags import check_dm_tags
from tumble.micrograph.units import length_nm, square_pixel_size

__all__ = ["open_rosettasciio"]

logging.getLogger("rsciio").addHandler(logging.NullHandler())

_MODULES = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".ser": "tia",
    ".hspy": "hspy",
}

#: Bytes of the values of SER images, by their code.
SER_BYTES = {1: 1, 2: 2, 3: 4, 4: 1, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 16}

#: Signals named in a message.
MAX_NAMED = 8


@contextmanager
def open_rosettasciio(source: FrameSource) -> Iterator[Frames]:
    """Open one image signal of a file; its navigation axes count frames."""
    module = import_module(f"rsciio.{_MODULES[source.file.suffix.lower()]}")
    suffix = source.file.suffix.lower()
    if suffix == ".ser":
        _check_ser(source)
    elif suffix in (".dm3", ".dm4"):
        check_dm_tags(source)
    try:
        # Lazily: arrays are Dask's and nothing is read before a frame is asked for.
        signals = module.file_reader(str(source.file), lazy=True)
    except ModuleNotFoundError as error:  # spectrum images of Velox need a package that is heavy
        raise InputFileError(
            f"{source.name}: is read with the package {error.name or 'sparse'} too, which is not installed. "
            f"Run: pip install {error.name or 'sparse'}"
        ) from error
    signal = _choose([signal for signal in signals if _is_image(signal)], source)
    data = signal["data"]
    axes = list(signal["axes"])[-2:] if len(signal["axes"]) >= 2 else []
    if {axis.get("units") for axis in axes} & {"1/nm", "1/Å", "1/m", "rad", "mrad", "1 / nm", "1 / m"}:
        raise InputFileError(f"{source.name}: is a diffraction pattern (axes in {axes[-1]['units']}), not an image.")
    sizes = [length_nm(axis.get("scale"), axis.get("units")) for axis in axes]
    # Where the unit is no length or is missing, the scale says nothing.
    pixel_size_nm, note = square_pixel_size(sizes if all(size is not None for size in sizes) else [])
    metadata = _metadata(signal)

    def describe(values: np.ndarray[Any, Any], notes: tuple[str, ...]) -> Frame:
        return Frame(values, pixel_size_nm, metadata, (*notes, *filter(None, (note,))))

    def read(where: tuple[int | slice, ...]) -> Any:
        part = data[where]
        return part.compute(scheduler="synchronous") if hasattr(part, "compute") else part

    shape = tuple(int(n) for n in data.shape)
    yield array_frames(source.name, shape, np.dtype(data.dtype), source.file.stat().st_size, read, describe)


def _check_ser(source: FrameSource) -> None:
    """Check that what the header of a SER file counts is in the file, before memory is taken for it."""
    size = source.file.stat().st_size
    with source.file.open("rb") as file:
        head = file.read(34)
        if len(head) < 34:
            raise InputFileError(f"{source.name}: ends within its header; the copy is incomplete. Copy it again.")
        version, n_elements, n_valid = struct.unpack_from("<H", head, 4)[0], *struct.unpack_from("<LL", head, 14)
        wide = version > 0x210
        table_at, n_dimensions = struct.unpack_from("<QL" if wide else "<LL", head, 22)
        width = 8 if wide else 4
        fits = n_valid <= n_elements and table_at + 2 * width * n_elements <= size and n_dimensions <= 8
        first = 0
        if fits and n_elements:
            file.seek(table_at)
            (first,) = struct.unpack("<Q" if wide else "<L", file.read(width))
            fits = first + 50 <= size
        if fits and struct.unpack_from("<L", head, 6)[0] == 0x4122:  # images, not spectra
            file.seek(first + 40)
            kind, columns, rows = struct.unpack("<HLL", file.read(10))
            fits = first + 50 + columns * rows * SER_BYTES.get(kind, 1) <= size
        place = 34 if wide else 30
        for _ in range(n_dimensions if fits else 0):
            for skipped in (24, 0):  # before the description, and before the unit
                file.seek(place + skipped)
                (length,) = struct.unpack("<L", file.read(4).ljust(4, b"\xff"))
                place += skipped + 4 + length
                fits = fits and place <= size
    if not fits:
        raise InputFileError(f"{source.name}: ends after {size} bytes, before its images do; copy or export it again.")


def _is_image(signal: Mapping[str, Any]) -> bool:
    """Whether the last two axes span an image; spectra have one axis that is not navigated."""
    if signal["data"] is None or len(signal["data"].shape) < 2:
        return False
    navigated = [bool(axis.get("navigate", False)) for axis in signal["axes"]]
    return all(navigated) or navigated[-2:] == [False, False] or len(navigated) < 2


def _choose(images: list[Mapping[str, Any]], source: FrameSource) -> Mapping[str, Any]:
    titles = [_title(signal) or str(index) for index, signal in enumerate(images)]
    found = ", ".join(titles[:MAX_NAMED]) or "none"
    if source.inside is not None:
        wanted = source.inside.strip("/")
        matching = [signal for signal, title in zip(images, titles, strict=True) if title.strip("/") == wanted]
        if not matching and wanted.isdecimal() and int(wanted) < len(images):
            return images[int(wanted)]
        if len(matching) != 1:
            raise InputFileError(
                f"{source.name}: has {len(matching) or 'no'} image {wanted!r}; images in it are {found}. "
                "An image can also be given by its number, from 0."
            )
        return matching[0]
    if not images:
        raise InputFileError(f"{source.name}: holds no image.")
    if len(images) > 1:
        raise InputFileError(
            f"{source.name}: holds {len(images)} images ({found}). Name one, for example {source.name}:{titles[0]}, "
            f"or give its number, {source.name}:0."
        )
    return images[0]


def _title(signal: Mapping[str, Any]) -> str:
    general = signal.get("metadata", {}).get("General", {})
    return str(general.get("title", "")) if isinstance(general, Mapping) else ""


def _metadata(signal: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in the common form of HyperSpy, with the entries that it derives from the file's own."""
    settings = dict(signal.get("metadata", {}))
    original = signal.get("original_metadata", {})
    for path, (place, convert) in (signal.get("mapping") or {}).items():
        value = _at(original, path)
        if value is not None:
            _put(settings, place, value, convert)
    return hyperspy_metadata(settings)


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _put(tree: dict[str, Any], place: str, value: Any, convert: Callable[[Any], Any] | None) -> None:
    try:
        value = convert(value) if convert else value
    except Exception:  # whatever a strange value makes of it: the entry is left out
        return
    *groups, name = place.split(".")
    for key in groups:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[name] = value
