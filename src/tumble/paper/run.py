"""Recompute studies of the paper into a folder."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tumble._version import __version__
from tumble.errors import ConfigError
from tumble.estimators.base import resolve_device
from tumble.paper import confusions, draw, fig2, fig4, fig5, fig6, films, sweeps
from tumble.paper.estimate import estimate_seconds
from tumble.paper.lab import Lab
from tumble.paper.names import ALL, METHOD_TITLES, STUDY_TITLES
from tumble.paper.pool import prepare
from tumble.paper.record import environment, write_json, write_whole
from tumble.paper.sizes import FULL, QUICK
from tumble.report.style import PALETTE

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from tumble.fit import EpochReport
    from tumble.paper.outcome import Outcome, Study
    from tumble.paper.sizes import Sizes

__all__ = ["STUDIES", "reproduce"]

logger = logging.getLogger(__name__)

STUDIES: dict[str, Study] = {
    "fig2": fig2.STUDY,
    "fig3": sweeps.FIG3,
    "s2": confusions.S2,
    "fig4": fig4.STUDY,
    "labels": sweeps.LABELS,
    "films": films.STUDY,
    "fig5": fig5.STUDY,
    "fig6": fig6.STUDY,
    "s3": confusions.S3,
}
RESULT = "result.json"
#: Milliseconds per frame, and of the last one.
_FRAME_MS, _LAST_FRAME_MS = 250, 2500


def reproduce(
    name: str,
    out: str | os.PathLike[str],
    *,
    quick: bool = False,
    seed: int = 0,
    methods: Sequence[str] | None = None,
    device: str = "auto",
    force: bool = False,
    jobs: int = 1,
    draw_figures: bool = True,
    sizes: Sizes | None = None,
    published: Mapping[str, Any] | None = None,
    swept: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    callback: Callable[[EpochReport], None] | None = None,
    announce: Callable[[float], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Recompute a study of the paper, or all.

    Each study writes its figures (PNG and SVG; films as GIF) and ``result.json`` into a folder of its name. Trained
    models and measurements are kept in ``cache``, and serve any later study with the same settings.

    Parameters
    ----------
    name : str
        One of :data:`tumble.paper.names.STUDY_TITLES`, or "all".
    out : path
        Folder; made if need be.
    quick : bool, default=False
        Tiny data and training, to see that it runs.
    seed : int, default=0
        Seeds data and fits.
    methods : sequence of str, optional
        What is compared, of :data:`tumble.paper.names.METHOD_TITLES`; all if not given.
    device : str, default="auto"
        Where networks run.
    force : bool, default=False
        Train and measure anew what is kept.
    jobs : int, default=1
        Processes that train and measure side by side. On a GPU, and with many cores, several take much less time.
    draw_figures : bool, default=True
        Whether to draw; otherwise what figures need is trained, measured and kept, and nothing is returned.
    sizes : Sizes, optional
        In place of the full or quick ones.
    published : mapping, optional
        Settings of the published method, parameters of the estimators, that differ from the published ones: with
        ``{"pixel_fraction": 0.0625, "precision": "bfloat16"}`` it takes half an hour in place of twelve hours.
    swept : mapping, optional
        Settings that only its many fits for figure 3 and the label study take, beside those.
    progress : callable, optional
        Called with what is being done, steps done, and steps in all.
    callback : callable, optional
        Called with a :class:`tumble.fit.EpochReport` after each epoch of a fit.
    announce : callable, optional
        Called once, before anything is trained, with an estimate of the seconds that training will take. Where it is
        not given, no time is spent on the estimate.

    Returns
    -------
    dict of str to dict
        The content of each study's ``result.json``.

    Raises
    ------
    ConfigError
        If there is no such study, method, device or setting, or `out` cannot take the results.
    """
    studies = _chosen(name)
    wanted = _checked_methods(methods)
    resolve_device(device)
    folder = Path(out).expanduser()
    sizes = (sizes or (QUICK if quick else FULL)).with_published(published or {}, swept or {})
    for study in studies:
        _check_target(folder / study, sizes.quick)
    _make_folder(folder)
    lab = Lab(folder / "cache", sizes, seed, wanted, device, since=time.time() if force else 0.0)
    if progress is not None:
        lab.tell = progress
    if callback is not None:
        lab.epoch = callback
    if name == ALL:
        studies = [study for study in studies if _has_use_for(lab, study)]
    fits = [fit for study in studies for fit in STUDIES[study].needs(lab)]
    # Of several processes at once, the time of one says little.
    if announce is not None and jobs == 1:
        announce(estimate_seconds(lab, lab.missing(fits)))
    if jobs > 1 or not draw_figures:
        prepare(lab, {study: STUDIES[study] for study in studies}, jobs)
    if not draw_figures:
        return {}
    return {study: _one(lab, study, folder / study) for study in studies}


