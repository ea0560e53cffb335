"""`tumble reproduce`: the parts of its studies, and what they keep."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers_reproduce import CARDS, TINY, lab

from tumble.datasets import make_cards
from tumble.errors import ConfigError
from tumble.paper import draw, fig2, fig4, fig5, films, sweeps
from tumble.paper.data import Agglomerates, Cards, Gold, cards_test
from tumble.paper.methods import Fit, estimator, parameters, steps
from tumble.paper.outcome import Comparison
from tumble.paper.sizes import FULL
from tumble.paper.snapshots import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from tumble.fit import EpochReport

# Data


def test_labelled_cards_are_upright_and_the_rest_is_not() -> None:
    split = CARDS.split()
    labelled = split.y >= 0
    assert labelled.sum() == 16
    assert np.array_equal(split.truth[labelled], split.y[labelled])
    # The same draws with the paper's settings, made directly.
    upright = make_cards(4, angle=4, translation=0, random_state=910_000)
    assert np.array_equal(split.X[labelled], upright.X)
    assert np.array_equal(np.bincount(split.truth[~labelled]), [8, 8, 8, 8])


def test_no_test_card_was_seen_in_training() -> None:
    split = CARDS.split()
    seen = {image.tobytes() for image in split.X}
    assert not any(image.tobytes() in seen for image in split.X_test)


def test_seed_changes_every_part_of_the_cards() -> None:
    one, other = CARDS.split(), replace(CARDS, seed=1).split()
    assert not np.array_equal(one.X[:16], other.X[:16])
    assert not np.array_equal(one.X[16:], other.X[16:])
    assert not np.array_equal(one.X_test, other.X_test)


def test_unlabelled_agglomerates_are_the_test() -> None:
    split = Agglomerates((8, 7, 6, 5), 3, 0).split()
    assert np.array_equal(np.bincount(split.y[split.y >= 0]), [3, 3, 3, 3])
    assert np.array_equal(np.bincount(split.y_test), [5, 4, 3, 2])
    assert np.array_equal(split.X_test, split.X[split.y < 0])


def test_gold_is_trained_left_and_tested_right() -> None:
    split = Gold(2, 30, 25, 0).split()
    assert (split.y >= 0).sum() == 8
    assert len(split.X) == 38
    assert len(split.X_test) == 25
    labelled = {image.tobytes() for image in split.X[split.y >= 0]}
    assert not any(image.tobytes() in labelled for image in split.X_test)


@pytest.mark.parametrize("source", [Agglomerates((8, 7, 6, 5), 3, 0), Gold(2, 30, 25, 0)])
def test_the_background_of_nanoparticles_is_black(source) -> None:
    split, raw = source.split(), replace(source, stretched=False).split()
    assert split.X.dtype == split.X_test.dtype == np.float32
    assert (split.X.min(), split.X.max()) == (0, 1)
    assert np.median(split.X) < 0.25
    assert np.mean(split.X == 0) == pytest.approx(0.05, abs=0.02)
    # Test images are brought there by the same two numbers.
    black, white = np.percentile(raw.X, (5, 99.9))
    wanted = np.clip((raw.X_test.astype(float) - black) / (white - black), 0, 1)
    assert np.abs(split.X_test - wanted).max() < 1e-6


def test_full_sizes_are_the_published_ones() -> None:
    assert (FULL.n_labelled, FULL.n_unlabelled, FULL.n_test) == (200, 3000, 1000)
    assert FULL.agglomerates == (304, 93, 49, 31)
    assert len(FULL.grid_angles_deg) == len(FULL.grid_shears_deg) == 16
    assert FULL.paper == FULL.default == {}
    # Only what most figures do not share may cost less.
    assert FULL.sweep == {"pixel_fraction": 0.0625, "class_floor": 1e-4}


# Methods


def test_published_method_is_left_as_it_is() -> None:
    chosen = parameters(Fit("paper-ss-rvae", CARDS), FULL)
    assert chosen == {"method": "paper", "invariances": ["rotation", "translation"]}
    assert parameters(Fit("paper-ss-vae", CARDS), FULL)["invariances"] == []
    assert parameters(Fit("paper-ss-rvae", CARDS, swept=True), FULL) == {**chosen, **FULL.sweep}
    assert not FULL.sweep.keys() & parameters(Fit("paper-ss-vae", CARDS, swept=True), FULL).keys()
    assert "pixel_fraction" not in parameters(Fit("ss-rvae", CARDS, swept=True), FULL)


def test_default_method_trains_longer_where_its_manifold_is_drawn() -> None:
    assert parameters(Fit("ss-rvae", CARDS), FULL)["max_epochs"] == 24
    assert "max_epochs" not in parameters(Fit("ss-rvae", CARDS, swept=True), FULL)
    assert parameters(Fit("ss-rvae", CARDS), TINY)["max_epochs"] == TINY.default["max_epochs"]


def test_one_more_model_is_trained_for_worse_images() -> None:
    plain, degraded = (parameters(Fit(method, CARDS), FULL) for method in ("ss-rvae", "ss-rvae-degraded"))
    assert degraded == {**plain, "degradation": 1.0, "encoder_channels": (32, 96)}
    assert estimator(Fit("ss-rvae-degraded", CARDS), FULL).degradation == 1.0


def test_published_method_may_cost_less_where_asked() -> None:
    sizes = FULL.with_published({"pixel_fraction": 0.5, "precision": "bfloat16", "hidden": 64}, {"max_epochs": 50})
    chosen = parameters(Fit("paper-ss-rvae", CARDS), sizes)
    assert (chosen["pixel_fraction"], chosen["precision"], chosen["hidden"]) == (0.5, "bfloat16", 64)
    assert "max_epochs" not in chosen
    swept = parameters(Fit("paper-ss-rvae", CARDS, swept=True), sizes)
    assert swept == {**chosen, **FULL.sweep, "max_epochs": 50}
    # What saves nothing there is left as published.
    assert parameters(Fit("paper-ss-vae", CARDS), sizes) == {"method": "paper", "invariances": [], "hidden": 64}
    assert parameters(Fit("ss-rvae", CARDS), sizes) == parameters(Fit("ss-rvae", CARDS), FULL)


@pytest.mark.parametrize("supervised", [True, False])
def test_every_setting_of_the_published_method_is_taken_by_the_estimators(supervised: bool) -> None:
    given = {"max_epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "pixel_fraction": 0.5, "precision": "bfloat16"}
    fit = Fit("paper-ss-rvae", CARDS, supervised=supervised)
    sizes = FULL.with_published({**given, "hidden": 32, "class_floor": 1e-3}, {})
    made = estimator(fit, sizes).get_params()
    assert {name: made[name] for name in given} == given
    assert made["hidden"] == 32
    assert made.get("class_floor") == (1e-3 if supervised else None)  # without labels there are no classes


def test_steps_are_those_of_the_fit() -> None:
    split = Cards(60.0, 200, 300, 1, 0).split()
    # 1,200 unlabelled cards in batches of 64, for 100 epochs.
    assert steps(Fit("paper-ss-rvae", CARDS), FULL, split) == 100 * 19
    assert steps(Fit("ss-rvae", CARDS), TINY, split) == 125
    assert steps(Fit("tree", CARDS), TINY, split) == 0


def test_titles_drop_the_labels() -> None:
    assert Fit("paper-ss-vae", CARDS, supervised=False).title == "VAE as published"


# Numbers


def test_factor_correlations_find_the_factor() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 50)
    scale, shear = rng.uniform(1, 1.3, 100), rng.normal(size=100)
    z = np.stack([-(scale**3), rng.normal(size=100)], axis=1)
    found = sweeps.factor_correlations(z, truth, truth, {"scale": scale, "shear": shear})
    assert found["scale"]["z1"] == pytest.approx([1, 1])
    assert max(found["scale"]["z2"] + found["shear"]["z1"]) < 0.5
    # Nothing is said of a class that is never recognised.
    assert sweeps.factor_correlations(z, 1 - truth, truth, {"scale": scale})["scale"]["z1"] == [0.0, 0.0]


def test_separability_is_one_for_classes_apart_and_chance_for_none() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2, 3], [200, 60, 40, 20])
    apart = rng.normal(size=(320, 2)) * 0.1 + truth[:, np.newaxis]
    assert fig5.separability(apart, truth) > 0.98
    assert fig5.separability(rng.normal(size=(320, 2)), truth) == pytest.approx(0.25, abs=0.1)


def test_reconstruction_error_is_per_class() -> None:
    X = np.zeros((3, 2, 2), dtype=np.uint8)
    drawn = np.stack([np.zeros((2, 2)), np.full((2, 2), 0.5), np.full((2, 2), 0.1)])
    found = fig5.reconstruction_error(X, drawn, np.array([0, 1, 0]), ("a", "b"))
    assert found == pytest.approx({"a": np.sqrt(0.005), "b": 0.5})


def test_accuracy_of_a_cell_is_that_of_its_cards(tmp_path: Path) -> None:
    one = lab(tmp_path)
    fit = sweeps.main_fit(one, "forest")
    X, y = cards_test(TINY.n_test, 0, noise=1.0)
    rows = [[{"noise": 0.0}], [{"noise": 1.0}]]
    found = fig4.accuracies(one, {"forest": fit}, "noise", rows, n=TINY.n_test, own_seeds=False)
    assert found["forest"][1] == pytest.approx([np.mean(one.fitted(fit).predict(X) == y)])


def test_cells_of_a_map_have_cards_of_their_own(tmp_path: Path) -> None:
    class Copycat:
        def __init__(self) -> None:
            self.seen: list[bytes] = []

        def predict(self, X: np.ndarray) -> np.ndarray:
            self.seen.append(X.tobytes())
            return np.zeros(len(X))

    def cards_seen(folder: Path, own_seeds: bool) -> int:
        one, copycat = lab(folder), Copycat()
        one.fitted = lambda fit: copycat  # type: ignore[method-assign]
        rows = [[{"angle": 60.0}, {"angle": 60.0}], [{"angle": 60.0}]]
        found = fig4.accuracies(one, {"tree": Fit("tree", CARDS)}, "", rows, n=2, own_seeds=own_seeds)
        # Always the first class: right for one card in four.
        assert found == {"tree": [[0.25, 0.25], [0.25]]}
        return len(set(copycat.seen))

    assert cards_seen(tmp_path / "a", True) == 3
    assert cards_seen(tmp_path / "b", False) == 1


def test_comparison_says_what_is_missing() -> None:
    line = Comparison("accuracy", "0.865", {"a": None, "b": 0.5}).line()
    assert line == "accuracy: published 0.865; measured: a none, b 0.5"


# Drawing


def test_tiles_put_each_image_in_its_place() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1).repeat(4, 2).repeat(5, 3)
    whole = draw.tiles(images, gap=2)
    assert whole.shape == (2 * 4 + 2, 3 * 5 + 2 * 2)
    for row in range(2):
        for column in range(3):
            part = whole[row * 6 : row * 6 + 4, column * 7 : column * 7 + 5]
            assert part == pytest.approx(np.full((4, 5), (3 * row + column) / 255))
    assert (whole[4:6] == 1).all()


def test_a_point_far_out_is_put_on_the_edge_and_counted() -> None:
    z = np.random.default_rng(0).normal(size=(300, 2))
    z[7] = 60.0, -1.0
    truth = np.arange(300) % 2
    axes = draw.figure_of(2.0).subplots()
    draw.scatter_panel(axes, z, truth, ("a", "b"))
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in axes.collections])
    assert 3 < drawn[:, 0].max() < 10
    assert np.isclose(drawn, z[8]).all(axis=1).any(), "others stay where they are"
    assert axes.get_xlabel() == "z1\n(1 further out)"
    quiet = draw.figure_of(2.0).subplots()
    draw.scatter_panel(quiet, z[8:], truth[8:], ("a", "b"))
    assert quiet.get_xlabel() == "z1"


def test_examples_are_blank_where_a_class_has_too_few() -> None:
    X = np.arange(1, 4, dtype=float)[:, np.newaxis, np.newaxis] * np.ones((3, 2, 2))
    picked = fig2.examples(X, np.array([1, 0, -1]), 2, 2)
    assert picked[:, :, 0, 0].tolist() == [[2, 0], [1, 0]]


def test_key_frames_have_first_and_last() -> None:
    def shot(epoch: int) -> Snapshot:
        return Snapshot(epoch, np.zeros((1, 1, 1, 1, 1), np.uint8), np.zeros((1, 2)), np.zeros(1, int), 0.0)

    epochs = [s.epoch for s in films.key_frames([shot(e) for e in range(1, 101)], 4)]
    assert epochs == [1, 5, 22, 100]
    assert [s.epoch for s in films.key_frames([shot(1)], 4)] == [1]


def test_film_palette_has_the_colours() -> None:
    palette = draw.film_palette(["#D55E00", "#0072B2"])
    assert palette.shape == (256, 3)
    assert [0xD5, 0x5E, 0x00] in palette.tolist()
    assert [0, 0, 0] in palette.tolist()


# What is kept


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"value": np.float64(0.5), "missing": float("nan")}

    first = lab(tmp_path)
    assert first.cell({"a": (1, 2)}, work) == {"value": 0.5, "missing": None}
    assert lab(tmp_path).cell({"a": [1, 2]}, work) == {"value": 0.5, "missing": None}
    assert len(calls) == 1
    first.cell({"a": [1, 3]}, work)
    assert len(calls) == 2
    forced = lab(tmp_path, since=time.time() + 60)
    forced.cell({"a": [1, 2]}, work)
    forced.cell({"a": [1, 2]}, work)
    assert len(calls) == 3


def test_damaged_measurements_are_named_and_left(tmp_path: Path) -> None:
    lab(tmp_path).cell({"a": 1}, lambda: 0.5)
    (path,) = tmp_path.glob("cells/*.json")
    for damaged in ("{", "[]", '{"value": 0.5}'):
        path.write_text(damaged)
        with pytest.raises(ConfigError, match=rf"{path.name}: is damaged"):
            lab(tmp_path).cell({"a": 1}, lambda: 0.5)
        assert path.read_text() == damaged


def test_a_model_is_trained_once_and_again_if_damaged(tmp_path: Path) -> None:
    fit, X = Fit("ss-rvae", CARDS), CARDS.split().X_test
    epochs: list[EpochReport] = []
    first = lab(tmp_path, epoch=epochs.append)
    assert first.missing([fit, fit, Fit("tree", CARDS)]) == [fit]
    expected = first.fitted(fit).predict_proba(X)
    assert len(epochs) == 1
    second = lab(tmp_path, epoch=epochs.append)
    assert second.missing([fit]) == []
    assert second.fitted(fit).predict_proba(X) == pytest.approx(expected, abs=1e-6)
    assert len(epochs) == 1
    (weights,) = tmp_path.glob("models/*/model/weights.safetensors")
    weights.write_bytes(b"")
    assert lab(tmp_path, epoch=epochs.append).fitted(fit).predict_proba(X) == pytest.approx(expected, abs=1e-6)
    assert len(epochs) == 2


def test_other_settings_are_another_model(tmp_path: Path) -> None:
    fit = Fit("ss-rvae", CARDS)
    lab(tmp_path).fitted(fit)
    longer = replace(TINY, default={**TINY.default, "max_epochs": 2})
    assert lab(tmp_path, sizes=longer).missing([fit]) == [fit]
    assert lab(tmp_path).missing([replace(fit, source=replace(CARDS, seed=1))])


def test_a_fit_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    fit, X = Fit("paper-ss-vae", CARDS, filmed=True), CARDS.split().X_test
    unbroken = lab(tmp_path / "unbroken").fitted(fit).predict_proba(X)

    class CutOffError(Exception):
        pass

    def cut(report: EpochReport) -> None:
        if report.epoch == 2:
            raise CutOffError

    with pytest.raises(CutOffError):
        lab(tmp_path / "broken", epoch=cut).fitted(fit)
    epochs: list[int] = []
    again = lab(tmp_path / "broken", epoch=lambda report: epochs.append(report.epoch))
    assert again.fitted(fit).predict_proba(X) == pytest.approx(unbroken, abs=1e-6)
    assert epochs == [2]
    # The first frame is from before the cut.
    assert [shot.epoch for shot in again.snapshots(fit).all()] == [1, 2]


def test_snapshots_agree_with_the_model(tmp_path: Path) -> None:
    one = lab(tmp_path)
    fit = Fit("ss-rvae", CARDS, filmed=True)
    last = one.snapshots(fit).all()[-1]
    split, model = CARDS.split(), one.fitted(fit)
    assert last.z == pytest.approx(model.transform(split.X_test[:16]), abs=1e-5)
    assert last.accuracy == pytest.approx(model.score(split.X_test[:16], split.y_test[:16]))
    assert last.manifold.shape == (4, 2, 2, 48, 48)
