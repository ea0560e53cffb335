"""Colours of classes, the same in figures, pages and notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MISSING_COLOUR", "PALETTE", "class_colours"]

#: Okabe and Ito's colours, then muted ones of Paul Tol's. Bright and unlike ones come first, as they are
#: drawn as thin lines on grey images.
PALETTE = (
    "#56B4E9",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#F0E442",
    "#0072B2",
    "#882255",
    "#44AA99",
    "#999933",
    "#332288",
    "#AA4499",
)
MISSING_COLOUR = "#9AA0A6"


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Give each class its colour, the same in all figures.

    Parameters
    ----------
    classes : sequence of str
        Class names in the order in which colours are given out.

    Returns
    -------
    dict of str to str
        Hexadecimal colours. They tell twelve classes apart, also for readers with colour vision deficiency;
        further classes start over.

    Examples
    --------
    >>> class_colours(["single", "dimer"])
    {'single': '#56B4E9', 'dimer': '#E69F00'}
    """
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(classes)}
