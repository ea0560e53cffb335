"""What the figures share: their look in print, tiles of images, maps, confusion matrices, scale bars."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tumble.paper.record import write_whole
from tumble.report.style import INK, class_colours, figure_style, open_axes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = [
    "MAP",
    "METHOD_STYLES",
    "WIDTH",
    "confusion_panel",
    "figure_of",
    "figure_pixels",
    "film_palette",
    "heat_map",
    "letter",
    "manifold_panel",
    "mark_chance",
    "mark_quick",
    "print_style",
    "row_labels",
    "save_figure",
    "scale_bar",
    "scatter_panel",
    "show_tiles",
    "standardised",
    "tiles",
]

#: Two columns of a journal, in inches.
WIDTH = 7.2
#: Perceptually uniform, and readable without colour vision.
MAP = "viridis"
QUICK_TEXT = "QUICK RUN: tiny data and training, numbers mean nothing"
QUICK_COLOUR = "#B00020"
#: Shade of shares that are written out in each cell.
_SHARES = "Blues"

_PRINT: dict[Any, Any] = {
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "font.size": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "savefig.dpi": 300,
}

#: Colour, dashes and marker of each method: of one family in colour, of one invariance in dashes.
METHOD_STYLES: dict[str, dict[str, Any]] = {
    "paper-ss-rvae": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "paper-ss-vae": {"color": "#D55E00", "linestyle": "--", "marker": "o", "markerfacecolor": "white"},
    "ss-rvae": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "ss-vae": {"color": "#0072B2", "linestyle": "--", "marker": "s", "markerfacecolor": "white"},
    "ss-rvae-degraded": {"color": "#56B4E9", "linestyle": "-", "marker": "h"},
    "tree": {"color": "#7B8794", "linestyle": ":", "marker": "v"},
    "forest": {"color": "#3E4C59", "linestyle": ":", "marker": "^"},
    "boosting": {"color": "#882255", "linestyle": ":", "marker": "D"},
    "spreading": {"color": "#009E73", "linestyle": ":", "marker": "P"},
}


@contextmanager
def print_style() -> Iterator[None]:
    """Draw in the project's style, at the sizes of a journal's page."""
    with figure_style(), mpl.rc_context(_PRINT):
        yield


def figure_of(height: float, *, width: float = WIDTH) -> Figure:
    """Make an empty figure, in inches, that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.03)
    return figure


def save_figure(figure: Figure, stem: Path, *, quick: bool) -> list[str]:
    """Write ``stem.png`` and ``stem.svg``; a quick figure says what it is.

    Parameters
    ----------
    figure : Figure
        What to write.
    stem : Path
        Path without a suffix.
    quick : bool
        Whether its numbers mean nothing.

    Returns
    -------
    list of str
        Names of the files.
    """
    if quick:
        mark_quick(figure)
    names = []
    for suffix in ("png", "svg"):
        path = stem.with_name(f"{stem.name}.{suffix}")
        metadata = {"Date": None} if suffix == "svg" else {}
        write_whole(path, lambda part, metadata=metadata: figure.savefig(part, metadata=metadata))
        names.append(path.name)
    return names


def mark_quick(figure: Figure) -> None:
    """Say in the figure that it shows that the study runs, and nothing else."""
    figure.set_figheight(figure.get_figheight() + 0.24)
    figure.suptitle(QUICK_TEXT, color=QUICK_COLOUR, fontsize=8, fontweight="bold", x=0.01, ha="left")


def letter(axes: Axes, text: str) -> None:
    """Put the letter of a panel into its title's left end."""
    title = axes.get_title(loc="left")
    axes.set_title(rf"$\mathbf{{{text}}}$  {title}", loc="left")


def tiles(images: npt.NDArray[Any], *, gap: int = 2, ground: float = 1.0) -> npt.NDArray[np.float32]:
    """Put images (rows, columns, H, W), in [0, 1] or uint8, into one with gaps between them.

    Examples
    --------
    >>> tiles(np.zeros((2, 3, 8, 8)), gap=1).shape
    (17, 26)
    """
    scaled = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    rows, columns, height, width = scaled.shape
    whole = np.full((rows, columns, height + gap, width + gap), ground, dtype=np.float32)
    whole[:, :, :height, :width] = scaled
    joined = whole.transpose(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + gap))
    return joined[: joined.shape[0] - gap or None, : joined.shape[1] - gap or None]


