"""The errors of `tumble`.

Every error that a user can cause is a :class:`TumbleError`. Its message names the file or argument,
says what was wrong with it and what to do. The command line prints the message and exits with
:attr:`TumbleError.exit_code`; a traceback is left for bugs.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "InputFileError",
    "LabelError",
    "LibraryError",
    "LibraryVersionError",
    "ModelFileError",
    "NotFittedError",
    "SchedulerError",
    "TumbleError",
]


class TumbleError(Exception):
    """Base of every error caused by input, files or settings rather than by a bug in `tumble`.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line for this kind of error.
    """

    exit_code: int = 2


class InputFileError(TumbleError):
    """An input file is missing, unreadable, of an unknown kind or without usable content."""

    exit_code = 3


class DataError(TumbleError, ValueError):
    """An array has the wrong shape, range or content (also a `ValueError`, as scikit-learn users expect)."""

    exit_code = 4


class LabelError(TumbleError, ValueError):
    """Labels are missing, too few, or do not fit the objects they are for (also a `ValueError`)."""

    exit_code = 5


class ConfigError(TumbleError, ValueError):
    """A setting has a value that it cannot have (also a `ValueError`)."""

    exit_code = 2


class LibraryError(TumbleError):
    """A library cannot be opened, read or written; what it held before is unchanged."""

    exit_code = 6


class LibraryVersionError(LibraryError):
    """A library was written with a newer schema than this version of `tumble` knows."""

    exit_code = 6


class ModelFileError(TumbleError):
    """A saved model is missing, incomplete, damaged or of a version that cannot be read."""

    exit_code = 7


class NotFittedError(TumbleError, ValueError, AttributeError):
    """A method that needs a fitted estimator was called before `fit`.

    It is a `ValueError` and an `AttributeError` for the same reason as scikit-learn's class of this name.
    """

    exit_code = 8


class SchedulerError(TumbleError):
    """A Dask cluster cannot be reached, has no workers, or loses them again and again; what was done is stored."""

    exit_code = 10
