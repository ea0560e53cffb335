"""Where pixels are, and how objects are placed: the one file that defines the geometry of `tumble`.

Positions are (row, column) in pixels from the centre of the image, row 0 on top. Angles are radians,
counter-clockwise as displayed. An observed image shows a canonical object that was first magnified by
``scale``, then rotated by ``angle``, then moved by ``shift``; so the observed position ``p`` shows the canonical
position ``R(-angle) (p - shift) / scale``. This is the grid transformation of the paper (its Fig. 1), where the
decoder is evaluated at the rotated and shifted pixel grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Placement",
    "canonical_affine",
    "pixel_positions",
    "place",
    "wrap_angle",
]


def wrap_angle(angle: Tensor) -> Tensor:
    """Bring angles into [-pi, pi).

    Parameters
    ----------
    angle : Tensor of any shape
        Angles in radians.

    Returns
    -------
    Tensor
        The same directions in [-pi, pi).

    Examples
    --------
    >>> [round(v, 3) for v in wrap_angle(torch.tensor([0.0, 4.0])).tolist()]
    [0.0, -2.283]
    """
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def pixel_positions(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Positions of the pixel centres relative to the centre of the image.

    Parameters
    ----------
    height, width : int
        Size of the image in px.
    device : torch.device, optional
        Where the result lives.

    Returns
    -------
    Tensor of shape (height, width, 2)
        (row, column) of each pixel centre in px.
    """
    rows = torch.arange(height, dtype=torch.float32, device=device) - (height - 1) / 2
    cols = torch.arange(width, dtype=torch.float32, device=device) - (width - 1) / 2
    return torch.stack(torch.meshgrid(rows, cols, indexing="ij"), dim=-1)


def canonical_affine(angle: Tensor, shift: Tensor, scale: Tensor | None = None, shear: Tensor | None = None) -> Tensor:
    """Give the map from observed to canonical positions, ``S^-1 R(-angle) (p - shift) / scale``, as matrices.

    Parameters
    ----------
    angle : Tensor of shape (batch,)
        Rotation of the object in radians.
    shift : Tensor of shape (batch, 2)
        Displacement of the object in px.
    scale : Tensor of shape (batch,), optional
        Magnification of the object.
    shear : Tensor of shape (batch, 2), optional
        Tangents (a, b) of the shear ``S = [[1, a], [b, 1]]`` of the canonical object.

    Returns
    -------
    Tensor of shape (batch, 2, 3)
        Matrices that act on (row, column, 1).
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    # R(-angle) in (row, column) components, where R takes "right" to "up" at 90 degrees.
    linear = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))
    if shear is not None:
        a, b = shear.unbind(dim=-1)
        one = torch.ones_like(a)
        inverse = torch.stack([one, -a, -b, one], dim=-1).unflatten(-1, (2, 2)) / (1 - a * b)[:, None, None]
        linear = inverse @ linear
    if scale is not None:
        linear = linear / scale[:, None, None]
    return torch.cat([linear, -linear @ shift.unsqueeze(-1)], dim=-1)


def _apply_affine(positions: Tensor, affine: Tensor) -> Tensor:
    """Apply (batch, 2, 3) matrices to (H, W, 2) positions; (batch, H, W, 2)."""
    height, width = positions.shape[:2]
    flat = torch.cat([positions, torch.ones_like(positions[..., :1])], dim=-1).reshape(-1, 3)
    # All matrices stacked into one tall product: several times faster on a CPU than a batch of small ones.
    moved = affine.reshape(-1, 3) @ flat.T
    return moved.reshape(len(affine), 2, height, width).permute(0, 2, 3, 1)


def place(
    images: Tensor,
    angle: Tensor,
    shift: Tensor,
    scale: Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
    shear: Tensor | None = None,
    padding: str = "border",
) -> Tensor:
    """Show canonical images at a pose, by bilinear resampling.

    Parameters
    ----------
    images : Tensor of shape (batch, C, H, W)
        Canonical images, centred.
    angle : Tensor of shape (batch,)
        Rotation in radians, counter-clockwise as displayed.
    shift : Tensor of shape (batch, 2)
        Displacement (rows, columns) in px.
    scale : Tensor of shape (batch,), optional
        Magnification.
    size : (int, int), optional
        Height and width of the result in px; that of `images` by default.
    shear : Tensor of shape (batch, 2), optional
        Tangents of the shear of the canonical object (rows by columns, columns by rows), applied before all else.
    padding : {"border", "zeros", "reflection"}, default="border"
        What lies beyond the canonical image.

    Returns
    -------
    Tensor of shape (batch, C, *size)
        The placed images; differentiable in every tensor argument.

    Notes
    -----
    At multiples of 90 degrees and whole-pixel shifts of square images the result is exact up to rounding; in between,
    bilinear resampling smooths detail finer than about two pixels.
    """
    height, width = images.shape[-2:]
    out_height, out_width = size or (height, width)
    grid = pixel_positions(out_height, out_width, device=images.device).to(images.dtype)
    affine = canonical_affine(angle, shift, scale, shear)
    # grid_sample wants (x, y) with the image spanning [-1, 1] from edge to edge.
    half = torch.tensor([width / 2, height / 2], dtype=images.dtype, device=images.device)
    positions = _apply_affine(grid, affine.flip(1) / half[:, None])
    return F.grid_sample(images, positions, mode="bilinear", padding_mode=padding, align_corners=False)


@dataclass(frozen=True)
class Placement:
    """What was done to an image, ``p -> A p + move``, in terms of what it does to the pose of the object in it.

    Parameters
    ----------
    linear : Tensor of shape (batch, 2, 2)
        The matrix A, acting on (row, column).
    move : Tensor of shape (batch, 2)
        Displacement in px.
    """

    linear: Tensor
    move: Tensor

    @classmethod
    def of(cls, turn: Tensor, move: Tensor, zoom: Tensor, shear: Tensor | None = None) -> Placement:
        """Describe what :func:`place` does with these arguments: shear, then magnify, turn and move."""
        cos, sin = torch.cos(turn), torch.sin(turn)
        linear = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2)) * zoom[:, None, None]
        if shear is not None:
            a, b = shear.unbind(dim=-1)
            one = torch.ones_like(a)
            linear = linear @ torch.stack([one, a, b, one], dim=-1).unflatten(-1, (2, 2))
        return cls(linear, move)

    @property
    def angle(self) -> Tensor:
        """Rotation in the polar decomposition of A, (batch,), in radians: shear turns an object a little too."""
        return torch.atan2(self.linear[:, 1, 0] - self.linear[:, 0, 1], self.linear[:, 0, 0] + self.linear[:, 1, 1])

    @property
    def scale(self) -> Tensor:
        """Magnification of lengths, the square root of that of areas; (batch,)."""
        return torch.linalg.det(self.linear).abs().sqrt()

    def rows(self, n: int) -> Placement:
        """Return the first `n` rows."""
        return Placement(self.linear[:n], self.move[:n])

    def compose(self, angle: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pose of an object after its image was placed.

        Parameters
        ----------
        angle, scale : Tensor of shape (batch,)
            Pose of the object in the image before.
        shift : Tensor of shape (batch, 2)
            Likewise, in px.

        Returns
        -------
        angle, shift, scale : Tensor
            Pose of the object in the image after.
        """
        moved = (self.linear @ shift.unsqueeze(-1)).squeeze(-1) + self.move
        return wrap_angle(angle + self.angle), moved, scale * self.scale
