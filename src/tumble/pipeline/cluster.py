"""Steps of the pipeline over the workers of a Dask cluster: they compute, the calling process alone stores.

A library has one writer then, whatever the number of workers, and SQLite files need not be seen by them. Each piece of
work can be done again by any other worker: one that is lost costs what it was working on, and nothing that was stored.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tumble._version import __version__
from tumble.errors import ConfigError, SchedulerError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from distributed import Client, Future

__all__ = ["LOCAL", "Cluster", "open_cluster"]

logger = logging.getLogger(__name__)

#: The word for workers on this machine, one per processor.
LOCAL = "local"

#: Pieces of work given out per thread: enough that none waits, few enough that results do not pile up.
AHEAD = 3
CONNECT_S = 10.0
#: How long a cluster may be without any worker: batch systems start new ones in minutes.
PATIENCE_S = 300.0

_AGAIN = "What was done is stored; run the step again, and only the rest is done."

Item = TypeVar("Item")
Result = TypeVar("Result")


class Cluster:
    """Workers that are reached through a scheduler, see :func:`open_cluster`.

    Parameters
    ----------
    client : distributed.Client
        Connected to the scheduler.
    name : str
        What the user called it.
    patience_s : float
        How long to wait while there is no worker.
    """

    def __init__(self, client: Client, name: str, *, patience_s: float = PATIENCE_S) -> None:
        self._client, self._name, self._patience_s = client, name, patience_s

    def in_order(
        self, work: Callable[[Item, Any], Result], items: Iterable[Item], shared: Any
    ) -> Generator[tuple[Item, Result]]:
        """Do the same work for each item, on whichever worker is free, and give the results in the order of the items.

        Parameters
        ----------
        work : callable
            Function of a module, called with an item and `shared`. It may be called again for the same item.
        items : iterable
            Taken only as far as the workers can soon get to them.
        shared : object
            What all calls need; it is sent to each worker once.

        Yields
        ------
        item, result

        Raises
        ------
        SchedulerError
            Workers die of one of the items, or there is none for a long time, or the scheduler is gone.
        Exception
            What `work` raises, when it is the turn of its item.
        """
        # A task and not scattered data: the scheduler can have it made again where all that held it are lost.
        common = self._client.submit(_same, shared, pure=False)
        waiting: deque[tuple[Item, Future]] = deque()
        rest = iter(items)
        try:
            while True:
                while len(waiting) < self._room():
                    item = next(rest, _END)
                    if item is _END:
                        break
                    waiting.append((item, self._client.submit(work, item, common, pure=False)))  # type: ignore[arg-type]
                if not waiting:
                    return
                item, future = waiting[0]
                result = self._result(future)
                waiting.popleft()
                del future  # the workers may forget the result
                yield item, result
        finally:
            self._client.cancel([future for _, future in waiting], force=True)

    def _room(self) -> int:
        return AHEAD * max(1, self._n_threads())

    def _n_threads(self) -> int:
        counts: Any = self._client.nthreads()  # not a coroutine: the client is a synchronous one
        return sum(counts.values())

    def _result(self, future: Future) -> Any:
        from distributed import CancelledError, wait

        alone_since: float | None = None
        while not future.done():
            try:
                wait([future], timeout=2)
            except TimeoutError:
                now = time.monotonic()
                alone_since = None if self._n_threads() else alone_since or now
                if alone_since is not None and now - alone_since > self._patience_s:
                    raise SchedulerError(
                        f"{self._name}: the cluster has had no worker for {self._patience_s:.0f} s. {_AGAIN}"
                    ) from None
        try:
            return future.result()
        except CancelledError:
            raise SchedulerError(f"{self._name}: the scheduler has ended, or dropped the work. {_AGAIN}") from None
        except Exception as error:
            if type(error).__name__ != "KilledWorker":
                raise
            raise SchedulerError(
                f"{self._name}: several workers died of one piece of work, most likely for want of memory. Give them "
                f"more, or leave that image out. {_AGAIN}"
            ) from error

    def check_workers(self) -> None:
        """Wait for a first worker, and check that all have this version of `tumble`.

        Raises
        ------
        SchedulerError
            There is no worker.
        ConfigError
            One has another version, or none.
        """
        try:
            self._client.wait_for_workers(1, timeout=self._patience_s)
        except TimeoutError:
            raise SchedulerError(
                f"{self._name}: the cluster has no worker. Start some (dask worker ADDRESS) and run the step again."
            ) from None
        versions: Any = self._client.run(_installed_version, on_error="return")
        for address, found in versions.items():
            if found != __version__:
                has = f"has tumble {found}" if isinstance(found, str) else f"cannot import tumble ({found})"
                raise ConfigError(
                    f"--scheduler {self._name}: the worker at {address} {has}; this is {__version__}. Install the same "
                    "version everywhere."
                )


_END: Any = object()


def _same(value: Any) -> Any:
    return value


def _installed_version() -> str:
    return __version__


@contextmanager
def open_cluster(scheduler: str, *, patience_s: float = PATIENCE_S) -> Iterator[Cluster]:
    """Connect to a Dask scheduler, or start one with its workers on this machine.

    Parameters
    ----------
    scheduler : str
        ``"local"``, the address of a scheduler such as ``tcp://host:8786``, or its file (``scheduler.json``).
    patience_s : float
        How long the cluster may be without any worker.

    Yields
    ------
    Cluster

    Raises
    ------
    ConfigError
        The extra ``scale`` is not installed, or this is no address.
    SchedulerError
        No scheduler answers there, or it has no worker.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ConfigError(f'--scheduler {scheduler}: needs Dask, run: pip install "tumble[scale]".') from error
    if not scheduler.strip():
        raise ConfigError(f"--scheduler {scheduler!r}: is no address. Give local, or for example tcp://host:8786.")
    if scheduler == LOCAL:
        n = _n_processors()
        # Any free port, as the usual one may be taken by another run; and not to be seen from elsewhere.
        workers = LocalCluster(
            n_workers=n, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        )
        with workers, Client(workers) as client:
            yield _checked(client, scheduler, patience_s)
        return
    file = Path(scheduler).expanduser()
    try:
        if file.suffix == ".json":
            if not file.exists():
                raise ConfigError(f"--scheduler {scheduler}: there is no such file. Give that of a running scheduler.")
            client = Client(scheduler_file=str(file), timeout=CONNECT_S)
        else:
            client = Client(scheduler, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise SchedulerError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({_first_line(error)}). Check the address, for "
            "example tcp://host:8786, and whether it runs; or give local."
        ) from error
    with client:
        yield _checked(client, scheduler, patience_s)


def _checked(client: Client, name: str, patience_s: float) -> Cluster:
    cluster = Cluster(client, name, patience_s=patience_s)
    cluster.check_workers()
    return cluster


def _n_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux says which this process may use
        return os.cpu_count() or 1


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
