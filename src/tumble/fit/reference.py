"""The objects whose orientation is called zero where no label says which way is up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from tumble.fit.batches import as_images
from tumble.model.coordinates import pixel_positions, place

if TYPE_CHECKING:
    from torch import Tensor

    from tumble.fit.batches import TrainingData

__all__ = ["of_one_orientation"]

#: Images among which the first object is looked for, and the share of them that counts as ordinary.
_SAMPLE, _ORDINARY = 200, 0.1
#: Images that are compared with each other, and how many are looked at in all, the others being compared with those.
_JOINED, _LOOKED_AT = 800, 4000
#: Share that is taken of the objects at that angle: those nearest to the centre of their image.
_CENTRAL = 0.2
#: Side of the images that are compared, and the angles between them that are tried.
_SIDE, _ANGLES = 24, 24
#: Images that are held at full size, or compared, at once.
_CHUNK = 200


@torch.inference_mode()
def of_one_orientation(data: TrainingData, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Choose objects that lie at one angle, near the centre of their images.

    Angles are relative. If every object may choose its own zero, a model keeps several, such as one for objects that
    are sheared to the left and one for those to the right, and nothing ever joins them. Objects of known orientation,
    turned and sheared at random, settle it. One object is not enough where there are several kinds: from hearts alone
    nobody knows which way up clubs are, and a model may keep clubs at four angles.

    The angle between two objects is safe to tell where they look alike. So the first object is an ordinary one, the
    angles of others follow from it along the tree that joins all of them by the least differences (a minimum spanning
    tree), and those of further objects from the one that is most alike. Between unlike objects, such as hearts and
    clubs, the tree has few branches, so that whatever angle these give is the same for all objects of a kind.

    Parameters
    ----------
    data : TrainingData
        Images.
    rng : numpy.random.Generator
        Draws the images that are looked at.

    Returns
    -------
    ndarray of shape (n,)
        Rows. The first is that of the object that is nearest to the centre among the tenth that differs least from all
        others, each moved to its centre and turned to where it fits best. Then those, in ascending order, that were
        found to lie as it does, to half of 15 degrees; of these the fifth nearest to the centre.
    """
    rows = rng.permutation(len(data))[:_LOOKED_AT]
    joined = rows[:_JOINED]
    copies, centres = _copies(data, joined, _ANGLES)
    distance, turns = _compare(copies, copies[0])
    sample = distance[:_SAMPLE, :_SAMPLE].mean(dim=1)
    ordinary = sample.argsort()[: max(1, round(_ORDINARY * len(sample)))]
    zero = int(ordinary[centres[ordinary].norm(dim=1).argmin()])
    angles = _along_tree(distance.numpy(), turns.numpy(), zero)
    for start in range(len(joined), len(rows), _CHUNK):
        further, where = _copies(data, rows[start : start + _CHUNK], 1)
        distance, turns = _compare(copies, further[0])
        nearest = distance.argmin(dim=0).numpy()
        angles = np.append(angles, (angles[nearest] + turns.numpy()[nearest, np.arange(len(nearest))]) % _ANGLES)
        centres = torch.cat([centres, where])
    alike = np.flatnonzero(angles == 0)
    by_centre = alike[np.argsort(centres.norm(dim=1).numpy()[alike], kind="stable")]
    central = by_centre[: max(1, round(_CENTRAL * len(alike)))]
    return np.append(rows[zero], np.sort(rows[np.setdiff1d(central, [zero])]))


def _along_tree(distance: npt.NDArray[np.float32], turns: npt.NDArray[np.int64], root: int) -> npt.NDArray[np.int64]:
    """Angles (n,), in steps, of objects whose differences (n, n) and angles between them (n, n) are given."""
    # scipy takes 0 for no edge; equal objects are joined all the same.
    tree = minimum_spanning_tree(np.triu(np.maximum(distance, 1e-6), k=1))
    order, before = breadth_first_order(csr_array(tree + tree.T), root, directed=False)
    angles = np.zeros(len(distance), dtype=np.int64)
    for i in order[1:]:
        angles[i] = (angles[before[i]] + turns[before[i], i]) % _ANGLES
    return angles


def _compare(copies: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Differences (m, n) of objects from others, each turned to where it fits best, and by how many steps (m, n).

    `copies` (angles, m, pixels) are of the objects at all angles, `others` (n, pixels) are as they are.
    """
    likeness, turns = torch.stack([turned @ others.T for turned in copies]).max(dim=0)
    squares = copies[0].square().sum(dim=1)[:, None] + others.square().sum(dim=1)
    return (squares - 2 * likeness).clamp(min=0).sqrt(), turns


def _copies(data: TrainingData, rows: npt.NDArray[np.intp], n_angles: int) -> tuple[Tensor, Tensor]:
    """Small copies (n_angles, n, pixels) of objects, moved to their centre and turned, and the centres (n, 2).

    The first are not turned, the others by one, two and more of `_ANGLES` steps.
    """
    turned, centres = [], []
    for start in range(0, len(rows), _CHUNK):
        x = as_images(data.x[rows[start : start + _CHUNK]], torch.device("cpu")).mean(dim=1, keepdim=True)
        height, width = x.shape[-2:]
        border = torch.cat([x[:, 0, 0], x[:, 0, -1], x[:, 0, :, 0], x[:, 0, :, -1]], dim=1)
        x = x - border.median(dim=1).values[:, None, None, None]
        weight = x.abs()[:, 0]
        weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        centre = torch.einsum("nhw,hwc->nc", weight, pixel_positions(height, width))
        zoom = torch.full((len(x),), min(1.0, _SIDE / max(height, width)))
        angles = [2 * math.pi * step / _ANGLES for step in range(n_angles)]
        turned.append(torch.stack([_placed(x, centre, zoom, angle) for angle in angles]))
        centres.append(centre)
    return torch.cat(turned, dim=1), torch.cat(centres)


def _placed(x: Tensor, centre: Tensor, zoom: Tensor, angle: float) -> Tensor:
    shift = -zoom[:, None] * _turn(centre, angle)
    return place(x, torch.full((len(x),), angle), shift, zoom, size=(_SIDE, _SIDE)).flatten(1)


def _turn(position: Tensor, angle: float) -> Tensor:
    """Turn positions (n, 2) in (row, column) counter-clockwise as displayed."""
    cos, sin = math.cos(angle), math.sin(angle)
    return position @ torch.tensor([[cos, sin], [-sin, cos]], dtype=position.dtype)
