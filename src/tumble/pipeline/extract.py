"""From image files to micrographs and particles in a library."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tumble.errors import TumbleError
from tumble.library import Library
from tumble.micrograph import read_micrograph
from tumble.particles import extract_particles

if TYPE_CHECKING:
    from tumble.types import Micrograph, Particles

__all__ = ["ExtractedFile", "ExtractionOptions", "ProgressCallback", "extract_files", "extract_into"]

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
    return _extract_all(library, list(map(str, paths)), pixel_size_nm, options or ExtractionOptions(), progress)


def extract_files(
    library: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    *,
    pixel_size_nm: float | None = None,
    options: ExtractionOptions | None = None,
    progress: ProgressCallback | None = None,
) -> list[ExtractedFile]:
    """Do as :func:`extract_into`, and make the library where there is none.

    A new library is made only once the first image has given particles, so that a misspelt name leaves nothing
    behind, and nothing ever has to be removed that another process may have begun to use.

    Parameters
    ----------
    library : path or URL
        The library.
    paths, pixel_size_nm, options, progress
        As in :func:`extract_into`.

    Returns
    -------
    list of ExtractedFile
        One for each file, in order.

    Raises
    ------
    TumbleError
        For the first file that cannot be used, with its name.
    """
    text, files = os.fspath(library), list(map(str, paths))
    options = options or ExtractionOptions()
    first = None
    if files and "://" not in text and not Path(text).expanduser().exists():
        if progress:
            progress("Extracting", 0, len(files))
        try:
            first = _find(files[0], pixel_size_nm, options)
        except TumbleError as error:
            raise _with_context(error, files[0], 0, len(files)) from error
    with Library(text, create=True) as opened:
        return _extract_all(opened, files, pixel_size_nm, options, progress, first=first)


def _extract_all(
    library: Library,
    paths: list[str],
    pixel_size_nm: float | None,
    options: ExtractionOptions,
    progress: ProgressCallback | None,
    *,
    first: tuple[Micrograph, Particles] | None = None,
) -> list[ExtractedFile]:
    results = []
    for done, path in enumerate(paths):
        if progress:
            progress("Extracting", done, len(paths))
        try:
            ready = first if done == 0 else None
            results.append(_extract_file(library, path, pixel_size_nm, options, ready))
        except TumbleError as error:
            raise _with_context(error, path, done, len(paths)) from error
    if progress:
        progress("Extracting", len(paths), len(paths))
    return results


def _find(path: str, pixel_size_nm: float | None, options: ExtractionOptions) -> tuple[Micrograph, Particles]:
    micrograph = read_micrograph(path, pixel_size_nm=pixel_size_nm)
    return micrograph, extract_particles(micrograph, **asdict(options))


def _extract_file(
    library: Library,
    path: str,
    pixel_size_nm: float | None,
    options: ExtractionOptions,
    ready: tuple[Micrograph, Particles] | None,
) -> ExtractedFile:
    micrograph = ready[0] if ready else read_micrograph(path, pixel_size_nm=pixel_size_nm)
    micrographs = library.micrographs()
    known = micrographs.loc[micrographs["content_hash"] == micrograph.content_hash]
    if len(known):
        return ExtractedFile(
            path, int(known.index[0]), int(known["n_particles"].iloc[0]), added=False, notes=micrograph.notes
        )
    particles = ready[1] if ready else extract_particles(micrograph, **asdict(options))
    micrograph_id = library.add_micrograph(micrograph, particles, file_hash=_file_hash(path))
    return ExtractedFile(path, micrograph_id, len(particles), added=True, notes=micrograph.notes)


def _file_hash(path: str) -> str | None:
    """Return the SHA-256 of a file, None where the path names no single file (an image within one, a folder)."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _with_context(error: TumbleError, path: str, done: int, total: int) -> TumbleError:
    """Make sure that the message names the file, and says what is stored where there were several."""
    message = str(error) if path in str(error) else f"{path}: {error}"
    if total > 1:
        message += f" Of the {total} files, the {done} before this one are stored; this one left no trace."
    return type(error)(message)
