"""The colours of classes, the same on every page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tumble.library.classes import CLASS_COLOURS

if TYPE_CHECKING:
    from tumble.library import Library

__all__ = ["colours_of"]


def colours_of(library: Library, model: str | None = None) -> dict[str, str]:
    """Return the colour of each class, the same as in the gallery.

    Parameters
    ----------
    library : Library
        The open library.
    model : str, optional
        Its classes are added where nobody labelled with them.

    Returns
    -------
    dict of str to str
        Hexadecimal colours, in the order of the classes.
    """
    colours = {str(name): str(colour) for name, colour in library.classes()["colour"].items()}
    for name in library.model_record(model).classes if model else ():
        if name not in colours:
            colours[name] = CLASS_COLOURS[len(colours) % len(CLASS_COLOURS)]
    return colours
