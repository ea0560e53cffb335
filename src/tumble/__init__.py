"""From micrographs to a classified particle library, with a handful of labels.

Public names are loaded when they are first used: ``import tumble`` alone imports neither torch, matplotlib
nor SQLAlchemy, so that scripts and the command line start quickly.

>>> import tumble
>>> tumble.__version__
'...'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tumble._version import __version__

if TYPE_CHECKING:
    from tumble import datasets, errors
    from tumble.estimators import RVAE, SSRVAEClassifier
    from tumble.library import Library
    from tumble.micrograph import iter_micrographs, read_micrograph
    from tumble.particles import extract_particles
    from tumble.report import write_report

__all__ = [
    "RVAE",
    "Library",
    "SSRVAEClassifier",
    "__version__",
    "datasets",
    "errors",
    "extract_particles",
    "iter_micrographs",
    "read_micrograph",
    "write_report",
]

#: Public name -> module that defines it; modules stand for themselves.
_DEFINED_IN = {
    "Library": "tumble.library",
    "RVAE": "tumble.estimators",
    "SSRVAEClassifier": "tumble.estimators",
    "extract_particles": "tumble.particles",
    "iter_micrographs": "tumble.micrograph",
    "read_micrograph": "tumble.micrograph",
    "write_report": "tumble.report",
}
_MODULES = ("datasets", "errors")


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    if name in _MODULES:
        value: Any = import_module(f"tumble.{name}")
    elif name in _DEFINED_IN:
        value = getattr(import_module(_DEFINED_IN[name]), name)
    else:
        raise AttributeError(f"module 'tumble' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
