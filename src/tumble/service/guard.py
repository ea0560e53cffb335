"""How much requests may send, together and in which time.

Host, origin, token and the size of one request are checked before, by :class:`tumble.app.security.Guard`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["BodyLimit", "BodyLimits", "HangUp", "TooLarge"]


class TooLarge(Exception):
    """A request sends more than is taken."""


class TooSlow(Exception):
    """A request takes too long to arrive."""


class Full(Exception):
    """All requests together send more than there is room for."""


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
    """Middleware that stops requests which send too slowly, or too much together.

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
            await send_problem(send, status, str(error), retry)
        finally:
            self.bytes_together -= body.n_bytes


class HangUp:
    """Middleware that ends the connection of a request which is refused before all of it has arrived.

    Otherwise the rest, which may have no end, would still be taken and thrown away.

    Parameters
    ----------
    app : ASGI application
        What lies behind.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        complete = not any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])

        async def noted() -> Message:
            nonlocal complete
            message = await receive()
            complete = complete or not message.get("more_body", False)
            return message

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not complete:
                others = [(name, value) for name, value in message["headers"] if name.lower() != b"connection"]
                message["headers"] = [*others, (b"connection", b"close")]
            await send(message)

        await self._app(scope, noted, closing)


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
