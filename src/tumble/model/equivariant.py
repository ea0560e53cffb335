"""Convolutions that are equivariant to quarter turns, and to mirror images if wanted.

A layer has one set of weights per feature and uses it in every orientation: features come as stacks of 4 (or 8) planes,
one per element of the group, and turning the image turns each plane and permutes the stack. Averaged over the stack,
features do not depend on the orientation at all.

References
----------
.. [1] T. S. Cohen, M. Welling, "Group equivariant convolutional networks", 2016, https://arxiv.org/abs/1602.07576
       (groups p4 and p4m, sections 4 and 6).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SYMMETRIES", "GroupConv", "GroupNorm2d", "group_order"]

#: Name -> elements of the group as (quarter turns, mirrored first).
SYMMETRIES: dict[str, tuple[tuple[int, int], ...]] = {
    "none": ((0, 0),),
    "rotations": tuple((r, 0) for r in range(4)),
    "rotations+mirror": tuple((r, m) for m in range(2) for r in range(4)),
}


def group_order(symmetry: str) -> int:
    """Give the number of elements of a group of :data:`SYMMETRIES`."""
    return len(SYMMETRIES[symmetry])


def _compose(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """Element that does b, then a: mirroring turns the sense of the rotation that follows it."""
    return (a[0] + (-b[0] if a[1] else b[0])) % 4, (a[1] + b[1]) % 2


def _stack_order(symmetry: str) -> Tensor:
    """For each element g the order of the incoming stack, g^-1 h for all h; (|G|, |G|)."""
    elements = SYMMETRIES[symmetry]
    inverse = {g: next(e for e in elements if _compose(g, e) == (0, 0)) for g in elements}
    return torch.tensor([[elements.index(_compose(inverse[g], h)) for h in elements] for g in elements])


class GroupConv(nn.Module):
    """Convolution from stacks of planes to stacks of planes.

    Parameters
    ----------
    in_channels, out_channels : int
        Features; the tensors have |G| times as many channels (the first layer's input has not).
    kernel, stride : int
        In px. With an even kernel at stride 2 and an odd one at stride 1, sides that the strides divide are sampled
        symmetrically, so that quarter turns are exact.
    symmetry : str
        One of :data:`SYMMETRIES`.
    lift : bool
        Whether the input is a plain image.
    """

    order: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, *, symmetry: str, lift: bool = False
    ) -> None:
        super().__init__()
        self.elements = SYMMETRIES[symmetry]
        self.lift = lift
        stack = 1 if lift else len(self.elements)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, stack, kernel, kernel))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (in_channels * stack * kernel**2)))
        self.stride = stride
        self.register_buffer("order", _stack_order(symmetry), persistent=False)

    def kernel(self) -> Tensor:
        """Weights in every orientation, (|G| out_channels, [|G|] in_channels, kernel, kernel)."""
        turned = []
        for i, (quarter_turns, mirrored) in enumerate(self.elements):
            w = self.weight if self.lift else self.weight[:, :, self.order[i]]
            turned.append(torch.rot90(w.flip(-1) if mirrored else w, quarter_turns, (-2, -1)))
        stacked = torch.stack(turned).transpose(2, 3).flatten(2, 3).flatten(0, 1)
        return stacked.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, [|G|] in_channels, H, W) to (batch, |G| out_channels, H', W')."""
        return F.conv2d(x, self.kernel(), stride=self.stride, padding=1)


class GroupNorm2d(nn.Module):
    """Batch normalisation with one mean and width per feature, shared by its stack of planes.

    With the features of one element of the group side by side, an image whose channels come last in memory is one of
    fewer channels and |G| times as many columns, without a copy.
    """

    def __init__(self, channels: int, symmetry: str) -> None:
        super().__init__()
        self.stack = group_order(symmetry)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, |G| channels, H, W)."""
        last = x.permute(0, 2, 3, 1)
        columns = last.unflatten(3, (self.stack, -1)).flatten(2, 3)
        normal = self.norm(columns.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return normal.reshape(last.shape).permute(0, 3, 1, 2)
