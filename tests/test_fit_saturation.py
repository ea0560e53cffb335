"""Saturated first layers of the published networks are noticed."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from tumble import RVAE, SSRVAEClassifier
from tumble.datasets import make_cards
from tumble.fit import saturation
from tumble.fit.batches import TrainingData
from tumble.model.config import ModelConfig
from tumble.model.dense import DenseClassifier, DenseEncoder
from tumble.model.ssrvae import SSRVAE

PAPER = ModelConfig(
    4,
    (1, 24, 24),
    hidden=8,
    encoder="dense",
    decoder="coordinate",
    frame="grid",
    angle_posterior="normal",
    standardise=False,
)


def images(background=0.0):
    x = np.maximum(make_cards(4, random_state=0).X[:, None, ::2, ::2], np.float32(background))
    return TrainingData(x, np.zeros(len(x), np.int64))


def model_with_first_weights(encoder, classifier):
    """Networks whose first layers have one weight everywhere: a bright image is a large sum."""
    torch.manual_seed(0)
    model = SSRVAE(PAPER).eval()
    assert isinstance(model.encoder, DenseEncoder)
    assert isinstance(model.classifier, DenseClassifier)
    first = model.classifier.layers[0]
    assert isinstance(first, torch.nn.Linear)
    torch.nn.init.constant_(model.encoder.pixels.weight, encoder)
    torch.nn.init.constant_(first.weight, classifier)
    return model


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1e-3, 1.0), (1.0, 1e-3)])
def test_a_bright_background_that_saturates_either_network_is_told(weights):
    model = model_with_first_weights(*weights)
    with pytest.warns(ConvergenceWarning, match=r"first layer is saturated.*mean pixel 0\.[3-9].*method=\"default\""):
        saturation.warn_if_saturated(model, images(background=0.3))


@pytest.mark.parametrize(
    ("weights", "data"),
    [
        ((1e-3, 1e-3), images(background=0.3)),
        ((1e-2, 1e-2), images()),
        # Images that are alike look alike, whatever the layer does; and one image has no spread.
        ((1.0, 1.0), TrainingData(np.ones((5, 1, 24, 24), np.float32), np.zeros(5, np.int64))),
        ((1.0, 1.0), TrainingData(np.ones((1, 1, 24, 24), np.float32), np.zeros(1, np.int64))),
    ],
)
def test_layers_that_pass_something_on_are_not(weights, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saturation.warn_if_saturated(model_with_first_weights(*weights), data)


def test_the_spread_is_that_of_the_activations():
    model = model_with_first_weights(1e-3, 1e-2)
    x = torch.from_numpy(images().x)
    sums = x.flatten(1).sum(dim=1, keepdim=True)
    biases = [b.detach() for b in (model.encoder.pixels.bias, model.classifier.layers[0].bias)]
    expected = [
        torch.tanh(weight * sums + bias).std(dim=0).mean() for weight, bias in zip((1e-3, 1e-2), biases, strict=True)
    ]
    assert saturation.first_layer_spread(model, x) == pytest.approx(float(min(expected)), rel=1e-4)


@pytest.mark.parametrize("estimator", [RVAE, SSRVAEClassifier])
@pytest.mark.parametrize("method", ["paper", "default"])
def test_fits_of_the_published_method_look_for_it(monkeypatch, estimator, method):
    cards = make_cards(2, random_state=0)
    X, y = cards.X[:, ::4, ::4], cards.y
    model = estimator(method=method, max_epochs=1, hidden=4, random_state=0)
    monkeypatch.setattr(saturation, "_LEAST_SPREAD", 2.0)  # more than any tanh varies
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(X, y)
    assert [w.category for w in told if "saturated" in str(w.message)] == [ConvergenceWarning] * (method == "paper")
    assert all(w.filename == __file__ for w in told if "saturated" in str(w.message))
