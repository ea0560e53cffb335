"""The semi-supervised, rotationally invariant variational autoencoder (ss-rVAE) as one module.

The generative model is ``p(y) p(z) p(angle) p(shift) p(scale) p(x | y, z, angle, shift, scale)`` and the inference
model is ``q(y | x) q(z, angle, shift, scale | x, y)``. Parts of the pose that are not among the invariances are fixed
(angle 0, shift 0, scale 1).

References
----------
.. [1] M. A. Ziatdinov et al., "Semi-supervised learning of images with strong rotational disorder: assembling
       nanoparticle libraries", Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from tumble.model.coordinates import place, wrap_angle
from tumble.model.distributions import CircularMixture
from tumble.model.nets import Classifier, Encoder, TemplateDecoder

__all__ = [
    "INVARIANCES",
    "LIKELIHOODS",
    "LOG_SCALE_PRIOR",
    "SSRVAE",
    "ModelConfig",
    "PoseSample",
    "PosteriorZPose",
]

INVARIANCES = ("rotation", "translation", "scale")
LIKELIHOODS = ("gaussian", "bernoulli")

#: Least log width of the Gaussian likelihood, relative to the spread of the pixels: 2 % of it.
_LOG_SIGMA_FLOOR = -4.0
#: Modes of the angle's posterior: 30 degrees apart, which every symmetry of order 2, 3, 4 or 6 maps onto each other.
N_ANGLE_MODES = 12
#: Width of the angle's prior within a mode. At half the distance of the modes the sum over modes is flat to 2 %.
ANGLE_MODE_PRIOR = math.pi / N_ANGLE_MODES
#: Standard deviation of the prior on log(scale): a quarter up or down is ordinary.
LOG_SCALE_PRIOR = 0.2


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shape of the networks.

    Parameters
    ----------
    n_classes : int
        Number of classes K.
    image_shape : (int, int, int)
        Channels, height and width.
    latent_dim : int
        Dimension of z.
    invariances : tuple of str
        Which parts of the pose are latent: any of "rotation", "translation", "scale".
    likelihood : {"gaussian", "bernoulli"}
        p(x | ...): Normal with one learned width, or Bernoulli for images in [0, 1].
    translation_prior : float
        Standard deviation of the prior on the shift, as a fraction of the longer side of the image.
    encoder_channels : tuple of int
        Channels per stage of both trunks.
    hidden : int
        Width of dense layers.
    """

    n_classes: int
    image_shape: tuple[int, int, int]
    latent_dim: int = 2
    invariances: tuple[str, ...] = ("rotation", "translation")
    likelihood: str = "gaussian"
    translation_prior: float = 0.1
    encoder_channels: tuple[int, ...] = (32, 64)
    hidden: int = 128

    @property
    def side(self) -> int:
        """Longer side of the image in px."""
        return max(self.image_shape[1:])


@dataclass(frozen=True)
class PoseSample:
    """One pose per row: `angle` (batch,) in rad, `shift` (batch, 2) in px, `scale` (batch,)."""

    angle: Tensor
    shift: Tensor
    scale: Tensor


