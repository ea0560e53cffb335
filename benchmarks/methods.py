"""The methods that the benchmarks compare, each by a short name, and how one of them is measured."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import Record, Row, with_options
from benchmarks.competitors import CNNClassifier, FixMatchClassifier, PyrovedClassifier
from benchmarks.data import Split
from tumble import SSRVAEClassifier
from tumble.baselines import (
    PixelBoostingClassifier,
    PixelForestClassifier,
    PixelSpreadingClassifier,
    PixelTreeClassifier,
)

#: Short name -> the name in the results, the estimator, and what it is made with.
METHODS: dict[str, tuple[str, type[Any], Row]] = {
    "tumble": ("tumble", SSRVAEClassifier, {}),
    "paper": ("tumble, method of the paper", SSRVAEClassifier, {"method": "paper"}),
    "cnn": ("CNN with augmentation", CNNClassifier, {}),
    "fixmatch": ("FixMatch, same network", FixMatchClassifier, {}),
    "cnn-six": ("CNN of six convolutions", CNNClassifier, {"network": "six"}),
    "fixmatch-six": (
        "FixMatch, six convolutions",
        FixMatchClassifier,
        {"network": "six", "threshold": 0.8, "ramp": 0.3},
    ),
    "cnn-six-strong": (
        "CNN of six convolutions, stronger augmentation",
        CNNClassifier,
        {
            "network": "six",
            "n_steps": 1500,
            "intensity_jitter": 0.4,
            "degradation": 0.25,
            "scale_jitter": 0.25,
            "label_smoothing": 0.0,
        },
    ),
    "cnn-six-plain": (
        "CNN of six convolutions, no mirror images",
        CNNClassifier,
        {"network": "six", "mirror": False, "n_steps": 3000},
    ),
    "pyroved": ("pyroVED 0.3.0", PyrovedClassifier, {}),
    "forest": ("random forest on pixels", PixelForestClassifier, {}),
    "boosting": ("gradient boosting on pixels", PixelBoostingClassifier, {}),
    "tree": ("decision tree on pixels", PixelTreeClassifier, {}),
    "spreading": ("label spreading on pixels", PixelSpreadingClassifier, {}),
}

#: Those that are measured unless --methods says otherwise. pyroVED takes a CPU about a day for one seed.
DEFAULT_METHODS = ("tumble", "cnn", "fixmatch", "forest", "boosting", "tree", "spreading")

#: Parameters that describe the data, not the method: every method that has one gets the value of tumble's estimator.
_OF_THE_DATA = (
    "rotation_range_rad",
    "translation_prior",
    "scale_jitter",
    "shear_jitter",
    "intensity_jitter",
    "degradation",
    "device",
)
#: Likewise of the methods that train tumble's network, so that it is the same one, for the same number of steps.
_OF_THE_NETWORK = ("encoder_channels", "max_epochs")
#: What --quick makes of the parameters that set the length of a run.
_QUICK = {"max_epochs": 1, "n_steps": 2, "n_epochs": 1, "max_iter": 2, "n_estimators": 5}

Fitted = Any


def supported(estimator: type[Any], settings: Row) -> Row:
    """Return the settings that the estimator has parameters for."""
    known = estimator().get_params()
    return {name: value for name, value in settings.items() if name in known}


def make(method: str, seed: int, settings: Row | None = None, *, quick: bool = False) -> Fitted:
    """Make an estimator.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    seed : int
        Its random_state.
    settings : dict, optional
        Parameters of `SSRVAEClassifier`; other methods get those that describe the data, and those with the same
        network what makes it, and the number of steps.
    quick : bool
        Whether to make the run as short as can be.
    """
    _, estimator, own = METHODS[method]
    settings = dict(settings or {}) if estimator is SSRVAEClassifier else _taken(method, settings or {})
    settings |= own
    if quick:
        settings |= supported(estimator, _QUICK)
    return estimator(**{**settings, "random_state": seed})


def _taken(method: str, settings: Row) -> Row:
    """Give those of `SSRVAEClassifier`'s settings that a competitor takes over."""
    _, estimator, own = METHODS[method]
    shared = _OF_THE_DATA if "network" in own else (*_OF_THE_DATA, *_OF_THE_NETWORK)
    return supported(estimator, {name: settings[name] for name in shared if name in settings and name not in own})


def compare(
    record: Record,
    options: argparse.Namespace,
    case: Row,
    split: Callable[[], Split],
    score: Callable[[Fitted, Split], Row],
    *,
    settings: Row | None = None,
    methods: Sequence[str] | None = None,
    suffix: str = "",
) -> None:
    """Fit and score each method of the options on one set of data, unless the record has it.

    Parameters
    ----------
    record : Record
        Where results are and go.
    options : Namespace
        From :func:`benchmarks.common.parse`.
    case : dict
        What tells this set of data apart; "seed" seeds the methods too.
    split : callable
        Makes the data; called only if there is something to measure.
    score : callable
        Scores a fitted estimator.
    settings : dict, optional
        As in :func:`make`; those of --set come on top.
    methods : sequence of str, optional
        In place of those of the options.
    suffix : str
        What is added to the names of the methods in the results.
    """
    made: list[Split] = []

    def data() -> Split:
        if not made:
            made.append(split())
        return made[0]

    for method in options.methods if methods is None else methods:
        name, estimator, _ = METHODS[method]
        ours = estimator is SSRVAEClassifier
        full_case = with_options({"method": name + suffix, **case}, options, uses_settings=ours)
        if not ours and (reached := _taken(method, options.settings)):
            full_case["settings"] = reached
        limit = _limit(options) if estimator is PyrovedClassifier else {}

        def work(method: str = method, limit: Row = limit) -> Row:
            model = make(method, case["seed"], {**(settings or {}), **options.settings}, quick=options.quick)
            fitted, seconds = fit(model.set_params(**limit), data())
            steps = {"n_steps": fitted.n_steps_} if isinstance(fitted, PyrovedClassifier) else {}
            return {**score(fitted, data()), "seconds": seconds, **steps}

        record.measure({**full_case, **limit}, work)


def _limit(options: argparse.Namespace) -> Row:
    """Give the parameters of pyroVED's estimator that end its fit in time; they tell its rows apart."""
    minutes = getattr(options, "pyroved_minutes", None)
    return {} if minutes is None else {"max_seconds": 60 * minutes}


def fit(model: Any, split: Split) -> tuple[Fitted, float]:
    """Fit, and return the wall time beside."""
    started = time.perf_counter()
    return model.fit(split.X, split.y), time.perf_counter() - started
