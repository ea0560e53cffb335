"""``method="paper"`` against pyroVED 0.3.0: same weights, same batch, same noise; losses and gradients must agree.

All in float64, so that the tolerance of 1e-4 is far above rounding and a wrong sign or factor cannot hide.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from benchmarks.pyroved_peer import import_pyroved

from tumble.fit import paper
from tumble.fit.batches import Batch
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

pytest.importorskip("pyro")
try:
    pv = import_pyroved()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

import pyro.poutine

SIDE, K, LATENT, BATCH = 7, 3, 2, 5
#: Latent columns of pyroVED, in its order.
PARTS = {"r": ("rotation", "angle", 1), "t": ("translation", "shift", 2), "s": ("scale", "scale", 1)}
CASES = [
    pytest.param(None, "bernoulli", 1.0, id="ss-VAE"),
    pytest.param(["r"], "bernoulli", 1.0, id="rotation"),
    pytest.param(["t"], "bernoulli", 1.0, id="translation"),
    pytest.param(["r", "t"], "bernoulli", 2.0, id="rotation, translation, beta 2"),
    pytest.param(["r", "t", "s"], "bernoulli", 1.0, id="rotation, translation, scale"),
    pytest.param(["r", "t", "s"], "bernoulli", 2.0, id="rotation, translation, scale, beta 2"),
    pytest.param(["r", "t", "s"], "gaussian", 2.0, id="gaussian"),
    pytest.param(["r", "t", "s"], "continuous_bernoulli", 1.0, id="continuous Bernoulli"),
    pytest.param(None, "gaussian", 2.0, id="ss-VAE, gaussian"),
    pytest.param(None, "continuous_bernoulli", 2.0, id="ss-VAE, continuous Bernoulli"),
]


@pytest.fixture(autouse=True)
def _foreign_warnings() -> Iterator[None]:
    """Pyro and pyroVED warn of their own use of torch; nobody here can mend that."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Pair:
    """pyroVED's model and trainer, ours with the same weights, and where each of our tensors comes from."""

    peer: Any
    trainer: Any
    ours: SSRVAE
    invariances: list[str]
    beta: float


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Pair:
    invariances, likelihood, beta = request.param
    peer = pv.models.ssiVAE(
        (SIDE, SIDE), LATENT, K, invariances, sampler_d=likelihood, decoder_sig=0.3, dx_prior=0.2, device="cpu", seed=3
    ).double()
    trainer = pv.trainers.auxSVItrainer(peer, device="cpu", seed=3)
    for name in ("grid", "t_prior", "sc_prior"):  # no buffers, so that double() leaves them as they are
        if hasattr(peer, name):
            setattr(peer, name, getattr(peer, name).double())
    invariances = invariances or []
    config = ModelConfig(
        n_classes=K,
        image_shape=(1, SIDE, SIDE),
        latent_dim=LATENT,
        invariances=tuple(PARTS[i][0] for i in invariances),
        likelihood=likelihood,
        sigma=0.3,
        translation_prior=0.2,
        scale_prior=0.1,
        angle_posterior="normal",
        encoder="dense",
        decoder="coordinate",
        frame="grid",
        standardise=False,
    )
    ours = SSRVAE(config).double()
    # Initial weights hardly turn or move anything yet; larger ones tell conventions apart.
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in peer.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for name, tensor in translated(peer, {n: p.detach() for n, p in peer.named_parameters()}, invariances).items():
            ours.get_parameter(name).copy_(tensor)
    return Pair(peer, trainer, ours, invariances, beta)


def latent_columns(invariances: list[str]) -> dict[str, list[int]]:
    """Name of each part of ours -> its columns among pyroVED's latent variables, which begin with the pose."""
    columns, start = {}, 0
    for key in invariances:
        _, name, n = PARTS[key]
        columns[name] = list(range(start, start + n))
        start += n
    return {"z": list(range(start, start + LATENT)), **columns}


