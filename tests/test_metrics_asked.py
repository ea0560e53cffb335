"""Agreement against published values, fractions against simulation, and the choice of what to label."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tumble.errors import ConfigError, DataError
from tumble.metrics import (
    bootstrap_counts,
    choose_to_label,
    choose_varied,
    cohen_kappa,
    corrected_fractions,
    fleiss_kappa,
    pairwise_agreement,
)
from tumble.metrics.fractions import unmixed
from tumble.metrics.labelling import uncertainty


def test_fleiss_kappa_of_the_textbook():
    # The worked example of fourteen raters, ten subjects and five classes: kappa is 0.210.
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_kappas_of_full_agreement_of_chance_and_of_nothing():
    assert fleiss_kappa([[2, 0], [0, 2]]) == 1
    assert fleiss_kappa([[1, 1], [1, 1]]) == -1
    assert np.isnan(fleiss_kappa([[2, 0], [2, 0]]))
    assert np.isnan(fleiss_kappa(np.zeros((0, 2))))
    assert cohen_kappa(["a", "b", "a", "b"], ["a", "b", "b", "a"]) == pytest.approx(0)
    assert np.isnan(cohen_kappa(["a", "a"], ["a", "a"]))
    assert np.isnan(cohen_kappa([], []))
    with pytest.raises(DataError, match="same number of raters"):
        fleiss_kappa([[2, 0], [1, 0]])
    with pytest.raises(DataError, match="same objects"):
        cohen_kappa(["a"], ["a", "b"])


def test_pairs_are_compared_on_what_both_rated():
    ratings = pd.DataFrame({"ann": ["a", "b", None, "a"], "bob": ["a", "a", "b", None], "carl": [None] * 3 + ["b"]})
    pairs = pairwise_agreement(ratings).set_index(["rater", "other"])
    assert pairs["n"].tolist() == [2, 1, 0]
    assert pairs.loc[("ann", "bob"), "agreement"] == 0.5
    assert pairs.loc[("ann", "carl"), "agreement"] == 0
    assert np.isnan(pairs.loc[("bob", "carl"), "agreement"])


def test_intervals_of_counts_are_those_of_the_binomial():
    found = bootstrap_counts([300, 700], n_resamples=20_000)
    assert found.value.tolist() == [0.3, 0.7]
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    np.testing.assert_allclose(found.low, [0.3 - spread, 0.7 - spread], atol=2e-3)
    np.testing.assert_allclose(found.high, [0.3 + spread, 0.7 + spread], atol=2e-3)


def test_micrographs_that_differ_widen_the_interval():
    alike, different = [[30, 70]] * 10, [[0, 100], [60, 40]] * 5
    assert np.ptp([bootstrap_counts(alike).low, bootstrap_counts(alike).high], axis=0).max() == 0
    assert (bootstrap_counts(different).high - bootstrap_counts(different).low).min() > 0.3


def test_unmixing_undoes_mixing_and_stays_a_distribution():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rates = rng.dirichlet(np.ones(4), 4) * 0.4 + np.eye(4) * 0.6
        truth = rng.dirichlet(np.ones(4))
        np.testing.assert_allclose(unmixed(truth @ rates, rates), truth, atol=1e-6)
    bound = unmixed(np.array([0.0, 1.0]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    np.testing.assert_allclose(bound, [0, 1])


def test_the_correction_is_that_of_rogan_and_gladen_for_two_classes():
    confusion = np.array([[80, 20], [10, 190]])  # sensitivity 0.8, specificity 0.95
    found = corrected_fractions([300, 700], confusion)
    assert found.value[0] == pytest.approx((0.3 + 0.95 - 1) / (0.8 + 0.95 - 1), abs=1e-6)
    assert found.low[0] < found.value[0] < found.high[0]


def test_corrected_intervals_hold_the_truth_as_often_as_they_say():
    """Raw intervals miss it: the classifier's errors shift them."""
    rng = np.random.default_rng(1)
    truth, rates = np.array([0.7, 0.2, 0.1]), np.array([[0.9, 0.08, 0.02], [0.1, 0.8, 0.1], [0.05, 0.25, 0.7]])
    held, raw_held, trials = 0, 0, 150
    for i in range(trials):
        counts = rng.multinomial(1500, truth @ rates)
        confusion = np.stack([rng.multinomial(80, row) for row in rates])
        found = corrected_fractions(counts, confusion, n_resamples=200, random_state=i)
        raw = bootstrap_counts(counts, n_resamples=200, random_state=i)
        held += ((found.low <= truth) & (truth <= found.high)).sum()
        raw_held += ((raw.low <= truth) & (truth <= raw.high)).sum()
    assert 0.9 <= held / (3 * trials) <= 0.99
    assert raw_held / (3 * trials) < 0.6


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 2], [0.5, 2.0], [[[1]]]])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(DataError, match="counts must be"):
        bootstrap_counts(counts)


