"""Behaves like scikit-learn: its own checks, and its tools on images."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import DataConversionWarning, SkipTestWarning
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from tumble import RVAE, SSRVAEClassifier
from tumble.datasets import make_cards
from tumble.errors import LabelError, NotFittedError


class FromTable:
    """Lays the rows of a table out as small images, for the checks that only speak of tables.

    What concerns tables and not images (two axes, sparse matrices, names and number of columns, whole numbers as
    pixels) is left to scikit-learn's `validate_data`. All else, of X as of y, reaches the estimator as it came.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags

    def _images(self, X: Any, *, image_shape: tuple[int, int, int] | None = None):
        if getattr(X, "ndim", 2) <= 2:
            X = validate_data(self, X, reset=image_shape is None, dtype=None, ensure_all_finite=False)
            X = X.astype(np.float32) if X.dtype.kind in "iu" else X
            X = as_tiles(X)
        return super()._images(X, image_shape=image_shape)


def as_tiles(table):
    """Each column as a patch of 4 x 4 px, in rows of at least two patches, zero where there is none."""
    per_row = max(2, int(np.ceil(np.sqrt(table.shape[1]))))
    padded = np.zeros((len(table), per_row**2), dtype=table.dtype)
    padded[:, : table.shape[1]] = table
    return padded.reshape(-1, per_row, per_row).repeat(4, axis=1).repeat(4, axis=2)


class TableClassifier(FromTable, SSRVAEClassifier):
    pass


class TableRVAE(FromTable, RVAE):
    pass


SMALL: dict[str, Any] = {
    # The columns of a table have no pose and no shape: nothing is turned, moved or sheared.
    "invariances": (),
    "scale_jitter": 0.0,
    "shear_jitter": 0.0,
    "encoder_channels": (8,),
    "hidden": 8,
    "max_epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.02,
    "random_state": 0,
}
TABLE_ESTIMATORS = [TableClassifier(**SMALL), TableRVAE(**SMALL)]

#: Checks that cannot apply, with the reason; every other one must pass, and these must fail.
NOT_APPLICABLE_TO_BOTH = {
    "check_dtype_object": (
        "an object array is what a list of images of different sizes becomes; it is refused with that reason, "
        "where the check wants the numbers in it to be accepted"
    ),
}
NOT_APPLICABLE = {
    "TableClassifier": {
        **NOT_APPLICABLE_TO_BOTH,
        "check_classifiers_classes": (
            "its last part has the classes -1 and 1, where -1 means unlabelled here, as in sklearn.semi_supervised; "
            "the parts before it are repeated in test_classes_come_back_under_their_names"
        ),
    },
    "TableRVAE": NOT_APPLICABLE_TO_BOTH,
}
#: Checks that compare to 1e-7, below the rounding of the networks' 32-bit arithmetic: whether they pass depends on the
#: processor. `test_images_do_not_depend_on_their_neighbours` holds the estimators to 1e-5.
BELOW_ROUNDING = ("check_methods_sample_order_invariance", "check_methods_subset_invariance")


