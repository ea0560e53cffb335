"""The page Explore: a start page, and one module per view.

A view is a module with an :class:`ExploreView` named ``VIEW``; to add one, put it into :data:`VIEWS`.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tumble.app.deps import LibraryDep
from tumble.app.explore import agreement, bokeh_page, compare, confusion, manifold, micrograph, scatter, sizes
from tumble.app.explore.frame import ExploreView, render_view

__all__ = ["VIEWS", "ExploreView", "routers"]

#: In the order of the navigation.
VIEWS: tuple[ExploreView, ...] = (
    scatter.VIEW,
    manifold.VIEW,
    sizes.VIEW,
    micrograph.VIEW,
    confusion.VIEW,
    compare.VIEW,
    agreement.VIEW,
)

_start = APIRouter(tags=["explore"])


@_start.get("/explore", include_in_schema=False)
def start_page(request: Request, library: LibraryDep) -> Response:
    """Show which views there are."""
    micrographs = library.micrographs()
    context = {
        "n_micrographs": len(micrographs),
        "n_particles": sum(micrographs["n_particles"].tolist()),
        "model": library.predicting_model(),
    }
    return render_view(request, "explore_start.html", context)


def routers() -> list[APIRouter]:
    """Return the routes of the start page and of every view."""
    return [_start, bokeh_page.router, *(view.router for view in VIEWS)]
