"""Pixel size and instrument metadata from the dialects of TIFF that microscopes and their software write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import tifffile

__all__ = ["instrument_metadata", "pixel_size_of_tiff"]

#: Nanometres in one unit, by the names that OME, ImageJ and Zeiss give them.
NM_PER_UNIT = {
    "pm": 1e-3,
    "å": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "µm": 1e3,  # micro sign
    "μm": 1e3,  # Greek letter mu
    "\\u00b5m": 1e3,  # as ImageJ writes the micro sign
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "m": 1e9,
}

#: Edges that differ by more than this are not one pixel size.
SQUARE_TOLERANCE = 0.01


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
    for dialect in (_ome_sizes, _imagej_sizes, _fei_sizes, _zeiss_sizes):
        sizes = [size for size in dialect(tiff) if size is not None]
        if not sizes:
            continue
        if not all(math.isfinite(size) and size > 0 for size in sizes):
            return None, "the pixel size in the file is not a positive number and was not used"
        if max(sizes) / min(sizes) - 1 > SQUARE_TOLERANCE:
            edges = " x ".join(f"{size:g}" for size in sizes)
            return None, f"the pixels are not square ({edges} nm); their size was not used"
        return sizes[0], ""
    return None, ""


def instrument_metadata(tiff: tifffile.TiffFile) -> dict[str, Any]:
    """Collect what FEI and Zeiss microscopes write into their files, JSON-serialisable.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        An open file.

    Returns
    -------
    dict
        ``{"instrument": name, "settings": {...}}``; empty for other files.
    """
    for name, settings in (("FEI", tiff.fei_metadata), ("Zeiss", tiff.sem_metadata)):
        if isinstance(settings, Mapping):
            named = {str(key): value for key, value in settings.items() if key}
            return {"instrument": name, "settings": json.loads(json.dumps(named, default=str))}
    return {}


def _ome_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    if not tiff.is_ome or not tiff.ome_metadata:
        return []
    image = tifffile.xml2dict(tiff.ome_metadata).get("OME", {}).get("Image", {})
    image = image[0] if isinstance(image, list | tuple) else image
    pixels = image.get("Pixels", {})
    # The OME schema makes µm the unit of sizes that come without one.
    return [_in_nm(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "XY"]


def _imagej_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    unit = (tiff.imagej_metadata or {}).get("unit")
    if not tiff.is_imagej or not unit:
        return []
    tags = tiff.series[0].keyframe.tags
    sizes: list[float | None] = []
    for name in ("XResolution", "YResolution"):  # pixels per unit, as a fraction
        numerator, denominator = tags[name].value if name in tags else (0, 1)
        sizes.append(_in_nm(denominator / numerator if numerator else None, unit))
    return sizes


def _fei_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    metadata = tiff.fei_metadata
    if not isinstance(metadata, Mapping):
        return []
    scan = metadata.get("Scan") or metadata.get("EScan") or {}
    return [_in_nm(scan.get("PixelWidth"), "m"), _in_nm(scan.get("PixelHeight"), "m")]


def _zeiss_sizes(tiff: tifffile.TiffFile) -> list[float | None]:
    metadata = tiff.sem_metadata
    if not isinstance(metadata, Mapping):
        return []
    # Each entry is (label, value, unit). "Image Pixel Size" is that of the saved image.
    entry = metadata.get("ap_image_pixel_size") or metadata.get("ap_pixel_size") or ()
    return [_in_nm(entry[1], entry[2])] if len(entry) == 3 else []


def _in_nm(value: Any, unit: Any) -> float | None:
    factor = NM_PER_UNIT.get(str(unit).strip()) or NM_PER_UNIT.get(str(unit).strip().lower())
    if factor is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value) * factor
    except ValueError:
        return None
