"""Scores of a model on particles whose labels it never saw, beside the simplest baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tumble.errors import DataError, LabelError
from tumble.metrics import balanced_accuracy, confusion, recall_per_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tumble.library import Library

__all__ = ["BASELINE", "evaluate"]

#: Name of the baseline in an evaluation.
BASELINE = "area decision tree"


def evaluate(
    library: Library,
    model_name: str,
    test_labels: pd.Series,
    train_labels: pd.Series,
    *,
    region: str,
) -> dict[str, Any]:
    """Score stored predictions against labels that the fit did not use, and store the scores with the model.

    Parameters
    ----------
    library : Library
        An open library with predictions of the model.
    model_name : str
        Name of the model in the library.
    test_labels : Series
        Particle id to true class, for particles that gave the fit no labels.
    train_labels : Series
        Particle id to class as the fit got them; the baseline is fitted to the same.
    region : str
        Where the test particles are from, for the reader of the report.

    Returns
    -------
    dict
        ``classes, confusion, n_test, balanced_accuracy, recall_per_class, region, test_particle_ids``, their
        ``test_labels``, and ``baselines``, a mapping of name to ``balanced_accuracy`` and ``recall_per_class``.

    Raises
    ------
    LabelError
        If a particle is in both sets or a class is unknown to the model.
    DataError
        If a test particle has no prediction, or there is none to test.
    """
    record = library.model_record(model_name)
    classes = list(record.classes)
    _check_split(test_labels, train_labels, record.labelled_particle_ids, classes)
    ids, predictions = library.predictions(model_name)
    winners = np.asarray(predictions.classes, dtype=object)[predictions.probabilities.argmax(axis=1)]
    predicted = pd.Series(winners, index=np.asarray(ids)).reindex(test_labels.index)
    if predicted.empty or predicted.isna().any():
        raise DataError(
            f"{int(predicted.isna().sum())} of {len(predicted)} test particles have no prediction of "
            f"{model_name!r}. Run `tumble classify` first, and give at least one test particle."
        )
    truth = test_labels.to_numpy(dtype=str)
    evaluation = {
        "classes": classes,
        "confusion": confusion(truth, predicted.to_numpy(dtype=str), classes=classes).tolist(),
        "n_test": len(truth),
        **_scores(truth, predicted.to_numpy(dtype=str), classes),
        "region": region,
        "test_particle_ids": [int(value) for value in test_labels.index],
        "test_labels": truth.tolist(),  # labels may change later; what was measured does not
        "baselines": {BASELINE: _baseline(library, test_labels, train_labels, classes)},
    }
    library.update_evaluation(model_name, evaluation)
    return evaluation


def _check_split(test: pd.Series, train: pd.Series, labelled_in_fit: Sequence[int], classes: Sequence[str]) -> None:
    seen = set(test.index) & (set(train.index) | set(labelled_in_fit))
    if seen:
        raise LabelError(
            f"test_labels: particle {min(seen)} gave a training label ({len(seen)} such particles). Scores "
            "on training labels mean nothing; leave them out."
        )
    strangers = sorted(set(test.astype(str)) - set(classes))
    if strangers:
        raise LabelError(f"test_labels: the model knows no class {strangers[0]!r}; it knows {', '.join(classes)}.")


def _scores(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: list[str]) -> dict[str, Any]:
    return {
        "balanced_accuracy": balanced_accuracy(truth, predicted),
        "recall_per_class": {
            str(name): float(value) for name, value in recall_per_class(truth, predicted, classes=classes).items()
        },
    }


def _baseline(library: Library, test_labels: pd.Series, train_labels: pd.Series, classes: list[str]) -> dict[str, Any]:
    from tumble.baselines import AreaTreeClassifier

    area = library.particles()["area_px"]
    tree = AreaTreeClassifier(random_state=0)
    tree.fit(area.loc[train_labels.index].to_numpy(), train_labels.to_numpy(dtype=str))
    predicted = tree.predict(area.loc[test_labels.index].to_numpy())
    return _scores(test_labels.to_numpy(dtype=str), np.asarray(predicted, dtype=str), classes)
