"""Which reader reads which file, by its suffix. Each is imported when the first such file is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tumble.errors import InputFileError
from tumble.micrograph.frames import FrameSource, Reader

__all__ = ["READABLE_SUFFIXES", "find_source", "load_reader"]


@dataclass(frozen=True)
class _Kind:
    """A kind of file: what reads it, whether images in it have names, whether it is (or may be) a folder."""

    module: str
    function: str
    named: bool = False
    folder: bool = False
    extra: str | None = None


_TIFF = _Kind("tiff", "open_tiff")
_PICTURE = _Kind("picture", "open_picture")
_HDF5 = _Kind("hdf5", "open_hdf5", named=True)
_ROSETTA = _Kind("rosettasciio", "open_rosettasciio", named=True, extra="formats")

_KINDS: dict[str, _Kind] = {
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".png": _PICTURE,
    ".jpg": _PICTURE,
    ".jpeg": _PICTURE,
    ".bmp": _PICTURE,
    ".npy": _Kind("npy", "open_npy"),
    ".mrc": _Kind("mrc", "open_mrc"),
    ".mrcs": _Kind("mrc", "open_mrc"),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".hdf": _HDF5,
    ".zarr": _Kind("zarr_store", "open_zarr", named=True, folder=True, extra="formats"),
    ".dm3": _ROSETTA,
    ".dm4": _ROSETTA,
    ".emd": _ROSETTA,
    ".ser": _ROSETTA,
    ".hspy": _ROSETTA,
    ".zspy": _Kind("zspy", "open_zspy", named=True, folder=True, extra="formats"),
}

#: Suffixes, in lower case, that :func:`tumble.read_micrograph` understands.
READABLE_SUFFIXES = tuple(_KINDS)

_NAMED = "|".join(re.escape(suffix) for suffix, kind in _KINDS.items() if kind.named)


def find_source(path: str | Path) -> FrameSource:
    """Take a path apart into a file and the name of an image in it, and check that the file can be read.

    Parameters
    ----------
    path : str or Path
        A file, or ``file.h5:/group/dataset`` for kinds of files whose images have names.

    Returns
    -------
    FrameSource

    Raises
    ------
    InputFileError
        There is no such file, it is empty, or of a kind that is not known.
    """
    name = str(path)
    file, inside = Path(path).expanduser(), None
    match = re.fullmatch(rf"(.+?(?:{_NAMED})):(.+)", name, re.IGNORECASE)
    if match and not file.exists():
        file, inside = Path(match[1]).expanduser(), match[2]
    source = FrameSource(file, name, inside)
    kind = _KINDS.get(file.suffix.lower())
    if file.is_dir() and not (kind and kind.folder):
        raise InputFileError(f"{name}: is a folder; give the image files in it.")
    if not file.exists():
        raise InputFileError(f"{name}: there is no such file; check the name.")
    if kind is None:
        raise InputFileError(
            f"{name}: files of kind {file.suffix or '(no suffix)'!r} cannot be read; known are "
            f"{', '.join(READABLE_SUFFIXES)}. Export the image as TIFF."
        )
    if not file.is_dir() and not file.is_file():
        raise InputFileError(f"{name}: is not a file but a device or a pipe; give an image file.")
    if file.is_file() and file.stat().st_size == 0:
        raise InputFileError(f"{name}: the file is empty; copy or export it again.")
    return source


def load_reader(source: FrameSource) -> Reader:
    """Import the reader of a file.

    Raises
    ------
    InputFileError
        The reader is part of an extra that is not installed.
    """
    suffix = source.file.suffix.lower()
    kind = _KINDS[suffix]
    try:
        module = import_module(f"tumble.micrograph.readers.{kind.module}")
    except ImportError as error:
        if kind.extra is None:
            raise
        raise InputFileError(
            f'{source.name}: {suffix} files are read by the extra "{kind.extra}", which is not installed. '
            f'Run: pip install "tumble[{kind.extra}]"'
        ) from error
    return getattr(module, kind.function)
