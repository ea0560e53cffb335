"""From the values of a file to the grey levels of a micrograph: one frame, no colours, three types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tumble.errors import DataError

__all__ = ["content_hash", "grey_pixels", "hyperspy_metadata", "one_frame", "plain_metadata"]

#: Anything smaller holds no particle with background around it.
MIN_SIDE_PX = 16

#: Weights of red, green and blue in the luminance (ITU-R BT.709).
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

#: Characters of metadata, as JSON, that are kept of one file. Some files carry whole tables of calibration.
MAX_METADATA = 100_000


def one_frame(values: npt.NDArray[Any], source: str) -> tuple[npt.NDArray[Any], str]:
    """Bring an array to (H, W) or (H, W, 2 to 4), with a note; refuse stacks.

    Raises
    ------
    DataError
        It is not one image.
    """
    shape: tuple[int, ...] = values.shape
    if len(shape) > 2 and shape[-1] in (2, 3, 4) and all(n == 1 for n in shape[:-3]):
        frame = values.reshape(shape[-3:])
    else:
        frame = values.reshape([n for n in values.shape if n > 1]) if values.ndim > 2 else values
    if frame.ndim > 2 and not (frame.ndim == 3 and tuple(frame.shape)[-1] in (2, 3, 4)):
        raise DataError(
            f"{source}: holds a stack of shape {values.shape}, but a micrograph is one image. Give one frame, array[i]."
        )
    if frame.ndim < 2 or min(frame.shape[:2]) < MIN_SIDE_PX:
        raise DataError(f"{source}: has shape {values.shape}; a micrograph has two axes of at least {MIN_SIDE_PX} px.")
    return frame, "" if frame.shape == values.shape else f"shape {values.shape} read as {frame.shape}"


def grey_pixels(values: npt.NDArray[Any], source: str) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Turn one frame into finite grey levels that are not all the same.

    Parameters
    ----------
    values : ndarray of shape (H, W) or (H, W, 2 to 4)
        Intensities or colours, of any type.
    source : str
        Name of the image, for messages.

    Returns
    -------
    pixels : ndarray of shape (H, W)
        ``uint8``, ``uint16`` or ``float32``.
    notes : tuple of str
        What was changed.

    Raises
    ------
    DataError
        The values are not real numbers, not finite, or all equal.
    """
    if values.dtype.kind not in "buif":
        kind = "complex numbers" if values.dtype.kind == "c" else f"values of type {values.dtype}"
        raise DataError(f"{source}: holds {kind}, not intensities; save real numbers, such as the magnitude.")
    _check_finite(values, source)
    values, colour_note = _to_grey(values)
    pixels, type_note = _to_supported_type(values)
    if not np.isfinite(pixels).all():
        raise DataError(f"{source}: intensities exceed the range of 32-bit floats; rescale the image.")
    if pixels.min() == pixels.max():
        raise DataError(f"{source}: all pixels have the value {pixels.flat[0]}; there is nothing to find in it.")
    return pixels, tuple(filter(None, (colour_note, type_note)))


def _check_finite(values: npt.NDArray[Any], source: str) -> None:
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
    with np.errstate(over="ignore"):
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


def content_hash(pixels: npt.NDArray[Any]) -> str:
    """Give the SHA-256 of values, shape and type, the same on machines of either byte order."""
    little_endian = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little_endian.dtype.name} {little_endian.shape}".encode())
    digest.update(little_endian.tobytes())
    return digest.hexdigest()


def plain_metadata(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Make metadata of any file JSON-serialisable, with text that any database can store.

    Parameters
    ----------
    settings : mapping
        Names and values, nested as they come.

    Returns
    -------
    dict
        The same with plain values; the entries that make it longer than `MAX_METADATA` characters are left out.
    """
    plain: dict[str, Any] = {}
    length = 0
    for key, value in settings.items():
        entry = _plain(value)
        length += len(json.dumps(entry, default=str))
        if length > MAX_METADATA:
            plain["left out"] = f"entries beyond {MAX_METADATA:,} characters"
            break
        plain[_text(key)] = entry
    return plain


def hyperspy_metadata(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make the metadata of a frame from those in HyperSpy's common form.

    Parameters
    ----------
    settings : mapping
        With the instrument under ``Acquisition_instrument``.

    Returns
    -------
    dict
        ``{"settings": {...}}``, with ``"instrument"`` and ``"magnification"`` where they are known.
    """
    plain = plain_metadata(settings)
    found: dict[str, Any] = {"settings": plain}
    instruments = plain.get("Acquisition_instrument")
    for instrument in instruments.values() if isinstance(instruments, Mapping) else ():
        if isinstance(instrument, Mapping):
            if isinstance(instrument.get("microscope"), str):
                found["instrument"] = instrument["microscope"]
            if isinstance(instrument.get("magnification"), int | float):
                found["magnification"] = float(instrument["magnification"])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist()) if value.size <= 100 else f"array of shape {value.shape}"
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return _text(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)


def _text(value: Any) -> str:
    """Text without what UTF-8 or a database cannot hold."""
    return str(value).replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
