"""Routes of the gallery: pages of crops, labels, classes, and the export of a view."""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tumble.app.deps import LibraryDep, render, templates
from tumble.app.gallery import PAGE_SIZE, SHOWS, SORTS, View, view_page
from tumble.app.images import context_image, library_key, particle_box
from tumble.app.selection import LONGEST_SELECTION, decode_ids, encode_ids
from tumble.errors import ConfigError, LibraryError
from tumble.library import Query as Question

__all__ = ["ViewDep", "router", "warm_up"]

router = APIRouter(tags=["label"])

SOURCE = "app"
#: The class of what the extraction took for a particle and is none.
NOT_A_PARTICLE = "not a particle"
MOST_AT_ONCE = 5000
MOST_SELECTED = 1_000_000
#: Ids of SQLite and PostgreSQL.
_LARGEST_ID = 2**63 - 1

Id = Annotated[int, Field(ge=1, le=_LARGEST_ID)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
ParticlePath = Annotated[int, Path(ge=1, le=_LARGEST_ID)]
Place = Annotated[str, Query(max_length=100)]


class LabelRequest(BaseModel):
    """Labels to give, or with None to withdraw."""

    model_config = ConfigDict(extra="forbid")
    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_AT_ONCE)]
    label: Name | None


class SelectionRequest(BaseModel):
    """Particles that were chosen in a view."""

    model_config = ConfigDict(extra="forbid")
    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_SELECTED)]


class ClassRequest(BaseModel):
    """A class to make, or the colour of one."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    colour: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")] | None = None


class RenameRequest(BaseModel):
    """A class to rename, or to merge into another."""

    model_config = ConfigDict(extra="forbid")
    old: Name
    new: Name
    merge: bool = False


class RemoveRequest(BaseModel):
    """A class to forget."""

    model_config = ConfigDict(extra="forbid")
    name: Name


def read_view(
    sort: Annotated[str, Query(max_length=20)] = "",
    show: Annotated[str, Query(max_length=20)] = "all",
    predicted: Annotated[str | None, Query(max_length=200, alias="class")] = None,
    label: Annotated[str | None, Query(max_length=200)] = None,
    micrograph: Annotated[int | None, Query(ge=1, le=_LARGEST_ID)] = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    other: Annotated[str | None, Query(max_length=200)] = None,
    other_class: Annotated[str | None, Query(max_length=200)] = None,
    ids: Annotated[str | None, Query(max_length=LONGEST_SELECTION)] = None,
    unit: Annotated[str, Query(max_length=2)] = "px",
    low: Annotated[float | None, Query(alias="from")] = None,
    high: Annotated[float | None, Query(alias="to")] = None,
    after: Place = "",
    before: Place = "",
    limit: Annotated[int, Query(ge=1, le=500)] = PAGE_SIZE,
) -> View:
    """Read a view from an address; an empty value is none."""
    return View(
        sort=sort,
        show=show or "all",
        predicted=predicted or None,
        label=label or None,
        micrograph=micrograph,
        model=model or None,
        other=other or None,
        other_class=other_class or None,
        ids=decode_ids(ids) if ids else None,
        size=_size(unit, low, high),
        after=after,
        before=before,
        limit=limit,
    )


ViewDep = Annotated[View, Depends(read_view)]


def _size(unit: str, low: float | None, high: float | None) -> tuple[str, float, float] | None:
    if low is None and high is None:
        return None
    return unit, -math.inf if low is None else low, math.inf if high is None else high


def _classes(library: Any) -> list[dict[str, Any]]:
    table = library.classes()
    rows = zip(table.index.tolist(), table["colour"].tolist(), table["n_labels"].tolist(), strict=True)
    return [{"name": name, "colour": colour, "n": n} for name, colour, n in rows]


def warm_up(library: Any, suggestions: Any, crops: Any) -> None:
    """Do once what the first page would wait for: compile its templates and statements, load what draws crops.

    Parameters
    ----------
    library : Library
        The open library.
    suggestions : Suggestions
        Of the application.
    crops : CropStore
        Likewise.
    """
    for name in ("base.html", "label.html"):
        templates.get_template(name)
    with suppress(Exception):  # whatever it is, the page itself will say what is wrong
        _classes(library)
        library.micrograph_sources()
        library_key(library)
        view_page(library, View(limit=1), suggestions)
        page = view_page(library, View(sort="id", limit=1), suggestions)
        crops.embedded([record["id"] for record in page.particles])


@router.get("/label", include_in_schema=False)
def label_page(request: Request, library: LibraryDep, view: ViewDep) -> Response:
    """Show the gallery; its first page comes with it, so that crops are there at once."""
    content = _page(request, library, view)
    sources = library.micrograph_sources()
    model = view.model or library.predicting_model()
    initial = {
        "page": content,
        "classes": _classes(library),
        "not_a_particle": NOT_A_PARTICLE,
        "key": library_key(library),
        "has_model": model is not None,
    }
    return render(
        request,
        "label.html",
        {
            "initial": initial,
            "view": view,
            "limited": _limited(view),
            "sorts": SORTS,
            "shows": SHOWS,
            "model": model,
            "predicted_classes": library.model_record(model).classes if model else (),
            "micrographs": list(sources.items()),
            "has_particles": bool(content["particles"]) or library.count(Question()) > 0,
        },
    )


def _limited(view: View) -> str:
    """Say in words to what a link from another view limits the gallery, "" where it does not."""
    parts = [] if view.ids is None else [f"{len(view.ids):,} chosen particle{'' if len(view.ids) == 1 else 's'}"]
    if view.size is not None:
        unit, low, high = view.size
        bounds = [f"{word} {bound:g} {unit}" for word, bound in (("from", low), ("to", high)) if math.isfinite(bound)]
        parts.append(f"sizes {' '.join(bounds)}")
    if view.other is not None:
        word = f"takes for {view.other_class}" if view.other_class else "takes for another class"
        parts.append(f"particles that {view.other} {word}")
    return ", ".join(parts)


def _page(request: Request, library: Any, view: View, *, crops: bool = True) -> dict[str, Any]:
    page = view_page(library, view, request.app.state.suggestions)
    particles = page.particles
    if crops:  # with the page: one question in the place of sixty
        images = request.app.state.crops.embedded([record["id"] for record in particles])
        particles = [record | {"image": image} for record, image in zip(particles, images, strict=True)]
    return {
        "particles": particles,
        "sort": page.sort,
        "after": page.after,
        "before": page.before,
        "note": page.note,
        "choosing": page.choosing,
    }


@router.get("/api/particles")
def particles_page(request: Request, library: LibraryDep, view: ViewDep, crops: bool = True) -> dict[str, Any]:
    """Return one page of a view, with or without the images."""
    return _page(request, library, view, crops=crops)


@router.get("/api/count")
def count(library: LibraryDep, view: ViewDep) -> dict[str, int]:
    """Return how many particles a view has on all pages."""
    if view.show == "mislabelled" and library.predicting_model() is None:
        return {"n": 0}
    return {"n": library.count(view.query())}


@router.post("/api/selection")
def selection(asked: SelectionRequest) -> dict[str, Any]:
    """Write chosen particles as the value `ids` of an address of the gallery; nothing is stored."""
    return {"ids": encode_ids(asked.ids), "n": len(set(asked.ids))}


@router.get("/crops/{particle_id}.png")
async def crop(request: Request, particle_id: ParticlePath) -> Response:
    """Return the image of a particle."""
    store = request.app.state.crops
    content = store.kept(particle_id)
    if content is None:
        from starlette.concurrency import run_in_threadpool

        try:
            content = await run_in_threadpool(store.png, particle_id)
        except LibraryError as error:
            return Response(str(error), 404, media_type="text/plain")
    return _image(request, content)


def _image(request: Request, content: bytes) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    # The address has the library's key in it: what it names never changes.
    headers = {"ETag": tag, "Cache-Control": "private, max-age=604800, immutable"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/png", headers=headers)


@router.get("/api/particles/{particle_id}")
def particle(library: LibraryDep, particle_id: ParticlePath) -> dict[str, Any]:
    """Return what is known of one particle, and where it lies in its micrograph."""
    micrograph, box = particle_box(library, particle_id)
    preview, scale = library.micrograph_preview(micrograph)
    _, place = context_image(preview, scale, box)
    history = library.label_history(particle_id).tail(20)
    entries = zip(history["label"], history["author"], history["created_at"], history["retracted"], strict=True)
    source = library.micrograph_sources()[micrograph]
    return {
        "id": particle_id,
        "micrograph": micrograph,
        "source": source,
        "place": place,
        "history": [
            {"label": label, "author": author, "at": str(at)[:19], "undone": bool(undone)}
            for label, author, at, undone in entries
        ],
    }


@router.get("/context/{particle_id}.png")
def context(request: Request, library: LibraryDep, particle_id: ParticlePath) -> Response:
    """Return a particle's surroundings."""
    micrograph, box = particle_box(library, particle_id)
    return _image(request, context_image(*library.micrograph_preview(micrograph), box)[0])


