"""Figure 2: the data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.datasets import load_nanogold
from tumble.paper import draw
from tumble.paper.data import LABELLED_ANGLE_DEG, gold_crops
from tumble.paper.fig6 import nanoparticles
from tumble.paper.outcome import Comparison, Outcome, Study
from tumble.paper.sweeps import cards

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tumble.paper.lab import Lab

__all__ = ["STUDY", "examples"]

_PER_CLASS = 7


def examples(X: npt.NDArray[Any], y: npt.NDArray[Any], n_classes: int, n: int) -> npt.NDArray[Any]:
    """Pick the first `n` images of each class; shape (n_classes, n, H, W), blank where a class has fewer.

    Parameters
    ----------
    X : ndarray of shape (m, H, W)
        Images.
    y : ndarray of shape (m,)
        Classes as indices; others than 0 to `n_classes` - 1 are left out.
    n_classes, n : int
        Number of classes, and of images of each.

    Returns
    -------
    ndarray
    """
    picked = np.zeros((n_classes, n, *X.shape[1:]), dtype=X.dtype)
    for k in range(n_classes):
        found = X[y == k][:n]
        picked[k, : len(found)] = found
    return picked


def run(lab: Lab) -> Outcome:
    """Draw examples of each class of each data set, and count them."""
    cards_split = cards(lab).split()
    agglomerates, _ = (source.split() for source in nanoparticles(lab).values())
    crops, truth, left, right, gold_classes = gold_crops()
    suits, numbers = (
        cards_split.classes,
        tuple(f"{name} particle{'s' * (name != '1')}" for name in agglomerates.classes),
    )
    labelled = cards_split.y >= 0
    panels = [
        (f"cards, labelled: within ±{LABELLED_ANGLE_DEG:g}°", cards_split.X[labelled], cards_split.y[labelled], suits),
        ("cards, unlabelled: within ±60°, displaced", cards_split.X[~labelled], cards_split.truth[~labelled], suits),
        ("gold nanoparticles, real (crops)", crops[left | right], truth[left | right], gold_classes),
        ("agglomerates, synthetic", agglomerates.X, agglomerates.truth, numbers),
    ]
    with draw.print_style():
        figure = draw.figure_of(6.0)
        grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 1.25))
        for i, (title, X, y, classes) in enumerate(panels):
            axes = figure.add_subplot(grid[i // 2, i % 2])
            _examples_panel(axes, examples(X, y, len(classes), _PER_CLASS), classes, title)
            draw.letter(axes, "abcd"[i])
        axes = figure.add_subplot(grid[2, :])
        _micrograph_panel(axes)
        draw.letter(axes, "e")
    counts = {
        "cards labelled per class": lab.sizes.n_labelled,
        "cards unlabelled per class": lab.sizes.n_unlabelled,
        "agglomerates per class": dict(
            zip(agglomerates.classes, np.bincount(agglomerates.truth).tolist(), strict=True)
        ),
        "gold crops": len(crops),
        "gold crops per class": {name: int((truth == k).sum()) for k, name in enumerate(gold_classes)},
        "gold crops of the left half, for labels": int(left.sum()),
        "gold crops of the right half, for the test": int(right.sum()),
        "gold crops without a reference class": int((truth < 0).sum()),
        "labelled nanoparticles per class": lab.sizes.gold_labels,
    }
    compared = [
        Comparison(
            "images of 1, 2, 3, 4 particles",
            "304, 93, 49, 31 (real, not available)",
            {f"synthetic, {k}": float(n) for k, n in counts["agglomerates per class"].items()},
        )
    ]
    return Outcome({"counts": counts}, compared, {"fig2": figure})


def _examples_panel(axes: Axes, picked: npt.NDArray[Any], classes: tuple[str, ...], title: str) -> None:
    side = picked.shape[2]
    draw.show_tiles(axes, picked)
    draw.row_labels(axes, classes, side)
    axes.set_title(title, loc="left")
    height, width = len(picked) * (side + 2) - 2, picked.shape[1] * (side + 2) - 2
    draw.scale_bar(axes, 20, within=(height, width), below=True)


def _micrograph_panel(axes: Axes) -> None:
    # A part at a scale at which the particles can be seen; the whole would show specks.
    part = load_nanogold().image[100:340, 60:700]
    axes.imshow(part, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title("part of the micrograph that the crops are from (pixel size not recorded)", loc="left")
    draw.scale_bar(axes, 100, within=(part.shape[0], part.shape[1]))


STUDY = Study(needs=lambda lab: [], run=run)
