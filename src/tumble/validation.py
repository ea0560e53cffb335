"""Checks at the border of the estimators: arrays and labels come in, or one clear error goes out."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils import column_or_1d

from tumble.errors import ConfigError, DataError, LabelError
from tumble.types import UNLABELLED

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "as_labels",
    "check_choice",
    "check_images",
    "check_labels",
    "check_number",
    "encode_labels",
    "is_unlabelled",
]

#: Below this side an image holds too little for the networks' strides.
MIN_SIDE_PX = 8
#: NaN is looked for in pieces of about this many pixels, so that a memory map is never held whole.
_CHUNK_PIXELS = 2**22
_FLOAT32_MAX = float(np.finfo(np.float32).max)
#: What -1 becomes in an array of strings, and what an empty cell of a table is read as.
_NO_LABEL = frozenset({str(UNLABELLED), ""})


def check_images(X: Any, *, image_shape: tuple[int, int, int] | None = None) -> npt.NDArray[Any]:
    """Check a stack of images and give it four axes.

    Parameters
    ----------
    X : array-like of shape (n, H, W) or (n, C, H, W)
        uint8 or float images.
    image_shape : (int, int, int), optional
        Channels, height and width that a fitted model expects.

    Returns
    -------
    ndarray of shape (n, C, H, W)
        bool, uint8 or float, as it came; a view where possible, so that a memory map stays one.

    Raises
    ------
    DataError
        If `X` is not such a stack, has NaN or infinite pixels, or another size than the model was fitted to.
    """
    array = _as_array(X)
    if array.ndim not in (3, 4):
        raise DataError(f"X: expected shape (n, H, W) or (n, C, H, W), got {array.shape}.")
    if len(array) == 0:
        raise DataError("X: there are no images.")
    if array.dtype.kind == "c":
        raise DataError("X: Complex data not supported; give the magnitude, or both parts as channels.")
    if array.dtype.kind not in "bfu" or (array.dtype.kind == "u" and array.dtype != np.uint8):
        raise DataError(
            f"X: expected uint8 or floating point pixels, got {array.dtype}. Convert, for example X / X.max()."
        )
    if min(array.shape[-2:]) < MIN_SIDE_PX:
        raise DataError(f"X: images of {array.shape[-2]} x {array.shape[-1]} px are below {MIN_SIDE_PX} px a side.")
    array = array if array.ndim == 4 else array[:, None]
    if image_shape is not None and array.shape[1:] != tuple(image_shape):
        raise DataError(
            f"X: the model was fitted to images of (C, H, W) = {tuple(image_shape)}, these are {array.shape[1:]}. "
            "Extract the crops with the same size."
        )
    _check_finite(array)
    if array.dtype.itemsize > 4 and max(float(array.max()), -float(array.min())) > _FLOAT32_MAX:
        raise DataError("X: some pixels are beyond the range of 32-bit floating point. Rescale the images.")
    return array


def _as_array(X: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise DataError(f"X: the images have different sizes {_sizes(X)}. Crop them to one size first.") from error
    if array.dtype == object:
        raise DataError(f"X: expected one numeric array, got objects of sizes {_sizes(X)}. Crop them to one size.")
    return array


def _check_finite(array: npt.NDArray[Any]) -> None:
    if array.dtype.kind != "f":
        return
    size = max(1, _CHUNK_PIXELS // int(np.prod(array.shape[1:])))
    for start in range(0, len(array), size):
        piece = array[start : start + size]
        # A sum is finite where all terms are; only a doubtful one costs a look at each pixel.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(piece.sum()):
                continue
        bad = ~np.isfinite(piece).all(axis=(1, 2, 3))
        if bad.any():
            first = start + int(np.argmax(bad))
            raise DataError(
                f"X: image {first} holds NaN or infinite pixels (and perhaps others). Remove or repair such images."
            )


def _sizes(X: Any) -> str:
    shapes = sorted({np.shape(image) for image in X})
    return ", ".join(map(str, shapes[:3])) + (", ..." if len(shapes) > 3 else "")


def is_unlabelled(y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which labels mean "no label": -1, and among objects and strings also None, NaN, NA, "" and "-1".

    Examples
    --------
    >>> is_unlabelled(np.array(["a", None, -1], dtype=object)).tolist()
    [False, True, True]
    """
    if y.dtype.kind == "f":
        return np.isnan(y) | (y == UNLABELLED)
    if y.dtype.kind in "iu":
        return y == UNLABELLED
    return np.array([bool(pd.isna(v)) or str(v) in _NO_LABEL for v in y], dtype=bool)


