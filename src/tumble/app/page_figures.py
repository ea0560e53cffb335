"""Figures of the pages Label and Train, for their exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tumble.report.style import FULL_WIDTH, INK, Figure, figure_style, open_axes, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["gallery_figure", "training_figure"]

_COLUMNS = 10
#: Of a crop and of what is written below it, as parts of a column.
_CROP, _WRITTEN = 0.92, 0.42
#: The curves that are drawn: name -> what the axis says.
_CURVES = {"loss": "loss", "validation_accuracy": "accuracy on held-out labels"}


def gallery_figure(
    crops: Sequence[npt.NDArray[np.uint8]], particles: Sequence[Mapping[str, Any]], colours: Mapping[str, str]
) -> Figure:
    """Draw a page of the gallery.

    Parameters
    ----------
    crops : sequence of ndarray of shape (S, S), uint8
        The crop of each particle.
    particles : sequence of mapping
        As in :class:`tumble.app.gallery.GalleryPage`.
    colours : mapping of str to str
        Of the classes.

    Returns
    -------
    Figure
        With the number of each particle, its label on a bar of its colour, and what the model says.
    """
    rows = -(-len(crops) // _COLUMNS)
    height = rows * (1 + _WRITTEN)
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, FULL_WIDTH / _COLUMNS * height))
        figure.suppressComposite = True  # each crop stays an image of its own, pixel by pixel
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for i, (crop, particle) in enumerate(zip(crops, particles, strict=True)):
            row, left = divmod(i, _COLUMNS)
            bottom = row * (1 + _WRITTEN) + _CROP
            extent = (left, left + _CROP, bottom, bottom - _CROP)
            axes.imshow(crop, cmap="gray", vmin=0, vmax=255, interpolation="none", extent=extent)
            label = particle["label"]
            if label is not None:
                axes.add_patch(Rectangle((left, bottom), _CROP, 0.05, color=colours.get(label, INK), linewidth=0))
            axes.text(left, bottom + 0.08, _written(particle), fontsize=6, va="top", linespacing=1.25, clip_on=True)
        axes.set(xlim=(-0.04, _COLUMNS), ylim=(height, -0.04), aspect="auto")
    return figure


def _written(particle: Mapping[str, Any]) -> str:
    said = particle["predicted"]
    lines = [f"{particle['id']}  {plain(particle['label'] or '')}".rstrip()]
    return "\n".join([*lines, f"{plain(said)} {100 * particle['probability']:.0f} %"] if said else lines)


def training_figure(epochs: Sequence[int], curves: Mapping[str, Sequence[float | None]]) -> Figure:
    """Draw the curves of a training.

    Parameters
    ----------
    epochs : sequence of int
        Epochs that are over.
    curves : mapping of str to sequence of float or None
        Value after each of them, by name.

    Returns
    -------
    Figure
        Loss, and where labels were held out the accuracy on them.
    """
    shown = [name for name in _CURVES if name in curves]
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 3.4), layout="constrained")
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for panel, name in zip(panels, shown, strict=True):
            panel.plot(epochs, np.array(curves[name], dtype=float), color="#1B6CA8", linewidth=1.6)
            panel.set_xlabel("epoch")
            panel.set_ylabel(_CURVES[name])
            panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            if name != "loss":
                panel.set_ylim(0, 1.02)
            open_axes(panel, grid="both")
    return figure
