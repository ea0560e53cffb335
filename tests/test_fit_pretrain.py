"""The rVAE that comes before a fit: what the model begins with, who follows it, and how it is resumed."""

import io
import json
import time

import numpy as np
import pytest
import torch
from helpers_fit import NET, Killed, cards, same_weights, tiny_fit
from rich.console import Console

from tumble import SSRVAEClassifier
from tumble.console import ProgressDisplay
from tumble.errors import ConfigError
from tumble.fit import BestWeights, Checkpoint, EarlyStopping, FitConfig, Progress
from tumble.fit.batches import TrainingData
from tumble.fit.callbacks import PRETRAINING as STAGE
from tumble.fit.pretrain import begin_with, draw_with_classifier, without_labels
from tumble.model.config import ModelConfig
from tumble.model.nets import ConvTrunk
from tumble.model.ssrvae import SSRVAE


def stages(report):
    return report.stage, report.epoch, report.max_epochs


def pretrained(data=None, *, epochs=2, settings=None, **kwargs):
    return tiny_fit(data, settings={"max_epochs": 2, "pretrain_epochs": epochs, **(settings or {})}, **kwargs)


def crash_in(stage, epoch):
    def callback(report):
        if (report.stage, report.epoch) == (stage, epoch):
            raise Killed

    return callback


def models(config):
    """An rVAE that was given the convolutions of the classifier, and a semi-supervised model."""
    _, alone, _ = without_labels(cards(), config, FitConfig())
    rvae = SSRVAE(alone)
    draw_with_classifier(rvae, config)
    return rvae, SSRVAE(config)


def until(trunk, n_layers, x):
    """Features after so many layers, where the distance from the centre, if it is seen at all, is 7 everywhere."""
    if isinstance(trunk, ConvTrunk) and trunk.block == 2:
        x = torch.nn.functional.pixel_unshuffle(x, 2)
    if trunk.radius is not None:
        x = torch.cat([x, torch.full_like(x[:, :1], 7.0)], dim=1)
    return trunk.layers[:n_layers].eval()(x)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fold": False},
        {"radius": False},
        {"extra_convolutions": 3},
        {"image_shape": (2, 44, 50)},
        {"classifier": "fine"},
        {"classifier": "fine", "symmetry": "rotations"},
        {"classifier": "fine", "symmetry": "rotations+mirror"},
    ],
    ids=str,
)
def test_the_classifier_begins_with_the_convolutions_of_the_rvae(changes):
    config = ModelConfig(**{"n_classes": 4, "image_shape": (1, 48, 48), **NET, **changes})
    rvae, model = models(config)
    assert rvae.encode(rvae.features(torch.rand(2, *config.image_shape)), torch.zeros(2, dtype=torch.int64))
    begin_with(rvae, model)
    x = torch.rand(3, *config.image_shape)
    source, target = rvae.encoder.trunk, model.classifier.trunk
    assert type(source) is type(target)
    assert source.radius is None
    n_layers = len(source.layers)
    assert n_layers >= 6
    assert torch.allclose(until(source, n_layers, x), until(target, n_layers, x), atol=1e-6)
    assert source.layers[0].weight is not target.layers[0].weight


@pytest.mark.parametrize(("changes", "alike"), [({}, True), ({"classifier": "fine"}, False), ({"fold": False}, False)])
def test_the_encoder_begins_so_where_its_convolutions_are_of_that_kind(changes, alike):
    rvae, model = models(ModelConfig(4, (1, 48, 48), **NET, **changes))
    before = {name: t.clone() for name, t in model.encoder.trunk.state_dict().items()}
    begin_with(rvae, model)
    source, target = rvae.encoder.trunk.layers, model.encoder.trunk.layers
    assert all(torch.equal(before[name], t) for name, t in model.encoder.trunk.state_dict().items()) != alike
    if alike:
        x = torch.rand(2, 4, 24, 24)
        assert torch.equal(source.eval()(x), target.eval()(x))


def test_the_rvae_sees_no_label_and_learns_what_an_rvae_learns():
    data = cards(labelled=0.5)
    settings = FitConfig(max_epochs=7, pretrain_epochs=3, aligned=False, precision="bfloat16", learning_rate=3e-3)
    seen, config, alone = without_labels(data, ModelConfig(4, (1, 24, 24), **NET), settings)
    assert (seen.y == -1).all()
    assert seen.x is data.x
    assert config == ModelConfig(0, (1, 24, 24), **NET)
    plain = FitConfig(max_epochs=3, precision="bfloat16", learning_rate=3e-3, calibrate=False, novelty=False)
    assert alone == plain


def test_labels_change_nothing_of_what_the_model_begins_with():
    def begun(labelled):
        trunks = []

        def keep(report):
            if report.stage == STAGE and report.epoch == report.max_epochs:
                trunks.append({n: t for n, t in report.run.weights().items() if n.startswith("encoder.trunk.")})

        pretrained(cards(4, labelled=labelled), callbacks=[keep])
        return trunks[0]

    few, many = begun(0.3), begun(0.9)
    assert few
    assert all(torch.equal(few[name], many[name]) for name in few)


