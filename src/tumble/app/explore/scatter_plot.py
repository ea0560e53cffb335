"""The scatter as a Bokeh plot; what happens in it is the matter of ``static/scatter.js``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import (
    BoxSelectTool,
    ColumnDataSource,
    HoverTool,
    LassoSelectTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    TapTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from tumble.colours import MISSING_COLOUR

if TYPE_CHECKING:
    import numpy.typing as npt

    from tumble.app.explore.colouring import Colouring

__all__ = ["plot_item"]


def plot_item(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    ids: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    colouring: Colouring,
    names: tuple[str, str],
    window: tuple[float, float, float, float],
) -> dict[str, Any]:
    """Return a plot as the JSON that ``Bokeh.embed.embed_item`` draws.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Finite places.
    ids : ndarray of shape (n,)
        Particles.
    values : ndarray of shape (n,)
        What their colours stand for.
    colouring : Colouring
        Palette and range.
    names : (str, str)
        Of the axes.
    window : (x0, x1, y0, y1)
        What part is shown.

    Returns
    -------
    dict
        The models that the script looks for are named ``plot``, ``particles``, ``points``, and by tool.
    """
    data = {"x": x.astype(np.float32), "y": y.astype(np.float32), "c": values, "id": ids.astype(np.float64)}
    source = ColumnDataSource(data, name="particles")
    # Selections are made once the mouse is let go: each is a search among all points.
    lasso = LassoSelectTool(name="lasso", continuous=False)
    box = BoxSelectTool(name="box", continuous=False)
    pan, wheel = PanTool(name="move"), WheelZoomTool(name="wheel")
    plot = figure(
        name="plot",
        sizing_mode="stretch_both",
        tools=[lasso, box, pan, wheel, TapTool(name="tap")],
        x_range=Range1d(start=window[0], end=window[1]),
        y_range=Range1d(start=window[2], end=window[3]),
        active_drag=lasso,
        active_scroll=wheel,
        toolbar_location=None,
        output_backend="canvas",
        x_axis_label=names[0],
        y_axis_label=names[1],
        min_border=4,
        outline_line_color=None,
    )
    mapper = LinearColorMapper(
        palette=colouring.palette, low=colouring.low, high=colouring.high, nan_color=MISSING_COLOUR
    )
    points = plot.scatter(
        "x",
        "y",
        source=source,
        size=float(np.clip(4 + 3000 / max(1, len(x)), 4, 9)),
        fill_color={"field": "c", "transform": mapper},
        line_color=None,
        fill_alpha=0.7,
        nonselection_fill_alpha=0.15,
        selection_fill_alpha=1.0,
        name="points",
    )
    plot.add_tools(HoverTool(renderers=[points], tooltips=None, mode="mouse", name="hover"))
    plot.lod_threshold = 20_000
    return dict(json_item(plot))
