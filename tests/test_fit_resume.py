"""A run that is killed and resumed ends as one that was not; a checkpoint of something else is refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_fit import Killed, cards, same_weights, tiny_fit
from safetensors.torch import load_file

from tumble.errors import ConfigError, ModelFileError
from tumble.fit import BestWeights, Checkpoint, EarlyStopping
from tumble.fit.state import RunState, fingerprint, read_state, write_state


def crash_after(epoch):
    def callback(report):
        if report.epoch == epoch:
            raise Killed

    return callback


def interrupted(folder, epoch, **kwargs):
    """Run a fit that crashes in an epoch, before its checkpoint is made."""
    with pytest.raises(Killed):
        tiny_fit(checkpoint=folder, callbacks=[*kwargs.pop("callbacks", []), crash_after(epoch)], **kwargs)


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path, epoch):
    whole = tiny_fit(max_epochs=4)
    interrupted(tmp_path, epoch, max_epochs=4)
    resumed = tiny_fit(max_epochs=4, checkpoint=tmp_path, resume=True)
    assert same_weights(whole.model, resumed.model)
    assert resumed.history == whole.history


def test_validation_and_callbacks_are_resumed_too(tmp_path):
    def settings():
        return {
            "max_epochs": 8,
            "validation": cards(2, seed=7),
            "callbacks": [BestWeights("kl_pose", mode="max"), EarlyStopping("kl_pose", patience=3, mode="max")],
        }

    whole = tiny_fit(**settings())
    assert len(whole.history["loss"]) > 3
    interrupted(tmp_path, 3, **settings())
    resumed = tiny_fit(checkpoint=tmp_path, resume=True, **settings())
    assert same_weights(whole.model, resumed.model)
    assert (resumed.history, resumed.stop_reason) == (whole.history, whole.stop_reason)


def test_a_finished_run_is_given_again_without_training(tmp_path):
    stopping = {"max_epochs": 9, "callbacks": [EarlyStopping("kl_pose", patience=1, mode="max", min_delta=1e9)]}
    first = tiny_fit(checkpoint=tmp_path, **stopping)
    seen = []
    again = tiny_fit(checkpoint=tmp_path, resume=True, max_epochs=9, callbacks=[*stopping["callbacks"], seen.append])
    assert seen == []
    assert same_weights(first.model, again.model)
    assert (again.stop_reason, again.history) == (first.stop_reason, first.history)
    assert again.seconds > read_state(tmp_path).values["seconds"]


def test_resuming_where_there_is_nothing_starts_the_run(tmp_path):
    result = tiny_fit(max_epochs=1, checkpoint=tmp_path / "new" / "run", resume=True)
    assert same_weights(result.model, tiny_fit(max_epochs=1).model)
    assert {p.suffix for p in (tmp_path / "new" / "run").iterdir()} == {".json", ".safetensors"}


def test_without_resume_an_old_checkpoint_is_replaced(tmp_path):
    interrupted(tmp_path, 3, seed=1)
    (tmp_path / "notes.txt").write_text("mine")
    fresh = tiny_fit(checkpoint=tmp_path, seed=2)
    assert same_weights(fresh.model, tiny_fit(seed=2).model)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors", ".txt"]


def test_a_run_without_a_seed_goes_on_with_its_own(tmp_path):
    interrupted(tmp_path, 2, seed=None)
    seed = json.loads((tmp_path / "run.json").read_text())["identity"]["seed"]
    resumed = tiny_fit(checkpoint=tmp_path, resume=True, seed=None)
    assert same_weights(resumed.model, tiny_fit(seed=seed).model)


def change_identity(folder, change):
    run = json.loads((folder / "run.json").read_text())
    change(run["identity"])
    (folder / "run.json").write_text(json.dumps(run))


@pytest.mark.parametrize(
    "forget",
    [
        lambda identity: identity["model"].pop("fold"),
        lambda identity: identity["model"].pop("angle_prior_concentration"),
        lambda identity: identity["settings"]["disorder"].pop("mirror"),
    ],
)
def test_a_checkpoint_from_before_a_setting_existed_goes_on(tmp_path, forget):
    interrupted(tmp_path, 3, seed=1)
    change_identity(tmp_path, forget)
    resumed = tiny_fit(checkpoint=tmp_path, resume=True, seed=1)
    assert same_weights(resumed.model, tiny_fit(seed=1).model)


@pytest.mark.parametrize(
    "change",
    [
        lambda identity: identity["model"].update(fold=not identity["model"]["fold"]),
        lambda identity: identity["model"].pop("n_classes"),
        lambda identity: identity.update(model=3),
    ],
)
def test_a_checkpoint_of_other_networks_is_refused(tmp_path, change):
    interrupted(tmp_path, 3, seed=1)
    change_identity(tmp_path, change)
    with pytest.raises(ConfigError, match="of a run with other networks"):
        tiny_fit(checkpoint=tmp_path, resume=True, seed=1)


def test_the_checkpoint_of_a_callback_can_be_resumed_from(tmp_path):
    with pytest.raises(Killed):
        tiny_fit(max_epochs=4, callbacks=[Checkpoint(tmp_path, every=2), crash_after(4)])
    assert read_state(tmp_path).values["epoch"] == 2
    resumed = tiny_fit(max_epochs=4, checkpoint=tmp_path, resume=True)
    assert same_weights(resumed.model, tiny_fit(max_epochs=4).model)


def other_pixels():
    data = cards()
    data.x[0, 0, 3, 3] += 1
    return data


def other_labels():
    data = cards()
    data.y[5] = -1 if data.y[5] >= 0 else 0
    return data


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data": other_pixels()}, "data"),
        ({"data": other_labels()}, "data"),
        ({"data": cards(4)}, "data"),
        ({"seed": 5}, "seed"),
        ({"max_epochs": 7}, "settings"),
        ({"settings": {"batch_size": 7}}, "settings"),
        ({"class_prior": np.array([0.4, 0.2, 0.2, 0.2])}, "class prior"),
        ({"validation": cards(2)}, "validation data"),
        ({"callbacks": [EarlyStopping("loss")]}, "callbacks"),
        ({"seed": 6, "data": cards(4)}, "data and seed"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, change, what):
    interrupted(tmp_path, 2)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=f"of a run with other {what}. Give what"):
        tiny_fit(checkpoint=tmp_path, resume=True, **change)
    assert (tmp_path / "run.json").read_bytes() == before


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)


def edit(**changes):
    def change(path):
        run = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in (run | changes).items() if v is not None}))

    return change


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        (".json", truncate, "the checkpoint is damaged"),
        (".json", lambda p: p.write_text("[]"), "the checkpoint is damaged"),
        (".json", edit(values={}), "the checkpoint is damaged"),
        (".json", edit(values=None), "the checkpoint is damaged"),
        (".json", edit(tensors="../elsewhere.safetensors"), "the checkpoint is damaged"),
        (".json", edit(format=99), "written by a newer tumble"),
        (".safetensors", truncate, "the checkpoint is damaged"),
        (".safetensors", flip, "the checkpoint is damaged"),
        (".safetensors", Path.unlink, "the file is missing"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error(tmp_path, suffix, damage, message):
    interrupted(tmp_path, 2)
    damage(next(p for p in tmp_path.iterdir() if p.suffix == suffix))
    with pytest.raises(ModelFileError, match=message):
        tiny_fit(checkpoint=tmp_path, resume=True)
    tiny_fit(max_epochs=1, checkpoint=tmp_path, resume=False)


def test_tensors_of_other_networks_are_one_clear_error(tmp_path):
    interrupted(tmp_path, 2)
    state = read_state(tmp_path)
    shape = {name: t[..., :1] if t.ndim > 1 else t for name, t in state.tensors.items()}
    write_state(tmp_path, RunState(state.identity, state.values, shape))
    with pytest.raises(ModelFileError, match="do not fit the networks"):
        tiny_fit(checkpoint=tmp_path, resume=True)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="cannot be written"):
        tiny_fit(max_epochs=1, checkpoint=tmp_path / "file" / "run", resume=True)


def test_a_kill_between_the_files_leaves_the_state_before(tmp_path, monkeypatch):
    old = RunState({"seed": 0}, {"epoch": 1}, {"w": torch.zeros(3)})
    write_state(tmp_path, old)
    replace, count = Path.replace, iter([False, True])

    def killed_at_the_second(self, target):
        if next(count):
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed_at_the_second)
    with pytest.raises(Killed):
        write_state(tmp_path, RunState({"seed": 0}, {"epoch": 2}, {"w": torch.ones(3)}))
    monkeypatch.undo()
    found = read_state(tmp_path)
    assert found.values == {"epoch": 1}
    assert torch.equal(found.tensors["w"], torch.zeros(3))
    write_state(tmp_path, RunState({"seed": 0}, {"epoch": 2}, {"w": torch.ones(3)}))
    assert len(list(tmp_path.iterdir())) == 2  # what the kill left is gone


def test_the_fingerprint_sees_shape_kind_labels_and_pixels():
    data = cards()
    prints = {fingerprint(d) for d in (None, data, cards(4), other_pixels(), other_labels())}
    assert len(prints) == 5
    assert fingerprint(cards()) == fingerprint(data)


SCRIPT = """
import sys
from safetensors.torch import save_file
from helpers_fit import tiny_fit
import torch
torch.set_num_threads(1)
result = tiny_fit(max_epochs=30, checkpoint=sys.argv[1], resume=True)
save_file({k: v.contiguous() for k, v in result.model.state_dict().items()}, sys.argv[2])
"""


def start(folder, out):
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([tests, *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(out)], env=environment)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_process_killed_at_any_moment_goes_on_to_the_same_weights(tmp_path):
    unbroken = start(tmp_path / "whole", tmp_path / "whole.safetensors")
    assert unbroken.wait() == 0
    chance = random.Random(0)
    folder, out = tmp_path / "broken", tmp_path / "broken.safetensors"
    epochs = []
    for _ in range(2):
        process = start(folder, out)
        before = (folder / "run.json").read_bytes() if (folder / "run.json").exists() else b""
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (folder / "run.json").exists() and (folder / "run.json").read_bytes() != before:
                break
            time.sleep(0.005)
        time.sleep(chance.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        epochs.append(read_state(folder).values["epoch"])
    assert epochs == sorted(set(epochs))  # each start went on from where the last one was killed
    assert epochs[0] < 30
    assert start(folder, out).wait() == 0
    whole, broken = load_file(tmp_path / "whole.safetensors"), load_file(out)
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