def translated(peer: Any, tensors: dict[str, Tensor], invariances: list[str]) -> dict[str, Tensor]:
    """pyroVED's parameters, or their gradients, under our names.

    Its columns count from right to left, so that the second component of the shift has the opposite sign.
    """
    first = tensors["encoder_z.fc_layers.0.weight"]
    out = {
        "classifier.layers.0": "encoder_y.fc_layers.0",
        "classifier.layers.2": "encoder_y.fc_layers.2",
        "classifier.head": "encoder_y.out",
        "encoder.second": "encoder_z.fc_layers.2",
    }
    if invariances:
        out |= {
            "decoder.position": "decoder.coord_latent.fc_coord",
            "decoder.second": "decoder.fc_layers.0",
            "decoder.third": "decoder.fc_layers.2",
        }
    else:
        out |= {"decoder.layers.0": "decoder.fc_layers.0", "decoder.layers.2": "decoder.fc_layers.2"}
    out["decoder.head"] = "decoder.out"
    result = {f"{a}.{kind}": tensors[f"{b}.{kind}"] for a, b in out.items() for kind in ("weight", "bias")}
    result["encoder.pixels.weight"], result["encoder.classes.weight"] = first[:, : SIDE**2], first[:, SIDE**2 :]
    result["encoder.pixels.bias"] = tensors["encoder_z.fc_layers.0.bias"]
    if invariances:
        result["decoder.latent.weight"] = tensors["decoder.coord_latent.fc_latent.weight"]
    columns = latent_columns(invariances)
    for kind in ("weight", "bias"):
        loc, width = (tensors[f"encoder_z.{layer}.{kind}"].clone() for layer in ("fc11", "fc12"))
        if "shift" in columns:
            loc[columns["shift"][1]] *= -1
        result[f"encoder.head.{kind}"] = torch.cat([t[c] for c in columns.values() for t in (loc, width)])
    assert len(result) == sum(1 for _ in peer.parameters()) + 1 - 2  # one is split in two, two pairs are joined
    return result


