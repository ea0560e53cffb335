"""Text files that some microscopes write beside their images: JEOL, Hitachi and TESCAN."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tumble.micrograph.convert import plain_metadata
from tumble.micrograph.units import length_nm, square_pixel_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Sidecar", "read_sidecar"]

#: None of these files is longer than a few kilobytes.
MAX_BYTES = 200_000


@dataclass(frozen=True)
class Sidecar:
    """What a text file beside an image says about it."""

    pixel_size_nm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def read_sidecar(image: Path, shape: tuple[int, ...]) -> Sidecar:
    """Read the text file that lies beside an image, if it is of a known kind.

    Parameters
    ----------
    image : Path
        The image file.
    shape : tuple of int
        Rows and columns of the image. Sizes that the text gives for an image of another width are not used.

    Returns
    -------
    Sidecar
        Empty where there is no such file.

    Notes
    -----
    JEOL scanning microscopes write ``NAME.txt`` with ``$CM_FORMAT JEOL-SEM``, the length of the scale bar in px
    (``$$SM_MICRON_BAR``) and as a length (``$$SM_MICRON_MARKER``); Hitachi writes ``NAME.txt`` with ``PixelSize``
    in nm; TESCAN writes ``NAME.hdr`` or ``NAME-SUFFIX.hdr`` with ``PixelSizeX`` and ``PixelSizeY`` in m.
    """
    beside = (
        image.with_suffix(".txt"),
        image.with_suffix(".hdr"),
        image.with_name(f"{image.stem}-{image.suffix[1:]}.hdr"),
    )
    for file in beside:
        try:
            if not file.is_file() or file.stat().st_size > MAX_BYTES:
                continue
            content = file.read_bytes()
        except OSError:  # of another user, perhaps; the image can be read without
            continue
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", "replace")
        for dialect in (_jeol, _hitachi, _tescan):
            found = dialect(text, shape)
            if found is not None:
                return found
    return Sidecar()


def _made(name: str, settings: dict[str, str], sizes: list[float | None], magnification: str | None) -> Sidecar:
    pixel_size_nm, note = square_pixel_size(sizes)
    metadata: dict[str, Any] = {"instrument": name, "settings": plain_metadata(settings)}
    number = re.match(r"\s*[xX×]?\s*([\d.]+(?:[eE][+-]?\d+)?)", magnification or "")
    if number:
        metadata["magnification"] = float(number[1])
    return Sidecar(pixel_size_nm, metadata, note)


def _jeol(text: str, shape: tuple[int, ...]) -> Sidecar | None:
    settings = dict(re.findall(r"^(\$+\w+)[ \t]+(.*?)[ \t\r]*$", text, re.MULTILINE))
    if "JEOL" not in settings.get("$CM_FORMAT", ""):
        return None
    bar = settings.get("$$SM_MICRON_BAR", "")
    marker = re.fullmatch(r"([\d.]+)\s*([^\d\s.]+)", settings.get("$$SM_MICRON_MARKER", ""))
    full = re.match(r"(\d+)", settings.get("$CM_FULL_SIZE", ""))
    same_size = full is None or int(full[1]) == shape[1]
    number = re.fullmatch(r"[\d.]+", bar)
    length = length_nm(marker[1], marker[2]) if marker else None
    bar_px = length_nm(bar, "nm") if number else None  # for its check of the number
    size: list[float | None] = [length / bar_px] if length and bar_px and same_size else []
    found = _made("JEOL", settings, size, settings.get("$CM_MAG"))
    if same_size:
        return found
    return Sidecar(
        None, found.metadata, "the text file beside it is of an image of another width; its scale was not used"
    )


def _hitachi(text: str, shape: tuple[int, ...]) -> Sidecar | None:
    settings = dict(re.findall(r"^(\w+)=(.*?)[ \t\r]*$", text, re.MULTILINE))
    if "PixelSize" not in settings or "[SemImageFile]" not in text:
        return None
    width = re.match(r"(\d+)x", settings.get("DataSize", ""))
    sizes = [length_nm(settings["PixelSize"], "nm")] if width is None or int(width[1]) == shape[1] else []
    return _made("Hitachi", settings, sizes, settings.get("Magnification"))


def _tescan(text: str, shape: tuple[int, ...]) -> Sidecar | None:
    settings = dict(re.findall(r"^(\w+)=(.*?)[ \t\r]*$", text, re.MULTILINE))
    if "PixelSizeX" not in settings or "TESCAN" not in text.upper():
        return None
    sizes = [length_nm(settings.get(name), "m") for name in ("PixelSizeX", "PixelSizeY")]
    return _made("TESCAN", settings, sizes, settings.get("Magnification"))
