"""What all explore views share: how they are registered and drawn, and the colours of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from tumble.app.deps import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tumble.library import Library

__all__ = [
    "ExploreView",
    "model_of",
    "models_with_predictions",
    "render_view",
]


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
