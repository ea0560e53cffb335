"""The command that writes a library in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tumble import options as opt
from tumble.commands import shared as sh
from tumble.console import ProgressDisplay, guarded, result
from tumble.errors import ConfigError

__all__ = ["register"]

#: Larger than any library: an export takes all pages at once.
_EVERY = 2**31


def register(app: typer.Typer) -> None:
    """Add the command to the command line.

    Parameters
    ----------
    app : typer.Typer
        What to add it to.
    """
    app.command()(guarded(export))


def export(
    library: opt.LibraryArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; for crops, a new folder.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="csv, parquet, h5ad (AnnData), imagej (ROI zip), coco (JSON), crops (folder per class), html or pdf "
            "(contact sheet), labels or label-history (CSV). Default: by the suffix of --out.",
        ),
    ] = None,
    predicted: sh.PredictedOption = None,
    probability: sh.ProbabilityOption = None,
    where: sh.MeasurementOption = None,
    micrograph: sh.MicrographsOption = None,
    labels: sh.LabelStateOption = "any",
    model: sh.ModelNameOption = None,
    by: Annotated[str, typer.Option(help="What counts as the class: predicted or label.")] = "predicted",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
    quiet: opt.QuietOption = False,
) -> None:
    """Write particles for other programs, all or those that a search finds.

    Example: [bold]tumble export particles.db --out particles.csv[/bold]

    Example: [bold]tumble export particles.db --format coco --out dimers.json --class dimer[/bold]
    """
    with ProgressDisplay(quiet=quiet) as display:
        display.step("Exporting")
        from tumble.export import export_library
        from tumble.library import Library, Query

        question = Query(
            predicted=tuple(predicted) if predicted else None,
            probability=sh.parse_range(probability, "--probability"),
            measurements=sh.parse_ranges(where),
            micrograph_ids=tuple(micrograph) if micrograph else None,
            label_state=labels,  # type: ignore[arg-type]  # Query says what it may be
            model=model,
            limit=_EVERY,
        )
        everything = question == Query(model=model, limit=_EVERY)
        with Library(library) as opened:
            ids = None if everything else opened.search(question).particles.index.tolist()
            path = export_library(
                opened, out, format or _by_suffix(out), model=model, particle_ids=ids, by=by, overwrite=overwrite
            )
    result(f"Written: {path}")


def _by_suffix(out: Path) -> str:
    known = {".csv": "csv", ".parquet": "parquet", ".h5ad": "h5ad", ".zip": "imagej", ".json": "coco"}
    known |= {".html": "html", ".pdf": "pdf", "": "crops"}
    if out.suffix.lower() not in known:
        raise ConfigError(
            f"--out {out}: the suffix names no format. Give one with --format, see `tumble export --help`."
        )
    return known[out.suffix.lower()]