def _chosen(name: str) -> list[str]:
    if name == ALL:
        return list(STUDIES)
    if name not in STUDIES:
        raise ConfigError(f"{name!r}: no such study. Choose one of {', '.join([*STUDIES, ALL])}.")
    return [name]


def _checked_methods(methods: Sequence[str] | None) -> tuple[str, ...]:
    if methods is None:
        return tuple(METHOD_TITLES)
    for method in methods:
        if method not in METHOD_TITLES:
            raise ConfigError(f"--methods {method!r}: no such method. Choose from {', '.join(METHOD_TITLES)}.")
    return tuple(methods)


def _has_use_for(lab: Lab, study: str) -> bool:
    """Whether a study compares any of the methods that were asked for; of all studies, those that do not are left."""
    try:
        STUDIES[study].needs(lab)
    except ConfigError as error:
        logger.warning("%s is left out. %s", study, error)
        return False
    return True


def _check_target(folder: Path, quick: bool) -> None:
    """Refuse to write over what is no result, and over a full result with a quick one."""
    path = folder / RESULT
    if folder.is_dir() and any(folder.iterdir()) and not path.exists():
        # A run that was cut off leaves figures before its result; those names are its own.
        foreign = [entry.name for entry in folder.iterdir() if entry.suffix not in (".png", ".svg", ".gif")]
        if foreign:
            raise ConfigError(
                f"{folder}: holds {min(foreign)}, which no study made. Give another folder with --out; "
                "nothing was changed."
            )
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        was_quick = bool(content["quick"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(
            f"{path}: is no result of this command, or damaged. Give another folder with --out; nothing was changed."
        ) from error
    if quick and not was_quick:
        raise ConfigError(
            f"{folder}: holds full results, which a quick run would replace. Give another folder with --out; "
            "nothing was changed."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{folder}: is not a folder. Give another one with --out.") from error


def _one(lab: Lab, study: str, folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    lab.tell(f"{study}: {STUDY_TITLES[study]}", 0, 0)
    outcome = STUDIES[study].run(lab)
    lab.tell(f"Writing {study}", 0, 0)
    content = {
        "study": study,
        "title": STUDY_TITLES[study],
        "quick": lab.sizes.quick,
        **({"note": "Quick run: tiny data and training, the numbers mean nothing."} if lab.sizes.quick else {}),
        "command": _command(lab, study),
        "version": __version__,
        "seed": lab.seed,
        "methods": {method: METHOD_TITLES[method] for method in lab.methods},
        "settings": lab.sizes.as_dict(),
        "machine": environment(lab.device),
        "measured_on": lab.machines(),
        "seconds": round(time.perf_counter() - started, 1),
        "comparison": [compared.as_dict() for compared in outcome.comparisons],
        "values": outcome.values,
        "files": _write_figures(outcome, folder, quick=lab.sizes.quick),
    }
    # Last: a folder with a result is complete.
    write_json(folder / RESULT, content)
    return json.loads((folder / RESULT).read_text(encoding="utf-8"))


def _command(lab: Lab, study: str) -> str:
    parts = ["tumble reproduce", study, "--out DIR"]
    if lab.sizes.quick:
        parts.append("--quick")
    if lab.seed:
        parts.append(f"--seed {lab.seed}")
    if len(lab.methods) < len(METHOD_TITLES):
        parts += [f"--methods {method}" for method in lab.methods]
    usual = QUICK if lab.sizes.quick else FULL
    for option, given, known in (
        ("--published", lab.sizes.paper, usual.paper),
        ("--swept", lab.sizes.sweep, usual.sweep),
    ):
        parts += [f"{option} {name}={value}" for name, value in given.items() if known.get(name) != value]
    return " ".join(parts)


def _write_figures(outcome: Outcome, folder: Path, *, quick: bool) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for stem, figure in outcome.figures.items():
        with draw.print_style():
            names += draw.save_figure(figure, folder / stem, quick=quick)
    for stem, frames in outcome.films.items():
        names.append(_write_film(frames, folder / f"{stem}.gif"))
    return names


def _write_film(frames: list[npt.NDArray[np.uint8]], path: Path) -> str:
    palette = Image.new("P", (1, 1))
    palette.putpalette(draw.film_palette([*PALETTE[:4], draw.QUICK_COLOUR]).tobytes())
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [_FRAME_MS] * (len(images) - 1) + [_LAST_FRAME_MS]

    def write(part: Path) -> None:
        images[0].save(part, save_all=True, append_images=images[1:], duration=durations, loop=0)

    write_whole(path, write)
    return path.name
