"""Callbacks of a fit, validation, and the objective as an exchangeable part."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from helpers_fit import cards, same_weights, tiny_fit

from tumble.errors import ConfigError, DataError
from tumble.fit import (
    BestWeights,
    Callback,
    Checkpoint,
    DefaultObjective,
    EarlyStopping,
    EpochReport,
    FitConfig,
    Progress,
)


class FakeRun:
    """A run that records what callbacks ask of it."""

    def __init__(self):
        self.reason, self.epoch, self.given, self.saved = "", 0, None, []

    @property
    def stopping(self):
        return bool(self.reason)

    def request_stop(self, reason):
        self.reason = self.reason or reason

    def weights(self):
        return {"w": torch.tensor(float(self.epoch))}

    def set_weights(self, weights):
        self.given = weights["w"].item()

    def save(self, folder):
        self.saved.append(self.epoch)

    def play(self, callback, values, name="validation_loss"):
        """Let a callback follow the given values, until it stops the run; return the number of epochs."""
        callback.start(self)
        for self.epoch, value in enumerate(values, 1):
            callback(EpochReport(self.epoch, len(values), {name: value}, 1.0, 1.0, self))
            if self.stopping:
                break
        callback.end(self)
        callback.close()
        return self.epoch


@pytest.mark.parametrize(
    ("settings", "values", "stops_after"),
    [
        ({"patience": 2}, [3, 2, 2.5, 2.1, 1], 4),
        ({"patience": 3}, [3, 2, 2.5, 2.1, 1], 5),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.6, 0, 0], 2),
        ({"patience": 2, "mode": "max"}, [1, 2, 3, 2, 2, 9], 5),
        ({"patience": 2}, [float("nan"), float("nan"), 1], 2),
        ({"patience": 2}, [2, float("nan"), 1, 0], 4),
    ],
)
def test_early_stopping_waits_for_its_patience(settings, values, stops_after):
    assert FakeRun().play(EarlyStopping(**settings), values) == stops_after


def test_one_early_stopping_serves_several_fits():
    stopping = EarlyStopping(patience=1)
    assert FakeRun().play(stopping, [1, 2, 3]) == 2
    assert FakeRun().play(stopping, [9, 8, 9]) == 3
    assert stopping.best_ == 8


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 4)])
def test_the_best_weights_come_back_at_the_end(mode, best):
    run = FakeRun()
    run.play(BestWeights(mode=mode), [3, 1, 2, 4, 4])
    assert run.given == best


def test_a_checkpoint_is_made_at_its_epochs_at_the_last_and_where_the_run_is_stopped(tmp_path):
    run = FakeRun()
    run.play(Checkpoint(tmp_path, every=2), [1] * 5)
    assert run.saved == [2, 4, 5]
    run = FakeRun()
    run.reason = "enough"
    run.play(Checkpoint(tmp_path, every=2), [1] * 5)
    assert run.saved == [1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarlyStopping(mode="lowest"),
        lambda: EarlyStopping(patience=0),
        lambda: EarlyStopping(min_delta=-1.0),
        lambda: BestWeights(mode="best"),
        lambda: Checkpoint("folder", every=0),
    ],
)
def test_settings_of_callbacks_are_checked(make):
    with pytest.raises(ConfigError, match="expected"):
        make()


def test_an_unknown_curve_is_named_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"there is no such curve.*classification"):
        tiny_fit(max_epochs=1, callbacks=[EarlyStopping("validation_loss")])


def test_a_report_of_no_run_cannot_stop_one():
    with pytest.raises(RuntimeError, match="belongs to no run"):
        EpochReport(1, 2, {}, 0.0, 0.0).stop()


def test_any_callable_may_end_the_fit_and_say_why():
    seen = []

    def stop_at_two(report):
        seen.append(report.epoch)
        if report.epoch == 2:
            report.stop("seen enough")

    result = tiny_fit(max_epochs=5, callbacks=[stop_at_two])
    assert seen == [1, 2]
    assert result.stop_reason == "seen enough"
    assert len(result.history["loss"]) == 2
    assert tiny_fit(max_epochs=1).stop_reason == "max_epochs"


def test_early_stopping_says_what_did_not_improve():
    result = tiny_fit(max_epochs=9, callbacks=[EarlyStopping("kl_pose", patience=1, mode="max", min_delta=1e9)])
    assert result.stop_reason == "early_stopping: kl_pose has not improved since epoch 1"


def test_the_model_of_the_best_epoch_is_what_the_fit_gives():
    kept = {}

    def keep(report):
        kept[report.epoch] = report.run.weights()

    best = BestWeights("classification", mode="max")
    result = tiny_fit(max_epochs=4, callbacks=[best, keep])
    number = int(np.argmax(result.history["classification"])) + 1
    assert best.best_epoch_ == number
    weights = result.model.state_dict()
    assert all(torch.equal(weights[n], t) for n, t in kept[number].items() if not n.startswith("latent_"))


def test_callbacks_are_closed_when_the_fit_is_interrupted():
    class Held(Callback):
        closed = False

        def __call__(self, report):
            raise KeyboardInterrupt

        def close(self):
            self.closed = True

    held = Held()
    with pytest.raises(KeyboardInterrupt):
        tiny_fit(callbacks=[held])
    assert held.closed


def test_progress_shows_a_bar_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    tiny_fit(max_epochs=2, callbacks=[Progress()])
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "loss" in err


def test_progress_goes_to_the_log_where_rich_is_missing(caplog, monkeypatch):
    monkeypatch.setattr("tumble.fit.callbacks._rich_bar", lambda: None)
    with caplog.at_level(logging.INFO, logger="tumble.fit.callbacks"):
        tiny_fit(max_epochs=2, callbacks=[Progress()])
    assert "epoch 2 of 2  loss" in caplog.text


def test_validation_measures_the_model_that_the_fit_gives():
    data, held_out = cards(3), cards(4, seed=5)
    result = tiny_fit(data, max_epochs=2, validation=held_out)
    rows = held_out.y >= 0
    with torch.inference_mode():
        logits = result.model.classify(torch.from_numpy(held_out.x[rows]).float())
    y = torch.from_numpy(held_out.y[rows])
    assert result.history["validation_accuracy"][-1] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    expected = torch.nn.functional.cross_entropy(logits, y).item()
    assert result.history["validation_loss"][-1] == pytest.approx(expected, rel=1e-5)


def test_watching_a_fit_does_not_change_it(tmp_path):
    plain = tiny_fit()
    watched = tiny_fit(
        validation=cards(2, seed=9),
        checkpoint=tmp_path,
        callbacks=[BestWeights("loss"), EarlyStopping(patience=99), Progress(), lambda report: None],
    )
    assert plain.history["loss"] == watched.history["loss"]


@pytest.mark.parametrize(("n_classes", "labelled"), [(4, 0.0), (0, 0.5)])
def test_validation_needs_labels(n_classes, labelled):
    with pytest.raises(DataError, match="validation: none of its images has a label"):
        tiny_fit(n_classes=n_classes, validation=cards(labelled=labelled))


def test_without_labels_there_are_no_labelled_images_and_no_classes():
    result = tiny_fit(cards(labelled=0.0), n_classes=0, max_epochs=2)
    assert np.isfinite(result.history["loss"]).all()
    assert "classification" not in result.history


def test_an_objective_sets_loss_optimiser_and_schedules():
    calls = []

    @dataclasses.dataclass(frozen=True)
    class Plain(DefaultObjective):
        @property
        def max_gradient_norm(self):
            return None

        def optimiser(self, model):
            return torch.optim.SGD(model.parameters())

        def rate(self, step, n_steps):
            return 0.0

        def kl_weight(self, epoch, step, n_steps):
            calls.append((epoch, step, n_steps))
            return 1.0 + epoch

    settings = FitConfig(max_epochs=2, batch_size=6)
    still = tiny_fit(max_epochs=2, objective=Plain(settings))
    assert calls == [(1, 0, 4), (1, 1, 4), (2, 2, 4), (2, 3, 4)]
    again = tiny_fit(max_epochs=1, objective=Plain(settings))
    # With a rate of 0 no weight moves; only running statistics do.
    pairs = zip(still.model.named_parameters(), again.model.named_parameters(), strict=True)
    assert all(torch.equal(p, q) for (name, p), (_, q) in pairs if not name.startswith("novelty"))


def test_bfloat16_trains_to_about_the_same_losses():
    exact = tiny_fit(max_epochs=2)
    half = tiny_fit(max_epochs=2, settings={"precision": "bfloat16"})
    assert half.history["loss"] != exact.history["loss"]
    np.testing.assert_allclose(half.history["loss"], exact.history["loss"], rtol=0.03)
    assert {t.dtype for t in half.model.state_dict().values()} <= {torch.float32, torch.int64}


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="precision='float8'"):
        tiny_fit(settings={"precision": "float8"})


def test_without_a_compiler_the_fit_goes_on(monkeypatch, caplog):
    def compile_badly(function, **kwargs):
        def fail(*args):
            raise torch._dynamo.exc.BackendCompilerFailed(compile_badly, RuntimeError("no compiler"), None)

        return fail

    monkeypatch.setattr(torch, "compile", compile_badly)
    plain = tiny_fit(max_epochs=1)
    compiled = tiny_fit(max_epochs=1, settings={"compile": True})
    assert same_weights(plain.model, compiled.model)
    assert "torch cannot compile here" in caplog.text
    assert "classify" not in vars(compiled.model)


def test_the_number_of_tensors_does_not_grow_with_the_epochs():
    counts = []

    def count(report):
        counts.append(sum(1 for _ in _live_tensors()))

    tiny_fit(max_epochs=6, callbacks=[BestWeights("loss"), count])
    assert max(counts[2:]) <= counts[1] + 5


def _live_tensors():
    import gc

    gc.collect()
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            yield thing
