"""How far files are trusted: narrower for those that came from a stranger than for the user's own."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_FRAME_PX", "ReadLimits", "read_limits", "reading_within"]

#: Pixels of one frame. Extraction holds several copies in 32-bit floats, some 10 GB at this size.
MAX_FRAME_PX = 2**29


@dataclass(frozen=True)
class ReadLimits:
    """What readers may do with a file.

    Parameters
    ----------
    max_frame_px : int
        Pixels of one frame; a file that promises more is refused before it is decoded.
    companions : bool
        Whether further files that the file names are opened (an OME-TIFF may spread over several).
    """

    max_frame_px: int = MAX_FRAME_PX
    companions: bool = True


_DEFAULT = ReadLimits()
_limits: ContextVar[ReadLimits] = ContextVar("tumble_read_limits")


def read_limits() -> ReadLimits:
    """Give the limits that hold in this thread or task."""
    return _limits.get(_DEFAULT)


@contextmanager
def reading_within(limits: ReadLimits) -> Iterator[None]:
    """Let other limits hold for what is read in this thread or task.

    Parameters
    ----------
    limits : ReadLimits
        The limits.

    Examples
    --------
    >>> with reading_within(ReadLimits(max_frame_px=1000)):
    ...     read_limits().max_frame_px
    1000
    """
    token = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(token)
