"""Crops, and particles in their micrograph, as PNG."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.errors import LibraryError
from tumble.library import Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tumble.library import Library

__all__ = ["CropStore", "context_image", "library_key", "particle_box"]

#: Micrograph px around the middle of a particle that its context shows, at least; and in multiples of its box.
_LEAST_CONTEXT_PX, _CONTEXT = 160, 8


class CropStore:
    """PNG files of crops; those of a page are read at once, and the last few thousand are kept.

    Parameters
    ----------
    library : Library
        Where they are from.
    at_most : int
        How many are kept, about 2 kB each.
    """

    def __init__(self, library: Library, at_most: int = 8000) -> None:
        self._library = library
        self._at_most = at_most
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def kept(self, particle_id: int) -> bytes | None:
        """Return a PNG that is at hand, without asking the library."""
        return self._kept.get(particle_id)

    def warm(self, particle_ids: Sequence[int]) -> None:
        """Read the crops of a page in one question."""
        missing = [i for i in particle_ids if i not in self._kept]
        if not missing:
            return
        try:
            crops: Any = self._library.crops(missing)
        except LibraryError:  # of different sizes: each on its own, when it is asked for
            return
        files = [png_of(crop) for crop in crops]
        with self._lock:
            self._kept.update(zip(missing, files, strict=True))
            while len(self._kept) > self._at_most:
                self._kept.popitem(last=False)

    def embedded(self, particle_ids: Sequence[int]) -> list[str | None]:
        """Return crops as addresses that hold the image itself, for a page; None where one is to be asked for."""
        self.warm(particle_ids)
        files = [self._kept.get(i) for i in particle_ids]
        return [None if file is None else f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]

    def png(self, particle_id: int) -> bytes:
        """Return the PNG of a crop.

        Raises
        ------
        LibraryError
            There is no such particle.
        """
        found = self._kept.get(particle_id)
        if found is None:
            found = png_of(self._library.crops([particle_id])[0])
            with self._lock:
                self._kept[particle_id] = found
        return found


def png_of(image: npt.NDArray[np.uint8]) -> bytes:
    """Return a grey image as PNG, quickly rather than small."""
    # Pillow takes ten times as long for an image as small as a crop, most of it for preparations.
    height, width = image.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each row begins with the number of its filter, which is none
    rows[:, 1:] = image
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def library_key(library: Library) -> str:
    """Return a text that differs between libraries, so that a browser never shows the images of another one."""
    return hashlib.sha256(f"{library.url} {library.beginning()}".encode()).hexdigest()[:12]


def particle_box(library: Library, particle_id: int) -> tuple[int, tuple[float, float, float, float]]:
    """Return the micrograph of a particle and its bounding box (top, left, bottom, right) in px.

    Raises
    ------
    LibraryError
        There is no such particle.
    """
    names = ("bbox_min_row_px", "bbox_min_col_px", "bbox_max_row_px", "bbox_max_col_px")
    wanted = (*names, "centroid_row_px", "centroid_col_px")
    question = Query(particle_ids=(particle_id,), measurements=dict.fromkeys(wanted, (None, None)), limit=1)
    rows = library.search(question).particles
    if rows.empty:
        raise LibraryError(f"there is no particle {particle_id} in this library.")
    row = rows.iloc[0].to_dict()
    top, left, bottom, right = (float(row[name]) for name in names)
    if not np.isfinite([top, left, bottom, right]).all():  # a library whose particles were only counted
        y, x = (float(row[name]) for name in wanted[-2:])
        y, x = (0.0 if np.isnan(value) else value for value in (y, x))
        top, left, bottom, right = y - 10, x - 10, y + 10, x + 10
    return int(row["micrograph_id"]), (top, left, bottom, right)


def context_image(
    preview: npt.NDArray[np.uint8], scale: float, box: tuple[float, float, float, float]
) -> tuple[bytes, dict[str, float]]:
    """Cut a particle's surroundings out of its micrograph.

    Parameters
    ----------
    preview : ndarray of shape (H, W), uint8
        The micrograph, made smaller.
    scale : float
        Preview px per micrograph px.
    box : (top, left, bottom, right)
        Of the particle, in micrograph px.

    Returns
    -------
    png : bytes
        The cut.
    place : dict
        `left`, `top`, `width`, `height` of the particle as parts of the cut, 0 to 1.
    """
    top, left, bottom, right = (value * scale for value in box)
    half = max(_LEAST_CONTEXT_PX * scale, _CONTEXT * max(bottom - top, right - left, 1)) / 2
    row, column = (top + bottom) / 2, (left + right) / 2
    rows = [int(np.clip(round(row + sign * half), 0, preview.shape[0])) for sign in (-1, 1)]
    columns = [int(np.clip(round(column + sign * half), 0, preview.shape[1])) for sign in (-1, 1)]
    rows[1], columns[1] = max(rows[1], rows[0] + 1), max(columns[1], columns[0] + 1)
    cut = preview[rows[0] : rows[1], columns[0] : columns[1]]
    if not cut.size:
        raise LibraryError("the particle lies outside its micrograph.")
    height, width = cut.shape
    place = {
        "left": (left - columns[0]) / width,
        "top": (top - rows[0]) / height,
        "width": max(right - left, 1) / width,
        "height": max(bottom - top, 1) / height,
    }
    return png_of(np.ascontiguousarray(cut)), place