def checks():
    for estimator in TABLE_ESTIMATORS:
        reasons = NOT_APPLICABLE[type(estimator).__name__]
        for instance, check in estimator_checks_generator(estimator):
            function = getattr(check, "func", check).__name__
            options = [f"{k}={v}" for k, v in getattr(check, "keywords", {}).items()]
            marks = []
            if function in reasons:
                marks = [pytest.mark.xfail(reason=reasons[function], strict=True)]
            elif function in BELOW_ROUNDING:
                marks = [pytest.mark.xfail(reason="compares below rounding", raises=AssertionError, strict=False)]
            name = "-".join([type(estimator).__name__, function, *options])
            yield pytest.param(instance, check, id=name, marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_check_of_scikit_learn(estimator, check):
    if getattr(check, "func", check).__name__ == "check_array_api_input":
        pytest.skip("only runs where SCIPY_ARRAY_API=1 is set before SciPy is imported; see the test below")
    check(estimator)


def test_check_of_the_array_api():
    """Switching scikit-learn's dispatch on changes nothing; it must be asked for before SciPy is imported."""
    code = (
        "from test_sklearn_compliance import TABLE_ESTIMATORS\n"
        "from sklearn.utils.estimator_checks import check_array_api_input\n"
        "from tumble.fit import confidence\n"
        "confidence._STEPS = (60, 60)\n"
        "for estimator in TABLE_ESTIMATORS:\n"
        "    check_array_api_input(type(estimator).__name__, estimator, array_namespace='numpy',"
        " expect_only_array_outputs=False)\n"
    )
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr and "array_api" in done.stderr:
        pytest.skip("array_api_compat is not installed")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("estimator", [SSRVAEClassifier(), RVAE()])
def test_check_estimator_on_the_estimators_themselves(estimator):
    """It passes, but checks little: scikit-learn has no checks for images, and says so."""
    with pytest.warns(SkipTestWarning, match="requires input"):
        results = check_estimator(estimator)
    assert {r["status"] for r in results} <= {"passed"}


@pytest.mark.parametrize("names", [["one", "two", "three"], [3, 7, 100], [-5, -2, 4]])
def test_classes_come_back_under_their_names(names):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(3), 10))
    X = np.eye(3)[y] + rng.normal(scale=0.1, size=(30, 3))
    for labels in (np.take(names, y), np.take(names, y).astype(object)):
        model = clone(TABLE_ESTIMATORS[0]).set_params(max_epochs=30).fit(X, labels)
        assert model.classes_.tolist() == sorted(names)
        np.testing.assert_array_equal(model.predict(X), np.take(names, y))


QUICK: dict[str, Any] = {"max_epochs": 2, "hidden": 8, "encoder_channels": (8,), "batch_size": 16, "random_state": 0}


@pytest.fixture(scope="module")
def cards():
    labelled = make_cards(6, angle=5, translation=0, random_state=0)
    tumbled = make_cards(6, angle=180, random_state=1)
    X = np.concatenate([labelled.X, tumbled.X])[:, ::3, ::3].astype(np.float32)
    return X, np.concatenate([labelled.y, np.full(len(tumbled.y), -1)])


@pytest.fixture(scope="module", params=["default", "fine", "paper", "rvae"])
def fitted(request, cards):
    if request.param == "rvae":
        return RVAE(**QUICK).fit(cards[0])
    changes = {"fine": {"classifier": "fine"}, "paper": {"method": "paper"}, "default": {}}[request.param]
    return SSRVAEClassifier(labelled_batch_size=8, **QUICK, **changes).fit(*cards)


def outputs(model, X):
    pose = model.pose(X)
    said = [model.transform(X), np.cos(pose.angle_rad), pose.shift_px, model.reconstruct(X)]
    return [*said, model.predict_proba(X)] if is_classifier(model) else said


def test_images_do_not_depend_on_their_neighbours(cards, fitted):
    X = cards[0][:9]
    order = np.random.default_rng(3).permutation(9)
    together, shuffled = outputs(fitted, X), outputs(fitted, X[order])
    alone = [np.concatenate(parts) for parts in zip(*(outputs(fitted, X[i : i + 1]) for i in range(9)), strict=True)]
    for a, b, c in zip(together, shuffled, alone, strict=True):
        np.testing.assert_allclose(b, a[order], atol=1e-5)
        np.testing.assert_allclose(c, a, atol=1e-5)


def test_every_output_is_in_32_bits(cards, fitted):
    for dtype in (np.float64, np.float32, np.float16, np.uint8):
        assert {a.dtype for a in outputs(fitted, cards[0][:2].astype(dtype))} == {np.dtype(np.float32)}