@router.get("/api/classes")
def classes(library: LibraryDep) -> list[dict[str, Any]]:
    """Return the classes in their order."""
    return _classes(library)


@router.post("/api/labels")
def give_labels(request: Request, library: LibraryDep, asked: LabelRequest) -> dict[str, Any]:
    """Store one label for some particles, as one action that can be taken back."""
    ids = list(dict.fromkeys(asked.ids))
    library.add_labels(ids, [asked.label] * len(ids), author=request.app.state.author, source=SOURCE)
    return {"n": len(ids), "classes": _classes(library)}


@router.post("/api/undo")
def undo(request: Request, library: LibraryDep) -> dict[str, Any]:
    """Take back what was labelled last."""
    return _changed(library, library.undo_labels(request.app.state.author))


@router.post("/api/redo")
def redo(request: Request, library: LibraryDep) -> dict[str, Any]:
    """Restore what was taken back last."""
    return _changed(library, library.redo_labels(request.app.state.author))


def _changed(library: Any, action: Any) -> dict[str, Any]:
    return {"n": action.n_labels, "at": action.created_at[:19], "source": action.source, "classes": _classes(library)}


@router.post("/api/classes")
def put_class(library: LibraryDep, asked: ClassRequest) -> list[dict[str, Any]]:
    """Make a class, or give one another colour."""
    library.put_class(asked.name, asked.colour)
    return _classes(library)


@router.post("/api/classes/rename")
def rename_class(request: Request, library: LibraryDep, asked: RenameRequest) -> dict[str, Any]:
    """Rename a class, or merge it into another."""
    new = asked.new.strip()
    if new in library.classes().index and new != asked.old and not asked.merge:
        raise ConfigError(f"there is a class {new!r} already. Merge the two, or choose another name.")
    n = library.rename_class(asked.old, new, author=request.app.state.author, source=SOURCE)
    return {"n": n, "classes": _classes(library)}


@router.post("/api/classes/remove")
def remove_class(library: LibraryDep, asked: RemoveRequest) -> list[dict[str, Any]]:
    """Forget a class without labels."""
    library.remove_class(asked.name)
    return _classes(library)
