"""What the latent factors and the pose found on the cards, against the truth they were made with.

Data as in `benchmarks.cards` with 5 or more labels per class; fitted for 48 epochs, because the shear is learnt long
after the classes are. For each suit, over the test cards:

- ``scale``, ``shear``: greatest absolute Spearman correlation of a latent factor with the scale, and of another with
  the shear. Of the two shears it is their sum: their difference is a rotation, which the pose takes.
- ``least_unturned_scale``, ``least_unturned_shear``: the least of these correlations over the suits, along the axes as
  the training left them (see `tumble.fit.factors`).
- ``angle``: greatest circular-linear correlation of a latent factor with the true angle, from 0 (the factors know
  nothing of the angle, as they should) to 1; for the diamond modulo its half turn.
- ``angle_error_deg``, ``shift_error_px``: median error of the angle against the polar angle, modulo the symmetry, and
  of the shift.
- ``angle_spread_deg``: the same once one angle per suit is taken off. Labelled cards show the model what is upright,
  and by U(-5, 5) degrees and the rotation in their shear they are upright only to 6.8 degrees (standard deviation):
  with 5 of a suit no method knows the upright better than to 3.0, which is in the error and not in the spread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import circmean, spearmanr

from benchmarks import data
from benchmarks.cards import pose_errors
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import Fitted, compare
from tumble.metrics import angle_error

SETTINGS: Row = {"max_epochs": 48}
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


def correlations(z: _Float, split: data.Split) -> Row:
    """Correlations of latent factors (n, latent_dim) with scale, shear and angle, for each suit."""
    truth = split.truth
    found: Row = {"scale": {}, "shear": {}, "angle": {}}
    for k, suit in enumerate(split.classes):
        own = split.y_test == k
        factors, turns = z[own].T.astype(float), 2 if suit == "diamond" else 1
        angle = turns * truth.polar_angle[own]
        with_scale = [_rank_correlation(f, truth.scale[own]) for f in factors]
        with_shear = [_rank_correlation(f, truth.shear[own].sum(axis=1)) for f in factors]
        followed = int(np.argmax(with_scale))
        found["scale"][suit] = with_scale.pop(followed)
        with_shear.pop(followed)
        found["shear"][suit] = max(with_shear, default=0.0)
        found["angle"][suit] = max(circular_linear_correlation(f, angle) for f in factors)
    return found


def score(model: Fitted, split: data.Split) -> Row:
    """Correlations of the latent factors for each suit, and the errors of the pose."""
    z = model.transform(split.X_test)
    found = correlations(z, split)
    means = {f"mean_{name}": float(np.mean(list(values.values()))) for name, values in found.items()}
    # The axes as the training left them; a rotation is undone by its transpose.
    turn = model.model_.turn
    before = found if turn is None else correlations(z @ turn.cpu().numpy().T, split)
    unturned = {f"least_unturned_{name}": min(before[name].values()) for name in ("scale", "shear")}
    accuracy = float(np.mean(model.predict(split.X_test) == split.y_test))
    spread = {"angle_spread_deg": angle_spreads(model, split)}
    return {"accuracy": accuracy, **means, **found, **unturned, **pose_errors(model, split), **spread}


def angle_spreads(model: Fitted, split: data.Split) -> Row:
    """Median distance of the angle's error from the mean error of its suit, in degrees, modulo the symmetry."""
    off, spreads = model.pose(split.X_test).angle_rad - split.truth.polar_angle, {}
    for k, suit in enumerate(split.classes):
        own, turns = off[split.y_test == k], 2 if suit == "diamond" else 1
        mean = circmean(own, high=2 * np.pi / turns)
        spreads[suit] = float(np.degrees(np.median(angle_error(mean, own, symmetry=turns))))
    return spreads


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every method for every seed, then print the tables."""
    parser = arguments("factors", __doc__, methods=("tumble", "paper"), default_methods=("tumble",))
    parser.add_argument("--labels", type=int, nargs="+", default=[5], help="labels per class (default: 5)")
    options = parse(parser, argv)
    record = Record(options.out, options.since, settings=SETTINGS)
    n_unlabelled, n_test = (8, 8) if options.quick else (3000, 1000)
    for n_labels in options.labels:
        for seed in range(options.seeds):
            case = {"labels_per_class": n_labels, "epochs": SETTINGS["max_epochs"], "seed": seed}

            def split(n_labels: int = n_labels, seed: int = seed) -> data.Split:
                return data.cards(n_labels, n_unlabelled, n_test, seed)

            compare(record, options, case, split, score, settings=SETTINGS)
    for value in ("mean_scale", "mean_shear", "mean_angle"):
        print("\n" + record.table(["method", "labels_per_class"], value, less_is_better=value == "mean_angle"))


if __name__ == "__main__":
    main()
