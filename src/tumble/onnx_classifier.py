"""Use an exported classifier with ONNX Runtime and NumPy alone: no torch, no scikit-learn."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tumble.errors import ConfigError, DataError, ModelFileError, TumbleError

__all__ = ["OnnxClassifier"]

#: Images per run: more would only leave the processor's caches.
_BATCH = 256


class OnnxClassifier:
    """A classifier written by :meth:`tumble.SSRVAEClassifier.export_onnx`.

    Parameters
    ----------
    path : path
        The ONNX file.
    n_threads : int or None, default=None
        Batches of images that are classified at a time, each in a thread; None is one per core.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Classes in the order of `predict_proba`.
    image_shape : (int, int, int)
        Channels, height and width of the images.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or not a classifier of `tumble`.
    TumbleError
        If onnxruntime is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, n_threads: int | None = None) -> None:
        if n_threads is not None and (not isinstance(n_threads, int) or n_threads < 1):
            raise ConfigError(f"n_threads={n_threads!r}: expected a whole number of at least 1, or None.")
        self._n_threads = n_threads or os.cpu_count() or 1
        self._session = _session(path)
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.classes_: npt.NDArray[Any] = np.array(json.loads(metadata["tumble.classes"]))
            channels, height, width = (int(n) for n in json.loads(metadata["tumble.image_shape"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path}: this ONNX file is not a classifier that tumble exported.") from error
        self.image_shape = (channels, height, width)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Most probable class of each image; shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            uint8 or float images, as the model was fitted to.

        Returns
        -------
        ndarray of shape (n,)
        """
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Calibrated q(y | x) of each image.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            uint8 or float images, as the model was fitted to.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to 1; columns in the order of `classes_`.

        Raises
        ------
        DataError
            If `X` is not a stack of finite images of the right size.
        """
        images = self._checked(X)
        pieces = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        if len(pieces) == 1:
            return self._run(pieces[0])
        with ThreadPoolExecutor(self._n_threads) as pool:
            return np.concatenate(list(pool.map(self._run, pieces)))

    def _run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return self._session.run(["probabilities"], {"images": _as_floats(images)})[0]

    def _checked(self, X: Any) -> npt.NDArray[Any]:
        images = np.asarray(X)
        if images.ndim == 3:
            images = images[:, None]
        if images.ndim != 4 or images.shape[1:] != self.image_shape or not len(images):
            raise DataError(f"X: expected images (n, C, H, W) = (n, {str(self.image_shape)[1:]}, got {np.shape(X)}.")
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise DataError(f"X: expected uint8 or floating point pixels, got {images.dtype}.")
        return images


def _as_floats(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if images.dtype == np.uint8:
        return images * np.float32(1 / 255)
    with np.errstate(over="ignore", invalid="ignore"):
        floats = np.ascontiguousarray(images, dtype=np.float32)
        # A sum is finite where all terms are; only a doubtful one costs a second look.
        doubtful = not np.isfinite(floats.sum())
    if doubtful and not np.isfinite(floats).all():
        raise DataError("X: some images hold NaN or infinite pixels, or such beyond the range of 32 bits.")
    return floats


def _session(path: str | os.PathLike[str]) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise TumbleError("OnnxClassifier needs the package 'onnxruntime': pip install 'tumble[onnx]'.") from error
    options = onnxruntime.SessionOptions()
    # Threads work on batches of their own: within one network they would mostly wait for each other.
    options.intra_op_num_threads = 1
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ModelFileError(f"{path}: the classifier cannot be read ({error.strerror or error}).") from error
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes of errors have no common base but this one
        raise ModelFileError(f"{path}: the file is damaged, or not an ONNX model ({error}).") from error
