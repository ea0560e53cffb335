"""Questions about particles: a filter as a value, and the SQL that answers it page by page."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from tumble.errors import ConfigError
from tumble.library.images import CHUNK
from tumble.library.label_log import newest_labels, stands
from tumble.library.models import find_model, predicting_model
from tumble.library.schema import MEASUREMENT_COLUMNS, labels, particles, predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Page", "Query", "Range", "among", "count_particles", "count_predicted", "search_particles"]

#: Lowest and highest value, both included; None where there is no bound.
Range = tuple[float | None, float | None]

_ANY: Range = (None, None)
_FROM_MODEL = ("probability", "novelty")
_STATES = ("any", "labelled", "unlabelled", "contested")
#: Measurements that a page shows beside what was asked for.
_SHOWN = ("equivalent_diameter_px", "equivalent_diameter_nm", "area_px")
#: Particles among which a page of a class is looked for before all of the class is sorted.
_WALK = 2000
#: Columns of particles that the database can follow in order.
_SORTED = frozenset(next(iter(index.columns)).name for index in particles.indexes)


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which particles, in which order; all conditions must hold.

    Parameters
    ----------
    particle_ids, micrograph_ids : tuple of int, optional
        Only these particles, only those of these micrographs.
    model : str, optional
        The model whose predictions are meant; the newest that has any if not given.
    predicted : tuple of str, optional
        Only particles that the model takes for one of these classes.
    probability, novelty : (lowest, highest)
        Range of the probability of that class, and of the model's novelty; None for no bound. The scale of novelty is
        the model's own: 0 is the median of its labelled objects, 1 their upper tenth.
    measurements : mapping of str to (lowest, highest)
        Range of any measurement, for example ``{"equivalent_diameter_nm": (5, None)}``.
    labels : tuple of str, optional
        Only particles whose present label is one of these.
    label_state : {"any", "labelled", "unlabelled", "contested"}
        Contested are those for which the newest labels of two people differ.
    labelled_by : str, optional
        Only particles whose present label is this person's.
    disagrees_with : str, optional
        Only particles that this other model takes for another class.
    disagrees_with_label : bool
        Only particles that the model takes for another class than their label.
    also_predicted : tuple of (model, class), optional
        Only particles that this other model takes for this class.
    order_by : str
        ``"particle_id"``, ``"probability"``, ``"novelty"`` or a measurement; particles without a value are left out.
    descending : bool
        Largest values first.
    limit : int
        Particles of a page.
    after : tuple of (value, particle_id), optional
        Where the page before ended: :attr:`Page.next`.

    Raises
    ------
    ConfigError
        A condition cannot be met or does not exist.

    Examples
    --------
    >>> Query(predicted=("dimer",), probability=(0.5, 0.9), label_state="unlabelled").limit
    100
    """

    particle_ids: tuple[int, ...] | None = None
    micrograph_ids: tuple[int, ...] | None = None
    model: str | None = None
    predicted: tuple[str, ...] | None = None
    probability: Range = _ANY
    novelty: Range = _ANY
    measurements: Mapping[str, Range] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    label_state: Literal["any", "labelled", "unlabelled", "contested"] = "any"
    labelled_by: str | None = None
    disagrees_with: str | None = None
    disagrees_with_label: bool = False
    also_predicted: tuple[str, str] | None = None
    order_by: str = "particle_id"
    descending: bool = False
    limit: int = 100
    after: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        for name in self.measurements:
            if name not in MEASUREMENT_COLUMNS:
                raise ConfigError(f"there is no measurement {name!r} to search by. {_known_measurements()}")
        for name, bounds in {"probability": self.probability, "novelty": self.novelty, **self.measurements}.items():
            _check_range(name, bounds)
        if self.label_state not in _STATES:
            raise ConfigError(f"label_state is {self.label_state!r}; it must be one of {', '.join(_STATES)}.")
        if self.order_by not in ("particle_id", *_FROM_MODEL, *MEASUREMENT_COLUMNS):
            raise ConfigError(f"particles cannot be ordered by {self.order_by!r}. {_known_measurements()}")
        if self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; a page has at least one particle.")
        if self.label_state == "unlabelled" and (self.labels or self.labelled_by or self.disagrees_with_label):
            raise ConfigError("unlabelled particles have no label to search by. Leave out one of the two conditions.")

    @property
    def needs_model(self) -> bool:
        """Whether only particles with a prediction can be meant."""
        bounded = self.probability != _ANY or self.novelty != _ANY or self.order_by in _FROM_MODEL
        rival = bool(self.disagrees_with) or self.also_predicted is not None
        return bounded or self.predicted is not None or rival or self.disagrees_with_label


