"""Reading label images, whose numbers mean classes and not intensities."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from tumble.errors import DataError, TumbleError
from tumble.micrograph.frames import FrameSource, check_size, damaged_file
from tumble.micrograph.registry import find_source, load_reader

if TYPE_CHECKING:
    import os

__all__ = ["read_label_image"]


def read_label_image(path: str | os.PathLike[str], *, frame: int | None = None) -> npt.NDArray[np.int64]:
    """Read an image of whole numbers exactly as the file holds them.

    Unlike :func:`tumble.read_micrograph` this takes the index of an indexed picture, not its colour, and the 0 and 1 of
    a black-and-white one, and it allows an image of a single value.

    Parameters
    ----------
    path : str or path-like
        Any file that :func:`tumble.read_micrograph` reads; JPEG is of no use, as it changes numbers.
    frame : int or None, default=None
        Number of the image, from 0, where the file holds a stack of label images.

    Returns
    -------
    ndarray of shape (H, W)
        Whole numbers, 0 or more.

    Raises
    ------
    InputFileError
        The file is missing, of an unknown kind or cannot be decoded.
    DataError
        It is a colour picture, or holds other than whole numbers of at least 0.
    """
    source = str(path)
    file = find_source(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = _numbers(file, frame)
    except TumbleError:
        raise
    except Exception as error:
        raise damaged_file(source, file.file, error) from error
    return whole_numbers(np.squeeze(values), source)


def whole_numbers(values: npt.NDArray[Any], source: str) -> npt.NDArray[np.int64]:
    """Check that an array is one image of whole numbers of at least 0, which masks saved as float are too."""
    if values.ndim == 3 and values.shape[-1] in (3, 4):
        raise DataError(f"{source}: is a colour picture. Save it as a label image: one number per pixel, 0 background.")
    whole: npt.NDArray[Any] = np.rint(values) if values.dtype.kind == "f" else values
    if values.dtype.kind not in "biuf" or values.ndim != 2 or np.any(whole != values) or values.min() < 0:
        raise DataError(f"{source}: must be one image of whole numbers >= 0, where 0 is background.")
    return whole.astype(np.int64)


def _numbers(source: FrameSource, frame: int | None) -> npt.NDArray[Any]:
    """Read the numbers of a file whose reader would make colours or intensities of them, all others as they are."""
    suffix = source.file.suffix.lower()
    if suffix in (".tif", ".tiff"):
        with tifffile.TiffFile(source.file) as tiff:
            series = tiff.series[0]
            check_size(source.name, series.shape, np.dtype(series.dtype or "u1").itemsize, source.file.stat().st_size)
            values = series.asarray()
            return values[frame] if values.ndim == 3 and frame is not None and frame < len(values) else values
    if suffix in (".png", ".bmp"):
        with Image.open(source.file) as picture:
            check_size(source.name, picture.size, 4, source.file.stat().st_size)
            return np.asarray(picture)
    with load_reader(source)(source) as frames:
        if frames.n > 1 and (frame is None or frame >= frames.n):
            raise DataError(f"{source.name}: holds {frames.n} images; a label image is one.")
        return frames.read(frame if frame is not None and frames.n > 1 else 0).array
