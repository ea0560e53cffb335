"""Who may ask, and how much: host, origin and token of each request, and the size and the time of what it sends."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["BodyLimit", "BodyLimits", "Doorkeeper", "TooLarge", "check_address", "is_loopback"]

logger = logging.getLogger(__name__)

#: Below this, a token could be guessed.
MIN_TOKEN_CHARACTERS = 16

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class TooLarge(Exception):
    """A request sends more than is taken."""


class TooSlow(Exception):
    """A request takes too long to arrive."""


class Full(Exception):
    """All requests together send more than there is room for."""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_address(host: str, token: str | None) -> None:
    """Refuse to be reached from other machines without a token.

    Raises
    ------
    ConfigError
        If it would be, or if the token is too short or cannot be sent in a header.
    """
    if token is None:
        if is_loopback(host):
            return
        raise ConfigError(
            f"--host {host}: other machines could reach this address, so every request must carry a token. Give one of "
            f"at least {MIN_TOKEN_CHARACTERS} characters with --token or in the environment variable TUMBLE_TOKEN."
        )
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"--token: must have at least {MIN_TOKEN_CHARACTERS} letters, digits or signs, no spaces. One at random: "
            'python -c "import secrets; print(secrets.token_urlsafe())"'
        )


class Doorkeeper:
    """Middleware that lets in requests for this host, from no other site, and with the token where there is one.

    Parameters
    ----------
    app : ASGI application
        What lies behind.
    host : str
        Address that the service is bound to.
    token : str or None
        What each request must carry as ``Authorization: Bearer TOKEN``; None for no token.
    """

    def __init__(self, app: App, *, host: str, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        # A page of another site may point its own name to this machine; its requests then name that host. With a token,
        # which such a page does not have, other names of this machine may be used.
        self._hosts = {*_LOCAL_NAMES, host.strip("[]").lower()} if token is None else None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await send_problem(send, *refusal)

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str, dict[str, str]] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._hosts is not None and _host_name(host) not in self._hosts:
            return 403, f"The service does not answer for the host {host[:100]!r}; ask for 127.0.0.1.", {}
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return 403, "Pages of other sites may not use this service.", {}
        if self._token is not None:
            scheme, _, given = headers.get(b"authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
                sentence = "This service needs its token: send the header Authorization: Bearer TOKEN."
                return 401, sentence, {"WWW-Authenticate": "Bearer"}
        return None


def _host_name(host: str) -> str:
    """Name in a Host header, without the port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


@dataclass(frozen=True)
class BodyLimits:
    """What is taken from the network.

    Parameters
    ----------
    max_bytes : int
        Of one request.
    max_bytes_together : int
        Of all requests at a time.
    max_seconds : float
        Time in which a request must have arrived.
    """

    max_bytes: int = 128 * 2**20
    max_bytes_together: int = 2**30
    max_seconds: float = 60.0


class BodyLimit:
    """Middleware that stops requests which send too much, or too slowly.

    Parameters
    ----------
    app : ASGI application
        What lies behind.
    limits : BodyLimits
        How much is too much.
    """

    def __init__(self, app: App, *, limits: BodyLimits) -> None:
        self._app, self.limits = app, limits
        self.bytes_together = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self.limits
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > limits.max_bytes):
                await send_problem(send, 413, self.too_large(), {"Connection": "close"})
                return
        body, started = _Body(receive, self), False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, body.receive, noted)
        except (TooLarge, TooSlow, Full) as error:
            if started:
                raise
            status = {TooLarge: 413, TooSlow: 408, Full: 503}[type(error)]
            retry = {"Retry-After": "5"} if status == 503 else {}
            await send_problem(send, status, str(error), {"Connection": "close", **retry})
        finally:
            self.bytes_together -= body.n_bytes

    def too_large(self) -> str:
        """Say what is too large."""
        return f"The request is larger than the {self.limits.max_bytes / 2**20:g} MB that are taken."


class _Body:
    """The body of one request, counted while it arrives."""

    def __init__(self, receive: Receive, limit: BodyLimit) -> None:
        self._receive, self._limit = receive, limit
        self._deadline = asyncio.get_running_loop().time() + limit.limits.max_seconds
        self._complete = False
        self.n_bytes = 0

    async def receive(self) -> Message:
        if self._complete:  # what comes now is the end of the connection, for which there is no deadline
            return await self._receive()
        limits = self._limit.limits
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise TooSlow(f"The request did not arrive within {limits.max_seconds:g} s.") from None
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.n_bytes += size
        self._limit.bytes_together += size
        if self.n_bytes > limits.max_bytes:
            raise TooLarge(self._limit.too_large())
        if self._limit.bytes_together > limits.max_bytes_together:
            raise Full("The service is busy with other large requests; send the request again in 5 s.")
        return message


async def send_problem(send: Send, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
    """Answer with a sentence as JSON."""
    body = json.dumps({"detail": sentence}).encode()
    plain = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    encoded = [(name.lower().encode(), value.encode()) for name, value in plain.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
