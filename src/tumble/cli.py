"""The command line: parse, call, print. What the commands do lies in :mod:`tumble.pipeline` and below.

Heavy modules are imported inside the commands, so that ``tumble --help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tumble import console
from tumble import options as opt
from tumble._version import __version__
from tumble.commands import app as app_command
from tumble.commands import export as export_commands
from tumble.commands import extract as extract_commands
from tumble.commands import query as query_commands
from tumble.commands import reproduce as reproduce_commands
from tumble.commands import serve as serve_commands
from tumble.commands.shared import user_name
from tumble.console import ProgressDisplay, guarded, note, result
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["app", "main"]

app = typer.Typer(
    name="tumble",
    help="""From micrographs to a classified particle library, with a handful of labels.

The usual order: [bold]extract[/bold] images into a library, [bold]label[/bold] a few particles of each \
class, [bold]fit[/bold] a model, let it [bold]classify[/bold] all particles, write a [bold]report[/bold].

To see the whole way on a real image first: [bold]tumble demo[/bold].""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        result(f"tumble {__version__}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is logged.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and log in detail.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Set up what is common to all commands."""
    console.settings.debug = debug
    console.show_log(logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING)


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(min=0, help="Chooses the labels and seeds the fit.")] = 0,
    max_epochs: Annotated[int, typer.Option(min=1, help="Length of the fit; fewer for a quicker look.")] = 45,
    quiet: opt.QuietOption = False,
) -> None:
    """Run everything on a real image of gold nanoparticles that comes along.

    Takes a few minutes. Writes report.html, summary.json, library.db and model/ into the folder.

    Example: [bold]tumble demo --out demo-output[/bold]
    """
    with ProgressDisplay(quiet=quiet) as display:
        display.step("Loading")
        from tumble.demo import run_demo

        summary = run_demo(
            out,
            random_state=seed,
            max_epochs=max_epochs,
            progress=display.advance,
            callbacks=[display.epoch],
        )
    _print_demo(out, summary)


def _print_demo(out: Path, summary: Mapping[str, Any]) -> None:
    n_classes = len(summary["classes"])
    result(f"{summary['n_particles']} particles; {summary['n_labelled']} labels of {n_classes} classes to fit.")
    result(
        f"Balanced accuracy on {summary['n_test']} particles of the other half of the image: "
        f"{summary['balanced_accuracy']:.3f}"
    )
    result(f"  a decision tree on area alone, same labels: {summary['baseline_area_balanced_accuracy']:.3f}")
    for name, recall in summary["recall_per_class"].items():
        result(f"  {name}: {recall:.3f} recognised")
    total, fitting = (console.format_duration(summary[key]) for key in ("total_seconds", "fit_seconds"))
    result(f"Took {total}, the fit {fitting}.")
    result(f"Report: {out / 'report.html'}")
    note(f"Next: open {out / 'report.html'} in a browser, or `tumble extract IMAGE... --library my.db`.")


extract_commands.register(app)


