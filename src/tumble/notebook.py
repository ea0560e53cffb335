"""What notebooks show: galleries of crops, a fitted model with sliders, the summary of a fit; self-contained HTML."""

from __future__ import annotations

import base64
import html
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.colours import MISSING_COLOUR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["HtmlView", "explorer", "fit_summary", "gallery", "grey_levels", "png_uri"]

_TILE_PX = 84


class HtmlView:
    """HTML that a notebook shows as the result of a cell.

    Parameters
    ----------
    markup : str
        Complete in itself: no link to anything outside.
    text : str
        What a terminal shows instead.

    Attributes
    ----------
    markup : str
        As given, to write to a file.
    """

    def __init__(self, markup: str, text: str) -> None:
        self.markup = markup
        self._text = text

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self._text


def png_uri(image: npt.NDArray[Any]) -> str:
    """Encode an image as PNG, pixel by pixel, into a ``data:`` URI.

    Parameters
    ----------
    image : ndarray of shape (h, w) or (h, w, 3), uint8
        Grey levels or colours.

    Returns
    -------
    str
        For the ``src`` of an ``<img>``.
    """
    import imagecodecs  # only those who look at images need it, estimators do not

    encoded = imagecodecs.png_encode(np.ascontiguousarray(image))
    return f"data:image/png;base64,{base64.b64encode(encoded).decode('ascii')}"


