"""The latent scatter: any two coordinates, coloured by what is known of the particles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response

from tumble.app.colours import colours_of
from tumble.app.deps import LibraryDep
from tumble.app.downloads import FigureKind, csv_response, figure_response
from tumble.app.explore.bokeh_page import allow_styles, bokeh_version, new_nonce
from tumble.app.explore.colouring import COLOURS, Colouring, colour_by, size_unit
from tumble.app.explore.frame import ExploreView, model_of, models_with_predictions, render_view
from tumble.app.images import library_key
from tumble.app.selection import LONGEST_SELECTION, decode_ids
from tumble.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from tumble.library import Library

__all__ = ["MOST_POINTS", "VIEW"]

router = APIRouter(tags=["explore"])

#: Points that a browser draws in about a second; of larger libraries a sample is shown.
MOST_POINTS = 100_000
_FARTHEST = 1e9
#: Coordinates beside the latent ones.
_OTHERS = {"size": "equivalent diameter", "probability": "probability", "novelty": "novelty"}

VIEW = ExploreView(
    "Latent space",
    "/explore/scatter",
    "Particles where the model puts them, coloured by class, probability, size or micrograph. Select with a lasso.",
    router,
)


@dataclass(frozen=True, kw_only=True)
class ScatterState:
    """What the scatter shows; all of it is in its address.

    Parameters
    ----------
    x, y : str
        Coordinates: ``"z1"``, ``"z2"``, ..., or one of `size`, `probability`, `novelty`.
    colour : str
        One of :data:`COLOURS`.
    model : str, optional
        The newest that has predictions if not given.
    window : (x0, x1, y0, y1), optional
        What part is shown; all if not given.
    selected : tuple of int
        Particles that were chosen.
    """

    x: str
    y: str
    colour: str
    model: str | None
    window: tuple[float, float, float, float] | None
    selected: tuple[int, ...]


def read_state(
    x: Annotated[str, Query(max_length=20)] = "",
    y: Annotated[str, Query(max_length=20)] = "",
    colour: Annotated[str, Query(max_length=20)] = "class",
    model: Annotated[str, Query(max_length=200)] = "",
    window: Annotated[str, Query(max_length=200, alias="at")] = "",
    selected: Annotated[str, Query(max_length=LONGEST_SELECTION)] = "",
) -> ScatterState:
    """Read what is shown from an address; an empty value is none."""
    if (colour or "class") not in COLOURS:
        raise ConfigError(f"colour={colour!r}: must be one of {', '.join(COLOURS)}.")
    return ScatterState(
        x=x,
        y=y,
        colour=colour or "class",
        model=model or None,
        window=_window(window),
        selected=decode_ids(selected) if selected else (),
    )


StateDep = Annotated[ScatterState, Depends(read_state)]


def _window(text: str) -> tuple[float, float, float, float] | None:
    if not text:
        return None
    try:
        x0, x1, y0, y1 = (float(part) for part in text.split(","))
    except ValueError:
        x0 = x1 = y0 = y1 = math.nan
    # Not much beyond what can be drawn: ticks are counted in steps of the window, and none may be lost in rounding.
    distances = [abs(value) for value in (x0, x1, y0, y1)]
    near = all(distance <= _FARTHEST for distance in distances)  # NaN is not
    if not near or min(x1 - x0, y1 - y0) <= max(*distances, 1.0) * 1e-9:
        raise ConfigError(f"at={text!r}: write four numbers with commas: left, right, bottom, top.")
    return x0, x1, y0, y1


@dataclass(frozen=True)
class _Points:
    """The particles that are shown, their places and colours."""

    table: pd.DataFrame
    n: int
    names: tuple[str, str]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    colouring: Colouring
    axes: dict[str, str]

    def chosen(self, ids: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        return self.table.index.isin(ids)


def _points(library: Library, model: str, state: ScatterState) -> _Points:
    table, n = library.latents(model, at_most=MOST_POINTS)
    axes = axes_of(table)
    x, y = state.x or "z1", state.y or ("z2" if "z2" in axes else "size")
    for name, value in (("x", x), ("y", y)):
        if value not in axes:
            raise ConfigError(f"{name}={value!r}: the model {model!r} has {', '.join(axes)}.")
    micrographs = library.micrographs()
    sources = {int(i): str(source) for i, source in micrographs["source"].items()}  # type: ignore[arg-type]
    colouring = colour_by(table, state.colour, colours=colours_of(library, model), sources=sources)
    return _Points(table, n, (x, y), _coordinate(table, x), _coordinate(table, y), colouring, axes)


def axes_of(table: pd.DataFrame) -> dict[str, str]:
    """Return the coordinates that a table of latents has, and what they are called."""
    latent = [f"z{j + 1}" for j in range(sum(str(name).startswith("latent_") for name in table))]
    return {name: name for name in latent} | {**_OTHERS, "size": f"{_OTHERS['size']} ({size_unit(table)})"}


def _coordinate(table: pd.DataFrame, axis: str) -> npt.NDArray[np.float64]:
    if axis == "size":
        return table[f"equivalent_diameter_{size_unit(table)}"].to_numpy(np.float64)
    return table[f"latent_{int(axis[1:]) - 1}" if axis.startswith("z") else axis].to_numpy(np.float64)


@router.get("/explore/scatter", include_in_schema=False)
def page(request: Request, library: LibraryDep, state: StateDep) -> Response:
    """Show the scatter; its points are asked for by its script."""
    model = model_of(library, state.model)
    if model is None:
        context: dict[str, Any] = {"model": None, "n_particles": sum(library.micrographs()["n_particles"].tolist())}
        return render_view(request, "explore_scatter.html", context)
    table, _ = library.latents(model, at_most=1)
    axes = axes_of(table)
    shown = {"x": state.x or "z1", "y": state.y or ("z2" if "z2" in axes else "size")}
    nonce = new_nonce()
    context = {
        "model": model,
        "models": models_with_predictions(library),
        "axes": axes,
        "shown": shown,
        "state": state,
        "colours": COLOURS,
        "nonce": nonce,
        "bokeh": bokeh_version(),
        "initial": {"key": library_key(library), "window": state.window, "selected": state.selected},
    }
    return allow_styles(render_view(request, "explore_scatter.html", context), nonce)


@router.get("/api/explore/scatter")
def points(library: LibraryDep, state: StateDep) -> dict[str, Any]:
    """Return the plot as Bokeh's JSON, and its legend."""
    from tumble.app.explore.scatter_plot import plot_item

    found = _points(library, _required_model(library, state), state)
    usable = np.isfinite(found.x) & np.isfinite(found.y)
    ids = found.table.index.to_numpy(np.int64)[usable]
    colouring = found.colouring
    labels = (found.axes[found.names[0]], found.axes[found.names[1]])
    x, y = found.x[usable], found.y[usable]
    whole = (*_padded(x), *_padded(y))
    return {
        "item": plot_item(x, y, ids, colouring.values[usable], colouring, labels, state.window or whole),
        "whole": whole,
        "n": int(usable.sum()),
        "total": found.n,
        "sampled": found.n > len(found.table),
        "left_out": int((~usable).sum()),
        "legend": {
            "title": colouring.title,
            "groups": [{"name": name, "colour": colour, "n": n} for name, colour, n in colouring.groups],
            "missing": colouring.missing,
            "scale": None if colouring.groups else [colouring.low, colouring.high],
            "palette": [] if colouring.groups else colouring.palette,
            "note": colouring.note,
        },
    }


