"""Figure 4: how far the models that were trained on clean cards within ±60 degrees stay right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.metrics import confusion
from tumble.paper import draw
from tumble.paper.data import cards_test
from tumble.paper.methods import AUTOENCODERS, BASELINES, DEGRADED, Fit, chosen_methods
from tumble.paper.names import METHOD_TITLES
from tumble.paper.outcome import Comparison, Outcome, Study
from tumble.paper.sizes import SHEAR_PERCENT_PER_DEG
from tumble.paper.sweeps import TRAINED_WITHIN_DEG, main_fit
from tumble.report.style import open_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from tumble.paper.lab import Lab

__all__ = [
    "CONFUSIONS",
    "PUBLISHED_CONTAMINATION",
    "PUBLISHED_GRID",
    "PUBLISHED_NOISE",
    "STUDY",
    "accuracies",
    "nearest",
]

#: (shear in degrees, angle in degrees) of the two confusion matrices: 23 % and 30 %.
CONFUSIONS = ((15.0, 60.0), (30 / SHEAR_PERCENT_PER_DEG, 100.0))
#: Of the first of two runs in the notebooks of the paper's first author.
PUBLISHED_NOISE = {0.1: 0.864, 0.45: 0.840, 0.63: 0.792, 1.0: 0.68, 1.26: 0.607, 2.5: 0.421}
PUBLISHED_CONTAMINATION = {0.05: 0.826, 0.1: 0.639, 0.2: 0.518, 0.3: 0.455, 0.5: 0.295}
#: (shear, angle) in degrees -> accuracy; and the mean over 16 x 16 cells of both runs.
PUBLISHED_GRID = {(14.0, 0.0): 0.976, (14.0, 60.0): 0.866, (14.0, 96.0): 0.719, (14.0, 180.0): 0.642}
_PUBLISHED_MEAN = "0.753 and 0.774 (ss-rVAE, two runs)"
_PUBLISHED_RECALL = {"club": 0.92, "spade": 0.97, "heart": 0.62, "diamond": 0.997}
#: Cells of the map have seeds of their own, beside that of the test cards.
_MAP_SEED = 1000

_LETTERS = "abcdefghij"

_Accuracies = list[float]


def _methods(lab: Lab) -> tuple[str, ...]:
    return chosen_methods(lab.methods, (*AUTOENCODERS, DEGRADED, *BASELINES), "fig4")


def needs(lab: Lab) -> list[Fit]:
    """Give the fit at ±60 degrees of each method."""
    return [main_fit(lab, method) for method in _methods(lab)]


@dataclass(frozen=True)
class _Measured:
    """Method to its accuracies on the map, confusion counts, and accuracies under noise and contamination."""

    maps: dict[str, list[_Accuracies]]
    confusions: dict[str, list[Any]]
    noise: dict[str, _Accuracies]
    contamination: dict[str, list[_Accuracies]]


def measure(lab: Lab) -> _Measured:
    """Score each method under more shear, rotation, noise and contamination than it was trained on."""
    fits = {method: main_fit(lab, method) for method in _methods(lab)}
    sizes = lab.sizes
    cells = [[{"shear": shear, "angle": angle} for angle in sizes.grid_angles_deg] for shear in sizes.grid_shears_deg]
    maps = accuracies(lab, fits, "shear and rotation", cells, n=sizes.n_cell, own_seeds=True)
    confusions = {method: [_confusion(lab, fit, *setting) for setting in CONFUSIONS] for method, fit in fits.items()}
    levels = [[{"noise": sigma}] for sigma in sizes.noise]
    by_level = accuracies(lab, fits, "noise", levels, n=sizes.n_test, own_seeds=False)
    noise = {method: [row[0] for row in rows] for method, rows in by_level.items()}
    specks = [[{"density": d, "intensity": intensity} for d in sizes.densities] for intensity in sizes.intensities]
    contamination = accuracies(lab, fits, "contamination", specks, n=sizes.n_test, own_seeds=False)
    return _Measured(maps, confusions, noise, contamination)


def run(lab: Lab) -> Outcome:
    """Measure, and draw it."""
    sizes, found = lab.sizes, measure(lab)
    maps, confusions, noise, contamination = found.maps, found.confusions, found.noise, found.contamination
    classes = main_fit(lab, next(iter(maps))).source.split().classes
    values = {
        "classes": classes,
        "map": {"shear_deg": sizes.grid_shears_deg, "angle_deg": sizes.grid_angles_deg, "accuracy": maps},
        "map_mean": {method: float(np.mean(rows)) for method, rows in maps.items()},
        "confusion": {
            f"shear {SHEAR_PERCENT_PER_DEG * shear:.0f} %, angle {angle:g} deg": {
                method: both[i] for method, both in confusions.items()
            }
            for i, (shear, angle) in enumerate(CONFUSIONS)
        },
        "noise": {"standard_deviation": sizes.noise, "accuracy": noise},
        "contamination": {"density": sizes.densities, "intensity": sizes.intensities, "accuracy": contamination},
    }
    figures = {
        "fig4a": _map_figure(sizes.grid_angles_deg, sizes.grid_shears_deg, maps),
        "fig4bc": _confusion_figure(confusions, classes),
        "fig4d": _examples_figure(lab),
        "fig4e": _noise_figure(lab, noise),
        "fig4f": _contamination_figure(sizes.densities, sizes.intensities, contamination),
        "fig4f-curves": _contamination_curves(sizes.densities, sizes.intensities, contamination),
    }
    return Outcome(values, _comparisons(lab, maps, confusions, noise, contamination, classes), figures)


# What is measured


def accuracies(
    lab: Lab, fits: dict[str, Fit], what: str, rows: Sequence[Sequence[dict[str, float]]], *, n: int, own_seeds: bool
) -> dict[str, list[_Accuracies]]:
    """Measure accuracies of all methods in all settings of the test cards.

    Parameters
    ----------
    lab : Lab
        Keeps them, row by row.
    fits : dict of str to Fit
        The methods.
    what : str
        What is varied, for the progress.
    rows : sequence of sequence of dict
        Settings, as in :func:`tumble.paper.data.cards_test`.
    n : int
        Cards per class.
    own_seeds : bool
        Whether each setting has cards of its own, or all have the same cards but for the setting.

    Returns
    -------
    dict of str to list of list of float
        Method to accuracies in the shape of `rows`.
    """
    found: dict[str, list[_Accuracies]] = {method: [] for method in fits}
    for i, row in enumerate(rows):
        lab.tell(f"Scoring under {what}", i, len(rows))
        seeds = [_MAP_SEED * (lab.seed + 1) + 16 * i + j if own_seeds else lab.seed for j in range(len(row))]
        # All methods in one row before the next: the cards of a row are drawn once.
        for method, fit in fits.items():

            def work(row: Any = row, seeds: list[int] = seeds, fit: Fit = fit) -> _Accuracies:
                values = []
                for setting, seed in zip(row, seeds, strict=True):
                    X, y = cards_test(n, seed, **setting)
                    values.append(float(np.mean(lab.fitted(fit).predict(X) == y)))
                return values

            case = {"what": "accuracies", "row": list(row), "seeds": seeds, "n": n}
            found[method].append(lab.cell({**case, **fit.case(lab.sizes)}, work))
    return found


def _confusion(lab: Lab, fit: Fit, shear: float, angle: float) -> list[list[int]]:
    n = lab.sizes.n_test

    def work() -> npt.NDArray[np.int64]:
        X, y = cards_test(n, lab.seed, angle=angle, shear=shear)
        return confusion(y, lab.fitted(fit).predict(X), classes=np.arange(len(fit.source.split().classes)))

    return lab.cell({"what": "confusion", "shear": shear, "angle": angle, "n": n, **fit.case(lab.sizes)}, work)


# Published against measured


def nearest(steps: Sequence[float], value: float) -> int:
    """Index of the step that is nearest to a value.

    Examples
    --------
    >>> nearest((0, 12, 24), 14)
    1
    """
    return int(np.argmin(np.abs(np.asarray(steps) - value)))


def _comparisons(
    lab: Lab,
    maps: dict[str, list[_Accuracies]],
    confusions: dict[str, list[Any]],
    noise: dict[str, _Accuracies],
    contamination: dict[str, list[_Accuracies]],
    classes: Sequence[str],
) -> list[Comparison]:
    sizes = lab.sizes
    titles = {method: METHOD_TITLES[method] for method in maps}
    mean = {titles[m]: float(np.mean(found)) for m, found in maps.items()}
    found = [Comparison("mean accuracy over the map of shear and angle", _PUBLISHED_MEAN, mean)]
    for (shear, angle), published in PUBLISHED_GRID.items():
        i, j = nearest(sizes.grid_shears_deg, shear), nearest(sizes.grid_angles_deg, angle)
        what = f"accuracy at shear {sizes.grid_shears_deg[i]:g}°, angle {sizes.grid_angles_deg[j]:g}°"
        at = f"{published} (at {shear:g}°, {angle:g}°)"
        found.append(Comparison(what, at, {titles[m]: rows[i][j] for m, rows in maps.items()}))
    for name, recall in _PUBLISHED_RECALL.items():
        k = list(classes).index(name)
        measured = {titles[m]: both[0][k][k] / max(1, sum(both[0][k])) for m, both in confusions.items()}
        found.append(Comparison(f"recall of {name}s at shear 23 %, angle 60°", str(recall), measured))
    heart, spade = list(classes).index("heart"), list(classes).index("spade")
    taken = {titles[m]: both[0][heart][spade] / max(1, sum(both[0][heart])) for m, both in confusions.items()}
    found.append(Comparison("share of hearts taken for spades at 23 %, 60°", "0.38", taken))
    for sigma, published in PUBLISHED_NOISE.items():
        if sigma in sizes.noise:
            i = sizes.noise.index(sigma)
            at = {titles[m]: curve[i] for m, curve in noise.items()}
            found.append(Comparison(f"accuracy under noise of standard deviation {sigma:g}", str(published), at))
    for density, published in PUBLISHED_CONTAMINATION.items():
        if density in sizes.densities and 1.0 in sizes.intensities:
            i, j = sizes.intensities.index(1.0), sizes.densities.index(density)
            at = {titles[m]: rows[i][j] for m, rows in contamination.items()}
            what = f"accuracy with {100 * density:g} % of the pixels contaminated, intensity 1"
            found.append(Comparison(what, str(published), at))
    return found


# What is drawn


def _columns(count: int) -> int:
    """Panels side by side: the autoencoders and the baselines have a row each."""
    return min(5 if count > 8 else 4, count)


def _width(count: int) -> float:
    """Width of so many panels in inches: titles must fit above each."""
    return max(draw.WIDTH, 1.8 * _columns(count))


def _panels(figure: Figure, count: int) -> list[Any]:
    columns = _columns(count)
    panels = figure.subplots(-(-count // columns), columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[count:]:
        axes.set_axis_off()
    for axes in panels.flat[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
    return list(panels.flat[:count])


def _map_figure(angles: Sequence[float], shears: Sequence[float], maps: dict[str, list[_Accuracies]]) -> Figure:
    percent = [SHEAR_PERCENT_PER_DEG * shear for shear in shears]
    with draw.print_style():
        figure = draw.figure_of(1.9 * -(-len(maps) // _columns(len(maps))) + 0.4, width=_width(len(maps)))
        panels = _panels(figure, len(maps))
        shown = None
        for i, (axes, (method, rows)) in enumerate(zip(panels, maps.items(), strict=True)):
            shown = draw.heat_map(axes, np.array(rows), angles, percent, ticks=((0, 60, 120, 180), (0, 15, 30, 45)))
            axes.set_title(f"{METHOD_TITLES[method]}\nmean {np.mean(rows):.3f}", loc="left")
            draw.letter(axes, _LETTERS[i])
            axes.plot(
                np.interp(TRAINED_WITHIN_DEG, angles, range(len(angles))),
                np.interp(15 * SHEAR_PERCENT_PER_DEG, percent, range(len(percent))),
                marker="X",
                color="white",
                markeredgecolor="black",
                markersize=7,
                markeredgewidth=0.8,
            )
        if shown is not None:
            figure.colorbar(shown, ax=panels, label="accuracy (0.25: chance)", extend="min", aspect=30, pad=0.01)
        published = f"published mean {_PUBLISHED_MEAN}"
        figure.supxlabel(f"rotation: uniform within ± this angle (°);  × training;  {published}", fontsize=8)
        figure.supylabel("shear: within ± this (%)", fontsize=8)
    return figure


def _confusion_figure(confusions: dict[str, list[Any]], classes: Sequence[str]) -> Figure:
    with draw.print_style():
        count = len(confusions)
        columns = _columns(count)
        blocks = -(-count // columns)
        figure = draw.figure_of(3.9 * blocks, width=_width(count))
        grid = figure.subplots(2 * blocks, columns, squeeze=False)
        for i, (method, both) in enumerate(confusions.items()):
            block, column = divmod(i, columns)
            for row, counts in enumerate(both):
                axes = grid[2 * block + row, column]
                draw.confusion_panel(axes, counts, classes, ylabel=column == 0)
                shear, angle = CONFUSIONS[row]
                setting = f"shear {SHEAR_PERCENT_PER_DEG * shear:.0f} %, angle {angle:g}°"
                axes.set_title(f"{METHOD_TITLES[method]}\n{setting}", loc="left")
                if column == 0:
                    draw.letter(axes, _LETTERS[2 * block + row])
                if row == 0 or i + columns < count:
                    axes.set_xlabel("")
        for axes in grid.flat:
            axes.set_visible(bool(axes.images))
    return figure


def _examples_figure(lab: Lab) -> Figure:
    """Draw the same four cards under growing noise and contamination."""

    def cards(**setting: float) -> npt.NDArray[Any]:
        X, y = cards_test(lab.sizes.n_test, lab.seed, **setting)
        return np.stack([X[np.flatnonzero(y == k)[0]] for k in range(4)])

    noise = [{"noise": sigma} for sigma in (0.1, 0.45, 1.0, 2.5)]
    specks = [{"density": density, "intensity": 1.0} for density in (0.05, 0.1, 0.2, 0.5)]
    with draw.print_style():
        figure = draw.figure_of(3.5)
        left, right = figure.subplots(1, 2)
        for axes, settings, title, names, limits in (
            (
                left,
                noise,
                "Gaussian noise, s.d. (greys from −0.5 to 1.5)",
                [f"{s['noise']:g}" for s in noise],
                (-0.5, 1.5),
            ),
            (
                right,
                specks,
                "contaminated pixels, at intensity 1",
                [f"{100 * s['density']:g} %" for s in specks],
                (0, 1),
            ),
        ):
            picked = np.stack([cards(), *(cards(**setting) for setting in settings)])
            draw.show_tiles(axes, np.clip(picked, *limits), limits=limits)
            draw.row_labels(axes, ["none", *names], picked.shape[2])
            axes.set_title(title, loc="left")
            within = (len(picked) * 50 - 2, 4 * 50 - 2)
            draw.scale_bar(axes, 20, within=within, below=True)
            draw.letter(axes, "ab"[axes is right])
    return figure


def _noise_figure(lab: Lab, noise: dict[str, _Accuracies]) -> Figure:
    xlabel = "standard deviation of the noise (pixels of the clean cards lie in 0 to 1)"
    return _curves_figure(lab.sizes.noise, noise, PUBLISHED_NOISE, xlabel)


def _contamination_curves(
    densities: Sequence[float], intensities: Sequence[float], contamination: dict[str, list[_Accuracies]]
) -> Figure:
    """Draw accuracies at the intensity of which values are published."""
    i = nearest(intensities, 1.0)
    curves = {method: rows[i] for method, rows in contamination.items()}
    published = {100 * density: value for density, value in PUBLISHED_CONTAMINATION.items()}
    xlabel = f"contaminated pixels (%), at intensity {intensities[i]:g}"
    return _curves_figure([100 * density for density in densities], curves, published, xlabel)


def _curves_figure(
    x: Sequence[float], curves: dict[str, _Accuracies], published: dict[float, float], xlabel: str
) -> Figure:
    with draw.print_style():
        figure = draw.figure_of(3.1, width=6.0)
        axes = figure.add_subplot()
        for method, values in curves.items():
            axes.plot(x, values, label=METHOD_TITLES[method], **draw.METHOD_STYLES[method])
        stars: dict[str, Any] = {"markersize": 7, "zorder": 5, "label": "published (ss-rVAE)"}
        axes.plot(list(published), list(published.values()), "k*", **stars)
        draw.mark_chance(axes, left=True)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("accuracy on test cards within ±60°")
        open_axes(axes)
        figure.legend(loc="outside right center", handlelength=3)
    return figure


def _contamination_figure(
    densities: Sequence[float], intensities: Sequence[float], contamination: dict[str, list[_Accuracies]]
) -> Figure:
    percent = [100 * density for density in densities]
    with draw.print_style():
        count = len(contamination)
        figure = draw.figure_of(1.9 * -(-count // _columns(count)) + 0.4, width=_width(count))
        panels = _panels(figure, len(contamination))
        shown = None
        for i, (axes, (method, rows)) in enumerate(zip(panels, contamination.items(), strict=True)):
            shown = draw.heat_map(axes, np.array(rows), percent, intensities)
            axes.set_title(METHOD_TITLES[method], loc="left")
            draw.letter(axes, _LETTERS[i])
        if shown is not None:
            figure.colorbar(shown, ax=panels, label="accuracy (0.25: chance)", extend="min", aspect=30, pad=0.01)
        figure.supxlabel("contaminated pixels (%)", fontsize=8)
        figure.supylabel("intensity of contamination", fontsize=8)
    return figure


STUDY = Study(needs, run, measure)
