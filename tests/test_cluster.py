"""Steps over a Dask cluster: the same library as without, whatever becomes of the workers."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import sys

import numpy as np
import pytest
import tifffile
from helpers_pipeline import CLASSES, OPTIONS, make_image
from typer.testing import CliRunner

from tumble import pipeline
from tumble.cli import app
from tumble.errors import ConfigError, DataError, InputFileError, SchedulerError
from tumble.estimators import SSRVAEClassifier
from tumble.library import Library
from tumble.pipeline.cluster import Cluster

distributed = pytest.importorskip("distributed", reason="needs the extra scale")

N_IMAGES = 8


@pytest.fixture(scope="module")
def workers():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{seed}.tif" for seed in range(N_IMAGES)]
    for seed, path in enumerate(paths):
        tifffile.imwrite(path, make_image(seed)[0])
    return paths


def content(path):
    """Everything that does not say when it was stored."""
    connection = sqlite3.connect(path)
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for table in sorted(tables):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in columns if name not in ("added_at", "created_at", "started_at")]
            rows = connection.execute(f"SELECT {', '.join(kept)} FROM {table}").fetchall()
            found[table] = sorted(rows, key=repr)
        return found
    finally:
        connection.close()


def worker_pids(cluster):
    with distributed.Client(cluster) as client:
        return list(client.run(os.getpid).values())


def test_a_killed_worker_costs_only_its_share(workers, images, tmp_path):
    """The library is the one that this process alone makes: nothing is missing, nothing double, the order is kept."""
    victim, *_ = worker_pids(workers)
    killed = []

    def kill_one(what, done, total):
        if done == 1 and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    out, address = tmp_path / "cluster.db", workers.scheduler_address
    files = pipeline.extract_files(out, images, options=OPTIONS, progress=kill_one, scheduler=address)
    assert killed == [victim]
    assert victim not in worker_pids(workers)
    assert [file.path for file in files] == [str(path) for path in images]
    pipeline.extract_files(tmp_path / "alone.db", images, options=OPTIONS)
    assert content(out) == content(tmp_path / "alone.db")

    again = pipeline.extract_files(out, [*images, images[0]], options=OPTIONS, scheduler=address)
    assert [file.added for file in again] == [False] * (N_IMAGES + 1)
    assert content(out) == content(tmp_path / "alone.db")


def test_stacks_are_spread_and_empty_frames_skipped(workers, tmp_path, caplog):
    frames = np.stack([make_image(0)[0], make_image(0)[0][::-1], make_image(1)[0]])
    tifffile.imwrite(tmp_path / "stack.tif", frames, photometric="minisblack")
    options = pipeline.ExtractionOptions(crop_size=24, min_area_px=40)
    arguments = {"options": options, "scheduler": workers.scheduler_address}
    pipeline.extract_files(tmp_path / "cluster.db", [tmp_path / "stack.tif"], **arguments)
    pipeline.extract_files(tmp_path / "alone.db", [tmp_path / "stack.tif"], options=options)
    assert content(tmp_path / "cluster.db") == content(tmp_path / "alone.db")
    with Library(tmp_path / "cluster.db") as library:
        assert library.micrographs()["source"].str.endswith(("[0]", "[1]", "[2]")).all()
    nothing = pipeline.ExtractionOptions(crop_size=24, min_area_px=5000)
    with pytest.raises(DataError, match="stack"):
        pipeline.extract_files(tmp_path / "none.db", [tmp_path / "stack.tif"], **{**arguments, "options": nothing})
    assert "Skipped" in caplog.text
    assert not (tmp_path / "none.db").exists()


def test_a_bad_file_stops_at_its_turn_as_without_a_cluster(workers, images, tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"II*\0 no image")
    paths = [images[0], tmp_path / "bad.tif", images[1]]
    for name, scheduler in (("cluster.db", workers.scheduler_address), ("alone.db", None)):
        with pytest.raises(InputFileError, match=r"bad\.tif.*the 1 before this one are stored"):
            pipeline.extract_files(tmp_path / name, paths, options=OPTIONS, scheduler=scheduler)
    assert content(tmp_path / "cluster.db") == content(tmp_path / "alone.db")


@pytest.mark.slow
def test_classifying_over_workers_gives_the_same(workers, images, tmp_path):
    tifffile.imwrite(tmp_path / "classes.tif", make_image(0)[1])
    paths = [tmp_path / "cluster.db", tmp_path / "alone.db"]
    for path in paths:
        pipeline.extract_files(path, images[:3], options=OPTIONS)
    with Library(paths[0]) as library, Library(paths[1]) as alone:
        for each in (library, alone):
            pipeline.label_from_mask(each, tmp_path / "classes.tif", CLASSES, micrograph_id=1, author="ann")
        model = SSRVAEClassifier(max_epochs=1, hidden=8, random_state=0, device="cpu")
        pipeline.fit_library(alone, tmp_path / "model", estimator=model)
        done = pipeline.classify_library(library, tmp_path / "model", scheduler=workers.scheduler_address)
        pipeline.classify_library(alone, tmp_path / "model")
        (ids, said), (ids_alone, said_alone) = library.predictions("model"), alone.predictions("model")
        assert ids.tolist() == ids_alone.tolist()
        assert done.n_particles == len(ids) == 3 * 40
        assert said.probabilities == pytest.approx(said_alone.probabilities, abs=1e-5)
        assert said.latent == pytest.approx(said_alone.latent, abs=1e-4)
        n_runs = len(library.runs())
        again = pipeline.classify_library(library, tmp_path / "model", scheduler=workers.scheduler_address)
        assert again.n_particles == len(ids)
        assert len(library.runs()) == n_runs, "nothing was left to do"


def die_once(item, folder):
    """Kill the worker when an item is begun for the first time."""
    try:
        os.close(os.open(os.path.join(folder, str(item)), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return item * item
    if item in (2, 5):
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def always_die(item, _):
    os.kill(os.getpid(), signal.SIGKILL)


def test_work_of_dead_workers_is_done_by_others_in_the_order_of_the_items(workers, tmp_path):
    with distributed.Client(workers) as client:
        found = list(Cluster(client, "test").in_order(die_once, range(12), str(tmp_path)))
    assert found == [(i, i * i) for i in range(12)]


def test_work_that_kills_each_worker_is_given_up(workers):
    with distributed.Client(workers) as client, pytest.raises(SchedulerError, match="workers died of one piece"):
        list(Cluster(client, "test").in_order(always_die, [0], None))


def test_a_cluster_without_workers_is_waited_for_but_not_for_ever(tmp_path):
    settings = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with (
        distributed.LocalCluster(n_workers=0, **settings) as empty,
        pytest.raises(SchedulerError, match="has no worker"),
        pipeline.open_cluster(empty.scheduler_address, patience_s=0.5),
    ):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "there-is-no.json", " "])
def test_a_wrong_address_is_one_clear_sentence(address, images, tmp_path, monkeypatch):
    monkeypatch.setattr("tumble.pipeline.cluster.CONNECT_S", 0.5)
    command = ["extract", str(images[0]), "--library", str(tmp_path / "l.db"), "--scheduler", address, "-q"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code in (ConfigError.exit_code, SchedulerError.exit_code)
    assert "--scheduler" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "l.db").exists()


def test_without_the_extra_one_sentence_says_what_to_install(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["extract", str(images[0]), "--library", str(tmp_path / "l.db"), "--scheduler", "local", "-q"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == ConfigError.exit_code
    assert 'pip install "tumble[scale]"' in done.stderr
