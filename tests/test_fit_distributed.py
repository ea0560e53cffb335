"""Several processes train the same model as one does, within the rounding of sums."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_fit import CPU, cards, tiny_fit
from safetensors.torch import load_file
from torch import nn

from tumble.fit.distributed import Ranks, join_processes, share_rows
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE

SCRIPT = """
import json, os, sys
import numpy as np
import torch
from safetensors.torch import save_file
from helpers_fit import cards, tiny_fit
from tumble.errors import DataError
from tumble.fit import BestWeights, EarlyStopping
torch.set_num_threads(1)
rank = os.environ["RANK"]
out = sys.argv[1]
epochs = []
record = {}
for name, options in json.loads(sys.argv[2]).items():
    settings = dict(options)
    if settings.pop("validate", False):
        settings["validation"] = cards(2, seed=3)
    if settings.pop("stop", False):
        settings["callbacks"] = [lambda r: epochs.append(r.epoch), lambda r: r.epoch == 2 and r.stop("enough")]
    if "folder" in settings:
        settings["checkpoint"] = settings.pop("folder")
    data = cards(settings.pop("n", 3), labelled=settings.pop("labelled", 0.5))
    result = tiny_fit(data, **settings)
    tensors = {k: v.contiguous() for k, v in result.model.state_dict().items()}
    save_file(tensors, f"{out}/{name}-{rank}.safetensors")
    record[name] = {"history": result.history, "stop_reason": result.stop_reason}
try:
    tiny_fit(cards(seed=int(rank)), max_epochs=1)
except DataError as error:
    record["refused"] = str(error)
try:  # one process has a state to go on from, the other has none
    tiny_fit(max_epochs=3, checkpoint=f"{out}/run" if rank == "0" else f"{out}/none", resume=True)
except DataError as error:
    record["torn"] = str(error)
record["epochs"] = epochs
open(f"{out}/{rank}.json", "w").write(json.dumps(record))
"""

RUNS = {
    "default": {"max_epochs": 3, "validate": True},
    # Neither the batches nor the last one of an epoch can be dealt out evenly.
    "uneven": {"max_epochs": 2, "settings": {"batch_size": 5, "labelled_batch_size": 3}},
    "one_image": {"max_epochs": 1, "settings": {"batch_size": 2, "labelled_batch_size": 1}},
    "unsupervised": {"max_epochs": 2, "n_classes": 0, "labelled": 0.0},
    # Enough images for the latent axes to be turned.
    "turned": {"n": 30, "max_epochs": 1, "settings": {"batch_size": 30, "labelled_batch_size": 8}},
    "pretrained": {"max_epochs": 1, "settings": {"pretrain_epochs": 2, "batch_size": 6, "max_epochs": 1}},
    "stopped": {"max_epochs": 4, "stop": True},
    "seedless": {"max_epochs": 1, "seed": None},
    "resumed": {"max_epochs": 3, "resume": True},
    "pretraining_resumed": {"settings": {"pretrain_epochs": 2, "batch_size": 6, "max_epochs": 1}, "resume": True},
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes wrote: a folder, and what each recorded."""
    out = tmp_path_factory.mktemp("two")
    with pytest.raises(KeyboardInterrupt):
        tiny_fit(max_epochs=3, checkpoint=out / "run", callbacks=[_interrupt_at_two])
    settings = RUNS["pretraining_resumed"]["settings"]
    with pytest.raises(KeyboardInterrupt):
        tiny_fit(settings=settings, checkpoint=out / "begun", callbacks=[_interrupt_at_two])
    runs = RUNS | {
        "resumed": RUNS["resumed"] | {"folder": str(out / "run")},
        "pretraining_resumed": RUNS["pretraining_resumed"] | {"folder": str(out / "begun")},
    }
    script = out / "train.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(out), json.dumps(runs)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return out, [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def _interrupt_at_two(report):
    if report.epoch == 2:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["default", "uneven", "one_image", "unsupervised", "pretrained", "resumed", "pretraining_resumed"]
)
def test_two_processes_have_the_losses_of_one(two, name):
    _, records = two
    settings = dict(RUNS[name])
    settings.pop("resume", None)
    if settings.pop("validate", False):
        settings["validation"] = cards(2, seed=3)
    alone = tiny_fit(cards(labelled=settings.pop("labelled", 0.5)), **settings).history
    together = records[0][name]["history"]
    assert together.keys() == alone.keys()
    # The first steps of Adam divide small gradients by themselves, which makes rounding larger.
    for curve, values in together.items():
        np.testing.assert_allclose(values, alone[curve], rtol=2e-3, atol=2e-5, err_msg=curve)
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_process_ends_with_the_same_model(two, name):
    out, records = two
    first, second = (load_file(out / f"{name}-{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert ("turn" in first) == (name == "turned")
    assert records[0][name] == records[1][name]


@pytest.mark.slow
def test_only_the_leader_calls_back_and_all_follow_it(two):
    _, (leader, other) = two
    assert leader["epochs"] == [1, 2]
    assert other["epochs"] == []
    assert other["stopped"]["stop_reason"] == "enough"
    assert len(other["stopped"]["history"]["loss"]) == 2


@pytest.mark.slow
def test_processes_with_different_states_are_refused(two):
    assert all("checkpoint: the processes" in record["torn"] for record in two[1])


@pytest.mark.slow
def test_processes_with_different_data_are_refused(two):
    _, records = two
    for record in records:
        assert "were given different ones" in record["refused"]


def test_one_process_trains_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_processes(CPU) == Ranks(0, 1, CPU)
    model = SSRVAE(ModelConfig(2, (1, 16, 16), hidden=4, encoder_channels=(4,)))
    with share_rows(model, Ranks(0, 1, CPU)):
        assert "classify" not in vars(model)


def test_methods_come_back_when_the_sharing_ends():
    model = SSRVAE(ModelConfig(2, (1, 16, 16), hidden=4, encoder_channels=(4,)))
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with share_rows(model, Ranks(0, 2, CPU)):
        assert "classify" in vars(model)
        assert any("forward" in vars(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
