"""``method="paper"``: the published objective and schedule, and nothing else.

The loss of a batch is ``-sum_l L(x_l, y_l) - sum_u U(x_u) + weight * sum_l -log q(y_l | x_l)`` (equations 6 to 9 of
[1]_), summed over images, with one draw from each posterior and the divergences at that draw. Where it differs from
pyroVED 0.3.0 [3]_ on purpose is listed in ``docs/paper-differences.md``.

References
----------
.. [1] D. P. Kingma, D. J. Rezende, S. Mohamed, M. Welling, "Semi-supervised learning with deep generative models",
       2014, https://arxiv.org/abs/1406.5298
.. [2] M. A. Ziatdinov et al., Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b
.. [3] https://github.com/ziatdinovmax/pyroVED
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tumble.fit.batches import Batch, as_images, read_numbers, to_device
from tumble.fit.config import FitConfig
from tumble.fit.pixels import pixel_subset
from tumble.model import objectives
from tumble.model.angles import NormalAngle
from tumble.model.coordinates import canonical_affine
from tumble.model.dense import CoordinateDecoder
from tumble.model.distributions import randn
from tumble.model.streamed import PixelDensity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.distributions import Normal

    from tumble.fit.batches import TrainingData
    from tumble.model.ssrvae import SSRVAE, PoseSample, PosteriorZPose

__all__ = ["PaperConfig", "PaperObjective", "paper_batches", "paper_loss"]


@dataclass(frozen=True)
class PaperConfig:
    """The published settings.

    Parameters
    ----------
    max_epochs : int
        Passes over the unlabelled images.
    batch_size, labelled_batch_size : int
        Images per batch. A labelled batch joins every p-th unlabelled one, see :func:`paper_batches`.
    learning_rate : float
        Of Adam, constant.
    classification_weight : float
        Of the cross-entropy of labelled images.
    kl_start, kl_end : float
        Factor of the divergences in the first epoch, and from epoch `kl_epochs` on; linear in between.
    kl_epochs : int
        Epochs of the ramp.
    pixel_fraction : float
        Share of the pixels, spread evenly from a random start for each image and step, that stand for all in the
        likelihood of the coordinate decoder. Below 1 a step costs that much less and its gradient is noisier, with the
        same expectation; 1/16 adds a third to the noise that batches have among each other.
    class_floor : float
        Classes of smaller q(y | x) are left out of the sum over classes. As published none is: 0. At 1e-8 only those
        are that float32 loses to rounding. What it saves depends on how sharp q(y | x) is: on cards nothing in the
        first 2,000 steps, when at 1e-4 a third of all pairs could be left out.
    analytic_kl : bool
        Divergences in closed form in place of their value at the draw; same expectation, less noise.
    precision : {"float32", "bfloat16"}
        Arithmetic of the networks, which the loop sets by :meth:`loop_settings`. In bfloat16 the likelihood of the
        coordinate decoder costs a third where the processor has matrix units.
    """

    max_epochs: int = 100
    batch_size: int = 64
    labelled_batch_size: int = 64
    learning_rate: float = 5e-4
    classification_weight: float = 30.0
    kl_start: float = 1.0
    kl_end: float = 2.0
    kl_epochs: int = 30
    pixel_fraction: float = 1.0
    class_floor: float = 0.0
    analytic_kl: bool = False
    precision: str = "float32"

    def kl_weight(self, epoch: int) -> float:
        """Factor of the divergences in an epoch, counted from 1.

        Examples
        --------
        >>> [PaperConfig().kl_weight(epoch) for epoch in (1, 30, 100)]
        [1.0, 2.0, 2.0]
        """
        share = min(1.0, (epoch - 1) / max(1, self.kl_epochs - 1))
        return self.kl_start + (self.kl_end - self.kl_start) * share

    def loop_settings(self) -> FitConfig:
        """Give what the training loop itself must know: how long, no running mean of the weights, no held-out labels.

        Everything else is up to :class:`PaperObjective`.
        """
        return FitConfig(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            labelled_batch_size=self.labelled_batch_size,
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            ema_decay=0.0,
            calibrate=False,
            precision=self.precision,
        )


@dataclass(frozen=True)
class PaperObjective:
    """What the training loop asks of a method, for the published one.

    Parameters
    ----------
    config : PaperConfig
        Its settings.
    """

    config: PaperConfig = field(default_factory=PaperConfig)

    def optimiser(self, model: SSRVAE) -> torch.optim.Optimizer:
        """Adam at the published rate."""
        return torch.optim.Adam(model.parameters(), lr=self.config.learning_rate, fused=True)

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate at a step: always the same."""
        return self.config.learning_rate

    def kl_weight(self, epoch: int, step: int, n_steps: int) -> float:
        """Factor of the divergences; epochs count from 1."""
        return self.config.kl_weight(epoch)

    def batches(self, data: TrainingData, rng: np.random.Generator, device: torch.device) -> Iterator[Batch]:
        """One pass over the unlabelled images."""
        config = self.config
        return paper_batches(
            data,
            batch_size=config.batch_size,
            labelled_batch_size=config.labelled_batch_size,
            rng=rng,
            device=device,
        )

    def loss(
        self, model: SSRVAE, teacher: SSRVAE | None, batch: Batch, *, kl_weight: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a step; the published method has no teacher."""
        del teacher
        config = self.config
        return paper_loss(
            model,
            batch,
            kl_weight=kl_weight,
            classification_weight=config.classification_weight,
            generator=generator,
            pixel_fraction=config.pixel_fraction,
            class_floor=config.class_floor,
            analytic_kl=config.analytic_kl,
        )


def labelled_every(n_labelled: int, n_unlabelled: int) -> int:
    """Give p: a labelled batch joins every p-th unlabelled one, from their numbers of batches, as in pyroVED.

    Examples
    --------
    The 800 labelled and 12,000 unlabelled cards in batches of 64:

    >>> labelled_every(13, 188)
    15
    """
    return (n_labelled + n_unlabelled) // n_labelled


def paper_batches(
    data: TrainingData, *, batch_size: int, labelled_batch_size: int, rng: np.random.Generator, device: torch.device
) -> Iterator[Batch]:
    """One pass over the unlabelled images; every p-th batch brings labelled ones along.

    Labelled batches are a pass over the labelled images in random order, cut short or begun anew as need be. Either
    part of a batch may be empty: without labelled images none come along, and where all images are labelled each
    batch has labelled ones alone.

    Parameters
    ----------
    data : TrainingData
        The data set.
    batch_size, labelled_batch_size : int
        Images per batch; the last of a pass may have fewer.
    rng : numpy.random.Generator
        Source of the order.
    device : torch.device
        Where the batches go.

    Yields
    ------
    Batch
    """
    labelled, unlabelled = np.flatnonzero(data.y >= 0), np.flatnonzero(data.y < 0)
    chunks_l = _shuffled_chunks(labelled, labelled_batch_size, rng)
    chunks_u = _shuffled_chunks(unlabelled, batch_size, rng)
    nothing = labelled[:0]
    if not chunks_u:
        pairs = [(chunk, nothing) for chunk in chunks_l]
    elif not chunks_l:
        pairs = [(nothing, chunk) for chunk in chunks_u]
    else:
        every = labelled_every(len(chunks_l), len(chunks_u))
        # pyroVED takes labelled batches at 1, 1 + p, ...: none at all where p is 1 or there is one unlabelled batch.
        first = min(1, every - 1, len(chunks_u) - 1)
        pairs = [
            (chunks_l[(i // every) % len(chunks_l)] if i % every == first else nothing, chunk)
            for i, chunk in enumerate(chunks_u)
        ]
    for rows_l, rows_u in pairs:
        y = to_device(torch.from_numpy(data.y[rows_l]), device)
        yield Batch(as_images(data.x[rows_l], device), y, as_images(data.x[rows_u], device))


def _shuffled_chunks(rows: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    order = rng.permutation(rows)
    return [order[start : start + size] for start in range(0, len(order), size)]


def paper_loss(
    model: SSRVAE,
    batch: Batch,
    *,
    kl_weight: float,
    classification_weight: float,
    generator: torch.Generator | None = None,
    pixel_fraction: float = 1.0,
    class_floor: float = 0.0,
    analytic_kl: bool = False,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch as published, summed over its images, and its parts for the record.

    Labelled images and all (unlabelled image, class) pairs go through encoder and decoder together.

    Parameters
    ----------
    model : SSRVAE
        The model.
    batch : Batch
        Labelled and unlabelled images; either may be none.
    kl_weight, classification_weight : float
        Weights of the divergences and of the cross-entropy.
    generator : torch.Generator, optional
        Source of the draws: z, angle, shift and scale in this order, each for the unlabelled pairs (image by image,
        class by class) and then the labelled images.
    pixel_fraction, class_floor, analytic_kl
        As in :class:`PaperConfig`.

    Returns
    -------
    loss : Tensor of shape ()
        To be minimised.
    parts : dict of str to float
        Means over images, in nats; bounds per pixel.
    """
    x = torch.cat([batch.x_unlabelled, batch.x_labelled])
    n_u, n_l = len(batch.x_unlabelled), len(batch.x_labelled)
    logits = model.classify(x)
    log_q = torch.log_softmax(logits[:n_u], dim=1)
    rows, classes = objectives.plausible_classes(log_q.detach().exp(), class_floor)
    kept = log_q[rows, classes]
    if class_floor > 0:
        total = torch.zeros_like(log_q[:, 0]).index_add(0, rows, kept.exp())
        kept = kept - total.log()[rows]
    weights = torch.cat([kept.exp(), kept.new_ones(n_l)])
    rows = torch.cat([rows, torch.arange(n_u, n_u + n_l, device=x.device)])
    y = torch.cat([classes, batch.y])
    posterior = model.encode(model.features(x)[rows], y)
    draw = _draw(model, posterior, generator, analytic_kl=analytic_kl)
    fit, log_px = _weighted_fit(model, x, y, rows, draw, weights, pixel_subset(x, pixel_fraction, generator))
    # Of the unlabelled pairs, the entropy of q(y | x) joins the bound.
    rest = weights * (model.log_py[y] - kl_weight * draw.kl)
    bound = fit + rest.sum() - (kept.exp() * kept).sum()
    cross_entropy = objectives.classification_loss(logits[n_u:], batch.y).sum() if n_l else bound.new_zeros(())
    loss = classification_weight * cross_entropy - bound
    with torch.no_grad():
        values = weights * log_px + rest
        values[: len(kept)] -= kept.exp() * kept
    return loss, _parts(loss, values, cross_entropy, draw.kl, (len(kept), n_u, n_l), x[0].numel())


def _parts(
    loss: Tensor, values: Tensor, cross_entropy: Tensor, kl: Tensor, counts: tuple[int, int, int], n_pixels: int
) -> dict[str, float]:
    """Parts of the loss for the record, under the names that the default method uses."""
    n_pairs, n_u, n_l = counts
    sums, counts_of = {"loss": loss, "kl": kl.mean()}, {"loss": n_u + n_l, "kl": 1}
    if n_u:
        sums["elbo_unlabelled"], counts_of["elbo_unlabelled"] = values[:n_pairs].sum(), n_u * n_pixels
    if n_l:
        sums["elbo_labelled"], counts_of["elbo_labelled"] = values[n_pairs:].sum(), n_l * n_pixels
        sums["classification"], counts_of["classification"] = cross_entropy, n_l
    return {name: total / counts_of[name] for name, total in read_numbers(sums).items()}


@dataclass(frozen=True)
class _Draw:
    """One draw of z and pose per pair, and the divergence of what it was drawn from; (n_pairs,)."""

    z: Tensor
    pose: PoseSample
    kl: Tensor


def _draw(model: SSRVAE, posterior: PosteriorZPose, generator: torch.Generator | None, *, analytic_kl: bool) -> _Draw:
    prior = objectives.pose_prior_for(model, posterior.qz.loc)
    blank = posterior.qz.loc.new_zeros(len(posterior.qz.loc))
    z, kl = _draw_normal(posterior.qz, 1.0, generator, analytic=analytic_kl)
    angle, shift, scale = blank, blank.new_zeros(len(blank), 2), blank
    if posterior.qangle is not None:
        angle, kl_angle = _draw_angle(posterior, generator, analytic=analytic_kl)
        kl = kl + kl_angle
    if posterior.qshift is not None:
        shift, kl_shift = _draw_normal(posterior.qshift, prior.shift.scale, generator, analytic=analytic_kl)
        kl = kl + kl_shift
    if posterior.qscale is not None:
        factor, kl_scale = _draw_normal(posterior.qscale, prior.scale.scale, generator, analytic=analytic_kl)
        scale, kl = factor[:, 0], kl + kl_scale
    return _Draw(z, model.to_pose(angle, shift, scale), kl)


def _draw_normal(
    q: Normal, unit: Tensor | float, generator: torch.Generator | None, *, analytic: bool
) -> tuple[Tensor, Tensor]:
    """Draw from q, and give its divergence from N(0, unit): ``log q - log p`` at the draw, or in closed form."""
    noise = randn(q.loc, generator)
    value = q.loc + q.scale * noise
    moment = q.scale**2 + q.loc**2 if analytic else value**2
    surprise = 1.0 if analytic else noise**2
    kl = 0.5 * moment / unit**2 - 0.5 * surprise - torch.log(q.scale / unit)
    return value, kl.sum(dim=1)


def _draw_angle(
    posterior: PosteriorZPose, generator: torch.Generator | None, *, analytic: bool
) -> tuple[Tensor, Tensor]:
    qangle = posterior.qangle
    if not isinstance(qangle, NormalAngle):
        raise TypeError(f"the published objective draws one angle from a Normal; it cannot use a {type(qangle)}")
    q = torch.distributions.Normal(qangle.loc[:, None], qangle.scale[:, None], validate_args=False)
    angle, kl = _draw_normal(q, qangle.prior, generator, analytic=analytic)
    return angle[:, 0], kl


def _weighted_fit(
    model: SSRVAE, x: Tensor, y: Tensor, rows: Tensor, draw: _Draw, weights: Tensor, subset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``sum_r weights_r log p(x[rows_r] | ...)``, and the log likelihoods without a gradient."""
    density = _density(model)
    if density is not None and isinstance(model.decoder, CoordinateDecoder):
        affine = canonical_affine(draw.pose.angle, draw.pose.shift, draw.pose.scale)
        return model.decoder.weighted_log_likelihood(
            draw.z, y, affine, x, rows=rows, weights=weights, density=density, subset=subset
        )
    log_px = model.log_likelihood(x[rows], model.decode(draw.z, y, draw.pose))
    return (weights * log_px).sum(), log_px.detach()


def _density(model: SSRVAE) -> PixelDensity | None:
    """Density of a pixel, where the decoder's output determines it alone and as published; else None."""
    config = model.config
    if config.likelihood != "gaussian":
        return PixelDensity(config.likelihood)
    if config.standardise or model.log_sigma is not None:
        return None
    return PixelDensity("gaussian", 1.0 if config.sigma is None else config.sigma)