def _padded(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _required_model(library: Library, state: ScatterState) -> str:
    model = model_of(library, state.model)
    if model is None:
        raise ConfigError("no model has classified the particles yet. Train one first.")
    return model


@router.get("/explore/scatter.csv")
def export_csv(library: LibraryDep, state: StateDep) -> Response:
    """Return the particles that are shown, or those that are selected, with their coordinates."""
    found = _points(library, _required_model(library, state), state)
    table = found.table.rename(columns=lambda name: f"z{int(name[7:]) + 1}" if name.startswith("latent_") else name)
    shown = np.isfinite(found.x) & np.isfinite(found.y)
    if state.window is not None:
        x0, x1, y0, y1 = state.window
        shown &= (found.x >= x0) & (found.x <= x1) & (found.y >= y0) & (found.y <= y1)
    if state.selected:
        shown = found.chosen(state.selected)
    return csv_response(table.assign(colour=found.colouring.colours()).loc[shown], "latent-space")


@router.get("/explore/scatter.{kind}")
def export_figure(library: LibraryDep, state: StateDep, kind: FigureKind) -> Response:
    """Return the scatter as a figure."""
    from tumble.app.explore.figures import scatter_figure

    found = _points(library, _required_model(library, state), state)
    chosen = found.chosen(state.selected) if state.selected else None
    names = (found.axes[found.names[0]], found.axes[found.names[1]])
    make = partial(scatter_figure, names=names, window=state.window, chosen=chosen)
    return figure_response(partial(make, found.x, found.y, found.colouring), kind, "latent-space")
