"""Options of a search, and tables as text, for all commands that ask a library."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tumble.console import result
from tumble.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AuthorOption",
    "CsvOption",
    "LabelStateOption",
    "LabelsOption",
    "MeasurementOption",
    "MicrographsOption",
    "ModelNameOption",
    "NoveltyOption",
    "PredictedOption",
    "ProbabilityOption",
    "parse_range",
    "parse_ranges",
    "print_table",
    "user_name",
]

ModelNameOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of the model. Default: the newest with predictions.")
]
PredictedOption = Annotated[
    list[str] | None, typer.Option("--class", "-c", help="Predicted class; may be given several times.")
]
ProbabilityOption = Annotated[
    str | None, typer.Option(help="Range of the probability of that class: 0.5..0.9, ..0.6 or 0.95..")
]
NoveltyOption = Annotated[str | None, typer.Option(help="Range of the model's novelty, for example 1..")]
MeasurementOption = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", help="Range of a measurement: equivalent_diameter_nm=5..20; may be repeated."),
]
MicrographsOption = Annotated[
    list[int] | None, typer.Option("--micrograph", help="Number of a micrograph; may be given several times.")
]
LabelsOption = Annotated[list[str] | None, typer.Option("--label", help="Present label; may be given several times.")]
LabelStateOption = Annotated[str, typer.Option("--labels", help="any, labelled, unlabelled or contested.")]
AuthorOption = Annotated[str | None, typer.Option(help="Who. Default: your user name.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="As comma-separated text, for other programs.")]


def parse_range(text: str | None, name: str) -> tuple[float | None, float | None]:
    """Read a range of numbers.

    Parameters
    ----------
    text : str or None
        ``LOW..HIGH`` of which one may be missing, or a number that is both; None for no bounds.
    name : str
        What it is the range of, for messages.

    Returns
    -------
    tuple of float or None
        Lowest and highest value.

    Raises
    ------
    ConfigError
        If it is none of these.

    Examples
    --------
    >>> parse_range("0.5..0.9", "p"), parse_range("..3", "p"), parse_range("7", "p")
    ((0.5, 0.9), (None, 3.0), (7.0, 7.0))
    """
    if text is None:
        return (None, None)
    low, dots, high = text.strip().partition("..")
    try:
        bounds = tuple(float(part) if part.strip() else None for part in (low, high if dots else low))
    except ValueError:
        bounds = (None, None)
    if bounds == (None, None):
        raise ConfigError(f"{name} {text!r}: is no range. Write for example 0.5..0.9, ..0.9 or 0.5..")
    return (bounds[0], bounds[1])


def parse_ranges(texts: list[str] | None) -> dict[str, tuple[float | None, float | None]]:
    """Read ranges of measurements.

    Parameters
    ----------
    texts : list of str or None
        Each ``NAME=RANGE``.

    Returns
    -------
    dict of str to range

    Raises
    ------
    ConfigError
        If one is not of this form.
    """
    found = {}
    for text in texts or ():
        name, equals, bounds = text.partition("=")
        if not equals:
            raise ConfigError(f"--where {text!r}: is not NAME=RANGE. Write for example equivalent_diameter_nm=5..20.")
        found[name.strip()] = parse_range(bounds, f"--where {name.strip()}=")
    return found


def user_name() -> str:
    """Return the name of the user, "unknown" where there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"


def print_table(frame: pd.DataFrame, *, as_csv: bool = False, index: bool = True) -> None:
    """Write a table to stdout, as aligned text or as CSV.

    Parameters
    ----------
    frame : DataFrame
        What to write.
    as_csv : bool
        Comma-separated, with all digits.
    index : bool
        With the index as first column.
    """
    if as_csv:
        result(frame.to_csv(index=index).rstrip("\n"))
        return
    if frame.empty:
        return
    shown = frame.reset_index() if index else frame
    result(shown.to_string(index=False, na_rep="-", formatters=_formatters(shown)))


def _formatters(frame: pd.DataFrame) -> dict[Any, Any]:
    def short(value: Any) -> str:
        return "-" if value is None or value != value else f"{value:.4g}"

    def text(value: Any) -> str:
        return "-" if value is None or value != value else str(value)

    return {name: short if frame[name].dtype.kind == "f" else text for name in frame.columns}
