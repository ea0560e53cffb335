"""Load on `tumble serve`: crops per second, time of a request, errors and memory, at 1, 8 and 64 clients.

The service runs in a process of its own, the clients in another; both share the cores of the machine, so that what the
clients do is part of every number. Each client sends its next request when the last is answered: one crop of 48 x 48
px (or ``--crops``) as NPY in a form. Memory is the resident size of the service.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import psutil

from benchmarks.common import Record, Row, arguments, parse, with_options
from tumble import SSRVAEClassifier
from tumble.datasets import make_cards

N_CLIENTS = (1, 8, 64)


async def load(url: str, process: psutil.Process, n_clients: int, n_crops: int, seconds: float) -> Row:
    """Ask with so many clients for so long."""
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(0).integers(0, 256, (n_crops, 48, 48), dtype=np.uint8))
    times: list[float] = []
    errors: Counter[str] = Counter()
    memory: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def client(http: httpx.AsyncClient) -> None:
        while (begun := time.perf_counter()) < end:
            try:
                response = await http.post("/classify", files={"file": ("crops.npy", stream.getvalue())})
            except httpx.HTTPError as error:
                errors[type(error).__name__] += 1
                continue
            if response.status_code == 200:
                times.append(time.perf_counter() - begun)
            else:
                errors[str(response.status_code)] += 1

    async def watch_memory() -> None:
        while time.perf_counter() < end:
            memory.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(min(1.0, seconds / 10))

    limits = httpx.Limits(max_connections=n_clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        await http.post("/classify", files={"file": ("crops.npy", stream.getvalue())})
        await asyncio.gather(watch_memory(), *(client(http) for _ in range(n_clients)))
    wall = time.perf_counter() - started
    tenth = max(1, len(memory) // 10)
    return {
        "crops_per_second": len(times) * n_crops / wall,
        "median_ms": 1000 * float(np.median(times)),
        "p99_ms": 1000 * float(np.quantile(times, 0.99)),
        "requests": float(len(times)),
        "errors": float(errors.total()),
        "error_kinds": dict(errors) or None,
        "rss_first_tenth_mb": float(np.mean(memory[:tenth])),
        "rss_last_tenth_mb": float(np.mean(memory[-tenth:])),
        "rss_max_mb": max(memory),
        "other_load": _other_load(),
    }


def _other_load() -> str:
    """Say how busy the machine is: other programs slow what is measured here."""
    return (
        f"{os.getloadavg()[0]:.1f} processes ready on {os.cpu_count()} cores in the last minute, these two among them"
    )


def make_model(folder: Path) -> None:
    """Fit a model for a moment: the time does not depend on what it learned."""
    cards = make_cards(10, angle=180, random_state=0)
    X = np.rint(255 * cards.X).astype(np.uint8)
    SSRVAEClassifier(max_epochs=1, random_state=0, device="cpu").fit(X, cards.y).save(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each number of clients, then print the table."""
    parser = arguments("service_load", __doc__, seeds=1)
    parser.add_argument("--minutes", type=float, default=0.25, help="for each number of clients (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=list(N_CLIENTS), help="(default: 1 8 64)")
    parser.add_argument("--crops", type=int, default=1, help="in each request (default: %(default)s)")
    options = parse(parser, argv)
    if options.name == "service_load" and options.out.name == "service_load.json":
        options.out = options.out.with_name("service.json")
    record = Record(options.out, options.since)
    with TemporaryDirectory() as folder:
        make_model(Path(folder) / "model")
        command = [sys.executable, "-m", "tumble", "serve", str(Path(folder) / "model"), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
            assert service.stdout is not None
            url = service.stdout.readline().split()[-1]
            try:
                _measure(record, options, url, psutil.Process(service.pid))
            finally:
                service.terminate()
    print("\n" + record.table(["clients", "crops", "minutes"], "crops_per_second"))
    print("\n" + record.table(["clients", "crops", "minutes"], "p99_ms"))


def _measure(record: Record, options: argparse.Namespace, url: str, process: psutil.Process) -> None:
    seconds = 0.5 if options.quick else 60 * options.minutes
    for n_clients in options.clients:
        # As text: a row's numbers without a decimal point tell cases apart in the table.
        case = {"what": "load", "clients": n_clients, "crops": options.crops, "minutes": f"{seconds / 60:.3g}"}
        record.measure(
            with_options(case, options),
            lambda n=n_clients: asyncio.run(load(url, process, n, options.crops, seconds)),
        )


if __name__ == "__main__":
    main()