def test_training_begins_with_what_the_rvae_ended_with():
    seen = []

    def keep(report):
        if report.stage == STAGE:
            seen.append(report.run.weights()["encoder.trunk.layers.0.weight"])

    rate = {"learning_rate": 1e-3, "ema_decay": 0.0}
    result = pretrained(settings={**rate, "max_epochs": 1, "batch_size": 400}, callbacks=[keep])
    first, ended = seen
    assert (ended - first).abs().max() > 1e-4  # it was trained
    # One step of the warm-up moves no weight by more than the rate.
    weight = result.model.state_dict()["classifier.trunk.layers.0.weight"]
    assert (weight[:, :-1] - ended).abs().max() <= 1.1e-3
    assert weight[:, -1].abs().max() <= 1.1e-3  # the distance from the centre


def test_callbacks_know_the_stage_and_those_with_a_memory_are_left_alone():
    said, best = [], BestWeights("classification")
    result = pretrained(callbacks=[lambda r: said.append(stages(r)), best])
    assert said == [(STAGE, 1, 2), (STAGE, 2, 2), ("training", 1, 2), ("training", 2, 2)]
    assert len(result.history["loss"]) == 2
    assert "classification" in result.history


def test_a_stop_in_the_pretraining_ends_only_that():
    said = []

    def stop(report):
        said.append(stages(report))
        if report.stage == STAGE:
            report.stop("enough of it")

    result = pretrained(epochs=5, callbacks=[stop])
    assert said == [(STAGE, 1, 5), ("training", 1, 2), ("training", 2, 2)]
    assert result.stop_reason == "max_epochs"


def test_progress_names_the_stages(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    pretrained(callbacks=[Progress()])
    err = capsys.readouterr().err
    assert err.index("Pre-training") < err.index("Fitting")
    out = io.StringIO()
    monkeypatch.setattr("tumble.console._stderr", lambda: Console(file=out, width=120))
    with ProgressDisplay() as display:
        pretrained(callbacks=[display.epoch])
    assert out.getvalue().index("Pre-training, epoch 2/2") < out.getvalue().index("Fitting, epoch 2/2")


#: All epochs of a run of two and two.
ALL = [(STAGE, 1, 2), (STAGE, 2, 2), ("training", 1, 2), ("training", 2, 2)]


@pytest.mark.parametrize("crash", range(4))
@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("by_callback", [False, True])
def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path, crash, seed, by_callback):
    stage, epoch, _ = ALL[crash]
    place = {"callbacks": [Checkpoint(tmp_path)]} if by_callback else {"checkpoint": tmp_path, "callbacks": []}
    with pytest.raises(Killed):
        pretrained(**place | {"callbacks": [crash_in(stage, epoch), *place["callbacks"]]}, seed=seed)
    # The checkpoint of an epoch comes after the other callbacks: the one that crashed is done again, and no more.
    saved = [tmp_path / STAGE, tmp_path][stage == "training" and epoch == 2] / "run.json"
    said = []
    known = json.loads(saved.read_text())["identity"]["seed"] if saved.exists() else None
    resumed = pretrained(checkpoint=tmp_path, resume=True, seed=seed, callbacks=[lambda r: said.append(stages(r))])
    assert said == ALL[crash:]
    used = json.loads((tmp_path / "run.json").read_text())["identity"]["seed"]
    assert known in (None, used)
    whole = pretrained(seed=used)
    assert same_weights(whole.model, resumed.model)
    assert whole.history == resumed.history


def test_the_checkpoint_of_the_pretraining_is_gone_at_the_end(tmp_path):
    there = []
    pretrained(checkpoint=tmp_path, callbacks=[lambda r: there.append((tmp_path / STAGE / "run.json").is_file())])
    assert there == [False, True, True, True]  # callbacks come before the checkpoint of an epoch
    assert not (tmp_path / STAGE).exists()
    assert (tmp_path / "run.json").is_file()


def test_what_an_older_run_left_is_removed_and_not_read(tmp_path):
    with pytest.raises(Killed):
        pretrained(checkpoint=tmp_path, callbacks=[crash_in(STAGE, 2)])
    left = tmp_path / STAGE / "run.json"
    left.write_text("damaged")
    tiny_fit(max_epochs=1, checkpoint=tmp_path)  # needs no pre-training
    assert not left.exists()
    left.parent.mkdir()
    (left.parent / "notes.txt").write_text("mine")
    tiny_fit(max_epochs=1, checkpoint=tmp_path)
    assert (left.parent / "notes.txt").exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_fit_without_pretraining_does_not_go_on_from_one(tmp_path, damaged):
    with pytest.raises(Killed):
        pretrained(checkpoint=tmp_path, callbacks=[crash_in(STAGE, 2)])
    if damaged:
        (tmp_path / STAGE / "run.json").write_text("damaged")
    with pytest.raises(ConfigError, match=r"has not ended its pre-training, and this one has none\. Give what"):
        tiny_fit(max_epochs=2, checkpoint=tmp_path, resume=True)
    assert (tmp_path / STAGE / "run.json").exists()
    if not damaged:
        assert same_weights(pretrained(checkpoint=tmp_path, resume=True).model, pretrained().model)


