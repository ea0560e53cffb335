"""Saved models: those of every format are still read and say the same, and damage is one clear error."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from make_model_fixtures import expected, images
from safetensors.torch import load_file, save_file

from tumble import RVAE, SSRVAEClassifier
from tumble.errors import ModelFileError
from tumble.fit.checkpoint import FORMAT_VERSION, load_model, save_model
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE
from tumble.pipeline.fit import fingerprint

DATA = Path(__file__).with_name("data")
FOLDERS = sorted(p.parent for p in DATA.glob("model-format-*/*/config.json"))
CURRENT = DATA / f"model-format-{FORMAT_VERSION}"


def load(folder):
    kind = {"RVAE": RVAE, "SSRVAEClassifier": SSRVAEClassifier}
    return kind[json.loads((folder / "config.json").read_text())["estimator"]].load(folder, device="cpu")


def test_every_format_has_its_models():
    assert {p.parent.name for p in FOLDERS} == {f"model-format-{v}" for v in range(1, FORMAT_VERSION + 1)}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_model_of_any_format_says_what_it_said_when_it_was_saved(folder):
    model = load(folder)
    said = json.loads((folder / "expected.json").read_text())
    now = expected(model, images()[0][:8])
    assert now.keys() == said.keys()
    for name, values in said.items():
        if name == "predict":
            assert now[name] == values
        else:
            np.testing.assert_allclose(now[name], values, atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_model_of_any_format_can_be_saved_again(folder, tmp_path):
    model = load(folder)
    model.save(tmp_path / "again")
    X = images()[0]
    again = load(tmp_path / "again")
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert again.get_params() == model.get_params()
    assert again.history_ == model.history_
    assert json.loads((tmp_path / "again" / "config.json").read_text())["format"] == FORMAT_VERSION


def test_class_prior_and_temperature_of_format_1_are_filled_in():
    model = SSRVAEClassifier.load(DATA / "model-format-1" / "ssrvae-bernoulli")
    np.testing.assert_allclose(model.class_prior_, [0.25, 0.75], rtol=1e-6)
    assert model.model_.log_temperature == 0
    assert SSRVAEClassifier.load(DATA / "model-format-1" / "ssrvae").class_prior_.tolist() == [0.5, 0.5]


def test_a_fine_classifier_from_before_it_lost_its_hidden_layer_is_still_read(tmp_path):
    # Its config did not say that there was a hidden layer, for there always was one.
    model = SSRVAE(ModelConfig(n_classes=2, image_shape=(1, 16, 16), classifier="fine", hidden=8)).eval()
    save_model(tmp_path / "old", model, {})
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["model"]["hidden_layer"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    x = torch.rand(3, 1, 16, 16)
    assert torch.equal(load_model(tmp_path / "old")[0].probabilities(x), model.probabilities(x))


def test_loading_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    load(CURRENT / "ssrvae")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_score_of_novelty_is_kept(tmp_path):
    model = load(CURRENT / "ssrvae")
    if model.model_.novelty is None:
        model.model_.add_novelty()
    model.model_.novelty.loc.fill_(0.25)
    model.save(tmp_path / "model")
    assert (load(tmp_path / "model").model_.novelty.loc == 0.25).all()


def damage_json(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def damage_weights(folder, change):
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def in_model(**values):
    return lambda folder: damage_json(folder, lambda c: c["model"].update(values))


def in_config(**values):
    return lambda folder: damage_json(folder, lambda c: c.update(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "damaged"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "not the configuration"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "damaged"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"\x00" * 100), "damaged"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"\x80\x04N."), "damaged"),
        (lambda f: damage_weights(f, lambda t: t["log_py"].fill_(float("nan"))), "not finite"),
        (lambda f: damage_weights(f, lambda t: t.pop("log_py")), "does not fit"),
        # hostile content: names that are paths, sizes that fill the memory, values of other kinds
        (lambda f: damage_weights(f, lambda t: t.update({"../../etc/passwd": torch.zeros(2)})), "does not fit"),
        (in_model(image_shape=[1, 10**9, 10**9]), "config.json"),
        (in_model(latent_dim=10**12), "config.json|does not fit"),
        (in_model(hidden="__import__('os').system('true')"), "config.json"),
        (in_config(estimator="../../os.system"), "config.json"),
        (in_config(classes={"__reduce__": "os.system"}), "config.json"),
        (in_config(params={"random_state": {"py/object": "os.system"}}), "config.json"),
        (lambda f: damage_weights(f, lambda t: t.update(more=torch.zeros(2))), "does not fit"),
        (lambda f: damage_weights(f, lambda t: t.update({"novelty.loc": torch.zeros(3)})), "does not fit"),
        (in_config(format=99), "newer tumble"),
        (in_config(format=0), "not the configuration"),
        (in_config(format=True), "not the configuration"),
        (in_config(classes=["a"]), "number of classes"),
        (in_config(classes=None), "number of classes"),
        (in_config(classes=["a", "a"]), "classes are"),
        (in_config(classes=[["a"], ["b"]]), "description is damaged"),
        (in_config(classes="ab"), "description is damaged"),
        (in_config(history=[1, 2]), "description is damaged"),
        (in_config(history={"loss": "x"}), "description is damaged"),
        (in_config(fit_seconds="soon"), "description is damaged"),
        (in_config(params=3), "description is damaged"),
        (in_config(estimator="RVAE"), "holds a model of 'RVAE'"),
        (in_config(model=None), "networks is damaged"),
        (lambda f: damage_json(f, lambda c: c["params"].update(evil=1)), "description is damaged"),
        (lambda f: damage_json(f, lambda c: c["params"].update(invariances=5)), "description is damaged"),
        (lambda f: damage_json(f, lambda c: c["model"].pop("n_classes")), "networks is damaged"),
        (in_model(evil="x"), "networks is damaged"),
        (in_model(hidden=10**9), "hidden is 1000000000"),
        (in_model(hidden=True), "hidden is True"),
        (in_model(hidden="8"), "hidden is '8'"),
        (in_model(hidden=16), "does not fit"),
        # Each size is allowed, together they are beyond any memory: nothing of it may be taken.
        (in_model(hidden=16384, latent_dim=16384, image_shape=[16384, 4096, 4096]), "does not fit"),
        (in_model(n_classes=-1), "n_classes is -1"),
        (in_model(n_classes=0), "does not fit"),
        (in_model(latent_dim=0), "latent_dim is 0"),
        (in_model(image_shape=[1, 16]), "networks is damaged"),
        (in_model(image_shape=[1, 16, 0]), "width is 0"),
        (in_model(image_shape=[1, 16, 16.0]), "width is 16.0"),
        (in_model(image_shape=[1, 16, 32]), "does not fit"),
        (in_model(invariances=["rotation", "magic"]), "invariances are"),
        (in_model(invariances=["rotation", "rotation"]), "invariances are"),
        (in_model(invariances=[["rotation"]]), "networks is damaged"),
        (in_model(encoder_channels=[]), "encoder_channels is 0"),
        (in_model(encoder_channels=[8, -1]), r"encoder_channels\[1\] is -1"),
        (in_model(encoder_channels=8), "networks is damaged"),
        (in_model(likelihood="poisson"), "likelihood is 'poisson'"),
        (in_model(encoder=["dense"]), "encoder is"),
        (in_model(encoder="dense"), "does not fit"),
        (in_model(decoder="__class__"), "decoder is"),
        (in_model(classifier=None), "classifier is None"),
        (in_model(symmetry="mirror"), "symmetry is 'mirror'"),
        (in_model(angle_posterior="cauchy"), "angle_posterior is 'cauchy'"),
        (in_model(frame=1), "frame is 1"),
        (in_model(standardise=1), "standardise is 1"),
        (in_model(radius=None), "radius is None"),
        (in_model(radius=False), "does not fit"),
        (in_model(sigma=-0.1), "sigma is -0.1"),
        (in_model(sigma=float("nan")), "sigma is nan"),
        (in_model(scale_prior=None), "scale_prior is None"),
        (in_model(translation_prior="wide"), "translation_prior is 'wide'"),
        (in_model(angle_prior_rad=float("inf")), "angle_prior_rad is inf"),
        (in_model(angle_prior_concentration=-1.0), "angle_prior_concentration is -1.0"),
        (in_model(angle_prior_concentration=float("nan")), "angle_prior_concentration is nan"),
        (in_model(angle_prior_concentration=float("inf")), "angle_prior_concentration is inf"),
        (in_model(angle_prior_concentration=None), "angle_prior_concentration is None"),
        (in_model(angle_prior_concentration=True), "angle_prior_concentration is True"),
    ],
)
def test_a_damaged_model_is_one_clear_error(tmp_path, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(CURRENT / "ssrvae", folder)
    damage(folder)
    with pytest.raises(ModelFileError, match=message):
        SSRVAEClassifier.load(folder)


class Bomb:
    """What runs a program when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def lying_header(*, length=None, **entry):
    """Weights whose header says other things of them than are true."""
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}
    header = json.dumps({"log_py": tensor}).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 8


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickles_are_never_loaded_whatever_they_are_called(tmp_path, name, kind):
    folder, witness = tmp_path / "model", tmp_path / "was-run"
    shutil.copytree(CURRENT / "ssrvae", folder)
    if kind == "torch":
        torch.save({"log_py": Bomb(witness)}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb(witness)))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(witness)))  # files beside are not looked at
    (folder / "__init__.py").write_text(f"open({str(witness)!r}, 'w')")
    with pytest.raises(ModelFileError, match="damaged"):
        SSRVAEClassifier.load(folder)
    assert not witness.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert witness.exists()  # the bomb is real


