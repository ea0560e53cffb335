"""What a study gives: numbers, figures, films, and how its numbers compare with the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from tumble.paper.lab import Lab
    from tumble.paper.methods import Fit

__all__ = ["Comparison", "Outcome", "Study"]


@dataclass(frozen=True)
class Comparison:
    """A published value beside the measured ones.

    Parameters
    ----------
    what : str
        What it is the value of.
    published : str
        As published.
    measured : mapping of str to float
        Title of a method to its value.
    """

    what: str
    published: str
    measured: Mapping[str, float | None]

    def line(self) -> str:
        """Write it as one line.

        Examples
        --------
        >>> Comparison("accuracy at ±60°", "0.865", {"ss-rVAE as published": 0.8712}).line()
        'accuracy at ±60°: published 0.865; measured: ss-rVAE as published 0.871'
        """
        shown = [f"{title} {'none' if value is None else f'{value:.3g}'}" for title, value in self.measured.items()]
        return f"{self.what}: published {self.published}; measured: {', '.join(shown)}"

    def as_dict(self) -> dict[str, Any]:
        """Give its parts and its line, for a file of results."""
        return {"what": self.what, "published": self.published, "measured": dict(self.measured), "line": self.line()}


@dataclass
class Outcome:
    """What a study found.

    Parameters
    ----------
    values : dict
        Every number, by name.
    comparisons : list of Comparison
        With what was published.
    figures : dict of str to Figure
        File name without suffix to figure.
    films : dict of str to list of ndarray of shape (height, width, 3)
        File name without suffix to frames.
    """

    values: dict[str, Any] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    films: dict[str, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A figure or family of figures of the paper.

    Parameters
    ----------
    needs : callable
        Gives the fits that it takes, so that their time can be told beforehand.
    run : callable
        Measures and draws.
    measure : callable, optional
        Measures without drawing, for the lab to keep; None where :meth:`tumble.paper.lab.Lab.scores` of the fits that
        it needs are all its numbers.
    """

    needs: Callable[[Lab], list[Fit]]
    run: Callable[[Lab], Outcome]
    measure: Callable[[Lab], object] | None = None
