"""How particles are found in a micrograph: by segmentation, or from what another program found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

import imageio.v3 as iio

from tumble.errors import ConfigError, InputFileError
from tumble.micrograph import iter_micrographs
from tumble.particles import (
    CropSettings,
    SizeLimits,
    draw_preview,
    extract_particles,
    particles_from_boxes,
    particles_from_centroids,
    particles_from_masks,
    read_boxes,
    read_centroids,
    read_masks,
    segment_particles,
)

if TYPE_CHECKING:
    import os

    from tumble.types import Micrograph, Particles

__all__ = ["Annotations", "ExtractionOptions", "find_particles", "write_preview"]


@dataclass(frozen=True)
class ExtractionOptions:
    """Settings of :func:`tumble.particles.extract_particles`, which documents them; for all files."""

    polarity: Literal["auto", "bright", "dark", "both"] = "auto"
    threshold: Literal["local", "otsu"] | float = "local"
    smoothing_px: float = 1.0
    background: Literal["surface", "local"] = "surface"
    min_area_px: int | None = None
    max_area_px: int | None = None
    min_size_nm: float | None = None
    max_size_nm: float | None = None
    split_touching: bool | Literal["distance", "intensity"] = False
    border: Literal["pad", "keep", "exclude", "flag", "drop"] = "pad"
    crop_size: int = 48
    window_px: int | None = None
    crop_nm_per_px: float | None = None
    neighbours: Literal["mask", "keep"] = "mask"

    def crops(self) -> CropSettings:
        """Give the settings of the crops."""
        return CropSettings(self.crop_size, self.window_px, self.crop_nm_per_px, self.border, self.neighbours)

    def limits(self) -> SizeLimits:
        """Give the smallest and the largest particle."""
        return SizeLimits(self.min_area_px, self.max_area_px, self.min_size_nm, self.max_size_nm)


@dataclass(frozen=True)
class Annotations:
    """A file that says where particles are.

    Parameters
    ----------
    path : str
        The file; see :func:`tumble.particles.read_masks`, `read_boxes` and `read_centroids` for its kinds.
    kind : {"masks", "boxes", "centroids"}
        What it holds.
    diameter_px : float or None
        Of particles given by centroids; None finds their outlines by segmentation.
    outline : {"segment", "shape"}
        Whether the outlines of particles given by boxes are found by segmentation, or are the boxes.
    in_nm : bool
        Whether centroids are in nm and not in px.
    """

    path: str
    kind: Literal["masks", "boxes", "centroids"]
    diameter_px: float | None = None
    outline: Literal["segment", "shape"] = "segment"
    in_nm: bool = False


def find_particles(micrograph: Micrograph, options: ExtractionOptions, annotations: Annotations | None) -> Particles:
    """Find the particles of one micrograph.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    options : ExtractionOptions
        How to extract.
    annotations : Annotations or None
        Where they are, if that was found elsewhere. Of the options, only the limits of size, the border, the crops
        and the polarity count then.

    Returns
    -------
    Particles

    Raises
    ------
    TumbleError
        There are none, or a file or setting cannot be used.
    """
    if annotations is None:
        return extract_particles(
            micrograph,
            polarity=options.polarity,
            threshold=options.threshold,
            smoothing_px=options.smoothing_px,
            background=options.background,
            min_area_px=options.min_area_px,
            max_area_px=options.max_area_px,
            min_size_nm=options.min_size_nm,
            max_size_nm=options.max_size_nm,
            split_touching=options.split_touching,
            border=options.border,
            crop_size=options.crop_size,
            window_px=options.window_px,
            crop_nm_per_px=options.crop_nm_per_px,
            neighbours=options.neighbours,
        )
    path, limits, crops = annotations.path, options.limits(), options.crops()
    if annotations.kind == "masks":
        return particles_from_masks(micrograph, read_masks(path, micrograph), limits=limits, crops=crops, origin=path)
    if annotations.kind == "boxes":
        return particles_from_boxes(
            micrograph,
            read_boxes(path, micrograph),
            outline=annotations.outline,
            polarity=options.polarity,
            limits=limits,
            crops=crops,
            origin=path,
        )
    return particles_from_centroids(
        micrograph,
        read_centroids(path, micrograph, in_nm=annotations.in_nm),
        diameter_px=annotations.diameter_px,
        polarity=options.polarity,
        limits=limits,
        crops=crops,
        origin=path,
    )


def write_preview(
    path: str,
    out: str | os.PathLike[str],
    *,
    pixel_size_nm: float | None = None,
    options: ExtractionOptions | None = None,
    annotations: Annotations | None = None,
    banner: Literal["exclude", "keep"] = "exclude",
) -> tuple[Micrograph, Particles]:
    """Draw what would be extracted over the image; nothing is stored.

    Parameters
    ----------
    path : str
        An image file; of a stack the first frame is shown.
    out : path
        The PNG file to write.
    pixel_size_nm, options, annotations, banner
        As in :func:`tumble.pipeline.extract_into`.

    Returns
    -------
    Micrograph, Particles
        What is drawn.

    Raises
    ------
    TumbleError
        The image cannot be used, or holds no particle.
    """
    target = Path(out).expanduser()
    if target.suffix.lower() != ".png":
        raise ConfigError(f"--preview {out}: a preview is a PNG. Give a name that ends in .png.")
    if PurePath(path) == PurePath(str(out)) or (target.exists() and target.samefile(Path(path.split(":/")[0]))):
        raise ConfigError(f"--preview {out}: is the image itself, which would be lost. Give another name.")
    options = options or ExtractionOptions()
    micrograph = next(iter_micrographs(path, pixel_size_nm=pixel_size_nm, banner=banner))
    particles = find_particles(micrograph, options, annotations)
    objects = None
    if annotations is None:
        found = segment_particles(
            micrograph,
            polarity=options.polarity,
            threshold=options.threshold,
            smoothing_px=options.smoothing_px,
            background=options.background,
            split_touching=options.split_touching,
        )
        objects = found.labels
    try:
        iio.imwrite(target, draw_preview(micrograph, particles, objects))
    except OSError as error:
        raise InputFileError(f"--preview {out}: cannot be written: {error.strerror or error}.") from error
    return micrograph, particles
