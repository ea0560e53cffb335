"""What pages give to be saved: tables and figures as files."""

from __future__ import annotations

import io
import warnings
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from fastapi import Response

from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["FigureKind", "csv_response", "figure_response"]

FigureKind = Literal["png", "svg"]
_DRAWING = Lock()
_MIME = {"png": "image/png", "svg": "image/svg+xml"}


def csv_response(table: pd.DataFrame, name: str, *, index: bool = True) -> Response:
    """Return a table as a CSV file to be saved.

    Parameters
    ----------
    table : DataFrame
        What the view shows.
    name : str
        Name of the file, without suffix; not from outside.
    index : bool, default True
        Write the index.
    """
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    text = table.to_csv(index=index, lineterminator="\n")
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


def figure_response(figure: Figure | Callable[[], Figure], kind: str, name: str, *, dpi: int = 150) -> Response:
    """Return a figure as a file to be saved.

    Parameters
    ----------
    figure : Figure or callable
        As :mod:`tumble.report.figures` makes it, or what makes it; one is drawn at a time.
    kind : {"png", "svg"}
        Format.
    name : str
        Name of the file, without suffix; not from outside.
    dpi : int, default 150
        Resolution of what is pixels.

    Raises
    ------
    ConfigError
        There is no such format.
    """
    from tumble.report.style import figure_style

    if kind not in _MIME:
        raise ConfigError(f"format {kind!r}: figures are exported as {' and '.join(_MIME)}.")
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    # Matplotlib's settings are those of the process, and requests are answered in threads.
    with _DRAWING, figure_style(), warnings.catch_warnings():
        # A class may have a name in letters that the figure's font lacks; the page has it in full.
        warnings.filterwarnings("ignore", message=".*missing from font.*")
        drawn = figure() if callable(figure) else figure
        drawn.savefig(buffer, format=kind, dpi=dpi, **options)
    headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
    return Response(buffer.getvalue(), media_type=_MIME[kind], headers=headers)
