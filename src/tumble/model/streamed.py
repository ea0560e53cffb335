"""The likelihood of the coordinate decoder, and its gradient, in one pass that stays in the cache.

The decoder runs a network at every pixel of every image for every class: a million evaluations per step. Written layer
by layer, each layer's output is a tensor of half a gigabyte that is written, read back and kept for the gradient. But
the objective needs one number alone, ``sum_r w_r log p(x_r)``, whose weights ``w_r`` (1, or q(y | x)) are known
beforehand. So the gradient can be formed along with the value, a few thousand pixels at a time, and nothing is kept.

Within a block of pixels the network is

    s1 = sigmoid(first . (row, column, 1));  s2 = sigmoid(A2 . (s1, 1));  s3 = sigmoid(A3 . (s2, 1));  A_out . (s3, 1)

which are the published tanh layers, since ``tanh(a) = 2 sigmoid(2 a) - 1``: the factors join the weights, and the
vectorised sigmoid costs a sixth of the tanh. Activations are columns, pixels run along rows.

The layers behind the first may work in bfloat16, which processors with matrix units (AMX) multiply ten times as fast.
Positions, pixels and the sums of gradients over blocks and draws stay in float32.
"""

from __future__ import annotations

import contextlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["PixelDensity", "streamed_log_likelihood"]

