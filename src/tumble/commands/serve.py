"""``tumble serve`` and ``tumble watch``: a model's word while the microscope runs."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tumble import options as opt
from tumble.console import ProgressDisplay, guarded, note, result
from tumble.errors import ConfigError, InputFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tumble.pipeline import ExtractionOptions
    from tumble.service.watch import WatchedFile

__all__ = ["register"]

TOKEN_VARIABLE = "TUMBLE_TOKEN"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(serve)
    app.command()(watch)


@guarded
def serve(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a model, or an ONNX file with its classifier.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to serve; any but 127.0.0.1 can be reached by others and needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(help=f"What every request must carry. Better in the environment variable {TOKEN_VARIABLE}."),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Crops that are classified together.")] = 256,
    max_wait: Annotated[float, typer.Option(min=0, max=10_000, help="How long a crop waits for others, in ms.")] = 2.0,
    max_upload: Annotated[float, typer.Option(min=0.01, max=4096, help="Largest request, in MB.")] = 128.0,
    polarity: opt.PolarityOption = opt.Polarity.auto,
    window: opt.WindowOption = None,
    crop_nm_per_px: opt.CropScaleOption = None,
    split_touching: opt.SplitTouchingOption = False,
) -> None:
    """Classify what is sent over HTTP, one crop or whole micrographs, until Ctrl-C.

    POST /classify takes an image as the form field "file"; with ?kind=micrograph its particles are found first, by the
    last four options. Also /model, /health, /metrics and /openapi.json. From Python: tumble.client.Client.

    Example: [bold]tumble serve model --port 8000[/bold]
    """
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    with ProgressDisplay() as display:
        display.step("Loading")
        from tumble.app.security import Security
        from tumble.service.app import ServiceSettings, create_service
        from tumble.service.guard import BodyLimits
        from tumble.service.model import load_served_model
        from tumble.service.run import run_service

        Security(host, token)  # a wrong address shall not wait for the model
        served = load_served_model(model)
        settings = ServiceSettings(
            host=host,
            token=token,
            max_batch=max_batch,
            max_wait_s=max_wait / 1000,
            max_waiting=max(8192, max_batch),
            body=BodyLimits(max_bytes=int(max_upload * 2**20)),
            extraction=_options(polarity, window, crop_nm_per_px, split_touching, served.image_shape[1]),
        )
        app = create_service(served, settings)

    def ready(bound: int) -> None:
        address = f"[{host}]" if ":" in host else host
        result(f"Serving {served.name!r} (classes {', '.join(served.classes)}) at http://{address}:{bound}")
        if served.kind == "classifier":
            note("An exported classifier: no pose, latent factors and novelty.")
        if token is not None:
            note("Every request needs the header Authorization: Bearer TOKEN.")
        note("Stop with Ctrl-C.")

    with _terminated_like_interrupted():  # uvicorn raises the signal again when it has shut down
        run_service(app, host=host, port=port, on_ready=ready)
    note("Stopped; every request that had arrived was answered.")


@guarded
def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the instrument saves its images.")],
    library: Annotated[str, typer.Option("--library", "-l", help="Library to add to; made if it does not exist.")],
    model: opt.ModelOption,
    once: Annotated[bool, typer.Option("--once", help="Take what lies there, and end.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Also folders within the folder.")] = False,
    settle: Annotated[
        float, typer.Option(min=0, help="A file is read when it has not changed for so many seconds.")
    ] = 2.0,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks into the folder.")] = 1.0,
    tries: Annotated[
        int | None, typer.Option(min=1, help="Tries of a file that cannot be used. Default: 8, with --once 2.")
    ] = None,
    pixel_size: opt.PixelSizeOption = None,
    polarity: opt.PolarityOption = opt.Polarity.auto,
    window: opt.WindowOption = None,
    crop_nm_per_px: opt.CropScaleOption = None,
    split_touching: opt.SplitTouchingOption = False,
    banner: opt.BannerOption = opt.Banner.exclude,
) -> None:
    """Extract and classify new images of a folder as an instrument saves them, until Ctrl-C.

    Half-written files are waited for, those that cannot be read tried again. Images that the library has are left
    alone, so that the command can be stopped and started at any time.

    Example: [bold]tumble watch images --library particles.db --model model[/bold]
    """
    with ProgressDisplay() as display:
        display.step("Loading")
        from tumble.service.watch import FolderWatch, WatchSettings, crop_size_of

        size_nm = None if pixel_size is None else opt.parse_length_nm(pixel_size, "--pixel-size")
        settings = WatchSettings(
            settle_s=settle,
            interval_s=interval,
            max_tries=tries or (2 if once else 8),
            recursive=recursive,
            pixel_size_nm=size_nm,
            options=_options(polarity, window, crop_nm_per_px, split_touching, crop_size_of(model)),
            banner=banner.value,
        )
        watched = FolderWatch(folder, library, model, settings=settings, on_file=_print_file)
    try:
        with _terminated_like_interrupted():
            if not once:
                note(f"Watching {folder}; stop with Ctrl-C.")
            files = watched.run(once=once)
    except KeyboardInterrupt:
        if once:
            raise
        note("Stopped; what was stored is intact, and the next start goes on from there.")
        return
    failed = [file for file in files if file.state == "failed"]
    result(f"{len(files)} files, {sum(file.state == 'added' for file in files)} of them new, {len(failed)} not usable.")
    if failed:
        raise InputFileError(f"{failed[0].path}: {failed[0].message}")


def _options(
    polarity: opt.Polarity, window: int | None, crop_nm_per_px: str | None, split_touching: bool, crop_size: int
) -> ExtractionOptions:
    from tumble.pipeline import ExtractionOptions

    if window is not None and crop_nm_per_px is not None:
        raise ConfigError("Give one of --window and --crop-nm-per-px.")
    scale = None if crop_nm_per_px is None else opt.parse_length_nm(crop_nm_per_px, "--crop-nm-per-px")
    return ExtractionOptions(
        polarity=polarity.value,
        crop_size=crop_size,
        window_px=window,
        crop_nm_per_px=scale,
        split_touching=split_touching,
    )


def _print_file(file: WatchedFile) -> None:
    if file.state == "later":
        note(f"{file.path}: will be tried again: {file.message}")
    elif file.state == "failed":
        note(f"{file.path}: left out until it changes: {file.message}", style="red")
    else:
        counts = ", ".join(f"{name} {count}" for name, count in file.counts.items())
        known = "" if file.state == "added" else " (in the library already)"
        result(f"{file.path}: {file.n_particles} particles: {counts}{known}")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let a service manager's SIGTERM end the command as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