def grey_levels(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Turn drawn images, of any range, into grey levels alike for all of them.

    Parameters
    ----------
    images : ndarray
        Finite values. Those that lie within [0, 1] are taken as they are.

    Returns
    -------
    ndarray of the same shape, uint8
    """
    low, high = (float(edge) for edge in np.quantile(images, (0.001, 0.999)))
    if low >= -0.1 and high <= 1.1:
        low, high = 0.0, 1.0
    return np.clip(255 * (images - low) / max(high - low, 1e-12), 0, 255).astype(np.uint8)


def gallery(
    crops: Sequence[npt.NDArray[np.uint8]],
    rows: Sequence[Mapping[str, Any]],
    *,
    colours: Mapping[str, str],
    total: int,
) -> HtmlView:
    """Show crops with what is known of each.

    Parameters
    ----------
    crops : sequence of n ndarrays of shape (S, S), uint8
        The particles.
    rows : sequence of n mappings
        ``particle_id``, and ``label``, ``predicted`` and ``probability`` or None.
    colours : mapping of str to str
        Class to colour: of the label, or of the prediction where there is no label.
    total : int
        How many there are beside those shown.

    Returns
    -------
    HtmlView
    """
    tiles = "".join(_tile(crop, row, colours) for crop, row in zip(crops, rows, strict=True))
    shown = sorted({str(row["label"] or row["predicted"]) for row in rows if row["label"] or row["predicted"]})
    legend = "".join(
        f'<span style="white-space:nowrap"><span style="display:inline-block;width:.8em;height:.8em;border-radius:2px;'
        f'background:{colours.get(name, MISSING_COLOUR)}"></span> {html.escape(name)}</span>'
        for name in shown
    )
    count = f"{len(rows):,} of {total:,} particles" if total > len(rows) else f"{total:,} particles"
    markup = (
        '<div style="font:13px/1.35 system-ui,sans-serif"><div style="display:flex;flex-wrap:wrap;gap:.3em 1.1em;'
        f'margin:.2em 0 .6em"><b>{count}</b>{legend}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:6px">{tiles}</div></div>'
    )
    return HtmlView(markup, f"<gallery of {count}; a notebook shows it>")


def _tile(crop: npt.NDArray[np.uint8], row: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    label, predicted, probability = (row.get(name) for name in ("label", "predicted", "probability"))
    name = label or predicted
    colour = colours.get(str(name), MISSING_COLOUR) if name else MISSING_COLOUR
    said = [f"particle {row['particle_id']}"]
    said += [f"label {label}"] if label else []
    said += [f"predicted {predicted}, p = {probability:.2f}"] if predicted else []
    text = html.escape(", ".join(said), quote=True)
    # A prediction is dashed: what a person said and what a model thinks must not look the same.
    style = "solid" if label else "dashed" if predicted else "dotted"
    share = f" {probability:.2f}" if predicted and probability is not None else ""
    return (
        f'<div style="width:{_TILE_PX}px;text-align:center"><img src="{png_uri(crop)}" alt="{text}" title="{text}" '
        f'style="box-sizing:border-box;display:block;width:100%;margin:0;image-rendering:pixelated;'
        f'border:3px {style} {colour};border-radius:4px">'
        f'<span style="font-size:11px;opacity:.75">#{row["particle_id"]}{share}</span></div>'
    )


def explorer(
    images: npt.NDArray[np.uint8],
    classes: Sequence[str],
    *,
    axis: Sequence[float],
    invariances: Sequence[str],
    colours: Mapping[str, str],
    latent_dim: int,
) -> HtmlView:
    """Show what a model draws, with sliders for the latent factors and the pose.

    Parameters
    ----------
    images : ndarray of shape (K, G, G, S, S), uint8
        Canonical images of each class over a grid of the first two latent factors.
    classes : sequence of K str
        Their names.
    axis : sequence of G float
        Values of each factor along the grid, in standard deviations of the class.
    invariances : sequence of str
        Parts of the pose that the model infers: only these have a slider.
    colours : mapping of str to str
        Class to colour.
    latent_dim : int
        How many factors the model has.

    Returns
    -------
    HtmlView
        An ``<iframe>`` with its own script, which works without a kernel and in a notebook that was exported.
    """
    n_grid, side = images.shape[1], images.shape[-1]
    sheets = images.transpose(0, 1, 3, 2, 4).reshape(len(images), n_grid * side, n_grid * side)
    content = {
        "classes": [{"name": str(name), "colour": colours.get(str(name), MISSING_COLOUR)} for name in classes],
        "sheets": [png_uri(sheet) for sheet in sheets],
        "axis": [round(float(value), 3) for value in axis],
        "side": side,
        "rotation": "rotation" in invariances,
        "translation": "translation" in invariances,
        "factors": min(2, latent_dim),
        "more": max(0, latent_dim - 2),
    }
    template = (files("tumble") / "notebook_explorer.html").read_text(encoding="utf-8")
    # "</script>" in a class name must not end the script.
    page = template.replace("__CONTENT__", json.dumps(content).replace("<", "\\u003c"))
    markup = (
        f'<iframe srcdoc="{html.escape(page, quote=True)}" sandbox="allow-scripts" title="What the model draws" '
        'style="width:100%;max-width:860px;height:430px;border:0;border-radius:8px"></iframe>'
    )
    return HtmlView(markup, f"<explorer of {len(classes)} classes; a notebook shows it>")


def fit_summary(
    facts: Mapping[str, str], *, curve: Sequence[float], templates: Sequence[tuple[str, npt.NDArray[np.uint8], str]]
) -> str:
    """Say in HTML what came of a fit.

    Parameters
    ----------
    facts : mapping of str to str
        What to list.
    curve : sequence of float
        Loss of each epoch.
    templates : sequence of (name, image, colour)
        The canonical image of each class.

    Returns
    -------
    str
    """
    rows = "".join(
        f'<tr><th style="text-align:left;font-weight:600;padding:1px 14px 1px 0">{html.escape(name)}</th>'
        f'<td style="text-align:left;padding:1px 0">{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    drawn = "".join(
        f'<figure style="margin:0;text-align:center"><img src="{png_uri(image)}" alt="{html.escape(name, quote=True)}" '
        f'style="display:block;width:64px;height:64px;margin:0 auto;border:3px solid {colour};border-radius:4px">'
        f'<figcaption style="font-size:12px;max-width:90px;overflow-wrap:anywhere">{html.escape(name)}</figcaption>'
        "</figure>"
        for name, image, colour in templates
    )
    return (
        '<div style="font:13px/1.4 system-ui,sans-serif;display:flex;flex-wrap:wrap;gap:10px 28px;'
        f'align-items:flex-start;margin-top:8px"><table style="border-collapse:collapse;margin:0">{rows}</table>'
        f"{_sparkline(curve)}"
        f'<div style="display:flex;flex-wrap:wrap;gap:10px">{drawn}</div></div>'
    )


def _sparkline(values: Sequence[float]) -> str:
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite) < 2:
        return ""
    x = np.linspace(2, 178, len(finite))
    y = 66 - 62 * (finite - finite.min()) / max(float(np.ptp(finite)), 1e-12)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    label = f"loss over {len(values)} epochs, from {finite[0]:.4g} to {finite[-1]:.4g}"
    return (
        f'<figure style="margin:0"><svg width="180" height="70" viewBox="0 0 180 70" role="img" aria-label="{label}">'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="1.8"/></svg>'
        f'<figcaption style="font-size:12px;opacity:.8">{label}</figcaption></figure>'
    )
