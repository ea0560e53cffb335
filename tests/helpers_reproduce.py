"""Studies of the paper that are small enough for a test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tumble.paper.data import Cards
from tumble.paper.lab import Lab
from tumble.paper.names import METHOD_TITLES
from tumble.paper.sizes import QUICK

if TYPE_CHECKING:
    from pathlib import Path

_DEFAULT = {"max_epochs": 1, "batch_size": 16, "labelled_batch_size": 8, "encoder_channels": [8], "hidden": 16}
TINY = replace(
    QUICK,
    n_labelled=4,
    n_unlabelled=8,
    n_test=6,
    angles_deg=(60, 180),
    label_counts=(2, 4),
    grid_angles_deg=(0.0, 60.0),
    grid_shears_deg=(0.0, 30.0),
    n_cell=2,
    noise=(0.0, 1.0),
    densities=(0.0, 0.1),
    intensities=(0.5, 1.0),
    agglomerates=(8, 7, 7, 7),
    gold_labels=2,
    gold_unlabelled=60,
    gold_test=40,
    traversal=3,
    film_grid=2,
    film_points=16,
    paper={"max_epochs": 2, "hidden": 8, "batch_size": 16},
    default=_DEFAULT,
    crops=_DEFAULT,
    trees={"forest": {"n_estimators": 4}, "boosting": {"max_iter": 1}},
)
CARDS = Cards(60.0, 4, 8, 6, 0)


def lab(folder: Path, **changes: Any) -> Lab:
    """Make a lab with the tiny sizes, all methods and seed 0, or what is given instead."""
    given: dict[str, Any] = {"seed": 0, "methods": tuple(METHOD_TITLES), "device": "cpu", **changes}
    return Lab(folder, given.pop("sizes", TINY), **given)
