"""Files in which other programs keep masks, boxes and points: label images, ImageJ, COCO, YOLO, CSV."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from skimage.draw import polygon

from tumble.errors import DataError, InputFileError
from tumble.micrograph import read_label_image

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from tumble.types import Micrograph

__all__ = ["read_boxes", "read_centroids", "read_masks"]

#: Larger tables and JSON files are not what these functions are for.
MAX_TEXT_BYTES = 500 * 2**20

#: Objects of one image; a label image numbers them with 32 bits, and no micrograph shows more.
MAX_OBJECTS = 1_000_000

#: Names of the columns of boxes, in px, the first that are all there are taken: (row, column) of the first corner,
#: then either the corner after the last or the height and width.
_CORNERS = (
    ("bbox_min_row_px", "bbox_min_col_px", "bbox_max_row_px", "bbox_max_col_px"),
    ("bbox-0", "bbox-1", "bbox-2", "bbox-3"),  # scikit-image
    ("ymin", "xmin", "ymax", "xmax"),
    ("y1", "x1", "y2", "x2"),
)
_SIDES = (
    ("y", "x", "height", "width"),
    ("y", "x", "h", "w"),
    ("by", "bx", "height", "width"),  # ImageJ
    ("top", "left", "height", "width"),
)

#: Names of the columns of points (row, column), and what is taken off for the middle of a pixel to be a whole number.
_POINTS = (
    ("centroid_row_px", "centroid_col_px", 0.0),
    ("centroid-0", "centroid-1", 0.0),  # scikit-image
    ("row", "column", 0.0),
    ("row", "col", 0.0),
    ("axis-0", "axis-1", 0.0),  # napari
    ("Y", "X", 0.5),  # ImageJ, whose pixels begin at whole numbers
    ("YM", "XM", 0.5),
    ("y", "x", 0.0),
)


def read_masks(path: str | os.PathLike[str], micrograph: Micrograph) -> npt.NDArray[np.int64]:
    """Read the objects of a micrograph from a label image, ImageJ's ROIs or COCO polygons.

    Parameters
    ----------
    path : str or path-like
        A label image or a mask of any kind that :func:`tumble.read_micrograph` reads, as ilastik, Cellpose, NP-SAM,
        ImageJ and scikit-image save them (of a stack the image with the number of the micrograph's frame); ``.roi``
        or ``.zip`` of ImageJ; COCO ``.json`` with polygons or
        uncompressed masks.
    micrograph : Micrograph
        The image, for its shape and its name.

    Returns
    -------
    ndarray of shape (H, W)
        Label image; of objects that overlap the later one has the pixels.

    Raises
    ------
    InputFileError
        The file is missing, of an unknown kind or cannot be read.
    DataError
        It has no object of this image.
    """
    file = _existing(path)
    suffix = file.suffix.lower()
    if suffix in (".roi", ".zip"):
        return _rois(file, str(path), micrograph)
    if suffix == ".json":
        return _coco_masks(_coco(file, str(path), micrograph), str(path), micrograph)
    if suffix == ".npy" and file.name.endswith("_seg.npy"):
        raise InputFileError(
            f"{path}: is a pickle of Cellpose, which could run any program and is never loaded. Save the masks from "
            "Cellpose as PNG or TIFF."
        )
    return read_label_image(path, frame=micrograph.metadata.get("frame"))


def read_boxes(path: str | os.PathLike[str], micrograph: Micrograph) -> npt.NDArray[np.float64]:
    """Read boxes from COCO JSON, YOLO's text or a table.

    Parameters
    ----------
    path : str or path-like
        COCO ``.json``; YOLO ``.txt`` (class, centre, width and height as parts of the image, or polygons); ``.csv``
        with the columns xmin, ymin, xmax, ymax, or x, y, width, height, or those of ImageJ (BX, BY, Width, Height)
        and scikit-image (bbox-0 to bbox-3), in px.
    micrograph : Micrograph
        The image, for its shape and its name.

    Returns
    -------
    ndarray of shape (n, 4)
        First row, first column, row after the last, column after the last, in px.

    Raises
    ------
    InputFileError
        The file is missing, of an unknown kind or cannot be read.
    DataError
        It has no box of this image.
    """
    file, name = _existing(path), str(path)
    suffix = file.suffix.lower()
    if suffix == ".json":
        boxes = [_coco_box(entry, name) for entry in _coco(file, name, micrograph)]
    elif suffix == ".txt":
        boxes = _yolo(file, name, micrograph)
    elif suffix == ".csv":
        boxes = _table_boxes(_table(file, name), name)
    else:
        raise InputFileError(f"{name}: boxes are read from .json (COCO), .txt (YOLO) and .csv files.")
    if not len(boxes):
        raise DataError(f"{name}: has no box.")
    return np.asarray(boxes, dtype=np.float64)


def read_centroids(
    path: str | os.PathLike[str], micrograph: Micrograph, *, in_nm: bool = False
) -> npt.NDArray[np.float64]:
    """Read points from a table.

    Parameters
    ----------
    path : str or path-like
        ``.csv`` with the columns X and Y of ImageJ's results (whose pixels begin at whole numbers), row and column,
        y and x, centroid-0 and centroid-1, axis-0 and axis-1, or centroid_row_px and centroid_col_px.
    micrograph : Micrograph
        The image, for its pixel size.
    in_nm : bool, default=False
        The points are in nm, as ImageJ writes them for an image with a scale in nm.

    Returns
    -------
    ndarray of shape (n, 2)
        Points (row, column) in px, where whole numbers are the middles of pixels.

    Raises
    ------
    InputFileError
        The file is missing or cannot be read.
    DataError
        It has no point, or none of the columns; or the pixel size is needed and not known.
    """
    file, name = _existing(path), str(path)
    if file.suffix.lower() not in (".csv", ".txt", ".tsv"):
        raise InputFileError(f"{name}: points are read from .csv files.")
    table = _table(file, name)
    for row, column, begin in _POINTS:
        if row in table and column in table:
            points = _numbers(table[[row, column]], name)
            if in_nm:
                if micrograph.pixel_size_nm is None:
                    raise DataError(f"{name}: points in nm need the pixel size of {micrograph.source}.")
                points = points / micrograph.pixel_size_nm
            return points - begin
    raise DataError(
        f"{name}: has the columns {_listed(table.columns)}, but no positions such as X and Y, or row and col."
    )


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path).expanduser()
    if file.is_dir() and file.suffix.lower() not in (".zarr", ".zspy"):
        raise InputFileError(f"{path}: is a folder; give the file.")
    if file.is_file() and file.suffix.lower() in (".csv", ".txt", ".tsv", ".json", ".zip", ".roi"):
        size = file.stat().st_size
        if size == 0:
            raise InputFileError(f"{path}: the file is empty.")
        if size > MAX_TEXT_BYTES:
            raise InputFileError(f"{path}: is larger than {MAX_TEXT_BYTES // 2**20} MB; give a smaller one.")
    elif not file.exists() and ":" not in str(path):
        raise InputFileError(f"{path}: there is no such file; check the name.")
    return file


def _unreadable(name: str, kind: str, error: BaseException) -> InputFileError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return InputFileError(f"{name}: cannot be read as {kind}: {reason}. Export it again.")


def _listed(names: Any) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "none"


# --- tables -------------------------------------------------------------------------------------------------


def _table(file: Path, name: str) -> pd.DataFrame:
    try:
        # The separator is found by pandas: ImageJ saves commas or tabs, spreadsheets semicolons.
        table = pd.read_csv(file, sep=None, engine="python", nrows=MAX_OBJECTS, encoding_errors="replace")
    except Exception as error:
        raise _unreadable(name, "a table", error) from error
    table.columns = [str(column).strip() for column in table.columns]
    if not len(table):
        raise DataError(f"{name}: has no rows below its header.")
    return table


def _numbers(table: Any, name: str) -> npt.NDArray[np.float64]:
    values = table.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(
            f"{name}: row {int(np.flatnonzero(bad)[0]) + 2} has no finite number in {_listed(table.columns)}."
        )
    return values


def _table_boxes(table: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    table = table.rename(columns=str.lower)
    table = table.loc[:, ~table.columns.duplicated()]
    for columns in _CORNERS:
        if set(columns) <= set(table):
            return _numbers(table[list(columns)], name)
    for columns in _SIDES:
        # ImageJ's own X and Y are centroids: where it gave its boxes, these count.
        if set(columns) <= set(table) and not (columns[0] == "y" and "bx" in table):
            top, left, height, width = _numbers(table[list(columns)], name).T
            return np.stack([top, left, top + height, left + width], axis=1)
    raise DataError(f"{name}: has the columns {_listed(table)}, but no boxes such as xmin, ymin, xmax, ymax.")


def _yolo(file: Path, name: str, micrograph: Micrograph) -> list[list[float]]:
    height, width = micrograph.pixels.shape
    height += int(micrograph.metadata.get("banner_rows", 0))  # parts of the image as it was with its banner
    boxes = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            values = []
        if len(values) < 5 or not all(-0.01 <= value <= 1.01 for value in values[1:]):
            raise DataError(
                f"{name}: line {number} is not a class and four parts of the image from 0 to 1: {line[:60]!r}."
            )
        if len(values) in (5, 6):  # the sixth is a confidence
            x, y, w, h = values[1:5]
            left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        else:
            left, right, top, bottom = min(values[1::2]), max(values[1::2]), min(values[2::2]), max(values[2::2])
        boxes.append([top * height, left * width, bottom * height, right * width])
    return boxes


# --- COCO ---------------------------------------------------------------------------------------------------


def _coco(file: Path, name: str, micrograph: Micrograph) -> list[dict[str, Any]]:
    """Annotations of this image in a COCO file, by the name of its file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, "JSON", error) from error
    entries = content.get("annotations") if isinstance(content, dict) else None
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not isinstance(images, list):
        raise DataError(f'{name}: is not COCO, which has "images" and "annotations".')
    wanted = PurePath(micrograph.source.replace("\\", "/")).name
    names = {}
    for image in images:
        if isinstance(image, dict):
            names[image.get("id")] = PurePath(str(image.get("file_name", "")).replace("\\", "/")).name
    chosen = {key for key, image_name in names.items() if image_name == wanted}
    if not chosen and len(names) == 1:
        chosen = set(names)  # of one image under another name, such as its PNG
    if not chosen:
        raise DataError(f"{name}: has no image {wanted!r} among {_listed(names.values())}.")
    found = [entry for entry in entries if isinstance(entry, dict) and entry.get("image_id") in chosen]
    if not found:
        raise DataError(f"{name}: has no annotation of {wanted!r}.")
    return found[:MAX_OBJECTS]


