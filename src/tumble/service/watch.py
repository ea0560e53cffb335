"""A folder into which an instrument saves: new micrographs go into a library and are classified.

The folder is looked through again and again rather than watched by the system: changes that another machine makes on a
network drive are not reported to anyone.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tumble.errors import ConfigError, DataError, LibraryError, ModelFileError, TumbleError
from tumble.library import Library, Query
from tumble.micrograph import READABLE_SUFFIXES
from tumble.pipeline import ExtractionOptions, classify_library, extract_files

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

__all__ = ["FolderWatch", "WatchSettings", "WatchedFile", "crop_size_of"]

logger = logging.getLogger(__name__)

#: Kinds that are folders of many files, of which nothing says when they are complete.
_FOLDERS = (".zarr", ".zspy")

#: Seconds to the next try of a file that cannot be read, doubled after each.
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class WatchSettings:
    """How a folder is watched.

    Parameters
    ----------
    settle_s : float
        A file is read when its size and time have not changed for so long.
    interval_s : float
        Time between two looks into the folder.
    max_tries : int
        How often a file that cannot be used is tried, with longer and longer pauses, before it is left alone until it
        changes. Where it is the library that cannot be used, its images are tried until it can.
    recursive : bool
        Whether folders within the folder belong to it.
    pixel_size_nm : float or None
        Edge of a pixel of all images; what the files say if None.
    options : ExtractionOptions or None
        How particles are found; None takes the defaults with the size of crop that the model takes.
    banner : {"exclude", "keep"}
        Whether the data banner below an image is cut off.
    """

    settle_s: float = 2.0
    interval_s: float = 1.0
    max_tries: int = 8
    recursive: bool = False
    pixel_size_nm: float | None = None
    options: ExtractionOptions | None = None
    banner: Literal["exclude", "keep"] = "exclude"

    def __post_init__(self) -> None:
        if self.settle_s < 0 or self.interval_s <= 0 or self.max_tries < 1:
            raise ConfigError("settle_s must be at least 0, interval_s above 0, and max_tries at least 1.")


@dataclass(frozen=True)
class WatchedFile:
    """What became of a file.

    Parameters
    ----------
    path : Path
        The file.
    state : {"added", "known", "later", "failed"}
        Whether its images were added, were in the library already, are tried again, or cannot be used.
    n_particles : int
        Particles of its images.
    counts : dict of str to int
        Particles by predicted class.
    message : str
        Why it is not added.
    """

    path: Path
    state: Literal["added", "known", "later", "failed"]
    n_particles: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    message: str = ""


@dataclass
class _Seen:
    """What is known of a file in the folder."""

    stamp: tuple[int, int]
    since_s: float
    tries: int = 0
    next_try_s: float = 0.0
    done: bool = False


class FolderWatch:
    """Takes micrographs from a folder as they come.

    Nothing is kept beside the library, which knows the images that it has by their content: after a restart, or where a
    file was copied, nothing is done twice, and particles that were stored but not classified are classified.

    Parameters
    ----------
    folder : path
        The folder.
    library : path or URL
        The library; made with the first image that has particles.
    model : path
        Folder of a saved model.
    settings : WatchSettings, optional
        How to watch.
    on_file : callable, optional
        Called with a :class:`WatchedFile` when something became of a file.

    Raises
    ------
    ConfigError
        If there is no such folder.
    ModelFileError
        If the model cannot be used.
    TumbleError
        If the library cannot be used with this model.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        library: str | os.PathLike[str],
        model: str | os.PathLike[str],
        *,
        settings: WatchSettings | None = None,
        on_file: Callable[[WatchedFile], None] | None = None,
    ) -> None:
        self.folder, self.library, self.model = Path(folder).expanduser(), os.fspath(library), Path(model).expanduser()
        self.settings = settings or WatchSettings()
        self._on_file = on_file
        self._seen: dict[Path, _Seen] = {}
        self._lost = False
        self._once = False
        if not self.folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder to watch; make it, or check the name.")
        if not self.model.is_dir():
            raise ModelFileError(f"{model}: is no folder of a model. An exported classifier gives no latent factors.")
        self._options = self.settings.options or ExtractionOptions(crop_size=crop_size_of(self.model))
        self._classify_what_is_missing()

    def run(self, *, once: bool = False, stop: threading.Event | None = None) -> list[WatchedFile]:
        """Take files until told to stop.

        Parameters
        ----------
        once : bool, default=False
            Stop when everything that lies in the folder has been dealt with.
        stop : threading.Event, optional
            Stop when it is set.

        Returns
        -------
        list of WatchedFile
            With `once`, the last word on each file; else empty: a watch may run for months.
        """
        last: dict[Path, WatchedFile] = {}
        self._once = once
        while not (stop is not None and stop.is_set()):
            found = self.look()
            if once:
                last |= {item.path: item for item in found}
                if all(seen.done for seen in self._seen.values()):
                    break
            if stop is not None:
                stop.wait(self.settings.interval_s)
            else:
                time.sleep(self.settings.interval_s)
        return list(last.values())

    def look(self) -> list[WatchedFile]:
        """Look into the folder once, and take what is complete.

        Returns
        -------
        list of WatchedFile
            What became of the files that were tried.
        """
        found = []
        for path in self._settled():
            item = self._take(path)
            found.append(item)
            self._note(item)
        return found

    def _settled(self) -> list[Path]:
        """Files that have not changed for a while and are not dealt with, oldest first."""
        now, wall = time.monotonic(), time.time()
        present: dict[Path, tuple[int, int]] = {}
        try:
            for path in self._files():
                try:
                    status = path.stat()
                except OSError:  # moved away since
                    continue
                present[path] = (status.st_size, status.st_mtime_ns)
        except OSError as error:
            if not self._lost:
                logger.warning("%s: cannot be looked into (%s); waiting for it.", self.folder, error.strerror or error)
            self._lost = True
            return []
        self._lost = False
        for path in self._seen.keys() - present.keys():
            del self._seen[path]
        for path, stamp in present.items():
            seen = self._seen.get(path)
            if seen is None:
                # What was there long before the watch began need not prove itself again.
                age = max(0.0, min(wall - stamp[1] / 1e9, self.settings.settle_s))
                self._seen[path] = _Seen(stamp, now - age)
            elif seen.stamp != stamp:
                self._seen[path] = _Seen(stamp, now)
        ready = [
            path
            for path, seen in self._seen.items()
            if not seen.done
            and seen.stamp[0] > 0
            and now - seen.since_s >= self.settings.settle_s
            and now >= seen.next_try_s
        ]
        return sorted(ready, key=lambda path: (self._seen[path].stamp[1], path))

    def _files(self) -> Iterator[Path]:
        pattern = "**/*" if self.settings.recursive else "*"
        if not self.folder.is_dir():
            raise FileNotFoundError(2, "there is no such folder any more", str(self.folder))
        for path in self.folder.glob(pattern):
            suffix = path.suffix.lower()
            if suffix in READABLE_SUFFIXES and suffix not in _FOLDERS and path.name[0] not in "._~" and path.is_file():
                yield path

    def _take(self, path: Path) -> WatchedFile:
        """Extract and classify one file; whatever goes wrong with it, the next one gets its turn."""
        seen, may_give_up = self._seen[path], True
        try:
            item = self._extract_and_classify(path)
            seen.done = True
            return item
        except (TumbleError, OSError, MemoryError) as error:
            reason = " ".join(str(error).split()) or "the memory is full"
            # Not the fault of the image: the library is locked, or its server away, and will be there again.
            may_give_up = self._once or not isinstance(error, LibraryError)
        except Exception as error:
            logger.exception("%s: a bug in tumble", path)
            reason = f"{type(error).__name__}: {error}. This is a bug in tumble: please report it."
        return self._failed(path, seen, reason, may_give_up)

    def _failed(self, path: Path, seen: _Seen, reason: str, may_give_up: bool) -> WatchedFile:
        seen.tries += 1
        if may_give_up and seen.tries >= self.settings.max_tries:
            seen.done = True
            return WatchedFile(path, "failed", message=reason)
        # A copy over the network may have its full length long before its content.
        pause = min(_LONGEST_PAUSE_S, self.settings.settle_s * 2 ** min(seen.tries, 30))
        seen.next_try_s = time.monotonic() + pause
        return WatchedFile(path, "later", message=reason)

    def _extract_and_classify(self, path: Path) -> WatchedFile:
        settings = self.settings
        files = extract_files(
            self.library,
            [path],
            pixel_size_nm=settings.pixel_size_nm,
            options=self._options,
            banner=settings.banner,
        )
        with Library(self.library) as library:
            done = classify_library(library, self.model)
            ids = tuple(file.micrograph_id for file in files)
            counts = library.predicted_counts(Query(model=done.model_name, micrograph_ids=ids)).sum()
        return WatchedFile(
            path,
            "added" if any(file.added for file in files) else "known",
            sum(file.n_particles for file in files),
            {str(name): int(count) for name, count in counts.items()},
        )

    def _classify_what_is_missing(self) -> None:
        """Finish what an earlier run began; also shows at once whether library and model fit each other."""
        if "://" not in self.library and not Path(self.library).expanduser().exists():
            return
        with Library(self.library, create="://" in self.library) as library:
            if len(library.particle_ids()):
                classify_library(library, self.model)

    def _note(self, item: WatchedFile) -> None:
        if item.state == "later":
            logger.info("%s: tried again later: %s", item.path, item.message)
        if self._on_file:
            self._on_file(item)


def crop_size_of(model: str | os.PathLike[str]) -> int:
    """Give the side of the crops that a saved model takes, in px.

    Raises
    ------
    ModelFileError
        If there is no such model or it is damaged.
    DataError
        If it takes no square grey crops.
    """
    from tumble.estimators import SSRVAEClassifier

    channels, height, width = SSRVAEClassifier.load(model).model_.config.image_shape
    if channels != 1 or height != width:
        raise DataError(f"{model}: takes {height} x {width} px in {channels} channels, not square grey crops.")
    return height
