"""Requests made up from the OpenAPI of the service and of the page: nothing may give a server error.

Schemathesis makes them up, Hypothesis makes them small again where one fails. The page is that of a library of 60
particles with labels and predictions, its HTML pages included; trainings are begun but not carried out. What counts as
a failure: a status of 500 or more, and a refusal without a sentence. Needs the extra `test`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import schemathesis
from hypothesis import HealthCheck, given, settings

from benchmarks.common import Record, Row, arguments, parse, with_options
from tumble import SSRVAEClassifier
from tumble.service.run import running_service

#: Seconds for an answer.
TIMEOUT_S = 120


class Failure(AssertionError):
    """A request that was answered as none may be."""


def operations(app: Any, url: str) -> list[Any]:
    """Give every operation of an application, also those that its OpenAPI leaves out because people call them."""
    document = dict(app.openapi())
    found = schemathesis.openapi.from_dict(document)
    found.config.update(base_url=url)
    return [operation.ok() for operation in found.get_all_operations()]


def attack(operation: Any, n_examples: int, headers: Mapping[str, str] | None = None) -> Counter[str]:
    """Send so many requests; counts the statuses of their answers.

    Raises
    ------
    Failure
        An answer has a status of 500 or more, or refuses without a sentence.
    """
    statuses: Counter[str] = Counter()

    @settings(max_examples=n_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        response = case.call(headers=dict(headers or {}), allow_redirects=False, timeout=TIMEOUT_S)
        statuses[str(response.status_code)] += 1
        if response.status_code >= 500 or (response.status_code >= 400 and not _sentence(response)):
            content = response.content[:300].decode(errors="replace")
            raise Failure(f"{case.as_curl_command()} gives {response.status_code}: {content}")

    send()
    return statuses


def _sentence(response: Any) -> str:
    if "json" in response.headers.get("content-type", [""])[0]:
        return str(response.json().get("detail", ""))
    return response.content.decode().strip()


@contextmanager
def served_service(folder: Path) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """Start the service with a model of 16 x 16 px; gives the application, its address, and what requests need."""
    from tumble.service.app import create_service
    from tumble.service.model import load_served_model

    X = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)
    SSRVAEClassifier(max_epochs=1, random_state=0, device="cpu").fit(X, [0, 1] * 6).save(folder / "model")
    app = create_service(load_served_model(folder / "model"))
    with running_service(app) as url:
        yield app, url, {}


@contextmanager
def served_page(library: Path) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """Start the page of a library, without trainings."""
    from tumble.app.security import CSRF_HEADER
    from tumble.app.server import create_app

    app = create_app(library, models=library.parent / "models")
    app.state.runs._spawn = lambda name: None
    for route in _routes(app.router.routes):
        if hasattr(route, "include_in_schema"):
            route.include_in_schema = True
    with running_service(app) as url:
        yield app, url, {CSRF_HEADER: app.state.security.csrf_token}


def _routes(routes: Sequence[Any]) -> Iterator[Any]:
    for route in routes:
        yield route
        yield from _routes(getattr(getattr(route, "original_router", None), "routes", ()))


def fill(path: Path) -> None:
    """Make a library of 60 particles with labels and the predictions of two models."""
    from benchmarks import library_growth

    library_growth.PER_MICROGRAPH = 60
    library_growth.grow(path, 60)


def main(argv: Sequence[str] | None = None) -> None:
    """Attack both, and print how often and with what result."""
    parser = arguments("fuzz", __doc__, seeds=1)
    parser.add_argument("--examples", type=int, default=1000, help="for each operation (default: %(default)s)")
    options = parse(parser, argv)
    n_examples = 5 if options.quick else options.examples
    record = Record(options.out, options.since)
    with TemporaryDirectory() as folder:
        library = Path(folder) / "library.db"
        fill(library)
        servers: dict[str, Callable[[], Any]] = {
            "service": lambda: served_service(Path(folder)),
            "page": lambda: served_page(library),
        }
        for what, server in servers.items():
            with server() as (app, url, headers):
                for operation in operations(app, url):
                    case = {"what": what, "operation": operation.label, "examples": str(n_examples)}
                    record.measure(
                        with_options(case, options), lambda o=operation, h=headers: _counts(o, n_examples, h)
                    )
    for what in servers:
        rows = [row for row in record.rows if row["what"] == what]
        n = sum(row["requests"] for row in rows)
        print(f"{what}: {len(rows)} operations, {n:,.0f} requests, {sum(row['failures'] for row in rows)} failures")


def _counts(operation: Any, n_examples: int, headers: Mapping[str, str]) -> Row:
    started = time.perf_counter()
    failed = ""
    statuses: Counter[str] = Counter()
    try:
        statuses = attack(operation, n_examples, headers)
    except Failure as failure:
        failed = str(failure)
    return {
        "requests": statuses.total(),
        "statuses": dict(sorted(statuses.items())),
        "failures": int(bool(failed)),
        "failed": failed or None,
        "seconds": time.perf_counter() - started,
    }


if __name__ == "__main__":
    main()
