"""A small library that looks like one of micrographs, and clients of its page."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from tumble.library import Library
from tumble.types import Micrograph, Particles

SIDE = 16


def fill(path, n=60, seed=0, pixel_size_nm=None):
    """Store n particles: round ones (odd ids) and bars (even ids), at places of their own; add to what is there."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    crops = np.empty((n, SIDE, SIDE), np.uint8)
    for i in range(n):
        angle = rng.uniform(0, np.pi)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        shape = np.hypot(along, across) < 5 if i % 2 == 0 else (abs(along) < 7) & (abs(across) < 2)
        crops[i] = np.clip(40 + 160 * shape + rng.normal(0, 8, shape.shape), 0, 255)
    width = 20 * 10
    pixels = rng.integers(0, 90, (20 * (n // 10 + 1), width), dtype=np.uint8)
    mask = np.zeros(pixels.shape, np.int32)
    boxes = [(20 * (i // 10) + 2, 20 * (i % 10) + 2) for i in range(n)]
    for i, (top, left) in enumerate(boxes):
        pixels[top : top + SIDE, left : left + SIDE] = crops[i]
        mask[top + 4 : top + 12, left + 4 : left + 12] = i + 1
    tops, lefts = (np.array(values) for values in zip(*boxes, strict=True))
    table = pd.DataFrame(
        {
            "centroid_row_px": tops + 8.0,
            "centroid_col_px": lefts + 8.0,
            "bbox_min_row_px": tops + 4,
            "bbox_min_col_px": lefts + 4,
            "bbox_max_row_px": tops + 12,
            "bbox_max_col_px": lefts + 12,
            "area_px": np.where(np.arange(n) % 2 == 0, 78.0, 56.0) + np.arange(n) / 100,
            "equivalent_diameter_px": np.where(np.arange(n) % 2 == 0, 10.0, 8.0) + np.arange(n) / 100,
        }
    )
    if pixel_size_nm is not None:
        table["equivalent_diameter_nm"] = table["equivalent_diameter_px"] * pixel_size_nm
        table["touches_border"] = tops + lefts < 10
    outlines = tuple(np.array([[t + 4, s + 4], [t + 12, s + 4], [t + 12, s + 12]], np.float32) for t, s in boxes)
    micrograph = Micrograph(
        pixels=pixels,
        source=f"grid {seed}.tif",
        content_hash=hashlib.sha256(pixels.tobytes()).hexdigest(),
        pixel_size_nm=pixel_size_nm,
        metadata={},
        notes=(),
    )
    with Library(path, create=not Path(path).exists()) as library:
        library.add_micrograph(micrograph, Particles(crops, table, mask, outlines, {"crop_size": SIDE}))
    return path
