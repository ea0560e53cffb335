"""Hashes of crops: one that is equal for equal pixels only, and one that is alike for alike pixels."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["difference_hashes", "exact_hash", "hamming_distance"]

#: Rows and columns of the grid whose neighbours a difference hash compares: 8 x 8 bits.
_GRID = (8, 9)


def exact_hash(crop: bytes) -> int:
    """Return the first 64 bits of the SHA-256 of a crop's pixels, as a signed integer."""
    return int.from_bytes(hashlib.sha256(crop).digest()[:8], "big", signed=True)


def difference_hashes(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the difference hash of each crop.

    A crop is averaged down to 8 x 9 values, and each bit says whether a value is less than its right neighbour. Few
    bits change with noise, contrast or a small displacement; all change with a rotation.

    Parameters
    ----------
    crops : ndarray of shape (n, S, S), uint8
        Below 9 px some of the values are those of the same pixels.

    Returns
    -------
    ndarray of shape (n,), int64
    """
    n, height, width = crops.shape
    if n == 0:
        return np.empty(0, dtype=np.int64)
    edges = [np.linspace(0, side, parts + 1).astype(int) for side, parts in zip((height, width), _GRID, strict=True)]
    sums = np.add.reduceat(np.add.reduceat(crops.astype(np.int64), edges[0][:-1], axis=1), edges[1][:-1], axis=2)
    means = sums / np.outer(*(np.maximum(np.diff(edge), 1) for edge in edges))
    bits = (means[:, :, 1:] > means[:, :, :-1]).reshape(n, -1)
    return np.packbits(bits, axis=1).view(">i8").astype(np.int64).ravel()


def hamming_distance(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many bits differ, element by element."""
    return np.bitwise_count(np.bitwise_xor(a, b).view(np.uint64)).astype(np.int64)