def test_a_pickled_model_says_the_same(cards, fitted):
    again = pickle.loads(pickle.dumps(fitted))
    for a, b in zip(outputs(fitted, cards[0]), outputs(again, cards[0]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_that_is_asked_changes_the_model(cards, fitted):
    before = pickle.dumps(fitted)
    outputs(fitted, cards[0])
    assert pickle.dumps(fitted) == before


def test_a_folded_classifier_follows_the_weights(cards):
    """Probabilities come from a copy with the normalisation folded in: it must never be an old one."""
    model = SSRVAEClassifier(labelled_batch_size=8, **QUICK).fit(*cards)
    before = model.predict_proba(cards[0])
    with torch.no_grad():
        model.model_.classifier.head[-1].bias[0] += 1
        x = torch.from_numpy(cards[0])[:, None]
        expected = model.model_.probabilities(x).numpy()
    after = model.predict_proba(cards[0])
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_clone_parameters_and_picture(fitted):
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    assert not hasattr(fresh, "model_")
    assert type(fitted).__name__ in fitted._repr_html_()
    assert type(fitted).__name__ in repr(fitted)
    check_is_fitted(fitted)
    for error in (NotFittedError, SklearnNotFittedError):
        with pytest.raises(error, match="call fit"):
            fresh.transform(np.zeros((1, 16, 16)))


def test_tags():
    for estimator in (SSRVAEClassifier(), RVAE()):
        tags = get_tags(estimator)
        assert tags.input_tags.three_d_array
        assert not tags.input_tags.two_d_array
        assert tags.transformer_tags.preserves_dtype == ["float32"]
    assert get_tags(SSRVAEClassifier()).target_tags.required
    assert get_tags(SSRVAEClassifier()).classifier_tags.multi_class
    assert not get_tags(RVAE()).target_tags.required


def test_latent_factors_have_names(cards, fitted):
    name = type(fitted).__name__.lower()
    assert fitted.get_feature_names_out().tolist() == [f"{name}0", f"{name}1"]
    table = copy.copy(fitted).set_output(transform="pandas").transform(cards[0])
    assert list(table.columns) == [f"{name}0", f"{name}1"]


def rescaled(X):
    return X.astype(np.float32) / 255


def test_pipelines(cards):
    X, y = cards
    grey = np.rint(X * 255)
    model = make_pipeline(FunctionTransformer(rescaled), SSRVAEClassifier(labelled_batch_size=8, **QUICK))
    assert model.fit(grey, y).predict(grey).shape == y.shape
    assert 0 <= model.score(grey, y) <= 1
    factors = make_pipeline(FunctionTransformer(rescaled), RVAE(**QUICK), LogisticRegression())
    assert 0 <= factors.fit(grey[y >= 0], y[y >= 0]).score(grey[y >= 0], y[y >= 0]) <= 1


def test_grid_search_over_partly_labelled_images_in_two_processes(cards):
    # In other processes the score of novelty would be learned in full.
    model = SSRVAEClassifier(labelled_batch_size=8, novelty_score=False, **QUICK)
    search = GridSearchCV(model, {"latent_dim": [1, 3]}, cv=2, n_jobs=2, error_score="raise")
    search.fit(*cards)
    assert search.best_params_["latent_dim"] in (1, 3)
    assert search.predict(cards[0]).shape == cards[1].shape
    assert (search.cv_results_["mean_test_score"] >= 0).all()


def test_cross_validation_counts_labelled_images_only(cards):
    X, y = cards
    scores = cross_val_score(SSRVAEClassifier(labelled_batch_size=8, **QUICK), X, y, cv=2)
    # 12 labelled images in each half: shares are twelfths.
    np.testing.assert_allclose(scores * 12, np.rint(scores * 12), atol=1e-9)
    model = SSRVAEClassifier(labelled_batch_size=8, **QUICK).fit(X, y)
    right = model.predict(X) == y
    assert model.score(X, y) == pytest.approx(right[y >= 0].mean())
    weights = np.arange(len(y))
    assert model.score(X, y, weights) == pytest.approx(np.average(right[y >= 0], weights=weights[y >= 0]))
    with pytest.raises(LabelError, match="every label is missing"):
        model.score(X, np.full(len(y), -1))


def test_calibration_of_a_fitted_classifier(cards):
    X, y = cards
    model = SSRVAEClassifier(labelled_batch_size=8, **QUICK).fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), cv=2).fit(X[y >= 0], y[y >= 0])
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_a_column_of_labels_is_taken_with_a_warning(cards):
    X, y = cards
    with pytest.warns(DataConversionWarning, match="column-vector"):
        SSRVAEClassifier(labelled_batch_size=8, **QUICK).fit(X, y[:, None])


def test_sample_weights_are_not_taken_in_training(cards):
    with pytest.raises(TypeError, match="sample_weight"):
        SSRVAEClassifier().fit(*cards, sample_weight=np.ones(len(cards[1])))
