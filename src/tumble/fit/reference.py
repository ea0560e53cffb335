"""The object whose orientation is called zero where no label says which way is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tumble.fit.batches import as_images
from tumble.model.coordinates import pixel_positions

if TYPE_CHECKING:
    from tumble.fit.batches import TrainingData

__all__ = ["most_typical"]

#: Images among which the object is looked for, and the share of them that counts as typical.
_SAMPLE, _TYPICAL = 500, 0.25
_RINGS = 12


@torch.inference_mode()
def most_typical(data: TrainingData, rng: np.random.Generator) -> int:
    """Choose an ordinary object near the centre of its image.

    Angles are relative. If every object may choose its own zero, a model keeps several, such as one for objects that
    are sheared to the left and one for those to the right, and nothing ever joins them. One object, turned and sheared
    at random, settles it: its orientation is zero.

    Parameters
    ----------
    data : TrainingData
        Images.
    rng : numpy.random.Generator
        Draws the images that are looked at.

    Returns
    -------
    int
        Row of the image whose object lies nearest to the centre, among the quarter with the most ordinary radial
        profile (the brightness of rings around the object, which no rotation changes).
    """
    rows = np.sort(rng.permutation(len(data))[:_SAMPLE])
    x = as_images(data.x[rows], torch.device("cpu")).mean(dim=1)
    position = pixel_positions(*x.shape[-2:])
    edge = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], dim=1).median(dim=1).values
    weight = (x - edge[:, None, None]).abs()
    weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    centre = torch.einsum("nhw,hwc->nc", weight, position)
    radius = (position - centre[:, None, None]).norm(dim=-1)
    ring = (radius * (2 * _RINGS / max(x.shape[-2:]))).long().clamp(max=_RINGS - 1).flatten(1)
    profile = torch.zeros(len(x), _RINGS).scatter_add_(1, ring, weight.flatten(1))
    strangeness = (profile - profile.median(dim=0).values).abs().sum(dim=1)
    typical = strangeness.argsort()[: max(1, round(_TYPICAL * len(x)))]
    return int(rows[int(typical[centre[typical].norm(dim=1).argmin()])])