def test_an_untested_class_cannot_be_corrected():
    with pytest.raises(DataError, match="class 1 was tested"):
        corrected_fractions([1, 2], [[3, 1], [0, 0]])
    with pytest.raises(DataError, match="shape"):
        corrected_fractions([1, 2], [[3, 1, 1], [0, 1, 1]])
    with pytest.raises(ConfigError, match="level"):
        bootstrap_counts([1, 2], level=95)


def test_uncertainty_is_one_minus_the_lead():
    np.testing.assert_allclose(uncertainty([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]]), [0, 1, 0.8])


def test_what_is_chosen_is_doubtful_and_differs():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [9, 0], [0, 9], [9, 9], [5, 5]])
    group = np.repeat(np.arange(5), [400, 10, 10, 10, 70])  # nearly all doubts are alike; four small groups differ
    features = centres[group] + rng.normal(0, 0.1, (500, 2))
    p = rng.uniform(0.5, 0.53, 500)
    p[group == 4] = 0.99  # no doubt about these
    chosen = choose_to_label(np.c_[p, 1 - p], features, 20)
    assert len(set(chosen)) == 20
    assert set(group[chosen]) == {0, 1, 2, 3}
    assert (np.diff(uncertainty(np.c_[p, 1 - p])[chosen]) <= 0).all()
    np.testing.assert_array_equal(chosen, choose_to_label(np.c_[p, 1 - p], features, 20))


def test_choosing_from_few_or_equal_objects():
    p = np.full((6, 2), 0.5)
    assert choose_to_label(p, np.zeros((6, 0)), 20).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="n is 0"):
        choose_to_label(p, np.zeros((6, 2)), 0)
    with pytest.raises(DataError, match="features must be"):
        choose_to_label(p, np.zeros((5, 2)), 2)
    with pytest.raises(DataError, match="2 or more classes"):
        choose_to_label(p[:, :1], np.zeros((6, 2)), 2)


def test_varied_objects_are_far_apart_and_rare_ones_come_early():
    rng = np.random.default_rng(0)
    usual, rare = rng.normal(size=(500, 2)), rng.normal((12, -9), 0.1, size=(5, 2))
    x = np.concatenate([usual, rare])
    chosen = choose_varied(x, 10)
    assert len(set(chosen.tolist())) == 10
    assert (chosen >= 500).any()
    assert np.square(x[chosen[0]]).sum() < 0.1  # the most usual one
    # By comparing all with all: each is as far as any from those before it.
    scaled = x / (np.percentile(x, 90, axis=0) - np.percentile(x, 10, axis=0))
    scaled = np.clip(scaled - np.median(scaled, axis=0), -4, 4)
    gaps = np.linalg.norm(scaled[:, None] - scaled[chosen], axis=2)
    for k in range(1, 10):
        nearest = gaps[:, :k].min(axis=1)
        assert nearest[chosen[k]] == pytest.approx(nearest.max())


def test_varied_objects_are_far_from_those_that_are_known():
    x = np.array([[0.0], [1.0], [10.0]])
    assert choose_varied(x, 1, known=[[9.0], [10.5]]).tolist() == [0]
    assert sorted(choose_varied(np.zeros((4, 2)), 9).tolist()) == [0, 1, 2, 3]
    assert choose_varied([[np.nan], [1.0], [2.0]], 3).size == 3
    assert choose_varied([[np.nan, 1.0], [np.nan, 5.0]], 2).size == 2
    assert choose_varied(np.zeros((0, 2)), 3).size == 0
    with pytest.raises(ConfigError):
        choose_varied(x, 0)
    with pytest.raises(DataError, match="known"):
        choose_varied(x, 1, known=[[1.0, 2.0]])
