"""From image files to micrographs and particles in a library."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tumble.errors import ConfigError, DataError, TumbleError
from tumble.library import Library
from tumble.micrograph import iter_micrographs
from tumble.pipeline.extraction import Annotations, ExtractionOptions, find_particles

if TYPE_CHECKING:
    from tumble.types import Micrograph, Particles

__all__ = [
    "Annotations",
    "ExtractedFile",
    "ExtractionOptions",
    "ProgressCallback",
    "extract_files",
    "extract_into",
]

#: Called with what is being done, how many are done, and how many there are.
ProgressCallback = Callable[[str, int, int], None]

logger = logging.getLogger(__name__)

#: Crops of two micrographs whose scales differ by more than this do not show sizes alike.
SCALE_TOLERANCE = 0.01


@dataclass(frozen=True)
class ExtractedFile:
    """What became of one image.

    Parameters
    ----------
    path : str
        The file as given, with ``[frame]`` for a frame of a stack.
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
    annotations: Annotations | None = None,
    banner: Literal["exclude", "keep"] = "exclude",
    progress: ProgressCallback | None = None,
) -> list[ExtractedFile]:
    """Read micrographs, extract their particles and store both.

    Each image is stored in one transaction of its own: an error or an interruption leaves the images before it
    stored. Every frame of a stack is an image of its own; one without particles is skipped with a warning.

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
    annotations : Annotations, optional
        Where the particles are, if that was found elsewhere; for one image, or for several in one COCO file.
    banner : {"exclude", "keep"}, default="exclude"
        Whether the data banner below an image is cut off.
    progress : callable, optional
        Called with a text, the number of files done and their total.

    Returns
    -------
    list of ExtractedFile
        One for each image, in order.

    Raises
    ------
    TumbleError
        For the first file that cannot be used, with its name.
    """
    task = _Task(list(map(str, paths)), pixel_size_nm, options or ExtractionOptions(), annotations, banner, progress)
    return task.store(library, task.found(library))


def extract_files(
    library: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    *,
    pixel_size_nm: float | None = None,
    options: ExtractionOptions | None = None,
    annotations: Annotations | None = None,
    banner: Literal["exclude", "keep"] = "exclude",
    progress: ProgressCallback | None = None,
) -> list[ExtractedFile]:
    """Do as :func:`extract_into`, and make the library where there is none.

    A new library is made only once the first image has given particles, so that a misspelt name leaves nothing
    behind, and nothing ever has to be removed that another process may have begun to use.

    Parameters
    ----------
    library : path or URL
        The library.
    paths, pixel_size_nm, options, annotations, banner, progress
        As in :func:`extract_into`.

    Returns
    -------
    list of ExtractedFile
        One for each image, in order.

    Raises
    ------
    TumbleError
        For the first file that cannot be used, with its name.
    """
    text = os.fspath(library)
    task = _Task(list(map(str, paths)), pixel_size_nm, options or ExtractionOptions(), annotations, banner, progress)
    if "://" in text or Path(text).expanduser().exists():
        with Library(text, create=True) as opened:
            return task.store(opened, task.found(opened))
    found = task.found(None)
    first = list(itertools.islice(found, 1))
    with Library(text, create=True) as opened:
        return task.store(opened, itertools.chain(first, found))


@dataclass(frozen=True)
class _Found:
    """An image with its particles, or one that the library holds already."""

    path: str
    number: int
    micrograph: Micrograph
    particles: Particles | None


