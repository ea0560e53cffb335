"""Load on `tumble serve`: crops per second, time of a request, errors and memory, at 1, 8 and 64 clients.

The service runs in a process of its own, as a user starts it; the clients run in another one that needs little of the
cores (`benchmarks/http_load.py`; how much is in the results). Each client keeps its connection and sends its next
request when the last is answered: one crop of 48 x 48 px, or a stack of 64, as NPY in a form. At the end comes a long
run of 64 clients with one crop each, for errors and memory. Memory is the resident size of the service.

With the whole set of cases in ``docs/results/service.json``, the table of ``docs/how-to/serve.md`` is written anew.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
import psutil

from benchmarks.common import Record, Row, arguments, parse, with_options
from tumble import SSRVAEClassifier
from tumble.datasets import make_cards

N_CLIENTS = (1, 8, 64)
CROPS = (1, 64)
PAGE = Path("docs/how-to/serve.md")
BEGIN, END = "<!-- The table of benchmarks/service_load.py begins -->", "<!-- and ends -->"


def load(url: str, process: psutil.Process, n_clients: int, n_crops: int, seconds: float) -> Row:
    """Ask with so many clients for so long."""
    place = urlsplit(url)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "request"
        file.write_bytes(request(place.netloc, n_crops))
        command = [sys.executable, str(Path(__file__).with_name("http_load.py"))]
        command += [str(place.hostname), str(place.port), str(n_clients), str(seconds), str(file)]
        started, cpu = time.perf_counter(), _cpu_s(process)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as clients:
            assert clients.stdout is not None
            memory = _memory_mb(process, started + seconds)
            said = json.loads(clients.stdout.read())
        spent = _cpu_s(process) - cpu
    times = np.array(said["times"] or [np.nan])
    tenth = max(1, len(memory) // 10)
    return {
        "crops_per_second": len(said["times"]) * n_crops / said["seconds"],
        "median_ms": 1000 * float(np.median(times)),
        "p99_ms": 1000 * float(np.quantile(times, 0.99)),
        "slowest_ms": 1000 * float(times.max()),
        "requests": float(len(said["times"])),
        "errors": float(sum(said["errors"].values())),
        "error_kinds": said["errors"] or None,
        "service_cpu_ms_per_request": 1000 * spent / max(1, len(said["times"])),
        "cores_of_service": spent / said["seconds"],
        "cores_of_clients": said["cpu_s"] / said["seconds"],
        "rss_first_tenth_mb": float(np.mean(memory[:tenth])),
        "rss_last_tenth_mb": float(np.mean(memory[-tenth:])),
        "rss_max_mb": max(memory),
        "other_load": _other_load(),
    }


def request(host: str, n_crops: int) -> bytes:
    """Make a whole request, as `curl -F file=@crops.npy` would send it."""
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(0).integers(0, 256, (n_crops, 48, 48), dtype=np.uint8))
    mark = b"------------------------tumble"
    part = (
        b'Content-Disposition: form-data; name="file"; filename="crops.npy"\r\nContent-Type: application/octet-stream'
    )
    body = b"--" + mark + b"\r\n" + part + b"\r\n\r\n" + stream.getvalue() + b"\r\n--" + mark + b"--\r\n"
    head = (
        f"POST /classify HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={mark.decode()}\r\n\r\n"
    )
    return head.encode() + body


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _memory_mb(process: psutil.Process, end: float) -> list[float]:
    """Resident size of a process, again and again until the end."""
    sizes = []
    pause = min(1.0, max(0.05, (end - time.perf_counter()) / 20))
    while not sizes or time.perf_counter() < end:
        sizes.append(process.memory_info().rss / 2**20)
        time.sleep(pause)
    return sizes


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


@contextmanager
def running_service() -> Iterator[tuple[str, psutil.Process]]:
    """Start the service of a model; gives its address and its process."""
    with TemporaryDirectory() as folder:
        make_model(Path(folder) / "model")
        command = [sys.executable, "-m", "tumble", "serve", str(Path(folder) / "model"), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
            assert service.stdout is not None
            line = service.stdout.readline()
            try:
                yield line.split()[-1], psutil.Process(service.pid)
            finally:
                service.terminate()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each number of clients, then print the table."""
    parser = arguments("service_load", __doc__, seeds=1)
    parser.add_argument("--minutes", type=float, default=1, help="for each short case (default: %(default)s)")
    parser.add_argument("--long", type=float, default=10, help="minutes of the long run; 0 for none (default: 10)")
    parser.add_argument("--clients", type=int, nargs="+", default=list(N_CLIENTS), help="(default: 1 8 64)")
    parser.add_argument("--crops", type=int, nargs="+", default=list(CROPS), help="in each request (default: 1 64)")
    options = parse(parser, argv)
    if options.name == "service_load" and options.out.name == "service_load.json":
        options.out = options.out.with_name("service.json")
    record = Record(options.out, options.since)
    with running_service() as (url, process):
        _measure(record, options, url, process)
    table = as_table(record.rows)
    print("\n" + table)
    if options.out == Path("docs/results/service.json"):
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}")


def _measure(record: Record, options: argparse.Namespace, url: str, process: psutil.Process) -> None:
    minutes = 0.01 if options.quick else options.minutes
    cases = [(n_clients, n_crops, minutes) for n_crops in options.crops for n_clients in options.clients]
    if options.long and not options.quick:
        cases.append((max(options.clients), min(options.crops), options.long))
    load(url, process, 2, max(options.crops), 2)  # what is done once, such as the first allocations, is done now
    for n_clients, n_crops, length in cases:
        # As text: a row's numbers without a decimal point tell cases apart in the table.
        case = {"what": "load", "clients": n_clients, "crops": n_crops, "minutes": f"{length:.3g}"}
        record.measure(
            with_options(case, options),
            lambda c=n_clients, k=n_crops, m=length: load(url, process, c, k, 60 * m),
        )


def as_table(rows: Sequence[Row]) -> str:
    """Write the results as Markdown."""
    lines = [
        "| clients | crops per request | minutes | crops per second | median, ms | 99th percentile, ms | errors of "
        "requests | memory, MB |",
        "|" + "---:|" * 8,
    ]
    for row in sorted(rows, key=lambda row: (float(row["minutes"]), row["crops"], row["clients"])):
        cells = (
            row["clients"],
            row["crops"],
            row["minutes"],
            f"{row['crops_per_second']:,.0f}",
            f"{row['median_ms']:.3g}",
            f"{row['p99_ms']:.3g}",
            f"{row['errors']:.0f} of {row['requests']:,.0f}",
            f"{row['rss_first_tenth_mb']:.0f} to {row['rss_last_tenth_mb']:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
