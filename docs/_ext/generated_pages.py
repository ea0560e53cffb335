"""Pages that are made of the package and its results when the documentation is built.

`write` makes ``command-line.md`` of the Typer app, ``benchmarks.md`` of ``docs/results/*.json``, ``extras.md`` of
``pyproject.toml`` and ``paper-figures.md`` of ``docs/results/reproduce``.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from statistics import mean
from typing import TYPE_CHECKING, Any

from reproduced_page import reproduced

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]

#: Keys of a row that describe the run and not the case.
_OF_THE_RUN = ("seed", "measured", "environment", "seconds_total")

#: Where the name of the file, with spaces, would not do.
_HEADINGS = {
    "faults_kill": "Processes killed at random",
    "label_next": "What to label next",
    "mnist": "MNIST",
    "nanogold": "Gold nanoparticles",
    "paper": "The published method",
}

_FOR_DEVELOPERS = ("test", "docs")
_EXTRAS = {
    "formats": "files of microscopes beyond TIFF, PNG, JPEG, BMP and NPY",
    "app": "the web application",
    "serve": "the classifier as a service, and its client",
    "scale": "many files on many machines, and a database server",
    "onnx": "exporting the classifier, and running it without PyTorch",
    "export": "Parquet and AnnData files, ROI of ImageJ",
    "all": "all of these",
}


def write(folder: Path, root: Path) -> None:
    """Write all generated pages into `folder`; `root` is that of the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "command-line.md": command_line(),
        "benchmarks.md": benchmarks(root / "docs" / "results", root / "benchmarks"),
        "paper-figures.md": reproduced(root / "docs" / "results" / "reproduce", "results/reproduce"),
        "extras.md": extras(root / "pyproject.toml"),
    }
    for name, text in pages.items():
        path = folder / name
        # Left alone where nothing changed, so that a second build has nothing to do.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def command_line() -> str:
    """Describe all commands and options as Markdown, from the app itself."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from tumble.cli import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="tumble", title="Command line")
    text = re.sub(r"Example: \[bold\](.*?)\[/bold\]", r"Example: `\1`", text, flags=re.S)
    text = re.sub(r"\[/?bold\]", "**", text)
    text = text.replace(" range>`", ">`")
    # What stands in brackets behind an option, such as "[default: 0; x>=0]".
    text = re.sub(r"  \[([^\]\n]*)\]$", lambda found: f" ({found[1]})", text, flags=re.M)
    for name, sub in getattr(command, "commands", {}).items():
        # Typer cuts the first sentence short in the list of commands.
        first = (sub.help or "").strip().split("\n\n")[0].replace("\n", " ")
        text = re.sub(
            rf"^\* `{name}`: .*$", lambda _, a=name, b=first: f"* [`{a}`](#tumble-{a}): {b}", text, count=1, flags=re.M
        )
    return text


def extras(pyproject: Path) -> str:
    """List the extras that a user may want, with what each brings."""
    lines = ["| extra | for | brings |", "|---|---|---|"]
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    for name, packages in project["optional-dependencies"].items():
        if name not in _FOR_DEVELOPERS:
            brings = ", ".join(f"`{re.split('[>=<]', package)[0]}`" for package in packages)
            lines.append(f"| `{name}` | {_EXTRAS.get(name, '')} | {brings} |")
    return "\n".join(lines) + "\n"


def benchmarks(results: Path, modules: Path) -> str:
    """Give one section for each file of results: what was done, the numbers, and where and when they were taken.

    Files that are not results of a benchmark are passed over; a missing folder gives a sentence in place of tables.
    """
    sections = []
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("rows"):
            sections.append(_section(path.stem, content, modules))
    return "\n".join(sections) if sections else "No results are stored in `docs/results/`.\n"


def heading(name: str) -> str:
    """Give the heading for a file of results."""
    return _HEADINGS.get(name, name.replace("_", " ").capitalize())


def _section(name: str, content: dict[str, Any], modules: Path) -> str:
    rows = content["rows"]
    lines = [f"## {heading(name)}", ""]
    module = modules / f"{name}.py"
    if module.exists():
        docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
        lines += [docstring.split("\n\n", 1)[0], "", "```sh", f"python -m benchmarks.{name}", "```", ""]
    for key in ("settings", "published"):
        if content.get(key):
            lines += [f"{key.capitalize()}: {_value(content[key])}.".replace("_", " "), ""]
    for group in _alike(rows):
        lines += [*_table(group), ""]
    lines += [_origin(rows, content.get("environment", {})), ""]
    return "\n".join(lines)


def _alike(rows: list[Row]) -> list[list[Row]]:
    """Part rows by what was measured, in the order in which the measures first occur."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        cases = tuple(sorted(key for key in row if not _is_measure(row[key]) and key not in _OF_THE_RUN))
        what = (str(row.get("what", "")), *cases)
        groups.setdefault(what, []).append(row)
    return list(groups.values())


