"""The confusion view: what a model says against what people say, as counts whose cells open their particles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlencode

import numpy as np
import pandas as pd
from fastapi import APIRouter, Query, Request, Response

from tumble.app.deps import LibraryDep
from tumble.app.downloads import csv_response, figure_response
from tumble.app.explore.frame import ExploreView, model_of, render_view
from tumble.app.explore.known import Name, known_model
from tumble.app.explore.matrix import Matrix, count_pairs, gallery_link, selection_link
from tumble.errors import ConfigError
from tumble.library import Query as Question

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tumble.library import Library
    from tumble.types import ModelRecord

__all__ = ["VIEW", "Confusion", "confusion_of", "said_of_labelled"]

router = APIRouter(tags=["explore"])

VIEW = ExploreView(
    title="Confusion",
    path="/explore/confusion",
    about="Predictions against labels: which classes the model takes for one another. Each cell opens its particles.",
    router=router,
)

Source = Literal["test", "unseen", "labels"]
#: Name in the address -> what people read.
SOURCES = {
    "test": "The stored test",
    "unseen": "Labels the fit did not use",
    "labels": "All present labels",
}
_AT_ONCE = 10_000
_SAID = ["label", "predicted", "probability"]


@dataclass(frozen=True)
class Confusion:
    """Predictions of a model against labels.

    Parameters
    ----------
    source : str
        One of :data:`SOURCES`.
    matrix : Matrix
        Labels (rows) and predictions (columns).
    about : str
        Which labels these are, in a sentence.
    warning : str
        What the reader must know to judge them, or "".
    """

    source: Source
    matrix: Matrix
    about: str
    warning: str = ""

    @property
    def accuracy(self) -> float:
        """Share of particles whose label is predicted; NaN where there are none."""
        return self.matrix.agreed / self.matrix.total if self.matrix.total else float("nan")

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have labels; NaN where there are none."""
        known = [value for value in self.matrix.recalls().values() if value == value]
        return float(np.mean(known)) if known else float("nan")


def said_of_labelled(library: Library, model: str) -> pd.DataFrame:
    """Return `label`, `predicted` and `probability` of the particles that have a label and a prediction of a model."""
    question = Question(model=model, label_state="labelled", limit=2**31)
    found = library.search(question).particles.reindex(columns=_SAID)
    return found.dropna(subset=["predicted"])


def confusion_of(library: Library, record: ModelRecord, source: Source | None = None) -> Confusion | None:
    """Compare a model's predictions with labels.

    Parameters
    ----------
    library : Library
        The open library.
    record : ModelRecord
        The model.
    source : str, optional
        Which labels; if not given, the most honest that there are: the stored test, or else labels that the fit did
        not use, or else all.

    Returns
    -------
    Confusion or None
        None where there are no such labels.
    """
    if source == "test" or (source is None and record.evaluation):
        return _stored_test(library, record)
    said = said_of_labelled(library, record.name)
    unseen: Any = said.loc[~said.index.isin(record.labelled_particle_ids)]
    if source is None:
        source = "unseen" if len(unseen) else "labels"
    chosen: Any = said if source == "labels" else unseen
    if chosen.empty:
        return None
    classes = _names(record, chosen["label"])
    n_taught = len(said) - len(unseen)
    warnings = []
    if source == "labels":

        def link(label: str, predicted: str) -> str | None:
            return gallery_link(model=record.name, label=label, class_=predicted, sort="uncertain")

        about = f"All {len(said):,} present labels of particles that {record.name} has classified."
        if n_taught:
            warnings.append(f"{n_taught:,} of them taught the model, so that this flatters it.")
    else:
        link = _cell_links(chosen, record.name)
        about = f"{len(unseen):,} present labels that the fit of {record.name} did not use."
    strange = classes[len(record.classes) :]
    if strange:
        n = int(chosen["label"].isin(strange).sum())
        warnings.append(f"{n:,} are of classes that the model does not know ({', '.join(strange)}) and count as wrong.")
    return Confusion(source, _matrix(chosen, classes, record, link), about, " ".join(warnings))


