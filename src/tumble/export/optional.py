"""Packages that only some formats need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tumble.errors import ConfigError

__all__ = ["required"]


def required(package: str, purpose: str) -> Any:
    """Import a package of the extra ``export``.

    Parameters
    ----------
    package : str
        Name of the module.
    purpose : str
        What it is needed for.

    Returns
    -------
    module

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(f'{purpose} needs the package {package}: pip install "tumble[export]".') from error
