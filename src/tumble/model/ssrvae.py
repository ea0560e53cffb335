"""The semi-supervised, rotationally invariant variational autoencoder (ss-rVAE) as one module.

The generative model is ``p(y) p(z) p(angle) p(shift) p(scale) p(x | y, z, angle, shift, scale)`` and the inference
model is ``q(y | x) q(z, angle, shift, scale | x, y)``. Parts of the pose that are not among the invariances are fixed
(angle 0, shift 0, scale 1), and without classes y is left out: VAE, rVAE, ss-VAE and ss-rVAE are one module.

References
----------
.. [1] M. A. Ziatdinov et al., "Semi-supervised learning of images with strong rotational disorder: assembling
       nanoparticle libraries", Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributions import ContinuousBernoulli, Normal
from torch.nn import functional as F

from tumble.model.angle_mixture import N_ANGLE_MODES, CircularMixture
from tumble.model.angles import AnglePosterior, NormalAngle, ProjectedNormal, VonMises
from tumble.model.coordinates import canonical_affine, place, wrap_angle
from tumble.model.dense import CoordinateDecoder, DenseClassifier, DenseDecoder, DenseEncoder
from tumble.model.nets import Classifier, ConvTrunk, Encoder, FineTrunk, NoveltyHead, TemplateDecoder

if TYPE_CHECKING:
    from tumble.model.config import ModelConfig

__all__ = ["SSRVAE", "PoseSample", "PosteriorZPose"]

#: Least log width of the Gaussian likelihood, relative to the spread of the pixels: 2 % of it.
_LOG_SIGMA_FLOOR = -4.0
#: Resampled Bernoulli means can touch 0 and 1 by rounding, where the logarithm would be infinite.
_PROBABILITY_FLOOR = 1e-6
#: Numbers per observation that parametrise each family of angle posterior.
_ANGLE_OUTPUTS = {"mixture": 3 * N_ANGLE_MODES, "normal": 2, "von_mises": 3, "projected": 2}


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
    qangle : AnglePosterior or None
        Rotation in radians.
    qshift : Normal of shape (batch, 2) or None
        Displacement in px, in the frame of the model.
    qscale : Normal of shape (batch, 1) or None
        Logarithm of the magnification ("object" frame) or factor of the grid less 1 ("grid" frame).
    """

    qz: Normal
    qangle: AnglePosterior | None
    qshift: Normal | None
    qscale: Normal | None


