"""A small synthetic micrograph of two kinds of objects, as files and as a library."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from tumble.library import Library
from tumble.pipeline import ExtractionOptions, extract_into, label_from_mask

if TYPE_CHECKING:
    from pathlib import Path

PITCH = 24
ROWS, COLUMNS = 5, 8
CLASSES = {1: "disc", 2: "pair"}

#: Crops of this size keep the fits of the tests short.
OPTIONS = ExtractionOptions(crop_size=24)


def make_image(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of discs and of pairs of touching discs at any angle, and the class of each pixel."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: ROWS * PITCH, : COLUMNS * PITCH]
    image = np.full(rows.shape, 40.0)
    classes = np.zeros(rows.shape, dtype=np.uint8)
    for index in range(ROWS * COLUMNS):
        row, column = PITCH * (np.array(divmod(index, COLUMNS)) + 0.5) + rng.uniform(-1, 1, 2)
        kind = 1 + index % 2
        angle = rng.uniform(0, np.pi)
        step = 0.0 if kind == 1 else 3.5
        inside = np.zeros(rows.shape, dtype=bool)
        for side in (-step, step):
            inside |= (rows - row - side * np.sin(angle)) ** 2 + (columns - column - side * np.cos(angle)) ** 2 <= 16
        image[inside] = 180
        classes[inside] = kind
    image += rng.normal(0, 3, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), classes


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write the image and its class mask, and return their paths."""
    image, classes = make_image()
    tifffile.imwrite(folder / "image.tif", image)
    tifffile.imwrite(folder / "classes.tif", classes)
    return folder / "image.tif", folder / "classes.tif"


def make_library(folder: Path, *, labels: bool = True) -> Path:
    """Make a library of the image, with or without labels, and return its path."""
    image, mask = write_files(folder)
    path = folder / "particles.db"
    with Library(path, create=True) as library:
        extract_into(library, [image], options=OPTIONS)
        if labels:
            label_from_mask(library, mask, CLASSES, author="painter")
    return path


def dump(path: Path) -> list[str]:
    """Return everything that a library holds, to compare before and after."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()