def check_labels(y: Any, n: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Check labels of any integer or string kind.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels; see :func:`is_unlabelled`.
    n : int
        Number of images.

    Returns
    -------
    y : ndarray of shape (n,)
        The labels.
    unlabelled : ndarray of shape (n,), bool
        Where there is none.

    Raises
    ------
    LabelError
        If `y` has another length or kind, or holds fewer than two classes.
    """
    array, unlabelled = as_labels(y, n)
    classes = np.unique(array[~unlabelled])
    if len(classes) < 2:
        raise LabelError(
            f"y: all labels are of one class, {classes[0]}. A classifier needs labels of at least two classes."
        )
    return array, unlabelled


def as_labels(y: Any, n: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Give what :func:`check_labels` gives, also for labels of a single class."""
    if y is None:
        raise LabelError("y: a classifier requires y to be passed, but the target y is None. Give -1 for unlabelled.")
    array = np.asarray(y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = column_or_1d(array, warn=True)
    if array.ndim != 1:
        raise LabelError(f"y: expected one label per image, shape ({n},), got shape {array.shape}.")
    if len(array) != n:
        raise LabelError(f"y: {len(array)} labels for {n} images. Give one per image, -1 for unlabelled ones.")
    if array.dtype.kind == "b" or array.dtype.kind not in "iufUO":
        raise _unknown_kind(array.dtype)
    unlabelled = is_unlabelled(array)
    if unlabelled.all():
        raise LabelError("y: every label is missing. Label at least one object of each class.")
    return _one_kind(array, unlabelled), unlabelled


def _one_kind(array: npt.NDArray[Any], unlabelled: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Turn whole floats into integers, and objects into integers or, failing that, into their text."""
    known = array[~unlabelled]
    if array.dtype.kind == "f":
        if not (np.isfinite(known).all() and (known == np.floor(known)).all()):
            raise _unknown_kind("continuous numbers")
        array = np.where(unlabelled, UNLABELLED, array).astype(np.int64)
    elif array.dtype.kind == "O":
        # One kind of label only: integers stay integers, anything else is compared by its text.
        if any(isinstance(v, (bool, np.bool_)) for v in known):
            raise _unknown_kind("booleans")
        whole = all(isinstance(v, (int, np.integer)) or (isinstance(v, float) and v.is_integer()) for v in known)
        if whole:
            array = np.array([UNLABELLED if u else int(v) for v, u in zip(array, unlabelled, strict=True)])
        else:
            array = np.array(["" if u else str(v) for v, u in zip(array, unlabelled, strict=True)])
    return array


def _unknown_kind(found: Any) -> LabelError:
    return LabelError(f"y: Unknown label type: labels must be integers or strings, got {found}.")


def encode_labels(
    y: npt.NDArray[Any], unlabelled: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Classes in sorted order, and the index of each label among them, -1 for unlabelled."""
    classes, known = np.unique(y[~unlabelled], return_inverse=True)
    indices = np.full(len(y), UNLABELLED, dtype=np.int64)
    indices[~unlabelled] = known
    return classes, indices


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise a ConfigError unless `value` is one of `choices`."""
    if not isinstance(value, Hashable) or value not in choices:
        raise ConfigError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}.")


def check_number(name: str, value: Any, *, low: float, high: float = float("inf"), integer: bool = False) -> None:
    """Raise a ConfigError unless `value` is a number of [low, high]."""
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if integer else "a number"
        bound = f"of at least {low}" if high == float("inf") else f"between {low} and {high}"
        raise ConfigError(f"{name}={value!r}: expected {kind} {bound}.")
