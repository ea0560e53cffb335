"""Pages that are made of the package and its results when the documentation is built.

`write` makes ``command-line.md`` of the Typer app, ``benchmarks.md`` of ``docs/results/*.json``, ``extras.md`` of
``pyproject.toml`` and ``paper-figures.md`` of ``docs/results/reproduce``.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

from benchmark_tables import origin, tables, value_text
from reproduced_page import reproduced

if TYPE_CHECKING:
    from pathlib import Path

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
            lines += [f"{key.capitalize()}: {value_text(content[key])}.".replace("_", " "), ""]
    lines += [*tables(rows), origin(rows, content.get("environment", {})), ""]
    return "\n".join(lines)
