"""From a library to files: which format, and that nothing half-done or foreign is left behind or replaced."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tumble.errors import ConfigError, InputFileError
from tumble.export import images, shapes, tables
from tumble.export.content import Content, read_content
from tumble.library import write_label_log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tumble.library import Library

__all__ = ["FORMATS", "export_library"]


def _write_labels(content: Content, path: Path) -> None:
    log = content.library.label_log()
    write_label_log(path, log.loc[log["particle_id"].isin(content.particles.index.tolist())])


def _write_history(content: Content, path: Path) -> None:
    log = content.library.label_log(history=True)
    write_label_log(path, log.loc[log["particle_id"].isin(content.particles.index.tolist())])


#: Format -> suffix of its file ("" for a folder) and what writes it.
FORMATS: dict[str, tuple[str, Callable[[Content, Path], None]]] = {
    "csv": (".csv", tables.write_csv),
    "parquet": (".parquet", tables.write_parquet),
    "h5ad": (".h5ad", tables.write_anndata),
    "imagej": (".zip", shapes.write_imagej),
    "coco": (".json", shapes.write_coco),
    "crops": ("", images.write_crops),
    "html": (".html", images.write_html_sheet),
    "pdf": (".pdf", images.write_pdf_sheet),
    "labels": (".csv", _write_labels),
    "label-history": (".csv", _write_history),
}


def export_library(
    library: Library,
    path: str | os.PathLike[str],
    format: str,
    *,
    model: str | None = None,
    particle_ids: Sequence[int] | None = None,
    by: str = "predicted",
    overwrite: bool = False,
) -> Path:
    """Write particles of a library for other programs.

    Parameters
    ----------
    library : Library
        An open library.
    path : path
        File to write, or a new folder for ``crops``. It appears when it is complete, or not at all.
    format : str
        One of :data:`FORMATS`.
    model : str, optional
        Whose predictions; the newest model's that has any if not given.
    particle_ids : sequence of int, optional
        Only these particles; all if not given.
    by : {"predicted", "label"}
        What counts as the class.
    overwrite : bool, default False
        Replace a file of that name; a folder is never replaced.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ConfigError
        There is no such format, its package is not installed, or the path has the suffix of another.
    InputFileError
        The path is taken or cannot be written.
    LibraryError
        There is nothing to export.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}. Formats are {', '.join(FORMATS)}.")
    if by not in ("predicted", "label"):
        raise ConfigError(f"the class is by 'predicted' or by 'label', not by {by!r}.")
    suffix, write = FORMATS[format]
    target = Path(path).expanduser()
    if suffix and target.suffix.lower() != suffix:
        raise ConfigError(f"{target}: the format {format} is written to a file that ends in {suffix}.")
    if os.path.lexists(target) and not (overwrite and suffix and target.is_file()):
        hint = "Give another name, or --overwrite." if suffix and target.is_file() else "Give another name."
        raise InputFileError(f"{target}: is there already. {hint}")
    content = read_content(library, model=model, particle_ids=particle_ids, by=by)
    try:
        _write_complete(content, target, write, is_folder=not suffix)
    except OSError as error:
        raise InputFileError(f"{target}: cannot be written ({error.strerror or error}).") from error
    return target


def _write_complete(content: Content, target: Path, write: Callable[[Content, Path], None], *, is_folder: bool) -> None:
    """Write beside the target first: what has its name is complete."""
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        # The name is kept, since some writers go by it.
        inside = partial / target.name
        if is_folder:
            inside.mkdir()
        write(content, inside)
        inside.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
