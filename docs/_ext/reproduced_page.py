"""The page of the paper's figures: made of what ``tumble reproduce`` left in ``docs/results/reproduce``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["reproduced"]


def reproduced(results: Path, shown_from: str) -> str:
    """Give one section for each study: published beside measured values, and its figures.

    Parameters
    ----------
    results : Path
        Folder with one folder per study.
    shown_from : str
        The same, as seen from the page that includes the text.

    Returns
    -------
    str
        Markdown. A missing folder, and results of quick runs, give a sentence in place of tables.
    """
    from tumble.paper.names import STUDY_TITLES

    sections = []
    for study in STUDY_TITLES:
        path = results / study / "result.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"quick": True}
        if not content["quick"]:
            sections.append(_section(study, content, results / study, f"{shown_from}/{study}"))
    return "\n".join(sections) if sections else "No results of full runs are stored in `docs/results/reproduce`.\n"


def _section(study: str, content: dict[str, Any], folder: Path, shown_from: str) -> str:
    title = content["title"]
    lines = [f"## {_name(study)}: {title}", "", "```sh", content["command"].replace("DIR", "paper"), "```", ""]
    lines += [*_table(content["comparison"]), ""]
    for name in content["files"]:
        if name.endswith((".png", ".gif")) and (folder / name).exists():
            alt = f"{_name(study)}, {title}: {name.rsplit('.', 1)[0]}"
            lines += [f"```{{image}} {shown_from}/{name}", f":alt: {alt}", ":width: 100%", "```", ""]
    machine = content["machine"]
    measured = " and ".join(content.get("measured_on") or [machine["processor"]])
    text = f"Fitted and measured on {measured}; PyTorch {machine['torch']}, seed {content['seed']}."
    return "\n".join([*lines, text + _not_as_published(study, content), ""])


def _not_as_published(study: str, content: dict[str, Any]) -> str:
    """Say with which settings the published method was fitted where they are not the published ones."""
    from tumble.paper.methods import SAVINGS

    settings, text = content["settings"], ""
    always, swept = settings.get("paper") or {}, settings.get("sweep") or {}
    if study == "fig2" or not any(method.startswith("paper") for method in content["methods"]):
        return ""
    if always:
        text += f" The published method was fitted with {_listed(always)}"
        spared = {*always} & {*SAVINGS}
        text += "; what spares pixels, classes or precision is for its ss-rVAE alone." if spared else "."
    if study in ("fig3", "labels") and not swept.items() <= always.items():
        text += f" The published ss-rVAE was fitted with {_listed(swept)} but where most figures share its model."
    return text


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"`{name}={value:g}`" if isinstance(value, float) else f"`{name}={value}`" for name, value in settings.items()
    )


def _name(study: str) -> str:
    """Say how a study is called in a text.

    >>> _name("fig3"), _name("s2"), _name("films")
    ('Figure 3', 'Figure S2', 'Films')
    """
    if found := re.fullmatch(r"(fig|s)(\d)", study):
        return f"Figure {'S' if found[1] == 's' else ''}{found[2]}"
    return study.capitalize()


def _table(comparisons: list[dict[str, Any]]) -> list[str]:
    """Give a line for each published value; with columns for the methods, where all lines have the same."""
    lines: list[str] = []
    methods: list[str] = []
    for compared in comparisons:
        if list(compared["measured"]) != methods:
            methods = list(compared["measured"])
            head = ["what", "published", *methods]
            lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        values = ["" if value is None else f"{value:.3g}" for value in compared["measured"].values()]
        cells = [compared["what"], compared["published"], *values]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines
