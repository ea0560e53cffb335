"""What a notebook shows of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tumble.colours import class_colours
from tumble.notebook import explorer, fit_summary, grey_levels

if TYPE_CHECKING:
    from tumble.estimators.base import ImageModel
    from tumble.notebook import HtmlView

__all__ = ["explore", "fit_html"]

#: A summary stays short: of a hundred classes the first twelve are drawn.
_MAX_DRAWN = 12


def explore(estimator: ImageModel, *, n: int, extent: float) -> HtmlView:
    """Make the view of :meth:`tumble.estimators.base.ImageModel.explore`."""
    drawn = estimator.traverse(n=n, extent=extent)
    if drawn.ndim == 6:
        drawn = drawn.mean(axis=3)  # several channels: as grey levels
    config, names = estimator.model_.config, _class_names(estimator)
    return explorer(
        grey_levels(drawn),
        names,
        axis=np.linspace(-extent, extent, n).tolist(),
        invariances=config.invariances,
        colours=class_colours(names),
        latent_dim=config.latent_dim,
    )


def fit_html(estimator: ImageModel) -> str:
    """Say in HTML what came of a fit: facts, the curve of the loss, and the mean image of each class."""
    config, names = estimator.model_.config, _class_names(estimator)
    shape = " x ".join(str(size) for size in (config.image_shape if config.image_shape[0] > 1 else config.size))
    facts = {
        "images": f"{shape} px",
        "classes": str(len(names)) if hasattr(estimator, "classes_") else "none",
        "latent factors": str(config.latent_dim),
        "pose": ", ".join(config.invariances) or "fixed",
        "trained": f"{estimator.n_iter_} epochs in {estimator.fit_seconds_:.0f} s ({estimator.stop_reason_})",
        "weights": f"{sum(weight.numel() for weight in estimator.model_.parameters()):,}",
    }
    means = estimator.traverse(n=1, extent=0.0)[:, 0, 0]
    means = grey_levels(means if means.ndim == 3 else means.mean(axis=1))
    curve = next((estimator.history_[name] for name in ("loss", *estimator.history_) if name in estimator.history_), [])
    colours = class_colours(names)
    drawn = [(name, image, colours[name]) for name, image in zip(names, means, strict=True)]
    return fit_summary(facts, curve=curve, templates=drawn[:_MAX_DRAWN])


def _class_names(estimator: ImageModel) -> list[str]:
    classes = getattr(estimator, "classes_", None)
    return ["all objects"] if classes is None else [str(name) for name in classes]
