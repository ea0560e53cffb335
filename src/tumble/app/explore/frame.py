"""What all explore views share: how they are registered and drawn, the colours of classes, and their exports."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request, Response

from tumble.app.deps import render
from tumble.errors import ConfigError
from tumble.library.classes import CLASS_COLOURS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from matplotlib.figure import Figure

    from tumble.library import Library

__all__ = [
    "ExploreView",
    "FigureKind",
    "colours_of",
    "csv_response",
    "figure_response",
    "model_of",
    "models_with_predictions",
    "render_view",
]

FigureKind = Literal["png", "svg"]
_DRAWING = Lock()
_MIME = {"png": "image/png", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class ExploreView:
    """One view of the page Explore.

    Parameters
    ----------
    title : str
        What the navigation calls it.
    path : str
        Address, below ``/explore/``.
    about : str
        One sentence for the start page.
    router : APIRouter
        Its routes: the page, what the page asks for, and the exports.
    """

    title: str
    path: str
    about: str
    router: APIRouter


def render_view(request: Request, template: str, context: Mapping[str, Any], status: int = 200) -> Response:
    """Return a page of Explore; the template extends ``explore.html`` and fills its block ``view``.

    Parameters
    ----------
    request : Request
        The request.
    template : str
        Name of a file in ``templates``.
    context : mapping
        What the template shows; every value is escaped. ``views`` is added.
    status : int, default 200
        HTTP status.

    Returns
    -------
    Response
    """
    return render(request, template, {"views": request.app.state.explore, **context}, status)


def model_of(library: Library, name: str | None) -> str | None:
    """Return the model that a view shows: the one that is named, or the newest with predictions, or None.

    Raises
    ------
    LibraryError
        There is no model of that name.
    """
    return library.model_record(name).name if name else library.predicting_model()


def models_with_predictions(library: Library) -> list[str]:
    """Return the names of the models that have classified particles, the newest first."""
    models = library.models()
    newest = models[~models["name"].duplicated(keep="last")]
    return [str(name) for name in newest.loc[newest["n_predictions"] > 0, "name"][::-1]]


def colours_of(library: Library, model: str | None = None) -> dict[str, str]:
    """Return the colour of each class, the same as in the gallery.

    Parameters
    ----------
    library : Library
        The open library.
    model : str, optional
        Its classes are added where nobody labelled with them.

    Returns
    -------
    dict of str to str
        Hexadecimal colours, in the order of the classes.
    """
    colours = {str(name): str(colour) for name, colour in library.classes()["colour"].items()}
    for name in library.model_record(model).classes if model else ():
        if name not in colours:
            colours[name] = CLASS_COLOURS[len(colours) % len(CLASS_COLOURS)]
    return colours


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
