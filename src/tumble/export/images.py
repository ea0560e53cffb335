"""Crops as pictures: a folder for each class, and contact sheets to look through."""

from __future__ import annotations

import base64
import re
from collections import Counter
from typing import TYPE_CHECKING

import imageio.v3 as iio
import numpy as np
from jinja2 import Template

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.figure import Figure

    from tumble.export.content import Content

__all__ = ["write_crops", "write_html_sheet", "write_pdf_sheet"]

#: Crops of a class on a contact sheet: more would make a page that no browser likes.
MAX_PER_CLASS = 500
_ROW, _ROWS = 12, 14
#: Inches of a page.
_MARGIN, _TOP, _CAPTION = 0.4, 0.85, 0.12

_PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
.sheet { display: flex; flex-wrap: wrap; gap: 6px }
figure { margin: 0; width: 72px }
img { width: 72px; height: 72px; image-rendering: pixelated; background: #eee }
figcaption { font-size: 11px; color: #555; text-align: center }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ subtitle }}</p>
{% for name, total, items in classes %}
<h2>{{ name }} ({{ total }}{% if total > items|length %}, the first {{ items|length }}{% endif %})</h2>
<div class="sheet">{% for particle, caption, image in items %}
<figure><img alt="particle {{ particle }}" loading="lazy" src="data:image/png;base64,{{ image }}">
<figcaption>{{ caption }}</figcaption></figure>{% endfor %}
</div>
{% endfor %}
</body></html>
""",
    autoescape=True,
)


def write_crops(content: Content, folder: Path) -> None:
    """Write each crop as a PNG into the folder of its class."""
    folders: dict[str, Path] = {}
    for particle, name, crop in content.crops():
        if name not in folders:
            folders[name] = folder / _folder_name(name, {path.name for path in folders.values()})
            folders[name].mkdir()
        iio.imwrite(folders[name] / f"particle-{particle:07d}.png", crop, extension=".png")


def write_html_sheet(content: Content, path: Path) -> None:
    """Write a contact sheet as one web page that opens offline."""
    classes = []
    for name, (total, items) in _samples(content).items():
        images = [
            (particle, caption, base64.b64encode(iio.imwrite("<bytes>", crop, extension=".png")).decode())
            for particle, caption, crop in items
        ]
        classes.append((name, total, images))
    title, subtitle = _titles(content)
    path.write_text(_PAGE.render(title=title, subtitle=subtitle, classes=classes), encoding="utf-8")


def write_pdf_sheet(content: Content, path: Path) -> None:
    """Write a contact sheet as PDF pages of 12 x 14 crops."""
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    title, subtitle = _titles(content)
    with PdfPages(path, metadata={"Title": title}) as pdf:
        for name, (total, items) in _samples(content).items():
            for start in range(0, len(items), _ROW * _ROWS):
                figure = Figure(figsize=(8.27, 11.69))
                shown = f", the first {len(items)}" if total > len(items) else ""
                figure.suptitle(f"{name} ({total}{shown})", fontsize=13, y=0.975)
                figure.text(0.5, 0.015, f"{title}. {subtitle}", ha="center", fontsize=7, color="0.4")
                _draw(figure, items[start : start + _ROW * _ROWS])
                pdf.savefig(figure)


def _draw(figure: Figure, items: list[tuple[int, str, npt.NDArray[np.uint8]]]) -> None:
    """Draw crops in rows on axes of the whole page, in inches; axes of their own would take seconds a page."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    step, side = (width - 2 * _MARGIN) / _ROW, 0.9 * (width - 2 * _MARGIN) / _ROW
    for i, (_, caption, crop) in enumerate(items):
        row, column = divmod(i, _ROW)
        left, top = _MARGIN + column * step, height - _TOP - row * (step + _CAPTION)
        extent = (left, left + side, top - side, top)
        axes.imshow(crop, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)
        axes.text(left + side / 2, top - side - 0.03, caption, fontsize=5, ha="center", va="top", color="0.3")
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")


def _samples(content: Content) -> dict[str, tuple[int, list[tuple[int, str, npt.NDArray[np.uint8]]]]]:
    """Return for each class how many there are, and the first of them with captions."""
    table = content.particles
    totals = Counter(table["class"].tolist())
    known = table["probability"].to_dict() if "probability" in table else {}
    found: dict[str, list[tuple[int, str, npt.NDArray[np.uint8]]]] = {str(name): [] for name in sorted(totals)}
    for particle, name, crop in content.crops():
        if len(found[name]) < MAX_PER_CLASS:
            p = known.get(particle, np.nan)
            found[name].append((particle, f"{particle}" if np.isnan(p) else f"{particle}: {p:.2f}", crop))
    return {name: (totals[name], items) for name, items in found.items()}


def _titles(content: Content) -> tuple[str, str]:
    said = f"classes of the model {content.model!r}" if content.model else "labels"
    return content.library.url.rpartition("/")[2], f"{len(content.particles)} particles; {said}"


def _folder_name(name: str, taken: set[str]) -> str:
    """Return a class as the name of a folder that any system can have, and that is not taken."""
    plain = re.sub(r"[^\w\- ]+", "_", name).strip()[:60] or "class"
    candidate, number = plain, 2
    while candidate.lower() in {other.lower() for other in taken}:
        candidate, number = f"{plain}-{number}", number + 1
    return candidate
