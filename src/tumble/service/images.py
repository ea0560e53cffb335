"""From the body of a request to crops or a micrograph, with no trust in it: nothing in it names a place here."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.errors import DataError, InputFileError, TumbleError
from tumble.micrograph.limits import ReadLimits, reading_within
from tumble.micrograph.read import micrograph_from_array, open_frames, read_micrograph
from tumble.micrograph.readers.npy import npy_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tumble.micrograph.frames import Frames
    from tumble.types import Micrograph

__all__ = [
    "SERVED_SUFFIXES",
    "InputLimits",
    "crops_from_file",
    "crops_from_json",
    "is_quickly_read",
    "micrograph_from_file",
    "micrograph_from_json",
]

#: Kinds of files that are taken from a stranger. Those of HDF5 and Zarr may name other files to be read in their place.
SERVED_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".npy", ".mrc", ".mrcs", ".dm3", ".dm4")

#: How files without a known suffix begin.
_BEGINNINGS = (
    (b"\x93NUMPY", ".npy"),
    (b"\x89PNG", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
    (b"II+\x00", ".tif"),
    (b"MM\x00+", ".tif"),
    (b"BM", ".bmp"),
)

#: Bytes of a file of crops that is read where it arrives.
_QUICK_BYTES = 2**18

#: Numbers nested deeper than a stack of colour images are no images.
_MAX_AXES = 4


@dataclass(frozen=True)
class InputLimits:
    """What is taken in one request.

    Parameters
    ----------
    max_crops : int
        Crops of one request.
    max_image_px : int
        Pixels of a micrograph; a file that promises more is refused before it is decoded.
    """

    max_crops: int = 4096
    max_image_px: int = 2**26


def crops_from_file(
    content: IO[bytes], filename: str, image_shape: tuple[int, int, int], limits: InputLimits
) -> npt.NDArray[Any]:
    """Read one crop or a stack of them.

    Parameters
    ----------
    content : binary file
        What was sent.
    filename : str
        How the sender calls it; only its ending counts.
    image_shape : (int, int, int)
        Channels, height and width that the model takes.
    limits : InputLimits
        What is taken.

    Returns
    -------
    ndarray of shape (n, C, H, W)
        uint8 or float32, finite.

    Raises
    ------
    InputFileError
        If it cannot be read.
    DataError
        If it does not hold crops of that size.
    """
    with _opened(content, filename, limits) as (frames, name):
        channels = image_shape[0]
        if frames.n > limits.max_crops * channels:
            raise DataError(f"{name}: holds {frames.n} images; at most {limits.max_crops} crops are taken at a time.")
        first = _planes(frames.read(0).array, image_shape, name)
        rest = [_planes(frames.read(index).array, image_shape, name) for index in range(1, frames.n)]
    planes = np.concatenate([first, *rest])
    if len(planes) % channels:
        raise DataError(f"{name}: holds {len(planes)} planes, which are no crops of {channels} channels.")
    return _checked(planes.reshape(-1, *image_shape), image_shape, limits, name)


def is_quickly_read(content: IO[bytes], filename: str, n_bytes: int | None) -> bool:
    """Say whether crops are read in less time than it takes a thread to begin: a few of them, as NPY.

    Parameters
    ----------
    content : binary file
        What was sent; left at its start.
    filename : str
        How the sender calls it.
    n_bytes : int or None
        Its length, None where it is not known.

    Returns
    -------
    bool

    Raises
    ------
    InputFileError
        If it is empty, or of no kind that is taken.
    """
    if n_bytes is None or n_bytes > _QUICK_BYTES:
        return False
    return _suffix(content, filename, _shown_name(filename)) == ".npy"


def crops_from_json(body: bytes, image_shape: tuple[int, int, int], limits: InputLimits) -> npt.NDArray[Any]:
    """Read one crop or a stack of them from nested lists of numbers; see :func:`crops_from_file`.

    Whole numbers are grey levels from 0 to 255, numbers with a decimal point are in the units of the model.
    """
    array = _json_array(body)
    if array.ndim == 2 or (array.ndim == 3 and image_shape[0] > 1 and array.shape[0] == image_shape[0]):
        array = array[None]
    if array.ndim == 3:
        array = array[:, None]
    if array.dtype.kind == "i":
        if array.size and (array.min() < 0 or array.max() > 255):
            raise DataError(
                "array: whole numbers are grey levels from 0 to 255. Write other intensities with a decimal point, "
                "in the units that the model was fitted to."
            )
        array = array.astype(np.uint8)
    return _checked(array, image_shape, limits, "array")


def micrograph_from_file(
    content: IO[bytes], filename: str, limits: InputLimits, *, pixel_size_nm: float | None
) -> Micrograph:
    """Read a micrograph; see :func:`crops_from_file`, and :func:`tumble.read_micrograph` for what it gives."""
    trust = ReadLimits(max_frame_px=limits.max_image_px, companions=False)
    with _stored(content, filename) as (path, _), reading_within(trust):
        return read_micrograph(path, pixel_size_nm=pixel_size_nm)


def micrograph_from_json(body: bytes, limits: InputLimits, *, pixel_size_nm: float | None) -> Micrograph:
    """Make a micrograph of nested lists of numbers; whole numbers up to 255 are 8-bit grey levels."""
    array = _json_array(body)
    if array.ndim != 2:
        raise DataError(f"array: a micrograph has rows and columns, this array has {array.ndim} axes.")
    if array.size > limits.max_image_px:
        raise DataError(f"array: at most {limits.max_image_px:,} px are taken. Cut the image into tiles, or bin it.")
    if array.dtype.kind == "i" and array.size and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint8 if array.max() <= 255 else np.uint16)
    return micrograph_from_array(array, source="array", pixel_size_nm=pixel_size_nm)


@contextmanager
def _opened(content: IO[bytes], filename: str, limits: InputLimits) -> Iterator[tuple[Frames, str]]:
    """Open the images of what was sent."""
    trust = ReadLimits(max_frame_px=limits.max_image_px, companions=False)
    shown = _shown_name(filename)
    if _suffix(content, filename, shown) == ".npy":  # needs no decoder, and therefore no file
        with reading_within(trust):
            yield npy_frames(content.read(), shown), shown
        return
    with _stored(content, filename) as (path, _), reading_within(trust), open_frames(path) as frames:
        yield frames, shown


@contextmanager
def _stored(content: IO[bytes], filename: str) -> Iterator[tuple[Path, str]]:
    """Give what was sent a name of our own in a folder of our own; errors speak of it by the sender's."""
    shown = _shown_name(filename)
    suffix = _suffix(content, filename, shown)
    with TemporaryDirectory(prefix="tumble-serve-") as folder:
        path = Path(folder) / f"image{suffix}"
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
        try:
            yield path, shown
        except TumbleError as error:
            message = str(error).replace(str(path), shown).replace(folder, "")
            raise type(error)(message) from error


