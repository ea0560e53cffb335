"""Looks shared by all figures: class colours, fonts, and text that matplotlib must not interpret."""

from __future__ import annotations

import io
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.figure

from tumble.colours import MISSING_COLOUR, PALETTE, class_colours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

__all__ = [
    "FULL_WIDTH",
    "INK",
    "MISSING_COLOUR",
    "Figure",
    "class_colours",
    "figure_style",
    "missing_colour",
    "open_axes",
    "plain",
    "short_number",
]

#: Width of a figure that takes the width of the page, in inches.
FULL_WIDTH = 10.0

INK = "#1F2933"
GRID = "#D9DEE3"

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#7B8794",
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "savefig.bbox": None,
    "savefig.facecolor": "auto",
    # Without a fixed salt the ids in an SVG differ from run to run.
    "svg.fonttype": "path",
    "svg.hashsalt": "tumble",
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": "#52606D",
    "xtick.labelsize": 9,
    "ytick.color": "#52606D",
    "ytick.labelsize": 9,
}


#: Matplotlib's settings belong to the process: threads of a server must not change them under each other's hands.
_STYLE_LOCK = RLock()


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the report's style whatever the caller's matplotlib settings are, and leave those alone.

    One thread at a time draws; others wait.
    """
    with _STYLE_LOCK, mpl.rc_context(_STYLE):
        yield


class Figure(matplotlib.figure.Figure):
    """A figure that shows itself in a notebook, without pyplot and whatever the backend is."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with figure_style():
            self.savefig(buffer, format="png", dpi=96)
        return buffer.getvalue()


def missing_colour(*, alone: bool) -> str:
    """Colour of what has no class: grey, to stand back, unless there is nothing else to see.

    Parameters
    ----------
    alone : bool
        Whether nothing has a class.

    Returns
    -------
    str
        Hexadecimal colour.
    """
    return PALETTE[0] if alone else MISSING_COLOUR


def plain(text: object, limit: int = 28) -> str:
    r"""Make any text safe to draw: no mathematics, one line, of bounded length.

    Parameters
    ----------
    text : object
        A class name or another text from outside.
    limit : int, default=28
        Greatest number of characters; what is longer ends with an ellipsis.

    Returns
    -------
    str
        Text with the same look. A dollar sign would start a formula and a leading underscore would hide a
        legend entry.

    Examples
    --------
    >>> plain("5 $ or 6 $")
    '5 \\$ or 6 \\$'
    """
    line = "".join(letter if letter.isprintable() else " " for letter in str(text))
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    return (" " + line if line.startswith("_") else line).replace("$", r"\$")


def short_number(value: float) -> str:
    """Write a positive size with one decimal, or none where it would say nothing.

    Parameters
    ----------
    value : float
        A size in any unit.

    Returns
    -------
    str
        Never in powers of ten.

    Examples
    --------
    >>> short_number(9.53), short_number(3584.1)
    ('9.5', '3584')
    """
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"


def open_axes(axes: Axes, *, grid: str | None = "y") -> None:
    """Leave out the upper and right frame of `axes` and put a faint grid behind the data.

    Parameters
    ----------
    axes : Axes
        What to change.
    grid : {"x", "y", "both"} or None, default="y"
        Direction of the grid lines.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid in ("x", "both"):
        axes.xaxis.grid(True, color=GRID, linewidth=0.7)
    if grid in ("y", "both"):
        axes.yaxis.grid(True, color=GRID, linewidth=0.7)
