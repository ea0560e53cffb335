"""Checks of arguments that the synthetic data sets share."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, cast

import numpy as np

from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Range", "as_range", "check_counts", "check_number"]

#: One number or a (low, high) pair.
Range = float | tuple[float, float]


def check_number(name: str, value: float, low: float, high: float = np.inf) -> float:
    """Return `value` as a float, or raise a ConfigError unless it is finite and in [`low`, `high`]."""
    if not isinstance(value, Real) or not np.isfinite(value) or not low <= value <= high:
        bound = f"in [{low:g}, {high:g}]" if np.isfinite(high) else f"of at least {low:g}"
        msg = f"{name}={value!r} must be a finite number {bound}"
        raise ConfigError(msg)
    return float(value)


def as_range(name: str, value: Range, *, symmetric: bool) -> tuple[float, float]:
    """Return (low, high): a pair as it is, a number a as (-a, a) if `symmetric` and as (a, a) otherwise."""
    if isinstance(value, Real):
        high = check_number(name, float(value), 0.0)
        return (-high if symmetric else high), high
    try:
        low, high = (float(v) for v in cast("tuple[float, float]", value))
    except (TypeError, ValueError) as error:
        msg = f"{name}={value!r} must be a number or a pair (low, high) of numbers"
        raise ConfigError(msg) from error
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        msg = f"{name}={value!r} must be finite, with low <= high"
        raise ConfigError(msg)
    return low, high


def check_counts(name: str, value: int | Sequence[int], n_classes: int | None = None) -> list[int]:
    """Return one count per class, from one count for all or a sequence; there must be something to draw."""
    values = [int(value)] * (n_classes or 1) if isinstance(value, int | np.integer) else list(value)
    if n_classes is not None and len(values) != n_classes:
        msg = f"{name}={value!r} must be one number or {n_classes} numbers, one for each class"
        raise ConfigError(msg)
    if not all(isinstance(v, int | np.integer) and v >= 0 for v in values) or sum(values) == 0:
        msg = f"{name}={value!r} must be non-negative whole numbers that are not all zero"
        raise ConfigError(msg)
    return [int(v) for v in values]
