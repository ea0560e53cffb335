"""The particles to be exported, read once, for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tumble.errors import LibraryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import pandas as pd

    from tumble.library import Library

__all__ = ["NO_CLASS", "Content", "read_content"]

#: Class of particles that have neither prediction nor label.
NO_CLASS = "unlabelled"


@dataclass(frozen=True)
class Content:
    """What an export writes.

    Parameters
    ----------
    library : Library
        Where it is from, for outlines and crops.
    particles : DataFrame
        As :meth:`tumble.library.Library.particles` gives it, with a column `class` (the prediction where there is a
        model, the label otherwise) and the `source` of the micrograph.
    micrographs : DataFrame
        Those that the particles are of.
    model : str or None
        Whose predictions these are.
    """

    library: Library
    particles: pd.DataFrame
    micrographs: pd.DataFrame
    model: str | None

    def by_micrograph(self) -> Iterator[tuple[int, pd.DataFrame, dict[int, npt.NDArray[np.float32]]]]:
        """Yield the id of each micrograph, its particles, and their outlines in (row, column) px."""
        for key, group in self.particles.groupby("micrograph_id"):
            micrograph = int(key)  # type: ignore[call-overload]
            yield micrograph, group, self.library.outlines(micrograph)

    def crops(self) -> Iterator[tuple[int, str, npt.NDArray[np.uint8]]]:
        """Yield id, class and crop of each particle, reading no more than one micrograph's at a time."""
        for _, group in self.particles.groupby("micrograph_id"):
            ids = [int(i) for i in group.index]
            yield from zip(ids, group["class"], self.library.crops(ids), strict=True)


def read_content(
    library: Library, *, model: str | None, particle_ids: Sequence[int] | None, by: str = "predicted"
) -> Content:
    """Read what is to be exported.

    Parameters
    ----------
    library : Library
        An open library.
    model : str, optional
        Whose predictions; the newest model's that has any if not given.
    particle_ids : sequence of int, optional
        Only these particles.
    by : {"predicted", "label"}
        What the column `class` holds.

    Returns
    -------
    Content

    Raises
    ------
    LibraryError
        There is no particle to export, or no such model.
    """
    name = model or library.predicting_model()
    particles = library.particles(model=name)
    if particle_ids is not None:
        wanted = [int(i) for i in particle_ids]
        unknown = sorted(set(wanted) - set(particles.index))
        if unknown:
            raise LibraryError(f"{library.url}: there is no particle {unknown[0]} in this library.")
        particles = particles.loc[wanted]
    if particles.empty:
        raise LibraryError(f"{library.url}: there is no particle to export.")
    micrographs = library.micrographs()
    micrographs = micrographs.loc[np.unique(particles["micrograph_id"])]
    column = "predicted" if by == "predicted" and name is not None else "label"
    classes = particles[column].where(particles[column].notna(), NO_CLASS).astype(object)
    source = particles["micrograph_id"].map(micrographs["source"])
    return Content(library, particles.assign(source=source, **{"class": classes}), micrographs, name)
