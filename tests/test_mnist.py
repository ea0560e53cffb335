"""Idx files are read as they were written, plain or compressed; anything else is refused with its name."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from tumble.datasets import load_mnist
from tumble.errors import ConfigError, InputFileError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 9], dtype=np.uint8)
#: Header of an idx file of images: magic number, then the three lengths.
HEADER = 16


def idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx(IMAGES[:2]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    return tmp_path


@pytest.mark.parametrize(("split", "n"), [("train", 3), ("test", 2)])
def test_digits_come_back_as_written(folder, split, n):
    digits = load_mnist(folder, split=split)
    np.testing.assert_array_equal(digits.X, IMAGES[:n])
    np.testing.assert_array_equal(digits.y, LABELS[:n])
    assert digits.X.dtype == np.uint8
    assert digits.y.dtype == np.int64
    assert digits.classes == tuple("0123456789")
    digits.X[0] = 0  # writable, as every data set is


def test_unknown_split_and_missing_files_are_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="'validation': expected 'train' or 'test'"):
        load_mnist(folder, split="validation")
    with pytest.raises(InputFileError, match=r"nowhere: no such folder"):
        load_mnist(tmp_path / "nowhere")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputFileError, match=r"neither t10k-labels-idx1-ubyte nor .*\.gz"):
        load_mnist(folder, split="test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"begins with nothing"),
        (idx(LABELS), r"begins with 00000801, where an idx file of images begins with 00000803"),
        (b"\x89PNG and so on", r"begins with 89504e47"),
        (idx(IMAGES)[: HEADER - 2], r"ends within its header of 16 bytes"),
        (idx(IMAGES)[:-1], r"truncated, 59 bytes of data where its header says 3 x 4 x 5"),
        (idx(IMAGES) + b"0", r"too long, 61 bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), r"truncated, 0 bytes"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_images_are_refused(folder, content, message, compressed):
    (folder / "train-images-idx3-ubyte.gz").unlink()
    path = folder / f"train-images-idx3-ubyte{'.gz' if compressed else ''}"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(InputFileError, match=message) as caught:
        load_mnist(folder)
    assert str(path) in str(caught.value)
    assert "Download" in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda packed: packed[:-12], "truncated"),
        (lambda packed: b"no gzip at all", "cannot be read"),
        (lambda packed: packed[:12] + bytes(len(packed) - 12), "cannot be read|truncated"),
    ],
)
def test_damaged_compression_is_refused(folder, damage, message):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputFileError, match=message):
        load_mnist(folder)


def test_images_and_labels_must_fit(folder):
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(LABELS))
    with pytest.raises(InputFileError, match=r"3 labels for the 2 images of t10k-images\.idx3-ubyte"):
        load_mnist(folder, split="test")
    path.write_bytes(idx(np.array([3, 10], dtype=np.uint8)))
    with pytest.raises(InputFileError, match="label 10 is no digit"):
        load_mnist(folder, split="test")
