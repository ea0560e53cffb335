"""Several processes that train one model: ``torchrun --nproc-per-node=2 script.py``.

A batch cannot simply be dealt out. Batch normalisation looks at all of it, and the draws of the bound follow from which
classes and modes are plausible, so that a process which saw a share alone would draw other numbers. Instead each
process draws the same batch and the same disorder and evaluates the same loss, but runs the costly functions (the
networks, the placement of images, the likelihood) on its share of the rows; the rows are then put together by a sum
over the processes. That sum is its own adjoint, so the mean of the gradients over processes, which
`DistributedDataParallel` takes, is the gradient of the loss of the whole batch. One process and several agree but for
the rounding of sums.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tumble.errors import DataError
from tumble.fit.acceleration import replace_method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tumble.model.ssrvae import SSRVAE, PoseSample

__all__ = ["Ranks", "join_processes", "share_rows"]

#: Methods of the model that give one result per row of their arguments, and are worth sharing.
ROW_WISE = ("classify", "features", "log_likelihood")
_TEXT_BYTES = 1024


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The place of this process among those that train together.

    Parameters
    ----------
    rank, world : int
        Number of this process, and how many there are.
    device : torch.device
        Where this process trains.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and calls the user's callbacks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return self.world > 1

    def from_leader(self, tensor: Tensor) -> Tensor:
        """Give the leader's value of a tensor; it may lie anywhere, and is changed in place."""
        if self.several:
            there = tensor.to(self.device, copy=True).contiguous()
            dist.broadcast(there, src=0)
            tensor.copy_(there)
        return tensor

    def int_from_leader(self, value: int) -> int:
        """Give the leader's value of a whole number."""
        return int(self.from_leader(torch.tensor(value, dtype=torch.int64)))

    def text_from_leader(self, text: str) -> str:
        """Give the leader's value of a short text."""
        raw = text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")
        got = self.from_leader(torch.tensor(list(raw), dtype=torch.uint8))
        return bytes(got.tolist()).rstrip(b"\0").decode(errors="ignore")

    def check_same(self, what: str, digest: str) -> None:
        """Raise a DataError on every process unless all have the same hexadecimal digest."""
        if not self.several:
            return
        mine = torch.tensor([int(digest[i : i + 8], 16) for i in range(0, 32, 8)], dtype=torch.int64)
        differs = torch.tensor(int(not torch.equal(mine, self.from_leader(mine.clone()))), device=self.device)
        dist.all_reduce(differs)
        if differs:
            raise DataError(f"{what}: the processes that train together were given different ones. Give all the same.")

    def gradient_mean(self, module: nn.Module) -> nn.Module:
        """Wrap a module whose output is the loss, so that its gradients are averaged over the processes."""
        if not self.several:
            return module
        # A static graph may leave weights unused, as a method that trains only part of the model does.
        return nn.parallel.DistributedDataParallel(module, static_graph=True)


def join_processes(device: torch.device) -> Ranks:
    """Join the processes that `torchrun` started, if it did.

    Parameters
    ----------
    device : torch.device
        Where to train; of several GPUs each process takes its own.

    Returns
    -------
    Ranks
    """
    world = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_available() else 1
    if world > 1 and device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        # It stays for further fits: made a second time, it could meet the addresses of the first one.
        atexit.register(_leave)
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size(), device)
    return Ranks(0, 1, device)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """Sum over processes; every process gets it. The gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return _Sum.forward(ctx, grad_outputs[0])


def _sum_over_processes(x: Tensor) -> Tensor:
    return _Sum.apply(x)  # pyright: ignore[reportReturnType]  (torch's stub gives Any | None)


@contextlib.contextmanager
def share_rows(model: SSRVAE, ranks: Ranks) -> Iterator[None]:
    """Let each process run the row-wise methods of a model on its share of the rows, until the context ends.

    Parameters
    ----------
    model : SSRVAE
        Its methods of :data:`ROW_WISE`, its `decode` and its batch normalisation are replaced on this instance.
    ranks : Ranks
        The processes; with one alone nothing is replaced.

    Yields
    ------
    None
    """
    if not ranks.several:
        yield
        return
    with contextlib.ExitStack() as stack:
        for name in ROW_WISE:
            replace_method(stack, model, name, _shared(getattr(model, name), ranks))
        replace_method(stack, model, "decode", _shared_decode(model.decode, ranks))
        for norm in model.modules():
            if isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
                replace_method(stack, norm, "forward", _shared_batch_norm(norm))
        yield


def _share(n: int, ranks: Ranks) -> slice:
    """Rows of `n` that this process computes; shares differ by one row at most."""
    return slice(n * ranks.rank // ranks.world, n * (ranks.rank + 1) // ranks.world)


def _whole(part: Tensor, rows: slice, n: int) -> Tensor:
    """Put together `n` rows, of which each process has computed its own."""
    before, after = part.new_zeros(rows.start, *part.shape[1:]), part.new_zeros(n - rows.stop, *part.shape[1:])
    return _sum_over_processes(torch.cat([before, part, after]))


def _shared(function: Callable[..., Tensor], ranks: Ranks) -> Callable[..., Tensor]:
    """Make a function of tensors that gives row by row compute its share and get the other rows from the others."""

    def run(*args: Tensor) -> Tensor:
        n = len(args[0])
        rows = _share(n, ranks)
        return _whole(function(*(a[rows] for a in args)), rows, n)

    return run


def _shared_decode(decode: Callable[..., Tensor], ranks: Ranks) -> Callable[..., Tensor]:
    """Likewise for the decoder, where several draws of the pose may share an observation's latent factors."""

    def run(z: Tensor, y: Tensor, pose: PoseSample, rows: Tensor | None = None) -> Tensor:
        n = len(pose.angle)
        mine = _share(n, ranks)
        own = dataclasses.replace(pose, angle=pose.angle[mine], shift=pose.shift[mine], scale=pose.scale[mine])
        if rows is None:
            return _whole(decode(z[mine], y[mine], own), mine, n)
        observations = rows[mine]
        first, last = (int(observations.min()), int(observations.max())) if len(observations) else (0, 0)
        near = slice(first, last + 1)
        return _whole(decode(z[near], y[near], own, observations - first), mine, n)

    return run


def _shared_batch_norm(norm: nn.BatchNorm2d | nn.BatchNorm3d) -> Callable[[Tensor], Tensor]:
    """Make the forward method of batch normalisation over the rows of all processes.

    :class:`torch.nn.SyncBatchNorm` is the same, but for GPUs only.
    """
    plain = norm.forward

    def run(x: Tensor) -> Tensor:
        if not norm.training:
            return plain(x)
        dims = (0, *range(2, x.dim()))
        along = (-1, *(1 for _ in dims[1:]))
        y = x.float()
        count = y.new_full((1,), y.numel() / y.shape[1])
        sums = _sum_over_processes(torch.cat([y.sum(dims), count]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = y - mean.reshape(along)
        variance = _sum_over_processes(centred.square().sum(dims)) / n
        _update_running(norm, mean.detach(), variance.detach() * n / (n - 1))
        factor = torch.rsqrt(variance + norm.eps) * norm.weight
        return (centred * factor.reshape(along) + norm.bias.reshape(along)).to(x.dtype)

    return run


@torch.no_grad()
def _update_running(norm: nn.BatchNorm2d | nn.BatchNorm3d, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance, momentum)
