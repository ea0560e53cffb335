"""Figures made of images: outlined micrographs and latent manifolds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tumble.report.style import FULL_WIDTH, MISSING_COLOUR, Figure, class_colours, figure_style, missing_colour, plain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["Region", "busiest_region", "manifold_figure", "micrograph_figure"]


@dataclass(frozen=True)
class Region:
    """A rectangle of a micrograph in px, from its upper left corner.

    Parameters
    ----------
    row, column : float
        Upper left corner.
    height, width : float
        Size.
    """

    row: float
    column: float
    height: float
    width: float


def busiest_region(
    outlines: Mapping[int, npt.NDArray[Any]],
    classes: Mapping[int, str | None],
    shape: tuple[float, float],
    *,
    zoom: float = 3.0,
) -> Region:
    """Choose the part of a micrograph to enlarge: the one with most classes, and among those most particles.

    Parameters
    ----------
    outlines : mapping of int to ndarray of shape (m, 2)
        Particle id to outline in (row, column) px.
    classes : mapping of int to str or None
        Particle id to class.
    shape : (float, float)
        Height and width of the micrograph in px.
    zoom : float, default=3.0
        The region is this many times smaller than the micrograph in each direction.

    Returns
    -------
    Region
        One of the regions on a grid with steps of half a region.
    """
    height, width = shape[0] / zoom, shape[1] / zoom
    centres = np.array([outline.mean(axis=0) for outline in outlines.values()]).reshape(-1, 2)
    names = np.array([classes.get(key) or "" for key in outlines], dtype=object)
    steps = max(1, round(2 * (zoom - 1)))
    best, best_score = Region(0.0, 0.0, height, width), (-1, -1)
    for row in np.linspace(0, shape[0] - height, steps + 1):
        for column in np.linspace(0, shape[1] - width, steps + 1):
            offset = centres - (row, column)
            inside = ((offset >= 0) & (offset < (height, width))).all(axis=1)
            score = (len(set(names[inside])), int(inside.sum()))
            if score > best_score:
                best, best_score = Region(float(row), float(column), height, width), score
    return best


def micrograph_figure(
    image: npt.NDArray[Any],
    outlines: Mapping[int, npt.NDArray[Any]],
    classes: Mapping[int, str | None],
    *,
    colours: Mapping[str, str] | None = None,
    border: Collection[int] = (),
    pixel_size_nm: float | None = None,
    image_scale: float = 1.0,
    region: Region | None = None,
    mark: Region | None = None,
    missing: str = "no class",
) -> Figure:
    """Draw a micrograph with one outline per particle in the colour of its class.

    Parameters
    ----------
    image : ndarray of shape (h, w)
        The micrograph or a reduced copy of it.
    outlines : mapping of int to ndarray of shape (m, 2)
        Particle id to outline in (row, column) px of the micrograph.
    classes : mapping of int to str or None
        Particle id to class; None or a missing id for particles without one.
    colours : mapping of str to str, optional
        Class to colour, in the order of the legend; see :func:`tumble.report.style.class_colours`.
    border : collection of int, optional
        Particles that touch the edge of the micrograph; drawn dashed.
    pixel_size_nm : float, optional
        Edge of a pixel of the micrograph: gives a scale bar.
    image_scale : float, default=1.0
        Px of `image` per px of the micrograph.
    region : Region, optional
        Show only this part, enlarged to the same figure width.
    mark : Region, optional
        Draw a frame around this part.
    missing : str, default="no class"
        What the legend calls particles without a class.

    Returns
    -------
    Figure
        Axes in px of the micrograph; the legend counts the particles drawn.
    """
    colours = colours or class_colours(sorted({name for name in classes.values() if name is not None}))
    part = region or Region(0.0, 0.0, image.shape[0] / image_scale, image.shape[1] / image_scale)
    if region is not None:
        outlines = {key: line for key, line in outlines.items() if _overlaps(line, region)}
    with figure_style():
        ratio = part.height / part.width
        width = FULL_WIDTH if ratio <= 1.2 else FULL_WIDTH * 1.2 / ratio
        figure = Figure(figsize=(width, width * ratio + 0.45), layout="constrained")
        axes = figure.add_subplot()
        _show_part(axes, image, part, image_scale)
        handles = _draw_outlines(axes, outlines, classes, colours, set(border), missing, enlarged=region is not None)
        if mark is not None:
            corner = (mark.column - 0.5, mark.row - 0.5)
            axes.add_patch(Rectangle(corner, mark.width, mark.height, fill=False, edgecolor="white", linewidth=1.8))
        if pixel_size_nm is not None:
            _scale_bar(axes, part, pixel_size_nm)
        _legend(figure, handles)
    return figure


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    """Put the legend above the image in as few rows as its width allows, and make room for them."""
    # About 0.085 inch a letter at this size, and as much as six letters for line and gaps.
    widths = [0.085 * (len(str(handle.get_label())) + 6) for handle in handles]
    for rows in range(1, len(handles) + 1):
        columns = [max(widths[start : start + rows]) for start in range(0, len(widths), rows)]
        if sum(columns) <= figure.get_figwidth() or rows == len(handles):
            options: dict[str, Any] = {"loc": "outside upper left", "handlelength": 1.4}
            figure.legend(handles=handles, ncols=len(columns), **options)
            figure.set_figheight(figure.get_figheight() + 0.22 * (rows - 1))
            return


def _show_part(axes: Axes, image: npt.NDArray[Any], part: Region, scale: float) -> None:
    """Show the pixels of `part` only: an SVG would otherwise hold the whole image."""
    start = (int(part.row * scale), int(part.column * scale))
    stop = (int(np.ceil((part.row + part.height) * scale)), int(np.ceil((part.column + part.width) * scale)))
    shown = image[start[0] : stop[0], start[1] : stop[1]]
    # Outlines count pixel centres from 0, so the edge of the first pixel lies at -0.5.
    left, top = start[1] / scale - 0.5, start[0] / scale - 0.5
    extent = (left, left + shown.shape[1] / scale, top + shown.shape[0] / scale, top)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=_white(image), extent=extent, interpolation="none")
    axes.set_xlim(part.column - 0.5, part.column + part.width - 0.5)
    axes.set_ylim(part.row + part.height - 0.5, part.row - 0.5)
    axes.set_axis_off()


def _white(image: npt.NDArray[Any]) -> float:
    return 255.0 if image.dtype == np.uint8 else float(image.max())


def _overlaps(outline: npt.NDArray[Any], region: Region) -> bool:
    low, high = outline.min(axis=0), outline.max(axis=0)
    start, stop = (region.row, region.column), (region.row + region.height, region.column + region.width)
    return bool((high >= start).all() and (low <= stop).all())


def _draw_outlines(
    axes: Axes,
    outlines: Mapping[int, npt.NDArray[Any]],
    classes: Mapping[int, str | None],
    colours: Mapping[str, str],
    border: set[int],
    missing: str,
    *,
    enlarged: bool,
) -> list[Line2D]:
    """Add one collection of lines per class and kind (whole, cut off); return the entries of the legend."""
    width = 1.8 if enlarged else 0.9
    handles = []
    for name in (*colours, None):
        keys = [key for key in outlines if classes.get(key) == name]
        if not keys:
            continue
        colour = missing_colour(alone=not colours) if name is None else colours[name]
        for dashed in (False, True):
            lines = [outlines[key][:, ::-1] for key in keys if (key in border) == dashed]
            if lines:
                dashes: Any = (0, (2.5, 1.6)) if dashed else "solid"
                axes.add_collection(
                    LineCollection(lines, colors=colour, linewidths=width, linestyles=dashes), autolim=False
                )
        label = f"{plain(missing if name is None else name)} ({len(keys)})"
        handles.append(Line2D([], [], color=colour, linewidth=3, label=label))
    if any(key in border for key in outlines):
        dashed_count = sum(key in border for key in outlines)
        label = f"cut off by the edge ({dashed_count})"
        handles.append(Line2D([], [], color="#52606D", linewidth=1.5, linestyle=(0, (2.5, 1.6)), label=label))
    return handles


def _scale_bar(axes: Axes, part: Region, pixel_size_nm: float) -> None:
    """Draw a bar of a round length, at most a fifth of the width, on dark ground in a lower corner."""
    length_nm = _round_length(part.width * pixel_size_nm / 5)
    length = length_nm / pixel_size_nm
    margin = 0.02 * part.width
    right, bottom = part.column + part.width - margin, part.row + part.height - margin
    box: dict[str, Any] = {"facecolor": "black", "edgecolor": "none", "alpha": 0.65, "zorder": 4}
    thickness = 0.006 * part.width
    height = 0.05 * part.width
    pad = 0.5 * margin
    corner = (right - length - 2 * pad, bottom - height)
    axes.add_patch(Rectangle(corner, length + 2 * pad, height, **box))
    axes.add_patch(
        Rectangle((right - length - pad, bottom - pad - thickness), length, thickness, facecolor="white", zorder=5)
    )
    text = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    axes.text(
        right - pad - length / 2,
        bottom - pad - 2 * thickness,
        text,
        color="white",
        ha="center",
        va="bottom",
        fontsize=11,
        fontweight="bold",
        zorder=5,
    )


def _round_length(limit: float) -> float:
    """Largest of 1, 2, 5 times a power of ten that is not above `limit`."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max(step * power for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))


