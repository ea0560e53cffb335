"""The folder of a fitted model: complete, or not there at all, also where a process is killed."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tumble.errors import ModelFileError

try:
    import fcntl
except ImportError:  # Windows: what a killed process left stays there
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MODEL_FILES", "check_target", "new_folder"]

logger = logging.getLogger(__name__)

MODEL_FILES = frozenset({"config.json", "weights.safetensors"})

#: What may be in a folder that a killed process left: files, and files that were being written.
_LEFT = MODEL_FILES | {f"{name}.part" for name in MODEL_FILES}


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuse early, before minutes of fitting, to write where something else is."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ModelFileError(f"{folder}: is not a folder. Give a new folder for the model.")
    content = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if content - MODEL_FILES:
        raise ModelFileError(
            f"{folder}: holds other things than a model ({min(content - MODEL_FILES)}). Give a new folder "
            "for the model; nothing was changed."
        )
    if content and not overwrite:
        raise ModelFileError(
            f"{folder}: holds a model already. Give another folder, or --overwrite to replace that model."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise ModelFileError(
            f"{folder}: cannot be made there ({error.strerror or error}). Give another folder for the model."
        ) from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to fill that takes the place of `folder` at the end, or vanishes if the block fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, since only there is a rename certain to be one step.
    with _locked(folder.parent):
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        lock = _lock(partial)
    try:
        partial.chmod(0o777 & ~_umask())
        yield partial
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.replace(old)
            partial.replace(folder)
            shutil.rmtree(old)
        else:
            partial.replace(folder)
        _remove_leftovers(folder)
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left beside a model; a folder that a living one fills is locked by it."""
    with _locked(folder.parent) as may_remove:
        beside = [entry for entry in folder.parent.iterdir() if entry.name.startswith(f".{folder.name}-")]
        for left in beside if may_remove else ():
            # The suffix is that of mkdtemp, and the content that of a model: anything else is not ours.
            suffix = left.name.removeprefix(f".{folder.name}-").removeprefix("old-")
            if len(suffix) != 8 or not left.is_dir() or {entry.name for entry in left.iterdir()} - _LEFT:
                continue
            lock = _lock(left)
            if lock is not None:
                logger.info("%s: removed, a killed process left it", left)
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keep other processes from making or removing folders here; give False where that is not possible."""
    lock = _lock(folder, wait=True)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, *, wait: bool = False) -> int | None:
    """Lock a folder until the descriptor is closed or the process dies, however it dies; None where it is locked."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system knows no locks
        os.close(descriptor)
        return None
    return descriptor


def _umask() -> int:
    """Read the process's umask: temporary folders are private, a model is as readable as any new folder."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
