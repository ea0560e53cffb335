"""Batches of labelled and unlabelled images, drawn with an explicit generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Batch", "TrainingData", "as_images", "iterate_batches", "read_numbers", "to_device"]


@dataclass(frozen=True)
class TrainingData:
    """Images with class indices, -1 for unlabelled.

    Parameters
    ----------
    x : ndarray of shape (n, C, H, W)
        Images, uint8 or float; may be a memory map, since only batches are read.
    y : ndarray of shape (n,), int64
        Class index or -1.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Batch:
    """What one step sees: labelled images with classes, and images whose labels play no part."""

    x_labelled: Tensor
    y: Tensor
    x_unlabelled: Tensor


def as_images(x: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Turn images into float32 on the device; uint8 is brought to [0, 1].

    Any kind of number may come, of any byte order, also from a memory map that is open for reading only.
    """
    kind = np.uint8 if x.dtype == np.uint8 else np.float32
    # Tensors must not lie on memory that cannot be written; anything else is copied only where it has to be.
    own = np.array(x, dtype=kind, order="C", copy=None if x.flags.writeable else True)
    tensor = to_device(torch.from_numpy(own), device)
    return tensor.float().div_(255) if kind is np.uint8 else tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to where it is needed, without waiting for a GPU to be done with what it was given before."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def read_numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Give the values of tensors of shape () and one kind in one transfer: for each the CPU would wait for a GPU.

    Examples
    --------
    >>> read_numbers({"a": torch.tensor(1.5), "b": torch.tensor(2.0)})
    {'a': 1.5, 'b': 2.0}
    """
    return dict(zip(values, torch.stack([value.detach() for value in values.values()]).tolist(), strict=True))


def iterate_batches(
    data: TrainingData,
    *,
    batch_size: int,
    labelled_batch_size: int,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[Batch]:
    """One pass over all images, in random order, each step with labelled images beside.

    Labelled images are drawn with equal share of each class, whatever the class counts: rare classes would otherwise
    hardly be seen. They are among the images of the unlabelled part too. Where no image is labelled, the labelled part
    of each batch is empty.

    Parameters
    ----------
    data : TrainingData
        The data set.
    batch_size, labelled_batch_size : int
        Images per step.
    rng : numpy.random.Generator
        Source of the draws.
    device : torch.device
        Where the batches go.

    Yields
    ------
    Batch
    """
    order = rng.permutation(len(data))
    classes = np.unique(data.y[data.y >= 0])
    members = [np.flatnonzero(data.y == k) for k in classes]
    n_steps = max(1, -(-len(data) // batch_size))
    for step in range(n_steps):
        # The last batch is filled up from the front, so that every step has the same size.
        rows = np.take(order, np.arange(step * batch_size, (step + 1) * batch_size), mode="wrap")
        picks = _labelled_rows(members, labelled_batch_size, rng)
        yield Batch(
            as_images(data.x[picks], device),
            to_device(torch.from_numpy(data.y[picks]), device),
            as_images(data.x[rows], device),
        )


def _labelled_rows(members: list[npt.NDArray[np.intp]], size: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Draw rows with equal share of each class, whose rows `members` lists."""
    if not members:
        return np.empty(0, dtype=np.intp)
    # A new order of the classes for each step: with more classes than places, all of them get their turn.
    drawn = rng.permutation(np.resize(rng.permutation(len(members)), size))
    return np.array([rng.choice(members[k]) for k in drawn])