@dataclass(frozen=True)
class _Task:
    """What is to be extracted, and how."""

    paths: list[str]
    pixel_size_nm: float | None
    options: ExtractionOptions
    annotations: Annotations | None
    banner: Literal["exclude", "keep"]
    progress: ProgressCallback | None

    def found(self, library: Library | None) -> Iterator[_Found]:
        """Images with their particles, one after the other; without particles where the library has the image."""
        _check_annotations(self.annotations, self.paths)
        known = _known(library) if library is not None else {}
        for number, path in enumerate(self.paths):
            if self.progress:
                self.progress("Extracting", number, len(self.paths))
            try:
                yield from self._frames(path, number, known)
            except TumbleError as error:
                raise _with_context(error, path, number, len(self.paths)) from error
        if self.progress:
            self.progress("Extracting", len(self.paths), len(self.paths))

    def _frames(self, path: str, number: int, known: Container[str]) -> Iterator[_Found]:
        last_error: TumbleError | None = None
        any_found = False
        for micrograph in iter_micrographs(path, pixel_size_nm=self.pixel_size_nm, banner=self.banner):
            if micrograph.content_hash in known:
                any_found = True
                yield _Found(path, number, micrograph, None)
                continue
            try:
                particles = find_particles(micrograph, self.options, self.annotations)
            except DataError as error:
                if "frame" not in micrograph.metadata:
                    raise
                logger.warning("Skipped: %s", error)
                last_error = error
                continue
            any_found = True
            yield _Found(path, number, micrograph, particles)
        if not any_found and last_error is not None:
            raise last_error

    def store(self, library: Library, found: Iterator[_Found]) -> list[ExtractedFile]:
        """Add images to a library as they come."""
        results: list[ExtractedFile] = []
        known, scales = _known(library), _ScaleWatch(library)
        for item in found:
            micrograph, particles = item.micrograph, item.particles
            if particles is None or micrograph.content_hash in known:
                held = known[micrograph.content_hash]
                results.append(ExtractedFile(micrograph.source, *held, added=False, notes=micrograph.notes))
                continue
            scales.look_at(micrograph, particles)
            try:
                micrograph_id = library.add_micrograph(micrograph, particles, file_hash=_file_hash(item.path))
            except TumbleError as error:
                raise _with_context(error, item.path, item.number, len(self.paths)) from error
            known[micrograph.content_hash] = micrograph_id, len(particles)
            results.append(
                ExtractedFile(micrograph.source, micrograph_id, len(particles), added=True, notes=micrograph.notes)
            )
        return results


def _check_annotations(annotations: Annotations | None, paths: list[str]) -> None:
    if annotations is not None and len(paths) > 1 and not annotations.path.lower().endswith(".json"):
        raise ConfigError(
            f"{annotations.path}: says where the particles of one image are, but {len(paths)} images are given. Give "
            "one image at a time, or a COCO file that names its images."
        )


def _known(library: Library) -> dict[str, tuple[int, int]]:
    """Id and number of particles of the micrographs that a library holds, by the hash of their content."""
    held = library.micrographs()
    rows = zip(held["content_hash"], held.index, held["n_particles"], strict=True)
    return {content: (int(number), int(n_particles)) for content, number, n_particles in rows}


class _ScaleWatch:
    """Warns once where crops of one library differ in scale, so that a size in one is not a size in the other."""

    def __init__(self, library: Library) -> None:
        self._warned = False
        self._first: tuple[str, float | None] | None = None
        micrographs = library.micrographs()
        if len(micrographs):
            row = micrographs.iloc[0]
            self._first = (row["source"], _crop_scale(row["extraction"], row["pixel_size_nm"]))

    def look_at(self, micrograph: Micrograph, particles: Particles) -> None:
        """Compare the scale of new crops with the first of the library."""
        scale = _crop_scale(particles.parameters, micrograph.pixel_size_nm)
        if self._first is None:
            self._first = (micrograph.source, scale)
        source, first = self._first
        if self._warned or first == scale:
            return
        if first is None or scale is None:
            unknown, other = (source, micrograph.source) if first is None else (micrograph.source, source)
            logger.warning(
                "The pixel size of %s is not known, that of %s is: their crops may differ in scale. Give it with "
                "--pixel-size (pixel_size_nm).",
                unknown,
                other,
            )
        elif abs(scale / first - 1) > SCALE_TOLERANCE:
            logger.warning(
                "The crops of %s show %.4g nm per px, those of %s %.4g: sizes in them do not compare. Extract all with "
                "one --crop-nm-per-px (crop_nm_per_px).",
                micrograph.source,
                scale,
                source,
                first,
            )
        else:
            return
        self._warned = True


def _crop_scale(settings: Mapping[str, Any], pixel_size_nm: float | None) -> float | None:
    """Nanometres per pixel of the crops of a micrograph, None where that is not known."""
    if pixel_size_nm is None or pixel_size_nm != pixel_size_nm:
        return None
    stored = settings.get("crop_nm_per_px")
    if stored is not None:
        return float(stored)
    size = settings.get("crop_size")
    return None if not size else float(settings.get("window_px") or size) / size * float(pixel_size_nm)


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
    if total > 1 and "before this one are stored" not in message:
        message += f" Of the {total} files, the {done} before this one are stored; this one left no trace."
    return type(error)(message)
