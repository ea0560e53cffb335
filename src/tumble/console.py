"""What the command line shows besides results: progress, log and errors, all on stderr.

On a terminal progress is a live bar; elsewhere (a log file, a pipe, a batch job) it is plain lines at a rate
that a log can bear. rich honours ``NO_COLOR``.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from tumble.errors import TumbleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from tumble.fit import EpochReport

__all__ = ["ProgressDisplay", "Settings", "guarded", "note", "result", "settings", "show_log"]

P = ParamSpec("P")
R = TypeVar("R")

EXIT_BUG = 1
EXIT_SYSTEM = 9
EXIT_INTERRUPTED = 130

#: A log needs a line often enough to show life, and seldom enough to stay readable.
PLAIN_INTERVAL_S = 5.0


@dataclass
class Settings:
    """What the options before the command's name set for the whole run."""

    debug: bool = False


settings = Settings()


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def result(text: str = "") -> None:
    """Write a line of results to stdout, never wrapped, so that it can be piped."""
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def note(text: str, *, style: str = "") -> None:
    """Write a line for the user to stderr."""
    _stderr().print(Text(text, style=style))


def show_log(level: int) -> None:
    """Send the log of `tumble` to stderr."""
    from rich.logging import RichHandler

    handler = RichHandler(console=_stderr(), show_path=False)
    logger = logging.getLogger("tumble")
    logger.handlers = [handler]
    logger.setLevel(level)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn exceptions of a command into one clear line on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except typer.Exit:
            raise
        except TumbleError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("Interrupted; what was stored before is intact.", EXIT_INTERRUPTED, prefix="")
        except BrokenPipeError:
            close_broken_pipe()
            raise typer.Exit(EXIT_BUG) from None
        except OSError as error:
            _fail(_describe_os_error(error), EXIT_SYSTEM)
        except MemoryError:
            _fail("The memory is full. Work on fewer or smaller images at a time.", EXIT_SYSTEM)
        except Exception as error:
            _fail(
                f"{type(error).__name__}: {error}. This is a bug in tumble: please report it with what "
                "`tumble --debug ...` prints for the same command.",
                EXIT_BUG,
            )

    return run


def _fail(message: str, code: int, *, prefix: str = "Error: ") -> NoReturn:
    """Print a message as one line, the traceback too where it was asked for, and exit."""
    if settings.debug:
        traceback.print_exc()
    note(prefix + " ".join(message.split()), style="bold red")
    raise typer.Exit(code)


def _describe_os_error(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{where}. Free some space and run the command again; nothing half-done was kept."
    return f"{error.strerror or error}{where}"


def close_broken_pipe() -> None:
    """Stop the interpreter from complaining at exit that nobody reads stdout any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ProgressDisplay:
    """How far a command is, as a context manager whose methods serve as the pipeline's callbacks.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._console = _stderr()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._last_line_s = float("-inf")

    def __enter__(self) -> ProgressDisplay:
        if not self.quiet and self._console.is_terminal:
            self._bar = _make_bar(self._console)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, text: str) -> None:
        """Show what is being done, where it cannot be known how far it is."""
        self._show(text, 0, 0, "")

    def advance(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self._show(what, done, total, "")

    def epoch(self, report: EpochReport) -> None:
        """Show an epoch of a fit: its number, losses, time passed and time left."""
        # The total first, whatever the order of its parts; three numbers fit beside the bar.
        names = sorted(report.losses, key=lambda name: name != "loss")[:3]
        losses = "  ".join(f"{name} {report.losses[name]:.4g}" for name in names)
        times = f"{format_duration(report.elapsed_s)} passed"
        if report.epoch < report.max_epochs:
            times += f", about {format_duration(report.remaining_s)} left"
        what = "Fitting" if report.stage == "training" else report.stage.capitalize()
        self._show(f"{what}, epoch", report.epoch, report.max_epochs, f"{losses}  {times}")

    def _show(self, what: str, done: int, total: int, detail: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            self._draw(self._bar, what, done, total, detail)
            return
        now = time.monotonic()
        if what != self._what or done == total or now - self._last_line_s >= PLAIN_INTERVAL_S:
            count = f" {done}/{total}" if total else " ..."
            self._console.print(Text(f"{what}{count}  {detail}".rstrip()))
            self._last_line_s = now
        self._what = what

    def _draw(self, bar: Progress, what: str, done: int, total: int, detail: str) -> None:
        if what != self._what or self._task is None:
            self._finish_task(bar)
            self._task = bar.add_task(what, total=total or None, detail=detail)
            self._what = what
        count = f"{done}/{total}  " if total else ""
        bar.update(self._task, completed=done, total=total or None, detail=count + detail)

    def _finish_task(self, bar: Progress) -> None:
        """Stop the spinner of the previous step: it is done when the next one begins."""
        if self._task is not None:
            total = bar.tasks[self._task].total or 1
            bar.update(self._task, total=total, completed=total)
            bar.stop_task(self._task)


def _make_bar(console: Console) -> Progress:
    # Imported here: `tumble --help` has no use for the live display.
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    )


def format_duration(seconds: float) -> str:
    """Write a duration as people say it.

    >>> format_duration(8.2), format_duration(185)
    ('8 s', '3 min 05 s')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
