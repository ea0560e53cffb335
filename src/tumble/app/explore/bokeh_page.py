"""Bokeh's own JavaScript from its package, on a page that stays as strict as the others.

Bokeh makes ``<style>`` elements, which the policy of the other pages forbids. A page with a plot allows those that
carry its nonce; ``static/bokeh-nonce.js`` gives it to them. Scripts are those of this server and nothing is evaluated,
which is why plots are drawn without WebGL: Bokeh's needs ``unsafe-eval``.
"""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from tumble.app.security import CONTENT_SECURITY_POLICY
from tumble.errors import ConfigError

__all__ = ["allow_styles", "bokeh_version", "new_nonce", "router"]

router = APIRouter(include_in_schema=False)


def bokeh_version() -> str:
    """Return the version of Bokeh that is installed.

    Raises
    ------
    ConfigError
        None is.
    """
    from importlib.metadata import version

    if importlib.util.find_spec("bokeh") is None:
        raise ConfigError('this view needs the package Bokeh. Run: pip install "tumble[app]"')
    return version("bokeh")


def new_nonce() -> str:
    """Return a text that nobody can guess, for one answer."""
    return secrets.token_urlsafe(16)


def allow_styles(response: Response, nonce: str) -> Response:
    """Let a page use the style elements that carry its nonce, and return it."""
    policy = CONTENT_SECURITY_POLICY.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")
    response.headers["Content-Security-Policy"] = policy
    return response


@router.get("/bokeh/{version}/bokeh.min.js")
def script(version: str) -> Response:
    """Return Bokeh's script; the version in the address lets a browser keep it."""
    bokeh_version()
    spec = importlib.util.find_spec("bokeh")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "server" / "static" / "js" / "bokeh.min.js"
    headers = {"Cache-Control": "private, max-age=604800, immutable"}
    return FileResponse(path, media_type="text/javascript; charset=utf-8", headers=headers)
