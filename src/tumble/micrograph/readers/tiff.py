"""TIFF with its dialects: OME, ImageJ, FEI/Thermo, Zeiss and others."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tifffile

from tumble.errors import InputFileError
from tumble.micrograph.frames import Frame, Frames, FrameSource, check_size
from tumble.micrograph.limits import read_limits
from tumble.micrograph.sidecar import read_sidecar
from tumble.micrograph.tiff_metadata import banner_row_of_tiff, instrument_metadata, pixel_size_of_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_tiff"]

# What tifffile logs of a damaged file is said by the error, or is of no consequence.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@contextmanager
def open_tiff(source: FrameSource) -> Iterator[Frames]:
    """Open a TIFF file; pages and planes of equal size are its frames."""
    # By this argument tifffile leaves alone the files that an OME-TIFF names, wherever they lie; it has no other.
    with tifffile.TiffFile(source.file, _multifile=read_limits().companions) as tiff:
        if not tiff.series:
            raise InputFileError(f"{source.name}: holds no image; copy or export it again.")
        first = tiff.series[0]
        alike = [series for series in tiff.series if series.shape == first.shape and series.dtype == first.dtype]
        per_series = math.prod(n for axis, n in zip(first.axes, first.shape, strict=True) if axis not in "YXS")
        stored = source.file.stat().st_size
        image_shape = tuple(n for axis, n in zip(first.axes, first.shape, strict=True) if axis in "YX")
        itemsize = np.dtype(first.dtype or "u1").itemsize * first.sizes.get("sample", 1)
        if len(image_shape) != 2:
            raise InputFileError(f"{source.name}: holds an array with axes {first.axes}, which is no image.")
        check_size(source.name, image_shape, itemsize, stored)
        pixel_size_nm, size_note = pixel_size_of_tiff(tiff)
        metadata = instrument_metadata(tiff)
        beside = read_sidecar(source.file, image_shape)
        if pixel_size_nm is None:
            pixel_size_nm, size_note = beside.pixel_size_nm, size_note or beside.note
        notes = [size_note] if size_note else []
        if len(tiff.series) > len(alike):
            notes.append(f"the first of {len(tiff.series)} images of different size was read")
        banner_row = banner_row_of_tiff(tiff)

        def frame(index: int) -> Frame:
            array, changed = _read_plane(alike[index // per_series], index % per_series, source)
            return Frame(array, pixel_size_nm, metadata or beside.metadata, (*changed, *notes), banner_row)

        yield Frames(len(alike) * per_series, frame)


def _read_plane(
    series: tifffile.TiffPageSeries, index: int, source: FrameSource
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Read one plane of a series, without the others where the file allows that."""
    leading = [n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
    n_planes = math.prod(leading)
    pages: list[Any] = [page for page in series.pages if page is not None]
    page = series.keyframe
    colours_first = "S" in series.axes and series.axes.index("S") < series.axes.index("Y")
    if len(pages) == n_planes:
        _check_complete(pages[index], source)
        array = np.asarray(pages[index].asarray())
        array = array.reshape([n for axis, n in zip(series.axes, series.shape, strict=True) if axis in "YXS"])
    else:
        # Planes of one page, as ImageJ writes large stacks: mapped where they lie in the file as they are.
        for other in pages:
            _check_complete(other, source)
        check_size(source.name, (math.prod(series.shape), 1), np.dtype(series.dtype).itemsize, 2**40)
        if series.dataoffset is not None and not colours_first:
            dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
            whole: Any = np.memmap(source.file, dtype, "r", series.dataoffset, series.shape)
        else:
            whole = series.asarray()
        positions = iter(np.unravel_index(index, leading) if leading else ())
        array = np.array(whole[tuple(slice(None) if axis in "YXS" else int(next(positions)) for axis in series.axes)])
    if colours_first:
        array = np.moveaxis(array, 0, -1)
    return _as_intensities(array, page)


def _as_intensities(array: npt.NDArray[Any], page: Any) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        # The numbers are places in a table of colours; the intensities are in the table.
        colours = (np.moveaxis(page.colormap[:, array], 0, -1) >> 8).astype(np.uint8)
        return colours, ("colours taken from the file's palette",)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype.kind in "ub":
        return ~array, ("intensities inverted, as the file says that 0 is white",)
    return array, ()


def _check_complete(page: Any, source: FrameSource) -> None:
    """Refuse a file that ends before its pixels do: the missing part would otherwise be read as zeros."""
    size = source.file.stat().st_size
    pairs = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if any(offset + count > size for offset, count in pairs):
        raise InputFileError(
            f"{source.name}: ends after {size} bytes, before its pixels do; the copy is incomplete. Copy it again."
        )
    if not pairs or any(offset <= 0 or count <= 0 for offset, count in pairs):
        raise InputFileError(f"{source.name}: has no pixels in a part of the image; copy or export it again.")
