"""The particles that are useful to label next, chosen beside the page, which need not wait for them."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import TYPE_CHECKING

from tumble.errors import DataError

if TYPE_CHECKING:
    from tumble.library import Library

__all__ = ["MOST_SUGGESTED", "Suggestions", "begin_suggestions"]

MOST_SUGGESTED = 300
#: Library, model, newest action on labels, and without a model the newest particle.
_Key = tuple[str, str | None, int, int]


class Suggestions:
    """The particles that are useful to label next; kept while labels and models stay as they are.

    Without a model these are particles that differ in size and shape.

    Parameters
    ----------
    wait_s : float
        How long a page waits for the choice, which takes some seconds for 100,000 particles; it goes on meanwhile.
    at_most : int
        How many choices are kept.
    """

    def __init__(self, wait_s: float = 0.15, at_most: int = 8) -> None:
        self._wait_s = wait_s
        self._at_most = at_most
        self._kept: OrderedDict[_Key, Future[tuple[int, ...]]] = OrderedDict()
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="suggestions")

    def ids(self, library: Library, model: str | None, state: int) -> tuple[int, ...] | None:
        """Return particles, the most useful first, or None where they are not chosen yet.

        Parameters
        ----------
        library : Library
            The open library.
        model : str or None
            The model that is unsure; None where there is none.
        state : int
            Which labels the choice is for; another number asks for a new choice.
        """
        key = _key(library, model, state)
        chosen = self._choice(key, library)
        try:
            return chosen.result(timeout=self._wait_s)
        except TimeoutError:
            return None
        except Exception:
            with self._lock:  # the next page tries again
                self._kept.pop(key, None)
            raise

    def _choice(self, key: _Key, library: Library) -> Future[tuple[int, ...]]:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._worker.submit(_suggested, library, key[1])
            self._kept.move_to_end(key)
            chosen = self._kept[key]
            while len(self._kept) > self._at_most:
                self._kept.popitem(last=False)
            return chosen

    def begin(self, library: Library, model: str | None, state: int, *, at_most_s: float) -> None:
        """Let a choice be made that will be asked for, and give it some time; see :meth:`ids`."""
        # The first choice also imports what it takes to choose: a page that is drawn meanwhile would be slow.
        wait([self._choice(_key(library, model, state), library)], at_most_s)

    def close(self) -> None:
        """Wait for the choice that is being made, so that the library can be closed."""
        self._worker.shutdown(cancel_futures=True)


def _key(library: Library, model: str | None, state: int) -> _Key:
    # A model's predictions make particles candidates; without one each new particle is a candidate at once.
    return library.url, model, state, library.newest_particle() if model is None else 0


def _suggested(library: Library, model: str | None) -> tuple[int, ...]:
    from tumble.pipeline import suggest_labels, varied_particles  # takes a second to import

    try:
        if model is None:
            return tuple(int(i) for i in varied_particles(library, MOST_SUGGESTED).index)
        return tuple(int(i) for i in suggest_labels(library, MOST_SUGGESTED, model=model).index)
    except DataError:  # every particle is labelled
        return ()


def begin_suggestions(library: Library, suggestions: Suggestions, at_most_s: float = 3.0) -> None:
    """Choose what the first page of a library will show, so that it need not wait.

    Parameters
    ----------
    library : Library
        The open library.
    suggestions : Suggestions
        Remembers what is useful next.
    at_most_s : float
        How long to wait for it.
    """
    suggestions.begin(library, library.predicting_model(), library.newest_label_action(), at_most_s=at_most_s)
