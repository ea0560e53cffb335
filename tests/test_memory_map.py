"""Data larger than memory trains from a memory map, and memory does not grow with the epochs."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_fit import CPU, NET, cards, same_weights, tiny_fit

from tumble import SSRVAEClassifier
from tumble.fit import FitConfig, fit_ssrvae
from tumble.fit.batches import TrainingData, as_images
from tumble.fit.run import _chunks, _initial_model
from tumble.fit.state import fingerprint
from tumble.model.config import ModelConfig
from tumble.validation import check_images

SIDE = 64
STATUS = Path("/proc/self/status")
KINDS = ["uint8", "float32", "float16", "float64", ">f4"]


def on_disk(folder, kind, n=20_000):
    """A memory map, open for reading only; 82 MB of uint8, 655 MB of float64."""
    images = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=kind, shape=(n, 1, SIDE, SIDE))
    # Most of the file stays a hole, which costs no disk and reads as zeros.
    pixels = np.random.default_rng(0).random((200, 1, SIDE, SIDE)) * (255 if kind == "uint8" else 1)
    images[:: n // 200] = pixels
    images.flush()
    del images
    y = np.full(n, -1)
    y[:40] = np.arange(40) % 4
    return np.load(folder / "x.npy", mmap_mode="r"), y


def own_bytes():
    """Memory of this process that no file stands for: pages of a memory map can be dropped, these cannot."""
    if not STATUS.exists():
        pytest.skip("this system does not tell the memory of a process")
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_as_images_takes_any_numbers_and_does_not_touch_them(tmp_path, kind):
    x, _ = on_disk(tmp_path, kind, n=200)
    unit = 255 if kind == "uint8" else 1
    images = as_images(x[3:5], CPU)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.numpy(), x[3:5].astype(np.float64) / unit, rtol=1e-6)
    images += 1  # the map is closed to writing: this must be memory of our own
    assert as_images(np.array([[[[True, False]]]]), CPU).tolist() == [[[[1.0, 0.0]]]]


@pytest.mark.parametrize("kind", KINDS)
def test_checks_and_fit_read_a_memory_map_in_pieces(tmp_path, kind):
    x, y = on_disk(tmp_path, kind)
    tracemalloc.start()
    before = own_bytes()
    try:
        images = check_images(x)
        assert np.shares_memory(images, x)
        data = TrainingData(images, y)
        fingerprint(data)
        config = ModelConfig(4, (1, SIDE, SIDE), **NET)
        stop = {"callbacks": [lambda report: report.stop()]}
        settings = FitConfig(max_epochs=1, batch_size=2000, labelled_batch_size=8, generative_share=0.01)
        fit_ssrvae(data, config, settings, seed=0, device=CPU, **stop)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 2,000 images of float32 are 33 MB; numpy held a few times that at once, and the map as float32 would be 328 MB.
    assert peak < 150e6
    gc.collect()
    assert own_bytes() - before < 300e6


def test_a_memory_map_trains_like_the_array(tmp_path):
    data = cards()
    np.save(tmp_path / "x.npy", data.x)
    mapped = TrainingData(np.load(tmp_path / "x.npy", mmap_mode="r"), data.y)
    assert same_weights(tiny_fit(mapped).model, tiny_fit(data).model)


@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_the_estimator_takes_a_memory_map(tmp_path, kind):
    data = cards()
    x = (data.x[:, 0] * 255).astype(np.uint8) if kind == "uint8" else data.x[:, 0].astype(kind)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    options = {"max_epochs": 1, "encoder_channels": (4, 8), "hidden": 8, "random_state": 0}
    from_disk, from_memory = SSRVAEClassifier(**options), SSRVAEClassifier(**options)
    np.testing.assert_array_equal(
        from_disk.fit(mapped, data.y).predict_proba(mapped), from_memory.fit(x, data.y).predict_proba(x)
    )


def test_large_images_are_sampled_a_few_at_a_time():
    x = np.broadcast_to(np.float32(0.5), (2000, 1, 512, 512))  # 2 GB, were they not all one number
    data = TrainingData(x, np.full(2000, -1))
    assert sum(len(rows) for rows in _chunks(np.arange(2000), data)) == 2000
    tracemalloc.start()
    try:
        config = ModelConfig(0, (1, 512, 512), encoder_channels=(2,), hidden=2)
        _initial_model(data, config, np.random.default_rng(0), 0, CPU)
        largest = max(x[rows].nbytes for rows in _chunks(np.arange(2000), data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest <= 2**26
    assert peak < 300e6


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_epochs():
    sizes = []

    def measure(report):
        gc.collect()
        sizes.append(own_bytes())

    tiny_fit(max_epochs=60, callbacks=[measure])
    assert sizes[-1] - sizes[14] < 4e6
