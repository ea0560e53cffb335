"""Reading label images, whose numbers mean classes and not intensities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from tumble.errors import DataError, InputFileError
from tumble.micrograph.read import damaged_file, reader_for

if TYPE_CHECKING:
    import os

__all__ = ["read_label_image"]


def read_label_image(path: str | os.PathLike[str]) -> npt.NDArray[np.int64]:
    """Read an image of whole numbers exactly as the file holds them.

    Unlike :func:`tumble.read_micrograph` this takes the index of an indexed picture, not its colour, and the 0 and 1 of
    a black-and-white one, and it allows an image of a single value.

    Parameters
    ----------
    path : str or path-like
        A TIFF, PNG, BMP or NPY file.

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
    source, file = str(path), Path(path).expanduser()
    reader_for(file, source)  # for its checks: what it would make of the numbers is right for intensities only
    try:
        values = _numbers(file)
    except InputFileError:
        raise
    except Exception as error:
        raise damaged_file(source, file, error) from error
    return whole_numbers(np.squeeze(values), source)


def whole_numbers(values: npt.NDArray[Any], source: str) -> npt.NDArray[np.int64]:
    """Check that an array is one image of whole numbers of at least 0, which masks saved as float are too."""
    if values.ndim == 3 and values.shape[-1] in (3, 4):
        raise DataError(f"{source}: is a colour picture. Save it as a label image: one number per pixel, 0 background.")
    whole: npt.NDArray[Any] = np.rint(values) if values.dtype.kind == "f" else values
    if values.dtype.kind not in "biuf" or values.ndim != 2 or np.any(whole != values) or values.min() < 0:
        raise DataError(f"{source}: must be one image of whole numbers >= 0, where 0 is background.")
    return whole.astype(np.int64)


def _numbers(file: Path) -> npt.NDArray[Any]:
    suffix = file.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return tifffile.imread(file)
    if suffix == ".npy":
        with file.open("rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    with Image.open(file) as picture:
        return np.asarray(picture)
