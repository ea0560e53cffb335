"""What an extraction finds, drawn over the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from tumble.micrograph import intensity_range, to_uint8

if TYPE_CHECKING:
    from tumble.types import Micrograph, Particles

__all__ = ["draw_preview"]

#: Colours that people with any kind of colour vision tell apart (Okabe and Ito).
PARTICLE, AT_BORDER, REJECTED = (0, 158, 115), (230, 159, 0), (204, 121, 167)

#: A preview is for a screen.
MAX_SIDE_PX = 4096

#: Lengths of scale bars.
NICE = (1, 2, 5)


def draw_preview(
    micrograph: Micrograph, particles: Particles, objects: npt.NDArray[np.int32] | None = None
) -> npt.NDArray[np.uint8]:
    """Draw the outlines of particles over their micrograph.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    particles : Particles
        Its particles: green, or orange where they touch the edge of the image.
    objects : ndarray of shape (H, W), int32, or None
        All objects that were found; those that are no particles are drawn in pink.

    Returns
    -------
    ndarray of shape (h, w, 3), uint8
        The image, with a strip below that says how many there are and how large, and a scale bar where the pixel size
        is known. Large images are reduced by a whole number, small ones are enlarged.
    """
    grey = to_uint8(micrograph.pixels, intensity_range(micrograph.pixels))
    if micrograph.pixels.dtype == np.uint8:  # of low contrast, perhaps: here it is only looked at
        low, high = np.percentile(grey, (0.1, 99.9))
        grey = to_uint8(grey, (float(low), float(max(high, low + 1))))
    factor = _factor(grey.shape)
    rejected = _rejected(particles.mask, objects)
    at_border = np.concatenate([[False], particles.table["touches_border"].to_numpy(bool)])[particles.mask]
    picture = np.repeat(_scaled(grey, factor)[..., None], 3, axis=2)
    line = max(1, round(max(picture.shape) / 1500))
    for labels, colour in (
        (rejected, REJECTED),
        (np.where(at_border, 0, particles.mask), PARTICLE),
        (np.where(at_border, particles.mask, 0), AT_BORDER),
    ):
        scaled = _scaled(labels, factor)
        edge = find_boundaries(scaled, mode="inner")
        for _ in range(line - 1):
            edge |= find_boundaries(np.where(edge, 0, scaled), mode="inner")
        picture[edge] = colour
    n_rejected = len(np.unique(rejected)) - 1 if rejected.any() else 0
    n_border = int(np.count_nonzero(particles.table["touches_border"]))
    return _with_caption(picture, micrograph, particles, n_border, n_rejected, factor)


def _factor(shape: tuple[int, ...]) -> float:
    """Magnification of the preview: a whole number, or one over it."""
    longest = max(shape)
    if longest > MAX_SIDE_PX:
        return 1 / math.ceil(longest / MAX_SIDE_PX)
    return max(1, round(1800 / longest))


def _scaled(values: npt.NDArray[Any], factor: float) -> npt.NDArray[Any]:
    if factor >= 1:
        return values.repeat(int(factor), 0).repeat(int(factor), 1)
    step = round(1 / factor)
    return values[::step, ::step]


def _rejected(mask: npt.NDArray[np.int32], objects: npt.NDArray[np.int32] | None) -> npt.NDArray[np.int32]:
    return np.zeros_like(mask) if objects is None else np.where(mask == 0, objects, 0)


def _with_caption(
    picture: npt.NDArray[np.uint8],
    micrograph: Micrograph,
    particles: Particles,
    n_border: int,
    n_rejected: int,
    factor: float,
) -> npt.NDArray[np.uint8]:
    size = int(np.clip(picture.shape[1] // 60, 12, 40))
    words = _caption(micrograph, particles)
    strip = Image.new("RGB", (picture.shape[1], round(3.4 * size)), (20, 20, 20))
    draw = ImageDraw.Draw(strip)
    while words and draw.textlength(words, font_size=size) > strip.size[0] - size:
        words = words.rpartition("; ")[0]  # what was found first counts most
    draw.text((size // 2, size // 2), words, fill=(240, 240, 240), font_size=size)
    x = float(size // 2)
    for count, text, colour in (
        (len(particles) - n_border, "particles", PARTICLE),
        (n_border, "at the edge", AT_BORDER),
        (n_rejected, "left out by size or edge", REJECTED),
    ):
        if count:
            top = round(2.1 * size)
            draw.rectangle((x, top, x + 0.7 * size, top + 0.7 * size), fill=colour)
            label = f"{count} {text}"
            draw.text((x + size, 1.9 * size), label, fill=(240, 240, 240), font_size=size)
            x += size * 2 + draw.textlength(label, font_size=size)
    if micrograph.pixel_size_nm is not None:
        _scale_bar(draw, strip.size, micrograph.pixel_size_nm / factor, size, x)
    return np.vstack([picture, np.asarray(strip)])


def _caption(micrograph: Micrograph, particles: Particles) -> str:
    unit = "nm" if micrograph.pixel_size_nm is not None else "px"
    diameters = particles.table[f"equivalent_diameter_{unit}"]
    low, middle, high = np.percentile(diameters, (5, 50, 95))
    text = f"diameter {middle:.3g} {unit} (5 to 95 %: {low:.3g} to {high:.3g})"
    return (
        f"{text}; {particles.parameters.get('polarity', '')} objects, {particles.parameters.get('threshold_used', '')}"
    )


def _scale_bar(draw: ImageDraw.ImageDraw, size: tuple[int, int], nm_per_px: float, font: int, free_from: float) -> None:
    """Draw a bar of 1, 2 or 5 times a power of ten, at the right of the strip."""
    target_nm = nm_per_px * size[0] / 6
    power = 10.0 ** math.floor(math.log10(target_nm))
    length_nm = power * max(n for n in NICE if n * power <= target_nm)
    bar = length_nm / nm_per_px
    right, bottom = size[0] - font // 2, size[1] - font // 2
    text = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    left = right - bar
    if left - draw.textlength(text, font_size=font) - font < free_from:
        return  # no room
    draw.rectangle((left, bottom - font // 3, right, bottom), fill=(255, 255, 255))
    draw.text((left - font // 2, bottom - font), text, fill=(240, 240, 240), font_size=font, anchor="ra")