def show_tiles(
    axes: Axes, images: npt.NDArray[Any], *, gap: int = 2, limits: tuple[float, float] = (0, 1)
) -> AxesImage:
    """Show images (rows, columns, H, W) side by side, without axes."""
    shown = axes.imshow(
        tiles(images, gap=gap, ground=limits[1]), cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return shown


def row_labels(axes: Axes, names: Sequence[str], side: int, *, gap: int = 2) -> None:
    """Name the rows of tiles of that side at the left."""
    axes.set_yticks([(side + gap) * k + side / 2 for k in range(len(names))], labels=list(names))
    axes.tick_params(length=0)


def scale_bar(axes: Axes, length_px: float, *, within: tuple[float, float], below: bool = False) -> None:
    """Draw a bar of so many px, with its length, for an image of that height and width in px.

    Parameters
    ----------
    axes : Axes
        Where the image is, in px.
    length_px : float
        Length of the bar.
    within : (float, float)
        Height and width of the image.
    below : bool, default=False
        Under the right end of the image rather than on dark ground in its lower right corner: tiles have no room.
    """
    height, width = within
    text = f"{length_px:g} px"
    if below:
        shown: dict[str, Any] = {"clip_on": False, "solid_capstyle": "butt", "color": INK, "linewidth": 1.8}
        y = height - 0.5 + 0.035 * height
        axes.plot([width - 0.5 - length_px, width - 0.5], [y, y], **shown)
        axes.text(width - length_px - 4, y, text, color=INK, ha="right", va="center", fontsize=6.5)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        return
    pad, thick = 0.03 * min(within), max(1.0, 0.012 * min(within))
    right, bottom = width - 0.5 - pad, height - 0.5 - pad
    place = (right - length_px / 2, bottom - 2.2 * thick)
    label = axes.text(*place, text, color="white", ha="center", va="bottom", fontsize=6.5, zorder=5)
    label.set_bbox({"facecolor": "black", "alpha": 0.65, "edgecolor": "none", "pad": 1.2})
    bar = Rectangle((right - length_px, bottom - thick), length_px, thick, facecolor="white", zorder=6)
    bar.set(edgecolor="black", linewidth=0.4)
    axes.add_patch(bar)


def manifold_panel(axes: Axes, images: npt.NDArray[Any], *, extent: float = 2.0, labels: bool = True) -> None:
    """Show images (n, n, H, W) over the plane of z1, downwards, and z2, to the right, in standard deviations."""
    n, side = len(images), images.shape[2]
    show_tiles(axes, np.clip(images, 0, 255 if images.dtype == np.uint8 else 1), gap=0)
    ends = [side / 2, n * side / 2, (n - 0.5) * side]
    names = [f"−{extent:g}", "0", f"{extent:g}"]
    axes.set_xticks(ends, labels=names if labels else [""] * 3)
    axes.set_yticks(ends, labels=names if labels else [""] * 3)
    axes.tick_params(pad=1.5, length=1.5)
    if labels:
        axes.set_xlabel("z2 (s.d.)", labelpad=1)
        axes.set_ylabel("z1 (s.d.)", labelpad=0)


def scatter_panel(
    axes: Axes, z: npt.NDArray[Any], truth: npt.NDArray[Any], classes: Sequence[str], *, unit: str = ""
) -> None:
    """Scatter latent factors (n, 2) in the colours of the classes; those of unknown class stay out.

    A few far from all others would leave one corner to the rest: they are put on the edge, and the panel says so.
    """
    markers = ("o", "^", "s", "D", "v", "P")
    low, high = _limits(z[truth >= 0])
    n_beyond = int(((z < low) | (z > high))[truth >= 0].any(axis=1).sum())
    z = np.clip(z, low, high)
    for k, (name, colour) in enumerate(class_colours(classes).items()):
        chosen = truth == k
        points = axes.scatter(z[chosen, 0], z[chosen, 1], s=9, c=colour, marker=markers[k % len(markers)], alpha=0.8)
        points.set(label=name, linewidths=0.25, edgecolors=INK, rasterized=len(z) > 500)
    beyond = f"\n({n_beyond} further out)" if n_beyond else ""
    axes.set_xlabel(f"z1{unit}{beyond}", labelpad=1)
    axes.set_ylabel("z2" + unit, labelpad=0)
    open_axes(axes, grid="both")


def _limits(z: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Give the range of the points, less those beyond twice the range of the middle 98 %."""
    if not len(z):
        return np.full(2, -np.inf), np.full(2, np.inf)
    low, high = np.percentile(z, [1, 99], axis=0)
    room = 0.5 * (high - low)
    return np.maximum(z.min(axis=0), low - room), np.minimum(z.max(axis=0), high + room)


def heat_map(
    axes: Axes,
    values: npt.NDArray[Any],
    x: Sequence[float],
    y: Sequence[float],
    *,
    limits: tuple[float, float] = (0.25, 1.0),
    ticks: tuple[Sequence[float], Sequence[float]] | None = None,
) -> AxesImage:
    """Show values (len(y), len(x)), the first row at the bottom, with these ticks or some of the steps, which rise."""
    shown = axes.imshow(
        values, cmap=MAP, norm=Normalize(*limits), origin="lower", aspect="auto", interpolation="nearest"
    )
    for axis, steps in ((axes.xaxis, x), (axes.yaxis, y)):
        few = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 5)).round().astype(int))
        places = [steps[i] for i in few] if ticks is None else ticks[axis is axes.yaxis]
        axis.set_ticks(np.interp(places, steps, range(len(steps))), labels=[f"{place:g}" for place in places])
    return shown


def confusion_panel(axes: Axes, counts: Any, classes: Sequence[str], *, ylabel: bool = True) -> None:
    """Show the share of each true class (rows) that is taken for each class (columns)."""
    counts = np.asarray(counts, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=_SHARES, vmin=0, vmax=1.1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.6 else INK
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=7)
    turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(classes)), labels=list(classes), **(turned if max(map(len, classes)) > 3 else {}))
    edges = np.arange(len(classes) - 1) + 0.5
    axes.hlines(edges, -0.5, len(classes) - 0.5, color="white", linewidth=0.8)
    axes.vlines(edges, -0.5, len(classes) - 0.5, color="white", linewidth=0.8)
    axes.set_yticks(range(len(classes)), labels=list(classes) if ylabel else [""] * len(classes))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", labelpad=1)
    if ylabel:
        axes.set_ylabel("true")


def mark_chance(axes: Axes, *, left: bool = False, level: float = 0.25) -> None:
    """Draw the accuracy of a guess, with its name below, at the end where curves stay clear of it."""
    axes.axhline(level, color="#7B8794", linewidth=0.8, zorder=1)
    place = {"xycoords": axes.get_yaxis_transform(), "xytext": (0, -2), "textcoords": "offset points", "va": "top"}
    axes.annotate("chance", (0.01 if left else 0.99, level), ha="left" if left else "right", fontsize=7, **place)


def standardised(z: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring each latent factor to mean 0 and standard deviation 1.

    Examples
    --------
    >>> standardised(np.array([[1.0], [3.0]])).ravel().tolist()
    [-1.0, 1.0]
    """
    spread = z.std(axis=0)
    return (z - z.mean(axis=0)) / np.where(spread > 0, spread, 1)


def film_palette(colours: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Give 256 colours (256, 3) for all frames of a film: greys, and these colours, each mixed with white and ink.

    One that is made from the frames would be of greys alone, as nearly all pixels are, and flicker.
    """
    mixes = [
        (1 - share) * np.array(to_rgb(colour)) + share * np.array(to_rgb(other))
        for colour in colours
        for other, shares in (("white", np.linspace(0, 0.9, 10)), (INK, np.linspace(0.2, 0.8, 4)))
        for share in shares
    ]
    greys = np.linspace(0, 1, 256 - len(mixes))[:, np.newaxis].repeat(3, axis=1)
    return np.round(255 * np.concatenate([greys, mixes])).astype(np.uint8)


def figure_pixels(figure: Figure, dpi: int = 110) -> npt.NDArray[np.uint8]:
    """Draw a figure into an array (height, width, 3), for a frame of a film."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"))
