"""Pixel size and instrument metadata from the dialects of TIFF that microscopes and their software write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tifffile

from tumble.micrograph.convert import plain_metadata
from tumble.micrograph.units import length_nm, square_pixel_size

__all__ = ["banner_row_of_tiff", "instrument_metadata", "pixel_size_of_tiff"]


def pixel_size_of_tiff(tiff: tifffile.TiffFile) -> tuple[float | None, str]:
    """Find the edge of a pixel in the metadata of an instrument or of ImageJ.

    The resolution tags of plain TIFF are left alone: most programs fill them with the dpi of a screen.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        An open file.

    Returns
    -------
    pixel_size_nm : float or None
        None where the file does not say, or says something that cannot be.
    note : str
        Why a size that the file gives was not used; empty otherwise.
    """
    for dialect in (_ome_sizes, _imagej_sizes, _fei_sizes, _zeiss_sizes, _jeol_sizes, _gatan_sizes, _sis_sizes):
        sizes = [size for size in dialect(tiff) if size is not None]
        if sizes:
            return square_pixel_size(sizes)
    return None, ""


def instrument_metadata(tiff: tifffile.TiffFile) -> dict[str, Any]:
    """Collect what FEI/Thermo, Zeiss, JEOL and Olympus instruments write into their files, JSON-serialisable.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        An open file.

    Returns
    -------
    dict
        ``{"instrument": name, "settings": {...}}``, with ``"magnification"`` where the file has it; empty for
        other files.
    """
    for name, settings in (
        ("FEI", tiff.fei_metadata),
        ("Zeiss", tiff.sem_metadata),
        ("JEOL", _jeol_settings(tiff)),
        ("Olympus", tiff.sis_metadata),
    ):
        if isinstance(settings, Mapping) and settings:
            named = plain_metadata({key: value for key, value in settings.items() if key})
            magnification = _magnification(settings)
            more = {} if magnification is None else {"magnification": magnification}
            return {"instrument": name, "settings": named, **more}
    return {}


def banner_row_of_tiff(tiff: tifffile.TiffFile) -> int | None:
    """Give the first row of the data banner of an FEI/Thermo image, which has more rows than were scanned."""
    metadata = tiff.fei_metadata
    image = metadata.get("Image") if isinstance(metadata, Mapping) else None
    if not isinstance(image, Mapping):
        return None
    page = tiff.series[0].keyframe
    rows, columns = image.get("ResolutionY"), image.get("ResolutionX")
    if isinstance(rows, int) and columns == page.imagewidth and 0 < rows < page.imagelength:
        return rows
    return None


def _magnification(settings: Mapping[str, Any]) -> float | None:
    """Magnification in the settings of any instrument, None where there is none."""
    zeiss = settings.get("ap_mag")  # (label, value, unit)
    candidates = [
        zeiss[1] if isinstance(zeiss, list | tuple) and len(zeiss) > 1 else None,
        settings.get("magnification"),
        settings.get("SelectorValue") if settings.get("ModeString") == "MAG" else None,
    ]
    for value in candidates:
        number = re.fullmatch(r"\s*([\d.]+)\s*(K?)\s*X?\s*", str(value), re.IGNORECASE)
        if number and number[1].count(".") <= 1 and number[1] != ".":
            return float(number[1]) * (1000.0 if number[2] else 1.0)
    return None


def _ome_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    if not tiff.is_ome or not tiff.ome_metadata:
        return []
    ome = tifffile.xml2dict(tiff.ome_metadata).get("OME")
    image = ome.get("Image") if isinstance(ome, Mapping) else None
    image = image[0] if isinstance(image, list | tuple) and image else image
    pixels = image.get("Pixels") if isinstance(image, Mapping) else None
    if not isinstance(pixels, Mapping):
        return []
    # The OME schema makes µm the unit of sizes that come without one.
    return [length_nm(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "XY"]


def _imagej_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    unit = (tiff.imagej_metadata or {}).get("unit")
    if not tiff.is_imagej or not unit:
        return []
    tags = tiff.series[0].keyframe.tags
    sizes: list[float | None] = []
    for name in ("XResolution", "YResolution"):  # pixels per unit, as a fraction
        numerator, denominator = tags[name].value if name in tags else (0, 1)
        sizes.append(length_nm(denominator / numerator if numerator else None, unit))
    return sizes


def _fei_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    metadata = tiff.fei_metadata
    if not isinstance(metadata, Mapping):
        return []
    scan = metadata.get("Scan") or metadata.get("EScan") or {}
    return [length_nm(scan.get("PixelWidth"), "m"), length_nm(scan.get("PixelHeight"), "m")]


def _zeiss_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    metadata = tiff.sem_metadata
    if not isinstance(metadata, Mapping):
        return []
    # Each entry is (label, value, unit). "Image Pixel Size" is that of the saved image.
    entry = metadata.get("ap_image_pixel_size") or metadata.get("ap_pixel_size") or ()
    return [length_nm(entry[1], entry[2])] if len(entry) == 3 else []


def _jeol_settings(tiff: tifffile.TiffFile) -> dict[str, Any]:
    """Read the settings of JEOL's SightX, an XML report in the image description, without its nesting."""
    tags = tiff.series[0].keyframe.tags
    make, description = tags.get("Make"), tags.get("ImageDescription")
    if make is None or description is None or not str(make.value).startswith("JEOL"):
        return {}
    text = "".join(line.strip(" \r\t\x00\x01") for line in str(description.value).split("\n"))
    return dict(re.findall(r"<(\w+)>([^<>]+)</\1>", text))


def _jeol_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    """Pixels on the camera, which the resolution tags give here, over the magnification of an image in TEM."""
    settings = _jeol_settings(tiff)
    if settings.get("EosMode") != "eosTEM" or settings.get("ModeString") != "MAG":
        return []
    magnification = length_nm(settings.get("SelectorValue"), "nm")
    tags = tiff.series[0].keyframe.tags
    unit_nm = 2.54e7 if "ResolutionUnit" in tags and tags["ResolutionUnit"].value == 2 else 1e7
    sizes: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        numerator, denominator = tags[name].value if name in tags else (0, 1)
        known = numerator and magnification and magnification > 0
        sizes.append(unit_nm * denominator / numerator / magnification if known and magnification else None)
    return sizes


def _gatan_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    """Scale and unit of the two axes, in the private tags of Gatan's DigitalMicrograph."""
    tags = tiff.series[0].keyframe.tags
    axes = ((65003, 65009), (65004, 65010))  # unit and scale of x, then of y
    return [length_nm(tags[scale].value, tags[unit].value) for unit, scale in axes if scale in tags and unit in tags]


def _sis_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    """Edges that Olympus' imaging software writes in metres."""
    metadata = tiff.sis_metadata
    if not isinstance(metadata, Mapping):
        return []
    return [length_nm(metadata.get(name), "m") for name in ("pixelsizex", "pixelsizey")]
