"""What each addition of the default method is worth: every one switched off alone, all else as it is.

Cards with one upright label per class, as in `benchmarks.cards`, and with ``--data FOLDER`` the turned and shifted
MNIST digits with ten labels per class, as in `benchmarks.mnist` but for 24 epochs. Seeds are those of tuning, so that
what the table is used for (keep or drop) leaves the test seeds of the other benchmarks untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks import mnist as mnist_benchmark
from benchmarks.cards import pose_errors
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import Fitted, compare

#: What is switched off -> the parameters that do so.
WITHOUT: dict[str, Row] = {
    "nothing (the default)": {},
    "consistency of the class (pseudo-labels)": {"pseudo_label_weight": 0.0},
    "jitter of scale and shear": {"scale_jitter": 0.0, "shear_jitter": 0.0},
    "jitter of the intensity": {"intensity_jitter": 0.0},
    "convolutions (dense networks instead)": {"encoder": "dense"},
    "generative part": {"generative_weight": 0.0},
    "consistency and supervision of the pose": {"pose_weight": 0.0},
    "supervision of the pose by upright labels": {"labelled_orientation": "arbitrary"},
    "modes of the angle (one Normal instead)": {"angle_posterior": "normal"},
    "weight decay": {"weight_decay": 0.0},
    "running mean of the weights": {"ema_decay": 0.0},
}
#: Digits are told apart by the classifier alone: what serves the pose is judged on the cards.
_OF_THE_POSE = (
    "consistency and supervision of the pose",
    "supervision of the pose by upright labels",
    "modes of the angle (one Normal instead)",
)
#: Seeds of the data below those of the tests: `benchmarks.data` adds them to bases above 900,000.
TUNING = -900_000


def score(model: Fitted, split: data.Split) -> Row:
    """Accuracy, and the errors of the pose where the truth is known."""
    row: Row = {"accuracy": float(np.mean(model.predict(split.X_test) == split.y_test))}
    if "polar_angle" not in split.truth:
        return row
    errors = pose_errors(model, split)
    oriented = [errors["angle_error_deg"][suit] for suit in ("spade", "heart")]
    return {**row, "angle_deg": float(np.mean(oriented)), "shift_px": errors["shift_error_px"]}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every variant for every seed, then print the tables."""
    parser = arguments("ablation", __doc__, seeds=3)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of the MNIST idx files")
    parser.add_argument("--without", nargs="+", choices=tuple(WITHOUT), default=list(WITHOUT), metavar="NAME")
    options = parse(parser, argv)
    record = Record(options.out, options.since)
    cards_sizes = (1, 8, 8) if options.quick else (1, 3000, 1000)
    digits_sizes = {"n_unlabelled": 20, "n_test": 20} if options.quick else {}
    for seed in range(options.seeds):
        for name in options.without:
            case: Row = {"without": name, "seed": seed}

            def cards(seed: int = seed) -> data.Split:
                return data.cards(*cards_sizes, TUNING + seed)

            def digits(seed: int = seed) -> data.Split:
                return data.mnist(options.data, 10, TUNING + seed, **digits_sizes)

            compare(
                record, options, {**case, "data": "cards"}, cards, score, settings=WITHOUT[name], methods=["tumble"]
            )
            if options.data is not None and name not in _OF_THE_POSE:
                settings = {**mnist_benchmark.SETTINGS, "max_epochs": 24, **WITHOUT[name]}
                compare(
                    record, options, {**case, "data": "mnist"}, digits, score, settings=settings, methods=["tumble"]
                )
    for value in ("accuracy", "angle_deg", "shift_px"):
        print("\n" + record.table(["data", "without"], value, less_is_better=value != "accuracy"))


if __name__ == "__main__":
    main()
