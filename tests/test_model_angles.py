"""Posteriors of the angle: densities and divergences against numerical integration, draws against densities."""

import dataclasses
import math

import pytest
import torch
from scipy import special, stats
from torch.distributions import Normal
from torch.distributions import VonMises as TorchVonMises

from tumble.model.angle_mixture import ANGLE_MODE_PRIOR, N_ANGLE_MODES, CircularMixture
from tumble.model.angles import NormalAngle, ProjectedNormal, VonMises
from tumble.model.config import ModelConfig
from tumble.model.distributions import WrappedNormal, missing_length
from tumble.model.ssrvae import SSRVAE

CIRCLE = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096) - math.pi


def on_circle(density):
    """Log density on a fine grid of angles, from a scalar wrapped Normal."""
    return WrappedNormal(density.loc.unsqueeze(-1), density.scale.unsqueeze(-1)).log_prob(CIRCLE)


def wrapped(loc, scale):
    return WrappedNormal(torch.tensor([loc], dtype=torch.float64), torch.tensor([scale], dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.02, 0.3, 0.49, 0.51, 1.0, 2.0, 4.0])
def test_wrapped_normal_integrates_to_one(scale):
    total = on_circle(wrapped(0.7, scale)).exp().sum() * (2 * math.pi / 4096)
    assert float(total) == pytest.approx(1.0, abs=1e-6)


def mixture(logits, offset, scale):
    """Build a mixture of as many modes as there are numbers, in float64."""
    return CircularMixture(*(torch.tensor([v], dtype=torch.float64) for v in (logits, offset, scale)))


@pytest.mark.parametrize(
    ("logits", "offset", "scale"),
    [([0.5, 0.0], [0.0, 0.0], [0.1, 0.1]), ([1.0, -2.0, 0.3, 0.0], [0.2, -0.3, 0.1, 0.5], [0.05, 0.4, 1.0, 2.0])],
)
def test_mixture_against_its_definition(logits, offset, scale):
    q = mixture(logits, offset, scale)
    weights = torch.softmax(torch.tensor(logits, dtype=torch.float64), dim=0)
    by_hand = sum(
        w * on_circle(wrapped(2 * math.pi * m / len(logits) + o, s)).exp()
        for m, (w, o, s) in enumerate(zip(weights, offset, scale, strict=True))
    )
    density = q.log_prob(CIRCLE[None])[0].exp()
    torch.testing.assert_close(density, by_hand[0])
    resultant = torch.abs((density * torch.exp(1j * CIRCLE)).sum()) * (2 * math.pi / 4096)
    assert float(q.circular_std()) == pytest.approx(math.sqrt(-2 * math.log(float(resultant))), rel=1e-4)
    heaviest = logits.index(max(logits))
    assert float(q.best()) == pytest.approx(2 * math.pi * heaviest / len(logits) + offset[heaviest])


def test_the_prior_of_the_angle_is_nearly_uniform():
    modes = [0.0] * N_ANGLE_MODES
    prior = mixture(modes, modes, [ANGLE_MODE_PRIOR] * N_ANGLE_MODES)
    density = prior.log_prob(CIRCLE[None]).exp() * 2 * math.pi
    assert density.min() > 0.97
    assert density.max() < 1.03


def test_divergence_of_the_modes_bounds_that_of_the_mixtures():
    q = mixture([2.0, 0.0, -1.0], [0.1, -0.2, 0.0], [0.15, 0.2, 0.1])
    p = mixture([0.0] * 3, [0.0] * 3, [ANGLE_MODE_PRIOR] * 3)
    rows, modes, weights = q.plausible_modes(max_modes=3, floor=0.0)
    log_q, log_p = q.log_prob(CIRCLE[None]), p.log_prob(CIRCLE[None])
    exact = float((log_q.exp() * (log_q - log_p)).sum() * (2 * math.pi / 4096))
    chained = float(q.kl(rows, modes, weights))
    # The modes hardly overlap here, so that knowing the angle is knowing the mode: the two agree.
    assert chained == pytest.approx(exact, abs=1e-4)
    assert chained >= exact - 1e-6


def test_the_heaviest_modes_are_visited_and_their_weights_sum_to_one():
    q = mixture([0.0, 3.0, 2.5, -4.0], [0.0] * 4, [0.1] * 4)
    rows, modes, weights = q.plausible_modes(max_modes=2, floor=0.1)
    assert rows.tolist() == [0, 0]
    assert modes.tolist() == [1, 2]
    assert weights.tolist() == pytest.approx([1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))])
    assert q.plausible_modes(max_modes=3, floor=0.99)[1].tolist() == [1]