@dataclass(frozen=True)
class Page:
    """Some of the particles that a query finds.

    Parameters
    ----------
    particles : DataFrame
        Indexed by `particle_id`: `micrograph_id`, `label` (None where there is none), sizes, the measurements that
        were asked for, and where there is a model `predicted`, `probability` and `novelty`.
    next : tuple of (value, particle_id), or None
        What to give as `after` for the page that follows; None where this is the last one.
    """

    particles: pd.DataFrame
    next: tuple[float, int] | None


def _known_measurements() -> str:
    return f"Measurements are {', '.join(MEASUREMENT_COLUMNS)}."


def _check_range(name: str, bounds: Range) -> None:
    numbers = [bound for bound in bounds if bound is not None]
    if len(bounds) != 2 or any(math.isnan(bound) for bound in numbers) or numbers != sorted(numbers):
        raise ConfigError(f"{name}: {bounds} is no range. Give the lowest and the highest value, in this order.")


def search_particles(connection: sa.Connection, query: Query) -> Page:
    """Return one page of what a query finds."""
    model = _model_of(connection, query)
    column = _order_column(query, model)
    key = _id_column(query, model)
    wanted = [name for name in dict.fromkeys((*_SHOWN, *query.measurements)) if name in MEASUREMENT_COLUMNS]
    if query.order_by in MEASUREMENT_COLUMNS and query.order_by not in wanted:
        wanted.append(query.order_by)
    # First which particles, from indexes alone where they suffice; then what is shown of these few. In one step the
    # database would collect it for all that meet the conditions, before it sorts them and takes the first.
    ids = None if model is None else _walked(connection, query, model)
    if ids is None:
        chosen = _filtered(sa.select(key.label("id"), column.label("sort_value")), connection, query, model)
        ids = _paged(chosen, query, column, key).limit(query.limit + 1).subquery("page")
    columns: list[Any] = [particles.c.id, particles.c.micrograph_id, _label().label("label")]
    columns += [particles.c[name] for name in wanted]
    source: Any = ids.join(particles, particles.c.id == ids.c.id)
    said = ("class_name", "probability", "novelty") if model is not None else ()
    if model is not None:
        columns += [predictions.c[name] for name in said]
        source = source.join(predictions, _said_by(model), isouter=True)
    statement = sa.select(*columns, ids.c.sort_value).select_from(source)
    rows = connection.execute(statement.order_by(*_order(query, ids.c.sort_value, ids.c.id))).all()
    names = ["particle_id", "micrograph_id", "label", *wanted, *("predicted", "probability", "novelty")[: len(said)]]
    page = rows[: query.limit]
    last = (page[-1].sort_value, int(page[-1].id)) if len(rows) > query.limit else None
    return Page(_frame(page, names), last)


def count_particles(connection: sa.Connection, query: Query) -> int:
    """Return how many particles a query finds, on all pages."""
    model = _model_of(connection, query)
    found = _filtered(sa.select(sa.func.count()), connection, query, model)
    if query.order_by != "particle_id":
        found = found.where(_order_column(query, model).is_not(None))
    return int(connection.scalar(found) or 0)


def count_predicted(connection: sa.Connection, query: Query) -> pd.DataFrame:
    """Return how many particles of each micrograph a model takes for each class, of those that a query finds."""
    row = find_model(connection, query.model) if query.model else _model_row(connection)
    if row is None:
        raise ConfigError("no model has classified the particles yet. Run `tumble classify` first.")
    query_of = particles.c.micrograph_id, predictions.c.class_name
    statement = _filtered(sa.select(*query_of, sa.func.count()), connection, query, int(row.id), inner=True)
    counted: Any = connection.execute(statement.group_by(*query_of)).all()
    micrographs = sorted({int(found[0]) for found in counted})
    table = pd.DataFrame(
        0, index=pd.Index(micrographs, name="micrograph_id"), columns=list(row.classes), dtype=np.int64
    )
    for micrograph, name, n in counted:
        table.loc[int(micrograph), name] = int(n)
    return table


