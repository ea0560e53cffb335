"""Exports of the gallery: the particles of a view as a table, a contact sheet or crops, and a page as it is shown."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from tumble.app.colours import colours_of
from tumble.app.deps import LibraryDep
from tumble.app.downloads import FigureKind, figure_response
from tumble.app.gallery import view_page
from tumble.app.label_routes import ViewDep
from tumble.errors import ConfigError
from tumble.export import export_library
from tumble.library import Query as Question

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from tumble.app.gallery import View

__all__ = ["router"]

router = APIRouter(tags=["label"])

_PAGE = 2000
#: Pictures of more particles would be a file that nobody opens, and take minutes.
MOST_PICTURES = 20_000
#: Name in the address -> format of :mod:`tumble.export` and type of the answer.
_PICTURES = {
    "sheet.html": ("html", "text/html; charset=utf-8"),
    "sheet.pdf": ("pdf", "application/pdf"),
    "crops.zip": ("crops", "application/zip"),
}


@router.get("/export/labels.csv")
def export_labels(library: LibraryDep, view: ViewDep) -> Response:
    """Return the particles of a view as a table that `tumble label --csv` reads."""
    question = view.query()
    library.search(replace(question, limit=1))  # an error is said before the first line
    headers = {"Content-Disposition": 'attachment; filename="labels.csv"'}
    return StreamingResponse(_csv(library, question), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/export/sheet.html")
def export_html_sheet(library: LibraryDep, view: ViewDep) -> Response:
    """Return a contact sheet of a view as one web page."""
    return _pictures(library, view, "sheet.html")


@router.get("/export/sheet.pdf")
def export_pdf_sheet(library: LibraryDep, view: ViewDep) -> Response:
    """Return a contact sheet of a view as PDF."""
    return _pictures(library, view, "sheet.pdf")


@router.get("/export/crops.zip")
def export_crops(library: LibraryDep, view: ViewDep) -> Response:
    """Return the crops of a view as PNG files in a folder for each class."""
    return _pictures(library, view, "crops.zip")


@router.get("/export/page.{kind}")
def export_page(request: Request, library: LibraryDep, view: ViewDep, kind: FigureKind) -> Response:
    """Return a page of the gallery as a figure; particles that are named by `ids` in the order of their names."""
    from tumble.app.page_figures import gallery_figure  # takes a second to import

    particles = view_page(library, view, request.app.state.suggestions).particles
    if view.ids is not None:
        place = {particle: i for i, particle in enumerate(view.ids)}
        particles = sorted(particles, key=lambda one: place[one["id"]])
    if not particles:
        raise ConfigError("no particle meets all these conditions: there is nothing to export.")
    crops = [library.crops([one["id"]])[0] for one in particles]  # each alone: they may differ in size
    colours = colours_of(library)
    return figure_response(lambda: gallery_figure(crops, particles, colours), kind, "page")


def _pictures(library: Any, view: View, name: str) -> Response:
    format, media_type = _PICTURES[name]
    n = library.count(view.query())
    if n > MOST_PICTURES:
        raise ConfigError(
            f"this view has {n:,} particles; pictures are made of at most {MOST_PICTURES:,}. Choose fewer, or run "
            f"`tumble export --format {format}`."
        )
    ids = tuple(i for page in _pages(library, view.query()) for i in page.index.tolist())
    if not ids:
        raise ConfigError("no particle meets all these conditions: there is nothing to export.")
    by = "label" if view.label is not None or view.show == "labelled" else "predicted"
    with tempfile.TemporaryDirectory(prefix="tumble-export-") as folder:
        target = Path(folder) / name.removesuffix(".zip")
        written = export_library(library, target, format, model=view.model, particle_ids=ids, by=by)
        if name.endswith(".zip"):
            written = Path(shutil.make_archive(str(target), "zip", written))
        content = written.read_bytes()
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=headers)


def _pages(library: Any, question: Question) -> Iterator[pd.DataFrame]:
    """Yield the particles of a view, page by page; at least one page, which may be empty."""
    place: tuple[float, int] | None = None
    first = True
    while first or place is not None:
        page = library.search(replace(question, limit=_PAGE, after=place))
        yield page.particles
        place, first = page.next, False


def _csv(library: Any, question: Question) -> Iterator[str]:
    columns = ["label", "predicted", "probability", "novelty", "micrograph_id"]
    columns += ["equivalent_diameter_px", "equivalent_diameter_nm"]
    for i, table in enumerate(_pages(library, question)):
        yield table.reindex(columns=columns).to_csv(header=i == 0, lineterminator="\n")
