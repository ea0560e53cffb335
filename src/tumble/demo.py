"""The whole way on one real micrograph, from pixels to a report, in one folder."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tumble import pipeline
from tumble._version import __version__
from tumble.datasets import load_nanogold
from tumble.errors import ConfigError, LibraryError
from tumble.library import Library
from tumble.metrics import match_segmentations
from tumble.micrograph import read_micrograph
from tumble.particles import extract_particles
from tumble.report import write_report

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from sklearn.utils import Bunch

    from tumble.fit import EpochReport

__all__ = ["run_demo"]

logger = logging.getLogger(__name__)

LABELS_PER_CLASS = 15
#: The curves are flat by then, and two laptop cores need about a minute and a half.
MAX_EPOCHS = 45
AUTHOR = "nanolabels.tif (pyparty)"
MODEL_NAME = "ss-rVAE"
REGION = (
    "particles of the right half of the micrograph that match a reference object one to one; crops that cross the "
    "middle and particles at the edge left out; their images, but no labels, took part in the fit"
)

#: Written first and last; it tells a folder that the demo may rebuild from one that it must not touch.
MARKER = ".tumble-demo.json"
OUTPUTS = ("library.db", "library.db-wal", "library.db-shm", "model", "report.html", "summary.json")


def run_demo(
    out: str | os.PathLike[str],
    *,
    extraction: pipeline.ExtractionOptions | None = None,
    labels_per_class: int = LABELS_PER_CLASS,
    max_epochs: int | None = MAX_EPOCHS,
    random_state: int = 0,
    progress: pipeline.ProgressCallback | None = None,
    callbacks: Sequence[Callable[[EpochReport], None]] = (),
) -> dict[str, Any]:
    """Build a classified particle library and its report from the bundled micrograph of gold nanoparticles.

    A few labels per class come from the left half of the image; all other particles are unlabelled in the
    fit. The right half is the test: its labels are stored only after the model's predictions are.

    Parameters
    ----------
    out : path
        Folder for `report.html`, `summary.json`, `library.db` and `model/`. A demo that is there already is
        replaced; anything else is never touched.
    extraction : ExtractionOptions, optional
        How to extract the particles.
    labels_per_class : int, default=15
        Labels of each class that the fit gets.
    max_epochs : int or None, default=45
        Length of the fit; None is the estimator's default.
    random_state : int, default=0
        Seeds the choice of the labels and the fit.
    progress : callable, optional
        Called with a text, a number of steps done and their total, as the demo goes on.
    callbacks : sequence of callable
        Each is called with a :class:`tumble.fit.EpochReport` after each epoch of the fit.

    Returns
    -------
    dict
        The content of `summary.json`.

    Raises
    ------
    ConfigError
        If `out` holds such files that are not a demo's, or a demo's library with labels added since.
    """
    started = time.perf_counter()
    tell = progress or _silent
    folder = Path(out).expanduser()
    if prepare_folder(folder):
        tell(f"Replacing the earlier demo in {folder}", 0, 0)
    gold = load_nanogold()
    with Library(folder / "library.db", create=True) as library:
        tell("Reading and extracting", 0, 0)
        window_px, found = _extract(library, gold, extraction or pipeline.ExtractionOptions())
        tell("Comparing with the reference", 0, 0)
        reference, detection = _match_reference(library, gold, found)
        train, test = _split(library, reference, gold, window_px, labels_per_class, random_state)
        library.add_labels(list(train.index), list(train), author=AUTHOR, source="training labels, left half")
        tell("Preparing the fit", 0, 0)
        record = pipeline.fit_library(
            library,
            folder / "model",
            name=MODEL_NAME,
            estimator=pipeline.estimator_for_crops(max_epochs=max_epochs, random_state=random_state),
            callbacks=callbacks,
        )
        pipeline.classify_library(library, folder / "model", model_name=MODEL_NAME, progress=progress)
        scores = pipeline.evaluate(library, MODEL_NAME, test, train, region=REGION)
        # Only now may the library know these labels: the report shows where they and the model disagree.
        library.add_labels(list(test.index), list(test), author=AUTHOR, source="held-out reference")
        tell("Writing the report", 0, 0)
        write_report(library, folder / "report.html", model=MODEL_NAME, title="Gold nanoparticles")
        n_labels = len(library.label_history())
        summary = _summary(len(library.particles()), len(train), scores, detection)
    summary |= {
        "fit_seconds": round(record.fit_seconds, 2),
        "total_seconds": round(time.perf_counter() - started, 2),
        "peak_memory_mb": _peak_memory_mb(),
        "random_state": random_state,
        "environment": dict(record.environment),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _write_marker(folder, n_labels=n_labels)
    return summary


def prepare_folder(folder: Path) -> bool:
    """Make `folder` ready for a demo: create it, or remove the demo that it holds.

    Parameters
    ----------
    folder : Path
        Folder for the demo.

    Returns
    -------
    bool
        Whether an earlier demo was removed.

    Raises
    ------
    ConfigError
        If it holds such files that are not a demo's, or a demo's library with labels added since.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder. Give another one with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    present = [name for name in OUTPUTS if (folder / name).exists()]
    marker = folder / MARKER
    if present and not marker.exists():
        raise ConfigError(
            f"{folder}: holds {present[0]}, which no demo made. Give another folder with --out; nothing was changed."
        )
    if present:
        _check_untouched(folder)
        for name in present:
            _remove(folder / name)
        logger.info("%s: the demo of an earlier run was removed", folder)
    _write_marker(folder, n_labels=None)
    return bool(present)


