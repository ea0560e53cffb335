"""MRC, the format of electron cryo-microscopy, with the pixel size in its header."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

from tumble.errors import InputFileError
from tumble.micrograph.frames import Frame, Frames, FrameSource, array_frames
from tumble.micrograph.units import length_nm, square_pixel_size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_mrc"]


@contextmanager
def open_mrc(source: FrameSource) -> Iterator[Frames]:
    """Open an MRC file; each section is a frame.

    The first row of an MRC image is the lowest where the file follows the standard's right-handed axes, but most
    software shows it on top. Rows are kept in the order of the file, as mrcfile, RELION and ImageJ show them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that differ, which is checked here
        opened: Any = mrcfile.mmap(source.file, mode="r", permissive=True)
    try:
        data = opened.data
        if data is None:
            raise InputFileError(
                f"{source.name}: its header does not fit its length, or is damaged; copy or export it again."
            )
        voxel = opened.voxel_size
        # 0 means "not known" in this format.
        sizes = [length_nm(float(edge), "angstrom") if float(edge) != 0 else None for edge in (voxel.x, voxel.y)]
        pixel_size_nm, note = square_pixel_size(sizes)
        titles = [bytes(line).decode("ascii", "replace").strip() for line in opened.header.label]
        metadata = {"settings": {"labels": [title for title in titles if title]}} if any(titles) else {}

        def describe(values: np.ndarray[Any, Any], notes: tuple[str, ...]) -> Frame:
            return Frame(values, pixel_size_nm, metadata, (*notes, *filter(None, (note,))))

        yield array_frames(
            source.name, data.shape, data.dtype, data.nbytes, lambda where: np.array(data[where]), describe
        )
    finally:
        opened.close()
