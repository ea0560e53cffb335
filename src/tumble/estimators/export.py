"""The classifier alone as an ONNX file, for programs that have neither torch nor `tumble`."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tumble._version import __version__
from tumble.errors import ModelFileError, TumbleError
from tumble.fit.checkpoint import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tumble.estimators.folding import FoldedClassifier

__all__ = ["export_classifier"]

#: Largest difference from PyTorch in any probability; beyond, nothing is written.
_TOLERANCE = 1e-4
#: Images of the check. Their number differs from that of the example, so that a fixed batch size would show.
_N_CHECKED, _N_EXAMPLE = 7, 2


def export_classifier(
    path: Path, classifier: FoldedClassifier, image_shape: tuple[int, int, int], classes: Sequence[Any]
) -> None:
    """Write a classifier as one ONNX file, after it has given the same probabilities as PyTorch on random images.

    Parameters
    ----------
    path : Path
        File to write; it appears whole or not at all.
    classifier : FoldedClassifier
        What is written: images (n, C, H, W) to ``probabilities`` and ``logits``, both (n, K).
    image_shape : (int, int, int)
        Channels, height and width.
    classes : sequence of int or str
        Names of the columns; kept in the metadata of the file with the shape and the version of `tumble`.

    Raises
    ------
    TumbleError
        If the extra "onnx" is not installed, or the exported network does not agree with PyTorch.
    ModelFileError
        If the file cannot be written.
    """
    onnx, runtime = _require("onnx"), _require("onnxruntime")
    _require("onnxscript")
    classifier = classifier.cpu().eval()
    model = _exported(classifier, torch.zeros(_N_EXAMPLE, *image_shape))
    metadata = {"tumble": __version__, "classes": list(classes), "image_shape": list(image_shape)}
    onnx.helper.set_model_props(model, {f"tumble.{k}" if k != "tumble" else k: _text(v) for k, v in metadata.items()})
    content = model.SerializeToString()
    _check_agreement(runtime, content, classifier, image_shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ModelFileError(f"{path}: the classifier cannot be written here ({error.strerror or error}).") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _require(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TumbleError(f"The export to ONNX needs the package {name!r}: pip install 'tumble[onnx]'.") from error


def _exported(classifier: FoldedClassifier, example: torch.Tensor) -> Any:
    """Give the network as an ONNX ModelProto with any number of images."""
    with _quiet_exporter():
        program = torch.onnx.export(
            classifier,
            (example,),
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["images"],
            output_names=["probabilities", "logits"],
            dynamic_shapes={"x": {0: torch.export.Dim("n")}},
        )
    assert program is not None  # with dynamo=True it always gives one
    return program.model_proto


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's exporter from telling of its own insides: a deprecated call, and operators of torchvision."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _check_agreement(
    runtime: Any, content: bytes, classifier: FoldedClassifier, image_shape: tuple[int, int, int]
) -> None:
    x = np.random.default_rng(0).random((_N_CHECKED, *image_shape), dtype=np.float32)
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"images": x})
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(x))[0].numpy()
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE:
        raise TumbleError(
            f"The exported classifier differs from the model by {difference:.2g} in a probability (allowed: "
            f"{_TOLERANCE:g}); nothing was written. Try other versions of torch, onnxscript and onnxruntime."
        )
