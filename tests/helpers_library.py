"""Small literal micrographs, particles, models and predictions for the tests of the library."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from tumble.types import Micrograph, ModelRecord, Particles, Pose, Predictions


def make_micrograph(seed: int = 0, shape: tuple[int, int] = (40, 56), pixel_size_nm: float | None = 1.5) -> Micrograph:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Micrograph(
        pixels=pixels,
        source=f"grid/particles ünder {seed}.tif",
        content_hash=hashlib.sha256(pixels.tobytes()).hexdigest(),
        pixel_size_nm=pixel_size_nm,
        metadata={"instrument": {"voltage_kV": 200.0, "notes": ["a", None]}},
        notes=("converted from RGB",),
    )


def make_particles(n: int = 5, seed: int = 0, shape: tuple[int, int] = (40, 56), side: int = 8) -> Particles:
    rng = np.random.default_rng([seed, n])
    mask = np.zeros(shape, dtype=np.int32)
    for i in range(n):  # columns of different height, so that nothing is symmetric
        mask[i % 7 : i % 7 + 1 + i % 3, (3 * i) % shape[1]] = i + 1
    table = pd.DataFrame(
        {
            "centroid_row_px": rng.uniform(0, 40, n),
            "bbox_min_row_px": rng.integers(0, 40, n),
            "area_px": rng.uniform(1, 900, n),
            "circularity": np.where(np.arange(n) % 2, np.nan, 1 / 3),
            "touches_border": rng.random(n) < 0.5,
            "count_of_holes": rng.integers(-3, 3, n).astype(np.int16),
            "roughness": rng.normal(size=n).astype(np.float32),
            "equivalent_diameter_nm": rng.uniform(1, 90, n),
        }
    )
    outlines = tuple(rng.normal(size=(3 + i % 4, 2)).astype(np.float32) for i in range(n))
    crops = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    return Particles(crops, table, mask, outlines, {"threshold": "local", "crop_size": side, "window": (1, 2)})


def make_record(name: str = "first", **changes: object) -> ModelRecord:
    rng = np.random.default_rng(3)
    values = {
        "name": name,
        "path": "models/first",
        "classes": ("rod", "sphere", "cube"),
        "config": {"latent_dim": 2, "invariances": ["rotation"], "learning_rate": 1e-3},
        "environment": {"tumble": "0.1.0"},
        "history": {"loss": [0.1 + 0.2, 1e-300, 3.0]},
        "labelled_particle_ids": (1, 3),
        "fit_seconds": 12.25,
        "manifold": rng.integers(0, 256, (3, 4, 4, 8, 8), dtype=np.uint8),
        "manifold_axis": np.linspace(-2, 2, 4, dtype=np.float32),
        "evaluation": None,
    }
    return ModelRecord(**(values | changes))  # type: ignore[arg-type]


def make_predictions(n: int, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    pose = Pose(normal(n), normal(n, 2), normal(n), normal(n))
    return Predictions(("rod", "sphere", "cube"), rng.dirichlet(np.ones(3), n).astype(np.float32), normal(n, 2), pose)