def _stored_test(library: Library, record: ModelRecord) -> Confusion | None:
    """Return the evaluation as it was stored, with links to its particles as far as they can be told."""
    stored: Any = record.evaluation
    if not stored or not stored.get("confusion"):
        return None
    ids = [int(i) for i in stored.get("test_particle_ids", ())]
    truth = stored.get("test_labels")
    said = _said(library, record.name, ids)
    if truth is not None and len(truth) == len(ids):
        said["label"] = pd.Series(truth, index=ids, dtype=object).reindex(said.index)
    said = said.dropna(subset=["label", "predicted"])
    classes = [str(name) for name in stored["classes"]]
    counts = np.array(stored["confusion"], dtype=np.int64)
    matrix = Matrix(classes, classes, counts, "label", "predicted", _cell_links(said, record.name))
    known: Any = said.loc[said["label"].isin(classes) & said["predicted"].isin(classes)]
    same = np.array_equal(count_pairs(known["label"], known["predicted"], classes, classes), counts)
    warning = (
        ""
        if same
        else "Labels or predictions of these particles have changed since: a cell opens those that belong to it now."
    )
    where = str(stored.get("region") or "test particles")
    return Confusion("test", matrix, f"The test that was stored with {record.name}: {where}.", warning)


def _said(library: Library, model: str, ids: list[int]) -> pd.DataFrame:
    def parts() -> Iterator[pd.DataFrame]:
        for start in range(0, len(ids), _AT_ONCE):
            some = tuple(ids[start : start + _AT_ONCE])
            yield library.search(Question(model=model, particle_ids=some, limit=len(some))).particles

    found = list(parts())
    return pd.concat(found).reindex(columns=_SAID) if found else pd.DataFrame(columns=pd.Index(_SAID), dtype=object)


def _names(record: ModelRecord, labels: Any) -> list[str]:
    """Return the classes of the model, then those that only people know."""
    return [*record.classes, *sorted(set(labels) - set(record.classes))]


def _matrix(said: Any, classes: list[str], record: ModelRecord, link: Any) -> Matrix:
    columns = list(record.classes)
    counts = count_pairs(said["label"], said["predicted"], classes, columns)
    return Matrix(classes, columns, counts, "label", "predicted", link)


def _cell_links(said: pd.DataFrame, model: str) -> Any:
    groups = {key: group.index for key, group in said.groupby(["label", "predicted"])}

    def link(label: str, predicted: str) -> str | None:
        return selection_link(groups.get((label, predicted), ()), model)

    return link


Of = Annotated[Source | Literal[""] | None, Query()]


@router.get("/explore/confusion", include_in_schema=False)
def confusion_page(
    request: Request,
    library: LibraryDep,
    model: Name = None,
    of: Of = None,
    show: Annotated[Literal["counts", "percent"], Query()] = "counts",
) -> Response:
    """Show the confusion matrix."""
    names = _models(library)
    record = _record(library, model)
    found = confusion_of(library, record, of or None) if record else None
    query = {"model": record.name, "of": of or (found.source if found else "")} if record else {}
    context = {
        "names": names,
        "record": record,
        "of": of or (found.source if found else "labels"),
        "show": show,
        "sources": SOURCES,
        "found": found,
        "query": urlencode(query),
        "precisions": found.matrix.precisions() if found else {},
    }
    return render_view(request, "explore_confusion.html", context)


def _models(library: Library) -> list[str]:
    """Return the models that have classified particles, the newest first."""
    table = library.models()
    newest = table.groupby("name", sort=False).tail(1)
    return newest.loc[newest["n_predictions"] > 0, "name"].iloc[::-1].tolist()


def _record(library: Library, name: str | None) -> ModelRecord | None:
    name = known_model(library, name).name if name else model_of(library, None)
    return library.model_record(name) if name else None


def _needed(library: Library, model: str | None, of: Of) -> Confusion:
    record = _record(library, model)
    if record is None:
        raise ConfigError("no model has classified the particles yet: there is nothing to export. Train one first.")
    found = confusion_of(library, record, of or None)
    if found is None:
        raise ConfigError(f"there are no such labels for {record.name}: there is nothing to export.")
    return found


@router.get("/explore/confusion/export.csv")
def export_table(library: LibraryDep, model: Name = None, of: Of = None) -> Response:
    """Return the matrix as a table with a row per cell."""
    return csv_response(_needed(library, model, of).matrix.table(), "confusion", index=False)


@router.get("/explore/confusion/export.{kind}")
def export_figure(library: LibraryDep, kind: str, model: Name = None, of: Of = None) -> Response:
    """Return the matrix as a figure."""
    return figure_response(_needed(library, model, of).matrix.figure(), kind, "confusion")
