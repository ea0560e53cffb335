"""Accuracy on the real gold micrograph, over several draws of the 60 training labels.

Each seed draws 15 labels per class from the left half and scores on the right half, as `tumble demo` does. Beside the
default method stand the demo's baseline (a decision tree on area) and a random forest on all measurements with the same
labels. The other rows use what the task does not give: every label of the left half, or the reference's own masks in
place of ours, left to right as well and cross-validated over the whole image. Only left-to-right rows compare with
each other; the cross-validated one has far more labels of the rare classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.utils import Bunch

from benchmarks.common import Record, Row, arguments, parse, with_options
from benchmarks.data import Split
from benchmarks.methods import METHODS, Fitted, compare
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


class Gold:
    """The micrograph, cut: crops and measurements of the particles, their classes, and the halves of the image."""

    def __init__(self) -> None:
        self.reference = load_nanogold()
        self.particles = extract_particles(read_micrograph(self.reference.filename))
        self.y, self.candidates, self.test = split(self.particles, self.reference)
        self.measured = shape_measurements(self.particles.table)
        self.area = self.particles.table["area_px"].to_numpy()

    @cached_property
    def in_own_masks(self) -> tuple[Any, npt.NDArray[Any]]:
        """Measurements of the reference objects in their own masks, and their classes."""
        return reference_table(self.reference)

    def draw(self, seed: int) -> npt.NDArray[Any]:
        """Labels of 15 particles of each class from the left half, -1 for all others."""
        rng = np.random.default_rng(seed)
        given = np.full(len(self.y), -1)
        for k in range(4):
            given[rng.choice(np.flatnonzero(self.candidates & (self.y == k)), LABELS_PER_CLASS, replace=False)] = k
        return given

    def scores(self, predicted: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Row:
        """Balanced accuracy, and recall of each class."""
        recalls = recall_per_class(truth, predicted, classes=[0, 1, 2, 3])
        named = {self.reference.classes[int(k)]: float(v) for k, v in recalls.items()}
        return {"balanced_accuracy": float(balanced_accuracy(truth, predicted)), "recall": named}

    def crops(self, given: npt.NDArray[Any]) -> Split:
        """All crops with these labels to fit, those of the right half for the test."""
        X, names = self.particles.crops, tuple(map(str, self.reference.classes))
        return Split(X, given, X[self.test], self.y[self.test], names, Bunch())

    def forest(self, labelled: npt.NDArray[Any], seed: int, n_trees: int) -> Row:
        """Score a random forest on the measurements, trained with the true classes of these particles."""
        model = RandomForestClassifier(n_trees, class_weight="balanced", random_state=seed)
        model.fit(self.measured[labelled], self.y[labelled])
        return self.scores(model.predict(self.measured[self.test]), self.y[self.test])

    def tree(self, given: npt.NDArray[Any]) -> Row:
        """Score the demo's baseline, a decision tree on area."""
        tree = AreaTreeClassifier(random_state=0).fit(self.area, given)
        return self.scores(tree.predict(self.area[self.test]), self.y[self.test])


@cache
def load_gold() -> Gold:
    """Cut the micrograph, once."""
    return Gold()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every method for every seed, then print the table."""
    parser = arguments("nanogold", __doc__, methods=tuple(METHODS), default_methods=("tumble", "cnn", "fixmatch"))
    options = parse(parser, argv)
    record = Record(options.out, options.since)
    gold = load_gold()
    settings = estimator_for_crops(max_epochs=MAX_EPOCHS).get_params()
    for seed in range(options.seeds):
        given = gold.draw(seed)

        def score(model: Fitted, data: Split) -> Row:
            return gold.scores(model.predict(data.X_test), data.y_test)

        compare(
            record,
            options,
            {"seed": seed},
            lambda given=given: gold.crops(given),
            score,
            settings=settings,
            suffix=", 15 labels per class",
        )
        for name, work in simple_methods(gold, given, seed, 5 if options.quick else 500).items():
            record.measure(with_options({"method": name, "seed": seed}, options, uses_settings=False), work)
    print("\n" + record.table(["method"], "balanced_accuracy"))


def simple_methods(gold: Gold, given: npt.NDArray[Any], seed: int, n_trees: int) -> dict[str, Callable[[], Row]]:
    """Methods on measurements, by name, each ready to be measured."""
    forest, masks = "random forest on measurements", "random forest on the reference's own masks"
    return {
        "decision tree on area, 15 labels per class": lambda: gold.tree(given),
        f"{forest}, 15 labels per class": lambda: gold.forest(given >= 0, seed, n_trees),
        f"{forest}, all labels of the left half": lambda: gold.forest(gold.candidates, seed, n_trees),
        f"{masks}, cross-validated over all labels": lambda: reference_ceiling(gold, seed, n_trees),
        f"{masks}, 15 labels per class": lambda: reference_split(gold, seed, n_trees, few=True),
        f"{masks}, all labels of the left half": lambda: reference_split(gold, seed, n_trees, few=False),
    }


def reference_table(gold: Bunch) -> tuple[Any, npt.NDArray[Any]]:
    """Measure the reference objects in their own masks; also their classes."""
    objects = gold.objects.astype(np.int32)
    pixels = read_micrograph(gold.filename).pixels
    table = measure_particles(objects, pixels, estimate_background(pixels), trace_outlines(objects), None)
    return table, np.asarray(gold.object_classes)


def reference_split(gold: Gold, seed: int, n_trees: int, *, few: bool) -> Row:
    """Train a forest on reference objects of the left half and score it on those of the right half."""
    table, classes = gold.in_own_masks
    column, middle = table["centroid_col_px"].to_numpy(), gold.reference.image.shape[1] / 2
    whole = ~table["touches_border"].to_numpy(dtype=bool)
    left, right = whole & (column + 24 <= middle), whole & (column - 24 >= middle)
    chosen = np.flatnonzero(left)
    if few:
        rng = np.random.default_rng(seed)
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(left & (classes == k)), LABELS_PER_CLASS, replace=False) for k in range(4)]
        )
    measured = shape_measurements(table)
    forest = RandomForestClassifier(n_trees, class_weight="balanced", random_state=seed)
    return gold.scores(forest.fit(measured[chosen], classes[chosen]).predict(measured[right]), classes[right])


def reference_ceiling(gold: Gold, seed: int, n_trees: int) -> Row:
    """Cross-validate a forest on measurements of the reference objects themselves."""
    table, classes = gold.in_own_masks
    forest = RandomForestClassifier(n_trees, class_weight="balanced", random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return gold.scores(cross_val_predict(forest, shape_measurements(table), classes, cv=folds), classes)


if __name__ == "__main__":
    main()
