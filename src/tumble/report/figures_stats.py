"""Figures made of numbers: sizes, latent coordinates, confusion, recall and training curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from tumble.report.style import (
    FULL_WIDTH,
    INK,
    Figure,
    class_colours,
    figure_style,
    missing_colour,
    open_axes,
    plain,
    short_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["confusion_figure", "history_figure", "latent_figure", "recall_figure", "size_figure"]

#: Sizes that spread over more than this factor are drawn on a logarithmic axis.
LOG_SPREAD = 5.0


def size_figure(
    sizes: Sequence[float] | npt.NDArray[Any],
    classes: Sequence[str | None],
    *,
    colours: Mapping[str, str] | None = None,
    unit: str = "px",
    missing: str = "no class",
) -> Figure:
    """Draw the size distribution of each class, one below the other, in the same bins.

    Parameters
    ----------
    sizes : array-like of shape (n,)
        Positive sizes.
    classes : sequence of n str or None
        Class of each.
    colours : mapping of str to str, optional
        Class to colour, in the order of the panels.
    unit : str, default="px"
        Unit of `sizes`, for the axis.
    missing : str, default="no class"
        What to call those without a class.

    Returns
    -------
    Figure
        One panel per class that occurs, each with its own scale of counts: a class of forty would vanish
        beside one of a thousand.
    """
    values, names = np.asarray(sizes, dtype=float), np.array(list(classes), dtype=object)
    usable = np.isfinite(values) & (values > 0)
    values, names = values[usable], names[usable]
    colours = colours or class_colours(sorted({name for name in names if name is not None}))
    groups = [(name, values[names == name], colour) for name, colour in colours.items() if (names == name).any()]
    rest = values[[name is None for name in names]]
    if len(rest):
        groups.append((missing, rest, missing_colour(alone=not colours)))
    edges, logarithmic = _bins(values)
    with figure_style():
        height = (1.05 if len(groups) > 1 else 2.2) * max(1, len(groups)) + 0.7
        figure = Figure(figsize=(FULL_WIDTH, height), layout="constrained")
        panels = figure.subplots(max(1, len(groups)), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (name, group, colour) in zip(panels, groups, strict=False):
            panel.hist(group, bins=list(edges), color=colour, edgecolor="white", linewidth=0.5)
            title = f"{plain(name)}, n = {len(group)}, median {short_number(np.median(group))} {unit}"
            panel.set_title(title, loc="left", fontsize=10, pad=3)
            panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            open_axes(panel)
        _size_axis(panels[-1], unit, logarithmic)
        figure.supylabel("particles per bin", fontsize=10, color=INK)
    return figure


def _bins(sizes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], bool]:
    """Edges of 12 to 48 bins over all sizes, equally wide in the logarithm where sizes spread widely."""
    if not len(sizes):
        return np.array([0.0, 1.0]), False
    low, high = float(sizes.min()), float(sizes.max())
    if high <= low:
        return np.array([0.9 * low, 1.1 * low]), False
    logarithmic = high / low > LOG_SPREAD
    scaled = np.log(sizes) if logarithmic else sizes
    count = int(np.clip(2 * len(sizes) ** (1 / 3) * 1.5, 12, 48))
    edges = np.linspace(scaled.min(), scaled.max(), count + 1)
    edges = np.exp(edges) if logarithmic else edges
    # exp(log(x)) may fall short of x, and a size outside the bins would not be counted.
    edges[0], edges[-1] = low, high
    return edges, logarithmic


def _size_axis(axes: Axes, unit: str, logarithmic: bool) -> None:
    axes.set_xlabel(f"equivalent diameter ({unit})" + (", logarithmic" if logarithmic else ""))
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())


def latent_figure(
    latent: npt.NDArray[Any],
    classes: Sequence[str | None],
    *,
    colours: Mapping[str, str] | None = None,
    wrong: npt.NDArray[Any] | None = None,
) -> Figure:
    """Scatter the first two latent coordinates in the colours of the classes.

    Parameters
    ----------
    latent : ndarray of shape (n, L)
        Latent coordinates, L at least 1. With L = 1 the classes lie in rows.
    classes : sequence of n str or None
        Class of each point.
    colours : mapping of str to str, optional
        Class to colour, in the order of the legend.
    wrong : ndarray of shape (n,), bool, optional
        Points to ring, for example those that contradict their label.

    Returns
    -------
    Figure
        Points with a coordinate that is not finite or without a class are left out.
    """
    names = pd.Series(list(classes), dtype=object)
    colours = colours or class_colours(sorted(names.dropna().unique()))
    usable = np.isfinite(latent).all(axis=1) & names.isin(list(colours)).to_numpy()
    horizontal, vertical = _plane(latent, names, list(colours))
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 5.4 if latent.shape[1] > 1 else 3.6), layout="constrained")
        axes = figure.add_subplot()
        # A path per point makes a vector image slow to open beyond some thousands.
        flat = usable.sum() > 4000
        for name, colour in colours.items():
            chosen = usable & (names == name).to_numpy()
            if chosen.any():
                points = axes.scatter(horizontal[chosen], vertical[chosen], s=16, c=colour, alpha=0.75, linewidths=0)
                points.set(label=f"{plain(name)} ({chosen.sum()})", rasterized=flat)
        if wrong is not None and (ringed := usable & np.asarray(wrong, dtype=bool)).any():
            rings = axes.scatter(horizontal[ringed], vertical[ringed], s=44, facecolors="none", edgecolors="black")
            rings.set(label=f"label disagrees ({ringed.sum()})", linewidths=1.1)
        _latent_axes(axes, latent.shape[1], list(colours))
        open_axes(axes, grid="both")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside right upper", handletextpad=0.2)
    return figure


def _latent_axes(axes: Axes, dimensions: int, names: list[str]) -> None:
    axes.set_xlabel("z1")
    if dimensions > 1:
        axes.set_ylabel("z2")
        axes.set_aspect("equal", adjustable="datalim")
    else:
        axes.set_yticks(range(len(names)), labels=[plain(name) for name in names])
        axes.invert_yaxis()


def _plane(latent: npt.NDArray[Any], names: pd.Series, order: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if latent.shape[1] > 1:
        return latent[:, 0], latent[:, 1]
    # One coordinate: the class gives the row, and a fixed pattern spreads points that would cover each other.
    rows = names.map({name: index for index, name in enumerate(order)}).to_numpy(dtype=float)
    return latent[:, 0], rows + 0.5 * (np.arange(len(rows)) * 0.618034 % 1 - 0.5)


def confusion_figure(
    confusion: npt.NDArray[Any] | Sequence[Sequence[int]],
    classes: Sequence[str],
    *,
    row_name: str = "label",
    column_name: str = "predicted",
) -> Figure:
    """Draw a confusion matrix twice: as counts, and as percentages of each row.

    Parameters
    ----------
    confusion : array-like of shape (K, K)
        ``confusion[i][j]`` particles labelled ``classes[i]`` are predicted to be ``classes[j]``.
    classes : sequence of K str
        Class names.
    row_name, column_name : str
        Whose word the rows and the columns are.

    Returns
    -------
    Figure
        Two panels whose shade is the share of the row, so that rare classes show as well as frequent ones.
    """
    counts = np.asarray(confusion, dtype=int)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    percent = [[f"{100 * value:.0f}%" if total[row, 0] else "–" for value in share[row]] for row in range(len(share))]
    height = min(9.0, max(2.4, 0.55 * len(classes) + 1.2))
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, height), layout="constrained")
        left, right = figure.subplots(1, 2)
        _heat_map(left, share, counts.astype(str).tolist(), classes)
        left.set_title("particles", loc="left")
        left.set_ylabel(plain(row_name, 40))
        _heat_map(right, share, percent, classes)
        of = "the particles with this label" if row_name == "label" else "each row"
        right.set_title(f"percent of {of}", loc="left")
        right.set_yticklabels([])
        for panel in (left, right):
            panel.set_xlabel(plain(column_name, 40))
    return figure


def _heat_map(axes: Axes, shade: npt.NDArray[Any], texts: Sequence[Sequence[str]], classes: Sequence[str]) -> None:
    count = len(classes)
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    names = [plain(name, 24) for name in classes]
    crowded = count > 6 or max(map(len, names), default=0) * count > 44
    axes.set_xticks(range(count), labels=names, rotation=40 if crowded else 0, ha="right" if crowded else "center")
    axes.set_yticks(range(count), labels=names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    size = 12 if count <= 5 else 10 if count <= 10 else 7
    for (row, column), value in np.ndenumerate(shade):
        colour = "white" if value > 0.6 else INK
        axes.text(column, row, str(texts[row][column]), ha="center", va="center", color=colour, fontsize=size)


def recall_figure(
    recalls: Mapping[str, Mapping[str, float]],
    classes: Sequence[str],
    *,
    support: Mapping[str, int] | None = None,
) -> Figure:
    """Compare classifiers by their recall in each class.

    Parameters
    ----------
    recalls : mapping of str to (mapping of str to float)
        Classifier to class to recall, 0 to 1. The first is drawn dark, the others lighter.
    classes : sequence of str
        Classes in the order of the groups of bars.
    support : mapping of str to int, optional
        How many test particles a class has, to be given under its name.

    Returns
    -------
    Figure
        One group of bars per class, one bar per classifier.
    """
    shades = ["#243B53", "#829AB1", "#BCCCDC", "#D9E2EC", "#E4E7EB"]
    width = 0.8 / max(1, len(recalls))
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for index, (classifier, values) in enumerate(recalls.items()):
            where = np.arange(len(classes)) + (index - (len(recalls) - 1) / 2) * width
            heights = np.array([float(values.get(name, np.nan)) for name in classes])
            shade = shades[min(index, len(shades) - 1)]
            bars = axes.bar(where, heights, 0.92 * width, color=shade, label=plain(classifier, 40))
            if len(classes) * len(recalls) <= 24:
                texts = [f"{height:.2f}" if np.isfinite(height) else "" for height in heights]
                axes.bar_label(bars, labels=texts, fontsize=8.5, padding=1.5)
        slanted = len(classes) > 6 or max(map(len, classes), default=0) * len(classes) > 90
        before = ", " if slanted else "\n"
        names = [plain(name, 24) + (f"{before}n = {support.get(name, 0)}" if support else "") for name in classes]
        alignment = "right" if slanted else "center"
        axes.set_xticks(range(len(classes)), labels=names, rotation=35 if slanted else 0, ha=alignment)
        axes.set(ylim=(0, 1.08), ylabel="recall")
        open_axes(axes)
        figure.legend(loc="outside upper left", ncols=4)
    return figure


def history_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw training curves in small panels, curves with the same first word together.

    Parameters
    ----------
    history : mapping of str to sequence of float
        One value per epoch and curve; any names. ``elbo_labelled`` and ``elbo_unlabelled`` share a panel.

    Returns
    -------
    Figure
        At most three panels a row; empty curves are left out.
    """
    groups: dict[str, list[str]] = {}
    for name, values in history.items():
        if len(values):
            groups.setdefault(name.partition("_")[0] or name, []).append(name)
    columns = min(3, max(1, len(groups)))
    rows = max(1, -(-len(groups) // columns))
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 2.5 * rows + 0.2), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel in panels[len(groups) :]:
            panel.set_axis_off()
        for index, (prefix, names) in enumerate(groups.items()):
            _curves(panels[index], prefix, {name: history[name] for name in names})
            if index + columns >= len(groups):
                panels[index].set_xlabel("epoch")
    return figure


def _curves(axes: Axes, prefix: str, curves: Mapping[str, Sequence[float]]) -> None:
    # Lines of different kinds as well as colours, so that they can be told apart in a print without colour.
    looks = [("#243B53", "-"), ("#D55E00", "--"), ("#0072B2", "-."), ("#009E73", ":"), ("#AA4499", "-")]
    for index, (name, values) in enumerate(curves.items()):
        colour, line = looks[index % len(looks)]
        epochs = np.arange(1, len(values) + 1)
        label = plain(name.removeprefix(prefix + "_"), 22)
        marker = "o" if len(values) == 1 else None
        axes.plot(epochs, values, line, color=colour, linewidth=1.5, marker=marker, label=label)
    title = next(iter(curves)) if len(curves) == 1 else prefix
    axes.set_title(plain(title), loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    open_axes(axes)
    if len(curves) > 1:
        axes.legend(fontsize=8.5)
