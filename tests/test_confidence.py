"""The temperature and the score of novelty, on networks whose answers are known or on small fits."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tumble import RVAE, SSRVAEClassifier
from tumble.datasets import make_cards
from tumble.errors import ConfigError
from tumble.fit import FitConfig, confidence
from tumble.fit.batches import TrainingData
from tumble.fit.confidence import fit_novelty, fit_temperature, hold_out_labels
from tumble.fit.config import Disorder
from tumble.model.config import ModelConfig
from tumble.model.nets import NoveltyHead
from tumble.model.ssrvae import SSRVAE


def test_labels_are_held_out_only_where_there_are_many():
    rng = np.random.default_rng(0)
    few = np.repeat([0, 1, -1], [19, 100, 50])
    assert len(hold_out_labels(few, rng)) == 0
    many = np.repeat([0, 1, -1], [20, 1000, 50])
    rows = hold_out_labels(many, rng)
    assert np.bincount(many[rows]).tolist() == [4, 50]
    assert len(np.unique(rows)) == len(rows)
    assert len(hold_out_labels(np.full(9, -1), rng)) == 0


def overconfident(factor, n=400):
    """Data whose labels follow known probabilities, and a model that states them `factor` times too surely."""
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 1.5, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    x = np.zeros((n, 1, 16, 16), np.float32) + logit[:, None, None, None].astype(np.float32)
    model = SSRVAE(ModelConfig(2, (1, 16, 16), hidden=8, encoder_channels=(4, 4))).eval()
    mean = lambda x: x.mean(dim=(1, 2, 3))  # noqa: E731
    model.classify = lambda x: torch.stack([torch.zeros(len(x)), factor * mean(x)], dim=1)
    return model, TrainingData(x, y)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(factor):
    model, data = overconfident(factor)
    settings = FitConfig(disorder=Disorder(intensity=0.0))
    fit_temperature(model, data, np.arange(400), settings, torch.Generator().manual_seed(0))
    assert float(model.log_temperature.exp()) == pytest.approx(factor, rel=0.2)
    logits = model.classify(torch.from_numpy(data.x))
    y = torch.from_numpy(data.y)
    calibrated = float(F.cross_entropy(logits / model.log_temperature.exp(), y))
    assert calibrated <= float(F.cross_entropy(logits, y)) + 1e-6


def test_without_held_out_labels_the_temperature_stays():
    model, data = overconfident(3.0)
    fit_temperature(model, data, np.zeros(0, dtype=np.int64), FitConfig(), torch.Generator())
    assert float(model.log_temperature) == 0.0


def test_the_score_finds_a_class_that_is_among_the_unlabelled_only():
    """Features are given; the third cluster has no labels and lies beside the second."""
    rng = np.random.default_rng(0)
    n = 300
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0]])
    truth = rng.integers(0, 3, n)
    features = (centres[truth] + rng.normal(0, 0.5, (n, 2))).astype(np.float32)
    y = np.where((rng.random(n) < 0.2) & (truth < 2), truth, -1)
    model = SSRVAE(ModelConfig(2, (1, 16, 16), hidden=2, encoder_channels=(4, 4))).eval()
    # Images carry their features in two pixels; nothing disturbs them.
    x = np.zeros((n, 1, 16, 16), np.float32)
    x[:, 0, 0, :2] = features
    model.evidence = lambda x: x[:, 0, 0, :2]
    model.add_novelty = lambda: setattr(model, "novelty", NoveltyHead(2, hidden=16)) or model.novelty
    model.probabilities = lambda x: F.one_hot((x[:, 0, 0, 0] > 2).long(), 2).float()
    still = Disorder(angle_rad=0.0, shift_px=0.0, log_scale=0.0, shear=0.0, intensity=0.0)
    fit_novelty(
        model,
        TrainingData(x, y),
        FitConfig(disorder=still),
        np.random.default_rng(0),
        torch.Generator().manual_seed(0),
    )
    score = model.novelty(torch.from_numpy(features)).numpy()
    hidden, known = score[(truth == 2)], score[(truth < 2)]
    assert np.mean(hidden[:, None] > known[None]) > 0.95
    # What lies far from everything is novel too, though no unlabelled object ever lay there.
    assert float(model.novelty(torch.tensor([[-20.0, -20.0]]))) > np.quantile(known, 0.99)


@pytest.mark.parametrize(("n", "copies"), [(1, 20), (7, 20), (300, 20), (400, 15), (5000, 1), (9000, 0)])
def test_every_unlabelled_image_is_seen_as_often(n, copies):
    drawn = confidence._repeated(np.arange(n) + 3, np.random.default_rng(0))
    counts = np.bincount(drawn - 3, minlength=n)
    assert len(drawn) == min(20 * n, 6000)
    assert set(counts) <= {copies, copies + 1}


@pytest.mark.parametrize(("n", "steps"), [(3, 200), (3000, 500), (9000, 1000)])
def test_the_score_learns_from_blurred_features_for_longer_where_there_are_more(n, steps):
    head = NoveltyHead(2, hidden=4)
    head.spread.copy_(torch.tensor([1.0, 10.0]))
    given, logit = [], head.logit
    head.logit = lambda features: given.append(features) or logit(features)
    nothing = torch.zeros(n, 2)
    confidence._train(head, nothing, nothing, FitConfig(), torch.Generator().manual_seed(0))
    assert len(given) == 2 * steps  # labelled and unlabelled
    torch.testing.assert_close(torch.cat(given).std(dim=0), torch.tensor([0.3, 3.0]), rtol=0.05, atol=0)


def test_the_limits_hold_for_known_objects_that_were_not_seen():
    """A network learns eight labelled images of a class by heart; by their own scores nearly all others are novel."""
    rng = np.random.default_rng(0)
    width = 16

    def draw(n):
        truth = rng.integers(0, 2, n)
        return truth, (8.0 * (np.arange(width) == truth[:, None]) + rng.normal(size=(n, width))).astype(np.float32)

    truth, features = draw(400)
    y = np.full(400, -1)
    for k in (0, 1):
        y[np.flatnonzero(truth == k)[:8]] = k
    model = SSRVAE(ModelConfig(2, (1, 16, 16), hidden=2, encoder_channels=(4, 4))).eval()
    x = np.zeros((400, 1, 16, 16), np.float32)
    x[:, 0, 0] = features
    model.evidence = lambda x: x[:, 0, 0]
    model.add_novelty = lambda: setattr(model, "novelty", NoveltyHead(width, hidden=16)) or model.novelty
    model.probabilities = lambda x: F.one_hot((x[:, 0, 0, 1] > 4).long(), 2).float()
    still = Disorder(angle_rad=0.0, shift_px=0.0, log_scale=0.0, shear=0.0, intensity=0.0)
    draws = np.random.default_rng(0), torch.Generator().manual_seed(0)
    fit_novelty(model, TrainingData(x, y), FitConfig(disorder=still), *draws)
    _, fresh = draw(2000)
    for share, most in ((0.1, 0.2), (0.5, 0.7)):
        limit = model.novelty.quantiles[round(100 * (1 - share))]
        assert float((model.novelty(torch.from_numpy(fresh)) > limit).float().mean()) < most


def test_the_distance_counts_only_where_the_training_images_nearly_end():
    head, rng = NoveltyHead(2, hidden=4), np.random.default_rng(0)
    known, seen = torch.from_numpy(rng.normal(size=(2, 1000, 2)).astype(np.float32))
    head.set_scale(known, seen)
    high = float(seen[:, 1].quantile(0.85))
    near, usual, far = head._score(torch.tensor([[1.0, -3.0], [1.0, high], [1.0, 8.0]])).tolist()
    assert usual == near
    assert far > 5 > near > 0


@pytest.mark.parametrize("seed", [2, 3])
def test_a_single_unlabelled_image_is_enough(seed):
    """Then one labelled image is drawn beside it, from one fold; there is nothing to train the others on."""
    cards = make_cards(2, random_state=0)
    X, y = np.concatenate([cards.X, cards.X[:1]]), np.append(cards.y, -1)
    model = SSRVAEClassifier(max_epochs=1, hidden=8, encoder_channels=(4,), random_state=seed).fit(X, y)
    assert np.isfinite(model.novelty(X)).all()


@pytest.fixture(scope="module")
def fitted():
    cards = make_cards(10, random_state=0)
    names = np.array(cards.classes)[cards.y].astype(object)
    names[20:] = None
    return SSRVAEClassifier(max_epochs=1, random_state=0).fit(cards.X, names), cards.X


def test_rejected_objects_are_unknown(fitted):
    model, X = fitted
    assert model.novelty(X).shape == (40,)
    assert set(model.predict(X, reject=1.0)) == {"unknown"}
    assert set(model.predict(X)) <= set(model.classes_)
    some = model.predict(X, reject=0.3)
    assert (some[some != "unknown"] == model.predict(X)[some != "unknown"]).all()
    order = model.novelty(X)
    assert order[some == "unknown"].min() >= order[some != "unknown"].max()


@pytest.mark.parametrize("reject", [-0.1, 1.5, "much", True])
def test_reject_is_a_share(fitted, reject):
    model, X = fitted
    with pytest.raises(ConfigError, match="reject"):
        model.predict(X, reject=reject)


def test_rejected_objects_of_numbered_classes_are_minus_one():
    cards = make_cards(10, random_state=0)
    model = SSRVAEClassifier(max_epochs=1, random_state=0).fit(cards.X, np.where(np.arange(40) < 20, cards.y, -1))
    assert set(model.predict(cards.X, reject=1.0)) == {-1}


def test_without_classes_novelty_is_the_distance_from_the_training_images():
    X = make_cards(10, random_state=0).X
    model = RVAE(max_epochs=1, random_state=0).fit(X)
    noise = np.random.default_rng(0).random((5, 48, 48)).astype(np.float32)
    assert model.novelty(noise).min() > np.median(model.novelty(X))


def test_the_score_of_novelty_can_be_left_out(tmp_path):
    X, y = np.random.default_rng(0).random((24, 16, 16), dtype=np.float32), np.array([0, 1, *[-1] * 22])
    settings = {"max_epochs": 1, "batch_size": 8, "labelled_batch_size": 4, "hidden": 8, "random_state": 0}
    with_score, without = (
        SSRVAEClassifier(novelty_score=wanted, encoder_channels=(4,), **settings).fit(X, y) for wanted in (True, False)
    )
    # It follows the training: nothing else changes.
    np.testing.assert_array_equal(with_score.predict_proba(X), without.predict_proba(X))
    without.save(tmp_path / "model")
    for model in (without, SSRVAEClassifier.load(tmp_path / "model")):
        for ask in (model.novelty, lambda X, model=model: model.predict(X, reject=0.1)):
            with pytest.raises(ConfigError, match="fit it again with novelty_score=True"):
                ask(X)


def test_labels_teach_the_classifier_alone_where_nothing_is_calibrated():
    data = make_cards(30, angle=5, random_state=0)
    y = np.where(np.arange(120) % 6, data.y, -1)  # 25 of each class, five of which would be held out
    settings = {"encoder_channels": (4,), "hidden": 8, "max_epochs": 1, "novelty_score": False, "random_state": 0}
    for wanted in (True, False):
        model = SSRVAEClassifier(calibrate=wanted, **settings).fit(data.X[:, ::2, ::2], y)
        assert (model.model_.log_temperature != 0) == wanted
