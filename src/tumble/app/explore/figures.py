"""Figures of the explore views that the report has none of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.lines import Line2D

from tumble.colours import MISSING_COLOUR
from tumble.report.style import FULL_WIDTH, Figure, figure_style, open_axes, plain

if TYPE_CHECKING:
    import numpy.typing as npt

    from tumble.app.explore.colouring import Colouring

__all__ = ["scatter_figure"]

#: Points beyond which an SVG holds them as pixels: a path for each makes it slow to open.
_FLAT_ABOVE = 4000


def scatter_figure(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    colouring: Colouring,
    *,
    names: tuple[str, str],
    window: tuple[float, float, float, float] | None = None,
    chosen: npt.NDArray[np.bool_] | None = None,
) -> Figure:
    """Draw a scatter of two quantities.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Places.
    colouring : Colouring
        A colour for each.
    names : (str, str)
        Of the axes.
    window : (x0, x1, y0, y1), optional
        What part to show.
    chosen : ndarray of shape (n,), bool, optional
        A selection; the others stand back.

    Returns
    -------
    Figure
    """
    colours = colouring.colours()
    size = float(np.clip(6000 / max(1, len(x)), 2, 16))
    flat = len(x) > _FLAT_ABOVE
    parts = [(np.ones(len(x), bool), 0.7)] if chosen is None else [(~chosen, 0.15), (chosen, 0.9)]
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 6.2), layout="constrained")
        axes = figure.add_subplot()
        for part, alpha in parts:
            points = axes.scatter(x[part], y[part], s=size, c=list(colours[part]), alpha=alpha, linewidths=0)
            points.set_rasterized(flat)
        if window is not None:
            axes.set_xlim(window[0], window[1])
            axes.set_ylim(window[2], window[3])
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        open_axes(axes, grid="both")
        _legend(figure, axes, colouring)
    return figure


def _legend(figure: Figure, axes: Any, colouring: Colouring) -> None:
    if not colouring.groups and colouring.missing < len(colouring.values):
        scale = ScalarMappable(Normalize(colouring.low, colouring.high), ListedColormap(colouring.palette))
        figure.colorbar(scale, ax=axes, label=colouring.title, extend="both", fraction=0.05)
        return
    entries = [(f"{plain(name)} ({n})", colour) for name, colour, n in colouring.groups]
    if colouring.missing:
        entries.append((f"none ({colouring.missing})", MISSING_COLOUR))
    handles = [Line2D([], [], color=colour, marker="o", linestyle="", label=text) for text, colour in entries]
    figure.legend(handles=handles, loc="outside right upper", handletextpad=0.2, title=colouring.title)
