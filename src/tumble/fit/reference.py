"""The object whose orientation is called zero where no label says which way is up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from tumble.fit.batches import as_images
from tumble.model.coordinates import pixel_positions, place

if TYPE_CHECKING:
    from torch import Tensor

    from tumble.fit.batches import TrainingData

__all__ = ["most_typical"]

#: Images among which the object is looked for, and the share of them that counts as ordinary.
_SAMPLE, _ORDINARY = 200, 0.1
#: Side of the images that are compared, and the angles between them that are tried.
_SIDE, _ANGLES = 24, 24


@torch.inference_mode()
def most_typical(data: TrainingData, rng: np.random.Generator) -> int:
    """Choose an object that is like the others, near the centre of its image.

    Angles are relative. If every object may choose its own zero, a model keeps several, such as one for objects that
    are sheared to the left and one for those to the right, and nothing ever joins them. One object, turned and sheared
    at random, settles it: its orientation is zero. It has to be one from which all others can be reached.

    Parameters
    ----------
    data : TrainingData
        Images.
    rng : numpy.random.Generator
        Draws the images that are looked at.

    Returns
    -------
    int
        Row of the image whose object lies nearest to the centre, among the tenth that differs least from all others,
        each moved to its centre and turned to where it fits best.
    """
    rows = np.sort(rng.permutation(len(data))[:_SAMPLE])
    x = as_images(data.x[rows], torch.device("cpu")).mean(dim=1, keepdim=True)
    height, width = x.shape[-2:]
    border = torch.cat([x[:, 0, 0], x[:, 0, -1], x[:, 0, :, 0], x[:, 0, :, -1]], dim=1)
    x = x - border.median(dim=1).values[:, None, None, None]
    weight = x.abs()[:, 0]
    weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    centre = torch.einsum("nhw,hwc->nc", weight, pixel_positions(height, width))
    zoom = torch.full((len(x),), min(1.0, _SIDE / max(height, width)))
    turned = [
        place(x, torch.full((len(x),), angle), -zoom[:, None] * _turn(centre, angle), zoom, size=(_SIDE, _SIDE))
        for angle in np.arange(_ANGLES) * 2 * math.pi / _ANGLES
    ]
    likeness = torch.stack([x_turned.flatten(1) @ turned[0].flatten(1).T for x_turned in turned]).amax(dim=0)
    squares = turned[0].flatten(1).square().sum(dim=1)
    distance = (squares[:, None] + squares - 2 * likeness).clamp(min=0).sqrt().mean(dim=1)
    ordinary = distance.argsort()[: max(1, round(_ORDINARY * len(x)))]
    return int(rows[int(ordinary[centre[ordinary].norm(dim=1).argmin()])])


def _turn(position: Tensor, angle: float) -> Tensor:
    """Turn positions (n, 2) in (row, column) counter-clockwise as displayed."""
    cos, sin = math.cos(angle), math.sin(angle)
    return position @ torch.tensor([[cos, sin], [-sin, cos]], dtype=position.dtype)
