"""``tumble extract``: particles of images into a library, or a preview of what would go there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from tumble import options as opt
from tumble.console import ProgressDisplay, guarded, note, result
from tumble.errors import ConfigError

if TYPE_CHECKING:
    from tumble.pipeline import Annotations, ExtractedFile
    from tumble.types import Micrograph, Particles

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(extract)


@guarded
def extract(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="TIFF, PNG, JPEG, BMP, NPY, MRC or HDF5 files (file.h5:/path); with the extra formats also DM3, DM4, "
            "EMD, SER, HSPY, ZSPY and Zarr. Every frame of a stack is an image of its own.",
        ),
    ],
    library: Annotated[
        str | None, typer.Option("--library", "-l", help="Library to add to; made if it does not exist.")
    ] = None,
    pixel_size: opt.PixelSizeOption = None,
    polarity: opt.PolarityOption = opt.Polarity.auto,
    threshold: opt.ThresholdOption = "local",
    smoothing: opt.SmoothingOption = 1.0,
    background: opt.BackgroundOption = opt.Background.surface,
    min_area: opt.MinAreaOption = None,
    max_area: opt.MaxAreaOption = None,
    min_size: opt.MinSizeOption = None,
    max_size: opt.MaxSizeOption = None,
    crop_size: opt.CropSizeOption = 48,
    window: opt.WindowOption = None,
    crop_nm_per_px: opt.CropScaleOption = None,
    split_touching: opt.SplitTouchingOption = False,
    split_by: opt.SplitByOption = None,
    border: opt.BorderOption = opt.Border.pad,
    neighbours: opt.NeighboursOption = opt.Neighbours.mask,
    banner: opt.BannerOption = opt.Banner.exclude,
    masks: opt.MasksOption = None,
    boxes: opt.BoxesOption = None,
    centroids: opt.CentroidsOption = None,
    diameter: opt.DiameterOption = None,
    outline: opt.OutlineOption = "segment",
    coordinates: opt.CentroidUnitOption = "px",
    preview: opt.PreviewOption = None,
    scheduler: opt.SchedulerOption = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Find, measure and cut out the particles of images, and add them to a library.

    An image that the library has already is left alone. Particles that another program found are taken with
    --masks, --boxes or --centroids.

    Example: [bold]tumble extract sem1.tif sem2.tif --library particles.db --pixel-size 1.2nm[/bold]

    Example: [bold]tumble extract sem1.tif --preview found.png --split-by intensity[/bold]

    Example: [bold]tumble extract sem*.tif --library particles.db --scheduler local[/bold]
    """
    if (library is None) == (preview is None):
        raise ConfigError("Give either --library LIBRARY, to store the particles, or --preview OUT.png, to look first.")
    if preview is not None and scheduler is not None:
        raise ConfigError("--scheduler goes with --library: a preview is of one image.")
    pixel_size_nm = _length(pixel_size, "--pixel-size")
    with ProgressDisplay(quiet=quiet) as display:
        display.step("Loading")
        from tumble.pipeline import ExtractionOptions, extract_files, write_preview

        options = ExtractionOptions(
            polarity=polarity.value,
            threshold=opt.parse_threshold(threshold),
            smoothing_px=smoothing,
            background=background.value,
            min_area_px=min_area,
            max_area_px=max_area,
            min_size_nm=_length(min_size, "--min-size"),
            max_size_nm=_length(max_size, "--max-size"),
            split_touching=split_by.value if split_by else split_touching,
            border=border.value,
            crop_size=crop_size,
            window_px=window,
            crop_nm_per_px=_length(crop_nm_per_px, "--crop-nm-per-px"),
            neighbours=neighbours.value,
        )
        given = _annotations(masks, boxes, centroids, diameter, outline, coordinates, pixel_size_nm)
        if preview is not None:
            display.step("Extracting")
            shown = write_preview(
                images[0],
                preview,
                pixel_size_nm=pixel_size_nm,
                options=options,
                annotations=given,
                banner=banner.value,
            )
            stored = []
        else:
            assert library is not None
            shown = None
            stored = extract_files(
                library,
                images,
                pixel_size_nm=pixel_size_nm,
                options=options,
                annotations=given,
                banner=banner.value,
                progress=display.advance,
                scheduler=scheduler,
            )
    if shown is not None:
        _print_preview(*shown, str(preview), len(images))
    else:
        _print_files(str(library), stored)


def _print_preview(micrograph: Micrograph, particles: Particles, out: str, n_images: int) -> None:
    result(f"{micrograph.source}: {len(particles)} particles; drawn in {out}, nothing was stored")
    for text in micrograph.notes:
        result(f"  note: {text}")
    if n_images > 1:
        note(f"Only the first of the {n_images} images is drawn.")
    note("Next: the same command with --library LIBRARY in place of --preview.")


def _print_files(library: str, files: list[ExtractedFile]) -> None:
    for file in files:
        state = "added" if file.added else "was there already, unchanged"
        result(f"{file.path}: {file.n_particles} particles, micrograph {file.micrograph_id}, {state}")
        for text in file.notes:
            result(f"  note: {text}")
    note(f"Next: give some particles a class, in the browser with `tumble app {library}`, or with `tumble label`.")


def _length(text: str | None, option: str) -> float | None:
    return None if text is None else opt.parse_length_nm(text, option)


def _annotations(
    masks: str | None,
    boxes: str | None,
    centroids: str | None,
    diameter: str | None,
    outline: str,
    coordinates: str,
    pixel_size_nm: float | None,
) -> Annotations | None:
    """Put together what says where the particles are."""
    from tumble.pipeline import Annotations

    given = {"masks": masks, "boxes": boxes, "centroids": centroids}
    chosen = [(kind, path) for kind, path in given.items() if path is not None]
    if len(chosen) > 1:
        raise ConfigError("Give one of --masks, --boxes and --centroids.")
    kind, path = chosen[0] if chosen else ("", "")
    for option, value, plain, owner in (
        ("--diameter", diameter, None, "centroids"),
        ("--coordinates", coordinates, "px", "centroids"),
        ("--outline", outline, "segment", "boxes"),
    ):
        if value != plain and kind != owner:
            raise ConfigError(f"{option} goes with --{owner}.")
    if outline not in ("segment", "shape"):
        raise ConfigError(f"--outline {outline!r}: must be segment or shape.")
    if coordinates not in ("px", "nm"):
        raise ConfigError(f"--coordinates {coordinates!r}: must be px or nm.")
    if not chosen:
        return None
    return Annotations(
        path,
        cast("Literal['masks', 'boxes', 'centroids']", kind),
        diameter_px=_diameter_px(diameter, pixel_size_nm),
        outline=cast("Literal['segment', 'shape']", outline),
        in_nm=coordinates == "nm",
    )


def _diameter_px(text: str | None, pixel_size_nm: float | None) -> float | None:
    if text is None:
        return None
    if text.strip().lower().endswith("px"):
        try:
            return float(text.strip()[:-2])
        except ValueError:
            raise ConfigError(f"--diameter {text!r}: is no number of px. Write for example 20px.") from None
    length_nm = opt.parse_length_nm(text, "--diameter")
    if pixel_size_nm is None:
        raise ConfigError(f"--diameter {text!r}: in nm needs --pixel-size; or give it in px, such as 20px.")
    return length_nm / pixel_size_nm
