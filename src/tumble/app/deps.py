"""What routes ask for: the library, the templates, pages and errors in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from fastapi.templating import Jinja2Templates

from tumble.app.security import as_json
from tumble.library import Library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Response

__all__ = ["LibraryDep", "get_library", "library_name", "render", "templates"]

FOLDER = Path(__file__).parent
templates = Jinja2Templates(directory=FOLDER / "templates")
templates.env.filters["as_json"] = as_json


def get_library(request: Request) -> Library:
    """Return the opened library of the server that answers.

    Parameters
    ----------
    request : Request
        The request.

    Returns
    -------
    Library
        One for all requests; each of its methods is a transaction of its own.
    """
    return request.app.state.library


#: Type of a route's argument that is to be the library.
LibraryDep = Annotated[Library, Depends(get_library)]


def library_name(library: Library) -> str:
    """Return what people call a library: the name of its file."""
    return library.url.rstrip("/").rsplit("/", 1)[-1] or library.url


def render(request: Request, template: str, context: Mapping[str, Any], status: int = 200) -> Response:
    """Return a page.

    Parameters
    ----------
    request : Request
        The request.
    template : str
        Name of a file in ``templates``.
    context : mapping
        What the template shows; every value is escaped.
    status : int, default 200
        HTTP status.

    Returns
    -------
    Response
    """
    state = request.app.state
    common = {
        "navigation": state.navigation,
        "csrf_token": state.security.csrf_token,
        "library_name": library_name(state.library),
    }
    return templates.TemplateResponse(request, template, {**common, **context}, status_code=status)
