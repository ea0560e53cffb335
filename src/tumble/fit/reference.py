"""The objects whose orientation is called zero where no label says which way is up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch.nn import functional as F

from tumble.fit.batches import as_images
from tumble.model.coordinates import pixel_positions, place

if TYPE_CHECKING:
    from torch import Tensor

    from tumble.fit.batches import TrainingData

__all__ = ["of_one_orientation"]

#: Images that are compared with each other, and how many are looked at in all, the others being compared with those.
_JOINED, _LOOKED_AT = 800, 4000
#: Share of those that counts as ordinary.
_ORDINARY = 0.1
#: Share that is taken of the objects at that angle: those nearest to the centre of their image.
_CENTRAL = 0.2
#: Least contrast of an object that is taken, as a part of that of the median one: blank images have no orientation.
_CONTRAST = 0.1
#: Side of the images that are compared, and the angles between them that are tried.
_SIDE, _ANGLES = 24, 24
#: What is less bright than this many times the spread of the border is background, where a centre is looked for.
_BACKGROUND = 2.5
#: Images that are held at full size at once, and the bytes of them.
_CHUNK, _CHUNK_BYTES = 200, 2**26


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
        Rows. The first is that of the object that is nearest to the centre among the tenth that differs least from
        all others, each moved to its centre and turned to where it fits best. The others, in ascending order, are of
        those whose angle was found to be the same, in steps of 15 degrees, the fifth that lies nearest to the centre.
    """
    drawn = rng.permutation(len(data))[:_LOOKED_AT]
    # In ascending order, as a memory map is read best.
    joined, rest = np.sort(drawn[:_JOINED]), np.sort(drawn[_JOINED:])
    copies, centres, contrast = _copies(data, joined, _ANGLES)
    distance, turns = _compare(copies, copies[0])
    # An ordinary object is one in its contrast too: a b |u - v|^2 + (a - b)^2 = |a u - b v|^2 for u, v of norm 1.
    unlike = contrast[:, None] * contrast * distance.square() + (contrast[:, None] - contrast).square()
    ordinary = unlike.sqrt().mean(dim=1).argsort()[: max(1, round(_ORDINARY * len(joined)))]
    zero = int(ordinary[centres[ordinary].norm(dim=1).argmin()])
    angles = _along_tree(distance.numpy(), turns.numpy(), zero)
    for start in range(0, len(rest), _CHUNK):
        further, where, strength = _copies(data, rest[start : start + _CHUNK], 1)
        distance, turns = _compare(copies, further[0])
        nearest = distance.argmin(dim=0).numpy()
        angles = np.append(angles, (angles[nearest] + turns.numpy()[nearest, np.arange(len(nearest))]) % _ANGLES)
        centres, contrast = torch.cat([centres, where]), torch.cat([contrast, strength])
    rows, visible = np.append(joined, rest), (contrast >= _CONTRAST * contrast.median()).numpy()
    alike = np.flatnonzero((angles == 0) & visible)
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
        j = before[i]
        # The angle that goes with the difference that is in the tree, of two that are measured each by itself.
        step = turns[j, i] if j < i else -turns[i, j]
        angles[i] = (angles[j] + step) % _ANGLES
    return angles


def _compare(copies: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Differences (m, n) of objects from others, each turned to where it fits best, and by how many steps (m, n).

    `copies` (angles, m, pixels) are of the objects at all angles, `others` (n, pixels) are as they are.
    """
    likeness, turns = torch.stack([turned @ others.T for turned in copies]).max(dim=0)
    return (2 - 2 * likeness).clamp(min=0).sqrt(), turns


def _copies(data: TrainingData, rows: npt.NDArray[np.intp], n_angles: int) -> tuple[Tensor, Tensor, Tensor]:
    """Small copies (n_angles, n, pixels) of objects, the objects' centres (n, 2) in px, and their contrast (n,).

    Copies are moved to their centre and have a norm of 1; the first are not turned, the others by one, two and more
    steps.
    """
    turned, centres, contrast = [], [], []
    size = max(1, min(_CHUNK, _CHUNK_BYTES // (4 * math.prod(data.x.shape[1:]))))
    for start in range(0, len(rows), size):
        x = as_images(data.x[rows[start : start + size]], torch.device("cpu")).mean(dim=1, keepdim=True)
        pooled = max(1, min(max(x.shape[-2:]) // _SIDE, *x.shape[-2:]))
        x = _pool(x, pooled)
        height, width = x.shape[-2:]
        border = torch.cat([x[:, 0, 0], x[:, 0, -1], x[:, 0, :, 0], x[:, 0, :, -1]], dim=1)
        level = border.median(dim=1, keepdim=True).values
        spread = (border - level).abs().median(dim=1).values
        x = x - level[:, :, None, None]
        weight = (x.abs()[:, 0] - _BACKGROUND * spread[:, None, None]).clamp(min=0)
        weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        centre = torch.einsum("nhw,hwc->nc", weight, pixel_positions(height, width))
        zoom = torch.full((len(x),), min(1.0, _SIDE / max(height, width)))
        angles = [2 * math.pi * step / _ANGLES for step in range(n_angles)]
        placed = torch.stack([_placed(x, centre, zoom, angle) for angle in angles])
        norm = placed.norm(dim=2, keepdim=True)
        turned.append(placed / norm.clamp(min=1e-12))
        centres.append(centre * pooled)
        contrast.append(norm[0, :, 0])
    return torch.cat(turned, dim=1), torch.cat(centres), torch.cat(contrast)


def _pool(x: Tensor, by: int) -> Tensor:
    """Means over squares of `by` px: a smaller image without its noise; what is left over is cut off on all sides."""
    height, width = x.shape[-2:]
    top, left = height % by // 2, width % by // 2
    return F.avg_pool2d(x[..., top : top + height // by * by, left : left + width // by * by], by)


def _placed(x: Tensor, centre: Tensor, zoom: Tensor, angle: float) -> Tensor:
    shift = -zoom[:, None] * _turn(centre, angle)
    return place(x, torch.full((len(x),), angle), shift, zoom, size=(_SIDE, _SIDE)).flatten(1)


def _turn(position: Tensor, angle: float) -> Tensor:
    """Turn positions (n, 2) in (row, column) counter-clockwise as displayed."""
    cos, sin = math.cos(angle), math.sin(angle)
    return position @ torch.tensor([[cos, sin], [-sin, cos]], dtype=position.dtype)