class SSRVAE(nn.Module):
    """Classifier q(y | x), encoder q(z, pose | x, y) and decoder p(x | y, z, pose).

    Parameters
    ----------
    config : ModelConfig
        Sizes and choices.
    pixel_offset, pixel_scale : float
        Mean and standard deviation of the training pixels: networks see ``(x - offset) / scale``.

    Attributes
    ----------
    log_py : Tensor of shape (n_components,)
        Logarithm of the class prior.
    log_temperature : Tensor of shape ()
        Logits are divided by its exponential to give calibrated probabilities.
    latent_loc, latent_scale : Tensor of shape (n_components, latent_dim)
        Where the latent factors of each class lie, measured after training.
    turn : Tensor of shape (latent_dim, latent_dim) or None
        Orthogonal matrix that turns the latent axes of the networks into those of the model, set after training (see
        :func:`tumble.fit.factors.independent_axes`); None leaves them as they are.
    """

    pixel_offset: Tensor
    pixel_scale: Tensor
    latent_loc: Tensor
    latent_scale: Tensor
    log_py: Tensor
    log_temperature: Tensor
    turn: Tensor | None

    def __init__(
        self,
        config: ModelConfig,
        *,
        pixel_offset: float = 0.0,
        pixel_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = config
        self._parts = _posterior_parts(config)
        self.classifier = _build_classifier(config)
        self.encoder = _build_encoder(config, sum(self._parts.values()))
        self.decoder = _build_decoder(config)
        self.log_sigma = nn.Parameter(torch.tensor(-1.0)) if _learns_width(config) else None
        #: Learned after everything else, see :func:`tumble.fit.confidence.fit_novelty`.
        self.novelty: NoveltyHead | None = None
        if not config.standardise:
            pixel_offset, pixel_scale = 0.0, 1.0
        self.register_buffer("pixel_offset", torch.tensor(float(pixel_offset)))
        self.register_buffer("pixel_scale", torch.tensor(float(pixel_scale)))
        k = config.n_components
        # Until they are measured after training, the latent factors lie where the prior puts them.
        self.register_buffer("latent_loc", torch.zeros(k, config.latent_dim))
        self.register_buffer("latent_scale", torch.ones(k, config.latent_dim))
        self.register_buffer("log_py", torch.full((k,), -math.log(k)))
        self.register_buffer("log_temperature", torch.tensor(0.0))
        self.register_buffer("turn", None)

    @torch.no_grad()
    def move_prior(self, frequencies: Tensor, rate: float) -> None:
        """Move the class prior towards the present class frequencies (K,) by the share `rate`.

        Of all priors, the mean of q(y | x) over the unlabelled images makes their bound largest.
        """
        self.log_py.copy_(torch.lerp(self.log_py.exp(), frequencies, rate).log())

    def standardise(self, x: Tensor) -> Tensor:
        """Images as the networks see them."""
        return (x - self.pixel_offset) / self.pixel_scale if self.config.standardise else x

    def classify(self, x: Tensor) -> Tensor:
        """Logits of q(y | x), (batch, K), of images (batch, C, H, W); without classes zeros of shape (batch, 1)."""
        if self.classifier is None:
            return x.new_zeros(len(x), 1)
        return self.classifier(self.standardise(x))

    def probabilities(self, x: Tensor) -> Tensor:
        """Calibrated q(y | x), (batch, K)."""
        return torch.softmax(self.classify(x) / self.log_temperature.exp(), dim=1)

    def evidence(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """Give what the score of novelty looks at: features of classifier and encoder, (batch, n_features).

        Where :meth:`features` of the same images are at hand, they need not be computed again.
        """
        features = self.features(x) if features is None else features
        if self.classifier is None:
            return features
        return torch.cat([self.classifier.embed(self.standardise(x)), features], dim=1)

    def add_novelty(self) -> NoveltyHead:
        """Add the part that scores novelty, untrained, and return it."""
        width = self.config.hidden + (0 if self.classifier is None else self.classifier.n_embedded)
        self.novelty = NoveltyHead(width, hidden=64).to(self.pixel_scale.device)
        return self.novelty

    def add_turn(self, turn: Tensor | None = None) -> Tensor:
        """Turn the latent axes by an orthogonal matrix (latent_dim, latent_dim), or by none yet, and return it."""
        turn = torch.eye(self.config.latent_dim) if turn is None else turn
        self.turn = turn.to(self.pixel_scale).contiguous()
        return self.turn

    def features(self, x: Tensor) -> Tensor:
        """Class-independent part of the encoder, (batch, hidden)."""
        return self.encoder.features(self.standardise(x))

    def encode(self, features: Tensor, y: Tensor) -> PosteriorZPose:
        """q(z, pose | x, y) from :meth:`features` of x and class indices y (batch,)."""
        config = self.config
        out = dict(zip(self._parts, self.encoder(features, y).split(list(self._parts.values()), dim=1), strict=True))
        qangle = self._angle_posterior(out["angle"]) if "angle" in out else None
        qshift = self._normal(out["shift"], config.shift_unit_px) if "shift" in out else None
        qscale = self._normal(out["scale"], config.scale_prior) if "scale" in out else None
        return PosteriorZPose(self._turned(self._normal(out["z"])), qangle, qshift, qscale)

    def _turned(self, qz: Normal) -> Normal:
        """Posterior along the turned axes; its parts there depend on each other, of which the widths know nothing."""
        if self.turn is None:
            return qz
        return Normal(qz.loc @ self.turn, (qz.scale.square() @ self.turn.square()).sqrt(), validate_args=False)

    def _draw(self, z: Tensor, y: Tensor, *place: Any) -> Tensor:
        """Raw output of the decoder for latent factors along the turned axes."""
        return self.decoder(z if self.turn is None else z @ self.turn.T, y, *place)

    def _normal(self, raw: Tensor, unit: float = 1.0) -> Normal:
        loc, width = raw.chunk(2, dim=1)
        return Normal(loc * unit, self._width(width) * unit, validate_args=False)

    def _width(self, raw: Tensor) -> Tensor:
        """Positive widths from what the network gives."""
        if self.config.encoder == "dense":
            return F.softplus(raw)  # as published
        # Widths start below the prior's, so that early samples carry some signal, and stay within sane bounds.
        return (raw - 1.0).clamp(-7.0, 3.0).exp()

    def _angle_posterior(self, raw: Tensor) -> AnglePosterior:
        family, concentration = self.config.angle_posterior, self.config.angle_prior_concentration
        if family == "mixture":
            return CircularMixture.from_outputs(raw, concentration)
        if family == "normal":
            unit = self.config.angle_prior_rad
            return NormalAngle(raw[:, 0] * unit, self._width(raw[:, 1]) * unit, unit)
        if family == "projected":
            return ProjectedNormal(3 * raw, concentration)
        return VonMises(torch.atan2(raw[:, 1], raw[:, 0]), F.softplus(raw[:, 2]).clamp(max=1e4), concentration)

    def to_pose(self, angle: Tensor, shift: Tensor, scale_variable: Tensor) -> PoseSample:
        """Pose of the object as seen from values of the model's own variables.

        Parameters
        ----------
        angle : Tensor of shape (batch,)
            Radians.
        shift : Tensor of shape (batch, 2)
            In px, in the frame of the model.
        scale_variable : Tensor of shape (batch,)
            0 leaves the size as it is.
        """
        if self.config.frame == "object":
            return PoseSample(angle, shift, scale_variable.exp())
        # The published grid is turned, then scaled, then moved: canonical = s R(-angle) p + d. Solved for where the
        # object is seen, that is a magnification of 1 / s and a displacement of -R(angle) d / s.
        factor = (1 + scale_variable).clamp(min=0.05)
        cos, sin = torch.cos(angle), torch.sin(angle)
        moved = torch.stack([cos * shift[:, 0] - sin * shift[:, 1], sin * shift[:, 0] + cos * shift[:, 1]], dim=1)
        return PoseSample(angle, -moved / factor[:, None], 1 / factor)

    def mean_pose(self, posterior: PosteriorZPose) -> PoseSample:
        """Pose at the mean of each factor (angle: the likeliest direction)."""
        batch, like = len(posterior.qz.loc), posterior.qz.loc
        return self.to_pose(
            wrap_angle(posterior.qangle.best()) if posterior.qangle else like.new_zeros(batch),
            posterior.qshift.loc if posterior.qshift else like.new_zeros(batch, 2),
            posterior.qscale.loc[:, 0] if posterior.qscale else like.new_zeros(batch),
        )

    def canonical(self, z: Tensor, y: Tensor) -> Tensor:
        """Canonical images before the pose is applied, raw decoder output (batch, C, side, side)."""
        if isinstance(self.decoder, TemplateDecoder | DenseDecoder):
            return self._draw(z, y)
        identity = torch.eye(2, 3, device=z.device, dtype=z.dtype).expand(len(z), 2, 3)
        return self._draw(z, y, identity, (self.config.side, self.config.side))

    def decode(self, z: Tensor, y: Tensor, pose: PoseSample, rows: Tensor | None = None) -> Tensor:
        """Parameter of p(x | y, z, pose), (n_draws, C, H, W): the mean of the image, in units of x.

        (For the continuous Bernoulli it is the parameter lambda, see :meth:`expectation`.)

        Parameters
        ----------
        z : Tensor of shape (batch, latent_dim)
            Latent factors.
        y : Tensor of shape (batch,)
            Class indices.
        pose : PoseSample
            Of each draw.
        rows : Tensor of shape (n_draws,), optional
            The observation of each draw; by default one draw per observation, in order.
        """
        if isinstance(self.decoder, TemplateDecoder | DenseDecoder):
            canonical = self.to_mean(self._draw(z, y))
            return self._place(canonical if rows is None else canonical[rows], pose)
        if rows is not None:
            z, y = z[rows], y[rows]
        affine = canonical_affine(pose.angle, pose.shift, pose.scale)
        return self.to_mean(self._draw(z, y, affine, self.config.size))

    def _place(self, canonical_mean: Tensor, pose: PoseSample) -> Tensor:
        """Place canonical mean images (batch, C, side, side) at a pose: (batch, C, H, W).

        The canvas is resampled after the output non-linearity, so that a pose never changes grey levels.
        """
        config = self.config
        if not config.invariances and canonical_mean.shape[-2:] == config.size:
            return canonical_mean
        scale = pose.scale if "scale" in config.invariances else None
        return place(canonical_mean, pose.angle, pose.shift, scale, size=config.size)

    def to_mean(self, raw: Tensor) -> Tensor:
        """Map raw decoder output to the parameter of p(x | ...)."""
        if self.config.likelihood != "gaussian" or not self.config.standardise:
            return torch.sigmoid(raw)
        return raw * self.pixel_scale + self.pixel_offset

    def expectation(self, parameter: Tensor) -> Tensor:
        """E[x] from what :meth:`decode` gives."""
        if self.config.likelihood != "continuous_bernoulli":
            return parameter
        floor = _PROBABILITY_FLOOR
        return ContinuousBernoulli(parameter.clamp(floor, 1 - floor), validate_args=False).mean

    def log_likelihood(self, x: Tensor, mean: Tensor) -> Tensor:
        """Log p(x | mean), summed over channels and pixels; shape (batch,)."""
        floor = _PROBABILITY_FLOOR
        if self.config.likelihood == "bernoulli":
            p = mean.clamp(floor, 1 - floor)
            # The cross-entropy of torch takes one logarithm at a time on a CPU: these two cost a third of it.
            return torch.lerp(torch.log1p(-p), torch.log(p), x).flatten(1).sum(dim=1)
        if self.config.likelihood == "continuous_bernoulli":
            q = ContinuousBernoulli(mean.clamp(floor, 1 - floor), validate_args=False)
            return q.log_prob(x).flatten(1).sum(dim=1)
        log_sigma = self.log_width()
        # With one width for all pixels the squares can be summed first, which spares three passes over the images.
        squares = (x - mean).square().flatten(1).sum(dim=1)
        n_pixels = math.prod(x.shape[1:])
        return -0.5 * squares * torch.exp(-2 * log_sigma) - n_pixels * (log_sigma + 0.5 * math.log(2 * math.pi))

    def log_width(self) -> Tensor:
        """Log width of the Gaussian likelihood in units of x, shape ()."""
        if self.log_sigma is None:
            sigma = self.config.sigma if self.config.sigma is not None else 1.0
            return torch.full_like(self.pixel_scale, math.log(sigma))
        # The width is relative to the spread of the pixels and softly bounded below: a perfect fit must not diverge.
        floor = torch.full_like(self.log_sigma, _LOG_SIGMA_FLOOR)
        return torch.logaddexp(self.log_sigma, floor) + torch.log(self.pixel_scale)


def _learns_width(config: ModelConfig) -> bool:
    return config.likelihood == "gaussian" and config.sigma is None


def _build_classifier(config: ModelConfig) -> Classifier | DenseClassifier | None:
    if not config.n_classes:
        return None
    if config.encoder == "dense":
        return DenseClassifier(math.prod(config.image_shape), config.n_classes, hidden=config.hidden)
    if config.classifier == "fine":
        trunk = FineTrunk(config.image_shape[0], config.size, config.symmetry, radius=config.radius)
    else:
        trunk = ConvTrunk(
            config.image_shape[0],
            config.size,
            config.encoder_channels,
            extra=config.extra_convolutions,
            radius=config.radius,
            fold=config.fold,
        )
    return Classifier(trunk, config.n_classes, hidden=config.hidden if config.hidden_layer else None)


def _build_encoder(config: ModelConfig, n_outputs: int) -> Encoder | DenseEncoder:
    if config.encoder == "dense":
        return DenseEncoder(math.prod(config.image_shape), config.n_classes, n_outputs, hidden=config.hidden)
    return Encoder(
        config.image_shape[0],
        config.size,
        config.n_classes,
        n_outputs,
        channels=config.encoder_channels,
        hidden=config.hidden,
    )


def _build_decoder(config: ModelConfig) -> TemplateDecoder | CoordinateDecoder | DenseDecoder:
    if config.decoder == "coordinate" and not config.invariances:
        # Positions that never change need no network of the position; the published ss-VAE has none either.
        return DenseDecoder(config.image_shape, config.latent_dim, config.n_classes, hidden=config.hidden)
    net = TemplateDecoder if config.decoder == "template" else CoordinateDecoder
    return net(config.image_shape[0], config.side, config.latent_dim, config.n_classes, hidden=config.hidden)


def _posterior_parts(config: ModelConfig) -> dict[str, int]:
    """Name -> number of encoder outputs, in the order in which the head gives them."""
    parts = {"z": 2 * config.latent_dim}
    if "rotation" in config.invariances:
        parts["angle"] = _ANGLE_OUTPUTS[config.angle_posterior]
    if "translation" in config.invariances:
        parts["shift"] = 4
    if "scale" in config.invariances:
        parts["scale"] = 2
    return parts