def test_two_modes_compete_while_the_posterior_is_flat():
    q = mixture([0.01, 0.0, 0.02, -0.01] * 3, [0.0] * 12, [0.1] * 12)
    _, modes, weights = q.plausible_modes(max_modes=2, floor=0.1)
    assert len(modes) == 2
    assert weights.tolist() == pytest.approx([0.5, 0.5], abs=0.01)


STEP = 2 * math.pi / len(CIRCLE)
F64 = {"dtype": torch.float64}
UNIMODAL = [
    VonMises(torch.tensor([0.4], **F64), torch.tensor([0.01], **F64)),
    VonMises(torch.tensor([-2.0], **F64), torch.tensor([3.0], **F64)),
    VonMises(torch.tensor([3.0], **F64), torch.tensor([400.0], **F64)),
    ProjectedNormal(torch.tensor([[0.0, 0.01]], **F64)),
    ProjectedNormal(torch.tensor([[-1.0, 0.7]], **F64)),
    ProjectedNormal(torch.tensor([[9.0, -12.0]], **F64)),
]


@pytest.mark.parametrize("q", UNIMODAL)
def test_density_divergence_and_spread_by_integration(q):
    log_p = q.log_prob(CIRCLE[None])[0]
    assert float(log_p.exp().sum() * STEP) == pytest.approx(1.0, abs=1e-5)
    divergence = float((log_p.exp() * (log_p + math.log(2 * math.pi))).sum() * STEP)
    assert float(q.kl_from_prior()) == pytest.approx(divergence, rel=1e-4, abs=1e-6)
    resultant = float(torch.abs((log_p.exp() * torch.exp(1j * CIRCLE)).sum()) * STEP)
    assert float(q.circular_std()) == pytest.approx(math.sqrt(-2 * math.log(resultant)), rel=1e-3)
    assert float(CIRCLE[log_p.argmax()]) == pytest.approx(float(q.best()), abs=0.2 if log_p.max() < -1.8 else 2e-3)


@pytest.mark.parametrize("q", [*UNIMODAL, NormalAngle(torch.tensor([0.3], **F64), torch.tensor([0.5], **F64))])
def test_draws_follow_the_density(q):
    n = 4000
    values = [getattr(q, name) for name in q.__dataclass_fields__]
    parts = [v.expand(n, *v.shape[1:]) for v in values if isinstance(v, torch.Tensor)]
    draw = type(q)(*parts).draw(torch.Generator().manual_seed(0), max_modes=2)
    assert draw.rows.tolist() == list(range(n))
    assert bool((draw.weights == 1).all())
    cumulative = (q.log_prob(CIRCLE[None])[0].exp() * STEP).cumsum(0)
    angle = torch.remainder(draw.angle + math.pi, 2 * math.pi) - math.pi
    rank = cumulative[torch.searchsorted(CIRCLE, angle).clamp(max=len(CIRCLE) - 1)]
    assert stats.kstest(rank.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("kappa", [0.05, 0.5, 5.0, 50.0, 500.0])
def test_von_mises_is_that_of_torch_and_its_gradient_follows_the_quantile(kappa):
    loc, concentration = torch.tensor([0.4], **F64), torch.tensor([kappa], **F64, requires_grad=True)
    q = VonMises(loc, concentration)
    theirs = TorchVonMises(loc, concentration).log_prob(CIRCLE)
    torch.testing.assert_close(q.log_prob(CIRCLE[None])[0], theirs, rtol=1e-5, atol=1e-5)

    def at(value):
        return VonMises(loc, torch.tensor([value], **F64)).draw(torch.Generator().manual_seed(5), max_modes=1).angle

    angle = q.draw(torch.Generator().manual_seed(5), max_modes=1).angle
    (slope,) = torch.autograd.grad(angle.sum(), concentration)
    by_differences = float(at(kappa * 1.01) - at(kappa * 0.99)) / (0.02 * kappa)
    assert float(slope) == pytest.approx(by_differences, rel=0.02)


def test_the_published_angle_prior_is_a_unit_normal():
    q = NormalAngle(torch.tensor([0.4, -1.0]), torch.tensor([0.3, 2.0]))
    expected = torch.distributions.kl_divergence(Normal(q.loc, q.scale), Normal(0.0, 1.0))
    torch.testing.assert_close(q.kl_from_prior(), expected)
    on_the_line = Normal(q.loc, q.scale).log_prob(torch.tensor([0.5, -0.9]))
    assert float(q.log_prob(torch.tensor([0.5, -0.9]))[0]) == pytest.approx(float(on_the_line[0]), abs=1e-6)


@pytest.mark.parametrize("length", [0.0, 1e-3, 1.0, 5.0, 30.0])
def test_projected_normal_is_finite_with_finite_gradients(length):
    mean = torch.tensor([[length, 0.0]], requires_grad=True)
    q = ProjectedNormal(mean)
    value = q.kl_from_prior() + q.log_prob(torch.tensor([[0.0, 1.5, 3.1]])).sum()
    (gradient,) = torch.autograd.grad(value.sum(), mean)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(gradient).all())


