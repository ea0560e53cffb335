"""The comparison of two models: where they agree, where they differ, and which is right on labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Request, Response

from tumble.app.colours import colours_of
from tumble.app.deps import LibraryDep
from tumble.app.downloads import csv_response, figure_response
from tumble.app.explore.confusion import said_of_labelled
from tumble.app.explore.frame import ExploreView, render_view
from tumble.app.explore.known import Name, known_model
from tumble.app.explore.matrix import Matrix, gallery_link
from tumble.app.images import library_key
from tumble.errors import ConfigError, DataError
from tumble.library import Query as Question

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from tumble.library import Library
    from tumble.types import ModelRecord

__all__ = ["VIEW", "Comparison", "compare", "counts_by_class", "scores_on_labels"]

router = APIRouter(tags=["explore"])

VIEW = ExploreView(
    title="Compare",
    path="/explore/compare",
    about="Two models beside each other: where they agree, the particles on which they differ, and who is right.",
    router=router,
)
#: Particles that are shown at once; the gallery has all.
_SHOWN = 24
_PAGE = 5000


@dataclass(frozen=True)
class Comparison:
    """What two models say of the particles that both classified.

    Parameters
    ----------
    first, second : ModelRecord
        The models.
    matrix : Matrix
        Particles by class of the first (rows) and of the second (columns).
    kappa : float
        Cohen's, NaN where it is not defined.
    """

    first: ModelRecord
    second: ModelRecord
    matrix: Matrix
    kappa: float

    @property
    def n_differ(self) -> int:
        """Number of particles on which they differ."""
        return self.matrix.total - self.matrix.agreed

    @property
    def agreement(self) -> float:
        """Share of particles on which they agree."""
        return self.matrix.agreed / self.matrix.total

    @property
    def differences(self) -> str:
        """Address of the particles on which they differ, in the gallery."""
        return gallery_link(model=self.first.name, other=self.second.name, sort="uncertain")


def compare(library: Library, first: ModelRecord, second: ModelRecord) -> Comparison | None:
    """Compare two models; None where they classified no particle in common."""
    from tumble.pipeline import compare_models

    try:
        found = compare_models(library, first.name, second.name)
    except DataError:
        return None

    def link(row: str, column: str) -> str | None:
        return gallery_link(model=first.name, class_=row, other=second.name, other_class=column, sort="uncertain")

    rows, columns = (list(index) for index in (found.table.index, found.table.columns))
    matrix = Matrix(rows, columns, found.table.to_numpy(), first.name, second.name, link)
    return Comparison(first, second, matrix, found.kappa)


def counts_by_class(matrix: Matrix) -> list[dict[str, Any]]:
    """Return how many particles each model takes for each class, and the difference."""
    rows = dict(zip(matrix.rows, matrix.counts.sum(axis=1).tolist(), strict=True))
    columns = dict(zip(matrix.columns, matrix.counts.sum(axis=0).tolist(), strict=True))
    names = list(dict.fromkeys([*rows, *columns]))
    return [
        {"name": n, "first": rows.get(n), "second": columns.get(n), "more": columns.get(n, 0) - rows.get(n, 0)}
        for n in names
    ]


def scores_on_labels(library: Library, first: ModelRecord, second: ModelRecord) -> list[dict[str, Any]]:
    """Return how often each model says what the label says, on the same labelled particles.

    Parameters
    ----------
    library : Library
        The open library.
    first, second : ModelRecord
        The models.

    Returns
    -------
    list of dict
        For labels that neither fit used, then for all: `name`, `n`, `first` and `second` (right answers), `only_first`
        and `only_second` (right where the other is wrong).
    """
    one, two = (said_of_labelled(library, record.name) for record in (first, second))
    both = one.join(two.add_suffix("_other"), how="inner")
    labels = both["label"].to_numpy(object)
    a, b = (both[name].to_numpy(object) == labels for name in ("predicted", "predicted_other"))
    unseen = ~both.index.isin([*first.labelled_particle_ids, *second.labelled_particle_ids])
    groups = (
        (f"{unseen.sum():,} labels that neither model was fitted with", unseen),
        (f"All {len(both):,} present labels", np.ones(len(both), dtype=bool)),
    )
    return [
        {
            "name": name,
            "n": int(chosen.sum()),
            "first": int((a & chosen).sum()),
            "second": int((b & chosen).sum()),
            "only_first": int((a & ~b & chosen).sum()),
            "only_second": int((b & ~a & chosen).sum()),
        }
        for name, chosen in groups
    ]


def differing(library: Library, first: str, second: str, limit: int, after: Any = None) -> tuple[pd.DataFrame, Any]:
    """Return some particles on which two models differ, with the word of each, and where the next ones begin."""
    order: dict[str, Any] = {"order_by": "particle_id", "limit": limit}
    page = library.search(Question(model=first, disagrees_with=second, after=after, **order))
    ids = tuple(int(i) for i in page.particles.index)
    other = library.search(Question(model=second, particle_ids=ids, limit=max(1, len(ids)))).particles
    columns = ["micrograph_id", "label", "predicted", "probability"]
    said = other.reindex(columns=["predicted", "probability"]).add_suffix("_other")
    table = page.particles.reindex(columns=columns).join(said)
    return table, page.next


def _pair(library: Library, a: str | None, b: str | None) -> tuple[list[str], ModelRecord | None, ModelRecord | None]:
    """Return the models to choose from and the two that are meant: if not given, the newest and the one before."""
    table = library.models()
    newest = table.groupby("name", sort=False).tail(1)
    names = newest.loc[newest["n_predictions"] > 0, "name"].iloc[::-1].tolist()
    first = known_model(library, a).name if a else next((name for name in names[1:] if name != b), None)
    second = known_model(library, b).name if b else next((name for name in names if name != first), None)
    if first is None or second is None:
        return names, None, None
    return names, library.model_record(first), library.model_record(second)


@router.get("/explore/compare", include_in_schema=False)
def compare_page(request: Request, library: LibraryDep, a: Name = None, b: Name = None) -> Response:
    """Show two models beside each other."""
    names, first, second = _pair(library, a or None, b or None)
    context: dict[str, Any] = {"names": names, "first": first, "second": second, "found": None, "query": ""}
    if first is not None and second is not None and first.name != second.name:
        found = compare(library, first, second)
        context |= {"found": found, "query": urlencode({"a": first.name, "b": second.name})}
        if found is not None:
            table, _ = differing(library, first.name, second.name, _SHOWN)
            context |= {
                "counts": counts_by_class(found.matrix),
                "scores": scores_on_labels(library, first, second),
                "shown": table.astype(object)
                .where(table.notna(), None)
                .rename_axis("id")
                .reset_index()
                .to_dict("records"),
                "key": library_key(library),
                "colours": colours_of(library, first.name),
            }
    return render_view(request, "explore_compare.html", context)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.astype(object)
    return [{"id": i, **row} for i, row in plain.where(plain.notna(), None).to_dict("index").items()]


def _needed(library: Library, a: str | None, b: str | None) -> Comparison:
    _, first, second = _pair(library, a or None, b or None)
    if first is None or second is None or first.name == second.name:
        raise ConfigError("two models are needed to compare, each with predictions (tumble classify).")
    found = compare(library, first, second)
    if found is None:
        raise ConfigError(f"{first.name} and {second.name} have classified no particle in common.")
    return found


@router.get("/explore/compare/export.csv")
def export_table(library: LibraryDep, a: Name = None, b: Name = None) -> Response:
    """Return the table of agreement with a row per cell."""
    return csv_response(_needed(library, a, b).matrix.table(), "comparison", index=False)


@router.get("/explore/compare/differences.csv")
def export_differences(library: LibraryDep, a: Name = None, b: Name = None) -> Response:
    """Return the particles on which two models differ, with the word of each."""
    from fastapi.responses import StreamingResponse

    found = _needed(library, a, b)
    headers = {"Content-Disposition": 'attachment; filename="differences.csv"'}
    lines = _differences(library, found.first.name, found.second.name)
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def _differences(library: Library, first: str, second: str) -> Iterator[str]:
    place: Any = None
    header = True
    names = {"predicted": f"{first}: predicted", "probability": f"{first}: probability"}
    names |= {"predicted_other": f"{second}: predicted", "probability_other": f"{second}: probability"}
    while header or place is not None:
        table, place = differing(library, first, second, _PAGE, place)
        yield table.rename(columns=names).to_csv(header=header, lineterminator="\n")
        header = False


@router.get("/explore/compare/export.{kind}")
def export_figure(library: LibraryDep, kind: str, a: Name = None, b: Name = None) -> Response:
    """Return the table of agreement as a figure."""
    return figure_response(_needed(library, a, b).matrix.figure(), kind, "comparison")
