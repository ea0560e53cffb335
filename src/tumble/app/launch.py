"""Run an application with uvicorn, and open the browser when it answers."""

from __future__ import annotations

import socket
import threading
import time
import webbrowser
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import uvicorn

from tumble.app.server import create_app
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tumble.app.security import Security

__all__ = ["address_of", "bound_socket", "run_app"]


def bound_socket(host: str, port: int) -> socket.socket:
    """Take a port before anything slow is done, so that one that is in use is said at once.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        Port, 0 for a free one.

    Returns
    -------
    socket

    Raises
    ------
    ConfigError
        The port is taken or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: this address cannot be used ({error.strerror or error}). "
            "Another program may have it; --port 0 takes a free port."
        ) from error
    return taken


def address_of(taken: socket.socket, security: Security) -> str:
    """Return the address to open in a browser, with the token where there is one."""
    host, port = taken.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    query = f"?{urlencode({'token': security.token})}" if security.token else ""
    return f"http://{host}:{port}/{query}"


def run_app(
    library: str | Path,
    *,
    security: Security,
    port: int = 8765,
    author: str = "unknown",
    models: Path | None = None,
    open_browser: bool = True,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve a library until the process is interrupted.

    Parameters
    ----------
    library : str or Path
        The library.
    security : Security
        Address and token.
    port : int
        Port, 0 for a free one.
    author : str
        Whose name labels are stored under.
    models : Path, optional
        Folder for models; beside the library if not given.
    open_browser : bool
        Open the page in the browser of this machine.
    announce : callable, optional
        Called with the address when the server answers.

    Raises
    ------
    LibraryError
        The library cannot be opened.
    ConfigError
        The address cannot be used.
    """
    app = create_app(library, security=security, author=author, models=models)
    taken = bound_socket(security.host, port)
    address = address_of(taken, security)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, lifespan="on")
    server = uvicorn.Server(config)

    def tell() -> None:
        while not server.started:
            if server.should_exit:
                return
            time.sleep(0.02)
        if announce is not None:
            announce(address)
        if open_browser:
            webbrowser.open(address)

    threading.Thread(target=tell, daemon=True).start()
    server.run(sockets=[taken])
