"""Angles that a model without labels finds by itself, against the angles that the cards were drawn at.

`RVAE` is fitted to cards at any angle and place, without labels: to one suit alone, and to the four suits together. It
chooses its own zero (with several suits one for each, for they have no common upright), so angles are compared up to a
constant for each suit:

- ``correlation``: Fisher and Lee's circular correlation of the angles found with those drawn, from -1 to 1. Unlike the
  coefficient of deviations from the mean direction it is defined for angles that are uniform over the circle.
- ``median_error_deg``: after the best constant is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks import data
from benchmarks.common import Record, Row, arguments, parse, with_options
from benchmarks.methods import fit
from tumble import RVAE
from tumble.metrics import angle_error

SUITS = ("heart", "spade")
ALL = "all suits"
_Float = npt.NDArray[np.floating]


def fisher_lee_correlation(a: _Float, b: _Float) -> float:
    """Circular correlation of angles in rad, 1 where they differ by a constant (N. I. Fisher, A. J. Lee, 1983)."""
    # The closed form of the sum over pairs sin(a_i - a_j) sin(b_i - b_j): |mean of exp i(a - b)| against exp i(a + b).
    same, opposite = abs(np.exp(1j * (a - b)).mean()) ** 2, abs(np.exp(1j * (a + b)).mean()) ** 2
    spread = (1 - abs(np.exp(2j * a).mean()) ** 2) * (1 - abs(np.exp(2j * b).mean()) ** 2)
    return float((same - opposite) / np.sqrt(spread)) if spread > 0 else float("nan")


def score(model: RVAE, split: data.Split, suits: Sequence[str]) -> Row:
    """Correlation and median error of the angle, for each suit."""
    found, truth = model.pose(split.X_test).angle_rad, split.truth.polar_angle
    correlation, error = {}, {}
    for suit in suits:
        own = split.y_test == split.classes.index(suit)
        a, b = found[own], truth[own]
        correlation[suit] = fisher_lee_correlation(a, b)
        constant = np.angle(np.exp(1j * (a - b)).mean())
        error[suit] = float(np.degrees(np.median(angle_error(a - constant, b))))
    return {"least_correlation": min(correlation.values()), "correlation": correlation, "median_error_deg": error}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the model without labels for every seed, then print the table."""
    options = parse(arguments("orientation", __doc__), argv)
    record = Record(options.out, options.since)
    sizes = (8, 8) if options.quick else (3000, 1000)
    for seed in range(options.seeds):
        for suit in (*SUITS, ALL):

            def work(seed: int = seed, suit: str = suit) -> Row:
                split = data.cards_without_labels(*sizes, seed, None if suit == ALL else suit)
                short = {"max_epochs": 1} if options.quick else {}
                model, seconds = fit(RVAE(**{**options.settings, **short, "random_state": seed}), split)
                return {**score(model, split, SUITS if suit == ALL else [suit]), "seconds": seconds}

            record.measure(with_options({"method": "RVAE", "fitted_to": suit, "seed": seed}, options), work)
    print("\n" + record.table(["fitted_to", "method"], "least_correlation"))


if __name__ == "__main__":
    main()