def _suffix(content: IO[bytes], filename: str, shown: str) -> str:
    """Give the kind of what was sent, by its name or how it begins."""
    start = content.read(8)
    content.seek(0)
    if not start:
        raise InputFileError(f"{shown}: the file is empty; send an image.")
    suffix = Path(filename).suffix.lower()
    if suffix in SERVED_SUFFIXES:
        return suffix
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    raise InputFileError(
        f"{shown}: is of no kind that is taken here; taken are {', '.join(SERVED_SUFFIXES)}. Export it as TIFF."
    )


def _shown_name(filename: str) -> str:
    """Give the last part of a name, without what could trick a terminal or a log."""
    name = re.split(r"[/\\]", filename)[-1]
    return "".join(char if char.isprintable() else "?" for char in name)[:100] or "file"


def _planes(array: npt.NDArray[Any], image_shape: tuple[int, int, int], name: str) -> npt.NDArray[Any]:
    """One frame as planes (C, H, W) of the model's size; colours become one plane where the model has one channel."""
    channels, height, width = image_shape
    if array.ndim == 3 and array.shape[-1] in (2, 3, 4):
        colours = array[..., : 1 if array.shape[-1] == 2 else 3]
        if channels == 1:
            weights = np.array([0.2126, 0.7152, 0.0722]) if colours.shape[-1] == 3 else np.ones(1)
            luminance = colours @ weights
            array = np.rint(luminance).astype(array.dtype) if array.dtype.kind in "ui" else luminance
        else:
            array = np.moveaxis(colours, -1, 0)
    planes = array[None] if array.ndim == 2 else array
    if planes.ndim != 3 or planes.shape[1:] != (height, width):
        raise DataError(
            f"{name}: holds images of {' x '.join(map(str, array.shape))} px, the model takes crops of {height} x "
            f"{width} px. To find the particles of a micrograph, send it with ?kind=micrograph."
        )
    return planes


def _checked(
    crops: npt.NDArray[Any], image_shape: tuple[int, int, int], limits: InputLimits, name: str
) -> npt.NDArray[Any]:
    """Give crops as uint8 or float32, or say what is wrong with them."""
    if crops.ndim != 4 or crops.shape[1:] != image_shape or not len(crops):
        channels, height, width = image_shape
        wanted = f"{height} x {width} px" + (f" and {channels} channels" if channels > 1 else "")
        raise DataError(
            f"{name}: has the shape {crops.shape[:1] + crops.shape[crops.ndim - 2 :]}, expected n crops of {wanted}. "
            "To find the particles of a micrograph, send it with ?kind=micrograph."
        )
    if len(crops) > limits.max_crops:
        raise DataError(f"{name}: holds {len(crops)} crops; at most {limits.max_crops} are taken at a time.")
    if crops.dtype.kind == "b":
        return crops.astype(np.float32)
    if crops.dtype == np.uint8:
        return crops
    if crops.dtype.kind != "f":
        raise DataError(
            f"{name}: has pixels of type {crops.dtype}; crops are 8-bit grey levels, or floating point numbers in the "
            "units that the model was fitted to."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        floats = np.ascontiguousarray(crops, dtype=np.float32)
    # Beyond this, the networks' sums leave the range of 32-bit numbers.
    if not (np.abs(floats) <= 1e6).all():
        raise DataError(f"{name}: holds NaN, infinite pixels, or such beyond a million. Rescale or repair the crops.")
    return floats


def _json_array(body: bytes) -> npt.NDArray[Any]:
    """Read nested lists of numbers, alone or as "image" or "images" of an object."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise DataError("array: the body is no JSON. Send nested lists of numbers, or a file as multipart.") from None
    if isinstance(content, dict):
        content = content.get("images", content.get("image"))
    # Before NumPy sees it, which would give all elements the length of the longest string.
    if not isinstance(content, list) or not content or not _holds_numbers(content, _MAX_AXES):
        raise DataError(
            'array: send nested lists of numbers, one for each pixel, alone or as {"images": [...]}; an image has two '
            "axes, a stack three or four."
        )
    try:
        array = np.array(content)
    except (ValueError, OverflowError):
        raise DataError("array: the rows have different lengths.") from None
    if array.dtype.kind not in "if":
        raise DataError("array: some numbers are too large to be intensities.")
    return array


def _holds_numbers(content: list[Any], depth: int) -> bool:
    if isinstance(content[0] if content else None, list):
        return depth > 1 and all(isinstance(item, list) and _holds_numbers(item, depth - 1) for item in content)
    return all(type(item) in (int, float) for item in content)
