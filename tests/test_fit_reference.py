"""The object whose orientation is called zero where there are no labels."""

import numpy as np
import pytest
import torch

from tumble import RVAE
from tumble.datasets import make_cards
from tumble.fit import losses
from tumble.fit.batches import Batch, TrainingData
from tumble.fit.config import Disorder, FitConfig
from tumble.fit.reference import most_typical
from tumble.metrics import angle_error
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE


def blobs(n, rng):
    """Bright discs of one size at random places on a grey background, some in the middle, and two oddities there."""
    rows, cols = np.mgrid[:33, :33] - 16.0
    centres, radii = rng.uniform(4, 8, (n, 2)) * rng.choice([-1, 1], (n, 2)), np.full(n, 6.0)
    centres[10:20] = rng.uniform(-0.4, 0.4, (10, 2))
    centres[3], radii[3] = (0.0, 0.0), 2.0
    centres[5], radii[5] = (0.0, 0.0), 12.0
    distance = np.hypot(rows - centres[:, :1, None], cols - centres[:, 1:, None])
    return (0.2 + 0.8 / (1 + np.exp(distance - radii[:, None, None]))).astype(np.float32)


def test_an_ordinary_object_near_the_centre_is_chosen():
    X = blobs(60, np.random.default_rng(0))
    data = TrainingData(X[:, None], np.full(len(X), -1))
    assert 10 <= most_typical(data, np.random.default_rng(1)) < 20
    # Bytes and dark objects are no different.
    dark = np.round(255 * (1 - X)).astype(np.uint8)
    assert most_typical(TrainingData(dark[:, None], data.y), np.random.default_rng(1)) in range(10, 20)


def test_blank_images_have_a_choice_too():
    data = TrainingData(np.zeros((4, 1, 8, 8), dtype=np.float32), np.full(4, -1))
    assert 0 <= most_typical(data, np.random.default_rng(0)) < 4


def test_without_classes_the_reference_is_not_mirrored_and_no_angle_is_taken_for_upright():
    model = SSRVAE(ModelConfig(0, (1, 16, 16))).eval()
    still = Disorder(angle_rad=0.0, shift_px=0.0, log_scale=0.0, shear=0.0, mirror=True)
    ramp = torch.linspace(0, 1, 16).expand(32, 1, 16, 16)
    batch = Batch(ramp, torch.zeros(32, dtype=torch.long), ramp)
    views = losses._views(model, batch, FitConfig(disorder=still), torch.Generator().manual_seed(0))
    torch.testing.assert_close(views.labelled, ramp)
    flipped = (views.undisturbed == ramp.flip(3)).flatten(1).all(dim=1)
    assert 4 < int(flipped.sum()) < 28
    limited = FitConfig(disorder=Disorder(angle_rad=1.0))
    angle, shift = losses._present_pose(model, ramp, torch.ones(32, 1), limited)
    assert angle is None
    assert shift is not None


@pytest.mark.slow
def test_the_angle_of_objects_without_labels_comes_about():
    cards = make_cards(700, angle=180, random_state=3)
    test = make_cards(100, angle=180, random_state=4)
    spade, seen = cards.classes.index("spade"), test.y == test.classes.index("spade")
    model = RVAE(max_epochs=60, random_state=0).fit(cards.X[cards.y == spade])
    found, truth = model.pose(test.X[seen]).angle_rad, test.polar_angle[seen]
    constant = np.angle(np.exp(1j * (found - truth)).mean())
    # Chance is 90 degrees.
    assert np.degrees(np.median(angle_error(found - constant, truth))) < 20
