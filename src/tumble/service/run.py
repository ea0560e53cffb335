"""Run the service until it is stopped, in this thread or beside it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tumble.errors import ConfigError

try:
    import uvicorn
except ImportError as error:
    raise ConfigError(f'The service needs the package {error.name}: pip install "tumble[serve]".') from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

__all__ = ["run_service", "running_service"]

#: How long requests that are being answered may still take when the service is stopped.
GRACE_S = 20

#: Connections beyond this are refused with status 503: each may hold a part of a body.
MAX_CONNECTIONS = 512


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # pyright: ignore[reportArgumentType]
        if self.started and self.servers:
            self._on_ready(self.servers[0].sockets[0].getsockname()[1])


def _config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        # The log is that of `tumble`: uvicorn would set up its own on the root.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=MAX_CONNECTIONS,
        lifespan="on",
    )


def run_service(app: FastAPI, *, host: str, port: int, on_ready: Callable[[int], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests that have arrived are answered before the end.

    Parameters
    ----------
    app : FastAPI
        From :func:`tumble.service.app.create_service`, for the same host.
    host : str
        Address to bind to.
    port : int
        Port; 0 takes a free one.
    on_ready : callable, optional
        Called with the port when requests are answered.

    Raises
    ------
    ConfigError
        If the address cannot be bound to.
    """
    server = _Server(_config(app, host, port), on_ready or (lambda _: None))
    try:
        server.run()
    except KeyboardInterrupt:  # raised again by uvicorn after it has shut down
        return
    except SystemExit:  # how uvicorn gives up on an address
        raise _not_bound(host, port) from None
    if not server.started:
        raise _not_bound(host, port)


@contextmanager
def running_service(app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread, for a notebook or a test.

    Parameters
    ----------
    app : FastAPI
        From :func:`tumble.service.app.create_service`.
    host : str
        Address to bind to.
    port : int
        Port; 0 takes a free one.

    Yields
    ------
    str
        Its URL.

    Raises
    ------
    ConfigError
        If the address cannot be bound to.
    """
    ports: list[int] = []
    server = _Server(_config(app, host, port), ports.append)

    def serve() -> None:
        try:
            server.run()
        except SystemExit:  # the address is taken; said below
            return

    thread = threading.Thread(target=serve, name="tumble-service", daemon=True)
    thread.start()
    try:
        while not ports:
            if not thread.is_alive():
                raise _not_bound(host, port)
            time.sleep(0.01)
        yield f"http://{f'[{host}]' if ':' in host else host}:{ports[0]}"
    finally:
        server.should_exit = True
        thread.join()


def _not_bound(host: str, port: int) -> ConfigError:
    return ConfigError(f"--host {host} --port {port}: cannot be used, or another program uses it. Give another --port.")
