"""The application: routes, errors in words, and what guards them."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from tumble._version import __version__
from tumble.app import explore, export_routes, label_routes, train_routes
from tumble.app.deps import FOLDER, render
from tumble.app.explore.decoders import Decoders
from tumble.app.images import CropStore
from tumble.app.runs import Runs, models_folder
from tumble.app.security import Guard, Security
from tumble.app.suggestions import Suggestions, begin_suggestions
from tumble.errors import TumbleError
from tumble.library import Library

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fastapi import APIRouter

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

#: What the navigation offers, where there is such a route.
_PAGES = (("Label", "/label"), ("Train", "/train"), ("Explore", "/explore"))


def _routers() -> list[APIRouter]:
    """Return the routes of every part of the page."""
    return [label_routes.router, export_routes.router, train_routes.router, *explore.routers()]


def create_app(
    library: Library | str | Path,
    *,
    security: Security | None = None,
    author: str = "unknown",
    models: Path | None = None,
) -> FastAPI:
    """Make the application that shows one library in a browser.

    Parameters
    ----------
    library : Library, str or Path
        An open library, which is left open, or the address of one, which is closed with the application.
    security : Security, optional
        Who may use it; this machine alone if not given.
    author : str
        Whose name labels are stored under.
    models : Path, optional
        Folder for models that are trained; beside the library if not given.

    Returns
    -------
    FastAPI
        An ASGI application.

    Raises
    ------
    LibraryError
        The library cannot be opened.
    """
    opened = library if isinstance(library, Library) else Library(library)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(begin_suggestions, opened, app.state.suggestions)
        await run_in_threadpool(label_routes.warm_up, opened, app.state.suggestions, app.state.crops)
        yield
        app.state.suggestions.close()
        if opened is not library:
            opened.close()

    app = FastAPI(title="tumble", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.library = opened
    app.state.security = security or Security()
    app.state.author = author
    app.state.crops = CropStore(opened)
    app.state.suggestions = Suggestions()
    address = opened.url if isinstance(library, Library) else os.fspath(library)
    folder = models_folder(address, models)
    app.state.runs = Runs(opened, address, folder)
    app.state.decoders = Decoders(opened, (folder.parent, folder))
    app.state.explore = explore.VIEWS
    routers = _routers()
    for router in routers:
        app.include_router(router)
    paths = {getattr(route, "path", None) for router in routers for route in router.routes}
    app.state.navigation = [page for page in _PAGES if page[1] in paths]
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.add_middleware(Guard, security=app.state.security)
    _add_errors(app)
    app.add_api_route("/", _start, include_in_schema=False)
    return app


def _start(request: Request) -> Response:
    navigation = request.app.state.navigation
    return RedirectResponse(navigation[0][1] if navigation else "/static/app.css", status_code=307)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(TumbleError)
    def wrong_input(request: Request, error: TumbleError) -> Response:
        return _error(request, 400, str(error))

    @app.exception_handler(RequestValidationError)
    def wrong_request(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return _error(request, 422, f"{where}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return _error(request, error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _error(
            request, 500, "Something went wrong in tumble itself; its log says what. Nothing stored was lost."
        )


def _error(request: Request, status: int, sentence: str) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": sentence}, status_code=status)
    phrase = next((known.phrase for known in HTTPStatus if known == status), "Error")
    if sentence == phrase:
        sentence = "There is no such page." if status == 404 else f"{phrase}."
    return render(request, "error.html", {"status": status, "phrase": phrase, "sentence": sentence}, status)
