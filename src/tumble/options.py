"""Options of the command line: what they are for, their choices, and how their text is read."""

from __future__ import annotations

import ast
import difflib
import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tumble.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Background",
    "BackgroundOption",
    "Banner",
    "BannerOption",
    "Border",
    "BorderOption",
    "BoxesOption",
    "CentroidUnitOption",
    "CentroidsOption",
    "CropScaleOption",
    "CropSizeOption",
    "DiameterOption",
    "LibraryArgument",
    "MasksOption",
    "MaxAreaOption",
    "MaxSizeOption",
    "MinAreaOption",
    "MinSizeOption",
    "ModelOption",
    "Neighbours",
    "NeighboursOption",
    "OutlineOption",
    "PixelSizeOption",
    "Polarity",
    "PolarityOption",
    "PreviewOption",
    "QuietOption",
    "ScaleJitterOption",
    "SchedulerOption",
    "SettingsOption",
    "ShearJitterOption",
    "SmoothingOption",
    "SplitBy",
    "SplitByOption",
    "SplitTouchingOption",
    "ThresholdOption",
    "TranslationOption",
    "WindowOption",
    "parse_length_nm",
    "parse_settings",
    "parse_threshold",
]


class Polarity(StrEnum):
    """Particles brighter or darker than the background."""

    auto = "auto"
    bright = "bright"
    dark = "dark"
    both = "both"


class Border(StrEnum):
    """What to do with particles cut off by the edge of the image."""

    pad = "pad"
    keep = "keep"
    exclude = "exclude"
    flag = "flag"
    drop = "drop"


class Background(StrEnum):
    """How uneven illumination is removed."""

    surface = "surface"
    local = "local"


class SplitBy(StrEnum):
    """Where clusters of touching particles are cut."""

    distance = "distance"
    intensity = "intensity"


class Banner(StrEnum):
    """What to do with the data banner below an image."""

    exclude = "exclude"
    keep = "keep"


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

SchedulerOption = Annotated[
    str | None,
    typer.Option(
        help="Spread the work over a Dask cluster: local (all processors of this machine) or the address of a "
        "scheduler, such as tcp://host:8786. Default: this process alone."
    ),
]

SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other parameter of tumble.SSRVAEClassifier, such as calibrate=false or class_prior=learned; may be "
        "given several times.",
    ),
]

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
SplitByOption = Annotated[
    SplitBy | None, typer.Option(help="Cut clusters at necks (distance) or where the intensity dips.")
]
BorderOption = Annotated[
    Border,
    typer.Option(
        help="Particles at the edge of the image: pad their crops with background, keep with the crop moved into the "
        "image, or exclude. flag and drop are former names of pad and exclude."
    ),
]
BackgroundOption = Annotated[
    Background, typer.Option(help="Uneven illumination: a smooth surface, or a local median for stains and stripes.")
]
MinSizeOption = Annotated[str | None, typer.Option(help="Smallest particle as a diameter with its unit, such as 5nm.")]
MaxSizeOption = Annotated[str | None, typer.Option(help="Largest particle as a diameter with its unit, such as 2um.")]
CropScaleOption = Annotated[
    str | None,
    typer.Option(
        "--crop-nm-per-px",
        "--resolution",
        help="Edge of a pixel of the crops with its unit, such as 2nm: one scale for images of different pixel size.",
    ),
]
BannerOption = Annotated[Banner, typer.Option(help="The data banner below the images of scanning microscopes.")]
PreviewOption = Annotated[
    Path | None, typer.Option(help="Only draw what would be extracted from the first image, into this PNG.")
]
MasksOption = Annotated[
    str | None,
    typer.Option(help="Particles from a label image or mask, ImageJ ROIs (.roi, .zip) or COCO polygons (.json)."),
]
BoxesOption = Annotated[str | None, typer.Option(help="Particles in boxes: COCO .json, YOLO .txt or .csv.")]
CentroidsOption = Annotated[str | None, typer.Option(help="Particles at points: .csv, also ImageJ's results.")]
DiameterOption = Annotated[
    str | None,
    typer.Option(help="With --centroids: discs of this diameter, 20px or 5nm. Default: outlines by segmentation."),
]
OutlineOption = Annotated[
    str, typer.Option(help="With --boxes: outlines by segmentation (segment) or the boxes themselves (shape).")
]
CentroidUnitOption = Annotated[str, typer.Option(help="With --centroids: px or nm.")]
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


def parse_length_nm(text: str, option: str = "--pixel-size") -> float:
    """Read a length with its unit, in nanometres.

    Parameters
    ----------
    text : str
        A number and pm, A, nm, um or mm.
    option : str
        Where it was given, for the message.

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
        raise ConfigError(f"{option} {text!r}: is not a positive length with its unit. Write for example 1.2nm.")
    length_nm = float(match[1]) * units[match[2]]
    if not _LEAST_NM <= length_nm <= _LARGEST_NM:
        raise ConfigError(f"{option} {text!r}: nothing in a micrograph is so long (1 fm to 1 m). Check the unit.")
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


def parse_settings(pairs: Iterable[str], known: Iterable[str]) -> dict[str, Any]:
    """Read parameters of an estimator from texts such as "calibrate=false".

    Parameters
    ----------
    pairs : iterable of str
        NAME=VALUE; the value is JSON (a number, true, false, null, a list) or as in Python (.5, None, a tuple), or else
        text as it stands.
    known : iterable of str
        The names there are.

    Returns
    -------
    dict
        Name to value.

    Raises
    ------
    ConfigError
        If a text has no "=", or its name is none of the known ones.

    Examples
    --------
    >>> parse_settings(["calibrate=false", "precision=bfloat16"], ["calibrate", "precision"])
    {'calibrate': False, 'precision': 'bfloat16'}
    >>> parse_settings(["scale_jitter=.25", "invariances=('rotation',)"], ["invariances", "scale_jitter"])
    {'scale_jitter': 0.25, 'invariances': ('rotation',)}
    """
    names, found = sorted(known), {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: expected NAME=VALUE, for example calibrate=false.")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(names)}."
            raise ConfigError(f"--set {pair}: the model has no parameter {name!r}. {hint}")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = _as_python(text)
    return found


def _as_python(text: str) -> Any:
    """Read a value as Python writes it, for those who copy from a notebook (True, .5, ("rotation",)); else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