def manifold_figure(
    manifold: npt.NDArray[Any],
    classes: Sequence[str],
    *,
    axis: npt.NDArray[Any] | None = None,
    colours: Mapping[str, str] | None = None,
    factors: tuple[str, str] = ("z1", "z2"),
) -> Figure:
    """Tile, for each class, the images that the decoder gives over a grid of latent coordinates.

    Parameters
    ----------
    manifold : ndarray of shape (K, G, G, S, S)
        Images; ``manifold[k, i, j]`` is class ``k`` at ``z1 = axis[i]``, ``z2 = axis[j]``. Of a model of one latent
        factor, the shape is (K, 1, G, S, S).
    classes : sequence of K str
        Titles.
    axis : ndarray of shape (G,), optional
        Latent coordinate along either direction of the grid; the index where not given.
    colours : mapping of str to str, optional
        Class to colour of its title bar.
    factors : (str, str)
        Names of the factors downwards and to the right.

    Returns
    -------
    Figure
        One panel per class, z1 downwards and z2 to the right, grey levels 0 to 255 alike in all panels.
    """
    colours = colours or class_colours(classes)
    columns = min(len(classes), 3 if len(classes) != 4 else 2)
    rows = -(-len(classes) // columns)
    side = FULL_WIDTH / max(columns, 2)
    with figure_style():
        figure = Figure(figsize=(side * columns, (side + 0.1) * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat[len(classes) :]:
            panel.set_axis_off()
        for index, (name, images) in enumerate(zip(classes, manifold, strict=True)):
            panel = panels.flat[index]
            names = (factors[0] if index % columns == 0 else "", factors[1] if index + columns >= len(classes) else "")
            _manifold_panel(panel, images, axis, names)
            panel.set_title(plain(name), loc="left", fontweight="bold")
            panel.spines[:].set_color(colours.get(name, MISSING_COLOUR))
            panel.spines[:].set_linewidth(2.5)
    return figure


def _manifold_panel(
    panel: Axes, images: npt.NDArray[Any], axis: npt.NDArray[Any] | None, names: tuple[str, str]
) -> None:
    grid_rows, grid_columns, height, width = images.shape
    tiled = images.transpose(0, 2, 1, 3).reshape(grid_rows * height, grid_columns * width)
    panel.imshow(tiled, cmap="gray", vmin=0, vmax=_white(images), interpolation="antialiased")
    for count, size, pixel_axis, name in (
        (grid_rows, height, panel.yaxis, names[0]),
        (grid_columns, width, panel.xaxis, names[1]),
    ):
        shown = np.unique(np.linspace(0, count - 1, min(count, 5)).round().astype(int))
        values = np.arange(count) if axis is None else np.asarray(axis)
        labels = [f"{values[index]:.2g}".replace("-", "−") for index in shown] if name else []
        pixel_axis.set_ticks((shown + 0.5) * size - 0.5, labels=labels or [""] * len(shown))
        if name:
            pixel_axis.set_label_text(name)
