"""From image files to micrographs and particles in a library."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tumble.errors import ConfigError, DataError, SchedulerError, TumbleError
from tumble.library import Library
from tumble.micrograph import iter_micrographs, read_micrograph
from tumble.micrograph.read import open_frames
from tumble.pipeline.cluster import open_cluster
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
    scheduler: str | None = None,
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
    scheduler : str, optional
        Let the workers of a Dask cluster read and extract, see :func:`tumble.pipeline.open_cluster`; they must see the
        files under the same names. This process alone stores, in the order of the files, so that the library is the
        same as without.

    Returns
    -------
    list of ExtractedFile
        One for each image, in order.

    Raises
    ------
    TumbleError
        For the first file that cannot be used, with its name.
    """
    settings = _Settings(pixel_size_nm, options or ExtractionOptions(), annotations, banner)
    task = _Task(list(map(str, paths)), settings, progress, scheduler)
    with closing(task.found(library)) as found:
        return task.store(library, found)


def extract_files(
    library: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    *,
    pixel_size_nm: float | None = None,
    options: ExtractionOptions | None = None,
    annotations: Annotations | None = None,
    banner: Literal["exclude", "keep"] = "exclude",
    progress: ProgressCallback | None = None,
    scheduler: str | None = None,
) -> list[ExtractedFile]:
    """Do as :func:`extract_into`, and make the library where there is none.

    A new library is made only once the first image has given particles, so that a misspelt name leaves nothing
    behind, and nothing ever has to be removed that another process may have begun to use.

    Parameters
    ----------
    library : path or URL
        The library.
    paths, pixel_size_nm, options, annotations, banner, progress, scheduler
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
    settings = _Settings(pixel_size_nm, options or ExtractionOptions(), annotations, banner)
    task = _Task(list(map(str, paths)), settings, progress, scheduler)
    if "://" in text or Path(text).expanduser().exists():
        with Library(text, create=True) as opened, closing(task.found(opened)) as found:
            return task.store(opened, found)
    with closing(task.found(None)) as found:
        first = list(itertools.islice(found, 1))
        with Library(text, create=True) as opened:
            return task.store(opened, itertools.chain(first, found))


@dataclass(frozen=True)
class _Found:
    """An image with its particles; without, where the library holds it already or none were found in a frame."""

    path: str
    number: int
    micrograph: Micrograph
    particles: Particles | None
    error: DataError | None = None


@dataclass(frozen=True)
class _Settings:
    """How images are read and extracted, here or by a worker."""

    pixel_size_nm: float | None
    options: ExtractionOptions
    annotations: Annotations | None
    banner: Literal["exclude", "keep"]

    def look(self, path: str, number: int, micrograph: Micrograph, known: Container[str]) -> _Found:
        """Find the particles of an image that is not known yet."""
        if micrograph.content_hash in known:
            return _Found(path, number, micrograph, None)
        try:
            return _Found(path, number, micrograph, find_particles(micrograph, self.options, self.annotations))
        except DataError as error:
            if "frame" not in micrograph.metadata:
                raise
            return _Found(path, number, micrograph, None, error)


def _read_and_look(place: tuple[str, int, int], shared: tuple[_Settings, frozenset[str]]) -> _Found | TumbleError:
    """Do the share of a worker: one image of one file. An error is a result: it counts when it is its file's turn."""
    (path, number, frame), (settings, known) = place, shared
    try:
        micrograph = read_micrograph(path, pixel_size_nm=settings.pixel_size_nm, frame=frame, banner=settings.banner)
        found = settings.look(path, number, micrograph, known)
    except TumbleError as error:
        return error
    if found.particles is None:  # nobody needs the pixels; they need not travel
        found = replace(found, micrograph=replace(micrograph, pixels=micrograph.pixels[:1, :1].copy()))
    return found


@dataclass(frozen=True)
class _Task:
    """What is to be extracted, how and where."""

    paths: list[str]
    settings: _Settings
    progress: ProgressCallback | None
    scheduler: str | None = None

    def found(self, library: Library | None) -> Generator[_Found]:
        """Images with their particles, one after the other; without particles where the library has the image."""
        _check_annotations(self.settings.annotations, self.paths)
        known = _known(library) if library is not None else {}
        by_file = self._looked_at_here(known) if self.scheduler is None else self._looked_at_by_workers(known)
        with closing(by_file):  # workers are dismissed at once where this ends early
            for number, images in by_file:
                if self.progress:
                    self.progress("Extracting", number, len(self.paths))
                try:
                    yield from _usable(images)
                except SchedulerError:
                    raise
                except TumbleError as error:
                    raise _with_context(error, self.paths[number], number, len(self.paths)) from error
        if self.progress:
            self.progress("Extracting", len(self.paths), len(self.paths))

    def _looked_at_here(self, known: Container[str]) -> Generator[tuple[int, Iterator[_Found]]]:
        for number, path in enumerate(self.paths):
            micrographs = iter_micrographs(path, pixel_size_nm=self.settings.pixel_size_nm, banner=self.settings.banner)
            yield number, (self.settings.look(path, number, micrograph, known) for micrograph in micrographs)

    def _looked_at_by_workers(self, known: Iterable[str]) -> Generator[tuple[int, Iterator[_Found]]]:
        assert self.scheduler is not None
        with open_cluster(self.scheduler) as cluster:
            shared = self.settings, frozenset(known)
            with closing(cluster.in_order(_read_and_look, self._places(), shared)) as results:
                for number, group in itertools.groupby(results, key=lambda pair: pair[0][1]):
                    yield number, (_or_raise(result) for _, result in group)

    def _places(self) -> Iterator[tuple[str, int, int]]:
        """Path, number of the file, and number of the image in it; files are opened one after the other."""
        for number, path in enumerate(self.paths):
            try:
                with open_frames(path) as frames:
                    n_frames = frames.n
            except TumbleError:  # the worker will say so when it is the turn of this file
                n_frames = 1
            for frame in range(n_frames):
                yield path, number, frame

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


def _or_raise(result: _Found | TumbleError) -> _Found:
    if isinstance(result, TumbleError):
        raise result
    return result


def _usable(images: Iterator[_Found]) -> Iterator[_Found]:
    """Leave out frames of a stack without particles, with a warning, unless all are so."""
    last_error: DataError | None = None
    any_usable = False
    for found in images:
        if found.error is not None:
            logger.warning("Skipped: %s", found.error)
            last_error = found.error
            continue
        any_usable = True
        yield found
    if not any_usable and last_error is not None:
        raise last_error


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
