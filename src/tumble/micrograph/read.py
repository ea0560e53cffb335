"""From a file or an array to a :class:`~tumble.types.Micrograph`."""

from __future__ import annotations

import math
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tumble.errors import ConfigError, DataError, TumbleError
from tumble.micrograph.banner import find_banner, has_scale_bar
from tumble.micrograph.convert import content_hash, grey_pixels, one_frame
from tumble.micrograph.frames import Frame, Frames, FrameSource, damaged_file
from tumble.micrograph.registry import READABLE_SUFFIXES, find_source, load_reader
from tumble.types import Micrograph

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

__all__ = ["READABLE_SUFFIXES", "Banner", "iter_micrographs", "micrograph_from_array", "open_frames", "read_micrograph"]

Banner = Literal["exclude", "keep"]


def read_micrograph(
    path: str | os.PathLike[str],
    *,
    pixel_size_nm: float | None = None,
    frame: int | None = None,
    banner: Banner = "exclude",
) -> Micrograph:
    """Read one micrograph from a file.

    Parameters
    ----------
    path : str or path-like
        A TIFF (also OME, ImageJ, FEI/Thermo, Zeiss, JEOL, Gatan and Olympus), PNG, JPEG, BMP, NPY, MRC or HDF5 file;
        with the extra ``formats`` also DM3, DM4, EMD, SER, HSPY, ZSPY and Zarr. Where a file holds several images
        by name, ``file.h5:/group/dataset`` names one.
    pixel_size_nm : float or None, default=None
        Edge of a pixel in nanometres. None takes it from the file's instrument metadata, or from the text file that
        JEOL, Hitachi and TESCAN instruments write beside it; where there is none, it stays unknown. It is never
        guessed; the printing resolution of an image (dpi) is not used.
    frame : int or None, default=None
        Number, from 0, of the image in a file that holds a stack of them. None requires that there is one.
    banner : {"exclude", "keep"}, default="exclude"
        Whether the data banner that instruments write below the image is cut off.

    Returns
    -------
    Micrograph
        The image with its content hash; what was changed on the way in is in its `notes`. The source of a frame of a
        stack is ``path[frame]``, and its metadata have ``"frame"``; those of an image without its banner have
        ``"banner_rows"``, how many rows were cut off below.

    Raises
    ------
    InputFileError
        The file is missing, of an unknown kind, too large or cannot be decoded.
    DataError
        The image is not usable: more than one frame, not finite, constant, too small or complex.
    ConfigError
        `pixel_size_nm`, `frame` or `banner` has a value that it cannot have.
    """
    _check_arguments(pixel_size_nm, banner)
    name = str(path)
    with open_frames(path) as frames:
        if frame is None and frames.n > 1:
            raise DataError(
                f"{name}: holds {frames.n} frames, but a micrograph is one image. Read one with frame=0 to "
                f"{frames.n - 1}, or all of them with iter_micrographs."
            )
        if frame is not None and not 0 <= frame < frames.n:
            raise ConfigError(f"frame={frame!r}: {name} has {frames.n} frames, numbered from 0.")
        return _micrograph(frames.read(frame or 0), name, frame or 0, frames.n, pixel_size_nm, banner)


def iter_micrographs(
    path: str | os.PathLike[str], *, pixel_size_nm: float | None = None, banner: Banner = "exclude"
) -> Iterator[Micrograph]:
    """Read every image of a file as a micrograph of its own, each when it is asked for.

    Parameters
    ----------
    path, pixel_size_nm, banner
        As for :func:`read_micrograph`.

    Yields
    ------
    Micrograph
        In the order of the file. A file of one image gives the same as :func:`read_micrograph`.

    Raises
    ------
    InputFileError, DataError, ConfigError
        As for :func:`read_micrograph`, when the frame concerned is asked for.
    """
    _check_arguments(pixel_size_nm, banner)
    with open_frames(path) as frames:
        for index in range(frames.n):
            yield _micrograph(frames.read(index), str(path), index, frames.n, pixel_size_nm, banner)


@contextmanager
def open_frames(path: str | os.PathLike[str]) -> Iterator[Frames]:
    """Open the images of a file; whatever goes wrong within is one clear error.

    Parameters
    ----------
    path : str or path-like
        As for :func:`read_micrograph`.

    Yields
    ------
    Frames

    Raises
    ------
    InputFileError
        The file is missing, of an unknown kind, too large or cannot be decoded.
    """
    source = find_source(str(path))
    reader = load_reader(source)
    with ExitStack() as stack:
        with _one_error(source):
            opened = stack.enter_context(reader(source))

        def read(index: int) -> Frame:
            with _one_error(source):
                return opened.read(index)

        # Not around the caller's own code, whose errors and warnings are its own.
        yield Frames(opened.n, read)


