"""The networks: a classifier, an encoder of pose and latent factors, and a decoder of canonical images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tumble.model.coordinates import pixel_positions
from tumble.model.equivariant import GroupConv, GroupNorm2d, group_order

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Classifier", "ConvTrunk", "Encoder", "FineTrunk", "NoveltyHead", "TemplateDecoder"]

#: Strided stages go on until the longer side of the feature map is at most this many px.
_FINAL_MAP_PX = 6


class ConvTrunk(nn.Module):
    """Strided 3 x 3 convolutions with batch normalisation, as a rule after folding 2 x 2 px blocks into channels.

    Folding first (a stride of 4 px within the first convolution) and the channels-last layout make a step on a CPU
    about three times cheaper than a convolution at full resolution would, at equal accuracy on the cards. Small images
    lose by it what tells their classes apart.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    image_shape : (int, int)
        Height and width in px; the number of stages grows with its logarithm.
    channels : sequence of int
        Channels of the strided stages; the last value serves every further stage that a large image needs.
    extra : int, default=0
        Unstrided convolutions after the last stage. They widen the field of view by 2 final-map px each.
    radius : bool, default=False
        Whether the networks also see how far each place is from the centre. Pooled over position, features would not
        tell the object in the middle from a neighbour at the edge; the distance does, at any angle.
    fold : bool, default=True
        Whether to fold.

    Attributes
    ----------
    out_shape : (int, int, int)
        Channels, height and width of the feature map.
    """

    radius: Tensor | None

    def __init__(
        self,
        in_channels: int,
        image_shape: tuple[int, int],
        channels: Sequence[int],
        *,
        extra: int = 0,
        radius: bool = False,
        fold: bool = True,
    ) -> None:
        super().__init__()
        self.block = 2 if fold else 1
        height, width = (math.ceil(n / self.block) for n in image_shape)
        self.register_buffer("radius", _radius(height, width) if radius else None, persistent=False)
        n_stages = max(1, math.ceil(math.log2(max(height, width) / _FINAL_MAP_PX)))
        layers: list[nn.Module] = []
        previous = self.block**2 * in_channels + int(radius)
        for stage in range(n_stages):
            current = channels[min(stage, len(channels) - 1)]
            layers += _conv_norm(previous, current, stride=2)
            previous = current
            height, width = (height + 1) // 2, (width + 1) // 2
        for _ in range(extra):
            layers += _conv_norm(previous, previous, stride=1)
        self.layers = nn.Sequential(*layers)
        self.layers.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (torch's stub lacks it)
        self.out_shape = (previous, height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, C, H, W) to features (batch, *out_shape)."""
        height, width = x.shape[-2:]
        if self.block == 2 and (height % 2 or width % 2):
            x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        folded = F.pixel_unshuffle(x, self.block)
        if self.radius is not None:
            folded = torch.cat([folded, self.radius.to(x.dtype).expand(x.shape[0], -1, -1, -1)], dim=1)
        return self.layers(folded.contiguous(memory_format=torch.channels_last))


def _radius(height: int, width: int) -> Tensor:
    """Squared distance from the centre, from -1 there to 1 at the middle of the longer edges; (1, 1, H, W)."""
    position = pixel_positions(height, width)
    return (2 * position.square().sum(dim=-1) / (max(height, width) / 2) ** 2 - 1)[None, None]


