"""Figure 6: the ss-rVAE of the nanoparticles: manifold of each class, latent distribution, confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.paper import draw
from tumble.paper.data import Agglomerates, Gold
from tumble.paper.methods import INVARIANT, Fit, chosen_methods
from tumble.paper.names import METHOD_TITLES
from tumble.paper.outcome import Comparison, Outcome, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tumble.paper.data import Source
    from tumble.paper.lab import Lab

__all__ = ["NANOPARTICLE_TITLES", "STUDY", "nanoparticles"]

#: Data set -> what it is.
NANOPARTICLE_TITLES = {
    "agglomerates": "synthetic agglomerates of 1 to 4 particles",
    "gold": "real gold micrograph",
}


def nanoparticles(lab: Lab) -> dict[str, Source]:
    """Describe both data sets of nanoparticles."""
    sizes = lab.sizes
    return {
        "agglomerates": Agglomerates(sizes.agglomerates, sizes.gold_labels, lab.seed),
        "gold": Gold(sizes.gold_labels, sizes.gold_unlabelled, sizes.gold_test, lab.seed),
    }


def _fits(lab: Lab) -> dict[str, list[Fit]]:
    methods = chosen_methods(lab.methods, INVARIANT, "fig6")
    return {name: [Fit(method, source) for method in methods] for name, source in nanoparticles(lab).items()}


def run(lab: Lab) -> Outcome:
    """Draw what the ss-rVAE learned of each set of nanoparticles, and score it."""
    outcome = Outcome()
    for name, fits in _fits(lab).items():
        scores = {}
        for fit in fits:
            scores[fit.method] = lab.scores(fit)
            outcome.figures[f"fig6-{name}-{fit.method}"] = _figure(lab, fit, scores[fit.method], name)
        outcome.values[name] = scores
        least = {METHOD_TITLES[method]: min(found["recall"].values()) for method, found in scores.items()}
        what = f"least recall of any class, {NANOPARTICLE_TITLES[name]}"
        outcome.comparisons.append(Comparison(what, "above 0.6 (ss-rVAE, the authors' own images)", least))
    return outcome


def _figure(lab: Lab, fit: Fit, scores: dict[str, Any], name: str) -> Figure:
    split = fit.source.split()
    model = lab.fitted(fit)
    manifold = model.traverse(n=lab.sizes.traversal)
    known = split.truth >= 0
    z = model.transform(split.X[known])
    with draw.print_style():
        figure = draw.figure_of(5.1)
        parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.45))
        top, bottom = parts
        for k, axes in enumerate(top.subplots(1, len(split.classes))):
            draw.manifold_panel(axes, manifold[k])
            n = int((split.y == k).sum())
            kind = f"{split.classes[k]} particle{'s' * (split.classes[k] != '1')}"
            axes.set_title(f"{kind if name == 'agglomerates' else split.classes[k]} ({n} labels)", loc="left")
            draw.letter(axes, "abcd"[k])
        left, right = bottom.subplots(1, 2, width_ratios=(1.25, 1))
        draw.scatter_panel(left, z, split.truth[known], split.classes)
        left.legend(
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            handletextpad=0.1,
            borderaxespad=0.0,
            markerscale=1.3,
            title="particles" if name == "agglomerates" else None,
        )
        left.set_title("latent factors, coloured by true class", loc="left")
        draw.letter(left, "e")
        draw.confusion_panel(right, scores["confusion"], split.classes)
        where = "unlabelled images" if name == "agglomerates" else "other half of the micrograph"
        right.set_title(f"{where}, n = {int(np.sum(scores['confusion']))}", loc="left")
        draw.letter(right, "f")
        title = f"{fit.title}: {NANOPARTICLE_TITLES[name]}, each image {split.X.shape[2]} px wide"
        top.suptitle(title, fontsize=8.5, x=0.01, ha="left")
    return figure


STUDY = Study(lambda lab: [fit for fits in _fits(lab).values() for fit in fits], run)
