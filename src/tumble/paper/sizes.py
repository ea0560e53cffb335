"""How much is drawn, trained and measured: as published, or little enough for a quick look."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from tumble.errors import ConfigError
from tumble.fit.paper import PaperConfig
from tumble.model.config import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FULL", "QUICK", "Sizes"]

#: Shear in per cent, as the paper writes it, per degree of :func:`tumble.datasets.make_cards`.
SHEAR_PERCENT_PER_DEG = 100 / 64
#: Settings of the published method that the estimators take.
_OF_THE_ESTIMATOR = ("max_epochs", "batch_size", "learning_rate", "pixel_fraction", "class_floor", "precision")


def _evenly(stop: float, n: int) -> tuple[float, ...]:
    return tuple(round(stop * i / (n - 1), 6) for i in range(n))


@dataclass(frozen=True)
class Sizes:
    """Sizes of all studies; the defaults are the published ones.

    Parameters
    ----------
    quick : bool
        Whether they are too small for the numbers to mean anything.
    n_labelled, n_unlabelled, n_test : int
        Cards per class.
    angles_deg : tuple of float
        Orientational disorders of figure 3.
    label_counts : tuple of int
        Labelled cards per class of the label study.
    grid_angles_deg, grid_shears_deg : tuple of float
        Cells of the map of figure 4.
    n_cell : int
        Cards per class in a cell of a map.
    noise : tuple of float
        Standard deviations of Gaussian noise; pixels of clean images lie in [0, 1].
    densities, intensities : tuple of float
        Share of contaminated pixels, and their value.
    agglomerates : tuple of int
        Images of 1, 2, 3, 4 particles.
    gold_labels : int
        Labelled images per class of nanoparticles.
    gold_unlabelled, gold_test : int or None
        Most unlabelled and test crops of the micrograph; None is all.
    traversal : int
        Steps along a latent axis.
    film_grid, film_points, film_every : int
        Steps along a latent axis in a film's manifold, cards in its scatter plot, and epochs per frame as published.
    paper, default, crops : dict
        Parameters of the estimators: of the published method, of the default one, and of the default one on crops.
    shown : dict
        Changes of `default` in the fits on cards whose manifold is drawn: pose and decoder take longer than the class.
    degraded : dict
        Changes of `default` in the fit for images that are worse than those at hand.
    sweep : dict
        Changes of `paper` in the many fits of figure 3 and the label study; the model that most figures share is left
        as published.
    trees : dict
        Parameters of the classifiers on pixels, by name.
    """

    quick: bool = False
    n_labelled: int = 200
    n_unlabelled: int = 3000
    n_test: int = 1000
    angles_deg: tuple[float, ...] = (4, 15, 30, 60, 90, 120, 180)
    label_counts: tuple[int, ...] = (5, 20, 60, 200, 600)
    grid_angles_deg: tuple[float, ...] = _evenly(180, 16)
    grid_shears_deg: tuple[float, ...] = _evenly(30, 16)
    n_cell: int = 50
    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.45, 0.63, 0.8, 1.0, 1.26, 1.6, 2.0, 2.5)
    densities: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
    intensities: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5)
    agglomerates: tuple[int, ...] = (304, 93, 49, 31)
    gold_labels: int = 15
    gold_unlabelled: int | None = None
    gold_test: int | None = None
    traversal: int = 7
    film_grid: int = 5
    film_points: int = 800
    film_every: int = 2
    paper: dict[str, Any] = field(default_factory=dict)
    default: dict[str, Any] = field(default_factory=dict)
    crops: dict[str, Any] = field(default_factory=lambda: {"max_epochs": 45})
    shown: dict[str, Any] = field(default_factory=lambda: {"max_epochs": 24})
    degraded: dict[str, Any] = field(default_factory=lambda: {"degradation": 1.0, "encoder_channels": (32, 96)})
    sweep: dict[str, Any] = field(default_factory=lambda: {"pixel_fraction": 0.0625, "class_floor": 1e-4})
    trees: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give all settings by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def with_published(self, published: Mapping[str, Any], swept: Mapping[str, Any]) -> Sizes:
        """Change settings of the published method, and those that only its many fits take.

        Parameters
        ----------
        published, swept : mapping of str to object
            Parameters of the estimators that `method="paper"` has a use for.

        Returns
        -------
        Sizes

        Raises
        ------
        ConfigError
            There is no such setting, or its value is of another type.
        """
        for option, given in (("--published", published), ("--swept", swept)):
            _check_settings(option, given)
        return replace(self, paper={**self.paper, **published}, sweep={**self.sweep, **swept})


def _check_settings(option: str, given: Mapping[str, Any]) -> None:
    usual = {name: getattr(PaperConfig(), name) for name in _OF_THE_ESTIMATOR} | {"hidden": ModelConfig.hidden}
    for name, value in given.items():
        if name not in usual:
            raise ConfigError(f"{option} {name}: the published method has no such setting. Known: {', '.join(usual)}.")
        wanted = type(usual[name])
        # A whole number serves as a fraction, but True is no number.
        if not (type(value) is wanted or (wanted is float and type(value) is int)):
            raise ConfigError(f"{option} {name}={value}: must be of the kind of {usual[name]!r}.")


FULL = Sizes()

_SHORT = {"batch_size": 48, "labelled_batch_size": 32}
QUICK = Sizes(
    quick=True,
    n_labelled=24,
    n_unlabelled=48,
    n_test=50,
    angles_deg=(4, 60, 180),
    label_counts=(3, 24),
    grid_angles_deg=_evenly(180, 5),
    grid_shears_deg=_evenly(30, 4),
    n_cell=6,
    noise=(0.0, 0.45, 1.0, 2.5),
    densities=(0.0, 0.1, 0.3),
    intensities=(0.5, 1.0),
    agglomerates=(60, 24, 18, 16),
    gold_labels=6,
    gold_unlabelled=90,
    gold_test=160,
    traversal=5,
    film_grid=4,
    film_points=160,
    film_every=1,
    paper={"max_epochs": 4, "hidden": 32, "batch_size": 32, "learning_rate": 3e-3},
    default={"max_epochs": 4, **_SHORT},
    crops={"max_epochs": 4, **_SHORT},
    shown={},
    degraded={"degradation": 1.0},
    trees={"forest": {"n_estimators": 30}, "boosting": {"max_iter": 4}},
)
