"""Options of the command line: what they are for, their choices, and how their text is read."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tumble.errors import ConfigError

__all__ = [
    "Border",
    "BorderOption",
    "CropSizeOption",
    "LibraryArgument",
    "MaxAreaOption",
    "MinAreaOption",
    "ModelOption",
    "Neighbours",
    "NeighboursOption",
    "PixelSizeOption",
    "Polarity",
    "PolarityOption",
    "QuietOption",
    "ScaleJitterOption",
    "ShearJitterOption",
    "SmoothingOption",
    "SplitTouchingOption",
    "ThresholdOption",
    "TranslationOption",
    "WindowOption",
    "parse_length_nm",
    "parse_threshold",
]


class Polarity(StrEnum):
    """Particles brighter or darker than the background."""

    auto = "auto"
    bright = "bright"
    dark = "dark"


class Border(StrEnum):
    """What to do with particles cut off by the edge of the image."""

    flag = "flag"
    drop = "drop"


class Neighbours(StrEnum):
    """What to do with other objects in a crop."""

    mask = "mask"
    keep = "keep"


LibraryArgument = Annotated[
    str,
    typer.Argument(metavar="LIBRARY", help="The library: a file such as particles.db, or a database URL."),
]
ModelOption = Annotated[Path, typer.Option("--model", "-m", help="Folder of the model.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

# Of `extract`; they set what extract_particles documents.
PixelSizeOption = Annotated[
    str | None,
    typer.Option(help="Edge of a pixel with its unit: 1.2nm, 0.5um, 3A. Default: what the file says."),
]
PolarityOption = Annotated[Polarity, typer.Option(help="Particles brighter or darker than the background.")]
ThresholdOption = Annotated[str, typer.Option(help="local, otsu, or an intensity of the image.")]
SmoothingOption = Annotated[float, typer.Option(min=0, help="Blur before the threshold, in px.")]
MinAreaOption = Annotated[int | None, typer.Option(min=1, help="Smallest particle, in px².")]
MaxAreaOption = Annotated[int | None, typer.Option(min=1, help="Largest particle, in px².")]
CropSizeOption = Annotated[int, typer.Option(min=8, help="Side of the crops, in px.")]
WindowOption = Annotated[
    int | None,
    typer.Option(min=8, help="Side of what a crop shows, in px of the image. Default: --crop-size."),
]
SplitTouchingOption = Annotated[
    bool, typer.Option("--split-touching", help="Cut clusters of touching particles at their necks.")
]
BorderOption = Annotated[Border, typer.Option(help="Flag or drop particles cut off by the edge of the image.")]
NeighboursOption = Annotated[Neighbours, typer.Option(help="Mask or keep other objects within a crop.")]

# Of `fit`; they set what SSRVAEClassifier documents.
ScaleJitterOption = Annotated[
    float,
    typer.Option(min=0, max=0.9, help="Magnification that keeps the class: 0.05 is 5 %. Small where size tells."),
]
ShearJitterOption = Annotated[float, typer.Option(min=0, max=0.9, help="Shear that keeps the class, as a tangent.")]
TranslationOption = Annotated[
    float, typer.Option(min=0, max=0.9, help="Displacement within the crop, as a part of its side.")
]


#: A femtometre and a metre: beyond these a length is a slip of the pen.
_LEAST_NM, _LARGEST_NM = 1e-6, 1e9


def parse_length_nm(text: str) -> float:
    """Read a length with its unit, in nanometres.

    Parameters
    ----------
    text : str
        A number and pm, A, nm, um or mm.

    Returns
    -------
    float

    Raises
    ------
    ConfigError
        If it is not a positive length with a unit.

    Examples
    --------
    >>> parse_length_nm("1.2nm"), parse_length_nm("0.5 um")
    (1.2, 500.0)
    """
    units = {"pm": 1e-3, "a": 0.1, "å": 0.1, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "mm": 1e6}
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e-?\d+)?|\.\d+)\s*([^\W\d]+)\s*", text.lower())
    if not match or match[2] not in units or float(match[1]) <= 0:
        raise ConfigError(f"--pixel-size {text!r}: is not a positive length with its unit. Write for example 1.2nm.")
    length_nm = float(match[1]) * units[match[2]]
    if not _LEAST_NM <= length_nm <= _LARGEST_NM:
        raise ConfigError(f"--pixel-size {text!r}: no microscope has such pixels (1 fm to 1 m). Check the unit.")
    return length_nm


def parse_threshold(text: str) -> Literal["local", "otsu"] | float:
    """Read a threshold: the name of a method, or an intensity.

    Parameters
    ----------
    text : str
        ``local``, ``otsu`` or a number.

    Returns
    -------
    str or float

    Raises
    ------
    ConfigError
        If it is none of these.

    Examples
    --------
    >>> parse_threshold("otsu"), parse_threshold("120")
    ('otsu', 120.0)
    """
    if text == "local" or text == "otsu":
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--threshold {text!r}: must be local, otsu or an intensity of the image.") from None