def _is_measure(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(isinstance(part, int | float) for part in value.values())
    return isinstance(value, float)


def _table(rows: list[Row]) -> list[str]:
    """Give one line for each case, with the mean of its runs and, where there are several, their range."""
    cases = [key for key in rows[0] if key not in _OF_THE_RUN and not _is_measure(rows[0][key])]
    measures: dict[str, None] = {}
    for row in rows:
        measures |= {key: None for key in row if key not in _OF_THE_RUN and _is_measure(row[key])}
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_value(row.get(key)) for key in cases), []).append(row)
    head = [*(key.replace("_", " ") for key in [*cases, *measures]), "runs"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for key, members in groups.items():
        cells = [_summary([row[name] for row in members if name in row]) for name in measures]
        lines.append(f"| {' | '.join([*key, *cells, str(len(members))])} |")
    return lines


def _summary(values: list[Any]) -> str:
    if not values:
        return ""
    if isinstance(values[0], dict):
        return "<br>".join(
            f"{part}: {_number(mean(value[part] for value in values if part in value))}" for part in values[0]
        )
    text = _number(mean(values))
    return text if len(values) == 1 else f"{text}<br>({_number(min(values))} – {_number(max(values))})"


def _number(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        # Four digits near 1: accuracies of 0.9988 and 0.9995 are not the same.
        digits = (
            0 if abs(value) >= 1000 else 1 if abs(value) >= 20 else 2 if abs(value) > 1 else 4 if value > 0.95 else 3
        )
        return f"{value:,.{digits}f}"
    return f"{value:.2g}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_value(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value).replace("|", "\\|")


def _origin(rows: list[Row], environment: dict[str, Any]) -> str:
    """Say on what, when and with which seeds the rows were measured; rows of one file may come from several runs."""
    runs = [{**environment, **(row.get("measured") or {})} for row in rows]
    machines = sorted({_machine(run) for run in runs})
    dates = sorted(run["date"][:10] for run in runs if run.get("date"))
    undated = sum(not run.get("date") for run in runs)
    seeds = sorted({row["seed"] for row in rows if "seed" in row})
    parts = [f"Measured on {'; '.join(machines)}"]
    if dates:
        parts.append(f"between {dates[0]} and {dates[-1]}" if dates[0] != dates[-1] else f"on {dates[0]}")
    text = ", ".join(parts)
    if undated:
        text += f"; {undated} of {len(rows)} rows carry no date" if dates else "; the rows carry no date"
    # Only what a row says of itself: the file's environment is that of the last run alone.
    commits = sorted({str(row["measured"]["commit"]) for row in rows if (row.get("measured") or {}).get("commit")})
    if commits:
        text += f"; commit {', '.join(commits)}"
    if seeds:
        text += f"; seeds {', '.join(map(str, seeds))}"
    return text + "."


def _machine(run: dict[str, Any]) -> str:
    device = run.get("device", "cpu")
    where = str(run.get("processor", "an unnamed processor"))
    if device != "cpu":
        where += f" with {device}"
    threads = run.get("threads")
    torch = f", PyTorch {run['torch']}" if run.get("torch") else ""
    return where + (f" ({threads} thread{'s' if threads != 1 else ''}{torch})" if threads else "")
