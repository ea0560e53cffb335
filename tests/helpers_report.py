"""Libraries for the tests of the report: an image of drawn discs, and plausible or hostile contents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from skimage.measure import find_contours

from tumble.types import Micrograph, ModelRecord, Particles, Pose, Predictions

if TYPE_CHECKING:
    from tumble.library import Library

CROP_SIDE = 24
HEIGHT, WIDTH = 120, 200


def draw_discs(seed: int = 0, pixel_size_nm: float | None = None) -> tuple[Micrograph, Particles]:
    """Forty discs of growing size on a grid; those of the first column are cut off by the edge."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = rng.normal(60, 8, (HEIGHT, WIDTH))
    mask = np.zeros((HEIGHT, WIDTH), np.int32)
    records, crops, outlines = [], [], []
    for index in range(40):
        row, column, radius = 12 + 24 * (index // 8), 2 + 24 * (index % 8), 3 + index / 8
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        image[inside] += 120
        mask[inside] = index + 1
        found = np.nonzero(inside)
        padded = np.pad(inside, 1)
        outlines.append((find_contours(padded.astype(float), 0.5)[0] - 1).astype(np.float32))
        records.append(
            {
                "centroid_row_px": found[0].mean(),
                "centroid_col_px": found[1].mean(),
                "bbox_row_start": found[0].min(),
                "bbox_row_stop": found[0].max() + 1,
                "bbox_col_start": found[1].min(),
                "bbox_col_stop": found[1].max() + 1,
                "area_px": float(inside.sum()),
                "equivalent_diameter_px": float(np.sqrt(4 * inside.sum() / np.pi)),
                "touches_border": bool(column - radius < 0),
            }
        )
        centred = np.pad(image, CROP_SIDE)[row + 12 : row + 36, column + 12 : column + 36]
        crops.append(np.clip(centred, 0, 255).astype(np.uint8))
    table = pd.DataFrame(records)
    if pixel_size_nm is not None:
        table["equivalent_diameter_nm"] = table["equivalent_diameter_px"] * pixel_size_nm
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    micrograph = Micrograph(pixels, f"discs-{seed}.tif", f"{seed:064d}", pixel_size_nm)
    parameters = {"min_area_px": 12, "intensity_range": [0, 255]}
    return micrograph, Particles(np.stack(crops), table, mask, tuple(outlines), parameters)


def make_predictions(n: int, classes: tuple[str, ...], latent_dim: int, seed: int = 0) -> Predictions:
    """Random class probabilities, the first class the most frequent."""
    rng = np.random.default_rng(seed)
    weights = np.linspace(3, 1, len(classes))
    probabilities = rng.dirichlet(weights, n).astype(np.float32)
    zeros = np.zeros(n, np.float32)
    pose = Pose(zeros, np.zeros((n, 2), np.float32), zeros + 1, zeros + 0.1)
    return Predictions(classes, probabilities, rng.normal(size=(n, latent_dim)).astype(np.float32), pose)


def make_record(name: str, classes: tuple[str, ...], labelled: list[int], **changes: Any) -> ModelRecord:
    """A record with curves and a manifold."""
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = {
        "name": name,
        "path": "models/" + name,
        "classes": classes,
        "config": {"latent_dim": 2, "invariances": ["rotation", "translation"], "decoder": "template"},
        "environment": {"tumble": "0.1", "torch": "2.6"},
        "history": {
            "loss": [3.0, 2.0, 1.5],
            "elbo_labelled": [-3.0, -2.0, -1.0],
            "elbo_unlabelled": [-4.0, -3.0, -2.0],
        },
        "labelled_particle_ids": tuple(labelled),
        "fit_seconds": 12.5,
        "manifold": rng.integers(0, 255, (len(classes), 3, 3, 8, 8), dtype=np.uint8),
        "manifold_axis": np.linspace(-2, 2, 3, dtype=np.float32),
    }
    return ModelRecord(**(settings | changes))


def make_evaluation(
    classes: tuple[str, ...], labels: pd.Series, predicted: pd.Series, test_ids: list[int]
) -> dict[str, Any]:
    """Scores of `predicted` against `labels` with two baselines, one worse than the other."""
    confusion = [
        [sum(labels[key] == row and predicted[key] == column for key in test_ids) for column in classes]
        for row in classes
    ]
    recall = {name: confusion[i][i] / max(1, sum(confusion[i])) for i, name in enumerate(classes)}
    balanced = float(np.mean(list(recall.values())))
    return {
        "classes": list(classes),
        "confusion": confusion,
        "n_test": len(test_ids),
        "balanced_accuracy": balanced,
        "recall_per_class": recall,
        "region": "columns 100 to 199",
        "test_particle_ids": list(test_ids),
        "baselines": {
            "most frequent class": {
                "balanced_accuracy": 1 / len(classes),
                "recall_per_class": {name: float(name == classes[0]) for name in classes},
            },
        },
    }


def fill_library(
    library: Library,
    *,
    classes: tuple[str, ...] = (),
    model: bool = False,
    evaluated: bool = False,
    latent_dim: int = 2,
    pixel_size_nm: float | None = None,
    **changes: Any,
) -> list[int]:
    """Store the discs, labels of `classes` in turn, and a model "m1"; return the particle ids."""
    micrograph, particles = draw_discs(pixel_size_nm=pixel_size_nm)
    library.add_micrograph(micrograph, particles)
    ids = [int(key) for key in library.particles().index]
    if classes:
        labels = [classes[index % len(classes)] for index in range(len(ids))]
        library.add_labels(ids, labels, author="tester", source="drawn")
    if model:
        library.add_model(make_record("m1", classes, ids[:10], **changes))
        library.add_predictions("m1", ids, make_predictions(len(ids), classes, latent_dim))
    if evaluated:
        table = library.particles(model="m1")
        evaluation = make_evaluation(classes, table["label"], table["predicted"], ids[10:])
        library.update_evaluation("m1", evaluation)
    return ids
