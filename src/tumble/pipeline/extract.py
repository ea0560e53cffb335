"""From image files to micrographs and particles in a library."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tumble.errors import TumbleError
from tumble.library import Library
from tumble.micrograph import read_micrograph
from tumble.particles import extract_particles

__all__ = ["ExtractedFile", "ExtractionOptions", "ProgressCallback", "extract_into", "library_for_extraction"]

#: Called with what is being done, how many are done, and how many there are.
ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ExtractionOptions:
    """Settings of :func:`tumble.particles.extract_particles`, which documents them; for all files."""

    polarity: Literal["auto", "bright", "dark"] = "auto"
    threshold: Literal["local", "otsu"] | float = "local"
    smoothing_px: float = 1.0
    min_area_px: int | None = None
    max_area_px: int | None = None
    split_touching: bool = False
    border: Literal["flag", "drop"] = "flag"
    crop_size: int = 48
    window_px: int | None = None
    neighbours: Literal["mask", "keep"] = "mask"


@dataclass(frozen=True)
class ExtractedFile:
    """What became of one image file.

    Parameters
    ----------
    path : str
        The file, as given.
    micrograph_id : int
        Its id in the library.
    n_particles : int
        Particles of this micrograph in the library.
    added : bool
        False where the library held the same micrograph already; it is then unchanged, whatever the settings.
    notes : tuple of str
        What the reader changed on the way in, for example a conversion from RGB.
    """

    path: str
    micrograph_id: int
    n_particles: int
    added: bool
    notes: tuple[str, ...]


def extract_into(
    library: Library,
    paths: Sequence[str | os.PathLike[str]],
    *,
    pixel_size_nm: float | None = None,
    options: ExtractionOptions | None = None,
    progress: ProgressCallback | None = None,
) -> list[ExtractedFile]:
    """Read micrographs, extract their particles and store both.

    Each file is stored in one transaction of its own: an error or an interruption leaves the files before it
    stored.

    Parameters
    ----------
    library : Library
        An open library.
    paths : sequence of path
        Image files.
    pixel_size_nm : float, optional
        Edge of a pixel of all these images; what the files say if not given.
    options : ExtractionOptions, optional
        How to extract.
    progress : callable, optional
        Called with a text, the number of files done and their total.

    Returns
    -------
    list of ExtractedFile
        One for each file, in order.

    Raises
    ------
    TumbleError
        For the first file that cannot be used, with its name.
    """
    options = options or ExtractionOptions()
    results = []
    for done, path in enumerate(paths):
        if progress:
            progress("Extracting", done, len(paths))
        try:
            results.append(_extract_file(library, str(path), pixel_size_nm, options))
        except TumbleError as error:
            raise _with_context(error, str(path), done, len(paths)) from error
    if progress:
        progress("Extracting", len(paths), len(paths))
    return results


@contextmanager
def library_for_extraction(path: str | os.PathLike[str]) -> Iterator[Library]:
    """Open a library, or create it for the length of the block at least.

    A library that was created here and holds no micrograph when the block fails is removed again, so that a
    misspelt image name leaves nothing behind.

    Parameters
    ----------
    path : path or URL
        The library.

    Yields
    ------
    Library
    """
    text = os.fspath(path)
    file = None if "://" in text else Path(text).expanduser()
    is_new = file is not None and not file.exists()
    is_empty = False
    try:
        with Library(text, create=True) as library:
            try:
                yield library
            except BaseException:
                is_empty = library.micrographs().empty
                raise
    except BaseException:
        if file is not None and is_new and is_empty:
            file.unlink(missing_ok=True)
        raise


def _extract_file(
    library: Library, path: str, pixel_size_nm: float | None, options: ExtractionOptions
) -> ExtractedFile:
    micrograph = read_micrograph(path, pixel_size_nm=pixel_size_nm)
    micrographs = library.micrographs()
    known = micrographs.loc[micrographs["content_hash"] == micrograph.content_hash]
    if len(known):
        return ExtractedFile(
            path, int(known.index[0]), int(known["n_particles"].iloc[0]), added=False, notes=micrograph.notes
        )
    particles = extract_particles(micrograph, **asdict(options))
    micrograph_id = library.add_micrograph(micrograph, particles)
    return ExtractedFile(path, micrograph_id, len(particles), added=True, notes=micrograph.notes)


def _with_context(error: TumbleError, path: str, done: int, total: int) -> TumbleError:
    """Make sure that the message names the file, and says what is stored where there were several."""
    message = str(error) if path in str(error) else f"{path}: {error}"
    if total > 1:
        message += f" Of the {total} files, the {done} before this one are stored; this one left no trace."
    return type(error)(message)
