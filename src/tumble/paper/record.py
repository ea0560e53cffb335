"""Files that appear whole or not at all, and what a number was measured on."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tumble._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["environment", "plain", "worked_on", "write_json", "write_whole"]


def environment(device: str = "auto") -> dict[str, Any]:
    """Describe versions and machine.

    Parameters
    ----------
    device : str, default="auto"
        As given to the estimators.

    Returns
    -------
    dict
    """
    packages = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "matplotlib")
    cuda = torch.cuda.is_available() and device != "cpu"
    return {
        "tumble": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def worked_on(device: str) -> str:
    """Name what numbers come from: the GPU where one is used, else the processor."""
    found = environment(device)
    return found["processor"] if found["device"] == "cpu" else found["device"]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def plain(value: Any) -> Any:
    """Turn a value into what JSON gives back for it; NaN, which JSON lacks, becomes None.

    Examples
    --------
    >>> plain({"a": (1, np.float64(0.5)), "b": float("nan")})
    {'a': [1, 0.5], 'b': None}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays the last one: matplotlib and pillow tell the format by it.
    part = path.with_name(f".part-{path.name}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    text = json.dumps(plain(content), indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