@app.command()
@guarded
def label(
    library: opt.LibraryArgument,
    from_mask: Annotated[
        Path | None,
        typer.Option(help="Image in the size of the micrograph whose pixel values are classes; 0 is background."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Meaning of the values of the mask, for example 1=single,2=dimer.")
    ] = None,
    micrograph: Annotated[
        int | None, typer.Option(help="Number of the micrograph that the mask is of, if there are several.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Table with the columns particle_id and label.")] = None,
    author: Annotated[str | None, typer.Option(help="Who labelled. Default: your user name.")] = None,
) -> None:
    """Give particles their class, from a painted mask or from a table.

    Labels are only ever added; the newest of a particle counts. A few per class will do: particles without a
    label help the fit, too.

    Example: [bold]tumble label particles.db --from-mask classes.tif --classes 1=single,2=dimer[/bold]

    Example: [bold]tumble label particles.db --csv labels.csv[/bold]
    """
    if (from_mask is None) == (csv is None):
        raise ConfigError("Give the labels with either --from-mask MASK --classes ... or --csv FILE.")
    if from_mask is not None and classes is None:
        raise ConfigError("--from-mask needs --classes, the meaning of its values: for example 1=single,2=dimer.")
    if csv is not None and (classes is not None or micrograph is not None):
        raise ConfigError("--classes and --micrograph go with --from-mask, not with --csv.")
    from tumble.library import Library
    from tumble.pipeline import label_from_csv, label_from_mask, parse_class_names

    author = author or user_name()
    with Library(library) as opened:
        if csv is not None:
            n_labels = label_from_csv(opened, csv, author=author)
        else:
            assert from_mask is not None
            assert classes is not None
            names = parse_class_names(classes)
            n_labels = label_from_mask(opened, from_mask, names, micrograph_id=micrograph, author=author)
        counts = opened.info()["labels"]
    result(f"{n_labels} labels stored by {author}.")
    result("Labelled now: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    note(f"Next: `tumble fit {library} --model model`.")


@app.command()
@guarded
def fit(
    library: opt.LibraryArgument,
    model: Annotated[Path, typer.Option("--model", "-m", help="New folder for the fitted model.")],
    name: Annotated[str | None, typer.Option(help="Its name in the library. Default: that of the folder.")] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over all particles. Default: as many as it usually takes."),
    ] = None,
    latent_dim: Annotated[int, typer.Option(min=1, help="Number of continuous factors to learn.")] = 2,
    invariances: Annotated[
        str, typer.Option(help="What does not change the class: rotation, translation, scale; with commas.")
    ] = "rotation,translation",
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The labelled particles lie upright and define angle 0.")
    ] = False,
    scale_jitter: opt.ScaleJitterOption = 0.05,
    shear_jitter: opt.ShearJitterOption = 0.05,
    translation: opt.TranslationOption = 0.03,
    classifier: Annotated[
        str | None,
        typer.Option(help="fast, detailed (classes that differ in details; two to five times slower) or fine."),
    ] = None,
    degradation: Annotated[
        float | None,
        typer.Option(min=0, help="Simulated noise and dirt in training, for images worse than these; try 1."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Particles per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Size of the steps.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder for the state of the fit; the same command then goes on from it."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in that folder.")] = False,
    settings: opt.SettingsOption = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Fit a model to all particles of a library, labelled and unlabelled together.

    Each class needs at least two labels. The model's folder appears when the fit is complete.

    Example: [bold]tumble fit particles.db --model model[/bold]
    """
    given = {
        "classifier": classifier,
        "degradation": degradation,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "latent_dim": latent_dim,
        "invariances": tuple(part.strip() for part in invariances.split(",") if part.strip()),
        "device": device,
    }
    with ProgressDisplay(quiet=quiet) as display:
        display.step("Loading")
        from tumble.library import Library
        from tumble.pipeline import estimator_for_crops, fit_library

        estimator = estimator_for_crops(
            scale_jitter=scale_jitter,
            shear_jitter=shear_jitter,
            translation_prior=translation,
            labelled_orientation="aligned" if aligned else "arbitrary",
            max_epochs=max_epochs,
            random_state=seed,
        ).set_params(**{key: value for key, value in given.items() if value is not None})
        estimator.set_params(**opt.parse_settings(settings or (), estimator.get_params()))
        with Library(library) as opened:
            record = fit_library(
                opened,
                model,
                name=name,
                estimator=estimator,
                callbacks=[display.epoch],
                checkpoint=checkpoint,
                resume=checkpoint is not None,
                overwrite=overwrite,
            )
    labels, took = len(record.labelled_particle_ids), console.format_duration(record.fit_seconds)
    result(f"Model {record.name!r} of {len(record.classes)} classes fitted with {labels} labels in {took}: {model}")
    note(f"Next: `tumble classify {library} --model {model}`.")


@app.command()
@guarded
def classify(
    library: opt.LibraryArgument,
    model: opt.ModelOption,
    name: Annotated[str | None, typer.Option(help="Name of the model in the library, if it is new there.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also particles that this very model has classified.")] = False,
    scheduler: opt.SchedulerOption = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Predict class, latent factors and pose of every particle of a library.

    The model may have been fitted to another library with crops of the same size. What it has classified is kept: after
    an interruption, or when images were added, only the rest is done.

    Example: [bold]tumble classify particles.db --model model[/bold]
    """
    with ProgressDisplay(quiet=quiet) as display:
        display.step("Loading")
        from tumble.library import Library
        from tumble.pipeline import classify_library

        with Library(library) as opened:
            done = classify_library(
                opened, model, model_name=name, again=again, progress=display.advance, scheduler=scheduler
            )
    result(f"{done.n_particles} particles classified by {done.model_name!r}:")
    for class_name, count in done.counts.items():
        result(f"  {class_name}: {count}")
    note(f"Next: `tumble report {library}`.")


@app.command()
@guarded
def report(
    library: opt.LibraryArgument,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
    model: Annotated[str | None, typer.Option(help="Name of the model to report on. Default: the newest.")] = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Write what a library holds as one web page that opens anywhere, offline.

    Example: [bold]tumble report particles.db --out report.html[/bold]
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: a report is a web page. Give a name that ends in .html.")
    with ProgressDisplay(quiet=quiet) as display:
        display.step("Writing the report")
        from tumble.library import Library
        from tumble.report import write_report

        with Library(library) as opened:
            path = write_report(opened, out, model=model)
    result(f"Report: {path}")
    note("Next: open it in a browser.")


@app.command()
@guarded
def info(
    library: opt.LibraryArgument,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for other programs.")] = False,
) -> None:
    """Show what a library holds.

    Example: [bold]tumble info particles.db --json[/bold]
    """
    from tumble.library import Library

    with Library(library) as opened:
        content = opened.info()
    if as_json:
        result(json.dumps(content, indent=2))
        return
    for key, value in content.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
        result(f"{key.replace('_', ' ') + ':':<16} {value}")
    note(_next_step(library, content))


def _next_step(library: str, content: Mapping[str, Any]) -> str:
    if not content["particles"]:
        return f"Next: `tumble extract IMAGE... --library {library}`."
    if not content["labelled"]:
        return f"Next: `tumble label {library} ...`."
    if not content["models"]:
        return f"Next: `tumble fit {library} --model model`."
    if not content["predictions"]:
        return f"Next: `tumble classify {library} --model MODEL`."
    return f"Next: `tumble report {library}`."


query_commands.register(app)
export_commands.register(app)
reproduce_commands.register(app)
serve_commands.register(app)
app_command.register(app)


def main() -> None:
    """Run the command line, and leave the process with its exit code."""
    try:
        app()
    except KeyboardInterrupt:
        # A second Ctrl-C, or one before a command began: nothing is open then.
        sys.exit(130)
    except BrokenPipeError:
        console.close_broken_pipe()
        sys.exit(1)
    finally:
        _flush()


def _flush() -> None:
    """Write out what is buffered while a closed pipe can still be handled quietly."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        console.close_broken_pipe()
        os._exit(1)
