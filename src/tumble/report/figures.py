"""The report's figures, for use in a notebook as well: arrays in, :class:`matplotlib.figure.Figure` out."""

from tumble.report.figures_images import Region, busiest_region, manifold_figure, micrograph_figure
from tumble.report.figures_stats import (
    confusion_figure,
    history_figure,
    latent_figure,
    recall_figure,
    size_figure,
)
from tumble.report.style import class_colours

__all__ = [
    "Region",
    "busiest_region",
    "class_colours",
    "confusion_figure",
    "history_figure",
    "latent_figure",
    "manifold_figure",
    "micrograph_figure",
    "recall_figure",
    "size_figure",
]
