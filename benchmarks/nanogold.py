"""Accuracy on the real gold micrograph, over several draws of the 60 training labels.

Each seed draws 15 labels per class from the left half and scores on the right half, as `tumble demo` does. Beside the
default method stand the demo's baseline (a decision tree on area) and a random forest on all measurements with the same
labels. The other rows use what the task does not give: every label of the left half, or the reference's own masks in
place of ours, left to right as well and cross-validated over the whole image. Only left-to-right rows compare with
each other; the cross-validated one has far more labels of the rare classes.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.utils import Bunch

from benchmarks.common import Record, Row, arguments
from tumble.baselines import AreaTreeClassifier
from tumble.datasets import load_nanogold
from tumble.demo import LABELS_PER_CLASS, MAX_EPOCHS
from tumble.metrics import balanced_accuracy, match_segmentations, recall_per_class
from tumble.micrograph import estimate_background, read_micrograph
from tumble.particles import extract_particles
from tumble.particles.measure import measure_particles, trace_outlines
from tumble.pipeline import estimator_for_crops
from tumble.types import Particles

_NOT_SHAPE = ("centroid", "bbox", "orientation", "touches", "truncated")


def shape_measurements(table: Any) -> npt.NDArray[np.float64]:
    """Pick the measurements that do not say where or at which angle a particle lies."""
    kept = [name for name in table.columns if not name.startswith(_NOT_SHAPE)]
    return table[kept].fillna(0).to_numpy(dtype=float)


def split(particles: Particles, gold: Bunch) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Classes of the particles (-1: none), the candidates for training labels, and the test particles."""
    match = match_segmentations(gold.objects, particles.mask, iou_threshold=0.5)
    y = np.full(len(particles), -1)
    y[match.pairs[:, 1] - 1] = gold.object_classes[match.pairs[:, 0] - 1]
    column = particles.table["centroid_col_px"].to_numpy()
    half, middle = particles.parameters["window_px"] / 2, gold.image.shape[1] / 2
    whole = (y >= 0) & ~particles.table["touches_border"].to_numpy(dtype=bool)
    return y, whole & (column + half <= middle), whole & (column - half >= middle)


def main() -> None:
    """Measure every method for every seed, then print the table."""
    options = arguments("nanogold", __doc__).parse_args()
    record = Record(options.out)
    gold = load_nanogold()
    particles = extract_particles(read_micrograph(gold.filename))
    y, candidates, test = split(particles, gold)
    measured, area = shape_measurements(particles.table), particles.table["area_px"].to_numpy()

    def scores(predicted: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Row:
        recalls = recall_per_class(truth, predicted, classes=[0, 1, 2, 3])
        named = {gold.classes[int(k)]: float(v) for k, v in recalls.items()}
        return {"balanced_accuracy": float(balanced_accuracy(truth, predicted)), "recall": named}

    def forest(labelled: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
        model = RandomForestClassifier(500, class_weight="balanced", random_state=seed)
        return model.fit(measured[labelled], y[labelled]).predict(measured[test])

    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        given = np.full(len(y), -1)
        for k in range(4):
            chosen = rng.choice(np.flatnonzero(candidates & (y == k)), LABELS_PER_CLASS, replace=False)
            given[chosen] = k

        def default_method(given: npt.NDArray[Any] = given, seed: int = seed) -> Row:
            started = time.perf_counter()
            model = estimator_for_crops(max_epochs=MAX_EPOCHS, random_state=seed).fit(particles.crops, given)
            seconds = time.perf_counter() - started
            return {**scores(model.predict(particles.crops[test]), y[test]), "seconds": seconds}

        def area_tree(given: npt.NDArray[Any] = given) -> Row:
            tree = AreaTreeClassifier(random_state=0).fit(area, given)
            return scores(tree.predict(area[test]), y[test])

        record.measure({"method": "tumble, 15 labels per class", "seed": seed}, default_method)
        record.measure({"method": "decision tree on area, 15 labels per class", "seed": seed}, area_tree)
        record.measure(
            {"method": "random forest on measurements, 15 labels per class", "seed": seed},
            lambda given=given, seed=seed: scores(forest(given >= 0, seed), y[test]),
        )
        record.measure(
            {"method": "random forest on measurements, all labels of the left half", "seed": seed},
            lambda seed=seed: scores(forest(candidates, seed), y[test]),
        )
        record.measure(
            {"method": "random forest on the reference's own masks, cross-validated over all labels", "seed": seed},
            lambda seed=seed: reference_ceiling(gold, seed, scores),
        )
        for few in (True, False):
            amount = "15 labels per class" if few else "all labels of the left half"
            record.measure(
                {"method": f"random forest on the reference's own masks, {amount}", "seed": seed},
                lambda few=few, seed=seed: reference_split(gold, seed, scores, few=few),
            )
    print("\n" + record.table(["method"], "balanced_accuracy"))


def reference_table(gold: Bunch) -> tuple[Any, npt.NDArray[Any]]:
    """Measure the reference objects in their own masks; also their classes."""
    objects = gold.objects.astype(np.int32)
    pixels = read_micrograph(gold.filename).pixels
    table = measure_particles(objects, pixels, estimate_background(pixels), trace_outlines(objects), None)
    return table, np.asarray(gold.object_classes)


def reference_split(gold: Bunch, seed: int, scores: Any, *, few: bool) -> Row:
    """Train a forest on reference objects of the left half and score it on those of the right half."""
    table, classes = reference_table(gold)
    column, middle = table["centroid_col_px"].to_numpy(), gold.image.shape[1] / 2
    whole = ~table["touches_border"].to_numpy(dtype=bool)
    left, right = whole & (column + 24 <= middle), whole & (column - 24 >= middle)
    chosen = np.flatnonzero(left)
    if few:
        rng = np.random.default_rng(seed)
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(left & (classes == k)), LABELS_PER_CLASS, replace=False) for k in range(4)]
        )
    measured = shape_measurements(table)
    forest = RandomForestClassifier(500, class_weight="balanced", random_state=seed)
    return scores(forest.fit(measured[chosen], classes[chosen]).predict(measured[right]), classes[right])


def reference_ceiling(gold: Bunch, seed: int, scores: Any) -> Row:
    """Cross-validate a forest on measurements of the reference objects themselves."""
    table, classes = reference_table(gold)
    forest = RandomForestClassifier(500, class_weight="balanced", random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return scores(cross_val_predict(forest, shape_measurements(table), classes, cv=folds), classes)


if __name__ == "__main__":
    main()
