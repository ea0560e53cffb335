"""Histograms of sizes, one for each class, all in the same bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.colours import MISSING_COLOUR
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import pandas as pd

__all__ = ["Group", "Histograms", "make_histograms", "round_step"]

MOST_BINS = 400
#: Bins over nearly all sizes, and over all of them, that a width chosen here makes at most.
_BINS, _BINS_WITH_OUTLIERS = 40, 60


@dataclass(frozen=True)
class Group:
    """The sizes of one class.

    Parameters
    ----------
    name : str or None
        Class; None for particles that have none.
    colour : str
        Hexadecimal.
    ids : tuple of ndarray
        Particles in each bin.
    simple : ndarray of shape (n_bins,), bool
        Whether class and sizes alone say which particles a bin has: none was left out of it.
    median, mean, deviation : float
        Of the sizes.
    """

    name: str | None
    colour: str
    ids: tuple[npt.NDArray[np.int64], ...]
    simple: npt.NDArray[np.bool_]
    median: float
    mean: float
    deviation: float

    @property
    def counts(self) -> list[int]:
        """Particles in each bin."""
        return [len(ids) for ids in self.ids]

    @property
    def n(self) -> int:
        """Particles in all bins."""
        return sum(self.counts)


@dataclass(frozen=True)
class Histograms:
    """What the view of sizes shows.

    Parameters
    ----------
    unit : str
        ``"nm"`` or ``"px"``.
    edges : ndarray of shape (n_bins + 1,)
        Multiples of the width; a bin has its lower edge, not its upper one.
    width : float
        Of a bin.
    groups : list of Group
        Those that have particles, in the order of the classes.
    cut_off : int
        Particles that touch the edge of their micrograph, counted or not.
    unknown : int
        Particles without a size in this unit.
    """

    unit: str
    edges: npt.NDArray[np.float64]
    width: float
    groups: list[Group]
    cut_off: int
    unknown: int


def make_histograms(
    table: pd.DataFrame,
    by: str,
    *,
    colours: Mapping[str, str],
    unit: str,
    width: float | None = None,
    whole_only: bool = True,
) -> Histograms:
    """Count the sizes of each class.

    Parameters
    ----------
    table : DataFrame
        As :meth:`tumble.library.Library.sizes` gives it.
    by : {"predicted", "label"}
        What counts as the class.
    colours : mapping of str to str
        Class to colour, in order.
    unit : {"nm", "px"}
        Unit of the sizes.
    width : float, optional
        Of a bin; chosen by the rule of Freedman and Diaconis, rounded, if not given.
    whole_only : bool, default True
        Leave out particles that are cut off by the edge of their micrograph.

    Returns
    -------
    Histograms

    Raises
    ------
    ConfigError
        The width gives too many bins.
    """
    sizes = table[f"equivalent_diameter_{unit}"].to_numpy(np.float64)
    known = np.isfinite(sizes)
    cut_off = table["touches_border"].to_numpy(bool)
    shown = known & ~cut_off if whole_only else known
    width = _automatic(sizes[shown]) if width is None else width
    edges = _edges(sizes[shown], width, unit)
    names = table[by].to_numpy(object)
    members: list[tuple[str | None, str, Any]] = [(name, colour, names == name) for name, colour in colours.items()]
    members.append((None, MISSING_COLOUR, np.array([name is None for name in names], bool)))
    ids = table.index.to_numpy(np.int64)
    groups = [
        _group(name, colour, sizes, ids, known & members_of, shown & members_of, edges)
        for name, colour, members_of in members
        if (shown & members_of).any()
    ]
    return Histograms(unit, edges, width, groups, int((known & cut_off).sum()), int((~known).sum()))


def _group(
    name: str | None,
    colour: str,
    sizes: npt.NDArray[np.float64],
    ids: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    shown: npt.NDArray[np.bool_],
    edges: npt.NDArray[np.float64],
) -> Group:
    place = np.searchsorted(edges, sizes, side="right") - 1
    inside = [ids[shown & (place == i)] for i in range(len(edges) - 1)]
    simple = np.array([int((known & (place == i)).sum()) == len(found) for i, found in enumerate(inside)], bool)
    values = sizes[shown]
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Group(name, colour, tuple(inside), simple, float(np.median(values)), float(values.mean()), spread)


def _automatic(sizes: npt.NDArray[np.float64]) -> float:
    """Return a width of 1, 2 or 5 times a power of ten."""
    if len(sizes) < 2 or sizes.max() <= sizes.min():
        return 1.0
    lowest, low, high, highest = np.quantile(sizes, (0.01, 0.25, 0.75, 0.99))
    rule = 2 * (high - low) / len(sizes) ** (1 / 3)
    return round_step(max(rule, (highest - lowest) / _BINS, (sizes.max() - sizes.min()) / _BINS_WITH_OUTLIERS))


def round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below a positive number.

    Examples
    --------
    >>> round_step(0.3), round_step(1.0), round_step(6)
    (0.5, 1.0, 10.0)
    """
    power = 10.0 ** np.floor(np.log10(least))
    step = next(factor for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    # Written out and read again: 3 * 0.1 is not 0.3, and steps are shown.
    return float(f"{step * power:.6g}")


def _edges(sizes: npt.NDArray[np.float64], width: float, unit: str) -> npt.NDArray[np.float64]:
    if not len(sizes):
        return np.array([0.0, width])
    first, last = np.floor(sizes.min() / width), np.floor(sizes.max() / width) + 1
    if last - first > MOST_BINS:
        least = (sizes.max() - sizes.min()) / MOST_BINS
        raise ConfigError(
            f"width={width:g}: this makes {int(last - first):,} bars. Bars of {least:.2g} {unit} or wider can be shown."
        )
    edges = np.array([float(f"{i * width:.12g}") for i in range(int(first), int(last) + 1)])
    # Rounding may have moved an outermost edge past a size.
    if sizes.min() < edges[0]:
        edges = np.insert(edges, 0, edges[0] - width)
    return edges if sizes.max() < edges[-1] else np.append(edges, edges[-1] + width)
