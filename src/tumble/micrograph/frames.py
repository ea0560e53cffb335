"""What every reader of micrographs gives back, and the limits and errors they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.errors import InputFileError
from tumble.micrograph.limits import MAX_FRAME_PX, read_limits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "MAX_FRAME_PX",
    "Frame",
    "FrameSource",
    "Frames",
    "Reader",
    "array_frames",
    "check_size",
    "damaged_file",
    "readable_size",
]

#: A frame may be larger than its file by this factor. Deflate, the densest of the usual compressions, reaches 1,032.
MAX_COMPRESSION = 1_032

#: Frames below this size are harmless, however well they compress.
HARMLESS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FrameSource:
    """Which images are to be read.

    Parameters
    ----------
    file : Path
        An existing file, or a folder for kinds that are folders.
    name : str
        The file as the user wrote it, for messages.
    inside : str or None
        Path or name of the image within the file, None where the user named none.
    """

    file: Path
    name: str
    inside: str | None = None


@dataclass(frozen=True)
class Frame:
    """One image as the file holds it, and what the file says about it.

    Parameters
    ----------
    array : ndarray of shape (H, W) or (H, W, channels)
        Values in the type of the file.
    pixel_size_nm : float or None
        Edge of a pixel, None where the file does not say.
    metadata : mapping
        Instrument metadata, JSON-serialisable.
    notes : tuple of str
        What was changed or could not be used.
    banner_row : int or None
        First row of the data banner where the file says so.
    """

    array: npt.NDArray[Any]
    pixel_size_nm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    banner_row: int | None = None


@dataclass(frozen=True)
class Frames:
    """The images of an open file, each of which is read when it is asked for.

    Parameters
    ----------
    n : int
        How many there are.
    read : callable
        Gives the frame with a number from 0 to n - 1.
    """

    n: int
    read: Callable[[int], Frame]

    def __iter__(self) -> Iterator[Frame]:
        return (self.read(index) for index in range(self.n))


#: Opens a file and closes it again; its frames can be read in between.
Reader = Callable[[FrameSource], AbstractContextManager[Frames]]


def damaged_file(name: str, file: Path, error: BaseException) -> InputFileError:
    """Make the error for a file that a decoder gave up on.

    Decoders raise whatever a damaged file happens to trigger; to the user it is one and the same thing.

    Parameters
    ----------
    name : str
        The file as the user wrote it.
    file : Path
        The file, for its kind.
    error : Exception
        What the decoder raised.

    Returns
    -------
    InputFileError
    """
    detail = str(error).strip().splitlines()
    reason = detail[0][:200] if detail else type(error).__name__
    if isinstance(error, MemoryError):
        reason = "it asks for more memory than there is"
    return InputFileError(
        f"{name}: cannot be read as {file.suffix.lower().lstrip('.').upper()}: {reason}. The file is "
        "damaged, incomplete or of another kind than its name says; copy or export it again."
    )


def check_size(name: str, shape: Sequence[int], itemsize: int, stored_bytes: int) -> None:
    """Refuse a frame that would fill the memory, before it is decoded.

    Parameters
    ----------
    name : str
        The file as the user wrote it.
    shape : sequence of int
        Shape of the frame, as its header says.
    itemsize : int
        Bytes of one value.
    stored_bytes : int
        Bytes that the file spends on it, or size of the file.

    Raises
    ------
    InputFileError
        It has more pixels than the limits allow (`MAX_FRAME_PX` by default), or claims to be compressed as no image is.
    """
    pixels = math.prod(shape[:2])
    size = math.prod(shape) * itemsize
    limit = read_limits().max_frame_px
    if pixels > limit:
        side = math.isqrt(limit)
        raise InputFileError(
            f"{name}: says that it holds an image of {' x '.join(map(str, shape[:2]))} px; at most "
            f"{limit:,} px are read ({side:,} x {side:,}). Cut it into tiles, or bin it."
        )
    if size > max(HARMLESS_BYTES, MAX_COMPRESSION * stored_bytes):
        raise InputFileError(
            f"{name}: says that it unpacks from {readable_size(stored_bytes)} to {readable_size(size)}; the limit is "
            f"{MAX_COMPRESSION:,} times. It is damaged or made to fill the memory; copy or export it again."
        )


def readable_size(n_bytes: int) -> str:
    """Write a number of bytes as people say it.

    >>> readable_size(2500), readable_size(3 * 2**30)
    ('2 kB', '3072 MB')
    """
    return f"{n_bytes / 2**20:.0f} MB" if n_bytes >= 2**20 else f"{n_bytes // 1024} kB" if n_bytes >= 1024 else "1 kB"


def array_frames(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    stored_bytes: int,
    read: Callable[[tuple[int | slice, ...]], Any],
    describe: Callable[[npt.NDArray[Any], tuple[str, ...]], Frame],
) -> Frames:
    """Make the frames of an array with any number of axes.

    The last two axes of more than one element are rows and columns, or the last three where the last has 2 to 4
    elements, which are then colours. All axes before them count frames.

    Parameters
    ----------
    name : str
        The file as the user wrote it.
    shape : tuple of int
        Shape of the array.
    dtype : dtype
        Type of its values.
    stored_bytes : int
        Bytes that the file spends on it.
    read : callable
        Gives the part of the array at an index.
    describe : callable
        Makes the frame of its array and of what has to be noted.

    Returns
    -------
    Frames
    """
    if dtype.fields is not None or dtype.hasobject:
        raise InputFileError(f"{name}: holds records or objects, not numbers; save one array of intensities.")
    if 0 in shape or len(shape) < 2:
        raise InputFileError(
            f"{name}: holds an array of shape {shape}, which is no image; give one with rows and columns."
        )
    long_axes = [axis for axis, n in enumerate(shape) if n > 1]
    if len(shape) == 2 or len(long_axes) < 2:
        long_axes = list(range(len(shape)))[-2:]
    n_image_axes = 3 if len(long_axes) > 2 and shape[long_axes[-1]] in (2, 3, 4) else 2
    counted, image = long_axes[:-n_image_axes], long_axes[-n_image_axes:]
    counts = [shape[axis] for axis in counted]
    frame_shape = tuple(shape[axis] for axis in image)
    n = math.prod(counts)
    check_size(name, frame_shape, dtype.itemsize, stored_bytes)
    notes = (f"shape {shape} read as {frame_shape}",) if n == 1 and len(shape) != len(frame_shape) else ()

    def frame(index: int) -> Frame:
        where: list[int | slice] = [0] * len(shape)
        for axis, position in zip(counted, np.unravel_index(index, counts) if counts else (), strict=True):
            where[axis] = int(position)
        for axis in image:
            where[axis] = slice(None)
        return describe(np.asarray(read(tuple(where))), notes)

    return Frames(n, frame)
