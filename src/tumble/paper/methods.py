"""The methods that are compared, and one fit of one of them: what it takes, and the estimator that does it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tumble.baselines import (
    PixelBoostingClassifier,
    PixelForestClassifier,
    PixelSpreadingClassifier,
    PixelTreeClassifier,
)
from tumble.errors import ConfigError
from tumble.estimators import RVAE, SSRVAEClassifier
from tumble.fit.config import TARGET_STEPS, TARGET_STEPS_UNLABELLED, FitConfig
from tumble.fit.paper import PaperConfig
from tumble.paper.data import Cards, Gold
from tumble.paper.names import METHOD_TITLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tumble.paper.data import Source, Split
    from tumble.paper.sizes import Sizes

__all__ = [
    "AUTOENCODERS",
    "BASELINES",
    "DEGRADED",
    "INVARIANT",
    "SAVINGS",
    "Fit",
    "chosen_methods",
    "estimator",
    "parameters",
    "steps",
]

AUTOENCODERS = ("paper-ss-rvae", "paper-ss-vae", "ss-rvae", "ss-vae")
#: Those whose latent space is free of the angle.
INVARIANT = ("paper-ss-rvae", "ss-rvae")
#: The default method, trained for images that are worse than those at hand; where robustness is measured.
DEGRADED = "ss-rvae-degraded"
_BASELINES: dict[str, type[Any]] = {
    "tree": PixelTreeClassifier,
    "forest": PixelForestClassifier,
    "boosting": PixelBoostingClassifier,
    "spreading": PixelSpreadingClassifier,
}
BASELINES = tuple(_BASELINES)

#: Settings of the published method that make the likelihood of its coordinate decoder cost less.
SAVINGS = ("pixel_fraction", "class_floor", "precision")
#: Those of the sum over classes: without labels there is none.
_OF_THE_CLASSES = ("class_floor",)
#: Crops are centred and of one magnification, and labelled particles lie as they fell.
_NANOPARTICLES = {"scale_jitter": 0.05, "shear_jitter": 0.05, "translation_prior": 0.03}


@dataclass(frozen=True)
class Fit:
    """One fit of one method.

    Parameters
    ----------
    method : str
        A key of :data:`tumble.paper.names.METHOD_TITLES`.
    source : Source
        What is fitted.
    supervised : bool
        Whether labels are used; without them an ss-rVAE is an rVAE, and an ss-VAE a VAE.
    filmed : bool
        Whether the manifold and the latent distribution are kept as the fit goes on.
    swept : bool
        Whether it is one of many of its kind, which may cost less, see :attr:`tumble.paper.sizes.Sizes.sweep`.
    """

    method: str
    source: Source
    supervised: bool = True
    filmed: bool = False
    swept: bool = False

    @property
    def title(self) -> str:
        """What figures call the method."""
        title = METHOD_TITLES[self.method]
        return title if self.supervised else title.replace("ss-", "")

    def case(self, sizes: Sizes) -> dict[str, Any]:
        """Give everything that the outcome depends on, but for the version."""
        kind = type(self.source).__name__.lower()
        found = {"method": self.method, "data": {"kind": kind, **asdict(self.source)}, "supervised": self.supervised}
        found["parameters"] = parameters(self, sizes)
        if self.filmed:
            found["film"] = {"grid": sizes.film_grid, "points": sizes.film_points, "every": self.film_every(sizes)}
        return found

    def film_every(self, sizes: Sizes) -> int:
        """Epochs per frame: the default method has few epochs, all of them are kept."""
        return sizes.film_every if self.method.startswith("paper") else 1


def parameters(fit: Fit, sizes: Sizes) -> dict[str, Any]:
    """Give the parameters of the estimator, but for device and seed.

    Parameters
    ----------
    fit : Fit
        Which fit.
    sizes : Sizes
        Where lengths of runs come from.

    Returns
    -------
    dict
    """
    if fit.method in BASELINES:
        return dict(sizes.trees.get(fit.method, {}))
    invariances = ["rotation", "translation"] if fit.method in (*INVARIANT, DEGRADED) else []
    if fit.method.startswith("paper"):
        settings = {**sizes.paper, **(sizes.sweep if fit.swept else {})}
        if not invariances:  # its decoder draws whole images at once: there is little to save
            settings = _without(settings, SAVINGS)
        if not fit.supervised:
            settings = _without(settings, _OF_THE_CLASSES)
        return {"method": "paper", "invariances": invariances, **settings}
    chosen = {"invariances": invariances, **(sizes.crops if isinstance(fit.source, Gold) else sizes.default)}
    if isinstance(fit.source, Cards) and not fit.swept:
        chosen |= sizes.shown
    if fit.method == DEGRADED:
        chosen |= sizes.degraded
    if not isinstance(fit.source, Cards):
        chosen |= {"labelled_orientation": "arbitrary", **_NANOPARTICLES}
    if not fit.supervised:
        chosen = {name: value for name, value in chosen.items() if not name.startswith("labelled_")}
    return chosen


def _without(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def estimator(fit: Fit, sizes: Sizes, *, device: str = "auto") -> Any:
    """Make the estimator of a fit.

    Parameters
    ----------
    fit : Fit
        Which fit.
    sizes : Sizes
        Where lengths of runs come from.
    device : str, default="auto"
        Where networks run.

    Returns
    -------
    SSRVAEClassifier, RVAE or a classifier on pixels
        Not fitted yet.
    """
    chosen = parameters(fit, sizes)
    if fit.method in BASELINES:
        return _BASELINES[fit.method](**chosen, random_state=fit.source.seed)
    chosen["invariances"] = tuple(chosen["invariances"])
    kind = SSRVAEClassifier if fit.supervised else RVAE
    # No study asks what is novel.
    return kind(**chosen, novelty_score=False, device=device, random_state=fit.source.seed)


def steps(fit: Fit, sizes: Sizes, split: Split) -> int:
    """Count the optimiser steps of a fit; 0 for classifiers on pixels."""
    if fit.method in BASELINES:
        return 0
    chosen = parameters(fit, sizes)
    if fit.method.startswith("paper"):
        epochs = chosen.get("max_epochs", PaperConfig().max_epochs)
        free = int((split.y < 0).sum()) if fit.supervised else len(split.y)
        return epochs * math.ceil(free / chosen.get("batch_size", PaperConfig().batch_size))
    if "max_epochs" not in chosen:
        return TARGET_STEPS if fit.supervised else TARGET_STEPS_UNLABELLED
    return chosen["max_epochs"] * math.ceil(len(split.y) / chosen.get("batch_size", FitConfig().batch_size))


def chosen_methods(wanted: Sequence[str], possible: Sequence[str], study: str) -> tuple[str, ...]:
    """Keep the methods that a study has a use for, in its order.

    Raises
    ------
    ConfigError
        If none is left.
    """
    kept = tuple(method for method in possible if method in wanted)
    if not kept:
        raise ConfigError(
            f"--methods {' '.join(wanted)}: {study} compares others. Give at least one of {', '.join(possible)}."
        )
    return kept
