"""Where the images of a growing manifold lie in the folder of a run; the server reads them, the worker writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["filmed_epochs", "frame_path"]


def frame_path(folder: Path, epoch: int, k: int) -> Path:
    """Return the file of a class (by number) in the frame of an epoch."""
    return folder / "manifold" / f"{epoch:05d}" / f"{k}.png"


def filmed_epochs(folder: Path) -> list[int]:
    """Return the epochs of which there are frames."""
    return sorted(int(entry.name) for entry in (folder / "manifold").glob("[0-9]*") if entry.name.isdecimal())
