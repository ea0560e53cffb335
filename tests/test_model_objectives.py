"""The objective against a slow explicit loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from tumble.model import objectives
from tumble.model.angle_mixture import CircularMixture
from tumble.model.angles import NormalAngle
from tumble.model.config import ModelConfig
from tumble.model.coordinates import Placement
from tumble.model.distributions import kl_normal
from tumble.model.ssrvae import SSRVAE, PosteriorZPose


def test_divergence_of_normals_is_summed_over_dimensions():
    q = Normal(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, 2.0]]))
    by_hand = sum(0.5 * (s**2 + m**2 - 1) - math.log(s) for m, s in [(0.5, 0.3), (-1.0, 2.0)])
    assert float(kl_normal(q, Normal(torch.zeros(()), torch.ones(())))) == pytest.approx(by_hand, rel=1e-6)


def with_prior(model):
    model.log_py.copy_(torch.log(torch.tensor([0.5, 0.3, 0.2])))
    return model


@pytest.fixture
def model():
    torch.manual_seed(3)
    return with_prior(SSRVAE(ModelConfig(3, (1, 16, 16), invariances=("rotation", "translation", "scale"))).eval())


@pytest.fixture
def images():
    return torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def setting(model, x):
    return {"prior": objectives.pose_prior_for(model, x)}


@pytest.fixture
def draws_at_the_mean(monkeypatch):
    """Put every draw at the mean, so that two orders of evaluation see the same draws."""
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.zeros(shape))


def test_unlabelled_bound_against_a_loop_over_classes(model, images, draws_at_the_mean):
    logits = torch.tensor([[0.1, 0.5, -1.0]] * 5)
    common = setting(model, images)
    with torch.no_grad():
        features = model.features(images)
        fast = objectives.unlabelled_bound(model, images, logits, features, **common)[0]
        q = torch.softmax(logits, dim=1)
        slow = torch.zeros(5)
        for i in range(5):
            for k in range(3):
                y = torch.tensor([k])
                posterior = model.encode(features[i : i + 1], y)
                terms = objectives.elbo_terms(model, images[i : i + 1], y, posterior, **common)
                slow[i] += q[i, k] * (terms.bound()[0] - torch.log(q[i, k]))
    np.testing.assert_allclose(fast, slow, rtol=1e-5)


def test_pruned_sum_agrees_with_the_full_one_where_the_rest_is_negligible(model, images, draws_at_the_mean):
    logits = torch.tensor([[12.0, 0.0, 11.5]] * 5)
    common = setting(model, images)
    with torch.no_grad():
        features = model.features(images)
        full, _ = objectives.unlabelled_bound(model, images, logits, features, **common)
        pruned, _ = objectives.unlabelled_bound(model, images, logits, features, floor=1e-3, **common)
    np.testing.assert_allclose(pruned, full, rtol=1e-4)


@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_every_row_keeps_its_best_class(seed, floor):
    p = torch.softmax(3 * torch.randn(7, 4, generator=torch.Generator().manual_seed(seed)), dim=1)
    rows, classes = objectives.plausible_classes(p, floor)
    pairs = set(zip(rows.tolist(), classes.tolist(), strict=True))
    assert {(i, int(k)) for i, k in enumerate(p.argmax(dim=1))} <= pairs
    assert pairs >= {(i, k) for i in range(7) for k in range(4) if p[i, k] >= floor}


def test_at_most_so_many_classes_are_visited_and_the_bound_stays_a_bound(model, images, draws_at_the_mean):
    p = torch.tensor([[0.4, 0.35, 0.25], [0.98, 0.015, 0.005]])
    rows, classes = objectives.plausible_classes(p, 0.01, most=2)
    assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    # At the best weights of the classes the full sum is the largest bound: leaving classes out can only lower it.
    common = setting(model, images)
    with torch.no_grad():
        features = model.features(images)
        per_class = []
        for k in range(3):
            y = torch.full((5,), k)
            per_class.append(objectives.elbo_terms(model, images, y, model.encode(features, y), **common).bound())
        best = torch.stack(per_class, dim=1)
        full, _ = objectives.unlabelled_bound(model, images, best, features, **common)
        fewer, _ = objectives.unlabelled_bound(model, images, best, features, max_classes=2, **common)
    assert bool((fewer <= full + 1e-3).all())
    torch.testing.assert_close(full, torch.logsumexp(best, dim=1), rtol=1e-5, atol=1e-3)


def test_gaussian_likelihood_is_that_of_torch(model, images):
    mean = images + 0.1
    sigma = model.log_sigma.exp() * model.pixel_scale
    sigma = sigma + math.exp(-4) * model.pixel_scale  # the soft floor of the width
    expected = Normal(mean, sigma).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(model.log_likelihood(images, mean), expected, rtol=1e-4, atol=1e-3)


def test_the_class_prior_enters_the_bound(model, images):
    y = torch.zeros(5, dtype=torch.long)
    posterior = model.encode(model.features(images), y)
    terms = objectives.elbo_terms(model, images, y, posterior, **setting(model, images))
    assert terms.log_py.tolist() == pytest.approx([math.log(0.5)] * 5)
    expected = terms.log_px + terms.log_py - 2 * (terms.kl_z + terms.kl_pose)
    torch.testing.assert_close(terms.bound(2.0), expected)


@pytest.mark.parametrize("frame", ["object", "grid"])
@pytest.mark.parametrize(
    "invariances", [(), ("translation",), ("scale",), ("rotation",), ("rotation", "translation", "scale")]
)
def test_each_divergence_is_that_of_torch_from_the_prior_of_the_model(frame, invariances):
    config = ModelConfig(
        3,
        (1, 12, 20),
        latent_dim=3,
        invariances=invariances,
        frame=frame,
        translation_prior=0.15,
        scale_prior=0.3,
        encoder_channels=(4,),
        hidden=8,
    )
    model, x = SSRVAE(config).eval(), torch.rand(2, 1, 12, 20)
    qz = Normal(torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.3, 0.1]]), torch.tensor([[0.3, 2.0, 0.7], [1.0, 0.2, 0.5]]))
    qshift = Normal(torch.tensor([[1.0, -2.5], [0.4, 0.0]]), torch.tensor([[0.5, 4.0], [1.5, 0.1]]))
    qscale = Normal(torch.tensor([[0.2], [-0.1]]), torch.tensor([[0.05], [0.6]]))
    qangle = NormalAngle(torch.tensor([0.7, -0.2]), torch.tensor([0.4, 1.3]))
    # The longer side of 20 px spans all of the shift's prior in one frame; its 19 gaps span [-1, 1] in the other.
    shift_unit = 0.15 * 20 if frame == "object" else 0.15 * 19 / 2
    shift = kl_divergence(qshift, Normal(0.0, shift_unit)).sum(dim=1) * ("translation" in invariances)
    scale = kl_divergence(qscale, Normal(0.0, 0.3)).sum(dim=1) * ("scale" in invariances)
    angle = kl_divergence(Normal(qangle.loc, qangle.scale), Normal(0.0, 1.0)) * ("rotation" in invariances)
    posterior = PosteriorZPose(
        qz,
        qangle if "rotation" in invariances else None,
        qshift if "translation" in invariances else None,
        qscale if "scale" in invariances else None,
    )
    prior = objectives.pose_prior_for(model, x)
    torch.testing.assert_close(objectives.kl_shift_and_scale(posterior, prior), shift + scale)
    terms = objectives.elbo_terms(model, x, torch.tensor([0, 2]), posterior, prior=prior)
    torch.testing.assert_close(terms.kl_z, kl_divergence(qz, Normal(0.0, 1.0)).sum(dim=1))
    torch.testing.assert_close(terms.kl_pose, shift + scale + angle)


def test_pseudo_labels_count_only_where_the_teacher_is_sure():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    teacher = torch.tensor([[0.99, 0.01], [0.8, 0.2]])
    loss = objectives.pseudo_label_loss(logits, teacher, threshold=0.95)
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-2)), 0.0], rel=1e-5)


def posterior_at(angle, shift=(0.0, 0.0), n=12):
    """A posterior with one sharp mode at `angle`, and a second one opposite of a tenth of its weight."""
    mode = round(angle / (2 * math.pi / n)) % n
    logits = torch.full((1, n), -20.0)
    logits[0, mode], logits[0, (mode + n // 2) % n] = 0.0, math.log(0.1)
    offset = torch.full((1, n), angle - mode * 2 * math.pi / n)
    narrow = Normal(torch.tensor([shift]), torch.full((1, 2), 0.1))
    q = CircularMixture(logits, offset, torch.full((1, n), 0.05))
    return PosteriorZPose(Normal(torch.zeros(1, 2), torch.ones(1, 2)), q, narrow, None)


def test_pose_consistency_is_least_for_the_composed_pose(model):
    applied = Placement.of(torch.tensor([0.7]), torch.tensor([[1.0, -2.0]]), torch.ones(1))
    before = posterior_at(0.4, (2.0, 0.0))
    turned = (2 * math.cos(0.7) + 1.0, 2 * math.sin(0.7) - 2.0)
    right = objectives.pose_consistency(model, before, posterior_at(1.1, turned), applied)
    wrong_angle = objectives.pose_consistency(model, before, posterior_at(0.4, turned), applied)
    wrong_shift = objectives.pose_consistency(model, before, posterior_at(1.1, (2.0, 0.0)), applied)
    # With shift exact, what is left is the entropy of the two modes and of their width.
    weights = torch.tensor([1 / 1.1, 0.1 / 1.1])
    least = -(weights * (weights.log() - math.log(0.05 * math.sqrt(2 * math.pi)))).sum()
    assert float(right) == pytest.approx(float(least), abs=1e-3)
    assert float(wrong_angle) > float(right) + 10
    assert float(wrong_shift) > float(right) + 0.1


def test_sharper_targets_leave_less_to_the_weaker_mode(model):
    applied = Placement.of(torch.tensor([0.7]), torch.zeros(1, 2), torch.ones(1))
    before, after = posterior_at(0.4, (0.0, 0.0)), posterior_at(1.1, (0.0, 0.0))
    weights = torch.tensor([1 / 1.1, 0.1 / 1.1])
    sharp = weights**2 / (weights**2).sum()
    expected = -(sharp * (weights.log() - math.log(0.05 * math.sqrt(2 * math.pi)))).sum()
    found = objectives.pose_consistency(model, before, after, applied, sharpness=2.0)
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


def test_a_known_pose_surprises_least_where_the_posterior_is(model):
    target = Placement.of(torch.tensor([0.4]), torch.tensor([[2.0, 0.0]]), torch.ones(1))
    right = objectives.pose_surprise(model, posterior_at(0.4, (2.0, 0.0)), target)
    assert float(right) == pytest.approx(-math.log(1 / 1.1 / (0.05 * math.sqrt(2 * math.pi))), abs=1e-4)
    assert float(objectives.pose_surprise(model, posterior_at(0.6, (2.0, 0.0)), target)) > float(right) + 5


FAMILY = [
    {},
    {"angle_prior_concentration": 11.0},
    {"invariances": ()},
    {"invariances": ("translation",), "likelihood": "bernoulli"},
    {"invariances": ("rotation", "scale"), "angle_posterior": "von_mises", "likelihood": "continuous_bernoulli"},
    {"angle_posterior": "projected", "sigma": 0.3, "decoder": "coordinate"},
    {"n_classes": 0, "latent_dim": 5},
    {
        "invariances": ("rotation", "translation", "scale"),
        "angle_posterior": "normal",
        "encoder": "dense",
        "decoder": "coordinate",
        "frame": "grid",
        "standardise": False,
        "likelihood": "bernoulli",
        "scale_prior": 0.1,
    },
]


def groups_of(model):
    """Parameters by the part of the model that they belong to: classifier, encoder, decoder, log_sigma."""
    groups = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(name.split(".")[0], []).append(parameter)
    return groups


def difference_quotient(value, parameters, direction, eps):
    """Central difference of `value()` along a direction in the space of the parameters, which end as they began."""
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        ends = []
        for step in (eps, -eps):
            for p, start, d in zip(parameters, before, direction, strict=True):
                p.copy_(start + step * d)
            ends.append(float(value()))
        for p, start in zip(parameters, before, strict=True):
            p.copy_(start)
    return (ends[0] - ends[1]) / (2 * eps)


@pytest.mark.parametrize("choices", FAMILY)
def test_gradients_of_the_bound_by_finite_differences(choices, images):
    """In float64, along one random direction for each part of the model, with the draws held fixed."""
    torch.manual_seed(0)
    config = ModelConfig(**({"n_classes": 3, "image_shape": (1, 16, 16), "hidden": 16} | choices))
    model = SSRVAE(config).double().eval()
    x = images.double()

    def value():
        generator = torch.Generator().manual_seed(7)
        logits = model.classify(x)
        features = model.features(x)
        bound, _ = objectives.unlabelled_bound(model, x, logits, features, generator=generator, **setting(model, x))
        return bound.mean()

    groups = groups_of(model)
    expected = {"encoder", "decoder"} | ({"classifier"} if config.n_classes else set())
    assert groups.keys() == expected | ({"log_sigma"} if model.log_sigma is not None else set())
    for name, parameters in groups.items():
        gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
        direction = [torch.randn_like(p) for p in parameters]
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
        # Small where images are resampled at places that move: bilinear resampling has a kink wherever a sample
        # crosses a pixel centre.
        eps = 1e-8 if config.decoder == "template" and name == "encoder" else 1e-6
        # The quantile of the von Mises density, where the pose is drawn, is found by quadrature, to a thousandth.
        tolerance = 1e-3 if config.angle_posterior == "von_mises" and name == "encoder" else 1e-4
        found = difference_quotient(value, parameters, direction, eps)
        assert slope == pytest.approx(found, rel=tolerance), name
