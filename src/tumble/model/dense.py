"""The published networks: fully connected, tanh, and a decoder that is evaluated at each pixel of the placed grid.

References
----------
.. [1] M. A. Ziatdinov et al., Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b (Fig. 1 and methods).
.. [2] T. Bepler et al., "Explicitly disentangling image content from translation and rotation with spatial-VAE", 2019,
       https://arxiv.org/abs/1909.11663 (the coordinate network).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tumble.model.coordinates import pixel_positions
from tumble.model.streamed import PixelDensity, streamed_log_likelihood

__all__ = ["CoordinateDecoder", "DenseClassifier", "DenseDecoder", "DenseEncoder"]


class DenseClassifier(nn.Module):
    """q(y | x): two hidden tanh layers on the flattened pixels.

    Parameters
    ----------
    n_inputs : int
        Pixels times channels.
    n_classes : int
        Number of classes K.
    hidden : int
        Units of each of the two layers.
    """

    def __init__(self, n_inputs: int, n_classes: int, *, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.head = nn.Linear(hidden, n_classes)
        self.n_embedded = hidden

    def embed(self, x: Tensor) -> Tensor:
        """Last hidden layer, (batch, hidden)."""
        return self.layers(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, C, H, W) to logits (batch, K)."""
        return self.head(self.embed(x))


class DenseEncoder(nn.Module):
    """q(z, pose | x, y): two hidden tanh layers on the flattened pixels and the class.

    The product of the first layer with the pixels does not depend on the class; it is computed once
    (:meth:`features`) however many classes are visited.

    Parameters
    ----------
    n_inputs : int
        Pixels times channels.
    n_classes : int
        Number of classes K (0: the class plays no part).
    n_outputs : int
        Numbers per observation that parametrise the posterior.
    hidden : int
        Units of each of the two layers.
    """

    def __init__(self, n_inputs: int, n_classes: int, n_outputs: int, *, hidden: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.pixels = nn.Linear(n_inputs, hidden)
        self.classes = nn.Linear(n_classes, hidden, bias=False) if n_classes else None
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, n_outputs)

    def features(self, x: Tensor) -> Tensor:
        """Compute the part that does not depend on the class; (batch, C, H, W) to (batch, hidden)."""
        return self.pixels(x.flatten(1))

    def forward(self, features: Tensor, y: Tensor) -> Tensor:
        """Parameters of the posterior, (batch, n_outputs), from features and class indices (batch,)."""
        if self.classes is not None:
            features = features + self.classes.weight.T[y]
        return self.head(torch.tanh(self.second(torch.tanh(features))))


