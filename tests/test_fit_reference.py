"""The object whose orientation is called zero where there are no labels."""

import numpy as np
import pytest

from tumble import RVAE
from tumble.datasets import make_cards
from tumble.fit.batches import TrainingData
from tumble.fit.reference import most_typical
from tumble.metrics import angle_error


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
