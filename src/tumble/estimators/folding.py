"""The classifier alone, made for use: batch normalisation folded into the convolutions, kernels turned once."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from tumble.model.coordinates import canonical_affine, pixel_positions
from tumble.model.equivariant import GroupConv, GroupNorm2d

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tumble.model.dense import DenseClassifier, DenseEncoder
    from tumble.model.nets import Classifier, Encoder
    from tumble.model.ssrvae import SSRVAE

__all__ = ["FoldedClassifier", "folded_copy", "view_angles"]


class FoldedClassifier(nn.Module):
    """Calibrated q(y | x) of a fitted model, as a network of its own that gives the same numbers up to rounding.

    It is a copy: it does not follow the model when that changes. Making one takes about as long as classifying ten
    images, so it is made anew for each call rather than kept and watched.

    Parameters
    ----------
    model : SSRVAE
        A fitted model with classes.
    angles : sequence of float, default=(0.0,)
        Probabilities are averaged over copies of the image that are turned by these angles, in radians.
    """

    offset: Tensor
    spread: Tensor
    temperature: Tensor
    grids: Tensor

    def __init__(self, model: SSRVAE, angles: Sequence[float] = (0.0,)) -> None:
        super().__init__()
        standardise = model.config.standardise
        self.register_buffer("offset", model.pixel_offset.detach().clone() if standardise else torch.tensor(0.0))
        self.register_buffer("spread", model.pixel_scale.detach().clone() if standardise else torch.tensor(1.0))
        self.register_buffer("temperature", model.log_temperature.detach().exp())
        # The grids of the views are the same for all images; the first view is the image itself.
        self.register_buffer("grids", _sampling_grids(angles[1:], model.config.size))
        assert model.classifier is not None
        self.classifier = folded_copy(model.classifier)
        self.to(model.pixel_scale.device)

    def embed(self, x: Tensor) -> Tensor:
        """Give what the classifier sees in images (batch, C, H, W), before its dense layers."""
        return self.classifier.embed((x - self.offset) / self.spread)

    def forward(self, x: Tensor, embedded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Give probabilities (batch, K) and, before the temperature, logits (batch, K) of images (batch, C, H, W).

        Where :meth:`embed` of the same images is at hand, it need not be computed again.
        """
        logits = self._logits(x) if embedded is None else self.classifier.head(embedded)
        total = self._softmax(logits)
        for grid in self.grids:
            # As `place` does it; `shape`, not `len`, so that an exported network takes batches of any size.
            positions = grid.expand(x.shape[0], *grid.shape)
            turned = F.grid_sample(x, positions, mode="bilinear", padding_mode="border", align_corners=False)
            total = total + self._softmax(self._logits(turned))
        return total / (1 + len(self.grids)), logits

    def _logits(self, x: Tensor) -> Tensor:
        return self.classifier((x - self.offset) / self.spread)

    def _softmax(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits / self.temperature, dim=1)


def folded_copy(network: Classifier | DenseClassifier | Encoder | DenseEncoder) -> Any:
    """Copy a classifier or encoder for use: normalisation folded into the convolutions, kernels turned once.

    Parameters
    ----------
    network : Module
        Fitted; not changed.

    Returns
    -------
    Module
        Gives the same numbers, up to rounding.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    trunk = getattr(copied, "trunk", None)
    if trunk is not None:
        folded = nn.Sequential(*_fold(list(trunk.layers)))
        radius = getattr(trunk, "radius", None)
        if radius is not None:
            folded[0] = _WithConstantPlane(cast("nn.Conv2d", folded[0]), radius.detach())
            trunk.radius = None
        trunk.layers = folded.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return copied


class _WithConstantPlane(nn.Module):
    """Convolution whose last input plane is the same for all images: what it adds is computed once.

    Parameters
    ----------
    conv : Conv2d
        Takes the planes of the image and the constant one.
    plane : Tensor of shape (1, 1, H, W)
        The constant plane.
    """

    added: Tensor

    def __init__(self, conv: nn.Conv2d, plane: Tensor) -> None:
        super().__init__()
        weight = conv.weight.detach()
        added = F.conv2d(plane, weight[:, -1:], stride=conv.stride, padding=conv.padding)
        self.register_buffer("added", added)
        self.conv = conv
        self.conv.weight = nn.Parameter(weight[:, :-1].contiguous(), requires_grad=False)
        self.conv.in_channels -= 1

    def forward(self, x: Tensor) -> Tensor:
        """Map images without the plane, (batch, C, H, W), to (batch, C', H', W')."""
        return self.conv(x) + self.added


def view_angles(n: int, rotation_range_rad: float, *, symmetry: str = "none") -> tuple[float, ...]:
    """Angles of `n` views: 0, and others evenly around the circle, or over the range in which objects lie.

    A classifier with a group of quarter turns (see :data:`tumble.model.equivariant.SYMMETRIES`) says the same of each
    quarter turn: its views lie within one.
    """
    shares = [view / n for view in range(1, n)]
    if rotation_range_rad < math.pi - 1e-6:
        return 0.0, *((s - 0.5) * rotation_range_rad for s in shares)
    circle = 2 * math.pi if symmetry == "none" else math.pi / 2
    return 0.0, *(circle * s for s in shares)


def _sampling_grids(angles: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Positions, as `grid_sample` wants them, that turn images of one size by each angle; (n, H, W, 2)."""
    turns = torch.tensor(list(angles), dtype=torch.float32)
    affine = canonical_affine(turns, turns.new_zeros(len(turns), 2))
    height, width = size
    affine = affine.flip(1) / torch.tensor([width / 2, height / 2])[:, None]
    positions = pixel_positions(height, width)
    return torch.einsum("nij,hwj->nhwi", affine[:, :, :2], positions) + affine[:, None, None, :, 2]


def _fold(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Give the layers with each pair of a convolution and its normalisation as one convolution."""
    i = 0
    while i < len(layers):
        layer, following = layers[i], layers[i + 1] if i + 1 < len(layers) else None
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            yield fuse_conv_bn_eval(layer, following)
            i += 2
        elif isinstance(layer, GroupConv) and isinstance(following, GroupNorm2d):
            yield fuse_conv_bn_eval(_plain_convolution(layer), _plain_norm(following))
            i += 2
        else:
            yield layer
            i += 1


def _plain_convolution(layer: GroupConv) -> nn.Conv2d:
    """Give the group convolution with its kernels turned once and for all."""
    kernel = layer.kernel().detach()
    out_channels, in_channels, side, _ = kernel.shape
    plain = nn.utils.skip_init(
        nn.Conv2d, in_channels, out_channels, side, stride=layer.stride, padding=1, bias=False, device=kernel.device
    )
    plain.weight = nn.Parameter(kernel, requires_grad=False)
    return cast("nn.Conv2d", plain.eval())


def _plain_norm(layer: GroupNorm2d) -> nn.BatchNorm2d:
    """Give the normalisation with the numbers of each feature repeated for its stack of planes."""
    norm = layer.norm
    plain = nn.BatchNorm2d(norm.num_features * layer.stack, eps=norm.eps, device=norm.weight.device).eval()
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(plain, name).data = getattr(norm, name).detach().repeat(layer.stack)
    return plain
