"""NPY, NumPy's own format."""

from __future__ import annotations

import io
import math
import warnings
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tumble.errors import InputFileError
from tumble.micrograph.frames import Frame, Frames, FrameSource, array_frames, damaged_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["npy_frames", "open_npy"]


@contextmanager
def open_npy(source: FrameSource) -> Iterator[Frames]:
    """Open an array without loading it; pickled objects are never loaded."""
    array = cast("Any", np.lib.format.open_memmap(source.file, mode="r"))
    if array.dtype.hasobject:
        raise InputFileError(f"{source.name}: holds Python objects, which are never loaded; save an array of numbers.")
    stored = math.prod(array.shape) * array.dtype.itemsize
    yield array_frames(
        source.name,
        array.shape,
        array.dtype,
        stored,
        lambda where: np.array(array[where]),
        lambda values, notes: Frame(values, notes=notes),
    )


def npy_frames(content: bytes, name: str) -> Frames:
    """Give the images of an NPY file that is in memory, without a copy of them; pickled objects are never loaded.

    Parameters
    ----------
    content : bytes
        The whole file.
    name : str
        What the user calls it, for messages.

    Returns
    -------
    Frames
        Their arrays are read-only.

    Raises
    ------
    InputFileError
        If it is damaged, incomplete, too large or not an array of plain numbers.
    """
    try:
        array = _array(content)
    except Exception as error:
        raise damaged_file(name, Path("content.npy"), error) from error
    return array_frames(
        name,
        array.shape,
        array.dtype,
        array.nbytes,
        lambda where: array[where],
        lambda values, notes: Frame(values, notes=notes),
    )


def _array(content: bytes) -> npt.NDArray[Any]:
    shape, fortran, dtype, start = _header(content[: _header_bytes(content)])
    # In Python's integers, which do not overflow: a header may promise any shape.
    promised = math.prod(shape) * dtype.itemsize
    if promised > len(content) - start:
        raise ValueError(f"it ends after {len(content) - start:,} of {promised:,} bytes")
    return np.ndarray(shape, dtype, content, start, order="F" if fortran else "C")


def _header_bytes(content: bytes) -> int:
    """Bytes before the values: the magic, the version, the length of the description, and the description."""
    width = 2 if content[6:7] == b"\x01" else 4
    return 8 + width + int.from_bytes(content[8 : 8 + width], "little")


@lru_cache(maxsize=64)  # who sends many files sends many alike, and NumPy takes its time to understand a header
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:  # version 3 differs in the names of fields alone, and records are no images
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not read")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded; save an array of numbers")
    return shape, fortran, dtype, stream.tell()


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