#: Pixels per block of the parameters' type, of a narrower one as many more. On a CPU the four buffers of a block must
#: fit into the cache beside the weights; on a GPU a block must fill the device.
_BLOCK = {"cpu": 1152}
_BLOCK_ELSEWHERE = 2**19
#: On a CPU threads take shares of the draws as they get done, so that one on a busy core holds up the others little.
_SHARES_PER_THREAD = 4
#: Where one long product is best left to the library as it is, see :func:`_product_by_draw`.
_UNCUT = ("cpu",)
_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class PixelDensity:
    """Log density of a pixel given what the decoder puts out there, before the output non-linearity.

    Parameters
    ----------
    likelihood : {"bernoulli", "continuous_bernoulli", "gaussian"}
        Family. The sigmoid of the output is its mean (of the continuous Bernoulli, its parameter).
    sigma : float
        Width of the Normal.
    """

    likelihood: str
    sigma: float = 1.0

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Log density, elementwise."""
        if self.likelihood == "gaussian":
            return -0.5 * ((x - torch.sigmoid(raw)) / self.sigma) ** 2 - math.log(self.sigma) - 0.5 * _LOG_2PI
        log_p = x * raw - F.softplus(raw)
        return log_p + _log_normaliser(raw) if self.likelihood == "continuous_bernoulli" else log_p

    def slope(self, raw: Tensor, x: Tensor) -> Tensor:
        """Differentiate the log density in `raw`, elementwise."""
        mean = torch.sigmoid(raw)
        if self.likelihood == "gaussian":
            return (x - mean) / self.sigma**2 * mean * (1 - mean)
        slope = x - mean
        return slope + _log_normaliser_slope(raw) if self.likelihood == "continuous_bernoulli" else slope


def _log_normaliser(raw: Tensor) -> Tensor:
    """``log(raw / tanh(raw / 2))``, the log normaliser of the continuous Bernoulli with logit `raw`."""
    small = raw.abs() < 0.1
    away = torch.where(small, torch.ones_like(raw), raw)
    series = math.log(2.0) + raw**2 / 12 - 7 * raw**4 / 1440
    return torch.where(small, series, torch.log(away / torch.tanh(away / 2)))


def _log_normaliser_slope(raw: Tensor) -> Tensor:
    """``1 / raw - 1 / sinh(raw)``."""
    small = raw.abs() < 0.1
    away = torch.where(small, torch.ones_like(raw), raw)
    return torch.where(small, raw / 6 - 7 * raw**3 / 360, 1 / away - 1 / torch.sinh(away))


@dataclass(frozen=True)
class _Task:
    """What does not change from block to block.

    Parameters
    ----------
    first : Tensor of shape (n_draws, hidden, 3)
        First layer of each draw, acting on (row, column, 1).
    layers : (Tensor, Tensor, Tensor)
        A2, A3 (hidden, hidden + 1) and A_out (C, hidden + 1).
    weights : Tensor of shape (n_draws,)
        Of the sum.
    x : Tensor of shape (batch, C, P)
        Observed pixels.
    rows : Tensor of shape (n_draws,)
        The image of each draw.
    positions : Tensor of shape (1 or batch, 3, P)
        (row, column, 1) of the pixels, the same for all images or of each.
    density : PixelDensity
        Of a pixel.
    with_gradient : bool
        Whether to form the gradient.
    dtype : torch.dtype
        Of the activations.
    """

    first: Tensor
    layers: tuple[Tensor, Tensor, Tensor]
    weights: Tensor
    x: Tensor
    rows: Tensor
    positions: Tensor
    density: PixelDensity
    with_gradient: bool
    dtype: torch.dtype


@dataclass(frozen=True)
class _Result:
    """Log likelihoods (n_draws,) and, where asked for, the gradient of their weighted sum."""

    log_px: Tensor
    first: Tensor
    layers: tuple[Tensor, Tensor, Tensor]


def streamed_log_likelihood(
    first: Tensor,
    layers: tuple[Tensor, Tensor, Tensor],
    weights: Tensor,
    x: Tensor,
    rows: Tensor,
    positions: Tensor,
    density: PixelDensity,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Give ``sum_r weights_r log p(x[rows_r] | draw r)`` with its gradient, and the log likelihoods without one.

    Parameters
    ----------
    first : Tensor of shape (n_draws, hidden, 3)
        First layer of each draw, acting on (row, column, 1): weights on the position, its affine map, and the latent
        factors, all in one.
    layers : tuple of Tensor
        A2, A3 of shape (hidden, hidden + 1) and A_out of shape (C, hidden + 1), see the head of this file.
    weights : Tensor of shape (n_draws,)
        Of the sum.
    x : Tensor of shape (batch, C, P)
        Observed pixels.
    rows : Tensor of shape (n_draws,)
        The image of each draw.
    positions : Tensor of shape (1 or batch, 3, P)
        (row, column, 1) of the pixels, the same for all images or of each.
    density : PixelDensity
        Of a pixel.
    dtype : torch.dtype, optional
        Of the activations behind the first layer, and of the weights that they meet; that of `first` if not given.

    Returns
    -------
    total : Tensor of shape ()
        Differentiable once in `first`, `layers` and `weights`.
    log_px : Tensor of shape (n_draws,)
        No gradient flows through them.
    """
    total, log_px = _Streamed.apply(first, *layers, weights, x, rows, positions, density, dtype or first.dtype)  # type: ignore[misc]
    return total, log_px


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        third: Tensor,
        out: Tensor,
        weights: Tensor,
        x: Tensor,
        rows: Tensor,
        positions: Tensor,
        density: PixelDensity,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad)
        result = _run(_Task(first, (second, third, out), weights, x, rows, positions, density, wanted, dtype))
        ctx.save_for_backward(result.first, *result.layers, result.log_px)
        ctx.mark_non_differentiable(result.log_px)
        return (weights * result.log_px).sum(), result.log_px

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:  # type: ignore[override]
        return *(saved * grad_outputs[0] for saved in ctx.saved_tensors), None, None, None, None, None


