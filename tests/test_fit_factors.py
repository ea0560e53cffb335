"""The turn of the latent axes after a fit: it finds independent factors, and changes nothing else that a model says."""

import copy

import numpy as np
import pytest
import torch
from helpers_fit import cards, tiny_fit
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from tumble import RVAE, SSRVAEClassifier
from tumble.datasets import make_cards
from tumble.estimators.growing import as_fitted
from tumble.fit.batches import TrainingData
from tumble.fit.checkpoint import load_model, save_model
from tumble.fit.factors import independent_axes
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE


def mixed_uniform(seed, dim, n=1500, spreads=(1.0, 1.7, 3.0)):
    """Independent uniform factors, wide in some classes, turned at random: factors, latents, classes, rotation."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    factors = rng.uniform(-1, 1, (n, dim)) * np.linspace(1.5, 1.0, dim) * np.array(spreads)[y, None]
    rotation = ortho_group.rvs(dim, random_state=seed)
    z = factors @ rotation.T + np.array([[4.0] * dim, [0.0] * dim, [-7.0] * dim])[y]
    return factors, z.astype(np.float32), y, rotation


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), dim=st.integers(2, 5))
def test_a_known_rotation_of_independent_factors_is_found(seed, dim):
    factors, z, y, rotation = mixed_uniform(seed, dim)
    axes = independent_axes(z, y)
    np.testing.assert_allclose(axes.T @ axes, np.eye(dim), atol=1e-10)
    # Each new axis is one old factor up to its sign; that they are the same in every class is what `y` is for.
    np.testing.assert_allclose(np.abs(axes.T @ rotation).max(axis=1), 1, atol=0.02)
    turned = z @ axes
    for k in range(3):
        r = np.corrcoef(turned[y == k].T, factors[y == k].T)[:dim, dim:]
        assert (np.abs(r).max(axis=1) > 0.98).all()


@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=25)
def test_axes_come_by_variance_and_point_the_way_of_the_old_ones(seed):
    _, z, y, _ = mixed_uniform(seed, 3)
    axes = independent_axes(z, y)
    within = np.concatenate([z[y == k] - z[y == k].mean(axis=0) for k in range(3)]) @ axes
    variances = within.var(axis=0)
    assert (np.diff(variances) < 1e-6).all()
    assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()


def test_a_latent_factor_that_holds_nothing_stays_by_itself():
    _, z, y, _ = mixed_uniform(0, 2)
    z = np.column_stack([z[:, 0], np.random.default_rng(1).normal(0, 1e-3, len(z)), z[:, 1]]).astype(np.float32)
    axes = independent_axes(z, y)
    np.testing.assert_allclose(np.abs(axes[:, 2]), [0, 1, 0], atol=1e-2)


def test_latents_that_do_not_vary_are_left_alone():
    axes = independent_axes(np.zeros((500, 2), np.float32), np.zeros(500, np.int64))
    np.testing.assert_allclose(np.abs(axes).sum(axis=0), 1)


@pytest.mark.parametrize("n_normal", [1, 2, 4])
def test_normal_factors_do_not_hide_the_others(n_normal):
    rng = np.random.default_rng(n_normal)
    factors = np.column_stack([rng.uniform(-1.7, 1.7, (2000, 2)), rng.normal(size=(2000, n_normal))])
    rotation = ortho_group.rvs(2 + n_normal, random_state=0)
    axes = independent_axes((factors @ rotation.T).astype(np.float32), np.zeros(2000, np.int64))
    np.testing.assert_allclose(np.abs(axes.T @ rotation[:, :2]).max(axis=0), 1, atol=0.03)


def test_normal_factors_still_give_a_rotation_without_a_warning():
    z = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    axes = independent_axes(z, np.zeros(2000, np.int64))
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-10)


@pytest.mark.parametrize("shape", [(2000, 1), (99, 2)], ids=["one factor", "too few objects"])
def test_axes_stay_where_there_is_nothing_to_find(shape):
    assert independent_axes(np.ones(shape, np.float32), np.zeros(shape[0], np.int64)) is None


def turned(model, seed=0):
    """A copy of a model whose axes are turned."""
    copied = copy.deepcopy(model)
    copied.add_turn(torch.from_numpy(ortho_group.rvs(model.config.latent_dim, random_state=seed)).float())
    return copied


@pytest.mark.parametrize("decoder", ["template", "coordinate"])
@pytest.mark.parametrize("invariances", [("rotation", "translation"), ()], ids=["pose", "no pose"])
def test_turned_axes_change_no_image_and_no_pose(decoder, invariances):
    torch.manual_seed(0)
    config = ModelConfig(3, (1, 16, 16), latent_dim=3, decoder=decoder, invariances=invariances, hidden=16)
    plain = SSRVAE(config).eval()
    model = turned(plain)
    x, y = torch.rand(6, 1, 16, 16), torch.arange(6) % 3
    with torch.no_grad():
        before, after = plain.encode(plain.features(x), y), model.encode(model.features(x), y)
        torch.testing.assert_close(after.qz.loc, before.qz.loc @ model.turn)
        pose = plain.mean_pose(before)
        torch.testing.assert_close(model.mean_pose(after).angle, pose.angle)
        torch.testing.assert_close(model.decode(after.qz.loc, y, pose), plain.decode(before.qz.loc, y, pose))
        torch.testing.assert_close(model.canonical(after.qz.loc, y), plain.canonical(before.qz.loc, y))


def test_widths_along_turned_axes_are_those_of_the_turned_posterior():
    torch.manual_seed(0)
    plain = SSRVAE(ModelConfig(0, (1, 16, 16), latent_dim=3, hidden=16)).eval()
    model, x, y = turned(plain), torch.rand(4, 1, 16, 16), torch.zeros(4, dtype=torch.long)
    with torch.no_grad():
        before, after = plain.encode(plain.features(x), y).qz, model.encode(model.features(x), y).qz
        for row in range(4):
            covariance = model.turn.T @ torch.diag(before.variance[row]) @ model.turn
            torch.testing.assert_close(after.variance[row], covariance.diagonal())


def test_numbers_that_are_not_finite_are_left_alone():
    z = np.zeros((500, 2), np.float32)
    z[3, 1] = np.nan
    assert independent_axes(z, np.zeros(500, np.int64)) is None


def test_a_fit_ends_with_factors_that_do_not_depend_on_each_other():
    data = make_cards(60, angle=180, random_state=0)
    images = TrainingData(data.X[:, None], np.where(np.arange(240) % 3, -1, data.y))
    model = tiny_fit(images, max_epochs=8).model
    assert model.turn is not None
    plain = copy.deepcopy(model)
    plain.turn = None
    x = torch.from_numpy(images.x).float()
    with torch.no_grad():
        y = model.classify(x).argmax(dim=1)
        z, untouched = (m.encode(m.features(x), y).qz.loc for m in (model, plain))
    torch.testing.assert_close(z, untouched @ model.turn)
    axes = independent_axes(untouched.numpy(), y.numpy())
    np.testing.assert_allclose(model.turn.numpy(), axes, atol=1e-3)
    assert (z - torch.stack([z[y == k].mean(dim=0) for k in y])).std() > 0.1  # or nothing was unmixed
    for k in range(4):  # what traversals follow is measured along the new axes
        if (y == k).sum() >= 5:
            torch.testing.assert_close(model.latent_loc[k], z[y == k].mean(dim=0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("method", "turns"), [("paper", False), ("default", True)])
def test_the_published_method_alone_keeps_its_axes(method, turns):
    X = make_cards(30, random_state=0).X[:, ::2, ::2]
    settings = {"max_epochs": 1, "hidden": 8, "encoder_channels": (4,), "novelty_score": False, "random_state": 0}
    model = RVAE(method=method, **settings).fit(X)
    assert (model.model_.turn is not None) == turns


@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_turned_model_says_the_same_to_the_last_bit_when_it_is_loaded(tmp_path, n):
    model = tiny_fit(cards(30), max_epochs=1, settings={"batch_size": 60}).model.eval()
    assert model.turn is not None
    save_model(tmp_path / "model", model, {})
    again, _ = load_model(tmp_path / "model")
    x, y = torch.rand(n, 1, 24, 24), torch.zeros(n, dtype=torch.long)
    with torch.no_grad():
        z, z_again = (m.encode(m.features(x), y).qz.loc for m in (model, again))
        assert torch.equal(z, z_again)
        assert torch.equal(model.canonical(z, y), again.canonical(z, y))


def test_weights_of_a_turned_model_make_a_model_that_can_be_asked():
    estimator = SSRVAEClassifier(max_epochs=1, hidden=8, encoder_channels=(4,), novelty_score=False, random_state=0)
    data = make_cards(30, random_state=0)
    fitted = estimator.fit(data.X[:, ::2, ::2], np.where(np.arange(120) % 2, -1, data.y))
    assert fitted.model_.turn is not None
    copied = as_fitted(estimator, fitted.model_.state_dict(), fitted.classes_, (1, 24, 24))
    np.testing.assert_array_equal(copied.transform(data.X[:9, ::2, ::2]), fitted.transform(data.X[:9, ::2, ::2]))
