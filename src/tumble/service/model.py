"""What the service asks: a saved model, in full or its exported classifier alone, behind one face."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tumble.errors import ModelFileError
from tumble.types import Pose

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt


__all__ = ["Answers", "ServedModel", "load_served_model"]


@dataclass(frozen=True)
class Answers:
    """What a model says of n crops.

    Parameters
    ----------
    probabilities : ndarray of shape (n, K)
        Rows sum to 1.
    latent : ndarray of shape (n, L), or None
        Latent factors; None where the model is an exported classifier.
    pose : Pose or None
        Pose of each object; None where the model is an exported classifier.
    novelty : ndarray of shape (n,), or None
        None where the model has no such score.
    """

    probabilities: npt.NDArray[np.float32]
    latent: npt.NDArray[np.float32] | None = None
    pose: Pose | None = None
    novelty: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    def part(self, rows: slice) -> Answers:
        """Give what is said of some of the crops."""
        pose = self.pose and Pose(**{field.name: getattr(self.pose, field.name)[rows] for field in fields(Pose)})
        latent = None if self.latent is None else self.latent[rows]
        return Answers(self.probabilities[rows], latent, pose, None if self.novelty is None else self.novelty[rows])


class ServedModel(Protocol):
    """A model as the service sees it.

    Attributes
    ----------
    name : str
        Its name in answers.
    kind : str
        ``"full"`` or ``"classifier"``, the latter without pose, latent factors and novelty.
    classes : tuple of str
        In the order of the probabilities.
    image_shape : (int, int, int)
        Channels, height and width of the crops that it takes.
    fingerprint : str
        SHA-256 of its weights.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    fingerprint: str

    def predict(self, crops: npt.NDArray[Any]) -> Answers:
        """Classify checked crops, uint8 or float32, of shape (n, C, H, W)."""
        ...


class _FullModel:
    """A folder that `save` wrote; runs on torch."""

    kind = "full"

    def __init__(self, folder: Path) -> None:
        # Only here: an exported classifier is served without torch.
        from tumble.estimators import SSRVAEClassifier
        from tumble.estimators.predictor import Predictor

        self._predictor = Predictor(SSRVAEClassifier.load(folder))
        self.name = folder.resolve().name
        self.classes = self._predictor.classes
        self.image_shape = self._predictor.image_shape
        self.fingerprint = _sha256(folder / "weights.safetensors")

    def predict(self, crops: npt.NDArray[Any]) -> Answers:
        said = self._predictor.predict(crops)
        return Answers(said.probabilities, said.latent, said.pose, said.novelty)


class _ExportedClassifier:
    """An ONNX file that `export_onnx` wrote."""

    kind = "classifier"

    def __init__(self, file: Path) -> None:
        from tumble.onnx_classifier import OnnxClassifier

        self._classifier = OnnxClassifier(file)
        self.name = file.stem
        self.classes = tuple(str(name) for name in self._classifier.classes_)
        self.image_shape = self._classifier.image_shape
        self.fingerprint = _sha256(file)

    def predict(self, crops: npt.NDArray[Any]) -> Answers:
        return Answers(self._classifier.predict_proba(crops))


def load_served_model(path: str | os.PathLike[str]) -> ServedModel:
    """Load the folder of a saved model, or an ONNX file with its classifier.

    Parameters
    ----------
    path : path
        A folder written by `save` (or ``tumble fit``), or a file written by `export_onnx`.

    Returns
    -------
    ServedModel

    Raises
    ------
    ModelFileError
        If there is nothing, or it is damaged or no classifier.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ModelFileError(f"{path}: there is no such model; give the folder of a model, or an ONNX file.")
    if place.is_dir():
        return _FullModel(place)
    if place.suffix.lower() != ".onnx":
        raise ModelFileError(f"{path}: is neither the folder of a model nor an ONNX file (.onnx).")
    return _ExportedClassifier(place)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