@contextmanager
def _one_error(source: FrameSource) -> Iterator[None]:
    """Turn whatever decoders raise of a damaged file into an InputFileError, and keep their warnings away."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except TumbleError:
        raise
    except Exception as error:
        raise damaged_file(source.name, source.file, error) from error


def _micrograph(
    frame: Frame, name: str, index: int, n_frames: int, pixel_size_nm: float | None, banner: Banner
) -> Micrograph:
    """Make the micrograph of one frame."""
    source = name if n_frames == 1 else f"{name}[{index}]"
    metadata = dict(frame.metadata) | ({"frame": index} if n_frames > 1 else {})
    notes = frame.notes
    known_nm = frame.pixel_size_nm
    if pixel_size_nm is not None and known_nm is not None and abs(pixel_size_nm / known_nm - 1) > 0.01:
        notes += (f"pixel size {pixel_size_nm:g} nm as given; the file itself says {known_nm:g} nm",)
    values, shape_note = one_frame(frame.array, source)
    pixels, grey_notes = grey_pixels(values, source)
    used_nm = known_nm if pixel_size_nm is None else pixel_size_nm
    row = None
    if banner == "exclude":
        row = frame.banner_row if frame.banner_row is not None else find_banner(pixels)
    if used_nm is None and (row is not None or has_scale_bar(pixels)):
        notes += (
            "the image shows a data banner or a scale bar, but the file says nothing of its pixel size: all sizes are "
            "in px. Measure the bar and give the pixel size to have them in nm",
        )
    if row is not None:
        rows = len(pixels) - row
        notes += (f"the data banner below row {row} was left out ({rows} rows)",)
        metadata["banner_rows"] = rows
        pixels, _ = grey_pixels(np.ascontiguousarray(pixels[:row]), source)
    return Micrograph(
        pixels=pixels,
        source=source,
        content_hash=content_hash(pixels),
        pixel_size_nm=None if used_nm is None else float(used_nm),
        metadata=metadata,
        notes=notes + tuple(filter(None, (shape_note, *grey_notes))),
    )


def micrograph_from_array(
    array: npt.ArrayLike,
    *,
    source: str,
    pixel_size_nm: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> Micrograph:
    """Make a micrograph of an array.

    Parameters
    ----------
    array : array-like of shape (H, W) or (H, W, 3) or (H, W, 4)
        Intensities, or colours that become luminance. 8 and 16 bit stay as they are, a boolean image becomes
        0 and 255, all else becomes float32.
    source : str
        Name of the image, for messages and for the library.
    pixel_size_nm : float or None, default=None
        Edge of a pixel in nanometres, None where it is not known.
    metadata : mapping or None, default=None
        Instrument metadata, JSON-serialisable.
    notes : tuple of str, default=()
        What was changed before this call.

    Returns
    -------
    Micrograph
        The image with its content hash.

    Raises
    ------
    DataError
        The array is not usable: more than one frame, not finite, constant, too small or not of real numbers.
    ConfigError
        `pixel_size_nm` is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    >>> micrograph = micrograph_from_array(image, source="ramp", pixel_size_nm=0.5)
    >>> micrograph.pixels.dtype, micrograph.pixel_size_nm
    (dtype('uint16'), 0.5)
    """
    _check_arguments(pixel_size_nm, "exclude")
    values = np.asarray(array)
    if values.dtype.kind in "buif":  # of other kinds the type is the complaint, not the shape
        values, shape_note = one_frame(values, source)
    else:
        shape_note = ""
    pixels, grey_notes = grey_pixels(values, source)
    return Micrograph(
        pixels=pixels,
        source=source,
        content_hash=content_hash(pixels),
        pixel_size_nm=None if pixel_size_nm is None else float(pixel_size_nm),
        metadata=dict(metadata or {}),
        notes=notes + tuple(filter(None, (shape_note, *grey_notes))),
    )


def _check_arguments(pixel_size_nm: float | None, banner: str) -> None:
    if pixel_size_nm is not None and not (math.isfinite(pixel_size_nm) and pixel_size_nm > 0):
        raise ConfigError(
            f"pixel_size_nm={pixel_size_nm!r}: must be a positive number of nm, or left out where unknown."
        )
    if banner not in ("exclude", "keep"):
        raise ConfigError(f"banner={banner!r}: must be 'exclude' or 'keep'.")