@pytest.mark.parametrize(
    "content",
    [
        lying_header(length=2**63),
        lying_header(length=2**40),
        lying_header(length=0),
        lying_header(shape=[2**40]),
        lying_header(shape=[2**62, 2**62]),
        lying_header(shape=[-1]),
        lying_header(data_offsets=[0, 2**40]),
        lying_header(data_offsets=[2**40, 2**40 + 8]),
        lying_header(data_offsets=[8, 0]),
        lying_header(dtype="OBJECT"),
        lying_header(dtype={"__reduce__": "os.system"}),
    ],
)
def test_headers_of_weights_that_lie_are_one_clear_error(tmp_path, content):
    folder = tmp_path / "model"
    shutil.copytree(CURRENT / "ssrvae", folder)
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"weights\.safetensors: the file is damaged"):
        SSRVAEClassifier.load(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX files")
@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "nowhere"])
def test_links_to_what_is_no_file_are_refused_at_once(tmp_path, name, kind):
    folder = tmp_path / "model"
    shutil.copytree(CURRENT / "ssrvae", folder)
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        target = {"endless": "/dev/zero", "folder": "/", "nowhere": "/no/such/file"}[kind]
        (folder / name).symlink_to(target)
    with pytest.raises(ModelFileError, match="is missing" if kind == "nowhere" else "is no file"):
        SSRVAEClassifier.load(folder)
    if name == "weights.safetensors":
        with pytest.raises(ModelFileError, match="holds no model" if kind == "nowhere" else "is no file"):
            fingerprint(folder)


def test_a_missing_model_says_how_to_make_one(tmp_path):
    with pytest.raises(ModelFileError, match="tumble fit"):
        SSRVAEClassifier.load(tmp_path / "nothing")


def test_a_model_of_another_kind_is_named():
    with pytest.raises(ModelFileError, match="holds a model of 'RVAE', not of 'SSRVAEClassifier'"):
        SSRVAEClassifier.load(CURRENT / "rvae")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(ModelFileError, match="cannot be written"):
        load(CURRENT / "rvae").save(tmp_path / "file" / "model")
