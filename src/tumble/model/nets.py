"""The networks: a classifier, an encoder of pose and latent factors, and a decoder of canonical images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Classifier", "ConvTrunk", "Encoder", "TemplateDecoder"]

#: Strided stages go on until the longer side of the feature map is at most this many px.
_FINAL_MAP_PX = 6


class ConvTrunk(nn.Module):
    """Strided 3 x 3 convolutions with batch normalisation, after folding 2 x 2 px blocks into channels.

    Folding first (a stride of 4 px within the first convolution) and the channels-last layout make a step on a CPU
    about three times cheaper than a convolution at full resolution would, at equal accuracy on the cards.

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

    Attributes
    ----------
    out_shape : (int, int, int)
        Channels, height and width of the feature map.
    """

    def __init__(
        self, in_channels: int, image_shape: tuple[int, int], channels: Sequence[int], *, extra: int = 0
    ) -> None:
        super().__init__()
        height, width = (math.ceil(n / 2) for n in image_shape)
        n_stages = max(1, math.ceil(math.log2(max(height, width) / _FINAL_MAP_PX)))
        layers: list[nn.Module] = []
        previous = 4 * in_channels
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
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        folded = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return self.layers(folded)


def _conv_norm(in_channels: int, out_channels: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class Classifier(nn.Module):
    """q(y | x): a convolutional trunk, mean and maximum over position, two dense layers.

    Pooling over position makes the answer nearly independent of where the object lies; mean and maximum together
    keep both extent and fine detail, which neither alone does.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    image_shape : (int, int)
        Height and width in px.
    n_classes : int
        Number of classes K.
    channels : sequence of int
        Channels per stage.
    hidden : int
        Width of the dense layer.
    """

    def __init__(
        self,
        in_channels: int,
        image_shape: tuple[int, int],
        n_classes: int,
        *,
        channels: Sequence[int],
        hidden: int,
    ) -> None:
        super().__init__()
        self.trunk = ConvTrunk(in_channels, image_shape, channels, extra=1)
        self.head = nn.Sequential(
            nn.Linear(2 * self.trunk.out_shape[0], hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, C, H, W) to logits (batch, K)."""
        features = self.trunk(x)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.head(pooled)


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
        self.trunk = ConvTrunk(in_channels, image_shape, channels)
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
