"""What the benchmarks share: the machine's description, resumable records, a table."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import tumble

Row = dict[str, Any]


def environment() -> dict[str, Any]:
    """Describe what a number was measured on."""
    packages = ("torch", "numpy", "scikit-learn", "scikit-image")
    return {
        "tumble": tumble.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class Record:
    """Results of one benchmark in one JSON file; a case that is in it already is not measured again.

    Parameters
    ----------
    path : Path
        The file. It is rewritten after each case, so that an interrupted run goes on where it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []

    def measure(self, case: Row, work: Callable[[], Row]) -> None:
        """Do `work` for a case, unless its result is there, and keep case and result as one row."""
        if any(case.items() <= row.items() for row in self.rows):
            return
        row = {**case, **work()}
        print(", ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": environment(), "rows": self.rows}
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self.path)

    def table(self, group: list[str], value: str) -> str:
        """Mean, worst and number of `value` for each combination of `group`, as Markdown."""
        groups: dict[tuple[Any, ...], list[float]] = {}
        for row in self.rows:
            groups.setdefault(tuple(row[g] for g in group), []).append(row[value])
        lines = [f"| {' | '.join([*group, 'mean ' + value, 'worst', 'runs'])} |", "|" + "---|" * (len(group) + 3)]
        for key, values in groups.items():
            cells = [*map(str, key), f"{sum(values) / len(values):.4f}", f"{min(values):.4f}", str(len(values))]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    return str(value)


def arguments(name: str, description: str | None) -> argparse.ArgumentParser:
    """Give the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results") / f"{name}.json", help="JSON file of results")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    return parser
