"""Scores of segmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from tumble.errors import ConfigError, DataError

__all__ = ["SegmentationMatch", "match_segmentations"]

_Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SegmentationMatch:
    """How the objects that were found fit the objects of a reference.

    Parameters
    ----------
    n_reference, n_found, n_matched : int
        Number of objects in the reference, of objects found, and of pairs.
    recall : float
        Fraction of the reference that has a partner; NaN if the reference is empty.
    unmatched_found_fraction : float
        Fraction of the objects found that have none; NaN if nothing was found.
    pairs : ndarray of shape (n_matched, 2), int64
        Labels (reference, found) of the pairs, in ascending order of the reference.
    iou : ndarray of shape (n_matched,), float64
        Intersection over union of each pair.
    """

    n_reference: int
    n_found: int
    n_matched: int
    recall: float
    unmatched_found_fraction: float
    pairs: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]


def match_segmentations(
    reference: npt.ArrayLike, found: npt.ArrayLike, iou_threshold: float = 0.5
) -> SegmentationMatch:
    """Pair the objects of two label images one to one, with the greatest total overlap.

    The overlap of two objects is their intersection over union (IoU). Of all one-to-one pairings whose every
    pair reaches `iou_threshold` this returns one with the greatest sum of IoU [1]_. It depends on which
    pixels belong together, not on the numbers of the labels. Above 0.5 an object has at most one candidate
    and nothing is left to choose.

    Parameters
    ----------
    reference, found : array of shape (H, W), of whole numbers >= 0
        Label images; 0 is background. Labels need not be consecutive. For masks, label the components first.
    iou_threshold : float, default=0.5
        Least IoU of a pair, in (0, 1].

    Returns
    -------
    SegmentationMatch

    Raises
    ------
    ConfigError
        If `iou_threshold` is not in (0, 1].
    DataError
        If the images differ in shape or hold anything but whole numbers >= 0.

    References
    ----------
    .. [1] H. W. Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly
       2, 83-97, 1955.

    Examples
    --------
    >>> reference = [[1, 1, 0, 2, 2]]
    >>> found = [[7, 7, 7, 0, 5]]
    >>> match = match_segmentations(reference, found)
    >>> match.pairs.tolist(), match.recall, match.unmatched_found_fraction
    ([[1, 7], [2, 5]], 1.0, 0.0)
    """
    if not 0 < iou_threshold <= 1:
        msg = f"iou_threshold={iou_threshold!r} must be greater than 0 and at most 1"
        raise ConfigError(msg)
    reference, found = _label_image("reference", reference), _label_image("found", found)
    if reference.shape != found.shape:
        msg = f"reference has shape {reference.shape} and found {found.shape}; they must be of the same image"
        raise DataError(msg)
    labels_reference, labels_found, iou = _overlaps(reference, found)
    rows, columns, values = _best_pairs(iou.multiply(iou >= iou_threshold).tocsr())
    n_reference, n_found = len(labels_reference), len(labels_found)
    return SegmentationMatch(
        n_reference=n_reference,
        n_found=n_found,
        n_matched=len(rows),
        recall=len(rows) / n_reference if n_reference else float("nan"),
        unmatched_found_fraction=1 - len(rows) / n_found if n_found else float("nan"),
        pairs=np.column_stack([labels_reference[rows], labels_found[columns]]).astype(np.int64),
        iou=values,
    )


def _label_image(name: str, image: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return `image` as a two-dimensional array of whole numbers >= 0."""
    labels = np.asarray(image)
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        msg = (
            f"{name} (shape {labels.shape}, {labels.dtype}) must be a two-dimensional label image of whole "
            "numbers >= 0; label a mask with skimage.measure.label first"
        )
        raise DataError(msg)
    return labels


def _overlaps(
    reference: npt.NDArray[Any], found: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], sparse.csr_matrix]:
    """Return the labels of both images and the IoU of all pairs of objects that overlap."""
    labels_reference, rows = np.unique(reference, return_inverse=True)
    labels_found, columns = np.unique(found, return_inverse=True)
    pixels = np.ones(reference.size, dtype=np.int64)
    shape = (len(labels_reference), len(labels_found))
    counts = sparse.coo_matrix((pixels, (rows.ravel(), columns.ravel())), shape=shape).tocsr()
    area_reference, area_found = (np.asarray(counts.sum(axis=axis)).ravel() for axis in (1, 0))
    # Background is counted so that areas are right, then left out: it sorts first where it occurs.
    keep_rows, keep_columns = np.flatnonzero(labels_reference), np.flatnonzero(labels_found)
    inner = counts[keep_rows][:, keep_columns].tocoo()
    union = area_reference[keep_rows][inner.row] + area_found[keep_columns][inner.col] - inner.data
    iou = sparse.csr_matrix((inner.data / union, (inner.row, inner.col)), shape=inner.shape)
    return labels_reference[keep_rows], labels_found[keep_columns], iou


def _best_pairs(candidates: sparse.csr_matrix) -> tuple[_Index, _Index, npt.NDArray[np.float64]]:
    """Return rows, columns and values of the one-to-one pairs with the greatest sum, among non-zero entries.

    Objects far apart do not compete: each group of objects that overlap is small and solved by itself.
    """
    if candidates.nnz == 0:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp), np.empty(0)
    graph = sparse.block_array([[None, candidates], [candidates.T, None]])
    _, group = connected_components(graph, directed=False)
    entries = candidates.tocoo()
    order = np.argsort(group[entries.row], kind="stable")
    starts = np.flatnonzero(np.diff(group[entries.row][order], prepend=-1))
    rows, columns, values = [], [], []
    for members in np.split(order, starts[1:]):
        group_rows, i = np.unique(entries.row[members], return_inverse=True)
        group_columns, j = np.unique(entries.col[members], return_inverse=True)
        weight = np.zeros((len(group_rows), len(group_columns)))
        weight[i, j] = entries.data[members]
        best_i, best_j = linear_sum_assignment(weight, maximize=True)
        # The assignment is complete, so it may contain pairs that do not overlap.
        real = weight[best_i, best_j] > 0
        rows.append(group_rows[best_i[real]])
        columns.append(group_columns[best_j[real]])
        values.append(weight[best_i, best_j][real])
    order = np.argsort(np.concatenate(rows))
    return np.concatenate(rows)[order], np.concatenate(columns)[order], np.concatenate(values)[order]
