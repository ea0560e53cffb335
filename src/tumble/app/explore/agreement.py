"""How far people agree on labels: each pair, all together, and the particles on which they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pandas as pd
from fastapi import APIRouter, HTTPException, Request, Response

from tumble.app.colours import colours_of
from tumble.app.deps import LibraryDep
from tumble.app.downloads import csv_response, figure_response
from tumble.app.explore.frame import ExploreView, render_view
from tumble.app.explore.known import Name
from tumble.app.explore.matrix import Matrix, count_pairs, selection_link
from tumble.app.images import library_key
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from tumble.library import Library
    from tumble.pipeline.ask import LabelAgreement

__all__ = ["VIEW", "People", "pair_matrix", "people_of"]

router = APIRouter(tags=["explore"])

VIEW = ExploreView(
    title="Agreement",
    path="/explore/agreement",
    about="How far the people who labelled agree beyond chance, and the particles on which they do not.",
    router=router,
)
_SHOWN = 24


@dataclass(frozen=True)
class People:
    """The labels of several people, and how far they agree.

    Parameters
    ----------
    ratings : DataFrame
        A row per particle, a column per person, None where one said nothing.
    agreement : LabelAgreement
        Of all of them.
    """

    ratings: pd.DataFrame
    agreement: LabelAgreement

    @property
    def names(self) -> list[str]:
        """Those who labelled."""
        return [str(name) for name in self.ratings.columns]

    def pair(self, a: str | None, b: str | None) -> tuple[str, str]:
        """Return the two people that are meant: if not given or the same, those with most particles in common.

        Raises
        ------
        HTTPException
            404 where one of them labelled nothing.
        """
        for name in (a, b):
            if name is not None and name not in self.names:
                raise HTTPException(404, f"nobody named {name!r} has labelled. There are {', '.join(self.names)}.")
        wanted = {name for name in (a, b) if name is not None}
        pairs = self.agreement.pairs.sort_values("n", ascending=False, kind="stable")
        pair = next(
            [str(one), str(other)]
            for one, other in zip(pairs["rater"], pairs["other"], strict=True)
            if wanted <= {str(one), str(other)}
        )
        first = a or next(name for name in pair if name != b)
        return first, next(name for name in pair if name != first)


def people_of(library: Library) -> People | None:
    """Return who labelled and how far they agree; None where fewer than two did."""
    from tumble.pipeline import label_agreement

    ratings = library.labels_by_author()
    if ratings.shape[1] < 2:
        return None
    return People(ratings, label_agreement(library))


def pair_matrix(people: People, a: str, b: str) -> Matrix | None:
    """Return the particles that two people labelled, by the label of each; None where there are none."""
    both = people.ratings.loc[people.ratings[a].notna() & people.ratings[b].notna(), [a, b]]
    if both.empty:
        return None
    classes = sorted(set(both[a]) | set(both[b]))
    groups = {key: group.index for key, group in both.groupby([a, b])}

    def link(row: str, column: str) -> str | None:
        return selection_link(groups.get((row, column), ()))

    return Matrix(classes, classes, count_pairs(both[a], both[b], classes, classes), a, b, link)


def _pairs(people: People, a: str, b: str) -> list[dict[str, Any]]:
    """Return a line per pair, with the link to the particles on which it differs."""
    lines = []
    for line in people.agreement.pairs.to_dict("records"):
        one, other = str(line["rater"]), str(line["other"])
        ratings = people.ratings
        differ: Any = ratings[one].notna() & ratings[other].notna() & (ratings[one] != ratings[other])
        line |= {
            "n_differ": int(differ.sum()),
            "link": selection_link(ratings.index[differ]),
            "address": f"{VIEW.path}?{urlencode({'a': one, 'b': other})}",
            "shown": {one, other} == {a, b},
        }
        lines.append(line)
    return lines


@router.get("/explore/agreement", include_in_schema=False)
def agreement_page(request: Request, library: LibraryDep, a: Name = None, b: Name = None) -> Response:
    """Show how far people agree."""
    people = people_of(library)
    if people is None:
        authors = library.labels_by_author().columns.tolist()
        return render_view(request, "explore_agreement.html", {"people": None, "authors": authors})
    a, b = people.pair(a or None, b or None)
    matrix = pair_matrix(people, a, b)
    table = people.agreement.disagreements
    shown = [
        {"id": int(str(i)), "said": [(name, row[name]) for name in people.names if isinstance(row[name], str)]}
        for i, row in table.head(_SHOWN).iterrows()
    ]
    context = {
        "people": people,
        "a": a,
        "b": b,
        "pairs": _pairs(people, a, b),
        "matrix": matrix,
        "shown": shown,
        "n_differ": len(table),
        "key": library_key(library),
        "colours": colours_of(library),
        "query": urlencode({"a": a, "b": b}),
    }
    return render_view(request, "explore_agreement.html", context)


def _needed(library: Library) -> People:
    people = people_of(library)
    if people is None:
        raise ConfigError("labels of two people are needed: there is no agreement to export.")
    return people


@router.get("/explore/agreement/export.csv")
def export_pairs(library: LibraryDep) -> Response:
    """Return the agreement of each pair, and of all as the last row."""
    found = _needed(library).agreement
    everyone = {"rater": "all", "other": "", "n": found.n_common, "agreement": None, "kappa": found.fleiss_kappa}
    table = pd.DataFrame([*found.pairs.to_dict("records"), everyone])
    table["kind_of_kappa"] = ["Cohen"] * len(found.pairs) + ["Fleiss"]
    return csv_response(table, "agreement", index=False)


@router.get("/explore/agreement/disagreements.csv")
def export_disagreements(library: LibraryDep) -> Response:
    """Return the particles on which people differ, with the label of each."""
    return csv_response(_needed(library).agreement.disagreements, "disagreements")


@router.get("/explore/agreement/export.{kind}")
def export_figure(library: LibraryDep, kind: str, a: Name = None, b: Name = None) -> Response:
    """Return the labels of two people as a figure."""
    people = _needed(library)
    a, b = people.pair(a or None, b or None)
    matrix = pair_matrix(people, a, b)
    if matrix is None:
        raise ConfigError(f"{a} and {b} have labelled no particle in common: there is nothing to draw.")
    return figure_response(matrix.figure(), kind, "agreement")
