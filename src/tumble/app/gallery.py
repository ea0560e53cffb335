"""What the gallery shows: a view as a value that fits into an address, and its pages.

A page is found from the last particle of the one before, never by counting, so that page 1000 costs what page 1 does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tumble.app.suggestions import MOST_SUGGESTED
from tumble.errors import ConfigError
from tumble.library import Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from tumble.app.suggestions import Suggestions
    from tumble.library import Library

__all__ = ["PAGE_SIZE", "SORTS", "GalleryPage", "View", "view_page"]

PAGE_SIZE = 60
LARGEST_PAGE = 500

#: Name in the address -> what people read. Those that need a model are :data:`_NEED_MODEL`.
SORTS = {
    "useful": "Useful next",
    "uncertain": "Least sure first",
    "sure": "Surest first",
    "class": "By predicted class",
    "novel": "Most novel first",
    "large": "Largest first",
    "small": "Smallest first",
    "id": "In order of finding",
}
SHOWS = {
    "all": "All",
    "unlabelled": "Without label",
    "labelled": "With label",
    "contested": "People disagree",
    "mislabelled": "Model contradicts label",
}
_NEED_MODEL = frozenset({"uncertain", "sure", "class", "novel"})
#: Name in the address -> column to order by, and whether large values come first.
_ORDERS = {
    "uncertain": ("probability", False),
    "sure": ("probability", True),
    "class": ("probability", True),
    "novel": ("novelty", True),
    "large": ("equivalent_diameter_px", True),
    "small": ("equivalent_diameter_px", False),
    "id": ("particle_id", False),
}
#: Unit -> column; every page shows them.
SIZE_COLUMNS = {"px": "equivalent_diameter_px", "nm": "equivalent_diameter_nm"}


@dataclass(frozen=True, kw_only=True)
class View:
    """Which particles the gallery shows, in which order, and where in them it is.

    Parameters
    ----------
    sort : str
        One of :data:`SORTS`; "" for the one that fits the library.
    show : str
        One of :data:`SHOWS`.
    predicted, label : str, optional
        Only this class of the model, only this present label.
    micrograph : int, optional
        Only this micrograph.
    model : str, optional
        Whose predictions; the newest if not given.
    other : str, optional
        Only particles that this other model takes for another class than the model, or with `other_class` for that.
    other_class : str, optional
        Class of the other model.
    ids : tuple of int, optional
        Only these particles.
    size : tuple of (str, float, float), optional
        Only particles with an equivalent diameter in this unit, ``"nm"`` or ``"px"``, from the first value up to the
        second, which is not included; infinite where there is no bound.
    after, before : str
        Where the page before ended, or the one after began, as :class:`GalleryPage` says.
    limit : int
        Particles on a page.
    """

    sort: str = ""
    show: str = "all"
    predicted: str | None = None
    label: str | None = None
    micrograph: int | None = None
    model: str | None = None
    other: str | None = None
    other_class: str | None = None
    ids: tuple[int, ...] | None = None
    size: tuple[str, float, float] | None = None
    after: str = ""
    before: str = ""
    limit: int = PAGE_SIZE

    def __post_init__(self) -> None:
        for name, value, known in (("sort", self.sort or "id", SORTS), ("show", self.show, SHOWS)):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: must be one of {', '.join(known)}.")
        if self.other_class is not None and self.other is None:
            raise ConfigError("other_class: name the model that is meant, too (other=...).")
        if not 1 <= self.limit <= LARGEST_PAGE:
            raise ConfigError(f"limit={self.limit}: a page has 1 to {LARGEST_PAGE} particles.")
        if self.size is not None:
            unit, low, high = self.size
            if unit not in SIZE_COLUMNS:
                raise ConfigError(f"unit={unit!r}: must be one of {', '.join(SIZE_COLUMNS)}.")
            if not low < high:  # neither is true of NaN
                raise ConfigError(f"from={low:g}, to={high:g}: sizes go from a number to a larger one.")

    @property
    def is_limited(self) -> bool:
        """Whether only chosen particles are shown: a link from another view leads here."""
        return self.ids is not None or self.size is not None or self.other is not None

    def query(self) -> Query:
        """Return the conditions, without order and place."""
        if self.show == "mislabelled":
            state: Literal["any", "labelled", "unlabelled", "contested"] = "any"
        else:
            state = {"all": "any"}.get(self.show, self.show)  # type: ignore[assignment]  # checked above
        return Query(
            predicted=(self.predicted,) if self.predicted is not None else None,
            labels=(self.label,) if self.label is not None else None,
            micrograph_ids=(self.micrograph,) if self.micrograph is not None else None,
            particle_ids=self.ids,
            measurements=self.measurements(),
            model=self.model,
            disagrees_with=self.other if self.other_class is None else None,
            also_predicted=(self.other, self.other_class) if self.other and self.other_class else None,
            label_state=state,
            disagrees_with_label=self.show == "mislabelled",
            limit=self.limit,
        )

    def measurements(self) -> dict[str, tuple[float | None, float | None]]:
        """Return what every page shows of a particle, with the bounds of the view."""
        shown: dict[str, tuple[float | None, float | None]] = dict.fromkeys(SIZE_COLUMNS.values(), (None, None))
        if self.size is not None:
            unit, low, high = self.size
            # The library's ranges include both ends.
            below = math.nextafter(high, -math.inf)
            shown[SIZE_COLUMNS[unit]] = (low if math.isfinite(low) else None, below if math.isfinite(high) else None)
        return shown


@dataclass(frozen=True)
class GalleryPage:
    """One page of a view.

    Parameters
    ----------
    particles : list of dict
        `id`, `micrograph`, `label`, `predicted`, `probability`, `novelty`, `diameter_px`, `diameter_nm`.
    sort : str
        The order that was taken.
    after, before : str
        What the next page goes on after and the page before ends before; "" where there is none.
    note : str
        What the reader should know, or "".
    choosing : bool
        Whether the order that was asked for is still being made, and this is another one.
    """

    particles: list[dict[str, Any]]
    sort: str
    after: str = ""
    before: str = ""
    note: str = ""
    choosing: bool = False


def view_page(library: Library, view: View, suggestions: Suggestions) -> GalleryPage:
    """Return one page of a view.

    Parameters
    ----------
    library : Library
        The open library.
    view : View
        What to show.
    suggestions : Suggestions
        Remembers what is useful next.

    Returns
    -------
    GalleryPage

    Raises
    ------
    ConfigError
        The view needs a model and there is none, or its place cannot be read.
    """
    model = view.model or library.predicting_model()
    # Suggestions would hide most of what was chosen elsewhere.
    limited = view.is_limited or (model is None and view.micrograph is not None)
    sort = view.sort or ("id" if limited else "useful")
    if model is None and sort in _NEED_MODEL:
        page = view_page(library, replace(view, sort="id", after="", before=""), suggestions)
        return replace(page, note=f"“{SORTS[sort]}” needs a model that has classified the particles. Train one first.")
    if sort == "useful" and view.show in ("all", "unlabelled") and view.label is None:
        page = _useful(library, view, model, suggestions)
        if page is not None:
            return page
        instead, note = ("uncertain", _CHOOSING) if model is not None else ("id", _CHOOSING_VARIED)
        page = view_page(library, replace(view, sort=instead, after="", before=""), suggestions)
        return replace(page, note=note, choosing=True)
    if sort == "useful":  # what has a label is not asked for again
        sort = "id" if model is None else "uncertain"
    if sort == "class" and view.predicted is None:
        assert model is not None
        return _by_class(library, view, model)
    column, descending = _ORDERS[sort]
    rows, more = _window(library, view, column, descending)
    return _ends(rows, more, view, sort, column)


def _window(library: Library, view: View, column: str, descending: bool) -> tuple[pd.DataFrame, bool]:
    """Return the rows of a page in the order of the view, and whether there are more in its direction."""
    backwards = bool(view.before)
    query = replace(
        view.query(),
        order_by=column,
        descending=descending != backwards,
        after=_place(view.before or view.after),
    )
    page = library.search(query)
    rows = page.particles.iloc[::-1] if backwards else page.particles
    return rows, page.next is not None


def _ends(rows: pd.DataFrame, more: bool, view: View, sort: str, column: str) -> GalleryPage:
    records = _records(rows)
    if not records:
        return GalleryPage([], sort)
    key = (rows.index if column == "particle_id" else rows[column]).to_list()
    ends = [f"{float(key[i])!r},{records[i]['id']}" for i in (0, -1)]
    has_before = more if view.before else bool(view.after)
    has_after = bool(view.before) or more
    return GalleryPage(records, sort, ends[1] if has_after else "", ends[0] if has_before else "")


def _useful(library: Library, view: View, model: str | None, suggestions: Suggestions) -> GalleryPage | None:
    """Show suggestions in their order; the place is which suggestions they are, and how many came before."""
    state, start = _useful_place(library, view)
    found = suggestions.ids(library, model, state)
    if found is None:
        return None
    complete = len(found) < MOST_SUGGESTED
    if view.predicted is not None or view.micrograph is not None or view.is_limited:
        if view.ids is not None:
            chosen = frozenset(view.ids)
            found = tuple(i for i in found if i in chosen)
        meant = library.search(replace(view.query(), label_state="any", particle_ids=found, limit=MOST_SUGGESTED))
        found = tuple(i for i in found if i in meant.particles.index)
    here = found[start : start + view.limit]
    query = Query(particle_ids=here, model=view.model, limit=max(1, len(here)), measurements=View().measurements())
    rows = library.search(query).particles.reindex(list(here))
    after = f"{state},{start + view.limit}" if start + view.limit < len(found) else ""
    before = f"{state},{max(0, start - view.limit)}" if start else ""
    note = ""
    if not after and not complete:
        note = f"At most {MOST_SUGGESTED} are chosen at a time. Label some, or take another order to see all particles."
    elif not found:
        note = "Nothing is left to suggest: every particle here has a label" + (", or is sure." if model else ".")
    return GalleryPage(_records(rows), "useful", after, before, note)


_CHOOSING_VARIED = "Particles that differ are being chosen. Until then: in order of finding."
_CHOOSING = "What is useful next is being chosen. Until then: what the model is least sure of."


def _useful_place(library: Library, view: View) -> tuple[int, int]:
    place = view.before or view.after
    if not place:
        return library.newest_label_action(), 0
    value, particle = _place(place) or (0.0, 0)
    return int(value), max(0, particle)


def _by_class(library: Library, view: View, model: str) -> GalleryPage:
    """Show one class after the other, in the model's order, the surest of each first."""
    classes = library.model_record(model).classes
    k, _, place = (view.before or view.after).partition(":")
    if (k and not k.isdecimal()) or (k and int(k) >= len(classes)):
        raise ConfigError(f"{view.before or view.after!r} is no place in this view.")
    step = -1 if view.before else 1
    position = int(k) if k else 0
    while 0 <= position < len(classes):
        here = replace(
            view,
            predicted=classes[position],
            sort="class",
            after=place if step > 0 else "",
            before=(place or "-1.0,0") if step < 0 else "",
        )
        rows, more = _window(library, here, *_ORDERS["class"])
        if len(rows):
            page = _ends(rows, more, here, "class", "probability")
            # Where this class ends, its neighbour goes on: an empty place stands for its near end.
            after = f"{position}:{page.after}" if page.after else _class_place(position + 1, len(classes))
            before = f"{position}:{page.before}" if page.before else _class_place(position - 1, len(classes))
            return replace(page, after=after, before=before)
        position, place = position + step, ""
    return GalleryPage([], "class")


def _class_place(position: int, n_classes: int) -> str:
    return f"{position}:" if 0 <= position < n_classes else ""


def _place(text: str) -> tuple[float, int] | None:
    if not text:
        return None
    value, _, particle = text.partition(",")
    try:
        place = float(value), int(particle)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no place in this view. Start again at its first page.") from error
    if math.isnan(place[0]) or abs(place[1]) > 2**62 or math.isinf(place[0]):
        raise ConfigError(f"{text!r} is no place in this view. Start again at its first page.")
    return place


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    names = {
        "micrograph": "micrograph_id",
        "label": "label",
        "predicted": "predicted",
        "probability": "probability",
        "novelty": "novelty",
        "diameter_px": "equivalent_diameter_px",
        "diameter_nm": "equivalent_diameter_nm",
    }
    columns = {key: _plain(rows[name]) if name in rows else [None] * len(rows) for key, name in names.items()}
    found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{"id": int(i), **record} for i, record in zip(rows.index, found, strict=True)]


def _plain(values: Any) -> Sequence[Any]:
    return [None if value is None or value != value else value for value in values.tolist()]