def _model_row(connection: sa.Connection) -> Any | None:
    return predicting_model(connection)


def _model_of(connection: sa.Connection, query: Query) -> int | None:
    """Return the id of the model whose predictions are meant, None where there are none and none are needed."""
    if query.model is not None:
        return int(find_model(connection, query.model).id)
    row = _model_row(connection)
    if row is None and query.needs_model:
        raise ConfigError("no model has classified the particles yet. Run `tumble classify` first.")
    return None if row is None else int(row.id)


def _label() -> sa.ScalarSelect[Any]:
    """Select the present label of the particle of the enclosing statement."""
    newest = sa.select(labels.c.label).where(labels.c.particle_id == particles.c.id, stands())
    return newest.order_by(labels.c.id.desc()).limit(1).correlate(particles).scalar_subquery()


def _order_column(query: Query, model: int | None) -> sa.ColumnElement[Any]:
    if query.order_by == "particle_id":
        return _id_column(query, model)
    return predictions.c[query.order_by] if query.order_by in _FROM_MODEL else particles.c[query.order_by]


def _id_column(query: Query, model: int | None) -> sa.ColumnElement[Any]:
    # In the table that is sorted, so that the database can follow that table's index.
    return predictions.c.particle_id if query.needs_model and model is not None else particles.c.id


def _paged(statement: Any, query: Query, column: sa.ColumnElement[Any], key: sa.ColumnElement[Any]) -> Any:
    """Sort, and go on after the last particle of the page before: pages far on cost no more than the first."""
    if query.order_by != "particle_id":
        statement = statement.where(column.is_not(None))
    statement = statement.order_by(*_order(query, column, key))
    if query.after is None:
        return statement
    value, last = query.after
    if query.order_by == "particle_id":
        return statement.where(key < last if query.descending else key > last)
    beyond, not_before = (column < value, column <= value) if query.descending else (column > value, column >= value)
    same = key < last if query.descending else key > last
    return statement.where(not_before, sa.or_(beyond, same))


def _order(query: Query, column: sa.ColumnElement[Any], key: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    order = (column, key) if query.order_by != "particle_id" else (key,)
    return [part.desc() if query.descending else part.asc() for part in order]


def _said_by(model: int) -> sa.ColumnElement[bool]:
    return (predictions.c.particle_id == particles.c.id) & (predictions.c.model_id == model)


def _walked(connection: sa.Connection, query: Query, model: int) -> sa.Subquery | None:
    """Select a page of the largest or smallest of a class by going through particles by size, where that is quick.

    The database would rather collect and sort the whole class, which takes long where the class is common. None where
    it has to: something else is asked, too, or the particles that are next in size are hardly ever of the class.
    """
    if query.order_by not in _SORTED or not query.predicted:
        return None
    asked = replace(query, predicted=None, model=None, measurements={}, after=None)
    plain = Query(
        order_by=query.order_by, descending=query.descending, label_state=query.label_state, limit=query.limit
    )
    bounded = any(bounds != _ANY for bounds in query.measurements.values())
    if asked != plain or bounded or query.label_state not in ("any", "unlabelled"):
        return None
    column, key = particles.c[query.order_by], particles.c.id
    said = sa.select(predictions.c.class_name).where(predictions.c.model_id == model, predictions.c.particle_id == key)
    class_name = said.correlate(particles).scalar_subquery().label("class_name")
    next_ones = sa.select(key.label("id"), column.label("sort_value"), class_name).where(*_label_conditions(query))
    walk = _paged(next_ones, query, column, key).limit(max(_WALK, 2 * query.limit)).subquery("walk")
    of_class = sa.select(walk.c.id, walk.c.sort_value).where(walk.c.class_name.in_(query.predicted))
    found = of_class.order_by(*_order(query, walk.c.sort_value, walk.c.id)).limit(query.limit + 1).subquery("page")
    full = connection.scalar(sa.select(sa.func.count()).select_from(found)) == query.limit + 1
    return found if full else None


def _filtered(
    statement: Any, connection: sa.Connection, query: Query, model: int | None, *, inner: bool = False
) -> Any:
    source: Any = particles
    conditions = [*_particle_conditions(connection, query), *_label_conditions(query)]
    if model is not None and (query.needs_model or inner):
        source = particles.join(predictions, _said_by(model))
        conditions += _model_conditions(connection, query)
    return statement.select_from(source).where(*conditions)


def _within(column: sa.ColumnElement[Any], bounds: Range) -> list[sa.ColumnElement[bool]]:
    low, high = bounds
    found = [] if low is None else [column >= float(low)]
    return found if high is None else [*found, column <= float(high)]


def among(connection: sa.Connection, column: sa.Column[Any], ids: list[int]) -> sa.ColumnElement[bool]:
    """Compare with any number of ids; where there are many, as one parameter, since databases limit how many."""
    if len(ids) <= CHUNK:
        return column.in_(ids)
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.cast(ids, ARRAY(sa.BigInteger)))
    return column.in_(sa.select(sa.func.json_each(json.dumps(ids)).table_valued("value").c.value))


