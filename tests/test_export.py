"""The exported classifier says what PyTorch says, without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tumble import RVAE, SSRVAEClassifier
from tumble._version import __version__
from tumble.errors import ConfigError, DataError, ModelFileError, NotFittedError, TumbleError
from tumble.estimators import export
from tumble.estimators.folding import FoldedClassifier, view_angles
from tumble.model.config import ModelConfig
from tumble.model.coordinates import place
from tumble.model.ssrvae import SSRVAE
from tumble.onnx_classifier import OnnxClassifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SHAPES = [(1, 24, 24), (1, 17, 32), (3, 20, 15)]
KINDS = {
    "fast": {"encoder_channels": (4, 8)},
    "fine": {"classifier": "fine", "symmetry": "rotations"},
    "fine with mirror images": {"classifier": "fine", "symmetry": "rotations+mirror"},
    "fine without symmetry": {"classifier": "fine", "symmetry": "none"},
    "fine with a linear head": {"classifier": "fine", "hidden_layer": False},
    "dense": {"encoder": "dense", "standardise": False},
}


def fitted(shape, *, classes=("b", "disc", "é"), views=1, **kind):
    """A classifier with random weights and statistics, as if it had been fitted."""
    torch.manual_seed(0)
    config = ModelConfig(len(classes), shape, hidden=8, **kind)
    model = SSRVAE(config, pixel_offset=0.4, pixel_scale=0.2).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    model.log_temperature.fill_(0.7)
    estimator = SSRVAEClassifier(predict_views=views)
    estimator.model_, estimator.classes_ = model, np.array(classes)
    return estimator


def random_images(shape, n=9, dtype=np.float32):
    x = np.random.default_rng(5).random((n, *shape), dtype=np.float32)
    x = x[:, 0] if shape[0] == 1 else x
    return np.rint(x * 255).astype(np.uint8) if dtype is np.uint8 else x.astype(dtype)


def probabilities_of_turned(estimator, x, angle):
    turned = place(torch.from_numpy(x)[:, None], torch.full((len(x),), angle), torch.zeros(len(x), 2))
    with torch.inference_mode():
        return estimator.model_.probabilities(turned).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_folding_changes_nothing_but_rounding(shape, kind):
    model = fitted(shape, **KINDS[kind]).model_
    x = torch.rand(5, *shape)
    with torch.inference_mode():
        probabilities, logits = FoldedClassifier(model)(x)
        torch.testing.assert_close(logits, model.classify(x), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(probabilities, model.probabilities(x), atol=1e-5, rtol=1e-5)


def test_views_are_turned_copies():
    model = fitted((1, 17, 32), **KINDS["fast"]).model_
    x = torch.rand(5, 1, 17, 32)
    angles = view_angles(3, np.pi)
    np.testing.assert_allclose(angles, [0, 2 * np.pi / 3, 4 * np.pi / 3])
    assert view_angles(1, np.pi) == (0.0,)
    assert max(map(abs, view_angles(5, 0.4))) <= 0.4
    np.testing.assert_allclose(view_angles(2, np.pi, symmetry="rotations"), [0, np.pi / 4])
    with torch.inference_mode():
        turned = [place(x, torch.full((5,), a), torch.zeros(5, 2)) for a in angles]
        expected = sum(model.probabilities(t) for t in turned) / 3
        torch.testing.assert_close(FoldedClassifier(model, angles)(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_no_view_tells_a_classifier_that_quarter_turns_cannot_confuse_what_it_knows():
    estimator = fitted((1, 24, 24), **KINDS["fine"], views=4)
    assert estimator.model_.config.symmetry != "none"
    x = random_images((1, 24, 24))
    views = [probabilities_of_turned(estimator, x, angle) for angle in np.arange(4) * np.pi / 8]
    assert np.abs(np.diff(views, axis=0)).max(axis=(1, 2)).min() > 1e-4
    np.testing.assert_allclose(estimator.predict_proba(x), np.mean(views, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "kind", "views", "dtype"),
    [
        ((1, 24, 24), "fast", 1, np.uint8),
        ((3, 20, 15), "fast", 1, np.float64),
        ((1, 17, 32), "fast", 3, np.float32),
        ((2, 17, 32), "fine", 1, np.float32),
        ((1, 24, 24), "fine with mirror images", 1, np.uint8),
        ((1, 16, 12), "dense", 1, np.float32),
    ],
)
def test_the_exported_classifier_says_the_same(tmp_path, shape, kind, views, dtype):
    model = fitted(shape, views=views, **KINDS[kind])
    path = tmp_path / "new" / "classifier.onnx"
    model.export_onnx(path)
    assert [p.name for p in path.parent.iterdir()] == ["classifier.onnx"]
    classifier = OnnxClassifier(path, n_threads=1)
    X = random_images(shape, dtype=dtype)
    for n in (1, 9):
        found = classifier.predict_proba(X[:n])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, model.predict_proba(X[:n]), atol=1e-4)
    np.testing.assert_array_equal(classifier.predict(X), model.predict(X))
    assert classifier.classes_.tolist() == model.classes_.tolist()
    assert classifier.image_shape == shape


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "classifier.onnx"
    fitted((1, 24, 24), classes=(3, 7, 100), **KINDS["fast"]).export_onnx(path)
    return path


def test_the_file_says_what_it_is(file):
    model = onnx.load(file)
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["tumble"] == __version__
    assert json.loads(metadata["tumble.classes"]) == [3, 7, 100]
    assert json.loads(metadata["tumble.image_shape"]) == [1, 24, 24]
    assert [i.name for i in model.graph.input] == ["images"]
    assert [o.name for o in model.graph.output] == ["probabilities", "logits"]
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert axes[0].dim_param
    assert [a.dim_value for a in axes[1:]] == [1, 24, 24]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert OnnxClassifier(file).predict(np.zeros((2, 24, 24))).dtype.kind == "i"


def test_the_runtime_needs_no_torch(file):
    code = (
        "import sys, numpy as np; from tumble.onnx_classifier import OnnxClassifier;"
        f"OnnxClassifier({str(file)!r}).predict(np.zeros((2, 24, 24), np.uint8));"
        "print(*sorted({'torch', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 20, 24)), r"expected images \(n, C, H, W\) = \(n, 1, 24, 24\), got \(2, 20, 24\)"),
        (np.zeros((24, 24)), "expected images"),
        (np.zeros((0, 24, 24)), "expected images"),
        (np.zeros((2, 24, 24), dtype=np.int64), "uint8 or floating"),
        (np.full((2, 24, 24), np.nan), "NaN"),
        (np.full((2, 24, 24), 1e300), "NaN or infinite"),
    ],
)
def test_bad_images_are_named(file, X, message):
    with pytest.raises(DataError, match=message):
        OnnxClassifier(file).predict(X)


def test_bad_files_and_arguments_are_named(file, tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read"):
        OnnxClassifier(tmp_path / "nothing.onnx")
    (tmp_path / "damaged.onnx").write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="damaged, or not an ONNX model"):
        OnnxClassifier(tmp_path / "damaged.onnx")
    other = onnx.load(file)
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelFileError, match="not a classifier that tumble exported"):
        OnnxClassifier(tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match="n_threads=0"):
        OnnxClassifier(file, n_threads=0)
    with pytest.raises(ModelFileError, match="cannot be written"):
        fitted((1, 24, 24), **KINDS["fast"]).export_onnx(file / "below a file.onnx")


def test_without_the_extra_the_error_says_what_to_install(file, monkeypatch, tmp_path):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(TumbleError, match=rf"{name}.*tumble\[onnx\]"):
                fitted((1, 24, 24), **KINDS["fast"]).export_onnx(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TumbleError, match=r"tumble\[onnx\]"):
        OnnxClassifier(file)
    assert not list(tmp_path.iterdir())


def test_an_export_that_disagrees_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "_TOLERANCE", -1.0)
    with pytest.raises(TumbleError, match="nothing was written"):
        fitted((1, 16, 16), **KINDS["dense"]).export_onnx(tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_only_fitted_classifiers_are_exported(tmp_path):
    with pytest.raises(NotFittedError):
        SSRVAEClassifier().export_onnx(tmp_path / "a.onnx")
    assert not hasattr(RVAE(), "export_onnx")
