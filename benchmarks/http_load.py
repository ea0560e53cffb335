"""Clients for `service_load`, as lean as can be: they share the cores with the service that they measure.

Run as a process of its own, with nothing but the standard library: ``python benchmarks/http_load.py HOST PORT CLIENTS
SECONDS REQUEST_FILE``. The file holds a whole HTTP/1.1 request. Each client keeps one connection and sends the request
again when the answer to the last one is complete. Prints JSON: the seconds of each answered request, the seconds of
the run, its own CPU time, and what went wrong.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)

#: An answer that takes longer than this counts as an error.
TIMEOUT_S = 60.0


class Run:
    """What all clients of a run share: the request, the time of its end, and the results."""

    def __init__(self, request: bytes, seconds: float) -> None:
        self.request = request
        self.started = time.perf_counter()
        self.end = self.started + seconds
        self.times: list[float] = []
        self.errors: Counter[str] = Counter()


class Client(asyncio.Protocol):
    """One connection, with one request on its way at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._expected: int | None = None
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._waits = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._received += data
        if self._expected is None:
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            length = _LENGTH.search(self._received, 0, head)
            if length is None:
                self._fail("no length")
                return
            self._expected = head + 4 + int(length[1])
        if len(self._received) >= self._expected:
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note whether an answer was due."""
        if self._waits:
            self._run.errors[type(exc).__name__ if exc else "closed without an answer"] += 1
        if not self.ended.done():
            self.ended.set_result(None)

    def give_up(self) -> None:
        """End a connection whose answer does not come."""
        if self._waits:
            self._fail("no answer in time")

    def _ask(self) -> None:
        assert self._transport is not None
        self._begun = time.perf_counter()
        if self._begun >= self._run.end:
            self._transport.close()
            return
        self._waits = True
        self._transport.write(self._run.request)

    def _answered(self) -> None:
        assert self._transport is not None
        self._waits = False
        status = bytes(self._received[9:12]).decode("latin-1")
        if status == "200":
            self._run.times.append(time.perf_counter() - self._begun)
        else:
            self._run.errors[status] += 1
        closes = _CLOSES.search(self._received, 0, self._received.find(b"\r\n\r\n") + 2)
        self._received.clear()
        self._expected = None
        if closes:
            self._transport.close()
        else:
            self._ask()

    def _fail(self, kind: str) -> None:
        assert self._transport is not None
        self._waits = False
        self._run.errors[kind] += 1
        self._transport.abort()


async def ask(host: str, port: int, n_clients: int, seconds: float, request: bytes) -> Run:
    """Send the request from so many clients for so long; a client whose connection ends opens another one."""
    run = Run(request, seconds)
    loop = asyncio.get_running_loop()

    async def client() -> None:
        while time.perf_counter() < run.end:
            try:
                _, protocol = await loop.create_connection(lambda: Client(run), host, port)
            except OSError as error:
                run.errors[type(error).__name__] += 1
                await asyncio.sleep(0.1)
                continue
            try:
                async with asyncio.timeout(run.end - time.perf_counter() + TIMEOUT_S):
                    await protocol.ended
            except TimeoutError:
                protocol.give_up()

    await asyncio.gather(*(client() for _ in range(n_clients)))
    return run


def main() -> None:
    """Run as the command line says, and print the result."""
    host, port, n_clients, seconds, file = sys.argv[1:]
    run = asyncio.run(ask(host, int(port), int(n_clients), float(seconds), Path(file).read_bytes()))
    result = {
        "seconds": time.perf_counter() - run.started,
        "times": [round(value, 7) for value in run.times],
        "cpu_s": time.process_time(),
        "errors": dict(run.errors),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