@dataclass(frozen=True)
class PosteriorZPose:
    """q(z, angle, shift, scale | x, y), independent factors; None for a part that is not inferred.

    Parameters
    ----------
    qz : Normal of shape (batch, latent_dim)
        Latent factors.
    qangle : CircularMixture of shape (batch, M) or None
        Rotation in radians.
    qshift : Normal of shape (batch, 2) or None
        Displacement in px.
    qlogscale : Normal of shape (batch, 1) or None
        Logarithm of the magnification.
    """

    qz: Normal
    qangle: CircularMixture | None
    qshift: Normal | None
    qlogscale: Normal | None

    def mean_pose(self) -> PoseSample:
        """Return the pose at the mean of each factor (angle: the heaviest mode)."""
        batch, like = self.qz.loc.shape[0], self.qz.loc
        return PoseSample(
            wrap_angle(self.qangle.best()) if self.qangle else like.new_zeros(batch),
            self.qshift.loc if self.qshift else like.new_zeros(batch, 2),
            self.qlogscale.loc[:, 0].exp() if self.qlogscale else like.new_ones(batch),
        )

    def sample_shift_and_scale(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw shift (batch, 2) and scale (batch,), differentiably."""
        batch, like = self.qz.loc.shape[0], self.qz.loc
        return (
            draw_normal(self.qshift, generator) if self.qshift else like.new_zeros(batch, 2),
            draw_normal(self.qlogscale, generator)[:, 0].exp() if self.qlogscale else like.new_ones(batch),
        )


def draw_normal(q: Normal, generator: torch.Generator | None) -> Tensor:
    """Reparametrised draw from a Normal with an explicit generator (which `rsample` does not take)."""
    noise = torch.randn(q.loc.shape, generator=generator, device=q.loc.device, dtype=q.loc.dtype)
    return q.loc + q.scale * noise


class SSRVAE(nn.Module):
    """Classifier q(y | x), encoder q(z, pose | x, y) and decoder p(x | y, z, pose).

    Parameters
    ----------
    config : ModelConfig
        Sizes and choices.
    pixel_offset, pixel_scale : float
        Mean and standard deviation of the training pixels: networks see ``(x - offset) / scale``.
    """

    pixel_offset: Tensor
    pixel_scale: Tensor
    latent_loc: Tensor
    latent_scale: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        pixel_offset: float = 0.0,
        pixel_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = config
        channels, height, width = config.image_shape
        shape = (height, width)
        net = {"channels": config.encoder_channels, "hidden": config.hidden}
        self.classifier = Classifier(channels, shape, config.n_classes, **net)
        self._parts = _posterior_parts(config)
        n_outputs = sum(self._parts.values())
        self.encoder = Encoder(channels, shape, config.n_classes, n_outputs, **net)
        self.decoder = TemplateDecoder(channels, config.side, config.latent_dim, config.n_classes, hidden=config.hidden)
        self.log_sigma = nn.Parameter(torch.tensor(-1.0))
        self.register_buffer("pixel_offset", torch.tensor(float(pixel_offset)))
        self.register_buffer("pixel_scale", torch.tensor(float(pixel_scale)))
        # Where the latent factors of each class lie, measured after training; until then the prior.
        self.register_buffer("latent_loc", torch.zeros(config.n_classes, config.latent_dim))
        self.register_buffer("latent_scale", torch.ones(config.n_classes, config.latent_dim))

    def standardise(self, x: Tensor) -> Tensor:
        """Images as the networks see them."""
        return (x - self.pixel_offset) / self.pixel_scale

    def classify(self, x: Tensor) -> Tensor:
        """Logits of q(y | x), (batch, K), of images (batch, C, H, W)."""
        return self.classifier(self.standardise(x))

    def features(self, x: Tensor) -> Tensor:
        """Class-independent part of the encoder, (batch, hidden)."""
        return self.encoder.features(self.standardise(x))

    def encode(self, features: Tensor, y: Tensor) -> PosteriorZPose:
        """q(z, pose | x, y) from :meth:`features` of x and class indices y (batch,)."""
        out = dict(zip(self._parts, self.encoder(features, y).split(list(self._parts.values()), dim=1), strict=True))
        qz = _normal(out["z"])
        qangle = _circular_mixture(out["angle"]) if "angle" in out else None
        qshift = None
        if "shift" in out:
            unit = self.config.translation_prior * self.config.side
            in_units = _normal(out["shift"])
            qshift = Normal(in_units.loc * unit, in_units.scale * unit, validate_args=False)
        qlogscale = None
        if "logscale" in out:
            in_units = _normal(out["logscale"])
            qlogscale = Normal(in_units.loc * LOG_SCALE_PRIOR, in_units.scale * LOG_SCALE_PRIOR, validate_args=False)
        return PosteriorZPose(qz, qangle, qshift, qlogscale)

    def canonical(self, z: Tensor, y: Tensor) -> Tensor:
        """Canonical images before the pose is applied, raw decoder output (batch, C, side, side)."""
        return self.decoder(z, y)

    def decode(self, z: Tensor, y: Tensor, pose: PoseSample) -> Tensor:
        """Mean image E[x | y, z, pose], (batch, C, H, W), in units of x."""
        return self.show(self.to_mean(self.canonical(z, y)), pose)

    def show(self, canonical_mean: Tensor, pose: PoseSample) -> Tensor:
        """Place canonical mean images (batch, C, side, side) at a pose: (batch, C, H, W).

        The canvas is resampled after the output non-linearity, so that a pose never changes grey levels.
        """
        size = self.config.image_shape[1], self.config.image_shape[2]
        if not self.config.invariances and size == (self.config.side, self.config.side):
            return canonical_mean
        scale = pose.scale if "scale" in self.config.invariances else None
        return place(canonical_mean, pose.angle, pose.shift, scale, size=size)

    def to_mean(self, raw: Tensor) -> Tensor:
        """Map raw decoder output to the mean of p(x | ...)."""
        if self.config.likelihood == "bernoulli":
            return torch.sigmoid(raw)
        return raw * self.pixel_scale + self.pixel_offset

    def log_likelihood(self, x: Tensor, mean: Tensor) -> Tensor:
        """Log p(x | mean), summed over channels and pixels; shape (batch,)."""
        if self.config.likelihood == "bernoulli":
            # Resampled means can touch 0 and 1 by rounding, where the logarithm would be infinite.
            log_p = -F.binary_cross_entropy(mean.clamp(1e-6, 1 - 1e-6), x, reduction="none")
            return log_p.flatten(1).sum(dim=1)
        # The width is relative to the spread of the pixels and softly bounded below: a perfect fit must not diverge.
        # With one width for all pixels the squares can be summed first, which spares three passes over the images.
        floor = torch.full_like(self.log_sigma, _LOG_SIGMA_FLOOR)
        log_sigma = torch.logaddexp(self.log_sigma, floor) + torch.log(self.pixel_scale)
        squares = (x - mean).square().flatten(1).sum(dim=1)
        n_pixels = math.prod(x.shape[1:])
        return -0.5 * squares * torch.exp(-2 * log_sigma) - n_pixels * (log_sigma + 0.5 * math.log(2 * math.pi))


def _posterior_parts(config: ModelConfig) -> dict[str, int]:
    """Name -> number of encoder outputs, in the order in which the head gives them."""
    parts = {"z": 2 * config.latent_dim}
    if "rotation" in config.invariances:
        parts["angle"] = 3 * N_ANGLE_MODES
    if "translation" in config.invariances:
        parts["shift"] = 4
    if "scale" in config.invariances:
        parts["logscale"] = 2
    return parts


def _normal(raw: Tensor) -> Normal:
    loc, log_scale = raw.chunk(2, dim=1)
    # Widths start below the prior's, so that early samples carry some signal, and stay within sane bounds.
    return Normal(loc, (log_scale - 1.0).clamp(-7.0, 3.0).exp(), validate_args=False)


def _circular_mixture(raw: Tensor) -> CircularMixture:
    logits, offset, log_scale = raw.chunk(3, dim=1)
    # Neighbouring modes overlap by half, so that no direction lies at the end of every mode's reach.
    reach = 1.5 * math.pi / N_ANGLE_MODES
    return CircularMixture(logits, reach * torch.tanh(offset), ANGLE_MODE_PRIOR * log_scale.clamp(-2.5, 1.0).exp())