def _check_untouched(folder: Path) -> None:
    """Refuse to remove what a user added to a demo: labels, which cost work, or files."""
    foreign = {entry.name for entry in (folder / "model").glob("*")} - pipeline.MODEL_FILES
    if foreign:
        raise ConfigError(
            f"{folder / 'model'}: holds {min(foreign)}, which no demo made. Give another folder with --out; "
            "nothing was changed."
        )
    try:
        n_labels = json.loads((folder / MARKER).read_text(encoding="utf-8"))["n_labels"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / MARKER}: is damaged. Give another folder with --out.") from error
    if not (folder / "library.db").exists():
        return
    try:
        with Library(folder / "library.db") as library:
            history = library.label_history()
            # An interrupted demo did not get to write down how many labels it made; its own are known by their author.
            foreign = bool((history["author"] != AUTHOR).any()) or len(library.micrographs()) > 1
            changed = foreign or (n_labels is not None and len(history) != n_labels)
    except LibraryError:
        changed = n_labels is not None
    if changed:
        raise ConfigError(
            f"{folder / 'library.db'}: was changed since the demo made it (labels or micrographs added). "
            "Give another folder with --out, or move this one away; nothing was changed."
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write_marker(folder: Path, *, n_labels: int | None) -> None:
    content = {"made_by": f"tumble demo {__version__}", "outputs": OUTPUTS, "n_labels": n_labels}
    (folder / MARKER).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _extract(library: Library, gold: Bunch, options: pipeline.ExtractionOptions) -> tuple[int, Any]:
    """Add the micrograph; return the side of the windows and the label image of the particles found."""
    # The library names the file, not where on this computer the package is installed.
    micrograph = replace(read_micrograph(gold.filename), source="nanogold.tif (pyparty)")
    particles = extract_particles(micrograph, **asdict(options))
    library.add_micrograph(micrograph, particles)
    return int(particles.parameters["window_px"]), particles.mask


def _match_reference(library: Library, gold: Bunch, found: Any) -> tuple[pd.Series, dict[str, float]]:
    """Give particles the class of the reference object they match one to one, and score the extraction."""
    match = match_segmentations(gold.objects, found, iou_threshold=0.5)
    loose = match_segmentations(gold.objects, found, iou_threshold=0.3)
    classes = np.asarray(gold.classes, dtype=object)[gold.object_classes[match.pairs[:, 0] - 1]]
    # Particle i + 1 of the label image is the i-th particle of the library's only micrograph.
    ids = library.particle_ids()[match.pairs[:, 1] - 1]
    detection = {
        "recall_iou_0.5": match.recall,
        "recall_iou_0.3": loose.recall,
        "unmatched_found_iou_0.3": loose.unmatched_found_fraction,
    }
    return pd.Series(classes, index=ids).sort_index(), detection


def _split(
    library: Library,
    reference: pd.Series,
    gold: Bunch,
    window_px: int,
    labels_per_class: int,
    random_state: int,
) -> tuple[pd.Series, pd.Series]:
    """Choose training labels in the left half and take the right half as test, with no pixel in common."""
    table = library.particles().loc[reference.index]
    middle = gold.image.shape[1] / 2
    column = table["centroid_col_px"]
    whole = ~table["touches_border"].astype(bool)
    left = reference.loc[whole & (column + window_px / 2 <= middle)]
    right = reference.loc[whole & (column - window_px / 2 >= middle)]
    rng = np.random.default_rng(random_state)
    chosen = [
        rng.choice(ids, size=min(labels_per_class, len(ids)), replace=False)
        for ids in (left.index[left == name].to_numpy() for name in gold.classes)
    ]
    return left.loc[np.sort(np.concatenate(chosen))], right


def _summary(n_particles: int, n_labelled: int, scores: dict[str, Any], detection: dict[str, float]) -> dict[str, Any]:
    return {
        "n_particles": n_particles,
        "n_labelled": n_labelled,
        "classes": scores["classes"],
        "balanced_accuracy": scores["balanced_accuracy"],
        "recall_per_class": scores["recall_per_class"],
        "baseline_area_balanced_accuracy": scores["baselines"][pipeline.BASELINE]["balanced_accuracy"],
        "n_test": scores["n_test"],
        "detection": detection,
    }


def _peak_memory_mb() -> float | None:
    """Return the largest resident size of this process so far, None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _silent(what: str, done: int, total: int) -> None:
    """Stand in for a progress callback."""
