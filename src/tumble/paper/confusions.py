"""Figures S2 and S3: confusion matrices of all methods on cards, and on the nanoparticles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tumble.paper import draw
from tumble.paper.fig6 import NANOPARTICLE_TITLES, nanoparticles
from tumble.paper.methods import AUTOENCODERS, BASELINES, INVARIANT, Fit, chosen_methods
from tumble.paper.names import METHOD_TITLES
from tumble.paper.outcome import Comparison, Outcome, Study
from tumble.paper.sweeps import main_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from tumble.paper.lab import Lab

__all__ = ["S2", "S3", "confusion_figure"]


def _s2_fits(lab: Lab) -> list[Fit]:
    return [main_fit(lab, method) for method in chosen_methods(lab.methods, (*AUTOENCODERS, *BASELINES), "s2")]


def run_s2(lab: Lab) -> Outcome:
    """Draw the confusion matrices on cards within ±60 degrees."""
    scores = {fit.method: lab.scores(fit) for fit in _s2_fits(lab)}
    accuracy = {METHOD_TITLES[method]: found["accuracy"] for method, found in scores.items()}
    compared = [Comparison("accuracy within ±60°", "0.865 and 0.871 (ss-rVAE), just above 0.25 (ss-VAE)", accuracy)]
    return Outcome({"cards": scores}, compared, {"s2": confusion_figure(scores)})


def _s3_fits(lab: Lab) -> dict[str, list[Fit]]:
    methods = chosen_methods(lab.methods, (*BASELINES, *INVARIANT), "s3")
    return {name: [Fit(m, source) for m in methods] for name, source in nanoparticles(lab).items()}


def run_s3(lab: Lab) -> Outcome:
    """Draw the confusion matrices of classifiers on pixels, and of the ss-rVAE, on both sets of nanoparticles."""
    outcome = Outcome()
    for name, fits in _s3_fits(lab).items():
        scores = {fit.method: lab.scores(fit) for fit in fits}
        outcome.values[name] = scores
        outcome.figures[f"s3-{name}"] = confusion_figure(scores)
        least = {METHOD_TITLES[method]: min(found["recall"].values()) for method, found in scores.items()}
        what = f"least recall of any class, {NANOPARTICLE_TITLES[name]}"
        published = "“perform poorly” (tree, forest, boosting), above 0.6 (ss-rVAE), on the authors' own images"
        outcome.comparisons.append(Comparison(what, published, least))
    return outcome


def confusion_figure(scores: dict[str, dict[str, Any]]) -> Figure:
    """Draw one confusion matrix per method, with its accuracy.

    Parameters
    ----------
    scores : dict of str to dict
        Method to what :meth:`tumble.paper.lab.Lab.scores` gives.

    Returns
    -------
    Figure
    """
    with draw.print_style():
        columns = min(4, len(scores)) if len(scores) != 6 else 3
        rows = -(-len(scores) // columns)
        figure = draw.figure_of((6.6 / columns + 0.72) * rows)
        panels = figure.subplots(rows, columns, squeeze=False)
        for i, (method, found) in enumerate(scores.items()):
            axes = panels.flat[i]
            draw.confusion_panel(axes, found["confusion"], found["classes"], ylabel=i % columns == 0)
            axes.set_title(f"{METHOD_TITLES[method]}\nbalanced accuracy {found['balanced_accuracy']:.3f}", loc="left")
            draw.letter(axes, "abcdefgh"[i])
            if i + columns < len(scores):
                axes.set_xlabel("")
        for axes in panels.flat[len(scores) :]:
            axes.set_axis_off()
    return figure


def _flat(groups: dict[str, list[Fit]]) -> Sequence[Fit]:
    return [fit for fits in groups.values() for fit in fits]


S2 = Study(_s2_fits, run_s2)
S3 = Study(lambda lab: list(_flat(_s3_fits(lab))), run_s3)