class CoordinateDecoder(nn.Module):
    """p(x | y, z, pose): a network from (canonical position, z, y) to the intensity there.

    Parameters
    ----------
    out_channels : int
        Channels of the image.
    side : int
        Longer side of the image in px; positions are divided by (side - 1) / 2, so that the longer side spans [-1, 1].
    latent_dim : int
        Dimension of z.
    n_classes : int
        Number of classes K (0: the class plays no part).
    hidden : int
        Units of each of the three layers.
    """

    def __init__(self, out_channels: int, side: int, latent_dim: int, n_classes: int, *, hidden: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.half_side_px = (side - 1) / 2
        self.position = nn.Linear(2, hidden)
        self.latent = nn.Linear(latent_dim + n_classes, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, out_channels)

    def forward(self, z: Tensor, y: Tensor, affine: Tensor, size: tuple[int, int]) -> Tensor:
        """Images (batch, C, *size), before the output non-linearity.

        Parameters
        ----------
        z : Tensor of shape (batch, latent_dim)
            Latent factors.
        y : Tensor of shape (batch,)
            Class indices.
        affine : Tensor of shape (batch, 2, 3)
            From observed to canonical (row, column) positions in px, see
            :func:`tumble.model.coordinates.canonical_affine`.
        size : (int, int)
            Height and width in px.
        """
        grid = self._grid(affine, size)
        h = torch.tanh((self._first(z, y, affine) @ grid).transpose(1, 2))
        h = torch.tanh(self.second(h))
        h = torch.tanh(self.third(h))
        return self.head(h).transpose(1, 2).unflatten(2, size)

    def weighted_log_likelihood(
        self,
        z: Tensor,
        y: Tensor,
        affine: Tensor,
        x: Tensor,
        *,
        rows: Tensor,
        weights: Tensor,
        density: PixelDensity,
        subset: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``sum_r weights_r log p(x[rows_r] | z_r, y_r, affine_r)``, much faster than by :meth:`forward`.

        Parameters
        ----------
        z : Tensor of shape (n_draws, latent_dim)
            Latent factors.
        y : Tensor of shape (n_draws,)
            Class indices.
        affine : Tensor of shape (n_draws, 2, 3)
            As in :meth:`forward`.
        x : Tensor of shape (batch, C, H, W)
            Images.
        rows : Tensor of shape (n_draws,)
            The image of each draw.
        weights : Tensor of shape (n_draws,)
            Of the sum.
        density : PixelDensity
            Of a pixel.
        subset : Tensor of shape (batch, m), optional
            Indices of the pixels of each image, row by row, that stand for all: their sum is multiplied by H W / m,
            which has the right expectation where they were drawn at random.
        dtype : torch.dtype, optional
            Of what follows the first layer: activations, and the copies of the weights that they meet. That of the
            parameters if not given.

        Returns
        -------
        total : Tensor of shape ()
            Differentiable once in z, affine, weights and the parameters.
        log_px : Tensor of shape (n_draws,)
            The log likelihoods; no gradient flows through them.
        """
        n_pixels, share = x.shape[2] * x.shape[3], 1.0
        pixels, grid = x.flatten(2), self._grid(affine, (x.shape[2], x.shape[3])).unsqueeze(0)
        if subset is not None:
            share = subset.shape[1] / n_pixels
            pixels = pixels.gather(2, subset[:, None].expand(-1, x.shape[1], -1))
            grid = grid[0].T[subset].transpose(1, 2).contiguous()
        # tanh(a) = 2 sigmoid(2 a) - 1: factors of 2 join the weights on both sides of a layer.
        first = 2 * self._first(z, y, affine)
        layers = (_folded(self.second, 2.0), _folded(self.third, 2.0), _folded(self.head, 1.0))
        total, log_px = streamed_log_likelihood(first, layers, weights, pixels, rows, grid, density, dtype)
        return total / share, log_px / share

    def _first(self, z: Tensor, y: Tensor, affine: Tensor) -> Tensor:
        """First layer of each draw as a matrix (n_draws, hidden, 3) that acts on (row, column, 1).

        It is linear in the position, so that it joins the affine map: no grid is copied or moved.
        """
        if self.n_classes:
            z = torch.cat([z, F.one_hot(y, self.n_classes).to(z.dtype)], dim=1)
        # The published grid: -1 to 1 along rows, 1 to -1 along columns.
        axes = torch.tensor([1.0, -1.0], device=z.device, dtype=z.dtype) / self.half_side_px
        first = self.position.weight @ (affine * axes[:, None])
        constant = first[..., 2] + self.position.bias + self.latent(z)
        return torch.cat([first[..., :2], constant[..., None]], dim=-1)

    @staticmethod
    def _grid(like: Tensor, size: tuple[int, int]) -> Tensor:
        """(row, column, 1) of all pixels, (3, H W)."""
        grid = pixel_positions(*size, device=like.device).to(like.dtype).reshape(-1, 2).T
        return torch.cat([grid, torch.ones_like(grid[:1])])


def _folded(layer: nn.Linear, gain: float) -> Tensor:
    """Matrix (out, in + 1) that takes (s, 1) to `gain` times what `layer` makes of ``2 s - 1``."""
    constant = layer.bias - layer.weight.sum(dim=1)
    return gain * torch.cat([2 * layer.weight, constant[:, None]], dim=1)


class DenseDecoder(nn.Module):
    """p(x | y, z) without a pose: two hidden tanh layers from (z, y) to all pixels at once.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width.
    latent_dim : int
        Dimension of z.
    n_classes : int
        Number of classes K (0: the class plays no part).
    hidden : int
        Units of each of the two layers.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, n_classes: int, *, hidden: int) -> None:
        super().__init__()
        self.image_shape, self.n_classes = image_shape, n_classes
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + n_classes, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.head = nn.Linear(hidden, math.prod(image_shape))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images (batch, C, H, W), before the output non-linearity, from z (batch, latent_dim) and y (batch,)."""
        if self.n_classes:
            z = torch.cat([z, F.one_hot(y, self.n_classes).to(z.dtype)], dim=1)
        return self.head(self.layers(z)).unflatten(1, self.image_shape)
