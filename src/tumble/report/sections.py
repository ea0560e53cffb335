"""Choose the figures of a report and write their captions: what is shown, in which units, of how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tumble.report.encode import figure_uri
from tumble.report.figures_images import busiest_region, manifold_figure, micrograph_figure
from tumble.report.figures_stats import (
    confusion_figure,
    history_figure,
    latent_figure,
    recall_figure,
    size_figure,
)
from tumble.report.tables import curve_names, missing_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from matplotlib.figure import Figure

    from tumble.report.data import MicrographView, ReportData

__all__ = ["Plate", "plates"]

ZOOM = 3
#: Beyond these many outline points or pixels a JPEG is smaller, and opens faster, than an exact SVG.
MAX_SVG_POINTS = 60_000
MAX_SVG_PIXELS = 1_000_000


@dataclass(frozen=True)
class Plate:
    """A figure of the page.

    Parameters
    ----------
    section : str
        Where it belongs: "micrographs", "sizes", "manifolds", "latent", "confusion" or "training".
    uri : str
        The image as a ``data:`` URI.
    width_px : int
        Width at which its text has the size meant for it.
    alt : str
        What it is, for those who do not see it.
    caption : str
        What is shown, units and number of particles.
    """

    section: str
    uri: str
    width_px: int
    alt: str
    caption: str


def plates(data: ReportData, colours: Mapping[str, str]) -> Iterator[Plate]:
    """Draw all figures that `data` has something to show in.

    Parameters
    ----------
    data : ReportData
        What the report shows.
    colours : mapping of str to str
        Class to colour.

    Yields
    ------
    Plate
        In the order of the page.
    """
    for view in data.views:
        yield from _micrograph(data, view, colours)
    yield from _sizes(data, colours)
    yield from _manifolds(data, colours)
    yield from _latent(data, colours)
    yield from _confusion(data)
    yield from _training(data)


def _plate(section: str, figure: Figure, alt: str, caption: str, kind: Literal["svg", "png", "jpg"] = "svg") -> Plate:
    # Browsers count 96 px to the inch.
    return Plate(
        section,
        figure_uri(figure, kind=kind, dpi=110 if kind == "png" else 144),
        round(96 * figure.get_figwidth()),
        alt,
        caption,
    )


def _colouring(data: ReportData) -> str:
    """Say what the colours of a figure mean, for its caption."""
    if data.has_predictions:
        return ", colour by predicted class"
    return ", colour by label" if data.classes else ""


def _optional_names(shown: pd.Series) -> list[str | None]:
    return [name if isinstance(name, str) else None for name in shown]


def _micrograph(data: ReportData, view: MicrographView, colours: Mapping[str, str]) -> Iterator[Plate]:
    shown = data.shown_classes
    classes = dict(zip((int(key) for key in shown.index), _optional_names(shown), strict=True))
    border = {key for key, touches in zip(classes, data.touches_border, strict=True) if touches}
    height, width = (size / view.preview_scale for size in view.preview.shape[:2])
    region = busiest_region(view.outlines, classes, (height, width), zoom=ZOOM)
    points = sum(len(outline) for outline in view.outlines.values())
    vector = points <= MAX_SVG_POINTS and view.preview.size <= MAX_SVG_PIXELS
    overview, enlarged = _micrograph_captions(data, view)
    for part, mark, caption in ((None, region, overview), (region, None, enlarged)):
        figure = micrograph_figure(
            view.preview,
            view.outlines,
            classes,
            colours=colours,
            border=border,
            pixel_size_nm=view.pixel_size_nm,
            image_scale=view.preview_scale,
            region=part,
            mark=mark,
            missing=missing_name(data),
        )
        alt = f"Micrograph {view.source} with outlined particles"
        yield _plate("micrographs", figure, alt, caption, "svg" if vector else "jpg")


def _micrograph_captions(data: ReportData, view: MicrographView) -> tuple[str, str]:
    height, width = (size / view.preview_scale for size in view.preview.shape[:2])
    pixel = f"Pixel size {view.pixel_size_nm:.4g} nm." if view.pixel_size_nm else "Pixel size unknown: no scale bar."
    reduced = f" Drawn at {view.preview_scale:.2g} of its resolution." if view.preview_scale < 1 else ""
    overview = (
        f"{view.source}: {len(view.outlines)} outlined particles{_colouring(data)}; dashed outlines touch "
        f"the edge of the image. {width:.0f} × {height:.0f} px. {pixel}{reduced} "
        "The white frame is enlarged below."
    )
    enlarged = f"The framed part of {view.source}, enlarged {ZOOM} times; the legend counts the particles in it."
    return overview, enlarged


def _sizes(data: ReportData, colours: Mapping[str, str]) -> Iterator[Plate]:
    whole = ~data.touches_border.to_numpy(dtype=bool)
    known_nm = np.isfinite(data.diameters("nm").to_numpy()[whole])
    unit = "nm" if len(known_nm) and known_nm.all() else "px"
    sizes = data.diameters(unit).to_numpy()[whole]
    n = int(np.isfinite(sizes).sum())
    if not n:
        return
    names = _optional_names(data.shown_classes.loc[whole])
    figure = size_figure(sizes, names, colours=colours, unit=unit, missing=missing_name(data))
    caption = (
        f"Equivalent diameter (of the circle of equal area) in "
        f"{unit}{_colouring(data)}, all in the same bins; n = {n} particles "
        f"that lie wholly inside their micrograph. {int((~whole).sum())} cut off by an edge are left out."
    )
    yield _plate("sizes", figure, "Histograms of particle size per class", caption)


def _manifolds(data: ReportData, colours: Mapping[str, str]) -> Iterator[Plate]:
    if data.record is None or data.record.manifold is None:
        return
    manifold = data.record.manifold
    figure = manifold_figure(manifold, data.record.classes, axis=data.record.manifold_axis, colours=colours)
    latent = data.latent
    further = f"; the other {latent.shape[1] - 2} at the mean" if latent is not None and latent.shape[1] > 2 else ""
    caption = (
        f"Images decoded for each class over a grid of {manifold.shape[1]} × {manifold.shape[2]} values of "
        f"the latent coordinates z1 and z2, centred on the mean of the class's particles and in their standard "
        f"deviations{further}; in the model's canonical orientation and position."
    )
    yield _plate("manifolds", figure, "Decoded images per class", caption, "png")


def _latent(data: ReportData, colours: Mapping[str, str]) -> Iterator[Plate]:
    latent = data.latent
    if latent is None or not data.has_predictions or not np.isfinite(latent).all(axis=1).any():
        return
    names = _optional_names(data.shown_classes)
    wrong = data.test_errors.to_numpy()
    figure = latent_figure(latent, names, colours=colours, wrong=wrong)
    n = int(np.isfinite(latent).all(axis=1).sum())
    plane = {1: "Latent coordinate z1, one row per class", 2: "Latent coordinates z1 and z2"}.get(
        latent.shape[1], f"The first two of {latent.shape[1]} latent coordinates"
    )
    rings = " Rings mark particles of the test region whose label disagrees." if wrong.any() else ""
    caption = (
        f"{plane} (posterior means, in standard deviations of the prior) of n = {n} particles, colour by "
        f"predicted class. The coordinates describe variation within a class, so classes may overlap.{rings}"
    )
    yield _plate("latent", figure, "Scatter of latent coordinates by predicted class", caption)


def _confusion(data: ReportData) -> Iterator[Plate]:
    evaluation = data.evaluation
    if evaluation is None or data.record is None:
        return
    classes = [str(name) for name in evaluation["classes"]]
    confusion = np.asarray(evaluation["confusion"], dtype=int)
    yield _plate(
        "confusion",
        confusion_figure(confusion, classes),
        "Confusion matrix as counts and row percentages",
        f"Confusion matrix of {data.record.name} on n = {int(confusion.sum())} labelled particles of the "
        f"test region ({evaluation['region']}), which gave no training labels. "
        "Rows: label; columns: prediction. Shade: share of the row.",
    )
    recalls = {data.record.name: evaluation["recall_per_class"]}
    recalls |= {str(name): score["recall_per_class"] for name, score in evaluation.get("baselines", {}).items()}
    support = dict(zip(classes, (int(total) for total in confusion.sum(axis=1)), strict=True))
    yield _plate(
        "confusion",
        recall_figure(recalls, classes, support=support),
        "Recall per class of the model and its baselines",
        "Recall (share of the particles with a label that are predicted to have it) per class, of the model "
        "and of each baseline on the same particles; n under each class.",
    )


def _training(data: ReportData) -> Iterator[Plate]:
    if data.record is None or not (names := curve_names(data.record.history)):
        return
    epochs = max(len(data.record.history[name]) for name in names)
    caption = (
        f"Training curves of {data.record.name} as the fit recorded them, one value per epoch; {epochs} "
        f"epochs, {len(data.record.labelled_particle_ids)} labelled particles, "
        f"{data.record.fit_seconds:.0f} s."
    )
    yield _plate("training", history_figure(data.record.history), "Training curves per epoch", caption)