def _run(task: _Task) -> _Result:
    """Go over all draws; on a CPU, over a share of them in each of torch's threads."""
    n, n_threads = len(task.rows), torch.get_num_threads()
    if task.x.device.type != "cpu" or n_threads == 1 or n < n_threads:
        return _stream(task, slice(0, n))
    # Blocks are so small that threads which meet after every one of ten thousand operations mostly wait for each
    # other, a hundredfold where another process holds one of the cores. Here each goes its own way, on one thread;
    # shares are small enough that none waits for long, and are summed in order, whoever comes first.
    n_shares = min(n, _SHARES_PER_THREAD * n_threads)
    shares = [slice(n * i // n_shares, n * (i + 1) // n_shares) for i in range(n_shares)]
    cores = iter(_cores(n_threads))

    def begin() -> None:
        torch.set_num_threads(1)
        core = next(cores, None)
        if core is not None:
            os.sched_setaffinity(0, {core})  # of this thread, which ends with the call

    try:
        with ThreadPoolExecutor(n_threads, initializer=begin) as pool:
            parts = list(pool.map(lambda share: _stream(task, share), shares))
    finally:
        torch.set_num_threads(n_threads)  # the setting is each thread's own, but new threads copy the latest
    second, third, out = (torch.stack(layer).sum(0) for layer in zip(*(part.layers for part in parts), strict=True))
    log_px, first = torch.cat([part.log_px for part in parts]), torch.cat([part.first for part in parts])
    return _Result(log_px, first, (second, third, out))


def _cores(n_threads: int) -> list[int]:
    """Give a core for each thread, where the process has as many; none where a choice would have to be made.

    New threads begin on the core of their parent, and some schedulers (in containers and virtual machines above all)
    leave them there, two on one core beside an idle one. Where OpenMP has bound this very thread to a core, its other
    threads tell which the process has.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it may have ended
            cores |= os.sched_getaffinity(int(thread))
    return sorted(cores) if len(cores) == n_threads else []


@torch.no_grad()
def _stream(task: _Task, draws: slice) -> _Result:
    """Go over some of the draws, block by block."""
    first, rows, weights = task.first[draws], task.rows[draws], task.weights[draws]
    n_draws, n_pixels = len(rows), task.x.shape[-1]
    budget = _BLOCK.get(task.x.device.type, _BLOCK_ELSEWHERE) * first.itemsize // task.dtype.itemsize
    per_block = max(1, min(n_draws, budget // n_pixels))  # draws
    n_parts = max(1, math.ceil(n_pixels / budget))  # of the pixels of one draw
    width = math.ceil(n_pixels / n_parts)
    buffers = _Buffers(task, per_block * width)
    log_px = weights.new_zeros(n_draws)
    d_first = torch.zeros_like(first)
    for start in range(0, n_draws, per_block):
        block = slice(start, start + per_block)
        images = rows[block]
        x_block, grid_block = _of_images(task.x, images), _of_images(task.positions, images)
        for left in range(0, n_pixels, width):
            x, grid = (t[..., left : left + width] for t in (x_block, grid_block))
            log_px[block] += buffers.forward(first[block], grid, x.transpose(0, 1))
            if task.with_gradient:
                d_first[block] += buffers.backward(grid, weights[block])
    return _Result(log_px, d_first, buffers.gradients)


def _of_images(values: Tensor, images: Tensor) -> Tensor:
    """Rows of `values` that belong to some images, without a copy where one row serves."""
    if len(values) == 1:
        return values
    if len(images) == 1:
        return values.narrow(0, int(images), 1)
    return values[images]


class _Buffers:
    """Activations of one block of pixels, and the sums of the gradients of the layers.

    A last row of ones takes the biases into the products. Their gradients are sums over rows: as one more column of
    the products they would cost 10 % of these in float32, and in bfloat16 nothing.
    """

    def __init__(self, task: _Task, n_columns: int) -> None:
        self.second, self.third, self.out = (layer.to(task.dtype) for layer in task.layers)
        self.density = task.density
        hidden, like = len(self.second), self.second
        self.hidden = hidden
        self.whole = [like.new_ones(hidden + 1, n_columns) for _ in range(3)]
        self.spare = like.new_empty(hidden, n_columns)
        second, third, out = task.layers
        self.gradients = (torch.zeros_like(second), torch.zeros_like(third), torch.zeros_like(out))
        self._use(n_columns)

    def _use(self, n_columns: int) -> None:
        """Work on the first columns of the buffers: with the row of ones (s) and without (h)."""
        self.s1, self.s2, self.s3 = self.s = [t[:, :n_columns] for t in self.whole]
        self.h1, self.h2, self.h3 = (t[: self.hidden] for t in self.s)
        self.up = self.spare[:, :n_columns]

    def forward(self, first: Tensor, grid: Tensor, x: Tensor) -> Tensor:
        """Log likelihoods (n,) of n draws with first layers (n, hidden, 3), of pixels x (C, n, P)."""
        _, n, p = x.shape
        if n * p != self.up.shape[1]:
            self._use(n * p)
        h1, h2, h3 = self.h1, self.h2, self.h3
        if n == 1 and h1.dtype == first.dtype:
            torch.mm(first[0], grid[0], out=h1)
        else:
            h1.unflatten(1, (n, p)).copy_((first @ grid).transpose(0, 1))
        torch.sigmoid(h1, out=h1)
        torch.sigmoid(torch.mm(self.second, self.s1, out=h2), out=h2)
        torch.sigmoid(torch.mm(self.third, self.s2, out=h3), out=h3)
        self.x = x
        self.raw = (self.out @ self.s3).to(x.dtype).reshape(x.shape)
        return self.density.log_prob(self.raw, x).sum(dim=(0, 2))

    def backward(self, grid: Tensor, weights: Tensor) -> Tensor:
        """Add to the gradients of the layers; give those of the first ones, (n, hidden, 3). Overwrites h3."""
        _, n, p = self.x.shape
        slope = self.density.slope(self.raw, self.x).mul_(weights[:, None]).reshape(len(self.x), n * p)
        slope = slope.to(self.up.dtype)
        h1, h2, down, up = self.h1, self.h2, self.h3, self.up
        self._add(2, slope, self.s3)
        torch.mm(self._linear(self.out), slope, out=up)
        _through_sigmoid(up, down, out=up)
        self._add(1, up, self.s2)
        torch.mm(self._linear(self.third), up, out=down)
        _through_sigmoid(down, h2, out=up)
        self._add(0, up, self.s1)
        torch.mm(self._linear(self.second), up, out=down)
        _through_sigmoid(down, h1, out=up)
        grid = grid.to(up.dtype)  # exact up to 257 px; beyond, rounding places a pixel's gradient by half a pixel
        if n == 1:
            return (grid[0] @ up.T).T[None]  # in this order it costs less
        return up.unflatten(1, (n, p)).transpose(0, 1) @ grid.transpose(1, 2)

    def _add(self, layer: int, after: Tensor, before: Tensor) -> None:
        """Add to the gradient of a layer, from the gradient after it and the activations before it, ones included."""
        gradient, n_draws = self.gradients[layer], self.x.shape[1]
        whole = after.device.type in _UNCUT or n_draws == 1
        if whole and after.dtype != gradient.dtype:
            gradient += after @ before.T
            return
        weights, before = gradient[:, : self.hidden], before[: self.hidden]
        if whole:
            weights.addmm_(after, before.T)
        else:
            weights += _product_by_draw(after, before, n_draws, gradient.dtype)
        gradient[:, self.hidden] += after.sum(dim=1, dtype=gradient.dtype)

    def _linear(self, layer: Tensor) -> Tensor:
        """Transpose of a layer, less its biases."""
        return layer[:, : self.hidden].T


def _product_by_draw(after: Tensor, before: Tensor, n_draws: int, total: torch.dtype) -> Tensor:
    """``after @ before.T`` with the long sum over the columns cut into one piece per draw.

    The result is a small matrix, a tile or two, which left to itself would keep a few of a GPU's processors busy.
    """
    left, right = (t.unflatten(1, (n_draws, -1)).transpose(0, 1) for t in (after, before))
    return (left @ right.transpose(1, 2)).sum(dim=0, dtype=total)


def _through_sigmoid(gradient: Tensor, value: Tensor, *, out: Tensor) -> None:
    """``gradient * value * (1 - value)`` in one go."""
    torch.ops.aten.sigmoid_backward.grad_input(gradient, value, grad_input=out)
