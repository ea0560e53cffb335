"""The view of a micrograph with its particles outlined in the colours of their classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from tumble.app.colours import colours_of
from tumble.app.deps import LibraryDep
from tumble.app.downloads import FigureKind, csv_response, figure_response
from tumble.app.explore.frame import ExploreView, model_of, models_with_predictions, render_view
from tumble.app.images import library_key, png_of
from tumble.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from tumble.library import Library
    from tumble.report.figures import Region

__all__ = ["VIEW"]

router = APIRouter(tags=["explore"])

VIEW = ExploreView(
    "Micrographs",
    "/explore/micrograph",
    "A micrograph with its particles outlined in the colours of their classes. Zoom, and click a particle to open it.",
    router,
)

_BY = {"known": "Label, or else class", "class": "Class (model)", "label": "Label"}
_FARTHEST_PX = 1e9
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class MicrographState:
    """What the view shows; all of it is in its address.

    Parameters
    ----------
    micrograph : int, optional
        Which; the first that has particles if not given.
    by : str
        "known" (the label, or else the model's class), "class" or "label".
    window : (left, top, width, height), optional
        The part that is shown, in px of the micrograph; all if not given.
    particle : int, optional
        The one that is marked.
    outlines : bool
        Whether particles are outlined.
    model : str, optional
        The newest that has predictions if not given.
    """

    micrograph: int | None
    by: str
    window: tuple[float, float, float, float] | None
    particle: int | None
    outlines: bool
    model: str | None


def read_state(
    micrograph: Annotated[int | None, Query(ge=1, le=_LARGEST_ID)] = None,
    by: Annotated[str, Query(max_length=20)] = "known",
    window: Annotated[str, Query(max_length=200, alias="at")] = "",
    particle: Annotated[int | None, Query(ge=1, le=_LARGEST_ID)] = None,
    outlines: Annotated[str, Query(max_length=3)] = "on",
    model: Annotated[str, Query(max_length=200)] = "",
) -> MicrographState:
    """Read what is shown from an address; an empty value is none."""
    if by not in _BY:
        raise ConfigError(f"by={by!r}: must be one of {', '.join(_BY)}.")
    if outlines not in ("on", "off"):
        raise ConfigError(f"outlines={outlines!r}: must be on or off.")
    return MicrographState(
        micrograph=micrograph,
        by=by,
        window=_window(window),
        particle=particle,
        outlines=outlines == "on",
        model=model or None,
    )


StateDep = Annotated[MicrographState, Depends(read_state)]


def _window(text: str) -> tuple[float, float, float, float] | None:
    if not text:
        return None
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError:
        left = top = width = height = math.nan
    near = all(abs(value) <= _FARTHEST_PX for value in (left, top, width, height))  # NaN is not
    if not near or min(width, height) <= 0:
        raise ConfigError(f"at={text!r}: write four numbers with commas: left, top, width, height in px.")
    return left, top, width, height


def _require(library: Library, number: int | None) -> tuple[int, dict[str, Any]]:
    """Return the micrograph that is meant, the first that has particles if none is named, and its row."""
    micrographs = library.micrographs()
    if number is None:
        counts = micrographs["n_particles"].to_dict()
        number = next((int(i) for i, n in counts.items() if n), int(next(iter(counts), 0)))
    if number not in micrographs.index:
        raise HTTPException(404, f"There is no micrograph {number} in this library.")
    return number, {str(name): value for name, value in micrographs.loc[number].items()}


def _classes(table: pd.DataFrame, by: str) -> list[str | None]:
    labels = [name if isinstance(name, str) else None for name in table["label"]]
    if by == "label" or "predicted" not in table:
        return labels if by != "class" else [None] * len(table)
    predicted = [name if isinstance(name, str) else None for name in table["predicted"]]
    if by == "class":
        return predicted
    return [said if label is None else label for label, said in zip(labels, predicted, strict=True)]


@router.get("/explore/micrograph", include_in_schema=False)
def page(request: Request, library: LibraryDep, state: StateDep) -> Response:
    """Show a micrograph; its image and outlines are asked for by its script."""
    micrographs = library.micrographs()
    if micrographs.empty:
        return render_view(request, "explore_micrograph.html", {"micrographs": []})
    number, row = _require(library, state.micrograph)
    model = model_of(library, state.model)
    sources = list(zip(micrographs.index.tolist(), micrographs["source"], micrographs["n_particles"], strict=True))
    where = [i for i, _, _ in sources].index(number)
    context = {
        "micrographs": sources,
        "number": number,
        "before": _address(state, sources[where - 1][0]) if where else None,
        "after": _address(state, sources[where + 1][0]) if where + 1 < len(sources) else None,
        "row": row,
        "choices": _BY if model else {"label": "Label"},
        "by": state.by if model else "label",
        "model": model,
        "models": models_with_predictions(library),
        "initial": {
            "micrograph": number,
            "window": state.window,
            "particle": state.particle,
            "key": library_key(library),
        },
    }
    return render_view(request, "explore_micrograph.html", context)


def _address(state: MicrographState, number: int) -> str:
    """Return the address of another micrograph, seen in the same way."""
    query: dict[str, Any] = {"micrograph": number, "by": state.by, "model": state.model}
    query["outlines"] = None if state.outlines else "off"
    return "?" + urlencode({name: value for name, value in query.items() if value is not None})


@router.get("/explore/micrograph/{micrograph}.png", include_in_schema=False)
def image(library: LibraryDep, micrograph: Annotated[int, Path(ge=1, le=_LARGEST_ID)]) -> Response:
    """Return the image that the outlines lie on."""
    _require(library, micrograph)
    preview, _ = library.micrograph_preview(micrograph)
    # The address has the library's key in it: what it names never changes.
    headers = {"Cache-Control": "private, max-age=604800, immutable"}
    return Response(png_of(preview), media_type="image/png", headers=headers)


@router.get("/api/explore/micrograph")
def outlines(library: LibraryDep, state: StateDep) -> dict[str, Any]:
    """Return the size of a micrograph, its particles with their outlines in px (row, column), and the legend."""
    number, row = _require(library, state.micrograph)
    model = model_of(library, state.model)
    table = library.particles(number, model)
    lines = library.outlines(number)
    classes = _classes(table, state.by if model else "label")
    labelled = table["label"].notna().to_list()
    pixel_size = float(row["pixel_size_nm"])
    rows = zip(table.index.tolist(), classes, labelled, strict=True)
    return {
        "micrograph": number,
        "height": int(row["height_px"]),
        "width": int(row["width_px"]),
        "pixel_size_nm": pixel_size if math.isfinite(pixel_size) else None,
        "colours": colours_of(library, model),
        "particles": [
            {"id": i, "class": name, "labelled": known, "outline": _rounded(lines[i])} for i, name, known in rows
        ],
    }


def _rounded(outline: Any) -> list[float]:
    """Return row, column, row, column, ... in tenths of a px."""
    return np.round(outline.astype(np.float64), 1).ravel().tolist()


@router.get("/explore/micrograph.csv")
def export_csv(library: LibraryDep, state: StateDep) -> Response:
    """Return all measurements of the particles of the part that is shown, with their classes."""
    number, row = _require(library, state.micrograph)
    model = model_of(library, state.model)
    table = library.particles(number, model)
    table["class"] = _classes(table, state.by if model else "label")
    region = _region(state.window, int(row["height_px"]), int(row["width_px"]))
    if region is not None:
        lines = library.outlines(number)
        table = table.loc[[i for i in table.index.tolist() if _overlaps(lines[i], region)]]
    return csv_response(table, f"micrograph-{number}")


def _overlaps(outline: Any, region: Region) -> bool:
    """Say whether some of a particle lies in a part, as the figure has it."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    rows = low[0] <= region.row + region.height and high[0] >= region.row
    return bool(rows and low[1] <= region.column + region.width and high[1] >= region.column)


@router.get("/explore/micrograph.{kind}")
def export_figure(library: LibraryDep, state: StateDep, kind: FigureKind) -> Response:
    """Return the part of the micrograph that is shown, with outlines and legend, as a figure."""
    from tumble.report.figures import micrograph_figure

    number, row = _require(library, state.micrograph)
    model = model_of(library, state.model)
    table = library.particles(number, model)
    preview, scale = library.micrograph_preview(number)
    edge = table["touches_border"].to_numpy(bool) if "touches_border" in table else np.zeros(len(table), bool)
    pixel_size = float(row["pixel_size_nm"])
    make = partial(
        micrograph_figure,
        preview,
        library.outlines(number) if state.outlines else {},
        dict(zip(table.index.tolist(), _classes(table, state.by if model else "label"), strict=True)),
        colours=colours_of(library, model),
        border=table.index.to_numpy()[edge].tolist(),
        pixel_size_nm=pixel_size if math.isfinite(pixel_size) else None,
        image_scale=scale,
        region=_region(state.window, int(row["height_px"]), int(row["width_px"])),
    )
    return figure_response(make, kind, f"micrograph-{number}")


def _region(window: tuple[float, float, float, float] | None, height: int, width: int) -> Region | None:
    """Return the part of a window that lies on the micrograph, None where that is all of it."""
    from tumble.report.figures import Region

    if window is None:
        return None
    left, top = max(0.0, window[0]), max(0.0, window[1])
    right, bottom = min(float(width), window[0] + window[2]), min(float(height), window[1] + window[3])
    if right - left < 1 or bottom - top < 1:
        raise ConfigError("at: this part lies outside the micrograph.")
    whole = (left, top, right, bottom) == (0.0, 0.0, float(width), float(height))
    return None if whole else Region(top, left, bottom - top, right - left)
