"""Lengths with the many names that files give to their units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["length_nm", "square_pixel_size"]

#: Nanometres in one unit.
NM_PER_UNIT = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "å": 0.1,
    "Å": 0.1,  # the sign of the unit, not the letter
    "a": 0.1,
    "ang": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "nanometers": 1.0,
    "um": 1e3,
    "µm": 1e3,  # micro sign
    "μm": 1e3,  # Greek letter mu
    "\\u00b5m": 1e3,  # as ImageJ writes the micro sign
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "micrometers": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "millimetre": 1e6,
    "m": 1e9,
    "meter": 1e9,
    "metre": 1e9,
    "meters": 1e9,
}

#: Edges that differ by more than this are not one pixel size.
SQUARE_TOLERANCE = 0.01

#: Lengths beyond a femtometre and a metre are not the edge of a pixel but damage.
_LEAST_NM, _LARGEST_NM = 1e-6, 1e9


def length_nm(value: Any, unit: Any) -> float | None:
    """Give a length in nanometres, None where value or unit is not one.

    Examples
    --------
    >>> length_nm("2.5", "µm"), length_nm(3, "pixel")
    (2500.0, None)
    """
    name = str(unit).strip()
    factor = NM_PER_UNIT.get(name) or NM_PER_UNIT.get(name.lower())
    if factor is None or isinstance(value, bool | complex):
        return None
    try:
        return float(value) * factor
    except (TypeError, ValueError, OverflowError):
        return None


def square_pixel_size(sizes: Sequence[float | None]) -> tuple[float | None, str]:
    """Make one pixel size of the edges that a file gives.

    Parameters
    ----------
    sizes : sequence of float or None
        Edges in nm; None where the file does not say.

    Returns
    -------
    pixel_size_nm : float or None
        None where it is not known or cannot be.
    note : str
        Why a size that the file gives was not used; empty otherwise.

    Examples
    --------
    >>> square_pixel_size([2.0, 2.0])
    (2.0, '')
    """
    known = [size for size in sizes if size is not None]
    if not known:
        return None, ""
    if not all(math.isfinite(size) and size > 0 for size in known):
        return None, "the pixel size in the file is not a positive number and was not used"
    if not all(_LEAST_NM <= size <= _LARGEST_NM for size in known):
        return None, f"the pixel size in the file, {known[0]:g} nm, cannot be and was not used"
    if max(known) / min(known) - 1 > SQUARE_TOLERANCE:
        edges = " x ".join(f"{size:g}" for size in known)
        return None, f"the pixels are not square ({edges} nm); their size was not used"
    return known[0], ""
