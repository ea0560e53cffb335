"""Figure 3 and the label study: accuracy on cards as one thing is varied, with a model of its own for each value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.paper import draw
from tumble.paper.data import Cards
from tumble.paper.methods import AUTOENCODERS, BASELINES, INVARIANT, Fit, chosen_methods
from tumble.paper.names import METHOD_TITLES
from tumble.paper.outcome import Comparison, Outcome, Study
from tumble.report.style import open_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tumble.paper.data import Split
    from tumble.paper.lab import Lab

__all__ = ["FIG3", "LABELS", "TRAINED_WITHIN_DEG", "cards", "factor_correlations", "main_fit"]

#: The disorder of the unlabelled cards of the main model.
TRAINED_WITHIN_DEG = 60.0
#: Disorders for which the text of the paper gives a bound.
_PUBLISHED_WITHIN_DEG = (4.0, 90.0)


def cards(lab: Lab, *, angle_deg: float = TRAINED_WITHIN_DEG, n_labelled: int | None = None) -> Cards:
    """Describe the cards of a fit."""
    sizes = lab.sizes
    count = sizes.n_labelled if n_labelled is None else n_labelled
    return Cards(float(angle_deg), count, sizes.n_unlabelled, sizes.n_test, lab.seed)


def main_fit(lab: Lab, method: str) -> Fit:
    """Describe the fit at ±60 degrees, which most figures of the cards share; it is filmed."""
    return Fit(method, cards(lab), filmed=method in AUTOENCODERS)


# Figure 3


def _fig3_fit(lab: Lab, method: str, angle_deg: float) -> Fit:
    if angle_deg == TRAINED_WITHIN_DEG:
        return main_fit(lab, method)
    return Fit(method, cards(lab, angle_deg=angle_deg), swept=True)


def _fig3_methods(lab: Lab) -> tuple[str, ...]:
    return chosen_methods(lab.methods, (*AUTOENCODERS, *BASELINES), "fig3")


def fig3_needs(lab: Lab) -> list[Fit]:
    """Give a fit for each method and disorder."""
    return [_fig3_fit(lab, method, angle) for method in _fig3_methods(lab) for angle in lab.sizes.angles_deg]


def measure_fig3(lab: Lab) -> None:
    """Measure what :func:`run_fig3` draws."""
    for fit in fig3_needs(lab):
        lab.scores(fit)
    for method in _fig3_methods(lab):
        if method in AUTOENCODERS:
            _correlations(lab, method)


def run_fig3(lab: Lab) -> Outcome:
    """Measure accuracy against disorder; draw it, and the traversals of the models at ±60 degrees."""
    methods, angles = _fig3_methods(lab), lab.sizes.angles_deg
    scores = {}
    # All methods at one disorder before the next: its data are drawn once.
    for i, angle in enumerate(angles):
        lab.tell("Scoring against disorder", i, len(angles))
        for method in methods:
            scores[method, angle] = lab.scores(_fig3_fit(lab, method, angle))
    curves = {method: [scores[method, angle]["accuracy"] for angle in angles] for method in methods}
    # In the order of the paper's panels: first without rotational invariance, then with it.
    drawn = sorted((m for m in AUTOENCODERS if m in methods), key=lambda m: (not m.startswith("paper"), m in INVARIANT))
    correlations = {method: _correlations(lab, method) for method in drawn}
    figures = {"fig3a": _disorder_figure(angles, curves)}
    if drawn:
        figures["fig3bc"] = _traversal_figure(lab, drawn)
    values = {
        "angles_deg": angles,
        "accuracy": curves,
        "scores": {f"{method}, {angle:g} deg": found for (method, angle), found in scores.items()},
        "factor_correlations": correlations,
    }
    return Outcome(values, _fig3_comparisons(angles, curves, correlations), figures)


def _fig3_comparisons(
    angles: Sequence[float], curves: dict[str, list[float]], correlations: dict[str, Any]
) -> list[Comparison]:
    titled = {METHOD_TITLES[method]: values for method, values in curves.items()}
    within = [i for i, angle in enumerate(angles) if 4 < angle < 90]
    beyond = [i for i, angle in enumerate(angles) if angle >= 30]
    at_60 = list(angles).index(60) if 60 in angles else None
    invariant = {title: values for title, values in titled.items() if "ss-rVAE" in title}
    fixed = {title: values for title, values in titled.items() if "ss-VAE" in title}
    found = []
    if at_60 is not None:
        published = "0.865 and 0.871 (ss-rVAE, two runs)"
        found.append(Comparison("accuracy within ±60°", published, {t: v[at_60] for t, v in titled.items()}))
    if within and invariant:
        lowest = {t: min(v[i] for i in within) for t, v in invariant.items()}
        found.append(Comparison("least accuracy for 4° < α < 90°", "above 0.75 (ss-rVAE)", lowest))
    if beyond and fixed:
        mean = {t: float(np.mean([v[i] for i in beyond])) for t, v in fixed.items()}
        found.append(Comparison("mean accuracy for α ≥ 30°", "just above 0.25 (ss-VAE)", mean))
    for factor in ("scale", "shear"):
        best = {
            METHOD_TITLES[m]: max(per_class[factor]["z1"] + per_class[factor]["z2"])
            for m, per_class in correlations.items()
        }
        if best:
            what = f"best |rank correlation| of a latent factor with {factor}, in any class"
            found.append(Comparison(what, f"one factor captures {factor} (ss-rVAE, seen in traversals)", best))
    return found


def factor_correlations(
    z: npt.NDArray[Any], predicted: npt.NDArray[Any], truth: npt.NDArray[Any], factors: dict[str, npt.NDArray[Any]]
) -> dict[str, dict[str, list[float]]]:
    """Rank correlation of the first two latent factors with true factors, within each class, without its sign.

    Parameters
    ----------
    z : ndarray of shape (n, L), L at least 2
        Latent factors.
    predicted, truth : ndarray of shape (n,)
        Classes; only objects that are classified right have latent factors of their class.
    factors : dict of str to ndarray of shape (n,)
        True factors.

    Returns
    -------
    dict of factor to dict of "z1", "z2" to list of float
        One number per class; 0 where fewer than 5 objects are right.
    """
    from scipy.stats import spearmanr

    found: dict[str, dict[str, list[float]]] = {}
    for name, values in factors.items():
        found[name] = {"z1": [], "z2": []}
        for k in np.unique(truth):
            rows = (truth == k) & (predicted == k)
            for i in range(2):
                usable = rows.sum() >= 5 and np.ptp(z[rows, i]) > 0
                result: Any = spearmanr(z[rows, i], values[rows]) if usable else None
                value = abs(float(result.statistic)) if usable else 0.0
                found[name][f"z{i + 1}"].append(value)
    return found


def _correlations(lab: Lab, method: str) -> dict[str, dict[str, list[float]]]:
    fit = main_fit(lab, method)

    def work() -> dict[str, dict[str, list[float]]]:
        from tumble.datasets import make_cards

        # Of the seed of the test cards, which thus are the same, with their factors.
        truth = make_cards(lab.sizes.n_test, angle=TRAINED_WITHIN_DEG, random_state=930_000 + lab.seed)
        model = lab.fitted(fit)
        # The sum of both angles changes the shape; their difference is, to first order, a rotation.
        factors = {"scale": truth.scale, "shear": truth.shear.sum(axis=1)}
        return factor_correlations(model.transform(truth.X), model.predict(truth.X), truth.y, factors)

    return lab.cell({"what": "factor correlations", **fit.case(lab.sizes)}, work)


def _disorder_figure(angles: Sequence[float], curves: dict[str, list[float]]) -> Figure:
    with draw.print_style():
        figure = draw.figure_of(3.1, width=6.0)
        axes = figure.add_subplot()
        _curves(axes, angles, curves)
        if 60 in angles:
            stars = axes.plot([60, 60], [0.865, 0.871], "k*", markersize=7, linestyle="none", zorder=5)
            stars[0].set_label("published (ss-rVAE)")
        _published_range(axes)
        draw.mark_chance(axes, left=True)
        axes.set_xlabel("orientational disorder α: rotations uniform in ±α (°)")
        axes.set_ylabel("accuracy on test cards")
        axes.set_xticks(list(angles), labels=[f"{angle:g}" for angle in angles])
        figure.legend(loc="outside right center", handlelength=3)
    return figure


def _published_range(axes: Axes) -> None:
    """Draw what the text of the paper says of its figure 3a, whose values it does not list."""
    low, high = _PUBLISHED_WITHIN_DEG
    shade: dict[str, Any] = {"color": "#B8C0C8", "alpha": 0.35, "linewidth": 0, "zorder": 0}
    axes.fill_between([low, high], 0.75, 1, **shade, label="published: above 0.75")


def _curves(axes: Axes, x: Sequence[float], curves: dict[str, list[float]]) -> None:
    for method, values in curves.items():
        axes.plot(x, values, label=METHOD_TITLES[method], **draw.METHOD_STYLES[method])
    axes.set_ylim(0, 1.03)
    open_axes(axes)


def _traversal_figure(lab: Lab, methods: Sequence[str]) -> Figure:
    """Draw, for each model and class, how images change along z1 and along z2."""
    n = lab.sizes.traversal
    with draw.print_style():
        rows = -(-len(methods) // 2)
        figure = draw.figure_of(3.9 * rows + 0.1)
        panels = figure.subplots(rows, 2, squeeze=False).flat
        for i, (axes, method) in enumerate(zip(panels, methods, strict=False)):
            fit = main_fit(lab, method)
            axes.set_title(METHOD_TITLES[method], loc="left")
            draw.letter(axes, "bcde"[i])
            _strips(axes, lab.fitted(fit).traverse(n=n), fit.source.split())
        for axes in list(panels)[len(methods) :]:
            axes.set_axis_off()
    return figure


def _strips(axes: Axes, manifold: npt.NDArray[Any], split: Split) -> None:
    middle, side = manifold.shape[1] // 2, manifold.shape[3]
    strips = np.stack([strip for grid in manifold for strip in (grid[:, middle], grid[middle])])
    draw.show_tiles(axes, np.clip(strips, 0, 1))
    names = [label for name in split.classes for label in (f"{name}   z1", "z2")]
    draw.row_labels(axes, names, side)
    n = strips.shape[1]
    axes.set_xticks([side / 2, (n // 2 + 0.5) * (side + 2), (n - 0.5) * (side + 2)], labels=["−2", "0", "2"])
    axes.set_xlabel(f"z1 or z2 (s.d. of the class); each image {side} px wide", labelpad=1)


# Labels


def _labels_fit(lab: Lab, method: str, count: int) -> Fit:
    if count == lab.sizes.n_labelled:
        return main_fit(lab, method)
    return Fit(method, cards(lab, n_labelled=count), swept=True)


def _labels_methods(lab: Lab) -> tuple[str, ...]:
    return chosen_methods(lab.methods, (*INVARIANT, *BASELINES), "labels")


def labels_needs(lab: Lab) -> list[Fit]:
    """Give a fit for each method and number of labels."""
    return [_labels_fit(lab, method, count) for method in _labels_methods(lab) for count in lab.sizes.label_counts]


def run_labels(lab: Lab) -> Outcome:
    """Measure accuracy against the share of labelled cards."""
    methods, counts = _labels_methods(lab), lab.sizes.label_counts
    scores = {}
    for i, count in enumerate(counts):
        lab.tell("Scoring against labels", i, len(counts))
        for method in methods:
            scores[method, count] = lab.scores(_labels_fit(lab, method, count))
    curves = {method: [scores[method, count]["accuracy"] for count in counts] for method in methods}
    shares = [100 * count / (count + lab.sizes.n_unlabelled) for count in counts]
    gain = {METHOD_TITLES[method]: values[-1] - values[0] for method, values in curves.items()}
    what = f"gain of accuracy from {shares[0]:.2g} % to {shares[-1]:.2g} % of labels"
    values = {
        "labels_per_class": counts,
        "labelled_percent": shares,
        "accuracy": curves,
        "scores": {f"{method}, {count} per class": found for (method, count), found in scores.items()},
    }
    compared = [Comparison(what, "“can be improved by increasing the ratio of supervised data” (video S3)", gain)]
    return Outcome(values, compared, {"labels": _labels_figure(counts, shares, curves)})


def _labels_figure(counts: Sequence[int], shares: Sequence[float], curves: dict[str, list[float]]) -> Figure:
    with draw.print_style():
        figure = draw.figure_of(3.1, width=6.0)
        axes = figure.add_subplot()
        _curves(axes, shares, curves)
        draw.mark_chance(axes)
        axes.set_xscale("log")
        names = [f"{share:.2g}\n({count})" for share, count in zip(shares, counts, strict=True)]
        axes.set_xticks(list(shares), labels=names)
        axes.set_xticks([], minor=True)
        axes.set_xlabel("labelled share of the cards (%), and labels per class")
        axes.set_ylabel("accuracy on test cards within ±60°")
        figure.legend(loc="outside right center", handlelength=3)
    return figure


FIG3 = Study(fig3_needs, run_fig3, measure_fig3)
LABELS = Study(labels_needs, run_labels)
