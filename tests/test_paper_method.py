"""The published method by itself: its decoder, its likelihood in blocks, its objective and its schedule."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from benchmarks import paper as benchmark
from torch import Tensor
from torch.distributions import ContinuousBernoulli, Normal

from tumble.fit import EpochReport, fit_ssrvae
from tumble.fit.batches import Batch, TrainingData
from tumble.fit.paper import PaperConfig, PaperObjective, labelled_every, paper_batches, paper_loss
from tumble.fit.pixels import pixel_subset
from tumble.model import streamed
from tumble.model.config import ModelConfig
from tumble.model.coordinates import canonical_affine, place
from tumble.model.dense import CoordinateDecoder
from tumble.model.ssrvae import SSRVAE, PoseSample
from tumble.model.streamed import PixelDensity

if TYPE_CHECKING:
    from pathlib import Path


FULL_TURN = 2 * math.pi
DENSITIES = [PixelDensity("bernoulli"), PixelDensity("continuous_bernoulli"), PixelDensity("gaussian", 0.3)]


def published(**changes: Any) -> SSRVAE:
    settings: dict[str, Any] = {
        "n_classes": 3,
        "image_shape": (1, 9, 9),
        "likelihood": "bernoulli",
        "angle_posterior": "normal",
        "encoder": "dense",
        "decoder": "coordinate",
        "frame": "grid",
        "standardise": False,
        "hidden": 16,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SSRVAE(ModelConfig(**settings)).double()


def decoder(size: tuple[int, int] = (6, 8), channels: int = 1, hidden: int = 8) -> CoordinateDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return CoordinateDecoder(channels, max(size), 2, 3, hidden=hidden).double()


def draws(n: int, seed: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z, shift = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    angle, zoom = (torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(2))
    return z, torch.arange(n) % 3, canonical_affine(FULL_TURN * angle, 2 * shift, 0.5 + zoom)


def images(n: int, size: tuple[int, int], channels: int = 1) -> Tensor:
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def naive_pixel(net: CoordinateDecoder, z: Tensor, y: int, affine: Tensor, row: float, col: float) -> Tensor:
    """One pixel of one image, as the paper describes it: turn the position, then ask the network."""
    position = affine @ torch.tensor([row, col, 1.0], dtype=torch.float64)
    scaled = torch.stack([position[0], -position[1]]) / net.half_side_px
    one_hot = torch.eye(3, dtype=torch.float64)[y]
    h = torch.tanh(net.position(scaled) + net.latent(torch.cat([z, one_hot])))
    return net.head(torch.tanh(net.third(torch.tanh(net.second(h)))))


def test_coordinate_decoder_against_pixel_by_pixel() -> None:
    net = decoder(size := (6, 8), channels=2)
    z, y, affine = draws(3)
    seen = net(z, y, affine, size)
    for i in range(3):
        for row in range(6):
            for col in range(8):
                expected = naive_pixel(net, z[i], int(y[i]), affine[i], row - 2.5, col - 3.5)
                torch.testing.assert_close(seen[i, :, row, col], expected)


@pytest.mark.parametrize("frame", ["object", "grid"])
def test_a_quarter_turn_is_rot90(frame: str) -> None:
    model = published(frame=frame)
    z, y, zero = torch.randn(1, 2, dtype=torch.float64), torch.tensor([1]), torch.zeros(1, dtype=torch.float64)
    upright = model.decode(z, y, model.to_pose(zero, torch.zeros(1, 2, dtype=torch.float64), zero))[0, 0]
    turned = model.decode(z, y, model.to_pose(zero + math.pi / 2, torch.zeros(1, 2, dtype=torch.float64), zero))[0, 0]
    np.testing.assert_allclose(turned.detach(), np.rot90(upright.detach()), atol=1e-12)
    assert np.abs(upright.detach().numpy() - np.rot90(upright.detach())).max() > 1e-4


@pytest.mark.parametrize(
    ("size", "angle", "shift", "scale", "tolerance"),
    [
        # Each pixel meets another one: exact.
        ((9, 9), math.pi / 2, (2.0, -1.0), 1.0, 1e-6),
        # What is interpolated differs a little from what the network says in between.
        ((9, 9), 0.6, (0.0, 0.0), 1.0, 0.004),
        ((9, 9), 0.0, (0.0, 0.0), 1.4, 0.004),
        ((15, 23), 0.0, (1.0, 2.0), 1.0, 1e-6),
        ((15, 23), 0.6, (1.5, -2.3), 0.8, 0.004),
        ((23, 15), -2.1, (-1.2, 0.7), 1.4, 0.004),
    ],
)
def test_both_decoders_place_alike(
    size: tuple[int, int], angle: float, shift: tuple[float, float], scale: float, tolerance: float
) -> None:
    """To `tolerance` of the contrast of the image."""
    model = published(image_shape=(1, *size))
    z, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    still = PoseSample(*(torch.tensor(v, dtype=torch.float64) for v in ([0.0], [[0.0, 0.0]], [1.0])))
    pose = PoseSample(*(torch.tensor(v, dtype=torch.float64) for v in ([angle], [list(shift)], [scale])))
    canonical = model.decode(z, y, still).detach()
    placed = place(canonical, pose.angle, pose.shift, pose.scale)
    drawn = model.decode(z, y, pose).detach()
    # Only what comes from within the image: the network knows what lies beyond, resampling does not.
    ones = torch.ones(1, 1, *size, dtype=torch.float64)
    inner = place(ones, pose.angle, pose.shift, pose.scale, padding="zeros") > 1 - 1e-9
    contrast = float(canonical.max() - canonical.min())
    assert int(inner.sum()) > 0.4 * inner.numel()
    assert float((placed - drawn)[inner].abs().max()) < tolerance * contrast
    assert float((canonical - drawn)[inner].abs().max()) > 0.1 * contrast, "the pose shows"


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: d.likelihood)
def test_pixel_densities_against_torch(density: PixelDensity) -> None:
    raw = torch.linspace(-6, 6, 241, dtype=torch.float64, requires_grad=True)  # 0 is among them
    x = torch.linspace(0, 1, 241, dtype=torch.float64)
    mean = torch.sigmoid(raw)
    if density.likelihood == "gaussian":
        expected = Normal(mean, density.sigma).log_prob(x)
    elif density.likelihood == "continuous_bernoulli":
        expected = ContinuousBernoulli(mean).log_prob(x)
    else:
        expected = x * mean.log() + (1 - x) * (1 - mean).log()
    ours = density.log_prob(raw, x)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(ours.sum(), raw)
    torch.testing.assert_close(density.slope(raw.detach(), x), slope)


@pytest.mark.parametrize("uncut", [("cpu",), ()], ids=["cpu", "elsewhere"])
@pytest.mark.parametrize("block", [5, 48, 100, 10**6])
@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: d.likelihood)
def test_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, density: PixelDensity, block: int, uncut: tuple[str, ...]
) -> None:
    monkeypatch.setattr(streamed, "_BLOCK", {"cpu": block})
    monkeypatch.setattr(streamed, "_UNCUT", uncut)
    net, x = decoder((6, 8), channels=2), images(4, (6, 8), channels=2)
    z, y, affine = draws(7)
    rows = torch.tensor([0, 0, 1, 3, 3, 3, 2])
    weights = torch.linspace(0.1, 1, 7, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (z, affine, weights)] + list(net.parameters())
    total, log_px = net.weighted_log_likelihood(z, y, affine, x, rows=rows, weights=weights, density=density)
    plain = density.log_prob(net(z, y, affine, (6, 8)), x[rows]).flatten(1).sum(1)
    torch.testing.assert_close(log_px, plain.detach())
    torch.testing.assert_close(total, (weights * plain).sum())
    ours = torch.autograd.grad(3 * total, inputs)
    for a, b in zip(ours, torch.autograd.grad(3 * (weights * plain).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("uncut", [("cpu",), ()], ids=["cpu", "elsewhere"])
@pytest.mark.parametrize("block", [100, 10**6])
def test_bfloat16_changes_the_likelihood_and_its_gradient_by_no_more_than_its_rounding(
    monkeypatch: pytest.MonkeyPatch, block: int, uncut: tuple[str, ...]
) -> None:
    monkeypatch.setattr(streamed, "_BLOCK", {"cpu": block})
    monkeypatch.setattr(streamed, "_UNCUT", uncut)
    net, x = decoder((24, 24), hidden=32).float(), images(4, (24, 24)).float()
    z, y, affine = (t.float() if t.is_floating_point() else t for t in draws(7))
    rows, weights = torch.tensor([0, 0, 1, 3, 3, 3, 2]), torch.linspace(0.1, 1, 7)
    inputs = [t.requires_grad_() for t in (z, affine, weights)] + list(net.parameters())

    def results(dtype: torch.dtype | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        settings = {"rows": rows, "weights": weights, "density": PixelDensity("bernoulli"), "dtype": dtype}
        total, _ = net.weighted_log_likelihood(z, y, affine, x, **settings)
        assert total.dtype == torch.float32
        return total, torch.autograd.grad(total, inputs)

    (total, whole), (rounded_total, rounded) = results(None), results(torch.bfloat16)
    torch.testing.assert_close(rounded_total, total, rtol=1e-3, atol=0)
    assert rounded_total != total
    for a, b in zip(rounded, whole, strict=True):
        assert (a - b).norm() < 0.03 * b.norm()


def test_gradients_by_finite_differences() -> None:
    net, x = decoder((4, 3), hidden=4), images(2, (4, 3))
    z, y, affine = draws(3)
    weights = torch.tensor([0.2, 0.8, 1.0], dtype=torch.float64)
    names = [name for name, _ in net.named_parameters()]

    def total(z: Tensor, affine: Tensor, weights: Tensor, *parameters: Tensor) -> Tensor:
        keep = {name: p.detach() for name, p in net.named_parameters()}
        keep |= dict(zip(names, parameters, strict=True))
        settings = {"rows": torch.tensor([0, 0, 1]), "weights": weights, "density": PixelDensity("bernoulli")}
        return torch.func.functional_call(
            _Weighted(net), {f"net.{k}": v for k, v in keep.items()}, (z, affine, x, y, settings)
        )

    inputs = [t.detach().clone().requires_grad_() for t in (z, affine, weights, *net.parameters())]
    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)


class _Weighted(torch.nn.Module):
    def __init__(self, net: CoordinateDecoder) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, affine: Tensor, x: Tensor, y: Tensor, settings: dict[str, Any]) -> Tensor:
        return self.net.weighted_log_likelihood(z, y, affine, x, **settings)[0]


def test_single_precision_is_enough() -> None:
    net = decoder((24, 24), hidden=128)
    x, (z, y, affine) = images(2, (24, 24)), draws(6)
    rows, weights = torch.arange(6) // 3, torch.full((6,), 0.5, dtype=torch.float64)
    results = []
    for dtype in (torch.float64, torch.float32):
        net.to(dtype).zero_grad()
        total, _ = net.weighted_log_likelihood(
            z.to(dtype), y, affine.to(dtype), x.to(dtype), rows=rows, weights=weights.to(dtype), density=DENSITIES[0]
        )
        total.backward()
        results.append(
            [total.detach().double()] + [p.grad.double().clone() for p in net.parameters() if p.grad is not None]
        )
    for exact, single in zip(*results, strict=True):
        assert (exact - single).norm() < 1e-5 * exact.norm()


def test_threads_agree_and_leave_the_setting() -> None:
    model = published()
    batch = Batch(images(3, (9, 9)), torch.tensor([0, 1, 2]), images(4, (9, 9)))
    results, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            model.zero_grad()
            generator = torch.Generator().manual_seed(0)
            loss, _ = paper_loss(model, batch, kl_weight=1.5, classification_weight=30, generator=generator)
            loss.backward()
            results.append([loss.detach()] + [p.grad for p in model.parameters()])
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_subset_of_pixels_is_unbiased() -> None:
    net, x = decoder((3, 3)), images(2, (3, 3))
    z, y, affine = draws(4)
    settings: dict[str, Any] = {"rows": torch.tensor([0, 0, 1, 1]), "weights": torch.ones(4, dtype=torch.float64)}
    settings["density"] = PixelDensity("bernoulli")
    pairs = torch.combinations(torch.arange(9), 2)  # all 36 subsets of two pixels, each as likely as the others
    totals, slopes = [], []
    for a, b in zip(pairs, pairs.flip(0), strict=True):
        total, _ = net.weighted_log_likelihood(z, y, affine, x, subset=torch.stack([a, b]), **settings)
        totals.append(total)
        slopes.append(torch.autograd.grad(total, net.second.weight)[0])
    whole, _ = net.weighted_log_likelihood(z, y, affine, x, **settings)
    torch.testing.assert_close(torch.stack(totals).mean(), whole)
    torch.testing.assert_close(torch.stack(slopes).mean(0), torch.autograd.grad(whole, net.second.weight)[0])


def test_drawn_subsets_are_uniform_and_differ_between_images() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(4000, 1, 4, 5)
    subset = pixel_subset(x, 0.25, generator)
    assert subset is not None
    assert subset.shape == (4000, 5)
    assert all(len(row.unique()) == 5 for row in subset[:50])
    assert torch.bincount(subset.flatten()).float().div(1000).sub(1).abs().max() < 0.15
    assert pixel_subset(x, 1.0, generator) is None


@pytest.mark.parametrize(("size", "fraction"), [((16, 16), 1 / 4), ((20, 33), 0.07), ((1, 9), 0.3), ((48, 48), 0.26)])
def test_drawn_subsets_lie_evenly_over_the_image(size: tuple[int, int], fraction: float) -> None:
    x = torch.zeros(500, 1, *size)
    subset = pixel_subset(x, fraction, torch.Generator().manual_seed(1))
    assert subset is not None
    assert all(len(row.unique()) == subset.shape[1] for row in subset)
    # The mean over the drawn pixels of an object in an empty frame, against its spread over as many drawn by chance.
    away = [(torch.arange(n) - (n - 1) / 2) / n for n in size]
    every = torch.exp(-20 * (away[0][:, None] ** 2 + away[1] ** 2))
    means = every.flatten()[subset].mean(dim=1)
    by_chance = every.std() / subset.shape[1] ** 0.5
    assert abs(means.mean() - every.mean()) < 4 * by_chance / len(x) ** 0.5
    if subset.shape[1] > 3:
        assert means.std() < 0.5 * by_chance


@pytest.mark.parametrize("invariances", [(), ("rotation",), ("rotation", "translation", "scale")])
@pytest.mark.parametrize("n_classes", [0, 3])
def test_closed_form_and_drawn_divergences_have_the_same_mean(invariances: tuple[str, ...], n_classes: int) -> None:
    model = published(invariances=invariances, n_classes=n_classes)
    x = images(2, (9, 9))
    batch = Batch(x[:0], torch.zeros(0, dtype=torch.int64), x)
    generator = torch.Generator().manual_seed(4)
    means = []
    for analytic in (True, False):
        parts = [
            paper_loss(model, batch, kl_weight=1, classification_weight=1, generator=generator, analytic_kl=analytic)[1]
            for _ in range(1500 if not analytic else 1)
        ]
        means.append(np.mean([part["kl"] for part in parts]))
    assert means[0] == pytest.approx(means[1], rel=0.05, abs=0.05)


def test_classes_below_the_floor_cost_nothing_and_change_little() -> None:
    model = published()
    with torch.no_grad():
        model.classifier.head.bias.copy_(torch.tensor([0.0, -30.0, 0.0]))
    x = images(4, (9, 9))
    batch = Batch(x[:0], torch.zeros(0, dtype=torch.int64), x)
    full, kept = (
        paper_loss(model, batch, kl_weight=1, classification_weight=1, class_floor=floor, pixel_fraction=1)[1]
        for floor in (0.0, 1e-6)
    )
    assert kept["elbo_unlabelled"] == pytest.approx(full["elbo_unlabelled"], rel=0.05)  # other draws


def test_other_angle_posteriors_are_refused() -> None:
    model = published(angle_posterior="mixture")
    x = images(2, (9, 9))
    with pytest.raises(TypeError, match="Normal"):
        paper_loss(model, Batch(x[:0], torch.zeros(0, dtype=torch.int64), x), kl_weight=1, classification_weight=1)


def test_schedule_is_the_published_one() -> None:
    objective = PaperObjective()
    model = published()
    optimiser = objective.optimiser(model)
    assert isinstance(optimiser, torch.optim.Adam)
    assert optimiser.param_groups[0]["lr"] == objective.rate(17, 100) == 5e-4
    weights = [objective.kl_weight(epoch, 0, 0) for epoch in range(1, 101)]
    assert weights[:30] == pytest.approx(np.linspace(1, 2, 30))
    assert weights[30:] == [2.0] * 70
    config = PaperConfig()
    assert (config.max_epochs, config.batch_size, config.classification_weight) == (100, 64, 30)
    assert labelled_every(13, 188) == 15


def _rows(n_labelled: int, n_unlabelled: int, size: int = 4) -> list[tuple[list[int], list[int]]]:
    """Labelled and unlabelled rows of each batch; each image holds its row."""
    n = n_labelled + n_unlabelled
    y = np.where(np.arange(n) < n_labelled, np.arange(n) % 2, -1)
    data = TrainingData(np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1), y)
    batches = paper_batches(
        data, batch_size=size, labelled_batch_size=size, rng=np.random.default_rng(0), device=torch.device("cpu")
    )
    result = []
    for batch in batches:
        rows = batch.x_labelled.flatten().int().tolist()
        assert batch.y.tolist() == [row % 2 for row in rows]
        result.append((rows, batch.x_unlabelled.flatten().int().tolist()))
    return result


def test_batches_visit_each_image_once() -> None:
    batches = _rows(8, 43)
    assert sorted(chain(*(free for _, free in batches))) == list(range(8, 51))
    assert sorted(chain(*(tied for tied, _ in batches))) == list(range(8))
    every = labelled_every(2, 11)
    assert [i for i, (tied, _) in enumerate(batches) if tied] == [1, 1 + every]


@pytest.mark.parametrize(("n_labelled", "n_unlabelled"), [(8, 4), (40, 8), (3, 2)])
def test_labels_are_used_whatever_the_ratio(n_labelled: int, n_unlabelled: int) -> None:
    assert any(tied for tied, _ in _rows(n_labelled, n_unlabelled))


@pytest.mark.parametrize(("n_labelled", "n_unlabelled"), [(0, 9), (9, 0)])
def test_one_kind_of_images_alone(n_labelled: int, n_unlabelled: int) -> None:
    batches = _rows(n_labelled, n_unlabelled)
    assert sorted(chain(*(tied + free for tied, free in batches))) == list(range(9))
    model = published()
    x = images(9, (9, 9))
    y = torch.arange(n_labelled) % 3
    loss, parts = paper_loss(model, Batch(x[:n_labelled], y, x[n_labelled:]), kl_weight=1, classification_weight=30)
    assert math.isfinite(loss.item())
    assert ("elbo_labelled" in parts) == bool(n_labelled)


@pytest.mark.parametrize("older", [False, True])
def test_the_loop_takes_it_and_resumes(tmp_path: Path, older: bool) -> None:
    config = PaperConfig(max_epochs=2, batch_size=8, labelled_batch_size=4)
    x = images(20, (9, 9)).float().numpy()
    data = TrainingData(x, np.where(np.arange(20) < 6, np.arange(20) % 3, -1))
    shape = published().config

    def stop_at(epoch: int) -> Any:
        def stop(report: EpochReport) -> None:
            if report.epoch == epoch:
                assert report.run is not None
                report.run.save(tmp_path)
                raise KeyboardInterrupt

        return stop

    settings: dict[str, Any] = {"seed": 0, "device": torch.device("cpu"), "objective": PaperObjective(config)}
    through = fit_ssrvae(data, shape, config.loop_settings(), **settings)
    with pytest.raises(KeyboardInterrupt):
        fit_ssrvae(data, shape, config.loop_settings(), callbacks=[stop_at(1)], **settings)
    if older:  # from before there was a choice of precision
        run = json.loads((tmp_path / "run.json").read_text())
        del run["identity"]["objective"][1]["config"]["precision"]
        (tmp_path / "run.json").write_text(json.dumps(run))
    again = fit_ssrvae(data, shape, config.loop_settings(), checkpoint=tmp_path, resume=True, **settings)
    assert again.history == through.history
    assert through.history.keys() >= {"loss", "kl", "elbo_unlabelled", "elbo_labelled", "classification"}
    for (name, a), b in zip(through.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_the_published_method_learns() -> None:
    options = Namespace(glyphs=None, unlabelled=100, quick=False)
    train, test, classes = benchmark.cards(options, 0)
    config = PaperConfig(max_epochs=5, pixel_fraction=0.05)
    shape = benchmark.published_model("ss-rvae", len(classes))
    settings: dict[str, Any] = {"seed": 0, "device": torch.device("cpu"), "objective": PaperObjective(config)}
    fitted = fit_ssrvae(train, shape, config.loop_settings(), **settings)
    bound = fitted.history["elbo_unlabelled"]
    assert bound[-1] > bound[0] + 0.02
    with torch.no_grad():
        predicted = fitted.model.classify(torch.from_numpy(test.x)).argmax(1).numpy()
    assert np.mean(predicted == test.y) > 0.4  # chance is 0.25


def test_a_step_waits_for_its_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number that is read from a GPU makes the CPU wait for it; with several processes on one, for all of them."""
    model = published()
    batch = Batch(images(3, (9, 9)), torch.tensor([0, 1, 2]), images(5, (9, 9)))
    asked: list[str] = []
    for name in ("item", "tolist", "nonzero", "__float__", "__int__", "__bool__"):
        plain = getattr(Tensor, name)

        def noted(tensor: Tensor, *given: Any, plain: Any = plain, name: str = name, **named: Any) -> Any:
            asked.append(name)
            return plain(tensor, *given, **named)

        monkeypatch.setattr(Tensor, name, noted)
    paper_loss(model, batch, kl_weight=1, classification_weight=30)[0].backward()
    assert asked == ["tolist"]
