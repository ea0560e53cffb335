"""Labels from files into a library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tumble.errors import ConfigError, DataError, LabelError
from tumble.library import labels_from_mask as match_labels
from tumble.library import read_label_csv, read_label_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tumble.library import Library

__all__ = ["label_from_csv", "label_from_mask", "parse_class_names"]


def parse_class_names(text: str) -> dict[int, str]:
    """Read the meaning of the values of a class mask.

    Parameters
    ----------
    text : str
        Pairs of pixel value and class, for example ``"1=single,2=dimer"``.

    Returns
    -------
    dict of int to str
        Pixel value to name of the class.

    Raises
    ------
    ConfigError
        If the text is not made of such pairs, or a value occurs twice.

    Examples
    --------
    >>> parse_class_names("1=single, 2=dimer")
    {1: 'single', 2: 'dimer'}
    """
    names: dict[int, str] = {}
    for pair in text.split(","):
        value, equals, name = (part.strip() for part in pair.partition("="))
        if not (equals and name and value.isdecimal() and int(value) > 0):
            raise ConfigError(
                f"classes {text!r}: {pair.strip()!r} is not VALUE=NAME with a whole pixel value above 0. "
                "Write for example 1=single,2=dimer."
            )
        if int(value) in names:
            raise ConfigError(f"classes {text!r}: the value {value} occurs twice. Give each value one class.")
        names[int(value)] = name
    return names


def label_from_mask(
    library: Library,
    mask: str | os.PathLike[str] | npt.ArrayLike,
    class_names: Mapping[int, str],
    *,
    micrograph_id: int | None = None,
    author: str,
) -> int:
    """Label the particles of a micrograph from an image whose pixel values are classes.

    Parameters
    ----------
    library : Library
        An open library.
    mask : path or array of shape (H, W)
        Class of each pixel, 0 for background, in the size of the micrograph.
    class_names : mapping of int to str
        Name of the class of each pixel value.
    micrograph_id : int, optional
        The micrograph that the mask is of; may be left out if the library holds only one.
    author : str
        Who labelled, for the history of the labels.

    Returns
    -------
    int
        Number of particles labelled.

    Raises
    ------
    LabelError
        If no particle lies on a labelled part of the mask.
    DataError, ConfigError, InputFileError
        If the mask cannot be read, does not fit the micrograph, or the micrograph is not given or not there.
    """
    chosen = _choose_micrograph(library, micrograph_id)
    source, values = _class_image(mask)
    expected = tuple(library.micrographs().loc[chosen, ["height_px", "width_px"]].astype(int))
    if values.shape != expected:
        raise DataError(
            f"{source}: is {values.shape[0]} x {values.shape[1]} px, micrograph {chosen} is {expected[0]} x "
            f"{expected[1]} px. Give the class mask of that very image."
        )
    labels = match_labels(library.particle_masks(chosen), values, class_names)
    if not labels:
        present = ", ".join(str(value) for value in np.unique(values)[:10])
        raise LabelError(
            f"{source}: no particle of micrograph {chosen} matches an object of the classes "
            f"{', '.join(map(str, class_names))} (values in the mask: {present}). Check the classes and the "
            "mask."
        )
    return library.add_labels(list(labels), list(labels.values()), author=author, source=f"mask {source}")


def label_from_csv(library: Library, path: str | os.PathLike[str], *, author: str) -> int:
    """Label particles from a table with the columns ``particle_id`` and ``label``, or from an exported log.

    A log (``tumble export --format labels``) names its particles by the content of their micrograph, so that it can be
    read into another library of the same images; entries keep their authors and times, and are stored once only.

    Parameters
    ----------
    library : Library
        An open library.
    path : path
        A CSV file in UTF-8; other columns, and rows without a label, are ignored.
    author : str
        Who labelled, for the history of the labels.

    Returns
    -------
    int
        Number of particles labelled.

    Raises
    ------
    InputFileError
        If the file is missing or is no table.
    LabelError
        If it lacks a column, names unknown particles or labels a particle in two ways; nothing is stored.
    """
    file = Path(path).expanduser()
    log = read_label_log(file)
    if log is not None:
        return library.import_labels(log, author=author, source=f"table {path}")
    table = read_label_csv(file)
    return library.add_labels(
        table["particle_id"].tolist(), table["label"].tolist(), author=author, source=f"table {path}"
    )


def _class_image(mask: str | os.PathLike[str] | npt.ArrayLike) -> tuple[str, npt.NDArray[np.int64]]:
    """Return a name for messages and the mask as whole numbers."""
    from tumble.micrograph.label_image import read_label_image, whole_numbers

    if isinstance(mask, str | os.PathLike):
        return str(mask), read_label_image(mask)
    return "the class mask", whole_numbers(np.asarray(mask), "the class mask")


def _choose_micrograph(library: Library, micrograph_id: int | None) -> int:
    known = [int(value) for value in library.micrographs().index]
    if micrograph_id is None and len(known) == 1:
        return known[0]
    listed = ", ".join(map(str, known[:20])) or "none"
    if micrograph_id is None:
        raise ConfigError(
            f"{library.url}: holds {len(known)} micrographs ({listed}), so say which one the mask "
            "is of. Give its id (--micrograph ID)."
        )
    if micrograph_id not in known:
        raise ConfigError(f"{library.url}: has no micrograph {micrograph_id}; it has {listed}.")
    return micrograph_id
