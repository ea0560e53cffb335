"""``tumble app``: label, train and look at a library in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tumble import options as opt
from tumble.commands import shared as sh
from tumble.console import guarded, note, result
from tumble.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line.

    Parameters
    ----------
    app : typer.Typer
        What to add it to.
    """
    app.command("app")(guarded(open_app))


def open_app(
    library: opt.LibraryArgument,
    host: Annotated[
        str, typer.Option(help="Address to answer at. Another one than this machine's own needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    token: Annotated[
        str | None, typer.Option(envvar="TUMBLE_TOKEN", help="Secret that every request must carry.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser; show the address.")] = False,
    author: sh.AuthorOption = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder for models that are trained. Default: beside the library.")
    ] = None,
) -> None:
    """Label particles, train models and look at the result in a browser.

    Every label is saved at once. Training goes on when the page or this command is closed.

    Example: [bold]tumble app particles.db[/bold]
    """
    try:
        from tumble.app.launch import run_app
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "tumble":
            raise
        raise ConfigError(f'tumble app needs the package {error.name}: pip install "tumble[app]".') from error
    from tumble.app.security import Security

    def announce(address: str) -> None:
        result(f"The library is open at {address}")
        note("Ctrl+C closes it; every label is saved already.")

    run_app(
        library,
        security=Security(host=host, token=token),
        port=port,
        author=author or sh.user_name(),
        models=models,
        open_browser=not no_browser,
        announce=announce,
    )
