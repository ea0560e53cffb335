"""The benchmarks run from end to end and go on where they were; the competitors learn, and use what they are given."""

from __future__ import annotations

import gzip
import importlib
import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone

# The benchmarks stand beside the package, which is all that is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import data
from benchmarks.common import Record, arguments, parse, with_options
from benchmarks.competitors import CNNClassifier, FixMatchClassifier
from benchmarks.confidence import merged, reliability
from benchmarks.data import Split
from benchmarks.factors import circular_linear_correlation
from benchmarks.factors import score as score_factors
from benchmarks.methods import METHODS, make
from benchmarks.orientation import fisher_lee_correlation
from benchmarks.pyroved_peer import PyrovedClassifier, import_pyroved

from tumble import SSRVAEClassifier
from tumble.datasets import make_cards
from tumble.types import Pose


def make_toy(n, seed, *, size=16):
    """Bars (class "bar") and discs (class "disc") at any angle, a little off the centre."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    X, y = np.empty((n, size, size), dtype=np.float32), np.array(["bar", "disc"])[np.arange(n) % 2]
    for image, kind in zip(X, y, strict=True):
        r, c = rows - rng.uniform(-1, 1), columns - rng.uniform(-1, 1)
        angle = rng.uniform(0, np.pi)
        along, across = r * np.sin(angle) + c * np.cos(angle), r * np.cos(angle) - c * np.sin(angle)
        inside = (abs(along) < 6) & (abs(across) < 1.2) if kind == "bar" else np.hypot(r, c) < 3
        image[...] = np.where(inside, 0.9, 0.1)
    return X, y


def labels_of_few(y, n):
    given = y.astype(object)
    given[n:] = None
    return given


@pytest.mark.parametrize(
    "model",
    [
        CNNClassifier(n_steps=40, batch_size=16),
        CNNClassifier("six", n_steps=15, batch_size=16),
        FixMatchClassifier(n_steps=40, batch_size=16, unlabelled_batch_size=16, threshold=0.7, degradation=0.1),
    ],
    ids=lambda model: f"{type(model).__name__}-{model.network}",
)
def test_competitors_learn_what_is_easy(model):
    X, y = make_toy(60, seed=0)
    X_test, y_test = make_toy(100, seed=1)
    model = clone(model).set_params(ema_decay=0.9).fit(X, labels_of_few(y, 10))
    assert model.classes_.tolist() == ["bar", "disc"]
    assert model.score(X_test, y_test) > 0.9
    np.testing.assert_allclose(model.predict_proba(X_test).sum(axis=1), 1, rtol=1e-5)


def test_a_seed_repeats_and_leaves_the_global_generator_alone():
    import torch

    X, y = make_toy(20, seed=0)
    state = torch.random.get_rng_state()
    first, again = (FixMatchClassifier(n_steps=2, random_state=3).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert torch.equal(state, torch.random.get_rng_state())


def test_unlabelled_images_count_for_fixmatch_alone():
    X, y = make_toy(20, seed=0)
    y = labels_of_few(y, 4)
    other = X.copy()
    other[4:] = other[4:].transpose(0, 2, 1) * 0.5
    # The pixels' mean and spread, which scale the images, come from all of them; so both see the same ones.
    pairs = []
    for model in (CNNClassifier(n_steps=3), FixMatchClassifier(n_steps=3, threshold=0.0)):
        fitted = [clone(model).fit(images, y) for images in (X, other)]
        for one in fitted:
            one._offset, one._scale = fitted[0]._offset, fitted[0]._scale
        pairs.append([one.predict_proba(X) for one in fitted])
    assert np.abs(pairs[0][0] - pairs[0][1]).max() < np.abs(pairs[1][0] - pairs[1][1]).max()


def test_mean_over_four_copies_does_not_change_with_quarter_turns():
    X, y = make_toy(12, seed=0)
    model = CNNClassifier("six", n_steps=2, n_copies=4).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), model.predict_proba(np.rot90(X, axes=(1, 2))), atol=1e-5)


def test_unknown_network_is_named():
    with pytest.raises(ValueError, match="network='seven'"):
        CNNClassifier("seven", n_steps=1).fit(*make_toy(4, seed=0))


@pytest.mark.parametrize("settings", [{"max_epochs": 2}, {"degradation": 0.5, "encoder_channels": (8, 24)}], ids=str)
@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("method", ["cnn", "fixmatch"])
def test_competitors_have_the_network_and_the_steps_of_tumble(method, size, settings):
    X, y = make_toy(98, seed=0, size=size)
    y = labels_of_few(y, 4)
    ours = make("tumble", 0, {"max_epochs": 1, **settings, "novelty_score": False}).fit(X, y)
    other = make(method, 0, settings)
    other.set_params(n_steps=1).fit(X, y)
    assert [w.shape for w in other.model_.parameters()] == [w.shape for w in ours.model_.classifier.parameters()]
    assert other.n_steps_ == (4 if "max_epochs" in settings else 1)  # two passes of two steps
    assert make("cnn-six-plain", 0, settings).max_epochs is None


def test_every_method_is_made_with_what_describes_the_data():
    settings = {"shear_jitter": 0.03, "labelled_orientation": "arbitrary"}
    for method in METHODS:
        params = make(method, 7, settings, quick=True).get_params()
        assert params["random_state"] == 7
        assert params.get("shear_jitter", 0.03) == 0.03
        assert ("labelled_orientation" in params) == (method in ("tumble", "paper"))
    assert make("cnn-six", 0).network == "six"


@pytest.fixture
def pyroved():
    try:
        import_pyroved()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("pyroved")
def test_pyroved_learns_what_is_easy():
    # Upright bars and discs: its classifier of dense layers sees no rotated copies of the few labelled images.
    X, y = make_toy(40, seed=0)
    model = PyrovedClassifier(n_epochs=10, batch_size=20, labelled_every=1, learning_rate=5e-3, random_state=1)
    model.fit(X, labels_of_few(y, 20))
    assert model.score(X, y) > 0.8
    assert model.n_steps_ == 20
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.usefixtures("pyroved")
def test_pyroved_stops_when_its_time_is_up():
    X, y = make_toy(8, seed=0)
    model = PyrovedClassifier(batch_size=4, max_seconds=0.0).fit(np.uint8(X * 255), y)
    assert model.n_steps_ == 1


@pytest.mark.usefixtures("pyroved")
def test_time_of_pyroved_is_limited_and_told(tmp_path):
    from benchmarks.agglomerates import main

    out = tmp_path / "agglomerates.json"
    main(["--methods", "pyroved", "--seeds", "1", "--quick", "--pyroved-minutes", "0", "--out", str(out)])
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["max_seconds"], row["n_steps"]) == (0, 1)


@pytest.mark.parametrize("minutes", ["-1", "nan", "soon"])
def test_minutes_that_are_none_are_refused(minutes, capsys):
    from benchmarks.agglomerates import main

    with pytest.raises(SystemExit):
        main(["--pyroved-minutes", minutes, "--quick"])
    assert "--pyroved-minutes" in capsys.readouterr().err


@pytest.mark.usefixtures("pyroved")
def test_step_of_pyroved_is_timed(tmp_path):
    from benchmarks.speed import main

    main(["--quick", "--methods", "pyroved", "--out", str(tmp_path / "speed.json")])
    (row,) = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert row["what"] == "step"
    assert row["seconds_per_step"] > 0


def test_missing_pyroved_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroved", None)
    with pytest.raises(ImportError, match=r"pip install --no-deps pyroved==0\.3\.0"):
        PyrovedClassifier().fit(*make_toy(4, seed=0))
    assert "torchvision" not in sys.modules or hasattr(sys.modules["torchvision"], "__version__")


def test_a_record_goes_on_where_it_was(tmp_path):
    path = tmp_path / "deep" / "results.json"
    case = {"method": "a", "pair": (1, np.int64(2))}
    Record(path, published={"a": 1}).measure(case, lambda: {"accuracy": np.float64(0.5)})
    again = Record(path)
    again.measure(case, lambda: pytest.fail("measured twice"))
    content = json.loads(path.read_text())
    assert content["published"] == {"a": 1}
    assert content["rows"][0]["pair"] == [1, 2]
    assert {"date", "tumble", "commit", "processor", "threads"} <= content["rows"][0]["measured"].keys()
    again.measure({**case, "quick": True}, lambda: {"accuracy": 0.1})
    again.measure({**case, "settings": {"hidden": 8}}, lambda: {"accuracy": 0.9})
    assert [row["accuracy"] for row in Record(path).rows] == [0.5, 0.1, 0.9]
    assert again.has(case)


def test_rows_older_than_a_date_are_replaced(tmp_path):
    path = tmp_path / "results.json"
    old = {"environment": {"tumble": "0.0", "threads": 9}, "rows": [{"method": "a", "accuracy": 0.1}]}
    path.write_text(json.dumps(old))
    record = Record(path, since="2020-01-01")
    record.measure({"method": "a"}, lambda: {"accuracy": 0.7})
    record.measure({"method": "a"}, lambda: pytest.fail("measured twice"))
    assert [row["accuracy"] for row in Record(path).rows] == [0.7]
    assert not Record(path, since="9999-01-01").has({"method": "a"})
    path.write_text(json.dumps(old))
    assert Record(path).rows[0]["measured"] == {"date": None, "tumble": "0.0", "threads": 9}


def test_the_recorded_cards_are_read_as_before():
    record = Record(Path(__file__).parents[1] / "docs" / "results" / "cards.json")
    case = {"method": "random forest on pixels", "labels_per_class": 5, "seed": 0, "unlabelled_per_class": 3000}
    assert record.has(case)
    assert "| 5 | random forest on pixels |" in record.table(["labels_per_class", "method"], "accuracy")


def test_table_leaves_out_rows_without_the_value(tmp_path):
    record = Record(tmp_path / "results.json")
    record.measure({"method": "a", "seed": 0}, lambda: {"accuracy": 0.5})
    record.measure({"method": "a", "seed": 1}, lambda: {"accuracy": 0.7})
    record.measure({"method": "b", "seed": 1}, lambda: {"seconds": 3})
    assert record.table(["method"], "accuracy").splitlines()[2:] == ["| a | 0.6000 | 0.5000 | 2 |"]
    (line,) = record.table(["method"], "accuracy", less_is_better=True).splitlines()[2:]
    assert line == "| a | 0.6000 | 0.7000 | 2 |"


def test_options_name_parameters_of_the_estimator(capsys):
    parser = arguments("cards", "", methods=("tumble",), default_methods=("tumble",))
    options = parse(parser, ["--set", "hidden=64", "max_epochs=None", "labelled_orientation=arbitrary"])
    assert options.settings == {"hidden": 64, "max_epochs": None, "labelled_orientation": "arbitrary"}
    assert options.out == Path("docs/results/cards.json")
    assert with_options({"seed": 0}, options) == {"seed": 0, "settings": options.settings}
    assert with_options({"seed": 0}, options, uses_settings=False) == {"seed": 0}
    assert parse(parser, ["--quick"]).out == Path("outputs/benchmarks/cards.json")
    for wrong in (["--set", "hiden=64"], ["--set", "hidden"], ["--since", "yesterday"]):
        with pytest.raises(SystemExit):
            parse(parser, wrong)
        assert wrong[1] in capsys.readouterr().err


def test_turned_and_shifted_images():
    X = np.zeros((1, 9, 9), dtype=np.uint8)
    X[0, 4, 7] = 200  # right of the middle

    class Fixed:
        def __init__(self, *values):
            self.values = iter(values)

        def uniform(self, low, high, size):
            return np.full(size, next(self.values))

    turned, truth = data.turn_and_shift(X, 90, 0, Fixed(90.0, 0.0))
    np.testing.assert_array_equal(turned, np.rot90(X, axes=(1, 2)))
    assert truth.angle[0] == pytest.approx(np.pi / 2)
    moved, _ = data.turn_and_shift(X, 0, 1, Fixed(0.0, 1.0))
    np.testing.assert_array_equal(moved, np.roll(X, (1, 1), axis=(1, 2)))


@pytest.fixture
def plankton_file(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [20, 30, 50])
    X = rng.integers(0, 255, (100, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "plankton.npz", X=X, y=y, classes=np.array(["a", "b", "c"]))
    return tmp_path / "plankton.npz"


@pytest.fixture
def mnist_folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 60), ("t10k", 30)):
        images = rng.integers(0, 255, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, values in (("images", images), ("labels", labels)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            path = tmp_path / f"{name}-{kind}-idx{values.ndim}-ubyte.gz"
            path.write_bytes(gzip.compress(head + values.tobytes()))
    return tmp_path


def test_splits_keep_the_test_apart(plankton_file, mnist_folder):
    split = data.plankton(plankton_file, 5, seed=0)
    assert np.bincount(split.y_test).tolist() == [8, 12, 20]
    assert np.unique(split.y, return_counts=True)[1].tolist() == [45, 5, 5, 5]
    seen, tested = ({image.tobytes() for image in X} for X in (split.X, split.X_test))
    assert not seen & tested
    digits = data.mnist(mnist_folder, 2, seed=0, n_unlabelled=25)
    assert len(digits.X) == 20 + 25
    assert np.bincount(digits.y[digits.y >= 0]).tolist() == [2] * 10
    assert len(digits.X_test) == 30
    gold = data.agglomerates(2, 3, seed=0, counts=(5, 4))
    assert (gold.y >= 0).sum() == 4
    assert len(gold.X_test) == 6


def test_reliability_and_circular_correlation():
    bins = reliability(np.array([0, 1, 0]), np.array([[0.9, 0.1], [0.95, 0.05], [0.45, 0.55]]), n_bins=10)
    assert bins["n"].tolist() == [0] * 5 + [1, 0, 0, 0, 2]
    assert bins["accuracy"][9] == 0.5
    assert bins["accuracy"][0] is None
    other = reliability(np.array([0]), np.array([[0.92, 0.08]]), n_bins=10)
    n, confidence, accuracy = merged([bins, other])
    assert n.tolist() == [0] * 5 + [1, 0, 0, 0, 3]
    np.testing.assert_allclose(confidence, [0.55, (0.9 + 0.95 + 0.92) / 3])
    np.testing.assert_allclose(accuracy, [0, 2 / 3])
    angle = np.linspace(-np.pi, np.pi, 50, endpoint=False)
    assert circular_linear_correlation(np.cos(angle - 1), angle) == pytest.approx(1)
    assert circular_linear_correlation(np.cos(3 * angle), angle) == pytest.approx(0, abs=1e-6)
    assert circular_linear_correlation(np.ones(50), angle) == 0


class Seer:
    """Knows pose and factors of the test cards, as far as it is told to."""

    def __init__(self, truth, factors, offset_deg=0.0, turn=None):
        self.truth, self.factors, self.offset = truth, factors, np.radians(offset_deg)
        self.model_ = SimpleNamespace(turn=turn)

    def transform(self, X):
        return self.factors

    def predict(self, X):
        return self.truth.y

    def pose(self, X):
        angle = self.truth.polar_angle + self.offset
        return Pose(angle_rad=angle, shift_px=self.truth.shift, scale=self.truth.scale, angle_std_rad=0 * angle)


def test_scale_and_shear_are_looked_for_in_different_factors():
    truth = make_cards(60, angle=180, random_state=0)
    shear, standard = truth.shear.sum(axis=1), lambda v: (v - v.mean()) / v.std()
    split = Split(truth.X, truth.y, truth.X, truth.y, truth.classes, truth)
    apart = score_factors(Seer(truth, np.column_stack([truth.scale, shear])), split)
    assert apart["mean_scale"] == pytest.approx(1)
    assert apart["mean_shear"] == pytest.approx(1)
    both = standard(truth.scale) + standard(shear)  # one factor that follows both counts for one of them
    mixed = score_factors(Seer(truth, np.column_stack([both, np.zeros(len(both))])), split)
    assert 0.5 < mixed["mean_scale"] < 0.9
    assert mixed["mean_shear"] == 0


def test_what_the_turn_of_the_axes_is_worth_is_told():
    truth = make_cards(60, angle=180, random_state=0)
    split = Split(truth.X, truth.y, truth.X, truth.y, truth.classes, truth)
    standard = [(v - v.mean()) / v.std() for v in (truth.scale, truth.shear.sum(axis=1))]
    factors, half = np.column_stack(standard), torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    said = score_factors(Seer(truth, factors, turn=half), split)  # training left half of both in each
    assert min(said["scale"].values()) == pytest.approx(1)
    assert 0.4 < said["least_unturned_scale"] < 0.9
    assert 0.4 < said["least_unturned_shear"] < 0.9
    untouched = score_factors(Seer(truth, factors), split)
    assert untouched["least_unturned_scale"] == min(untouched["scale"].values())


def test_the_spread_of_the_angle_leaves_out_what_all_of_a_suit_are_off_by():
    truth = make_cards(20, angle=180, random_state=0)
    split = Split(truth.X, truth.y, truth.X, truth.y, truth.classes, truth)
    said = score_factors(Seer(truth, np.zeros((80, 2)), offset_deg=7), split)
    np.testing.assert_allclose(list(said["angle_error_deg"].values()), 7)
    np.testing.assert_allclose(list(said["angle_spread_deg"].values()), 0, atol=1e-5)


def test_correlation_of_angles_is_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.vonmises(0, 0.5, (2, 40))
    first, second = np.triu_indices(40, 1)
    sine_a, sine_b = np.sin(a[first] - a[second]), np.sin(b[first] - b[second])
    pairs = (sine_a * sine_b).sum() / np.sqrt((sine_a**2).sum() * (sine_b**2).sum())
    assert fisher_lee_correlation(a, b) == pytest.approx(pairs)
    assert fisher_lee_correlation(a, a + 5) == pytest.approx(1)
    assert fisher_lee_correlation(a, 2 - a) == pytest.approx(-1)


def test_novelty_is_scored_against_the_suit_without_labels(monkeypatch, tmp_path):
    from benchmarks import confidence

    # Stands in for the method, which may not be there; brighter images count as more novel.
    monkeypatch.setattr(SSRVAEClassifier, "novelty", lambda self, X: X.mean(axis=(1, 2)), raising=False)
    confidence.main(["--quick", "--seeds", "1", "--methods", "tumble", "--out", str(tmp_path / "out.json")])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row.get("novel") for row in rows] == [None, "club", "spade", "diamond", "heart"]
    assert rows[0]["temperature"] == 1  # of two labels none is held out
    assert all(0 <= row[name] <= 1 for row in rows[1:] for name in ("auroc", "rejected_novel", "rejected_known"))
    left = confidence.without_class(data.cards(2, 3, 1, 0), 3)
    assert np.unique(left.y).tolist() == [-1, 0, 1, 2]


def test_exported_classifier_is_run_in_batches(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from benchmarks.speed import onnx_classifier

    class MeanOfPixels:
        def export_onnx(self, path):
            shape, kind = ["n", 1, 4, 4], onnx.TensorProto.FLOAT
            ends = [
                onnx.helper.make_tensor_value_info(name, kind, s) for name, s in (("x", shape), ("y", ["n", 1, 1, 1]))
            ]
            node = onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])
            graph = onnx.helper.make_graph([node], "mean", ends[:1], ends[1:])
            opset = onnx.helper.make_opsetid("", 17)
            onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)

    crops = np.repeat(np.arange(0, 240, dtype=np.uint8), 3)[:, None, None] * np.ones((4, 4), dtype=np.uint8)
    parts = onnx_classifier(MeanOfPixels(), tmp_path / "mean.onnx")(crops)
    assert [len(part) for part in parts] == [512, 208]
    np.testing.assert_allclose(np.concatenate(parts).ravel(), crops[:, 0, 0] / 255, atol=1e-6)


QUICK = {
    "cards": ["--labels", "2", "--methods", *(m for m in METHODS if m not in ("paper", "pyroved"))],
    "robustness": ["--degradation", "0", "0.1"],
    "agglomerates": ["--methods", "tumble", "fixmatch", "boosting"],
    "mnist": ["--labels", "2", "--methods", "tumble", "fixmatch", "forest"],
    "plankton": [],
    "speed": ["--methods", "tumble", "paper"],
    "factors": [],
    "orientation": [],
    "confidence": [],
    "nanogold": ["--methods", "tumble"],
    "ablation": ["--without", "nothing (the default)", "generative part"],
    "ideas": ["--data", "digits"],
}


@pytest.mark.parametrize("name", QUICK)
def test_benchmark_runs_and_measures_nothing_twice(name, tmp_path, plankton_file, mnist_folder, capsys):
    main = importlib.import_module(f"benchmarks.{name}").main
    files = {"mnist": ["--data", str(mnist_folder)], "confidence": ["--data", str(mnist_folder)]}
    files |= {"ablation": ["--data", str(mnist_folder)], "ideas": ["--mnist", str(mnist_folder)]}
    files["plankton"] = ["--data", str(plankton_file)]
    out = tmp_path / f"{name}.json"
    argv = ["--quick", "--seeds", "1", "--out", str(out), *QUICK[name], *files.get(name, [])]
    main(argv)
    content = json.loads(out.read_text())
    assert content["environment"]["processor"]
    assert all(row["quick"] and row["measured"]["date"] for row in content["rows"])
    assert "mean " in capsys.readouterr().out
    first = out.read_bytes()
    main(argv)
    assert out.read_bytes() == first


def test_best_settings_of_plankton_and_who_takes_which_of_them(tmp_path, plankton_file):
    module, out = importlib.import_module("benchmarks.plankton"), tmp_path / "plankton.json"
    argv = ["--data", str(plankton_file), "--quick", "--seeds", "1", "--methods", "tumble", "cnn-six", "cnn-six-strong"]
    module.main([*argv, "--best", "--set", "predict_views=2", "--out", str(out)])
    rows = {row["method"]: row.get("settings") for row in json.loads(out.read_text())["rows"] if row["seed"] == 0}
    assert rows["tumble"] == {**module.BEST, "predict_views": 2}
    # A plain CNN with tumble's augmentation is not the one with its own.
    augmentation = {name: module.BEST[name] for name in ("scale_jitter", "intensity_jitter", "degradation")}
    assert rows["CNN of six convolutions"] == augmentation
    assert rows["CNN of six convolutions, stronger augmentation"] is None  # has its own


def test_a_fit_that_was_ended_early_does_not_stand_for_a_whole_one(tmp_path):
    record, case = Record(tmp_path / "x.json"), {"method": "pyroVED 0.3.0", "seed": 0}
    record.measure({**case, "max_seconds": 60.0}, lambda: {"accuracy": 0.5})
    assert not record.has(case)
    record.measure(case, lambda: {"accuracy": 0.7})
    assert [row["accuracy"] for row in record.rows] == [0.5, 0.7]
    assert record.table(["method"], "accuracy").count("| 1 |") == 2
