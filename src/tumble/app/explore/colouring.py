"""What particles can be coloured by: a number for each, a palette, and a legend that says what it means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.colours import MISSING_COLOUR, PALETTE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import pandas as pd

__all__ = ["COLOURS", "Colouring", "colour_by", "size_unit"]

#: Name in the address -> what people read.
COLOURS = {
    "class": "Class (model)",
    "label": "Label",
    "probability": "Probability",
    "novelty": "Novelty",
    "size": "Size",
    "micrograph": "Micrograph",
}
#: Micrographs that a legend names.
_MOST_NAMED = 12
_SHADES = 64


@dataclass(frozen=True)
class Colouring:
    """A colour for each particle.

    Parameters
    ----------
    title : str
        What the colour says.
    values : ndarray of shape (n,)
        Place in the palette where `groups` are named, otherwise the quantity itself; NaN where there is none.
    palette : list of str
        Hexadecimal colours.
    low, high : float
        What the first and the last colour stand for; -0.5 and the number of colours - 0.5 for groups.
    groups : list of (str, str, int)
        Name, colour and number of particles of each group; empty for a quantity.
    missing : int
        Particles without a value, which are grey.
    note : str
        What the reader should know, or "".
    """

    title: str
    values: npt.NDArray[np.float32]
    palette: list[str]
    low: float
    high: float
    groups: list[tuple[str, str, int]] = field(default_factory=list)
    missing: int = 0
    note: str = ""

    def colours(self) -> npt.NDArray[np.object_]:
        """Return the hexadecimal colour of each particle."""
        span = self.high - self.low or 1.0
        place = (self.values - self.low) / span * len(self.palette)
        known = np.isfinite(place)
        index = np.clip(np.where(known, place, 0), 0, len(self.palette) - 1).astype(int)
        return np.where(known, np.array(self.palette, dtype=object)[index], MISSING_COLOUR)


def size_unit(table: pd.DataFrame) -> str:
    """Return the unit in which sizes are shown: nm where any is known, px otherwise."""
    return "nm" if np.isfinite(table["equivalent_diameter_nm"].to_numpy(np.float64)).any() else "px"


def colour_by(
    table: pd.DataFrame, quantity: str, *, colours: Mapping[str, str], sources: Mapping[int, str]
) -> Colouring:
    """Colour particles.

    Parameters
    ----------
    table : DataFrame
        As :meth:`tumble.library.Library.latents` gives it.
    quantity : str
        One of :data:`COLOURS`.
    colours : mapping of str to str
        Class to colour, in the order of the legend.
    sources : mapping of int to str
        Micrograph to what it is called.

    Returns
    -------
    Colouring
    """
    if quantity in ("class", "label"):
        names = table["predicted" if quantity == "class" else "label"].to_list()
        return _by_class(names, COLOURS[quantity], colours)
    if quantity == "micrograph":
        return _by_micrograph(table["micrograph_id"].to_numpy(), sources)
    if quantity == "size":
        unit = size_unit(table)
        sizes = table[f"equivalent_diameter_{unit}"].to_numpy(np.float32)
        note = "Grey particles are of images whose pixel size is not known." if unit == "nm" else ""
        return _continuous(sizes, f"Equivalent diameter ({unit})", None, note)
    bounds = (0.0, 1.0) if quantity == "probability" else None
    return _continuous(table[quantity].to_numpy(np.float32), COLOURS[quantity], bounds)


def _by_class(names: Sequence[str | None], title: str, colours: Mapping[str, str]) -> Colouring:
    order: dict[str | None, float] = {name: float(i) for i, name in enumerate(colours)}
    values = np.array([order.get(name, np.nan) for name in names], np.float32)
    counts = Counter(names)
    groups = [(name, colour, counts[name]) for name, colour in colours.items()]
    return _grouped(title, values, list(colours.values()), [group for group in groups if group[2]])


def _by_micrograph(ids: npt.NDArray[Any], sources: Mapping[int, str]) -> Colouring:
    order = {number: i for i, number in enumerate(sources)}
    values = np.array([order[int(i)] for i in ids], np.float32)
    palette = [PALETTE[i % len(PALETTE)] for i in range(len(sources))]
    numbers, n = np.unique(ids, return_counts=True)
    counts = dict(zip(numbers.tolist(), n.tolist(), strict=True))
    shown = [i for i in sources if i in counts]
    groups = [(f"{i} · {sources[i]}", palette[order[i]], counts[i]) for i in shown[:_MOST_NAMED]]
    note = f"and {len(shown) - _MOST_NAMED} more, whose colours repeat." if len(shown) > _MOST_NAMED else ""
    return _grouped(COLOURS["micrograph"], values, palette, groups, note)


def _grouped(
    title: str,
    values: npt.NDArray[np.float32],
    palette: Sequence[str],
    groups: list[tuple[str, str, int]],
    note: str = "",
) -> Colouring:
    palette = list(palette) or [MISSING_COLOUR]
    missing = int(np.isnan(values).sum())
    return Colouring(title, values, palette, -0.5, len(palette) - 0.5, groups, missing, note)


def _continuous(
    values: npt.NDArray[np.float32], title: str, bounds: tuple[float, float] | None, note: str = ""
) -> Colouring:
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    known = values[np.isfinite(values)]
    if bounds is None:
        # The outermost hundredth would leave one colour for all others.
        low, high = (float(v) for v in np.quantile(known, (0.01, 0.99))) if len(known) else (0.0, 1.0)
        bounds = (low, high) if high > low else (low - 0.5, low + 0.5)
    shades = mpl.colormaps["viridis"](np.linspace(0, 1, _SHADES))
    missing = len(values) - len(known)
    palette = [to_hex(shade) for shade in shades]
    return Colouring(title, values, palette, *bounds, missing=missing, note=note if missing else "")
