"""Networks of the competitors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tumble import SSRVAEClassifier
from tumble.estimators.settings import model_config
from tumble.model.ssrvae import SSRVAE

_SIX_CHANNELS = (24, 48, 48, 96, 96, 192)

NETWORKS = ("default", "six")


class SixConvolutions(nn.Module):
    """Six 3 x 3 convolutions with batch normalisation, stride 2 at the first, third and fifth, mean and maximum."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = in_channels
        for stage, channels in enumerate(_SIX_CHANNELS):
            stride = 1 if stage % 2 else 2
            layers += [
                nn.Conv2d(previous, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            previous = channels
        self.trunk = nn.Sequential(*layers)
        self.trunk.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (torch's stub lacks it)
        self.head = nn.Linear(2 * previous, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, C, H, W) to logits (batch, K)."""
        features = self.trunk(x.contiguous(memory_format=torch.channels_last))
        return self.head(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))


def make_network(name: str, image_shape: tuple[int, int, int], n_classes: int, **parameters: Any) -> nn.Module:
    """Make one of `NETWORKS`: "default" is that of tumble's own classifier, with these parameters of its estimator."""
    if name == "six":
        return SixConvolutions(image_shape[0], n_classes)
    if name == "default":
        # Taken out of a whole model, so that it stays the same network whatever the default becomes.
        config = model_config(SSRVAEClassifier(**parameters)._params(), n_classes, image_shape)
        return SSRVAE(config).classifier
    raise ValueError(f"network={name!r}: expected one of {NETWORKS}")
