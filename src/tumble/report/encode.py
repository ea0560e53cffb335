"""Images as text that a page can hold, so that it needs no other file."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, Literal

from tumble.report.style import figure_style

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

__all__ = ["crop_uri", "figure_uri"]

logger = logging.getLogger(__name__)


def figure_uri(figure: Figure, *, kind: Literal["svg", "png", "jpg"] = "svg", dpi: int = 144) -> str:
    """Draw a figure into a ``data:`` URI.

    Parameters
    ----------
    figure : Figure
        What to draw.
    kind : {"svg", "png", "jpg"}, default="svg"
        Lines and text stay sharp as SVG; many image pixels are smaller as PNG, noisy ones only as JPEG.
    dpi : int, default=144
        Resolution of a PNG or JPEG and of the parts of an SVG that are pixels.

    Returns
    -------
    str
        For the ``src`` of an ``<img>``, where a browser runs no scripts whatever the image contains.
    """
    buffer = io.BytesIO()
    options: dict[str, Any] = {}
    if kind == "svg":
        # Without a date the same library gives the same image.
        options["metadata"] = {"Date": None}
    elif kind == "jpg":
        # Full colour resolution: outlines are one or two pixels wide.
        options["pil_kwargs"] = {"quality": 88, "subsampling": 0}
    with figure_style(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, format=kind, dpi=dpi, **options)
    _pass_on(caught)
    content = buffer.getvalue()
    if kind == "svg":
        # Matplotlib asks for nearest-neighbour scaling, which roughens an image that a page shrinks.
        content = content.replace(b"image-rendering:crisp-edges;image-rendering:pixelated", b"")
    mime = {"svg": "svg+xml", "png": "png", "jpg": "jpeg"}[kind]
    return f"data:image/{mime};base64,{base64.b64encode(content).decode('ascii')}"


def _pass_on(caught: list[warnings.WarningMessage]) -> None:
    """Repeat warnings, except for letters the font lacks: the page itself gives every name in full."""
    for warning in caught:
        if "missing from font" in str(warning.message):
            logger.debug("%s", warning.message)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def crop_uri(crop: npt.NDArray[Any]) -> str:
    """Encode a crop as PNG, pixel by pixel, into a ``data:`` URI.

    Parameters
    ----------
    crop : ndarray of shape (S, S), uint8
        Grey levels.

    Returns
    -------
    str
        For the ``src`` of an ``<img>``.
    """
    import imagecodecs  # figures alone do not need it

    return f"data:image/png;base64,{base64.b64encode(imagecodecs.png_encode(crop)).decode('ascii')}"
