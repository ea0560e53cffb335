"""Small runs for the tests of the training loop."""

import numpy as np
import torch

from tumble.datasets import make_cards
from tumble.fit import FitConfig, fit_ssrvae
from tumble.fit.batches import TrainingData
from tumble.model.config import ModelConfig

CPU = torch.device("cpu")
NET = {"encoder_channels": (4, 8), "hidden": 8}


class Killed(Exception):
    """Stands for a crash."""


def cards(n=3, *, labelled=0.5, seed=0):
    """Images of four classes, 24 px a side, `n` of each, of which a part is labelled."""
    made = make_cards(n, random_state=seed)
    y = np.where(np.random.default_rng(seed).permutation(len(made.y)) < labelled * len(made.y), made.y, -1)
    y[:4] = made.y[:4] if labelled else -1
    return TrainingData(np.ascontiguousarray(made.X[:, None, ::2, ::2]), y.astype(np.int64))


def tiny_fit(data=None, *, max_epochs=3, n_classes=4, seed=0, settings=None, **kwargs):
    data = cards() if data is None else data
    settings = FitConfig(**({"max_epochs": max_epochs, "batch_size": 6, "labelled_batch_size": 4} | (settings or {})))
    config = ModelConfig(n_classes, (1, *data.x.shape[2:]), **NET)
    return fit_ssrvae(data, config, settings, seed=seed, device=CPU, **kwargs)


def same_weights(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(t, u) for (name, t), (other, u) in pairs)
