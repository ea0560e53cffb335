"""Crops of many requests, classified together: one pass through the networks costs little more than one crop."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.errors import ConfigError, TumbleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tumble.service.model import Answers

__all__ = ["Batcher", "Busy"]

logger = logging.getLogger(__name__)


class Busy(TumbleError):
    """More is waiting than is let wait.

    Parameters
    ----------
    retry_after_s : int
        When to ask again, in s.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"The service is busy; send the request again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class Batcher:
    """One thread that classifies what waits, together.

    Parameters
    ----------
    classify : callable
        Takes crops (n, C, H, W) of one type and gives their :class:`Answers`.
    max_batch : int
        Crops that are classified together.
    max_wait_s : float
        How long the first crop waits for others, while there are fewer than `max_batch`.
    max_waiting : int
        Crops that may wait; more are refused.
    on_batch : callable, optional
        Called with the number of crops and the seconds of each batch.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """

    def __init__(
        self,
        classify: Callable[[npt.NDArray[Any]], Answers],
        *,
        max_batch: int = 256,
        max_wait_s: float = 0.002,
        max_waiting: int = 8192,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        if not 1 <= max_batch <= max_waiting:
            raise ConfigError(f"max_batch={max_batch}: must be from 1 to max_waiting, {max_waiting}.")
        if not 0 <= max_wait_s <= 10:
            raise ConfigError(f"max_wait_s={max_wait_s}: must be from 0 to 10 s.")
        self._classify, self._on_batch = classify, on_batch
        self.max_batch, self.max_wait_s, self.max_waiting = max_batch, max_wait_s, max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[tuple[npt.NDArray[Any], Future[Answers]]] = deque()
        self._n_waiting = 0
        self._closed = False
        self._crops_per_s = 1000.0
        self._thread = threading.Thread(target=self._work, name="tumble-batches", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Crops that wait."""
        return self._n_waiting

    @property
    def is_alive(self) -> bool:
        """Whether crops are still taken and classified."""
        return self._thread.is_alive() and not self._closed

    def submit(self, crops: npt.NDArray[Any]) -> list[Future[Answers]]:
        """Let crops wait for their turn.

        Parameters
        ----------
        crops : ndarray of shape (n, C, H, W)
            uint8 or float32, checked.

        Returns
        -------
        list of Future
            One for each piece of up to `max_batch` crops, in order: large requests let small ones pass in between.

        Raises
        ------
        Busy
            If too many wait already.
        """
        pieces = [crops[start : start + self.max_batch] for start in range(0, len(crops), self.max_batch)]
        futures: list[Future[Answers]] = [Future() for _ in pieces]
        with self._changed:
            # A request that finds nothing waiting is taken whatever its size: later would be no better.
            if self._closed or (self._n_waiting and self._n_waiting + len(crops) > self.max_waiting):
                raise Busy(max(1, min(60, math.ceil(self._n_waiting / self._crops_per_s))))
            self._waiting.extend(zip(pieces, futures, strict=True))
            self._n_waiting += len(crops)
            self._changed.notify()
        return futures

    def close(self) -> None:
        """Take nothing more, finish what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            # What nobody waits for any more is not classified.
            batch = [(crops, future) for crops, future in batch if future.set_running_or_notify_cancel()]
            if not batch:
                continue
            started = time.perf_counter()
            try:
                answers = self._classify(_joined([crops for crops, _ in batch]))
                self._distribute(batch, answers)
            except Exception as error:
                logger.exception("A batch could not be classified")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            seconds = time.perf_counter() - started
            self._crops_per_s = 0.9 * self._crops_per_s + 0.1 * len(answers) / max(seconds, 1e-6)
            if self._on_batch:
                self._on_batch(len(answers), seconds)

    def _next_batch(self) -> list[tuple[npt.NDArray[Any], Future[Answers]]]:
        """Wait for crops; an empty list means that there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._closed and self.max_wait_s:
                self._changed.wait_for(lambda: self._n_waiting >= self.max_batch or self._closed, self.max_wait_s)
            batch, size = [], 0
            while self._waiting and size + len(self._waiting[0][0]) <= self.max_batch:
                batch.append(self._waiting.popleft())
                size += len(batch[-1][0])
            self._n_waiting -= size
            return batch

    @staticmethod
    def _distribute(batch: list[tuple[npt.NDArray[Any], Future[Answers]]], answers: Answers) -> None:
        start = 0
        for crops, future in batch:
            part = slice(start, start + len(crops))
            future.set_result(answers.part(part))
            start = part.stop


def _joined(pieces: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({piece.dtype for piece in pieces}) > 1:  # 8-bit crops become what the networks make of them anyway
        pieces = [piece * np.float32(1 / 255) if piece.dtype == np.uint8 else piece for piece in pieces]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