def _particle_conditions(connection: sa.Connection, query: Query) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if query.particle_ids is not None:
        found.append(among(connection, particles.c.id, [int(i) for i in query.particle_ids]))
    if query.micrograph_ids is not None:
        found.append(particles.c.micrograph_id.in_([int(i) for i in query.micrograph_ids]))
    for name, bounds in query.measurements.items():
        found += _within(particles.c[name], bounds)
    return found


def _label_conditions(query: Query) -> list[sa.ColumnElement[bool]]:
    """Conditions on labels, as sets of particles: there are few labels and many particles."""
    standing = sa.select(labels.c.particle_id).where(labels.c.id.in_(newest_labels()), labels.c.label.is_not(None))
    found: list[sa.ColumnElement[bool]] = []
    if query.label_state == "labelled" or query.disagrees_with_label:
        found.append(particles.c.id.in_(standing))
    if query.label_state == "unlabelled":
        found.append(_label().is_(None))
    if query.label_state == "contested":
        own = sa.select(labels.c.particle_id).where(
            labels.c.id.in_(newest_labels(labels.c.author)), labels.c.label.is_not(None)
        )
        several = sa.func.count(sa.distinct(labels.c.label)) > 1
        found.append(particles.c.id.in_(own.group_by(labels.c.particle_id).having(several)))
    if query.labels is not None:
        found.append(particles.c.id.in_(standing.where(labels.c.label.in_(query.labels))))
    if query.labelled_by is not None:
        found.append(particles.c.id.in_(standing.where(labels.c.author == query.labelled_by)))
    return found


def _model_conditions(connection: sa.Connection, query: Query) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if query.predicted is not None:
        found.append(predictions.c.class_name.in_(query.predicted))
    found += _within(predictions.c.probability, query.probability)
    found += _within(predictions.c.novelty, query.novelty)
    other = predictions.alias()
    same_particle = other.c.particle_id == predictions.c.particle_id
    if query.disagrees_with is not None:
        rival = int(find_model(connection, query.disagrees_with).id)
        differs = other.c.class_name != predictions.c.class_name
        found.append(sa.exists().where(other.c.model_id == rival, same_particle, differs))
    if query.also_predicted is not None:
        name, wanted = query.also_predicted
        rival = int(find_model(connection, name).id)
        found.append(sa.exists().where(other.c.model_id == rival, same_particle, other.c.class_name == wanted))
    if query.disagrees_with_label:
        found.append(_label() != predictions.c.class_name)
    return found


def _frame(rows: Any, names: list[str]) -> pd.DataFrame:
    data: dict[str, Any] = {}
    for i, name in enumerate(names):
        values = [row[i] for row in rows]
        if name in ("label", "predicted"):
            data[name] = pd.Series(values, dtype=object)
        elif name in ("particle_id", "micrograph_id"):
            data[name] = np.array(values, dtype=np.int64)
        elif name in ("touches_border", "truncated"):
            data[name] = pd.array(values, dtype="boolean")
        else:
            data[name] = np.array(values, dtype=object).astype(np.float64)
    frame = pd.DataFrame(data)
    for name in ("label", "predicted"):
        if name in frame:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame.set_index("particle_id")
