"""From a file or an array to a :class:`~tumble.types.Micrograph`."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from tumble.errors import ConfigError, DataError, InputFileError
from tumble.micrograph.tiff_metadata import instrument_metadata, pixel_size_of_tiff
from tumble.types import Micrograph

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

__all__ = ["READABLE_SUFFIXES", "micrograph_from_array", "read_micrograph"]

#: Anything smaller holds no particle with background around it.
MIN_SIDE_PX = 16

#: Weights of red, green and blue in the luminance (ITU-R BT.709).
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class _FileContent:
    """What a reader found: one frame (H, W) or (H, W, channels), and what the file says about it."""

    array: npt.NDArray[Any]
    pixel_size_nm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_micrograph(path: str | os.PathLike[str], *, pixel_size_nm: float | None = None) -> Micrograph:
    """Read one micrograph from a file.

    Parameters
    ----------
    path : str or path-like
        A TIFF (also OME, ImageJ, FEI and Zeiss), PNG, JPEG, BMP or NPY file that holds one image.
    pixel_size_nm : float or None, default=None
        Edge of a pixel in nanometres. None takes it from the file's instrument metadata; where the file has
        none, it stays unknown. It is never guessed; the printing resolution of an image (dpi) is not
        used.

    Returns
    -------
    Micrograph
        The image with its content hash; what was changed on the way in is in its `notes`.

    Raises
    ------
    InputFileError
        The file is missing, of an unknown kind or cannot be decoded.
    DataError
        The image is not usable: more than one frame, not finite, constant, too small or complex.
    ConfigError
        `pixel_size_nm` is not a positive number.
    """
    source = str(path)
    file = Path(path).expanduser()
    if pixel_size_nm is not None:
        _check_pixel_size(pixel_size_nm)
    reader = reader_for(file, source)
    try:
        content = reader(file, source)
    except (InputFileError, DataError):
        raise
    except Exception as error:
        raise damaged_file(source, file, error) from error

    notes = content.notes
    known_nm = content.pixel_size_nm
    if pixel_size_nm is not None and known_nm is not None and abs(pixel_size_nm / known_nm - 1) > 0.01:
        notes += (f"pixel size {pixel_size_nm:g} nm as given; the file itself says {known_nm:g} nm",)
    return micrograph_from_array(
        content.array,
        source=source,
        pixel_size_nm=known_nm if pixel_size_nm is None else pixel_size_nm,
        metadata=content.metadata,
        notes=notes,
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
    if pixel_size_nm is not None:
        pixel_size_nm = _check_pixel_size(pixel_size_nm)
    values = np.asarray(array)
    if values.dtype.kind not in "buif":
        kind = "complex numbers" if values.dtype.kind == "c" else f"values of type {values.dtype}"
        raise DataError(f"{source}: holds {kind}, not intensities; save real numbers, such as the magnitude.")
    values, shape_note = _one_frame(values, source)
    _check_content(values, source)
    values, colour_note = _to_grey(values)
    pixels, type_note = _to_supported_type(values)
    if not np.isfinite(pixels).all():
        raise DataError(f"{source}: intensities exceed the range of 32-bit floats; rescale the image.")
    if pixels.min() == pixels.max():
        raise DataError(f"{source}: all pixels have the value {pixels.flat[0]}; there is nothing to find in it.")
    return Micrograph(
        pixels=pixels,
        source=source,
        content_hash=_content_hash(pixels),
        pixel_size_nm=pixel_size_nm,
        metadata=dict(metadata or {}),
        notes=notes + tuple(note for note in (shape_note, colour_note, type_note) if note),
    )


# --- checks and conversions ---------------------------------------------------------------------------------


def _check_pixel_size(pixel_size_nm: float) -> float:
    if not (math.isfinite(pixel_size_nm) and pixel_size_nm > 0):
        raise ConfigError(
            f"pixel_size_nm={pixel_size_nm!r}: must be a positive number of nm, or left out where unknown."
        )
    return float(pixel_size_nm)


def _one_frame(values: npt.NDArray[Any], source: str) -> tuple[npt.NDArray[Any], str]:
    """Bring an array to (H, W) or (H, W, 2 to 4); refuse stacks."""
    shape: tuple[int, ...] = values.shape
    if len(shape) > 2 and shape[-1] in (2, 3, 4) and all(n == 1 for n in shape[:-3]):
        frame = values.reshape(shape[-3:])
    else:
        frame = values.reshape([n for n in values.shape if n > 1]) if values.ndim > 2 else values
    if frame.ndim > 2 and not (frame.ndim == 3 and tuple(frame.shape)[-1] in (2, 3, 4)):
        raise DataError(
            f"{source}: holds a stack of shape {values.shape}, but a micrograph is one image. Save the frame "
            "that you want as a file of its own, or give one frame, array[i], to micrograph_from_array."
        )
    if frame.ndim < 2 or min(frame.shape[:2]) < MIN_SIDE_PX:
        raise DataError(f"{source}: has shape {values.shape}; a micrograph has two axes of at least {MIN_SIDE_PX} px.")
    return frame, "" if frame.shape == values.shape else f"shape {values.shape} read as {frame.shape}"


def _check_content(values: npt.NDArray[Any], source: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        n_bad = int(values.size - np.count_nonzero(finite))
        raise DataError(
            f"{source}: {n_bad} of {values.size} values are NaN or infinite. Replace them (for example by "
            "the median of their neighbours) or crop them away, then read the image again."
        )


def _to_grey(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """Colours (H, W, 2 to 4) to luminance (H, W), with a note; grey images pass through."""
    if values.ndim == 2:
        return values, ""
    n_channels = values.shape[-1]
    alpha = "; transparency was ignored" if n_channels in (2, 4) else ""
    colours = values[..., : 1 if n_channels == 2 else 3]
    if (colours == colours[..., :1]).all():  # grey stored as colour: nothing is lost, nothing is rounded
        return colours[..., 0], f"{n_channels} equal colour channels read as one{alpha}"
    luminance = colours.astype(np.float64) @ LUMINANCE
    if values.dtype.kind in "ui":
        luminance = np.rint(luminance)
    return luminance.astype(values.dtype), f"colour image converted to luminance{alpha}"


def _to_supported_type(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """uint8, uint16 or float32 in the byte order of this machine, contiguous."""
    if values.dtype.kind == "b":
        return np.where(values, 255, 0).astype(np.uint8), "black-and-white image read as grey levels 0 and 255"
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), ""
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which the caller reports
        pixels = np.ascontiguousarray(values, dtype=np.float32)
    exact = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    return pixels, "" if exact else f"{values.dtype.name} values converted to float32"


def _content_hash(pixels: npt.NDArray[Any]) -> str:
    little_endian = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little_endian.dtype.name} {little_endian.shape}".encode())
    digest.update(little_endian.tobytes())
    return digest.hexdigest()


# --- readers ------------------------------------------------------------------------------------------------


def _read_tiff(file: Path, source: str) -> _FileContent:
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        frames = [other for other in tiff.series if other.shape == series.shape]
        axes = dict(zip(series.axes, series.shape, strict=True))
        n_frames = len(frames) * math.prod(n for axis, n in axes.items() if axis not in "YXS")
        if n_frames > 1:
            raise DataError(
                f"{source}: holds {n_frames} frames (axes {series.axes}, shape {series.shape}), but a "
                "micrograph is one image. Save the frame that you want as a TIFF of its own."
            )
        page = series.keyframe
        _check_complete(tiff, file)
        array = series.asarray()
        if series.axes.startswith("S") or "SY" in series.axes:  # planar colours: channels come first
            array = np.moveaxis(array, series.axes.index("S"), -1)
        notes: list[str] = []
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
            # The numbers are places in a table of colours; the intensities are in the table.
            array = (np.moveaxis(page.colormap[:, array], 0, -1) >> 8).astype(np.uint8)
            notes.append("colours taken from the file's palette")
        if len(tiff.series) > 1:
            notes.append(f"the first of {len(tiff.series)} images of different size was read")
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype.kind in "ub":
            array = ~array
            notes.append("intensities inverted, as the file says that 0 is white")
        pixel_size_nm, size_note = pixel_size_of_tiff(tiff)
        metadata = instrument_metadata(tiff)
    notes.extend(filter(None, [size_note]))
    return _FileContent(array, pixel_size_nm, metadata, tuple(notes))


def _check_complete(tiff: tifffile.TiffFile, file: Path) -> None:
    """Refuse a file that ends before its pixels do: the missing part would otherwise be read as zeros."""
    size = file.stat().st_size
    page = tiff.series[0].keyframe
    pairs = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(offset + count > size for offset, count in pairs):
        raise InputFileError(
            f"{file}: ends after {size} bytes, before its pixels do; the copy is incomplete. Copy it again."
        )


def _read_picture(file: Path, source: str) -> _FileContent:
    with warnings.catch_warnings():
        # Pillow warns of very large pictures, which micrographs legitimately are.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with iio.imopen(file, "r", plugin="pillow") as picture:
            # Of all frames together, which imageio spells with an ellipsis.
            n_frames = picture.properties(index=cast("int", ...)).n_images or 1
            if n_frames > 1:
                raise DataError(
                    f"{source}: holds {n_frames} frames, but a micrograph is one image. Save the frame that "
                    "you want as a file of its own."
                )
            return _FileContent(np.asarray(picture.read(index=0)))


def _read_npy(file: Path, source: str) -> _FileContent:
    with file.open("rb") as stream:
        return _FileContent(np.lib.format.read_array(stream, allow_pickle=False))


_READERS: dict[str, Callable[[Path, str], _FileContent]] = {
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".png": _read_picture,
    ".jpg": _read_picture,
    ".jpeg": _read_picture,
    ".bmp": _read_picture,
    ".npy": _read_npy,
}

#: Suffixes, in lower case, that :func:`read_micrograph` understands.
READABLE_SUFFIXES = tuple(_READERS)


def damaged_file(source: str, file: Path, error: Exception) -> InputFileError:
    """Make the error for a file that a decoder gave up on.

    Decoders raise whatever a damaged file happens to trigger; to the user it is one and the same thing.
    """
    detail = str(error).strip().splitlines()
    reason = detail[0] if detail else type(error).__name__
    return InputFileError(
        f"{source}: cannot be read as {file.suffix.lower().lstrip('.').upper()}: {reason}. The file is "
        "damaged, incomplete or of another kind than its name says; copy or export it again."
    )


def reader_for(file: Path, source: str) -> Callable[[Path, str], _FileContent]:
    """Choose the reader of an existing file by its suffix, or raise an InputFileError that says what is wrong."""
    if file.is_dir():
        raise InputFileError(f"{source}: is a folder; give the image files in it.")
    if not file.exists():
        raise InputFileError(f"{source}: there is no such file; check the name.")
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        known = ", ".join(READABLE_SUFFIXES)
        raise InputFileError(
            f"{source}: files of kind {file.suffix or '(no suffix)'!r} cannot be read; known are {known}. "
            "Export the image as TIFF."
        )
    if file.stat().st_size == 0:
        raise InputFileError(f"{source}: the file is empty; copy or export it again.")
    return reader
