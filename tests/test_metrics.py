"""Scores against hand-made cases, slow references and the symmetries that they must have."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import balanced_accuracy_score

from tumble.datasets import load_nanogold
from tumble.errors import ConfigError, DataError
from tumble.metrics import (
    angle_error,
    balanced_accuracy,
    circular_correlation,
    confusion,
    expected_calibration_error,
    match_segmentations,
    recall_per_class,
)

ANGLES = st.floats(-20, 20)
LABEL_IMAGES = arrays(np.int64, (6, 7), elements=st.integers(0, 4))


def naive_iou(reference, found):
    """Return the IoU of every pair of objects, one by one."""
    return {
        (r, f): ((reference == r) & (found == f)).sum() / ((reference == r) | (found == f)).sum()
        for r in np.unique(reference[reference > 0])
        for f in np.unique(found[found > 0])
    }


# ---------------------------------------------------------------- segmentations


def test_match_on_a_hand_made_case():
    reference = np.zeros((10, 10), dtype=int)
    reference[1:5, 1:5] = 3  # found with a shift
    reference[6:9, 6:9] = 5  # split into one large and one small part
    reference[0, 9] = 8  # missed
    found = np.zeros_like(reference)
    found[1:5, 2:6] = 1
    found[6:8, 6:9] = 2
    found[8, 6:9] = 4
    found[9, 0] = 6  # nothing there
    match = match_segmentations(reference, found)
    assert match.pairs.tolist() == [[3, 1], [5, 2]]
    np.testing.assert_allclose(match.iou, [12 / 20, 6 / 9])
    assert (match.n_reference, match.n_found, match.n_matched) == (3, 4, 2)
    assert match.recall == pytest.approx(2 / 3)
    assert match.unmatched_found_fraction == pytest.approx(0.5)
    assert match_segmentations(reference, found, 0.65).pairs.tolist() == [[5, 2]]


def test_match_is_one_to_one_where_greed_would_waste():
    # Row by row: reference 1 fits found 1 best, but then reference 2 stays alone; the best sum pairs both.
    reference = np.array([[1] * 6 + [2] * 6])
    found = np.array([[2] * 2 + [1] * 10])
    match = match_segmentations(reference, found, 0.1)
    assert match.pairs.tolist() == [[1, 2], [2, 1]]


def test_match_with_nothing_to_match():
    empty, full = np.zeros((3, 3), dtype=int), np.ones((3, 3), dtype=int)
    assert np.isnan(match_segmentations(empty, empty).recall)
    assert match_segmentations(full, empty).recall == 0
    assert np.isnan(match_segmentations(full, empty).unmatched_found_fraction)
    assert match_segmentations(empty, full).unmatched_found_fraction == 1
    assert match_segmentations(full, empty).pairs.shape == (0, 2)


@settings(deadline=None)
@given(LABEL_IMAGES)
def test_an_image_matches_itself(image):
    match = match_segmentations(image, image, 1.0)
    present = np.unique(image[image > 0])
    np.testing.assert_array_equal(match.pairs, np.column_stack([present, present]))
    np.testing.assert_array_equal(match.iou, 1.0)


@settings(deadline=None)
@given(LABEL_IMAGES, LABEL_IMAGES, st.permutations([1, 2, 3, 4]), st.sampled_from([0.05, 0.3, 0.5, 0.8]))
def test_match_does_not_depend_on_the_numbers_of_labels(reference, found, numbers, threshold):
    before = match_segmentations(reference, found, threshold)
    renumbered = np.array([0, *numbers])[found] * 10
    after = match_segmentations(reference, renumbered, threshold)
    assert after.iou.sum() == pytest.approx(before.iou.sum())
    if threshold > 0.5:
        expected = np.array([0, *numbers])[before.pairs[:, 1]] * 10
        np.testing.assert_array_equal(after.pairs[:, 1], expected)


@settings(deadline=None)
@given(LABEL_IMAGES, LABEL_IMAGES, st.sampled_from([0.05, 0.2, 0.5]))
def test_match_is_the_best_of_all_pairings(reference, found, threshold):
    match = match_segmentations(reference, found, threshold)
    iou = naive_iou(reference, found)
    assert [iou[tuple(pair)] for pair in match.pairs.tolist()] == pytest.approx(match.iou.tolist())
    assert len(set(match.pairs[:, 0])) == len(set(match.pairs[:, 1])) == match.n_matched
    best = max(
        sum(v for v in (iou.get((r + 1, f), 0.0) for r, f in enumerate(order)) if v >= threshold)
        for order in permutations([1, 2, 3, 4])
    )
    assert match.iou.sum() == pytest.approx(best)


def test_match_is_symmetric_in_its_images():
    gold = load_nanogold()
    # Each object cut to its part below row 300: a second segmentation with other numbers and shapes.
    other = np.where(np.arange(614)[:, None] > 300, gold.objects, 0)
    forth, back = match_segmentations(gold.objects, other), match_segmentations(other, gold.objects)
    assert forth.n_matched == back.n_matched
    np.testing.assert_array_equal(forth.pairs[:, 0], forth.pairs[:, 1])
    assert forth.n_reference == 1518


@pytest.mark.parametrize("image", [np.zeros(3, dtype=int), np.zeros((2, 2)), np.full((2, 2), -1)])
def test_match_refuses_what_is_no_label_image(image):
    with pytest.raises(DataError, match="found"):
        match_segmentations(np.zeros((2, 2), dtype=int), image)


def test_match_refuses_other_shapes_and_thresholds():
    with pytest.raises(DataError, match="shape"):
        match_segmentations(np.zeros((2, 2), dtype=int), np.zeros((2, 3), dtype=int))
    for threshold in (0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="iou_threshold"):
            match_segmentations(np.zeros((2, 2), dtype=int), np.zeros((2, 2), dtype=int), threshold)


# ---------------------------------------------------------------- classes


def test_recalls_and_their_mean():
    y_true = np.array(["a", "a", "a", "b", "c", "c"])
    y_pred = np.array(["a", "b", "a", "b", "a", "b"])
    assert recall_per_class(y_true, y_pred) == pytest.approx({"a": 2 / 3, "b": 1.0, "c": 0.0})
    assert balanced_accuracy(y_true, y_pred) == pytest.approx(balanced_accuracy_score(y_true, y_pred))
    assert np.isnan(recall_per_class(y_true, y_pred, classes=["a", "z"])["z"])
    assert balanced_accuracy([0, 0, 1], [0, 7, 1]) == 0.75


def test_confusion_has_rows_of_truth_and_drops_nothing():
    table = confusion([1, 1, 0], [1, 0, 0], classes=[0, 1, 2])
    assert table.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    with pytest.raises(DataError, match="3"):
        confusion([1, 1], [1, 3], classes=[0, 1])
    with pytest.raises(DataError, match="n > 0"):
        confusion([], [], classes=[0, 1])


def test_calibration_error_of_a_known_mixture():
    # 10 predictions at 0.9 of which 7 are right, 10 at 0.6 of which 6 are right.
    proba = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    y_true = np.array([0] * 7 + [1] * 3 + [1] * 6 + [0] * 4)
    assert expected_calibration_error(y_true, proba) == pytest.approx(0.1)
    names = np.array(["p", "q"])
    assert expected_calibration_error(names[y_true], proba, classes=names) == pytest.approx(0.1)
    assert expected_calibration_error(y_true, proba, n_bins=1) == pytest.approx(0.75 - 0.65)


def test_calibration_error_of_calibrated_predictions_is_small():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20_000)
    y = (rng.uniform(size=p.size) < p).astype(int)
    assert expected_calibration_error(y, np.column_stack([1 - p, p])) < 0.015


@pytest.mark.parametrize("proba", [[[0.5, 0.4]], [[1.5, -0.5]], [[np.nan, 1.0]], [0.5], 1.0, [[0.5, 0.5]] * 2])
def test_calibration_error_refuses_what_are_no_probabilities(proba):
    with pytest.raises(DataError, match="proba"):
        expected_calibration_error([0], proba)


def test_calibration_error_refuses_no_bins():
    with pytest.raises(ConfigError, match="n_bins"):
        expected_calibration_error([0], [[1.0]], n_bins=0)


# ---------------------------------------------------------------- angles


@given(ANGLES, ANGLES, st.integers(1, 6), st.integers(-3, 3))
def test_angle_error_is_symmetric_bounded_and_periodic(a, b, symmetry, turns):
    error = angle_error([a], [b], symmetry=symmetry)[0]
    assert 0 <= error <= np.pi / symmetry + 1e-9
    assert angle_error([b], [a], symmetry=symmetry)[0] == error
    turned = angle_error([a + turns * 2 * np.pi / symmetry], [b], symmetry=symmetry)[0]
    assert turned == pytest.approx(error, abs=1e-9)
    # The distance on the circle, by another route.
    chord = np.abs(np.exp(1j * symmetry * a) - np.exp(1j * symmetry * b))
    assert 2 * np.arcsin(min(chord / 2, 1)) / symmetry == pytest.approx(error, abs=1e-6)


def test_angle_error_with_a_symmetry_for_each_object():
    error = angle_error([0, 0, 0], [np.pi, np.pi, np.pi], symmetry=[1, 2, 3])
    np.testing.assert_allclose(error, [np.pi, 0, np.pi / 3], atol=1e-12)


@pytest.mark.parametrize("symmetry", [0, 1.5, -2, float("nan"), "two"])
def test_angle_error_refuses_impossible_symmetries(symmetry):
    with pytest.raises(ConfigError, match="symmetry"):
        angle_error([0.0], [0.0], symmetry=symmetry)


def test_circular_correlation_knows_offset_sense_and_independence():
    rng = np.random.default_rng(0)
    a, b = rng.vonmises(0, 1, (2, 4000))
    assert circular_correlation(a, a + 5 * np.pi / 3) == pytest.approx(1)
    assert circular_correlation(a, 1 - a) == pytest.approx(-1)
    assert circular_correlation(a, b) == pytest.approx(0, abs=0.05)
    assert 0.5 < circular_correlation(a, a + 0.5 * b) < 1
    assert np.isnan(circular_correlation(a, np.full(4000, 0.3)))
    with pytest.raises(DataError, match="shape"):
        circular_correlation(a, a[:5])
