"""The particle library: one object through which everything is stored and read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

from tumble.library import classes, images, label_actions, label_log, models
from tumble.library.database import Database, wait_for_turn
from tumble.library.questions import Questions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from tumble.library.label_actions import LabelAction
    from tumble.library.label_log import IdsLike
    from tumble.types import Micrograph, ModelRecord, Particles, Predictions

__all__ = ["Library"]

logger = logging.getLogger(__name__)


class Library(Questions):
    """A database of micrographs, their particles, labels, models and predictions.

    Each method is one transaction: it stores all it was given, or nothing. Use it as a context manager, or
    call :meth:`close`.

    Parameters
    ----------
    url_or_path : str or Path
        Path of an SQLite file, or any SQLAlchemy URL.
    create : bool, default False
        Create the library where there is none. An existing one is opened as it is.

    Raises
    ------
    LibraryError
        The library cannot be opened or created; the message says why and what to do.
    LibraryVersionError
        It was written by a newer version of `tumble`.

    Examples
    --------
    >>> from tumble.library import Library
    >>> with Library("sqlite://", create=True) as library:  # in memory
    ...     library.info()["particles"]
    0
    """

    def __init__(self, url_or_path: str | Path, *, create: bool = False) -> None:
        self._database = Database(url_or_path, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Library({self._database.name!r})"

    def close(self) -> None:
        """Close the database; an SQLite library is then a single file."""
        self._database.close()

    def add_micrograph(
        self,
        micrograph: Micrograph,
        particles: Particles,
        *,
        file_hash: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Store a micrograph with all its particles.

        Parameters
        ----------
        micrograph : Micrograph
            The image; its pixels are kept as a preview only.
        particles : Particles
            What was found in it.
        file_hash : str, optional
            SHA-256 of the file it was read from, in hexadecimal.
        progress : callable, optional
            Called with the number of particles stored and their total.

        Returns
        -------
        int
            Id of the micrograph. One with the same content is not stored again: its id is returned and
            nothing is changed.
        """
        known = self._known_micrograph(micrograph, particles)
        if known is not None:
            return known
        row = images.micrograph_row(micrograph, particles, file_hash)  # the slow part, before others are locked out
        with self._database.writing() as connection:
            wait_for_turn(connection, f"micrograph {micrograph.content_hash}")
            found = images.find_micrograph(connection, micrograph.content_hash)
            if found is not None:  # another process was faster
                return int(found.id)
            return images.insert_micrograph(connection, row, particles, progress)

    def _known_micrograph(self, micrograph: Micrograph, found: Particles) -> int | None:
        with self._database.reading() as connection:
            row = images.find_micrograph(connection, micrograph.content_hash)
        if row is None:
            return None
        logger.info("%s: already in %s as micrograph %d", micrograph.source, self._database.name, row.id)
        if row.extraction != images.json_form(found.parameters):
            logger.warning(
                "%s: micrograph %d was extracted with other settings; its particles were left as they are",
                micrograph.source,
                row.id,
            )
        return int(row.id)

    def add_labels(
        self,
        particle_ids: IdsLike,
        labels: Sequence[Any] | npt.NDArray[Any],
        *,
        author: str,
        source: str,
    ) -> int:
        """Append labels to the history; the newest label of a particle counts.

        Parameters
        ----------
        particle_ids : sequence of int
            Ids of particles in this library.
        labels : sequence of str, int or None
            One label for each; None withdraws the label that the particle has.
        author : str
            Who labelled.
        source : str
            How, for example the name of a file or ``"app"``.

        Returns
        -------
        int
            Number of entries stored.

        Raises
        ------
        LabelError
            A particle is not in the library or a label is not one; nothing was stored.
        """
        rows = label_log.check_labels(particle_ids, labels, author, source)
        with self._database.writing() as connection:
            label_log.insert_labels(connection, rows, author, source)
        return len(rows)

    def import_labels(self, table: pd.DataFrame, *, author: str, source: str) -> int:
        """Append the entries of another log, with the authors and times that they have there.

        Parameters
        ----------
        table : DataFrame
            As :meth:`label_log` gives it. Particles are those of the same number in the micrograph of the same
            content, whatever their ids were; an empty label withdraws, an empty author is `author`, an empty time now.
        author, source : str
            Who imports, and from where.

        Returns
        -------
        int
            Number of entries stored; those that the library has already are not stored again.

        Raises
        ------
        LabelError
            A particle is not in the library or a label is not one; nothing was stored.
        """
        with self._database.writing() as connection:
            ids = label_log.particles_of_log(connection, table, source)
            rows = label_actions.import_rows(connection, table.assign(particle_id=ids), author, source)
            label_log.insert_labels(connection, rows, author, source)
        return len(rows)

    def undo_labels(self, author: str, action_id: int | None = None) -> LabelAction:
        """Take back what this person labelled last, or the action named; nothing is removed from the history.

        Parameters
        ----------
        author : str
            Who takes back; without `action_id`, whose labels.
        action_id : int, optional
            Number of an action, see :meth:`label_actions`.

        Returns
        -------
        LabelAction
            What was taken back.

        Raises
        ------
        LabelError
            There is nothing to take back.
        """
        with self._database.writing() as connection:
            return label_actions.undo(connection, author, action_id)

    def redo_labels(self, author: str) -> LabelAction:
        """Restore what this person took back last, unless they have labelled since."""
        with self._database.writing() as connection:
            return label_actions.redo(connection, author)

    def put_class(self, name: str, colour: str | None = None) -> None:
        """Store a class without labels, or the colour of any.

        Parameters
        ----------
        name : str
            Its name, which is the label.
        colour : str, optional
            ``"#rrggbb"``; for a new class one that no other has, if not given.

        Raises
        ------
        LabelError
            The name or the colour is none.
        """
        with self._database.writing() as connection:
            classes.put_class(connection, name, colour)

    def rename_class(self, old: str, new: str, *, author: str, source: str) -> int:
        """Rename a class, or merge it into another that exists: its labels are given anew, as one action.

        Parameters
        ----------
        old, new : str
            Names.
        author, source : str
            As in :meth:`add_labels`.

        Returns
        -------
        int
            How many particles were labelled anew; :meth:`undo_labels` gives them their label back.

        Raises
        ------
        LabelError
            There is no such class, or `new` cannot be a name.
        """
        label_log.check_text("author", author)
        label_log.check_text("source", source)
        with self._database.writing() as connection:
            return classes.rename_class(connection, old, new, author, source)

    def remove_class(self, name: str) -> None:
        """Forget a class that has no labels; one that has is refused with a `LabelError`."""
        with self._database.writing() as connection:
            classes.remove_class(connection, name)

    def add_model(self, record: ModelRecord) -> int:
        """Store what is known about a fitted model; of models with one name, the newest counts."""
        with self._database.writing() as connection:
            return models.insert_model(connection, record)

    def ensure_model(self, record: ModelRecord) -> int:
        """Store a model unless the newest of its name has the same weights; return its id in either case."""
        with self._database.writing() as connection:
            return models.ensure_model(connection, record)

    def update_evaluation(self, name: str, evaluation: Mapping[str, Any]) -> None:
        """Store the scores of the newest model of this name, in place of earlier ones."""
        with self._database.writing() as connection:
            models.update_evaluation(connection, name, evaluation)

    def begin_run(self, model_name: str) -> int:
        """Note that the newest model of this name begins to predict, and return the number of this run."""
        with self._database.writing() as connection:
            return models.insert_run(connection, int(models.find_model(connection, model_name).id))

    def add_predictions(
        self, model_name: str, particle_ids: IdsLike, predictions: Predictions, *, run_id: int | None = None
    ) -> None:
        """Store what the newest model of this name says of particles, in place of what it said before.

        Parameters
        ----------
        model_name : str
            Name of the model.
        particle_ids : sequence of int
            The particles, in the order of `predictions`.
        predictions : Predictions
            What the model says of them.
        run_id : int, optional
            The run that they are of, see :meth:`begin_run`; one of their own if not given.
        """
        ids = label_log.as_particle_ids(particle_ids)
        with self._database.writing() as connection:
            models.replace_predictions(connection, model_name, ids, predictions, run_id)