def batch(n: int = BATCH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    x = torch.rand(n, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % K


def peer_run(pair: Pair, svi: Any, *args: Any, **kwargs: Any) -> tuple[float, dict[str, Tensor], Tensor | None]:
    """Loss, gradients under our names, and the standard Normal noise of z (..., d) of one pass of pyroVED."""
    pair.peer.zero_grad()
    torch.manual_seed(17)
    with pyro.poutine.trace(param_only=True):
        loss = svi.loss_and_grads(svi.model, svi.guide, *args, **kwargs)
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in pair.peer.named_parameters()
    }
    return loss, translated(pair.peer, gradients, pair.invariances), _peer_noise(pair, svi, *args, **kwargs)


def _peer_noise(pair: Pair, svi: Any, *args: Any, **kwargs: Any) -> Tensor | None:
    """Noise that the guide drew: it is run again from the same seed, and its draw taken apart."""
    torch.manual_seed(17)
    # Negative first_available_dim: y is enumerated to the left of the one plate, as the estimator does it.
    guide = pyro.poutine.enum(svi.guide, first_available_dim=-2)
    site = pyro.poutine.trace(guide).get_trace(*args, **kwargs).nodes.get("z")
    if site is None:
        return None
    q = site["fn"].base_dist
    return ((site["value"] - q.loc) / q.scale).detach()


def our_run(pair: Pair, monkeypatch: pytest.MonkeyPatch, data: Batch, noise: Tensor | None, **weights: float) -> Any:
    """Loss and gradients of ours, with pyroVED's noise of shape (n_pairs, d) in place of draws."""
    if noise is not None:
        columns = latent_columns(pair.invariances)
        order = [name for name in ("z", "angle", "shift", "scale") if name in columns]
        parts = {name: noise[:, columns[name]].clone() for name in order}
        if "shift" in parts:
            parts["shift"][:, 1] *= -1
        queue = [parts[name] for name in order]

        def given(like: Tensor, generator: torch.Generator | None) -> Tensor:
            del generator
            return queue.pop(0).reshape(like.shape)

        monkeypatch.setattr(paper, "randn", given)
    pair.ours.zero_grad()
    loss, _ = paper.paper_loss(pair.ours, data, **weights)
    loss.backward()
    return loss.item(), {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in pair.ours.named_parameters()}


def assert_agree(ours: tuple[float, dict[str, Tensor]], peer: tuple[float, dict[str, Tensor]]) -> None:
    assert ours[0] == pytest.approx(peer[0], rel=1e-4)
    assert ours[1].keys() == peer[1].keys()
    for name, gradient in peer[1].items():
        error = (ours[1][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-4, f"gradient of {name} is off by {error:.1e} of its length"


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """The likelihood goes through a pool where torch has several threads; both ways must agree."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("pair", [c.values for c in CASES], ids=[c.id for c in CASES], indirect=True)
def test_unlabelled_loss(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch()
    loss, gradients, noise = peer_run(pair, pair.trainer.loss_basic, x.flatten(1), None, scale_factor=pair.beta)
    assert noise is not None
    assert noise.shape[:2] == (K, BATCH)  # each class of each image has noise of its own
    noise = noise.transpose(0, 1).reshape(BATCH * K, -1)
    data = Batch(x[:0], y[:0], x)
    ours = our_run(pair, monkeypatch, data, noise, kl_weight=pair.beta, classification_weight=30.0)
    assert_agree(ours, (loss, gradients))


@pytest.mark.parametrize("pair", [c.values for c in CASES], ids=[c.id for c in CASES], indirect=True)
def test_labelled_loss(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch()
    one_hot = torch.nn.functional.one_hot(y, K).double()
    loss, gradients, noise = peer_run(pair, pair.trainer.loss_basic, x.flatten(1), one_hot, scale_factor=pair.beta)
    ours = our_run(pair, monkeypatch, Batch(x, y, x[:0]), noise, kl_weight=pair.beta, classification_weight=0.0)
    assert_agree(ours, (loss, gradients))


@pytest.mark.parametrize("pair", [CASES[0].values, CASES[3].values], ids=["ss-VAE", "ss-rVAE"], indirect=True)
def test_classification_loss(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch()
    one_hot = torch.nn.functional.one_hot(y, K).double()
    loss, gradients, _ = peer_run(pair, pair.trainer.loss_aux, x.flatten(1), one_hot, aux_loss_multiplier=30)
    noise = torch.zeros(BATCH, pair.peer.z_dim, dtype=torch.float64)
    with_it = our_run(pair, monkeypatch, Batch(x, y, x[:0]), noise, kl_weight=1.0, classification_weight=30.0)
    gradients_with = {name: g.clone() for name, g in with_it[1].items()}
    without = our_run(pair, monkeypatch, Batch(x, y, x[:0]), noise, kl_weight=1.0, classification_weight=0.0)
    difference = {name: gradients_with[name] - without[1][name] for name in gradients_with}
    assert_agree((with_it[0] - without[0], difference), (loss, gradients))


@pytest.mark.parametrize("pair", [CASES[3].values, CASES[0].values], ids=["ss-rVAE", "ss-VAE"], indirect=True)
def test_one_pass_is_the_sum_of_the_three(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch(2 * BATCH)
    x_u, x_l, y = x[:BATCH], x[BATCH:], y[BATCH:]
    one_hot = torch.nn.functional.one_hot(y, K).double()
    unlabelled = peer_run(pair, pair.trainer.loss_basic, x_u.flatten(1), None, scale_factor=pair.beta)
    labelled = peer_run(pair, pair.trainer.loss_basic, x_l.flatten(1), one_hot, scale_factor=pair.beta)
    auxiliary = peer_run(pair, pair.trainer.loss_aux, x_l.flatten(1), one_hot, aux_loss_multiplier=30)
    assert unlabelled[2] is not None
    assert labelled[2] is not None
    noise = torch.cat([unlabelled[2].transpose(0, 1).reshape(BATCH * K, -1), labelled[2]])
    total = {name: sum(run[1][name] for run in (unlabelled, labelled, auxiliary)) for name in unlabelled[1]}
    ours = our_run(pair, monkeypatch, Batch(x_l, y, x_u), noise, kl_weight=pair.beta, classification_weight=30.0)
    assert_agree(ours, (unlabelled[0] + labelled[0] + auxiliary[0], total))


@pytest.mark.parametrize("pair", [CASES[4].values], ids=["ss-rVAE"], indirect=True)
def test_classes_lost_to_rounding_may_be_left_out(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        for net in (pair.peer.encoder_y.out, pair.ours.classifier.head):
            net.bias[1] = -40.0
    x, y = batch()
    loss, gradients, noise = peer_run(pair, pair.trainer.loss_basic, x.flatten(1), None, scale_factor=pair.beta)
    assert noise is not None
    kept = noise[[0, 2]].transpose(0, 1).reshape(BATCH * 2, -1)
    settings = {"kl_weight": pair.beta, "classification_weight": 30.0, "class_floor": 1e-8}
    assert_agree(our_run(pair, monkeypatch, Batch(x[:0], y[:0], x), kept, **settings), (loss, gradients))


@pytest.mark.parametrize("pair", [CASES[4].values], ids=["ss-rVAE"], indirect=True)
def test_the_comparison_can_fail(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch()
    loss, gradients, noise = peer_run(pair, pair.trainer.loss_basic, x.flatten(1), None, scale_factor=pair.beta)
    assert noise is not None
    noise = noise.transpose(0, 1).reshape(BATCH * K, -1)
    turned = pair.ours.to_pose
    monkeypatch.setattr(pair.ours, "to_pose", lambda angle, shift, scale: turned(-angle, shift, scale))
    ours = our_run(pair, monkeypatch, Batch(x[:0], y[:0], x), noise, kl_weight=1.0, classification_weight=30.0)
    with pytest.raises(AssertionError):
        assert_agree(ours, (loss, gradients))
