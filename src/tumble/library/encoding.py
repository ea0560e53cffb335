"""How arrays, images and times are written in a database: exact, and readable without unpickling anything."""

from __future__ import annotations

import io
import zlib
from datetime import UTC, datetime
from typing import Any, cast

import imagecodecs
import numpy as np
import numpy.typing as npt

__all__ = [
    "float32_from_bytes",
    "float32_to_bytes",
    "pack_array",
    "pack_arrays",
    "png_from_image",
    "png_to_image",
    "storable_text",
    "unpack_array",
    "unpack_arrays",
    "utc_now",
]


def utc_now() -> str:
    """Return the present time in UTC as ISO 8601 with microseconds, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def pack_array(array: npt.NDArray[Any]) -> bytes:
    """Compress one array; shape and dtype travel with it."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    # Level 1: label images are long runs of equal values, where higher levels cost time and gain little.
    return zlib.compress(buffer.getbuffer(), 1)


def unpack_array(blob: bytes) -> npt.NDArray[Any]:
    """Undo :func:`pack_array`."""
    return np.load(io.BytesIO(zlib.decompress(blob)), allow_pickle=False)


def pack_arrays(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """Compress several named arrays into the bytes of an ``npz`` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def unpack_arrays(blob: bytes) -> dict[str, npt.NDArray[Any]]:
    """Undo :func:`pack_arrays`."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def float32_to_bytes(array: npt.ArrayLike) -> bytes:
    """Return little-endian float32 bytes, in C order."""
    return np.asarray(array, dtype="<f4").tobytes()


def float32_from_bytes(blob: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Undo :func:`float32_to_bytes`; the result may be written to."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32).reshape(shape)


def png_from_image(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode a grey image as PNG."""
    return bytes(cast("bytes", imagecodecs.png_encode(image)))


def png_to_image(blob: bytes) -> npt.NDArray[np.uint8]:
    """Decode a grey PNG."""
    return np.asarray(imagecodecs.png_decode(blob), dtype=np.uint8)


def storable_text(text: object) -> str:
    """Return `text` with what no database can keep (undecodable bytes of a file name) replaced."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
