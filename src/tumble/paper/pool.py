"""Training and measuring in several processes side by side: a GPU, or many cores, are idle with one small network.

Each worker takes one task after the other and keeps what comes of it in the folder of the lab, which is all that they
share. Whatever ends the run, the workers end with it; complete tasks are not repeated, and a fit goes on after its last
epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from tumble.errors import TumbleError
from tumble.paper.lab import Lab
from tumble.paper.tasks import FitTask, tasks_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from tumble.fit import EpochReport
    from tumble.paper.outcome import Study
    from tumble.paper.tasks import Task

__all__ = ["first_ready", "prepare"]


#: Seconds between two words of a worker on its epochs.
_NEWS_INTERVAL_S = 15.0


@dataclass(frozen=True)
class _Order:
    """What a worker needs to make a lab like that of its parent."""

    settings: dict[str, Any]
    threads: int


@dataclass
class _Worker:
    process: Any
    line: Connection
    task: Task | None = None
    began: float = 0.0


def prepare(lab: Lab, studies: Mapping[str, Study], jobs: int) -> None:
    """Train and measure all that studies need, in `jobs` processes; the lab has it then.

    Parameters
    ----------
    lab : Lab
        Where it is kept.
    studies : mapping of str to Study
        What will be recomputed.
    jobs : int
        Processes; 1 works in this one.

    Raises
    ------
    TumbleError
        If a task fails, or a worker is ended by something else; what is complete is kept.
    """
    waiting = tasks_for(lab, studies)
    total, done = len(waiting), 0
    if jobs == 1 or not waiting:
        for i, task in enumerate(waiting):
            lab.tell(task.title, i, total)
            task.run(lab, studies)
        return
    with _workers(lab, min(jobs, total)) as workers:
        while waiting or any(worker.task for worker in workers):
            for worker in workers:
                running = [other.task for other in workers if other.task is not None]
                if worker.task is None and (task := first_ready(waiting, running)) is not None:
                    waiting.remove(task)
                    _send(worker, task, list(studies))
            for worker in _answering(workers):
                title, seconds = _title(worker), time.monotonic() - worker.began
                epoch = _receive(worker)
                done += epoch is None
                lab.tell(f"{title}: {epoch or 'done'}, {seconds:.0f} s", done, total)


def first_ready(waiting: Sequence[Task], running: Sequence[Task]) -> Task | None:
    """Give the first task whose models are there or need not be; None if all must wait.

    Parameters
    ----------
    waiting, running : sequence of FitTask or StudyTask
        Those that are to be done, and those that are being done.

    Returns
    -------
    FitTask, StudyTask or None
    """
    unfinished = {task.fit for task in (*waiting, *running) if isinstance(task, FitTask)}
    for task in waiting:
        if isinstance(task, FitTask) or unfinished.isdisjoint(task.after):
            return task
    return None


def _answering(workers: Sequence[_Worker]) -> list[_Worker]:
    ready = connection.wait([worker.line for worker in workers if worker.task is not None])
    return [worker for worker in workers if worker.line in ready]


def _send(worker: _Worker, task: Task, names: list[str]) -> None:
    worker.task, worker.began = task, time.monotonic()
    try:
        worker.line.send((task, names))
    except OSError as error:
        raise _ended(worker) from error


def _title(worker: _Worker) -> str:
    return "" if worker.task is None else worker.task.title


def _receive(worker: _Worker) -> str | None:
    """Hear from a worker: at which epoch it is, or None when its task is done."""
    try:
        news = worker.line.recv()
    except (EOFError, OSError) as error:
        raise _ended(worker) from error
    if isinstance(news, Exception):
        raise news
    if news is None:
        worker.task = None
    return news


def _ended(worker: _Worker) -> TumbleError:
    worker.process.join()
    code = worker.process.exitcode
    return TumbleError(
        f"{_title(worker)}: its process was ended (exit code {code}), perhaps for want of memory. "
        "Give fewer --jobs; what is complete is kept."
    )


# The workers


@contextlib.contextmanager
def _workers(lab: Lab, jobs: int) -> Iterator[list[_Worker]]:
    """Start workers, and end them however the context ends."""
    # Threads that were started in this process, of torch above all, would not survive a fork.
    context = multiprocessing.get_context("spawn")
    names = [f.name for f in dataclasses.fields(Lab) if f.init and f.name not in ("tell", "epoch")]
    settings = {name: getattr(lab, name) for name in names} | {"beside": jobs}
    order = _Order(settings, max(1, _cores() // jobs))
    workers: list[_Worker] = []
    try:
        with _few_threads(order.threads):
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, order), daemon=True)
                process.start()
                theirs.close()
                workers.append(_Worker(process, ours))
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()


@contextlib.contextmanager
def _few_threads(threads: int) -> Iterator[None]:
    """Let processes that start now use so many threads: libraries read this when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(line: Connection, order: _Order) -> None:
    """Do what comes along the line, until the parent ends this process or is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    # Here, in the worker: the parent knows its studies by name.
    import torch

    from tumble.paper.run import STUDIES

    torch.set_num_threads(order.threads)
    lab = Lab(**order.settings, epoch=_Reporter(line))
    while True:
        try:
            task, names = line.recv()
        except EOFError:
            return
        try:
            task.run(lab, {name: STUDIES[name] for name in names})
        except TumbleError as error:
            line.send(error)
        except Exception as error:
            # As text: not every exception can be sent, and the traceback would be lost.
            line.send(RuntimeError(f"{task.title}: {type(error).__name__}: {error}"))
        else:
            line.send(None)
        lab.forget()


class _Reporter:
    """Tells the parent now and then at which epoch a fit is."""

    def __init__(self, line: Connection) -> None:
        self._line, self._last_s = line, time.monotonic()

    def __call__(self, report: EpochReport) -> None:
        if time.monotonic() - self._last_s >= _NEWS_INTERVAL_S:
            self._last_s = time.monotonic()
            self._line.send(f"epoch {report.epoch} of {report.max_epochs}")


def _end_with(sentinel: int) -> None:
    """End this process when the parent is gone, however that came about; files appear whole or not at all."""
    connection.wait([sentinel])
    os._exit(1)
