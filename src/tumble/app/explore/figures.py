"""Figures of the explore views that the report has none of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tumble.colours import MISSING_COLOUR
from tumble.report.style import FULL_WIDTH, INK, Figure, figure_style, open_axes, plain, short_number

if TYPE_CHECKING:
    import numpy.typing as npt

    from tumble.app.explore.colouring import Colouring
    from tumble.app.explore.histograms import Histograms

__all__ = ["histogram_figure", "scatter_figure"]

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


def histogram_figure(found: Histograms, *, missing: str) -> Figure:
    """Draw a histogram for each class, one below the other.

    Parameters
    ----------
    found : Histograms
        What to draw.
    missing : str
        What to call particles without a class.

    Returns
    -------
    Figure
        Each panel has its own scale of counts: a class of forty would vanish beside one of a thousand.
    """
    count = max(1, len(found.groups))
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, (1.15 if count > 1 else 2.4) * count + 0.7), layout="constrained")
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        for panel, group in zip(panels, found.groups, strict=False):
            panel.stairs(group.counts, found.edges, fill=True, color=group.colour)
            panel.stairs(group.counts, found.edges, fill=False, color="white", linewidth=0.4)
            name = missing if group.name is None else group.name
            title = f"{plain(name)}, n = {group.n}, median {short_number(group.median)} {found.unit}"
            panel.set_title(title, loc="left", fontsize=10, pad=3)
            panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            open_axes(panel)
        panels[-1].set_xlabel(f"equivalent diameter ({found.unit})")
        figure.supylabel(f"particles per {found.width:g} {found.unit}", fontsize=10, color=INK)
    return figure