def test_labels_may_change_while_there_are_none_in_use(tmp_path):
    """A class that is labelled after a kill in the pre-training makes the run that it would have made."""
    one = cards(4, labelled=0.6)
    fewer = TrainingData(one.x, np.where(one.y == 3, -1, one.y))
    with pytest.raises(Killed):
        pretrained(fewer, n_classes=3, checkpoint=tmp_path, callbacks=[crash_in(STAGE, 2)])
    resumed = pretrained(one, checkpoint=tmp_path, resume=True)
    assert same_weights(pretrained(one).model, resumed.model)


def test_the_time_that_is_left_is_that_of_the_stage():
    left = []

    def slow_first(report):
        if report.stage == STAGE:
            time.sleep(1.0)
        left.append((report.stage, report.remaining_s, report.elapsed_s))

    result = pretrained(epochs=3, callbacks=[slow_first])
    stage, remaining, elapsed = left[3]
    assert stage == "training"
    assert elapsed > 3.0  # all that was
    assert remaining < 1.0
    assert result.seconds > 3.0


def test_without_a_weight_of_its_own_the_drawing_is_learned_all_the_same():
    _, _, alone = without_labels(cards(), ModelConfig(4, (1, 24, 24)), FitConfig(generative_weight=0.0))
    assert alone.generative_weight == 1.0


def test_validation_and_early_stopping_know_nothing_of_it():
    watch = EarlyStopping("validation_loss", patience=1)
    result = pretrained(settings={"max_epochs": 3}, validation=cards(2, seed=7), callbacks=iter([watch]))
    assert len(result.history["validation_loss"]) == len(result.history["loss"])
    assert watch.best_epoch_ >= 1


def test_half_precision_is_that_of_the_fit():
    assert np.isfinite(pretrained(settings={"precision": "bfloat16"}).history["loss"]).all()


def test_a_run_begun_anew_forgets_the_old_one_at_once(tmp_path):
    pretrained(checkpoint=tmp_path, seed=1)
    with pytest.raises(Killed):
        pretrained(checkpoint=tmp_path, callbacks=[crash_in(STAGE, 2)], seed=2)
    assert not (tmp_path / "run.json").exists()
    assert same_weights(pretrained(checkpoint=tmp_path, resume=True, seed=2).model, pretrained(seed=2).model)


def test_a_pretraining_of_another_run_is_refused(tmp_path):
    with pytest.raises(Killed):
        pretrained(checkpoint=tmp_path, callbacks=[crash_in(STAGE, 2)])
    with pytest.raises(ConfigError, match="of a run with other settings"):
        pretrained(checkpoint=tmp_path, resume=True, epochs=3)


def test_without_classes_it_is_refused():
    with pytest.raises(ConfigError, match="pretrain_epochs=2"):
        pretrained(cards(labelled=0.0), n_classes=0)


def test_global_generators_are_not_touched():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002  (it is the global one that must stay)
    before, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    pretrained()
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.fixture(scope="module")
def images():
    data = cards(4, labelled=0.6)
    return data.x[:, 0], data.y


@pytest.mark.parametrize("classifier", ["fast", "detailed", "fine"])
def test_the_estimator_takes_it_and_a_saved_model_says_so(images, classifier, tmp_path):
    settings = {"max_epochs": 1, "hidden": 8, "encoder_channels": (4, 8), "random_state": 0, "classifier": classifier}
    model = SSRVAEClassifier(pretrain_epochs=1, **settings).fit(*images)
    model.save(tmp_path / "model")
    again = SSRVAEClassifier.load(tmp_path / "model")
    assert again.pretrain_epochs == 1
    np.testing.assert_array_equal(again.predict_proba(images[0]), model.predict_proba(images[0]))
    without = SSRVAEClassifier(**settings).fit(*images)
    assert not np.allclose(without.predict_proba(images[0]), model.predict_proba(images[0]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pretrain_epochs": -1}, "pretrain_epochs=-1"),
        ({"pretrain_epochs": 1.5}, "pretrain_epochs=1.5"),
        ({"pretrain_epochs": None}, "pretrain_epochs=None"),
        ({"pretrain_epochs": 2, "encoder": "dense"}, "pretrain_epochs=2: .* this model has none"),
    ],
)
def test_bad_values_are_named(images, wrong, message):
    with pytest.raises(ConfigError, match=message):
        SSRVAEClassifier(max_epochs=1, **wrong).fit(*images)


def test_the_published_method_leaves_it_out(images):
    said = []
    model = SSRVAEClassifier(method="paper", max_epochs=1, pretrain_epochs=3, hidden=8, random_state=0)
    model.fit(*images, callbacks=[lambda r: said.append(r.stage)])
    assert said == ["training"]
