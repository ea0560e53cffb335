"""Write the report: one page that holds all its images and needs neither network nor scripts."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from tumble._version import __version__
from tumble.errors import LibraryError
from tumble.report.data import ReportData, collect, file_name
from tumble.report.encode import crop_uri
from tumble.report.sections import Plate, plates
from tumble.report.style import class_colours, missing_colour
from tumble.report.tables import class_rows, extraction_rows, missing_name, setting_rows, verdict

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from tumble.library import Library

__all__ = ["render", "write_report"]


def write_report(
    library: Library, path: str | os.PathLike[str], *, model: str | None = None, title: str | None = None
) -> Path:
    """Write what a library holds, and what a model made of it, as one HTML file.

    Parameters
    ----------
    library : Library
        An open library with at least one particle.
    path : path-like
        The file to write; an existing one is replaced once the new one is complete.
    model : str, optional
        Name of the model to report on; the newest if not given.
    title : str, optional
        Heading of the page; made from the library's name if not given.

    Returns
    -------
    Path
        The file written. It opens offline: images and style are inside.

    Raises
    ------
    LibraryError
        If the library has no particles or no such model, or the file cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise LibraryError(f"The report cannot be written to {target}: the folder {target.parent} does not exist.")
    page = render(collect(library, model=model), title=title)
    try:
        _replace(target, page)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LibraryError(f"The report cannot be written to {target}: {reason}. Choose another file.") from error
    return target


def _replace(target: Path, text: str) -> None:
    """Write beside `target` and rename, so that a crash leaves the old file or the new one, never a half."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def render(data: ReportData, *, title: str | None = None) -> str:
    """Make the page.

    Parameters
    ----------
    data : ReportData
        What to show.
    title : str, optional
        Heading of the page; made from the library's name if not given.

    Returns
    -------
    str
        HTML. Every text from the library is escaped.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("tumble.report") / "template.html.j2").read_text(encoding="utf-8"))
    colours = class_colours(data.classes)
    record = data.record
    return template.render(
        file_name=file_name,
        title=title or f"Particle report: {data.library_name}",
        data=data,
        record=record,
        evaluation=data.evaluation,
        verdict=verdict(data),
        class_rows=class_rows(data),
        colours=colours,
        missing=missing_name(data),
        missing_colour=missing_colour(alone=not data.classes),
        n_labelled=int(np.count_nonzero(data.particles["label"].notna())),
        n_undrawn=len(data.micrographs) - len(data.views),
        plates=_by_section(plates(data, colours)),
        samples=[_sample(data, sample.name, sample.most, sample.least, sample.count) for sample in data.samples],
        disagreements=[_tile(data, key) for key in data.disagreements],
        labels_changed=_labels_changed(data),
        extraction=extraction_rows(data.micrographs),
        settings=setting_rows(record.config) if record else [],
        environment=setting_rows(record.environment) if record else [],
        version=__version__,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _by_section(all_plates: Iterable[Plate]) -> dict[str, list[Plate]]:
    sections: dict[str, list[Plate]] = {}
    for plate in all_plates:
        sections.setdefault(plate.section, []).append(plate)
    return sections


def _tile(data: ReportData, key: int) -> dict[str, Any]:
    """One crop with what is known of it."""
    row = data.particles.loc[key]
    label = row["label"]
    return {
        "id": key,
        "uri": crop_uri(data.crops[key]),
        "predicted": row["predicted"],
        "probability": f"{row['probability']:.2f}",
        "label": label if isinstance(label, str) else None,
    }


def _sample(data: ReportData, name: str, most: tuple[int, ...], least: tuple[int, ...], count: int) -> dict[str, Any]:
    return {
        "name": name,
        "count": count,
        "most": [_tile(data, key) for key in most],
        "least": [_tile(data, key) for key in least],
    }


def _labels_changed(data: ReportData) -> bool:
    """Whether the stored confusion matrix counts other errors than the labels of today give."""
    if data.evaluation is None:
        return False
    confusion = data.evaluation["confusion"]
    wrong = sum(sum(row) for row in confusion) - sum(confusion[index][index] for index in range(len(confusion)))
    return wrong != data.n_disagreements
