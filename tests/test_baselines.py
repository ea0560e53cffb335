"""The simple classifiers learn what they can and no more, and ignore unlabelled rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from tumble.baselines import AreaTreeClassifier, PixelForestClassifier
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


def test_forest_takes_grey_levels_in_both_forms():
    cards = make_cards(10, random_state=0)
    grey = np.round(cards.X * 255).astype(np.uint8)
    forest = PixelForestClassifier(n_estimators=20, random_state=0).fit(grey, cards.y)
    np.testing.assert_allclose(forest.predict_proba(grey), forest.predict_proba(np.float32(grey) / 255))
    np.testing.assert_allclose(forest.predict_proba(grey[:, None]), forest.predict_proba(grey))


@pytest.mark.parametrize("model", [AreaTreeClassifier(max_depth=2, random_state=3), PixelForestClassifier(7, 3)])
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
