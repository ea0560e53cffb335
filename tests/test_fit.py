"""The parts of training: batches, the running mean of the weights, the rate, the number of steps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tumble.datasets import make_cards
from tumble.fit import FitConfig
from tumble.fit.batches import TrainingData, as_images, iterate_batches
from tumble.fit.config import TARGET_STEPS, TARGET_STEPS_UNLABELLED, Disorder
from tumble.fit.losses import Teacher, training_loss
from tumble.fit.objective import rate_share as _rate
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE

CPU = torch.device("cpu")


def numbered(n, labels):
    """Images whose grey level is their index, so that batches can be traced back."""
    x = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, 1, 2, 2))
    y = np.full(n, -1)
    y[: len(labels)] = labels
    return TrainingData(x, y)


@given(n=st.integers(3, 60), batch_size=st.integers(2, 20), seed=st.integers(0, 99))
def test_a_pass_visits_every_image_in_batches_of_one_size(n, batch_size, seed):
    data = numbered(n, [0, 1])
    batches = list(
        iterate_batches(data, batch_size=batch_size, labelled_batch_size=4, rng=np.random.default_rng(seed), device=CPU)
    )
    assert len(batches) == -(-n // batch_size)
    assert {len(b.x_unlabelled) for b in batches} == {batch_size}
    seen = np.concatenate([b.x_unlabelled[:, 0, 0, 0].numpy() for b in batches])
    assert set(seen.astype(int)) == set(range(n))


def test_labelled_images_come_with_their_class_in_equal_shares():
    data = numbered(50, [0] * 30 + [1] * 3 + [2])
    batch = next(iterate_batches(data, batch_size=10, labelled_batch_size=30, rng=np.random.default_rng(0), device=CPU))
    rows = batch.x_labelled[:, 0, 0, 0].numpy().astype(int)
    np.testing.assert_array_equal(data.y[rows], batch.y.numpy())
    assert np.bincount(batch.y.numpy()).tolist() == [10, 10, 10]


def test_no_class_is_left_out_where_there_are_more_than_places():
    data = numbered(60, list(range(40)))
    rng = np.random.default_rng(0)
    drawn = [
        batch.y.numpy()
        for _ in range(30)
        for batch in iterate_batches(data, batch_size=60, labelled_batch_size=8, rng=rng, device=CPU)
    ]
    assert set(np.concatenate(drawn)) == set(range(40))


def test_bytes_are_brought_to_the_unit_interval():
    x = np.array([[[[0, 51, 255]]]], dtype=np.uint8)
    assert as_images(x, CPU).flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_the_teacher_is_the_weighted_mean_of_the_weights_so_far():
    model = SSRVAE(ModelConfig(2, (1, 16, 16), hidden=8, encoder_channels=(4,)))
    teacher = Teacher(model, 0.5)
    start = model.log_sigma.item()
    expected = start
    for step, value in enumerate([1.0, -2.0, 4.0]):
        with torch.no_grad():
            model.log_sigma.fill_(value)
        teacher.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert teacher.model.log_sigma.item() == pytest.approx(expected, rel=1e-6)
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_the_rate_warms_up_to_its_peak_and_falls_to_nothing():
    rates = [_rate(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates.index(1.0) in (9, 10)
    assert rates[-1] < 1e-3
    assert rates[20:] == sorted(rates[20:], reverse=True)


@pytest.mark.parametrize(("n", "epochs"), [(96 * 125, 8), (1500, 62), (10, 1000), (10**6, 1)])
def test_the_length_of_a_run_is_set_in_steps(n, epochs):
    settings = FitConfig()
    assert settings.epochs_for(n) == epochs
    assert FitConfig(max_epochs=3).epochs_for(n) == FitConfig(max_epochs=3).epochs_for(n, labels=False) == 3
    if n < 10**5:
        per_epoch = settings.steps_per_epoch(n)
        assert settings.epochs_for(n) * per_epoch == pytest.approx(TARGET_STEPS, rel=0.05)
        assert settings.epochs_for(n, labels=False) * per_epoch == pytest.approx(TARGET_STEPS_UNLABELLED, rel=0.05)


def test_no_gradient_reaches_the_teacher_and_every_part_of_the_model_gets_one():
    cards = make_cards(8, random_state=0)
    torch.manual_seed(0)
    model = SSRVAE(ModelConfig(4, (1, 48, 48), invariances=("rotation", "translation", "scale")))
    teacher = Teacher(model, 0.9).model
    data = TrainingData(cards.X[:, None], np.where(np.arange(32) < 16, cards.y, -1))
    batch = next(iterate_batches(data, batch_size=16, labelled_batch_size=8, rng=np.random.default_rng(0), device=CPU))
    loss, parts = training_loss(
        model,
        teacher,
        batch,
        FitConfig(disorder=Disorder(log_scale=0.1), threshold=0.0),
        kl_weight=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    assert all(bool((p.grad != 0).any()) for p in model.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert np.isfinite(list(parts.values())).all()


@pytest.mark.parametrize(("weight", "n_classified"), [(1.0, 8 + 16 + 8), (0.0, 8 + 8)])
def test_copies_are_classified_only_where_their_class_counts(monkeypatch, weight, n_classified):
    cards = make_cards(8, random_state=0)
    model = SSRVAE(ModelConfig(4, (1, 48, 48), encoder_channels=(4, 8), hidden=8))
    data = TrainingData(cards.X[:, None], np.where(np.arange(32) < 16, cards.y, -1))
    batch = next(iterate_batches(data, batch_size=16, labelled_batch_size=8, rng=np.random.default_rng(0), device=CPU))
    teacher, classify, sizes = Teacher(model, 0.9).model, model.classify, []
    monkeypatch.setattr(model, "classify", lambda x: sizes.append(len(x)) or classify(x))
    _, parts = training_loss(
        model,
        teacher,
        batch,
        FitConfig(pseudo_label_weight=weight),
        kl_weight=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert sizes == [n_classified]
    assert ("consistency_class" in parts) == bool(weight)
