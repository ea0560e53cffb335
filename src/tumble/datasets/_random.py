"""Seeds: one way from scikit-learn's ``random_state`` to a NumPy generator."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from tumble.errors import ConfigError

__all__ = ["RandomState", "generator"]

#: What every ``random_state`` of the data sets may be.
RandomState = int | np.integer | np.random.RandomState | np.random.Generator | None


def generator(random_state: RandomState) -> np.random.Generator:
    """Turn `random_state` into a generator without touching NumPy's global one.

    A ``RandomState`` or ``Generator`` is used as it stands and advances, as in scikit-learn.

    Raises
    ------
    ConfigError
        If `random_state` is of another type or negative.
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    if random_state is None:
        return np.random.default_rng()
    if isinstance(random_state, Integral) and not isinstance(random_state, bool) and random_state >= 0:
        return np.random.default_rng(int(random_state))
    msg = (
        f"random_state={random_state!r} cannot seed anything; give a non-negative int, a RandomState, "
        "a Generator or None"
    )
    raise ConfigError(msg)
