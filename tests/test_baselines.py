"""The simple classifiers learn what they can and no more, and ignore unlabelled rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from tumble.baselines import (
    AreaTreeClassifier,
    PixelBoostingClassifier,
    PixelForestClassifier,
    PixelSpreadingClassifier,
    PixelTreeClassifier,
)
from tumble.datasets import make_agglomerates, make_cards
from tumble.errors import DataError, LabelError, NotFittedError


@pytest.fixture(scope="module")
def gold():
    return make_agglomerates(20, random_state=0)


def test_area_tells_the_number_of_particles(gold):
    area = gold.mask.sum(axis=(1, 2))
    y = gold.n_particles.copy()
    y[40:] = -1
    tree = AreaTreeClassifier(random_state=0).fit(area, y)
    assert tree.classes_.tolist() == [1, 2, 3, 4]
    assert tree.score(area[40:], gold.n_particles[40:]) > 0.85
    np.testing.assert_allclose(tree.predict_proba(area[:, None]).sum(axis=1), 1)
    np.testing.assert_array_equal(tree.predict(area[:, None]), tree.predict(area))


@pytest.mark.parametrize("nothing", [None, float("nan"), -1])
def test_unlabelled_rows_change_nothing(nothing):
    area = [1.0, 2.0, 9.0, 10.0, 5.0, 6.0]
    y = np.array(["s", "s", "l", "l", nothing, nothing], dtype=object)
    tree = AreaTreeClassifier(random_state=0).fit(area, y)
    only = AreaTreeClassifier(random_state=0).fit(area[:4], y[:4])
    assert tree.classes_.tolist() == ["l", "s"]
    np.testing.assert_array_equal(tree.predict_proba([1, 4, 5.4, 5.6, 9]), only.predict_proba([1, 4, 5.4, 5.6, 9]))


def test_minus_one_in_an_array_of_strings_is_unlabelled():
    tree = AreaTreeClassifier().fit([1, 2, 3], np.array(["a", "b", -1]))
    assert tree.classes_.tolist() == ["a", "b"]


def test_forest_knows_upright_cards_but_not_turned_ones():
    train = make_cards(40, angle=5, translation=0, random_state=0)
    forest = PixelForestClassifier(n_estimators=60, random_state=0).fit(train.X, train.y)
    upright, turned = (make_cards(25, angle=a, translation=0, random_state=1) for a in (5, 180))
    assert forest.score(upright.X, upright.y) > 0.95
    assert forest.score(turned.X, turned.y) < 0.75


@pytest.mark.parametrize(
    "model", [PixelTreeClassifier(random_state=0), PixelBoostingClassifier(max_iter=10, random_state=0)]
)
def test_trees_know_upright_cards(model):
    train, test = (make_cards(n, angle=5, translation=0, random_state=n) for n in (10, 25))
    y = np.append(train.y, [-1] * 4)
    model.fit(np.concatenate([train.X, train.X[:4]]), y)
    assert model.score(test.X, test.y) > 0.7
    assert model.score(test.X[:, None], test.y) == model.score(test.X, test.y)


def _islands(n, rng):
    """Images of one bright pixel that wanders along a row: what is near says more than the first image of the row."""
    X = np.zeros((n, 8, 8), dtype=np.float32)
    y, place = np.arange(n) % 2, rng.uniform(0, 4, n)
    for image, row, column in zip(X, np.where(y, 6, 1), place, strict=True):
        image[row, int(column)], image[row, int(column) + 1] = 1 - column % 1, column % 1
    return X, np.array(["low", "high"])[y]


def test_labels_spread_over_unlabelled_images():
    X, y = _islands(400, np.random.default_rng(0))
    few = y.astype(object)
    few[4:] = None
    spreading = PixelSpreadingClassifier(n_neighbors=15, random_state=0).fit(X, few)
    assert spreading.classes_.tolist() == ["high", "low"]
    assert spreading.score(X, y) > 0.95
    # The same few labels alone reach less far.
    assert spreading.score(X, y) > PixelSpreadingClassifier(random_state=0).fit(X[:4], y[:4]).score(X, y) + 0.05


def test_where_no_label_reaches_all_classes_are_as_probable():
    X = np.zeros((12, 2, 2), dtype=np.float32)
    X[:4, 0, 0], X[4:8, 0, 1], X[8:, 1, 1] = 1, 1, 1
    y = np.repeat([0, 1, -1], 4)
    spreading = PixelSpreadingClassifier(n_neighbors=2, random_state=0).fit(X, y)
    proba = spreading.predict_proba(X[[0, 4, 8]])
    np.testing.assert_allclose(proba, [[1, 0], [0, 1], [0.5, 0.5]], atol=1e-6)


def test_forest_takes_grey_levels_in_both_forms():
    cards = make_cards(10, random_state=0)
    grey = np.round(cards.X * 255).astype(np.uint8)
    forest = PixelForestClassifier(n_estimators=20, random_state=0).fit(grey, cards.y)
    np.testing.assert_allclose(forest.predict_proba(grey), forest.predict_proba(np.float32(grey) / 255))
    np.testing.assert_allclose(forest.predict_proba(grey[:, None]), forest.predict_proba(grey))


@pytest.mark.parametrize(
    "model",
    [
        AreaTreeClassifier(max_depth=2, random_state=3),
        PixelForestClassifier(7, 3),
        PixelTreeClassifier(4, 3),
        PixelBoostingClassifier(2, 5, 3),
        PixelSpreadingClassifier(10, 5, 0.3, 3),
    ],
)
def test_parameters_survive_a_clone_and_seeds_repeat(model, gold):
    X = gold.mask.sum(axis=(1, 2)) if isinstance(model, AreaTreeClassifier) else gold.X
    assert clone(model).get_params() == model.get_params()
    first, again = (clone(model).fit(X, gold.y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_what_cannot_be_fitted_is_refused():
    tree, forest = AreaTreeClassifier(), PixelForestClassifier()
    with pytest.raises(NotFittedError, match="AreaTreeClassifier"):
        tree.predict([1.0])
    with pytest.raises(DataError, match="shape"):
        tree.fit(np.zeros((3, 2)), [0, 1, 1])
    with pytest.raises(DataError, match="finite"):
        tree.fit([1, np.nan, 2], [0, 1, 1])
    with pytest.raises(LabelError, match="2 labels for 3 images"):
        tree.fit([1, 2, 3], [0, 1])
    with pytest.raises(LabelError, match="at least two"):
        tree.fit([1, 2, 3], [0, 0, -1])
    with pytest.raises(DataError, match="images"):
        forest.fit(np.zeros((3, 4)), [0, 1, 1])
    forest = PixelForestClassifier(5).fit(np.eye(4).reshape(4, 2, 2), [0, 1, 0, 1])
    with pytest.raises(DataError, match="4"):
        forest.predict(np.zeros((1, 3, 3)))
