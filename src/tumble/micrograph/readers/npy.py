"""NPY, NumPy's own format."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tumble.errors import InputFileError
from tumble.micrograph.frames import Frame, Frames, FrameSource, array_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_npy"]


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
