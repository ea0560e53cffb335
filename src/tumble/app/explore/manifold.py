"""The manifold view: what a model draws for a class, over its latent factors, with sliders for place and pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from tumble.app.colours import colours_of
from tumble.app.deps import LibraryDep
from tumble.app.downloads import csv_response, figure_response
from tumble.app.explore.drawing import (
    MAX_EXTENT,
    MAX_STEPS,
    Place,
    draw_one,
    draw_sheet,
    read_z,
    sheet_table,
    tiled,
)
from tumble.app.explore.frame import ExploreView, render_view
from tumble.app.explore.known import Name, known_model
from tumble.app.images import png_of
from tumble.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tumble.app.explore.decoders import Decoders
    from tumble.estimators import SSRVAEClassifier
    from tumble.types import ModelRecord

__all__ = ["VIEW"]

router = APIRouter(tags=["explore"])

VIEW = ExploreView(
    title="Manifold",
    path="/explore/manifold",
    about="What the model draws for each class: move along its latent factors, turn and shift the object.",
    router=router,
)
#: A model without shifts among its invariances has no such sliders; the others reach this part of the image.
_REACH = 0.25


@dataclass(frozen=True)
class _Asked:
    """What an address asks for, before it is known whether there is such a model."""

    model: str | None
    class_name: str | None
    z: str
    angle: float
    down: float
    right: float
    rows: int
    columns: int
    steps: int
    extent: float


def _read(
    model: Name = None,
    class_name: Annotated[str | None, Query(max_length=200, alias="class")] = None,
    z: Annotated[str, Query(max_length=2000)] = "",
    angle: Annotated[float, Query(ge=-360, le=360, allow_inf_nan=False)] = 0.0,
    down: Annotated[float, Query(ge=-4096, le=4096, allow_inf_nan=False)] = 0.0,
    right: Annotated[float, Query(ge=-4096, le=4096, allow_inf_nan=False)] = 0.0,
    rows: Annotated[int, Query(ge=1, le=16384)] = 1,
    columns: Annotated[int, Query(ge=1, le=16384)] = 2,
    steps: Annotated[int, Query(ge=1, le=MAX_STEPS)] = 9,
    extent: Annotated[float, Query(gt=0, le=MAX_EXTENT, allow_inf_nan=False)] = 2.0,
) -> _Asked:
    return _Asked(model or None, class_name or None, z, angle, down, right, rows, columns, steps, extent)


AskedDep = Annotated[_Asked, Depends(_read)]


def _place(record: ModelRecord, asked: _Asked) -> Place:
    """Read the place that is meant, in a model; what the model does not have is refused."""
    name = asked.class_name or record.classes[0]
    if name not in record.classes:
        raise HTTPException(404, f"{record.name} knows no class {name!r}. It knows {', '.join(record.classes)}.")
    latent_dim = int(record.config.get("latent_dim", 2))
    if latent_dim == 1:
        rows = columns = 0
    elif max(asked.rows, asked.columns) > latent_dim or asked.rows == asked.columns:
        raise ConfigError(f"rows and columns: choose two of the {latent_dim} latent factors of {record.name}.")
    else:
        rows, columns = asked.rows - 1, asked.columns - 1
    return Place(
        k=record.classes.index(name),
        z=read_z(asked.z, latent_dim),
        angle_deg=asked.angle,
        down_px=asked.down,
        right_px=asked.right,
        rows=rows,
        columns=columns,
        steps=asked.steps,
        extent=asked.extent,
    )


def _decoders(request: Request) -> Decoders:
    return request.app.state.decoders


def _shown(request: Request, library: Any, asked: _Asked) -> tuple[ModelRecord, Place, SSRVAEClassifier]:
    record = known_model(library, asked.model or _first(library, _decoders(request).names()))
    return record, _place(record, asked), _decoders(request).get(record)


def _first(library: Any, names: list[str]) -> str | None:
    """Return the model to begin with: the one whose predictions other views show, or else the newest."""
    predicting = library.predicting_model()
    return predicting if predicting in names else names[0] if names else None


def _query(record: ModelRecord, place: Place) -> str:
    """Return the address of a place, with what differs from the beginning."""
    parts: dict[str, Any] = {"model": record.name, "class": record.classes[place.k]}
    if any(place.z):
        parts["z"] = ",".join(f"{value:g}" for value in place.z)
    parts |= {
        name: f"{value:g}"
        for name, value in (("angle", place.angle_deg), ("down", place.down_px), ("right", place.right_px))
        if value
    }
    if (place.rows, place.columns) not in ((0, 1), (0, 0)):
        parts |= {"rows": place.rows + 1, "columns": place.columns + 1}
    if place.steps != 9:
        parts["steps"] = place.steps
    if place.extent != 2:
        parts["extent"] = f"{place.extent:g}"
    return urlencode(parts)


@router.get("/explore/manifold", include_in_schema=False)
def manifold_page(request: Request, library: LibraryDep, asked: AskedDep) -> Response:
    """Show sliders and sheet of one class; the images come by themselves, as loading a model takes a moment."""
    names = _decoders(request).names()
    if asked.model is not None:
        known_model(library, asked.model)
    name = asked.model or _first(library, names)
    if name is None or name not in names:
        lost = library.models()["name"].drop_duplicates().tolist() if name is None else [name]
        return render_view(request, "explore_manifold.html", {"names": names, "lost": lost, "initial": None})
    record = known_model(library, name)
    place = _place(record, asked)
    side = record.manifold.shape[-1] if record.manifold is not None else 48
    invariances = tuple(record.config.get("invariances", ()))
    colours = colours_of(library, name)
    initial = {
        "model": name,
        "classes": [{"name": one, "colour": colours.get(one, "")} for one in record.classes],
        "class": record.classes[place.k],
        "z": list(place.z),
        "angle": place.angle_deg,
        "down": place.down_px,
        "right": place.right_px,
        "rows": place.rows + 1,
        "columns": place.columns + 1,
        "steps": place.steps,
        "extent": place.extent,
        "max_extent": MAX_EXTENT,
        "rotation": "rotation" in invariances,
        "translation": "translation" in invariances,
        "reach": max(1, round(_REACH * side)),
    }
    context = {"names": names, "initial": initial, "place": place, "query": _query(record, place), "steps": MAX_STEPS}
    return render_view(request, "explore_manifold.html", context)


@router.get("/explore/manifold/one.png")
def one(request: Request, library: LibraryDep, asked: AskedDep) -> Response:
    """Draw the object at one place and pose."""
    _, place, model = _shown(request, library, asked)
    return _png(draw_one(model, place))


@router.get("/explore/manifold/sheet.png")
def sheet(request: Request, library: LibraryDep, asked: AskedDep) -> Response:
    """Draw the class over two latent factors."""
    _, place, model = _shown(request, library, asked)
    return _png(tiled(draw_sheet(model, place)))


def _png(image: npt.NDArray[np.uint8]) -> Response:
    return Response(png_of(image), media_type="image/png")


@router.get("/explore/manifold/export.csv")
def export_table(request: Request, library: LibraryDep, asked: AskedDep) -> Response:
    """Return the sheet as numbers."""
    record, place, model = _shown(request, library, asked)
    table = sheet_table(model, place, draw_sheet(model, place), record.classes)
    return csv_response(table, "manifold", index=False)


@router.get("/explore/manifold/export.{kind}")
def export_figure(request: Request, library: LibraryDep, asked: AskedDep, kind: str) -> Response:
    """Return the sheet as a figure."""
    from tumble.report.figures import manifold_figure

    record, place, model = _shown(request, library, asked)
    name = record.classes[place.k]
    figure = manifold_figure(
        draw_sheet(model, place)[None],
        [name],
        axis=place.axis(),
        colours={name: colours_of(library, record.name)[name]},
        factors=(f"z{place.rows + 1}" if place.rows != place.columns else "", f"z{place.columns + 1}"),
    )
    return figure_response(figure, kind, "manifold")
