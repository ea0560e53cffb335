"""The MNIST digits, read from a folder of idx files; they are too large to ship."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from tumble.errors import ConfigError, InputFileError

if TYPE_CHECKING:
    import os

__all__ = ["load_mnist"]

_PREFIXES = {"train": "train", "test": "t10k"}
_CLASSES = tuple(str(digit) for digit in range(10))
_WHERE_FROM = "Download the four MNIST files (train-images-idx3-ubyte.gz and so on) again"


def load_mnist(folder: str | os.PathLike[str], split: str = "train") -> Bunch:
    """Read handwritten digits [1]_ from idx files, plain or compressed with gzip.

    Parameters
    ----------
    folder : path
        Folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz`` at the end. Only the two of the split are read.
    split : {"train", "test"}, default="train"
        60,000 digits for training or 10,000 for testing.

    Returns
    -------
    Bunch
        ``X`` uint8 (n, H, W), 28 x 28 px, bright digits on black; ``y`` int64 (n,); ``classes`` ("0", ..., "9").

    Raises
    ------
    ConfigError
        If `split` is neither "train" nor "test".
    InputFileError
        If a file is missing, damaged or of another kind, or images and labels do not fit each other.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
       Proceedings of the IEEE 86, 1998.
    """
    if split not in _PREFIXES:
        raise ConfigError(f"split={split!r}: expected 'train' or 'test'.")
    path = Path(folder)
    if not path.is_dir():
        raise InputFileError(f"{path}: no such folder. Give the folder that holds the MNIST idx files.")
    images_file = _find(path, f"{_PREFIXES[split]}-images", 3)
    labels_file = _find(path, f"{_PREFIXES[split]}-labels", 1)
    X, y = _read_idx(images_file, 3), _read_idx(labels_file, 1)
    if len(X) != len(y):
        raise InputFileError(
            f"{labels_file}: {len(y)} labels for the {len(X)} images of {images_file.name}. "
            "Both files must come from the same download."
        )
    if len(y) and y.max() >= len(_CLASSES):
        raise InputFileError(f"{labels_file}: label {y.max()} is no digit. {_WHERE_FROM}.")
    return Bunch(X=X, y=y.astype(np.int64), classes=_CLASSES)


def _find(folder: Path, stem: str, n_dims: int) -> Path:
    """Return the file of that name; some downloads write a dot for the last hyphen but one."""
    names = [f"{stem}{mark}idx{n_dims}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputFileError(f"{folder}: holds neither {names[0]} nor {names[1]}. Give the folder of the idx files.")


def _read_idx(path: Path, n_dims: int) -> npt.NDArray[np.uint8]:
    """Read unsigned bytes of so many dimensions: a magic number, the lengths, then the values."""
    content = _read_bytes(path)
    magic = bytes([0, 0, 8, n_dims])
    if content[:4] != magic:
        kind = "images" if n_dims == 3 else "labels"
        found = content[:4].hex() or "nothing"
        raise InputFileError(
            f"{path}: begins with {found}, where an idx file of {kind} begins with {magic.hex()}. {_WHERE_FROM}."
        )
    header = 4 + 4 * n_dims
    if len(content) < header:
        raise InputFileError(f"{path}: ends within its header of {header} bytes. {_WHERE_FROM}.")
    shape = tuple(int(n) for n in np.frombuffer(content, dtype=">u4", count=n_dims, offset=4))
    # Python's whole numbers, since a damaged header may name a product beyond 64 bits.
    expected = 1
    for length in shape:
        expected *= length
    if len(content) - header != expected:
        state = "truncated" if len(content) - header < expected else "too long"
        size = " x ".join(map(str, shape))
        raise InputFileError(
            f"{path}: {state}, {len(content) - header} bytes of data where its header says {size}. {_WHERE_FROM}."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            return file.read()
    except EOFError as error:
        raise InputFileError(f"{path}: truncated, the compressed data end too early. {_WHERE_FROM}.") from error
    except (OSError, zlib.error) as error:
        raise InputFileError(f"{path}: cannot be read ({error}). {_WHERE_FROM}.") from error