def _coco_box(entry: dict[str, Any], name: str) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise DataError(f"{name}: annotation {entry.get('id')!r} has no bbox of four numbers.")
    x, y, w, h = map(float, box)
    return [y, x, y + h, x + w]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _coco_masks(entries: list[dict[str, Any]], name: str, micrograph: Micrograph) -> npt.NDArray[np.int64]:
    labels = np.zeros(micrograph.pixels.shape, dtype=np.int64)
    for number, entry in enumerate(entries, start=1):
        shape = entry.get("segmentation")
        if isinstance(shape, dict) and isinstance(shape.get("counts"), list):
            _draw_runs(labels, shape, number, name)
        elif isinstance(shape, list) and shape:
            for points in shape:
                if not isinstance(points, list) or len(points) < 6 or not all(map(_is_number, points)):
                    raise DataError(f"{name}: annotation {entry.get('id')!r} has a polygon of fewer than three points.")
                corners = np.array(points[: len(points) // 2 * 2], dtype=np.float64).reshape(-1, 2)
                _draw_polygon(labels, corners[:, ::-1] - 0.5, number)
        else:
            raise DataError(
                f"{name}: annotation {entry.get('id')!r} has no polygon or uncompressed mask. Where there are boxes "
                "only, read them as boxes."
            )
    return labels


def _draw_polygon(labels: npt.NDArray[np.int64], corners: npt.NDArray[np.float64], number: int) -> None:
    """Fill a polygon of (row, column) corners, where whole numbers are the middles of pixels."""
    # A corner far outside would make the drawing as large as it is far.
    corners = np.clip(corners, -1, np.array(labels.shape))
    rows, columns = polygon(corners[:, 0], corners[:, 1], labels.shape)
    labels[rows, columns] = number


def _draw_runs(labels: npt.NDArray[np.int64], shape: dict[str, Any], number: int, name: str) -> None:
    """Draw runs of 0 and 1 in turn, column after column."""
    height, width = labels.shape
    size, counts = shape.get("size"), shape["counts"]
    size = size if isinstance(size, list) and len(size) == 2 and all(map(_is_number, size)) else [0, 0]
    if (
        not (size[1] == width and height <= size[0] <= 2 * height)
        or not all(isinstance(n, int) and n >= 0 for n in counts)
        or sum(counts) != size[0] * size[1]
    ):
        raise DataError(f"{name}: a mask of size {shape.get('size')} does not fit the image of {height} x {width} px.")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    labels[flat.reshape(size[1], size[0]).T[:height]] = number


# --- ImageJ -------------------------------------------------------------------------------------------------


def _rois(file: Path, name: str, micrograph: Micrograph) -> npt.NDArray[np.int64]:
    """Fill the regions of interest of ImageJ's manager."""
    import roifile  # only those who have such files need it

    try:
        _check_archive(file, name)
        read: Any = roifile.roiread(file)
        rois: Sequence[Any] = read if isinstance(read, list) else [read]
    except InputFileError:
        raise
    except Exception as error:
        raise _unreadable(name, "ImageJ's ROIs", error) from error
    labels = np.zeros(micrograph.pixels.shape, dtype=np.int64)
    for number, roi in enumerate(rois, start=1):
        _draw_roi(labels, roi, number, name)
    if not labels.any():
        raise DataError(f"{name}: none of its {len(rois)} regions covers a pixel of {micrograph.source}.")
    return labels


def _check_archive(file: Path, name: str) -> None:
    if file.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if len(entries) > MAX_OBJECTS or sum(entry.file_size for entry in entries) > MAX_TEXT_BYTES:
            raise InputFileError(f"{name}: unpacks to more than {MAX_TEXT_BYTES // 2**20} MB of regions.")


def _draw_roi(labels: npt.NDArray[np.int64], roi: Any, number: int, name: str) -> None:
    kind = roi.roitype.name
    top, left, bottom, right = roi.top, roi.left, roi.bottom, roi.right
    if kind == "RECT":
        labels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = number
    elif kind == "OVAL":
        rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
        height, width = max(bottom - top, 1), max(right - left, 1)
        y, x = (rows + 0.5 - top) / height - 0.5, (columns + 0.5 - left) / width - 0.5
        labels[x**2 + y**2 <= 0.25] = number
    elif kind in ("POLYGON", "FREEHAND", "TRACED"):
        # Corners (x, y), where pixels begin at whole numbers.
        _draw_polygon(labels, np.asarray(roi.coordinates(), dtype=np.float64)[:, ::-1] - 0.5, number)
    else:
        raise DataError(
            f"{name}: region {number} is a {kind.lower()}, which has no area. Use polygons, ovals, rectangles."
        )
