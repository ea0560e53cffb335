"""What a library can be asked about its labels; nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tumble.library import label_actions, label_log
from tumble.library.classes import read_classes

if TYPE_CHECKING:
    import pandas as pd

    from tumble.library.database import Database

__all__ = ["LabelQuestions"]


class LabelQuestions:
    """The part of :class:`tumble.library.questions.Questions` that tells of labels."""

    _database: Database

    def current_labels(self) -> pd.Series:
        """Return the newest label of each labelled particle, indexed by `particle_id`."""
        with self._database.reading() as connection:
            return label_log.read_current_labels(connection)

    def label_history(self, particle_id: int | None = None) -> pd.DataFrame:
        """Return every label ever given, oldest first.

        Parameters
        ----------
        particle_id : int, optional
            Only the labels of this particle.

        Returns
        -------
        DataFrame
            Indexed by `label_id`, with `particle_id`, `label` (None: withdrawn), `author`, `source` and
            `created_at` (UTC, ISO 8601).
        """
        with self._database.reading() as connection:
            return label_log.read_label_history(connection, particle_id)

    def label_log(self, *, history: bool = False) -> pd.DataFrame:
        """Return labels with what identifies their particles in any library, to write to a file.

        Parameters
        ----------
        history : bool, default False
            Every entry that was not taken back, withdrawals included, in place of the present labels.

        Returns
        -------
        DataFrame
            `particle_id`, `label`, `author`, `created_at`, `content_hash` (of the micrograph), `index_in_micrograph`.
        """
        with self._database.reading() as connection:
            return label_log.read_label_log(connection, history=history)

    def labels_by_author(self) -> pd.DataFrame:
        """Return each person's newest label of each particle: a row per particle, a column per author, or None."""
        with self._database.reading() as connection:
            return label_log.read_labels_by_author(connection)

    def label_actions(self) -> pd.DataFrame:
        """Return who labelled, took back and restored what, oldest first.

        Returns
        -------
        DataFrame
            Indexed by `action_id`, with `kind` (label, undo or redo), `target_id` (the action taken back or restored),
            `author`, `source`, `created_at`, `n_labels` and `retracted`.
        """
        with self._database.reading() as connection:
            return label_actions.read_actions(connection)

    def newest_label_action(self) -> int:
        """Return the id of the newest action, 0 where there is none: another number means that labels changed."""
        with self._database.reading() as connection:
            return label_actions.newest_action(connection)

    def classes(self) -> pd.DataFrame:
        """Return every class of the labels, in the order in which they are shown.

        Returns
        -------
        DataFrame
            Indexed by `class_name`: `colour` (``"#rrggbb"``) and `n_labels`, the particles that have this label now.
        """
        with self._database.reading() as connection:
            return read_classes(connection)
