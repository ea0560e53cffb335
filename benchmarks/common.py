"""What the benchmarks share: the machine's description, resumable records, a table, the options."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tumble
from tumble.errors import ConfigError
from tumble.options import parse_settings

Row = dict[str, Any]

#: What each row says of how it was measured, beside its date: rows of one file may come from several runs.
_OF_A_ROW = ("tumble", "commit", "processor", "device", "threads", "torch")
#: What tells a row apart from one without it.
_ONLY_WHERE_GIVEN = ("quick", "settings", "max_seconds")
#: Results of --quick are kept apart: they show that a benchmark runs, and are of no other use.
_QUICK_FOLDER = Path("outputs/benchmarks")


def environment() -> dict[str, Any]:
    """Describe what a number was measured on."""
    packages = ("torch", "numpy", "scikit-learn", "scikit-image")
    return {
        "tumble": tumble.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "processor": _processor(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
    }


@cache
def _commit() -> str | None:
    """Commit of the working tree, with "-dirty" where it was changed since; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


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
    since : str, optional
        Date in ISO form: rows that were measured before it, or at an unknown date, are measured anew when their turn
        comes, and replaced.
    **notes
        Further content of the file, such as published values.
    """

    def __init__(self, path: Path, since: str | None = None, **notes: Any) -> None:
        self.path, self.since, self.notes = path, since, notes
        content = json.loads(path.read_text()) if path.exists() else {"rows": []}
        self.rows: list[Row] = content["rows"]
        # Older files describe the machine once; a later run elsewhere must not claim their rows.
        known = {key: value for key, value in content.get("environment", {}).items() if key in _OF_A_ROW}
        for row in self.rows:
            row.setdefault("measured", {"date": None, **known})

    def has(self, case: Row) -> bool:
        """Whether the case is in the file and need not be measured again."""
        return any(self._is_current(row) for row in self._rows_of(case))

    def measure(self, case: Row, work: Callable[[], Row]) -> None:
        """Do `work` for a case, unless its result is there, and keep case and result as one row."""
        case = _plain(case)
        if self.has(case):
            return
        row = {**case, **_plain(work())}
        print(", ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
        here = environment()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        old = self._rows_of(case)
        self.rows = [other for other in self.rows if not any(other is stale for stale in old)]
        self.rows.append({**row, "measured": {"date": now, **{key: here[key] for key in _OF_A_ROW}}})
        self.write()

    def write(self) -> None:
        """Write the rows and notes; :meth:`measure` does so after each case."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {**_plain(self.notes), "environment": environment(), "rows": self.rows}
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self.path)

    def _rows_of(self, case: Row) -> list[Row]:
        # These stand only in rows that have them: a row that has them is another case.
        case = {**dict.fromkeys(_ONLY_WHERE_GIVEN), **_plain(case)}
        return [row for row in self.rows if all(row.get(key) == value for key, value in case.items())]

    def _is_current(self, row: Row) -> bool:
        if self.since is None:
            return True
        date = row["measured"]["date"]
        return date is not None and _moment(date) >= _moment(self.since)

    def table(self, group: list[str], value: str, *, less_is_better: bool = False) -> str:
        """Mean, worst and number of `value` for each combination of `group`, as Markdown; rows without it are left out.

        The worst is the least value, or the greatest where `less_is_better`. With settings other than the default ones,
        these are part of the group.
        """
        worst = max if less_is_better else min
        rows = [row for row in self.rows if row.get(value) is not None]
        group = [*group, *(name for name in _ONLY_WHERE_GIVEN if any(name in row for row in rows) and name != "quick")]
        groups: dict[tuple[str, ...], list[float]] = {}
        for row in rows:
            groups.setdefault(tuple(_short(row.get(name, "")) for name in group), []).append(row[value])
        lines = [f"| {' | '.join([*group, 'mean ' + value, 'worst', 'runs'])} |", "|" + "---|" * (len(group) + 3)]
        for key, values in groups.items():
            cells = [*key, f"{sum(values) / len(values):.4f}", f"{worst(values):.4f}", str(len(values))]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def _moment(date: str) -> datetime:
    moment = datetime.fromisoformat(date)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plain(value: Any) -> Any:
    """Value as JSON gives it back, so that a case of now equals the same case of an earlier run."""

    def default(item: Any) -> Any:
        if isinstance(item, np.ndarray | np.generic):
            return item.tolist()
        raise TypeError(f"{item!r} cannot be kept in a result")

    return json.loads(json.dumps(value, default=default))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list) and len(value) > 4:
        return f"[{len(value)} values]"
    return str(value)


def arguments(
    name: str,
    description: str | None,
    *,
    methods: Sequence[str] = (),
    default_methods: Sequence[str] = (),
    seeds: int = 5,
) -> argparse.ArgumentParser:
    """Give the options that every benchmark has; those of methods where there are several to choose from."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default_out = Path("docs/results") / f"{name}.json"
    parser.add_argument("--out", type=Path, help=f"JSON file of results (default: {default_out})")
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to see that everything runs")
    parser.add_argument("--since", metavar="DATE", help="measure rows older than this ISO date again, and replace them")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of tumble's estimator")
    parser.set_defaults(name=name)
    if methods:
        shown = " ".join(default_methods)
        parser.add_argument(
            "--methods", nargs="+", choices=methods, default=list(default_methods), help=f"(default: {shown})"
        )
    if "pyroved" in methods:
        end = "end a fit of pyroVED after M minutes"
        parser.add_argument("--pyroved-minutes", type=_minutes, metavar="M", help=end)
    return parser


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number of minutes, 0 or more")
    return value


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options; `out` gets its default, and `settings` the parameters named by --set."""
    options = parser.parse_args(argv)
    if options.out is None:
        folder = _QUICK_FOLDER if options.quick else Path("docs/results")
        options.out = folder / f"{options.name}.json"
    try:
        options.settings = parse_settings(options.set, tumble.SSRVAEClassifier().get_params())
    except ConfigError as error:
        parser.error(str(error))
    if options.since is not None:
        try:
            _moment(options.since)
        except ValueError:
            parser.error(f"--since {options.since}: expected a date such as 2026-11-24 or 2026-11-24T12:00")
    return options


def with_options(case: Row, options: argparse.Namespace, *, uses_settings: bool = True) -> Row:
    """Add to a case what else tells it apart: that it was quick, and settings other than the default ones."""
    case = dict(case)
    if uses_settings and options.settings:
        case["settings"] = options.settings
    if options.quick:
        case["quick"] = True
    return case
