"""``tumble reproduce``: the paper's studies, one command each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tumble import options as opt
from tumble.console import ProgressDisplay, format_duration, guarded, note, result
from tumble.errors import ConfigError
from tumble.paper.names import ALL, METHOD_TITLES, STUDY_TITLES

__all__ = ["register"]

_NAMES = ", ".join([*STUDY_TITLES, ALL])


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(reproduce)


@guarded
def reproduce(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{_NAMES}.")],
    out: Annotated[Path, typer.Option(help="Folder for results, and for what is kept between runs.")],
    quick: Annotated[bool, typer.Option("--quick", help="Tiny data and training, to see that it runs.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=9999, help="Seeds data and fits.")] = 0,
    methods: Annotated[
        list[str] | None,
        typer.Option(help=f"What to compare; may be repeated. {', '.join(METHOD_TITLES)}. Default: all."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where networks run: auto, cpu, cuda, cuda:1, ...")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Train and measure anew what is kept.")] = False,
    jobs: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that train and measure side by side, also on one GPU.")
    ] = 1,
    no_figures: Annotated[
        bool, typer.Option("--no-figures", help="Train and measure what figures need, and keep it; draw nothing.")
    ] = False,
    published: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Setting of the published method, other than published; may be repeated. pixel_fraction=0.25 and "
            "precision=bfloat16 (on processors with matrix units) save most of its time.",
        ),
    ] = None,
    swept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="The same, for its many fits of fig3 and labels alone. "
            "Default: pixel_fraction=0.0625 and class_floor=0.0001.",
        ),
    ] = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Recompute a figure or table of the paper, for its method, the default one and baselines.

    Writes PNG, SVG (films: GIF) and result.json into a folder of the study's name in --out. A run that was cut off
    goes on where it was. In full, the published method takes hours without a GPU; an estimate comes first.

    Example: [bold]tumble reproduce fig3 --out paper --quick[/bold]
    """
    with ProgressDisplay(quiet=quiet) as display:
        display.step("Loading")
        from tumble.paper.run import reproduce as run

        def announce(seconds: float) -> None:
            if seconds > 0:
                time = f"{seconds / 3600:.1f} h" if seconds > 2 * 3600 else format_duration(seconds)
                note(f"Training will take about {time} on this machine. It may be cut off: it goes on where it was.")

        results = run(
            name,
            out,
            quick=quick,
            seed=seed,
            methods=methods or None,
            device=device,
            force=force,
            jobs=jobs,
            draw_figures=not no_figures,
            published=_settings("--published", published),
            swept=_settings("--swept", swept),
            progress=display.advance,
            callback=display.epoch,
            announce=None if quick or quiet else announce,
        )
    for study, content in results.items():
        result(f"{study}: {content['title']}{' (QUICK RUN, numbers mean nothing)' if content['quick'] else ''}")
        for compared in content["comparison"]:
            result(f"  {compared['line']}")
        result(f"  {out / study}: {', '.join([*content['files'], 'result.json'])}")
    if no_figures:
        note(f"Trained and measured; kept in {out / 'cache'}. Next: the same without --no-figures.")
        return
    note("Next: open the PNG files; result.json has every number.")


def _settings(option: str, given: list[str] | None) -> dict[str, Any]:
    """Read settings, their values as JSON where they are such, else as text."""
    found: dict[str, Any] = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise ConfigError(f"{option} {text}: expected NAME=VALUE, for example pixel_fraction=0.25.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