def _conv_norm(in_channels: int, out_channels: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class FineTrunk(nn.Module):
    """Six convolutions, half of them strided, that are equivariant to a group and keep fine detail.

    Against :class:`ConvTrunk` the first convolutions see the image at half resolution, not at a quarter, which costs
    some ten times more and pays where classes differ in fine shapes. With a group, the answer after averaging over it
    does not depend on quarter turns (and mirror images) by construction: it need not be learned from few labels.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    image_shape : (int, int)
        Height and width in px; each factor of 2 beyond 48 px adds a strided convolution.
    symmetry : str
        One of :data:`tumble.model.equivariant.SYMMETRIES`.
    radius : bool, default=False
        As in :class:`ConvTrunk`.
    width : int, default=24
        Planes of the first layer in all; features of a group of order n count n.

    Attributes
    ----------
    out_shape : (int, int, int)
        Channels after averaging over the group, height and width.
    """

    radius: Tensor | None

    def __init__(
        self, in_channels: int, image_shape: tuple[int, int], symmetry: str, *, radius: bool = False, width: int = 24
    ) -> None:
        super().__init__()
        self.register_buffer("radius", _radius(*image_shape) if radius else None, persistent=False)
        self.order = group_order(symmetry)
        first = max(2, round(width / self.order**0.5))
        height, width = image_shape
        extra = max(0, math.ceil(math.log2(max(image_shape) / (8 * _FINAL_MAP_PX))))
        plan = [(first, 2)] * extra + [(first, 2), (2 * first, 1), (2 * first, 2), (4 * first, 1), (4 * first, 2)]
        layers: list[nn.Module] = []
        previous = in_channels + int(radius)
        for i, (channels, stride) in enumerate([*plan, (8 * first, 1)]):
            # An even kernel at stride 2 samples even sides symmetrically, so that quarter turns are exact.
            kernel = 4 if stride == 2 else 3
            layers += [
                GroupConv(previous, channels, kernel, stride, symmetry=symmetry, lift=i == 0),
                GroupNorm2d(channels, symmetry),
                nn.ReLU(inplace=True),
            ]
            previous = channels
            height, width = height // stride, width // stride
        self.layers = nn.Sequential(*layers)
        self.out_shape = (previous, height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, C, H, W) to features (batch, *out_shape), averaged over the group."""
        if self.radius is not None:
            x = torch.cat([x, self.radius.to(x.dtype).expand(x.shape[0], -1, -1, -1)], dim=1)
        features = self.layers(x.contiguous(memory_format=torch.channels_last))
        return features.unflatten(1, (self.order, -1)).mean(dim=1)


class Classifier(nn.Module):
    """q(y | x): a convolutional trunk, mean and maximum over position, one or two dense layers.

    Pooling over position makes the answer nearly independent of where the object lies; mean and maximum together
    keep both extent and fine detail, which neither alone does.

    Parameters
    ----------
    trunk : ConvTrunk or FineTrunk
        The convolutions.
    n_classes : int
        Number of classes K.
    hidden : int or None
        Width of the dense layer before that of the logits; None leaves it out.
    """

    def __init__(self, trunk: ConvTrunk | FineTrunk, n_classes: int, *, hidden: int | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.n_embedded = 2 * trunk.out_shape[0]
        self.head: nn.Module
        if hidden is None:
            self.head = nn.Linear(self.n_embedded, n_classes)
        else:
            self.head = nn.Sequential(
                nn.Linear(self.n_embedded, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, n_classes)
            )

    def embed(self, x: Tensor) -> Tensor:
        """Mean and maximum of the features over position, (batch, 2 channels)."""
        features = self.trunk(x)
        return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, C, H, W) to logits (batch, K)."""
        return self.head(self.embed(x))


class Encoder(nn.Module):
    """q(z, angle, shift, scale | x, y): a trunk that keeps position, and a head that also sees the class.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    image_shape : (int, int)
        Height and width in px.
    n_classes : int
        Number of classes K (0: the class plays no part).
    n_outputs : int
        Numbers per observation that parametrise the posterior.
    channels : sequence of int
        Channels per stage.
    hidden : int
        Width of the dense layers.
    """

    def __init__(
        self,
        in_channels: int,
        image_shape: tuple[int, int],
        n_classes: int,
        n_outputs: int,
        *,
        channels: Sequence[int],
        hidden: int,
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        #: The one of the pre-training has the convolutions that classify, see :mod:`tumble.fit.pretrain`.
        self.trunk: ConvTrunk | FineTrunk = ConvTrunk(in_channels, image_shape, channels)
        n_features = math.prod(self.trunk.out_shape)
        self.features_layer = nn.Linear(n_features, hidden)
        self.head = nn.Sequential(nn.Linear(hidden + n_classes, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))

    def features(self, x: Tensor) -> Tensor:
        """Compute the part that does not depend on the class; (batch, C, H, W) to (batch, hidden)."""
        return F.relu(self.features_layer(self.trunk(x).flatten(1)))

    def forward(self, features: Tensor, y: Tensor) -> Tensor:
        """Parameters of the posterior, (batch, n_outputs), from features and class indices (batch,)."""
        if self.n_classes:
            features = torch.cat([features, F.one_hot(y, self.n_classes).to(features.dtype)], dim=1)
        return self.head(features)


class TemplateDecoder(nn.Module):
    """One canonical image per object from (z, y); the pose is applied to it afterwards by resampling.

    Against a network that is evaluated at each pixel of the turned grid (the paper's decoder) this costs some hundred
    times less, since the network runs once per image and not once per pixel.

    Parameters
    ----------
    out_channels : int
        Channels of the image.
    side : int
        Side of the square canvas in px. It is square so that an object may turn in an oblong image.
    latent_dim : int
        Dimension of z.
    n_classes : int
        Number of classes K (0: the class plays no part).
    hidden : int
        Width of the dense layers.
    """

    def __init__(self, out_channels: int, side: int, latent_dim: int, n_classes: int, *, hidden: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.canvas = (out_channels, side, side)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + n_classes, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, math.prod(self.canvas)),
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Canonical images (batch, C, side, side), before the output non-linearity."""
        if self.n_classes:
            z = torch.cat([z, F.one_hot(y, self.n_classes).to(z.dtype)], dim=1)
        return self.layers(z).unflatten(1, self.canvas)


class NoveltyHead(nn.Module):
    """How little an object resembles the labelled ones, and the training images at all.

    Parameters
    ----------
    n_features : int
        Width of :meth:`tumble.model.ssrvae.SSRVAE.evidence`.
    hidden : int
        Width of the dense layer.
    """

    loc: Tensor
    spread: Tensor
    whitening: Tensor
    zero: Tensor
    unit: Tensor
    quantiles: Tensor

    def __init__(self, n_features: int, *, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.register_buffer("loc", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        self.register_buffer("whitening", torch.eye(n_features))
        self.register_buffer("zero", torch.zeros(2))
        self.register_buffer("unit", torch.ones(2))
        self.register_buffer("quantiles", torch.linspace(0, 1, 101))

    def describe(self, seen: Tensor) -> None:
        """Measure where the features (n, n_features) of the training images lie."""
        self.loc.copy_(seen.mean(dim=0))
        self.spread.copy_(seen.std(dim=0, correction=0).clamp(min=1e-6))
        standard = (seen - self.loc) / self.spread
        covariance = standard.T @ standard / len(standard)
        # Shrunk towards the identity: with few images some directions have no spread at all.
        values, vectors = torch.linalg.eigh(0.95 * covariance + 0.05 * torch.eye(len(covariance), device=seen.device))
        self.whitening.copy_(vectors / values.sqrt())

    def logit(self, features: Tensor) -> Tensor:
        """Log odds that an object comes from the unlabelled images and not from the labelled ones, (batch,)."""
        return self.layers((features - self.loc) / self.spread)[:, 0]

    def parts(self, features: Tensor) -> Tensor:
        """Log odds of :meth:`logit`, and logarithm of the distance from the training images, (batch, 2)."""
        distance = (((features - self.loc) / self.spread) @ self.whitening).square().mean(dim=1).clamp(min=1e-12).log()
        return torch.stack([self.logit(features), distance], dim=1)

    @torch.no_grad()
    def set_scale(self, known: Tensor, seen: Tensor) -> None:
        """Bring both scores to one scale, and measure the quantiles of the larger one over known objects.

        Parameters
        ----------
        known, seen : Tensor of shape (n, 2)
            What :meth:`parts` gives for objects of known classes, and for all training images.
        """
        # The distance is for what was never seen: it begins to count where the training images nearly end, so that it
        # does not speak over the log odds among objects like them.
        for i, (part, low, high) in enumerate(((known[:, 0], 0.5, 0.9), (seen[:, 1], 0.9, 0.99))):
            self.zero[i] = part.quantile(low)
            self.unit[i] = (part.quantile(high) - self.zero[i]).clamp(min=1e-3)
        self.quantiles.copy_(torch.quantile(self._score(known), torch.linspace(0, 1, 101, device=known.device)))

    def _score(self, parts: Tensor) -> Tensor:
        return ((parts - self.zero) / self.unit).amax(dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Score of novelty (batch,); about 0 at the median of known objects, and 1 at their upper tenth."""
        return self._score(self.parts(features))