def with_prior(q, concentration):
    return dataclasses.replace(q, prior_concentration=concentration)


def log_von_mises(angle, concentration):
    return concentration * (torch.cos(angle) - 1) - math.log(2 * math.pi * special.ive(0, concentration))


def integrated_divergence(log_q, concentration):
    """KL from VM(0, k) by the sum over the grid of angles."""
    return float((log_q.exp() * (log_q - log_von_mises(CIRCLE, concentration))).sum() * STEP)


@pytest.mark.parametrize("concentration", [1e-3, 0.7, 11.0, 400.0, 1e4])
@pytest.mark.parametrize("q", UNIMODAL)
def test_divergence_from_a_von_mises_prior_by_integration(q, concentration):
    expected = integrated_divergence(q.log_prob(CIRCLE[None])[0], concentration)
    assert float(with_prior(q, concentration).kl_from_prior()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("concentration", [0.0, 1e-3, 2.0, 29.9, 30.1, 35.0, 500.0])
def test_what_the_resultant_length_lacks_is_one_minus_a_ratio_of_bessel_functions(concentration):
    found = float(missing_length(torch.tensor([concentration], **F64)))
    assert found == pytest.approx(1 - special.ive(1, concentration) / special.ive(0, concentration), rel=2e-7)


@pytest.mark.parametrize("concentration", [0.3, 30.0, 31.0, 2e3])
def test_a_posterior_that_is_the_von_mises_prior_diverges_by_nothing(concentration):
    same = VonMises(torch.zeros(1), torch.tensor([concentration]), concentration)
    assert float(same.kl_from_prior()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("q", UNIMODAL)
def test_a_von_mises_prior_of_no_concentration_is_the_uniform_one(q):
    faint = float(with_prior(q, 1e-9).kl_from_prior())
    assert faint == pytest.approx(float(q.kl_from_prior()), rel=1e-6, abs=1e-8)


MODES = 2 * math.pi / N_ANGLE_MODES * torch.arange(N_ANGLE_MODES, **F64)
OFFSETS = torch.linspace(-3, 3, 6001, **F64)


def log_joint_prior(concentration):
    """Log density of (mode, offset), (M, n_offsets): uniform modes, Normal offsets, times exp(k cos), normalised."""
    plain = Normal(torch.zeros((), **F64), torch.tensor(ANGLE_MODE_PRIOR, **F64)).log_prob(OFFSETS)
    tilted = plain + concentration * (torch.cos(MODES[:, None] + OFFSETS) - 1)
    return tilted - torch.logsumexp(tilted.flatten(), dim=0) - math.log(OFFSETS[1] - OFFSETS[0])


def log_prior_on_the_circle(concentration):
    uniform = mixture([0.0] * N_ANGLE_MODES, [0.0] * N_ANGLE_MODES, [ANGLE_MODE_PRIOR] * N_ANGLE_MODES)
    tilted = uniform.log_prob(CIRCLE[None])[0] + concentration * (torch.cos(CIRCLE) - 1)
    return tilted - torch.logsumexp(tilted, dim=0) - math.log(STEP)


def chained_divergence(q, max_modes=N_ANGLE_MODES, floor=0.0):
    return float(q.kl(*q.plausible_modes(max_modes=max_modes, floor=floor)))


@pytest.mark.parametrize("concentration", [1e-3, 0.7, 11.0, 400.0, 1e4])
@pytest.mark.parametrize(("mode", "offset", "scale"), [(0, 0.1, 0.05), (1, -0.3, 0.2), (7, 0.2, 0.6)])
def test_joint_divergence_of_one_mode_by_integration(concentration, mode, offset, scale):
    logits = [-500.0] * N_ANGLE_MODES
    logits[mode] = 0.0
    q = mixture(logits, [offset] * N_ANGLE_MODES, [scale] * N_ANGLE_MODES)
    log_q = Normal(torch.tensor(offset, **F64), torch.tensor(scale, **F64)).log_prob(OFFSETS)
    surprise = log_q - log_joint_prior(concentration)[mode]
    expected = float((log_q.exp() * surprise).sum() * (OFFSETS[1] - OFFSETS[0]))
    assert chained_divergence(with_prior(q, concentration)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("concentration", [1e-3, 0.7, 11.0, 400.0, 1e4])
@pytest.mark.parametrize("max_modes", [2, N_ANGLE_MODES])
@pytest.mark.parametrize("seed", range(5))
def test_divergence_of_a_mixture_from_an_informed_prior_stays_a_bound(concentration, max_modes, seed):
    generator = torch.Generator().manual_seed(seed)
    raw = 1.5 * torch.randn(1, 3 * N_ANGLE_MODES, generator=generator, **F64)
    q = CircularMixture.from_outputs(raw, concentration)
    _, modes, weights = q.plausible_modes(max_modes=max_modes, floor=0.0)
    visited = WrappedNormal(q.loc[0, modes, None], q.scale[0, modes, None]).log_prob(CIRCLE)
    log_q = torch.logsumexp(weights.log()[:, None] + visited, dim=0)
    exact = float((log_q.exp() * (log_q - log_prior_on_the_circle(concentration))).sum() * STEP)
    chained = chained_divergence(q, max_modes)
    assert chained >= exact - 1e-6
    # Were other modes taken for the cosine than for the rest, this would not hold: it is one posterior's divergence.
    visited_alone = dataclasses.replace(
        q, logits=torch.full_like(q.logits, -500.0).index_put((torch.zeros_like(modes), modes), weights.log())
    )
    assert chained == pytest.approx(chained_divergence(visited_alone), rel=1e-9)
    # The prior is von Mises but for the ripple of its modes.
    assert chained >= integrated_divergence(log_q, concentration) - 0.03


def test_an_informed_prior_of_the_modes_without_concentration_is_the_uniform_one():
    q = mixture([0.0, 1.0, -1.0] * 4, [0.1, -0.2, 0.0] * 4, [0.2] * N_ANGLE_MODES)
    assert chained_divergence(with_prior(q, 1e-9)) == pytest.approx(chained_divergence(q), abs=1e-8)


@pytest.mark.parametrize("concentration", [1e-3, 0.5, 30.0, 1e3, 1e4])
@pytest.mark.parametrize("family", ["mixture", "von_mises", "projected", "normal"])
def test_informed_priors_have_finite_gradients(family, concentration):
    """Of outputs that an untrained and a very sure encoder give, in float32 as in training."""
    width = 1 / math.sqrt(concentration)
    prior = {"angle_prior_rad": width} if family == "normal" else {"angle_prior_concentration": concentration}
    model = SSRVAE(ModelConfig(0, (1, 8, 8), angle_posterior=family, encoder_channels=(4,), hidden=4, **prior))
    n_outputs = model._parts["angle"]
    noise = torch.randn(40, n_outputs, generator=torch.Generator().manual_seed(0))
    raw = torch.cat([noise * size for size in (0.0, 1e-4, 1.0, 8.0, 40.0)]).requires_grad_()
    kl = model._angle_posterior(raw).draw(torch.Generator().manual_seed(1), max_modes=2).kl
    (gradient,) = torch.autograd.grad(kl.sum(), raw)
    assert bool(torch.isfinite(kl).all())
    assert bool((kl > -1e-3).all())
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("concentration", [5.0, 1e3, 1e4])
def test_the_slope_of_a_sharp_prior_survives_single_precision(concentration):
    slopes = []
    for dtype in (torch.float32, torch.float64):
        kappa = torch.tensor([0.5, 8.0, 29.0, 200.0, 5e3], dtype=dtype, requires_grad=True)
        kl = VonMises(torch.full((5,), 0.01, dtype=dtype), kappa, concentration).kl_from_prior()
        slopes.append(torch.autograd.grad(kl.sum(), kappa)[0].double())
    torch.testing.assert_close(*slopes, rtol=1e-2, atol=1e-6)
