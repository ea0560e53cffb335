"""The view of sizes: a histogram for each class, whose bars open their particles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import pandas as pd
from fastapi import APIRouter, Depends, Query, Request, Response

from tumble.app.colours import colours_of
from tumble.app.deps import LibraryDep
from tumble.app.downloads import FigureKind, csv_response, figure_response
from tumble.app.explore.colouring import size_unit
from tumble.app.explore.frame import ExploreView, model_of, models_with_predictions, render_view
from tumble.app.explore.histograms import Group, Histograms, make_histograms, round_step
from tumble.app.selection import encode_ids
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from tumble.library import Library

__all__ = ["VIEW"]

router = APIRouter(tags=["explore"])

VIEW = ExploreView(
    "Sizes",
    "/explore/sizes",
    "A histogram of diameters for each class, in nm where the pixel size is known. A bar opens its particles.",
    router,
)

_BY = {"class": "Class (model)", "label": "Label"}
_EDGE = {"out": "leave out", "in": "count"}
#: Of the drawing, in its own units; it is as wide as the page.
_WIDTH, _LEFT, _RIGHT, _TOP, _HEIGHT = 1000, 46, 10, 18, 96
_MOST_TICKS, _DIGIT = 14, 7.5


@dataclass(frozen=True, kw_only=True)
class SizesState:
    """What the view shows; all of it is in its address.

    Parameters
    ----------
    by : str
        "class" (of the model) or "label".
    unit : str
        "nm", "px", or "" for nm where it is known.
    width : float, optional
        Of a bar.
    edge : str
        "out" leaves out particles that the edge of their micrograph cuts off, "in" counts them.
    model : str, optional
        The newest that has predictions if not given.
    """

    by: str
    unit: str
    width: float | None
    edge: str
    model: str | None


def read_state(
    by: Annotated[str, Query(max_length=20)] = "",
    unit: Annotated[str, Query(max_length=2)] = "",
    width: Annotated[str, Query(max_length=30)] = "",
    edge: Annotated[str, Query(max_length=3)] = "out",
    model: Annotated[str, Query(max_length=200)] = "",
) -> SizesState:
    """Read what is shown from an address; an empty value is none."""
    for name, value, known in (("by", by, ("", *_BY)), ("unit", unit, ("", "nm", "px")), ("edge", edge, _EDGE)):
        if value not in known:
            raise ConfigError(f"{name}={value!r}: must be one of {', '.join(filter(None, known))}.")
    try:
        bar = float(width) if width else None
    except ValueError:
        bar = math.nan
    if bar is not None and not 1e-6 <= bar <= 1e9:
        raise ConfigError(f"width={width!r}: the width of a bar is a number above 0, from 0.000001 to a billion.")
    return SizesState(by=by, unit=unit, width=bar, edge=edge, model=model or None)


StateDep = Annotated[SizesState, Depends(read_state)]


@dataclass(frozen=True)
class _Shown:
    """The histograms, and what was chosen where the address leaves it open."""

    histograms: Histograms
    by: str
    model: str | None
    has_nm: bool


def _shown(library: Library, state: SizesState) -> _Shown:
    model = model_of(library, state.model)
    by = state.by or ("class" if model is not None else "label")
    if by == "class" and model is None:
        raise ConfigError("by='class': no model has classified the particles yet. Train one first, or use by=label.")
    table = library.sizes(model)
    best = size_unit(table)
    histograms = make_histograms(
        table,
        "predicted" if by == "class" else "label",
        colours=colours_of(library, model),
        unit=state.unit or best,
        width=state.width,
        whole_only=state.edge == "out",
    )
    return _Shown(histograms, by, model, best == "nm")


@router.get("/explore/sizes", include_in_schema=False)
def page(request: Request, library: LibraryDep, state: StateDep) -> Response:
    """Show the histograms, drawn here: they need no script."""
    shown = _shown(library, state)
    found = shown.histograms
    panels = [_panel(group, found, shown.by, state.model) for group in found.groups]
    context: dict[str, Any] = {
        "n_particles": sum(library.micrographs()["n_particles"].tolist()),
        "shown": shown,
        "found": found,
        "panels": panels,
        "ticks": _ticks(found),
        "state": state,
        "choices": {"by": _BY if shown.model else {"label": "Label"}, "edge": _EDGE},
        "models": models_with_predictions(library),
        "drawing": {"width": _WIDTH, "left": _LEFT, "top": _TOP, "height": _HEIGHT, "bottom": _TOP + _HEIGHT},
    }
    return render_view(request, "explore_sizes.html", context)


def _x(found: Histograms, value: float) -> float:
    low, high = found.edges[0], found.edges[-1]
    return round(float(_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)), 2)


def _ticks(found: Histograms) -> list[tuple[float, str]]:
    low, high = float(found.edges[0]), float(found.edges[-1])
    step = round_step((high - low) / _MOST_TICKS)
    values = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(_x(found, value), f"{value:.6g}") for value in values]


def _panel(group: Group, found: Histograms, by: str, model: str | None) -> dict[str, Any]:
    counts, most = group.counts, max(group.counts)
    bars = []
    for i, n in enumerate(counts):
        if not n:
            continue
        low, high = float(found.edges[i]), float(found.edges[i + 1])
        left, right = _x(found, low), _x(found, high)
        height = round(max(1.5, _HEIGHT * n / most), 2)
        bars.append(
            {
                "href": _link(group, i, found, by, model),
                "text": f"{group.name or _no_class(by)}, {low:g} to {high:g} {found.unit}: {n}",
                "x": left,
                "width": round(right - left - min(1.5, 0.1 * (right - left)), 2),
                "y": round(_TOP + _HEIGHT - height, 2),
                "height": height,
                "n": n if right - left >= _DIGIT * len(str(n)) else None,
            }
        )
    return {"name": group.name or _no_class(by), "group": group, "most": most, "bars": bars}


def _no_class(by: str) -> str:
    return "not classified" if by == "class" else "without label"


def _link(group: Group, i: int, found: Histograms, by: str, model: str | None) -> str:
    """Return the address of the gallery with the particles of one bar."""
    query: dict[str, str] = {}
    # The gallery has no filter for what a model has not classified, or what an edge cuts off.
    if group.simple[i] and not (by == "class" and group.name is None):
        if group.name is None:
            query["show"] = "unlabelled"
        else:
            query[by] = group.name
        low, high = float(found.edges[i]), float(found.edges[i + 1])
        query |= {"unit": found.unit, "from": repr(low), "to": repr(high)}
    else:
        query["ids"] = encode_ids(group.ids[i].tolist())
    if model is not None:
        query["model"] = model
    return f"/label?{urlencode(query)}"


@router.get("/explore/sizes.csv")
def export_csv(library: LibraryDep, state: StateDep) -> Response:
    """Return the bars as a table: class, bounds, unit and number of particles."""
    shown = _shown(library, state)
    found = shown.histograms
    rows = [
        (group.name or "", float(found.edges[i]), float(found.edges[i + 1]), found.unit, n)
        for group in found.groups
        for i, n in enumerate(group.counts)
    ]
    return csv_response(pd.DataFrame(rows, columns=["class", "from", "to", "unit", "n"]), "sizes", index=False)


@router.get("/explore/sizes.{kind}")
def export_figure(library: LibraryDep, state: StateDep, kind: FigureKind) -> Response:
    """Return the histograms as a figure."""
    from tumble.app.explore.figures import histogram_figure

    shown = _shown(library, state)
    make = partial(histogram_figure, shown.histograms, missing=_no_class(shown.by))
    return figure_response(make, kind, "sizes")
