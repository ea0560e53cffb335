"""What the latent factors and the pose found on the cards, against the truth they were made with.

Data as in `benchmarks.cards` with 5 labels per class; fitted for 24 epochs, because the shear is learnt long after the
classes are. For each suit, over the test cards:

- ``scale``, ``shear``: greatest absolute Spearman correlation of a latent factor with the true factor. Of the two
  shears it is their sum: their difference is a rotation, which the pose takes.
- ``angle``: greatest circular-linear correlation of a latent factor with the true angle, from 0 (the factors know
  nothing of the angle, as they should) to 1; for the diamond modulo its half turn.
- median error of the angle against the polar angle, modulo the symmetry, and of the shift.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks import data
from benchmarks.cards import pose_errors
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import Fitted, compare

SETTINGS: Row = {"max_epochs": 24}
_Float = npt.NDArray[np.floating]


def circular_linear_correlation(values: _Float, angle: _Float) -> float:
    """Multiple correlation of numbers with the cosine and sine of angles (K. V. Mardia, 1976), from 0 to 1."""
    design = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    total = np.square(values - values.mean()).sum()
    return float(np.sqrt(np.square(fitted - values.mean()).sum() / total)) if total > 0 else 0.0


def _rank_correlation(values: _Float, factor: _Float) -> float:
    # A latent factor that does not vary follows nothing.
    return abs(float(spearmanr(values, factor).statistic)) if np.ptp(values) > 0 else 0.0


def score(model: Fitted, split: data.Split) -> Row:
    """Correlations of the latent factors for each suit, and the errors of the pose."""
    z, truth = model.transform(split.X_test), split.truth
    found: Row = {"scale": {}, "shear": {}, "angle": {}}
    for k, suit in enumerate(split.classes):
        own = split.y_test == k
        factors, turns = z[own].T.astype(float), 2 if suit == "diamond" else 1
        angle = turns * truth.polar_angle[own]
        found["scale"][suit] = max(_rank_correlation(f, truth.scale[own]) for f in factors)
        found["shear"][suit] = max(_rank_correlation(f, truth.shear[own].sum(axis=1)) for f in factors)
        found["angle"][suit] = max(circular_linear_correlation(f, angle) for f in factors)
    means = {f"mean_{name}": float(np.mean(list(values.values()))) for name, values in found.items()}
    accuracy = float(np.mean(model.predict(split.X_test) == split.y_test))
    return {"accuracy": accuracy, **means, **found, **pose_errors(model, split)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every method for every seed, then print the tables."""
    parser = arguments("factors", __doc__, methods=("tumble", "paper"), default_methods=("tumble",))
    options = parse(parser, argv)
    record = Record(options.out, options.since, settings=SETTINGS)
    sizes = (2, 8, 8) if options.quick else (5, 3000, 1000)
    for seed in range(options.seeds):
        case = {"labels_per_class": sizes[0], "seed": seed}
        compare(record, options, case, lambda seed=seed: data.cards(*sizes, seed), score, settings=SETTINGS)
    for value in ("mean_scale", "mean_shear", "mean_angle"):
        print("\n" + record.table(["method"], value, less_is_better=value == "mean_angle"))


if __name__ == "__main__":
    main()
