"""What stands before every route: who may ask, from where, and how much at once.

One ASGI middleware, used by every server of `tumble`. The order of the checks is that of what they cost.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tumble.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CONTENT_SECURITY_POLICY", "CSRF_HEADER", "Guard", "Security", "is_loopback", "refusal"]

CSRF_HEADER = "X-Tumble-CSRF"
TOKEN_COOKIE = "tumble_token"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})
_MIN_TOKEN = 12


def is_loopback(host: str) -> bool:
    """Say whether an address can be reached from this machine alone.

    Parameters
    ----------
    host : str
        Name or address.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Security:
    """Who may use a server.

    Parameters
    ----------
    host : str
        Address that it binds to.
    token : str, optional
        What every request must carry; needed where `host` is not a loopback address.
    csrf : bool, default True
        Whether unsafe methods need the header :data:`CSRF_HEADER`; a page has it, a plain client does not.
    max_body_bytes : int
        Largest body of a request.
    csrf_token : str
        Made anew for each server.

    Raises
    ------
    ConfigError
        The address is open to others and there is no token, or a token that can be guessed.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    csrf: bool = True
    max_body_bytes: int = 64 * 2**20
    csrf_token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host}: other machines can reach this address, so that it needs a token. Add --token "
                "with a secret of at least 12 characters, or leave out --host to serve this machine alone."
            )
        if self.token is not None and len(self.token) < _MIN_TOKEN:
            raise ConfigError(f"--token: {len(self.token)} characters can be guessed; use at least {_MIN_TOKEN}.")

    def knows_host(self, name: str) -> bool:
        """Say whether a request may be addressed to this name; another one is a sign of DNS rebinding."""
        name = name.strip("[]").lower()
        if self.host in _WILDCARDS:
            return True  # the machine has names that it does not know; the token decides
        return name == self.host.strip("[]").lower() or (is_loopback(self.host) and name in _LOOPBACK_NAMES)


class _TooLargeError(HTTPException):
    """The body grew beyond the limit while it was read; frameworks let such an error pass, and turn others into 400."""


class Guard:
    """ASGI middleware that refuses what :class:`Security` does not allow, and adds the headers of a safe page.

    Parameters
    ----------
    app : ASGI application
        What it guards.
    security : Security
        What is allowed.
    """

    def __init__(self, app: ASGIApp, security: Security) -> None:
        self.app = app
        self.security = security

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await refused(scope, receive, _with_headers(send))
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, self._limited(receive), _with_headers(watched))
        except _TooLargeError:
            if started:
                raise
            await self._too_large(headers)(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self.security.knows_host(_hostname(host)):
            return refusal(headers, 421, f"This server does not answer to the name {_hostname(host)[:80]!r}.")
        if scope["method"] not in _SAFE and not _same_origin(headers, host):
            return refusal(headers, 403, "This request comes from another site. Open the page itself and try again.")
        refused = self._without_token(scope, headers)
        if refused is not None:
            return refused
        if scope["method"] not in _SAFE and self.security.csrf:
            sent = headers.get(CSRF_HEADER, "")
            if not _same(sent, self.security.csrf_token):
                return refusal(
                    headers, 403, "The page is from an earlier start of the server. Reload it and try again."
                )
        length = headers.get("content-length")
        if length is not None and (not length.isdecimal() or int(length) > self.security.max_body_bytes):
            return self._too_large(headers)
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        token = self.security.token
        if token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and _same(given, token) and scope["method"] in _SAFE:
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # Out of the address, so that a link that is shared does not carry the secret; never to another host.
            path = "/" + scope["path"].lstrip("/")
            response = RedirectResponse(path + (f"?{rest}" if rest else ""), status_code=303)
            response.set_cookie(TOKEN_COOKIE, token, httponly=True, samesite="lax", path="/")
            return response
        bearer = headers.get("authorization", "")
        if bearer[:7].lower() == "bearer " and _same(bearer[7:].strip(), token):
            return None
        if _same(cookie_parser(headers.get("cookie", "")).get(TOKEN_COOKIE, ""), token):
            return None
        response = refusal(headers, 401, "This server needs its token: open the address with ?token=... at its end.")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def _too_large(self, headers: Headers) -> Response:
        return refusal(headers, 413, self._limit_sentence())

    def _limit_sentence(self) -> str:
        limit = self.security.max_body_bytes / 2**20
        return f"The request is larger than {limit:.3g} MiB, which is the most that is taken."

    def _limited(self, receive: Receive) -> Receive:
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.security.max_body_bytes:
                raise _TooLargeError(413, self._limit_sentence())
            return message

        return limited


def refusal(headers: Headers, status: int, sentence: str) -> Response:
    """Return a refusal as a page for a browser and as JSON for a program.

    Parameters
    ----------
    headers : Headers
        Of the request.
    status : int
        HTTP status.
    sentence : str
        What was wrong and what to do.

    Returns
    -------
    Response
    """
    if "text/html" not in headers.get("accept", ""):
        return JSONResponse({"detail": sentence}, status_code=status)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>tumble: refused</title>'
        f"<h1>{status}</h1><p>{escape(sentence)}</p></html>"
    )
    return HTMLResponse(page, status_code=status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            # A page that needs more, for example a plotting library, says so itself.
            headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Referrer-Policy", "same-origin")
            headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode("utf-8"))


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _same_origin(headers: Headers, host: str) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:  # not a browser; the token and the CSRF header still decide
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def as_json(value: Any) -> str:
    """Return JSON that may stand inside a ``<script type="application/json">`` element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
