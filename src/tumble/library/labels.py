"""Labels from outside: CSV files, and masks in which people painted classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tumble.errors import InputFileError, LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOG_COLUMNS", "labels_from_mask", "read_label_csv", "read_label_log", "write_label_csv", "write_label_log"]

_COLUMNS = ("particle_id", "label")

#: Columns of a log of labels. The content of the micrograph and the number of the particle within it say which object
#: is meant in any library; `particle_id` counts in the one it came from only.
LOG_COLUMNS = ("particle_id", "label", "author", "created_at", "content_hash", "index_in_micrograph")


def read_label_csv(path: str | Path) -> pd.DataFrame:
    """Read labels from a CSV file with the columns ``particle_id`` and ``label``.

    Parameters
    ----------
    path : str or Path
        A comma-separated file; other columns are ignored.

    Returns
    -------
    DataFrame
        `particle_id` (int64) and `label` (str), one row per particle. Rows with an empty label are left out.

    Raises
    ------
    InputFileError
        The file is missing, not readable as text or not a table.
    LabelError
        It has no usable labels, or contradicts itself.
    """
    path = Path(path)
    table = _read_text_table(path)
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise LabelError(
            f"{path}: there is no column {' and no column '.join(missing)}. "
            f"The first line must be `particle_id,label`; it is `{','.join(map(str, table.columns))}`."
        )
    table = table.loc[:, list(_COLUMNS)].apply(lambda column: column.str.strip())
    table = table.loc[table["label"] != ""]
    if table.empty:
        raise LabelError(f"{path}: there are no labels in this file. Fill in the column `label`.")
    integral = table["particle_id"].str.fullmatch(r"\d{1,18}")
    if not integral.all():
        row = table.index[~integral][0]
        raise LabelError(f"{path}, line {row + 2}: {table.at[row, 'particle_id']!r} is not a particle id (an integer).")
    table = table.astype({"particle_id": np.int64})
    return _without_repeats(table, path).reset_index(drop=True)


def read_label_log(path: str | Path) -> pd.DataFrame | None:
    """Read a log of labels as :func:`write_label_log` writes it.

    Parameters
    ----------
    path : str or Path
        A comma-separated file in UTF-8.

    Returns
    -------
    DataFrame or None
        All columns as text, empty where there is none; None where the file has not the columns of a log and
        :func:`read_label_csv` is the one to read it.

    Raises
    ------
    InputFileError, LabelError
        As :func:`read_label_csv`.
    """
    path = Path(path)
    table = _read_text_table(path)
    if not set(LOG_COLUMNS) <= set(table.columns):
        return None
    table = table.loc[:, list(LOG_COLUMNS)].apply(lambda column: column.str.strip())
    for name in ("particle_id", "index_in_micrograph"):
        integral = table[name].str.fullmatch(r"\d{1,18}")
        if not integral.all():
            row = table.index[~integral][0]
            raise LabelError(f"{path}, line {row + 2}: {table.at[row, name]!r} is no {name} (an integer).")
    return table


def write_label_log(path: str | Path, log: pd.DataFrame) -> None:
    """Write labels with who gave them, when, and to which particle of which image.

    Parameters
    ----------
    path : str or Path
        File to be written; an existing one is replaced.
    log : DataFrame
        The columns of :data:`LOG_COLUMNS`; a withdrawal has no label.
    """
    _write_table(path, log.loc[:, list(LOG_COLUMNS)])


def _read_text_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
            index_col=False,
        )
    except FileNotFoundError as error:
        raise InputFileError(f"{path}: there is no such file.") from error
    except pd.errors.EmptyDataError as error:
        raise LabelError(f"{path}: the file is empty. The first line must be `particle_id,label`.") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: this is not a CSV file in UTF-8 ({error}).") from error
    except OSError as error:
        raise InputFileError(f"{path}: the file cannot be read ({error.strerror}).") from error


def _without_repeats(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    table = table.drop_duplicates()
    repeated = table.loc[table["particle_id"].duplicated(keep=False)]
    if not repeated.empty:
        particle_id = repeated["particle_id"].iloc[0]
        labels = sorted(repeated.loc[repeated["particle_id"] == particle_id, "label"])
        raise LabelError(f"{path}: particle {particle_id} has different labels: {', '.join(labels)}. Keep one.")
    return table


def write_label_csv(path: str | Path, labels: pd.Series) -> None:
    """Write labels, for example :meth:`Library.current_labels`, as :func:`read_label_csv` reads them.

    Parameters
    ----------
    path : str or Path
        File to be written; an existing one is replaced.
    labels : Series
        Labels indexed by particle id.
    """
    _write_table(path, pd.DataFrame({"particle_id": labels.index, "label": labels.to_numpy()}))


def _write_table(path: str | Path, table: pd.DataFrame) -> None:
    try:
        table.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
    except OSError as error:
        raise InputFileError(f"{path}: the file cannot be written ({error.strerror}).") from error


def labels_from_mask(
    particle_masks: npt.NDArray[np.integer[Any]],
    class_image: npt.NDArray[np.integer[Any]],
    class_names: Mapping[int, str],
    min_overlap: float = 0.5,
) -> dict[int, str]:
    """Give particles the class that was painted over them.

    Parameters
    ----------
    particle_masks : ndarray of shape (H, W), integer
        Label image of particle ids, 0 for the background, see :meth:`Library.particle_masks`.
    class_image : ndarray of shape (H, W), integer
        Class of each pixel.
    class_names : mapping of int to str
        Name of each class. Values of `class_image` that are not in it mean "not painted".
    min_overlap : float, default 0.5
        Smallest part of a particle's pixels that its most frequent class must cover.

    Returns
    -------
    dict of int to str
        Label by particle id; particles that are not painted enough have none. Of classes that cover equally
        many pixels, the one with the smallest value is taken.

    Raises
    ------
    LabelError
        The images do not fit each other, or a setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> masks = np.array([[7, 7, 0, 9], [7, 7, 0, 9]])
    >>> painted = np.array([[1, 1, 1, 0], [1, 2, 0, 2]])
    >>> labels_from_mask(masks, painted, {1: "rod", 2: "sphere"})
    {7: 'rod', 9: 'sphere'}
    """
    masks, classes = np.asarray(particle_masks), np.asarray(class_image)
    _check_masks(masks, classes, class_names, min_overlap)
    foreground = masks > 0
    ids, row = np.unique(masks[foreground], return_inverse=True)
    painted = classes[foreground]
    values = np.array(sorted(class_names))
    column = np.searchsorted(values, painted)
    column[values[np.minimum(column, len(values) - 1)] != painted] = len(values)
    n_columns = len(values) + 1  # the last one counts pixels that are not painted
    counts = np.bincount(row * n_columns + column, minlength=len(ids) * n_columns).reshape(-1, n_columns)
    best = counts[:, :-1].argmax(axis=1)
    share = counts[np.arange(len(ids)), best] / counts.sum(axis=1)
    return {int(ids[i]): class_names[int(values[best[i]])] for i in np.flatnonzero(share >= min_overlap)}


def _check_masks(
    masks: npt.NDArray[Any], classes: npt.NDArray[Any], class_names: Mapping[int, str], min_overlap: float
) -> None:
    if masks.shape != classes.shape:
        raise LabelError(
            f"the class image has shape {classes.shape}, the micrograph {masks.shape}. "
            "Paint the classes on the image in its original size."
        )
    for name, image in (("particle_masks", masks), ("class_image", classes)):
        if image.dtype.kind not in "iub":
            raise LabelError(f"{name} must hold integers, not {image.dtype}.")
    if not 0 < min_overlap <= 1:
        raise LabelError(f"min_overlap is {min_overlap}; it must be above 0 and at most 1.")
    if not class_names:
        raise LabelError("class_names is empty. Give the name of at least one class.")
