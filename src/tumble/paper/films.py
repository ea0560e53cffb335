"""The films: how manifold and latent distribution form in training, with and without rotational invariance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from tumble.paper import draw
from tumble.paper.methods import AUTOENCODERS, Fit, chosen_methods
from tumble.paper.names import METHOD_TITLES
from tumble.paper.outcome import Comparison, Outcome, Study
from tumble.paper.sweeps import main_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tumble.paper.lab import Lab
    from tumble.paper.snapshots import Snapshot

__all__ = ["STUDY", "frame", "key_frames"]

_KEY_FRAMES = 4


def _fits(lab: Lab) -> list[Fit]:
    return [main_fit(lab, method) for method in chosen_methods(lab.methods, AUTOENCODERS, "films")]


def run(lab: Lab) -> Outcome:
    """Make one film per model, and a figure of its key frames."""
    outcome = Outcome()
    final = {}
    for fit in _fits(lab):
        shots = lab.snapshots(fit).all()
        classes = fit.source.split().classes
        limits = latent_limits(shots)
        frames = []
        for i, shot in enumerate(shots):
            lab.tell(f"Drawing the film of {fit.title}", i, len(shots))
            with draw.print_style():
                figure = frame(shot, classes, METHOD_TITLES[fit.method], limits)
                if lab.sizes.quick:
                    figure.text(0.56, 0.008, draw.QUICK_TEXT, color=draw.QUICK_COLOUR, fontsize=6.5)
                frames.append(draw.figure_pixels(figure))
        outcome.films[f"film-{fit.method}"] = frames
        outcome.figures[f"film-{fit.method}-frames"] = _key_figure(
            key_frames(shots), classes, METHOD_TITLES[fit.method]
        )
        outcome.values[fit.method] = {
            "epoch": [shot.epoch for shot in shots],
            "accuracy": [shot.accuracy for shot in shots],
        }
        final[METHOD_TITLES[fit.method]] = shots[-1].accuracy
    published = "“better performance with rotational invariance” (videos S1 and S2)"
    outcome.comparisons.append(Comparison("accuracy within ±60° in the last frame", published, final))
    return outcome


def key_frames(shots: Sequence[Snapshot], n: int = _KEY_FRAMES) -> list[Snapshot]:
    """Pick the first, the last, and some between, evenly in the logarithm of the epoch: much happens early.

    Parameters
    ----------
    shots : sequence of Snapshot
        In the order of the epochs.
    n : int, default=4
        How many.

    Returns
    -------
    list of Snapshot
        Fewer where there are fewer.
    """
    epochs = np.array([shot.epoch for shot in shots])
    wanted = np.geomspace(epochs[0], epochs[-1], n)
    rows = np.unique([int(np.argmin(np.abs(epochs - epoch))) for epoch in wanted])
    return [shots[i] for i in rows]


def latent_limits(shots: Sequence[Snapshot]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Give the ends of both latent axes that hold nearly all points of all frames."""
    z = np.concatenate([shot.z for shot in shots])
    low, high = np.percentile(z, [0.5, 99.5], axis=0)
    pad = 0.08 * np.maximum(high - low, 1e-3)
    return (float(low[0] - pad[0]), float(high[0] + pad[0])), (float(low[1] - pad[1]), float(high[1] + pad[1]))


def frame(
    shot: Snapshot, classes: Sequence[str], title: str, limits: tuple[tuple[float, float], tuple[float, float]]
) -> Figure:
    """Draw one frame: the manifold of each class at the left, the latent distribution at the right.

    Parameters
    ----------
    shot : Snapshot
        State of the model.
    classes : sequence of str
        Names.
    title : str
        What the model is called.
    limits : pair of (float, float)
        Ends of the axes z1 and z2, the same in all frames.

    Returns
    -------
    Figure
    """
    # Without the layout that fits itself: the panels of a film must not move.
    figure = Figure(figsize=(7.2, 3.7))
    figure.text(
        0.012, 0.955, f"{title}:  epoch {shot.epoch},  accuracy {shot.accuracy:.3f}", fontsize=9, fontweight="bold"
    )
    for k, name in enumerate(classes):
        row, column = divmod(k, 2)
        axes = figure.add_axes((0.01 + 0.235 * column, 0.48 - 0.465 * row, 0.225, 0.40))
        draw.manifold_panel(axes, shot.manifold[k], labels=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(name, loc="left", pad=2)
    axes = figure.add_axes((0.56, 0.14, 0.42, 0.74))
    draw.scatter_panel(axes, shot.z, shot.truth, classes)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(classes), handletextpad=0.0, columnspacing=0.8)
    return figure


def _key_figure(shots: Sequence[Snapshot], classes: Sequence[str], title: str) -> Figure:
    with draw.print_style():
        figure = draw.figure_of(1.55 * len(shots) + 0.45)
        panels = figure.subplots(len(shots), len(classes) + 1, squeeze=False, width_ratios=[1] * len(classes) + [1.35])
        for row, shot in zip(panels, shots, strict=True):
            for k, axes in enumerate(row[:-1]):
                draw.manifold_panel(axes, shot.manifold[k], labels=k == 0)
                axes.set_title(classes[k] if shot is shots[0] else "", loc="left")
                if shot is not shots[-1]:
                    axes.set(xlabel="", xticks=[])
            draw.scatter_panel(row[-1], shot.z, shot.truth, classes)
            if shot is not shots[-1]:
                row[-1].set_xlabel("")
            row[-1].set_title(f"epoch {shot.epoch}, accuracy {shot.accuracy:.2f}", loc="left")
        handles, names = panels[0, -1].get_legend_handles_labels()
        panels[0, 0].set_title(f"{title}\n{classes[0]}", loc="left")
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), markerscale=1.5)
    return figure


STUDY = Study(_fits, run)
