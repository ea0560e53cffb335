"""Commands that ask a library, and take labels back."""

from __future__ import annotations

from typing import Annotated

import typer

from tumble import options as opt
from tumble.commands import shared as sh
from tumble.console import guarded, note, result
from tumble.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line.

    Parameters
    ----------
    app : typer.Typer
        What to add them to.
    """
    app.command()(guarded(query))
    app.command()(guarded(neighbours))
    app.command()(guarded(suggest))
    app.command()(guarded(counts))
    app.command()(guarded(compare))
    app.command()(guarded(agreement))
    app.command()(guarded(duplicates))
    app.command()(guarded(undo))


def query(
    library: opt.LibraryArgument,
    predicted: sh.PredictedOption = None,
    probability: sh.ProbabilityOption = None,
    novelty: sh.NoveltyOption = None,
    where: sh.MeasurementOption = None,
    micrograph: sh.MicrographsOption = None,
    label: sh.LabelsOption = None,
    labels: sh.LabelStateOption = "any",
    by: Annotated[str | None, typer.Option(help="Only particles whose present label is this person's.")] = None,
    model: sh.ModelNameOption = None,
    disagrees_with: Annotated[str | None, typer.Option(help="Another model, of another opinion.")] = None,
    mislabelled: Annotated[
        bool, typer.Option("--mislabelled", help="Only particles whose label the model contradicts.")
    ] = False,
    order_by: Annotated[str, typer.Option(help="particle_id, probability, novelty or a measurement.")] = "particle_id",
    descending: Annotated[bool, typer.Option("--descending", help="Largest values first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Particles to show.")] = 20,
    after: Annotated[str | None, typer.Option(help="Go on where the page before ended: VALUE,PARTICLE.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Show only how many there are.")] = False,
    csv: sh.CsvOption = False,
) -> None:
    """Find particles by class, probability, size, novelty, label or disagreement.

    Example: [bold]tumble query particles.db --class dimer --probability 0.5..0.8 --labels unlabelled[/bold]
    """
    from tumble.library import Library, Query

    question = Query(
        predicted=tuple(predicted) if predicted else None,
        probability=sh.parse_range(probability, "--probability"),
        novelty=sh.parse_range(novelty, "--novelty"),
        measurements=sh.parse_ranges(where),
        micrograph_ids=tuple(micrograph) if micrograph else None,
        labels=tuple(label) if label else None,
        label_state=labels,  # type: ignore[arg-type]  # Query says what it may be
        labelled_by=by,
        model=model,
        disagrees_with=disagrees_with,
        disagrees_with_label=mislabelled,
        order_by=order_by,
        descending=descending,
        limit=limit,
        after=_position(after),
    )
    with Library(library) as opened:
        if count:
            result(str(opened.count(question)))
            return
        page = opened.search(question)
    sh.print_table(page.particles, as_csv=csv)
    if page.next is not None:
        note(f"There are more: the same with --after {page.next[0]!r},{page.next[1]}, or a higher --limit.")
    elif page.particles.empty:
        note("No particle meets all these conditions.")


def _position(text: str | None) -> tuple[float, int] | None:
    if text is None:
        return None
    value, comma, particle = text.partition(",")
    try:
        if comma:
            return float(value), int(particle)
    except ValueError:
        pass
    raise ConfigError(f"--after {text!r}: is not VALUE,PARTICLE as the page before gave it.")


def neighbours(
    library: opt.LibraryArgument,
    particle: Annotated[int, typer.Argument(help="Number of the particle.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
    model: sh.ModelNameOption = None,
    csv: sh.CsvOption = False,
) -> None:
    """Show the particles that are most like one, by the latent factors of a model.

    Example: [bold]tumble neighbours particles.db 42 -n 5[/bold]
    """
    from tumble.library import Library

    with Library(library) as opened:
        sh.print_table(opened.neighbours(particle, n, model=model), as_csv=csv)


def suggest(
    library: opt.LibraryArgument,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 20,
    model: sh.ModelNameOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the choice.")] = 0,
    csv: sh.CsvOption = False,
) -> None:
    """Suggest which particles to label next: those of which the model is least sure, and all different.

    As long as no model has classified the particles, those that differ most in size and shape.

    Example: [bold]tumble suggest particles.db -n 20[/bold]
    """
    from tumble.library import Library
    from tumble.pipeline import suggest_labels, varied_particles

    with Library(library) as opened:
        without = model is None and opened.predicting_model() is None
        found = varied_particles(opened, n) if without else suggest_labels(opened, n, model=model, random_state=seed)
        sh.print_table(found, as_csv=csv)
    if without:
        note("No model has classified them yet: these differ most in size and shape.")
    note(f"Next: put their classes into a table particle_id,label and `tumble label {library} --csv TABLE`.")


def counts(
    library: opt.LibraryArgument,
    probability: sh.ProbabilityOption = None,
    where: sh.MeasurementOption = None,
    micrograph: sh.MicrographsOption = None,
    model: sh.ModelNameOption = None,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    csv: sh.CsvOption = False,
) -> None:
    """Count the particles of each class, with intervals, and corrected for the model's known errors.

    Example: [bold]tumble counts particles.db --where equivalent_diameter_px=10..[/bold]
    """
    from tumble.library import Library, Query
    from tumble.pipeline import class_counts

    question = Query(
        probability=sh.parse_range(probability, "--probability"),
        measurements=sh.parse_ranges(where),
        micrograph_ids=tuple(micrograph) if micrograph else None,
        model=model,
    )
    with Library(library) as opened:
        found = class_counts(opened, question, level=level)
    sh.print_table(found.table, as_csv=csv)
    corrected = "corrected" in found.table
    note(f"Model {found.model!r}; {level:.0%} intervals from resampled {found.resampled}.")
    note(f"Corrected by the errors on {found.tested}." if corrected else f"Not corrected: {found.tested}.")


def compare(
    library: opt.LibraryArgument,
    first: Annotated[str, typer.Argument(help="Name of a model.")],
    second: Annotated[str, typer.Argument(help="Name of another model.")],
    csv: sh.CsvOption = False,
) -> None:
    """Compare what two models say of the same particles.

    Example: [bold]tumble compare particles.db model-a model-b[/bold]
    """
    from tumble.library import Library
    from tumble.pipeline import compare_models

    with Library(library) as opened:
        found = compare_models(opened, first, second)
    sh.print_table(found.table, as_csv=csv)
    note(f"{found.n} particles, {found.agreement:.1%} of them in the same class; Cohen's kappa {found.kappa:.3f}.")
    note(f"Those that differ: `tumble query {library} --model {first} --disagrees-with {second}`.")


def agreement(library: opt.LibraryArgument, csv: sh.CsvOption = False) -> None:
    """Show how far the people who labelled agree, and where they do not.

    Example: [bold]tumble agreement particles.db[/bold]
    """
    from tumble.library import Library
    from tumble.pipeline import label_agreement

    with Library(library) as opened:
        found = label_agreement(opened)
    if csv:
        sh.print_table(found.disagreements, as_csv=True)
        return
    sh.print_table(found.pairs, index=False)
    result(f"Fleiss' kappa of all, on {found.n_common} particles that each labelled: {found.fleiss_kappa:.3f}")
    result(f"{len(found.disagreements)} particles have different labels.")
    sh.print_table(found.disagreements.head(20))


def duplicates(
    library: opt.LibraryArgument,
    similar: Annotated[
        float | None, typer.Option(help="Also crops that are not identical but correlate at least so much: 0.98.")
    ] = None,
    csv: sh.CsvOption = False,
) -> None:
    """Find particles that are in two micrographs.

    Example: [bold]tumble duplicates particles.db --similar 0.98[/bold]
    """
    from tumble.library import Library

    with Library(library) as opened:
        found = opened.duplicates(min_correlation=similar)
    sh.print_table(found, as_csv=csv, index=False)
    note(f"{len(found)} pairs of particles of different micrographs.")


def undo(
    library: opt.LibraryArgument,
    author: sh.AuthorOption = None,
    action: Annotated[int | None, typer.Option(help="Number of the action to take back, see --list.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Restore what was taken back last.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show who labelled what, and change nothing.")] = False,
) -> None:
    """Take back the labels that you gave last; nothing is removed from the history.

    Example: [bold]tumble undo particles.db[/bold]
    """
    if redo and action is not None:
        raise ConfigError("--action goes with taking back, not with --redo.")
    from tumble.library import Library

    author = author or sh.user_name()
    with Library(library) as opened:
        if list_:
            sh.print_table(opened.label_actions())
            return
        changed = opened.redo_labels(author) if redo else opened.undo_labels(author, action)
        labelled = opened.info()["labelled"]
    did = "restored" if redo else "taken back"
    result(
        f"{changed.n_labels} labels {did}: action {changed.action_id} of {changed.author}, {changed.created_at[:19]}, "
        f"{changed.source}."
    )
    result(f"{labelled} particles are labelled now.")
