"""The folder watcher: half-written files, restarts, and folders that come and go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from helpers_cli import PROGRAM
from helpers_pipeline import dump, make_image
from helpers_service import MODEL
from typer.testing import CliRunner

from tumble.cli import app
from tumble.errors import ConfigError, DataError, LibraryError, ModelFileError
from tumble.library import Library
from tumble.pipeline import ExtractionOptions, extract_files
from tumble.service.watch import FolderWatch, WatchSettings

QUICK = WatchSettings(settle_s=0.0, interval_s=0.01, max_tries=3)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "images"
    made.mkdir()
    return made


@pytest.fixture
def library(tmp_path):
    return tmp_path / "particles.db"


def save(path, seed=0):
    tifffile.imwrite(path, make_image(seed)[0])
    return path


def test_new_images_are_extracted_and_classified_once(folder, library):
    watch = FolderWatch(folder, library, MODEL, settings=QUICK)
    assert watch.look() == []
    assert not library.exists()
    save(folder / "a.tif")
    (item,) = watch.look()
    assert (item.state, item.n_particles, sum(item.counts.values())) == ("added", 40, 40)
    assert watch.look() == []
    save(folder / "b.tif", seed=1)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.tif").write_bytes(b"x")
    assert [found.path.name for found in watch.look()] == ["b.tif"]
    with Library(library) as opened:
        assert len(opened.micrographs()) == 2
        assert opened.particles(model="ssrvae")["predicted"].notna().all()


def test_a_restart_does_nothing_twice_and_finishes_what_was_begun(folder, library):
    save(folder / "a.tif")
    # Killed between the two steps: extracted, not classified.
    extract_files(library, [folder / "a.tif"], options=ExtractionOptions(crop_size=16))
    watch = FolderWatch(folder, library, MODEL, settings=QUICK)
    with Library(library) as opened:
        assert opened.particles(model="ssrvae")["predicted"].notna().all()
    before = dump(library)
    assert [found.state for found in watch.look()] == ["known"]
    again = FolderWatch(folder, library, MODEL, settings=QUICK)
    assert [found.state for found in again.look()] == ["known"]
    assert dump(library) == before


def test_a_file_is_left_alone_while_it_grows(folder, library):
    content = save(folder.parent / "whole.tif").read_bytes()
    watch = FolderWatch(folder, library, MODEL, settings=replace(QUICK, settle_s=0.4))
    growing = folder / "a.tif"
    for share in (0.0, 0.3, 0.6, 1.0):
        growing.write_bytes(content[: int(share * len(content))])
        assert watch.look() == []
        time.sleep(0.1)
    time.sleep(0.4)
    (item,) = watch.look()
    assert (item.state, item.n_particles) == ("added", 40)


def test_a_half_written_file_is_tried_again_and_the_next_gets_its_turn(folder, library):
    content = save(folder.parent / "whole.tif").read_bytes()
    watch = FolderWatch(folder, library, MODEL, settings=QUICK)
    half = folder / "a.tif"
    half.write_bytes(content[: len(content) // 2])
    save(folder / "b.tif", seed=1)
    states = {item.path.name: item for item in watch.look()}
    assert states["a.tif"].state == "later"
    assert "a.tif" in states["a.tif"].message
    assert states["b.tif"].state == "added"
    states = [item.state for _ in range(4) for item in watch.look()]
    assert states == ["later", "failed"]
    # Complete at last: it counts as a new file.
    half.write_bytes(content)
    assert [item.state for item in watch.look()] == ["added"]


def test_once_ends_and_reports(folder, library):
    save(folder / "a.tif")
    (folder / "broken.png").write_bytes(b"\x89PNG, but not much of one")
    (folder / "sub").mkdir()
    save(folder / "sub" / "c.tif", seed=2)
    settings = replace(QUICK, recursive=True, max_tries=2)
    found = FolderWatch(folder, library, MODEL, settings=settings).run(once=True)
    assert {item.path.name: item.state for item in found} == {
        "a.tif": "added",
        "broken.png": "failed",
        "c.tif": "added",
    }


def test_a_folder_that_goes_away_is_waited_for(folder, library, caplog):
    watch = FolderWatch(folder, library, MODEL, settings=QUICK)
    shutil.rmtree(folder)
    assert watch.look() == watch.look() == []
    assert caplog.text.count("waiting for it") == 1
    folder.mkdir()
    save(folder / "a.tif")
    assert [item.state for item in watch.look()] == ["added"]


def test_an_image_without_particles_does_not_stop_the_watch(folder, library):
    np.save(folder / "flat.npy", np.full((64, 64), 3, np.uint8))
    watch = FolderWatch(folder, library, MODEL, settings=replace(QUICK, max_tries=1))
    (item,) = watch.look()
    assert item.state == "failed"
    assert "value 3" in item.message


def test_a_bug_with_one_file_does_not_stop_the_watch(folder, library, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("unforeseen")

    save(folder / "a.tif")
    watch = FolderWatch(folder, library, MODEL, settings=QUICK)
    monkeypatch.setattr("tumble.service.watch.extract_files", broken)
    (item,) = watch.look()
    assert "unforeseen" in item.message


def test_an_image_is_kept_for_a_library_that_is_away(folder, library, monkeypatch):
    def away(*_, **__):
        raise LibraryError("particles.db: is locked by another program.")

    save(folder / "a.tif")
    watch = FolderWatch(folder, library, MODEL, settings=QUICK)
    with monkeypatch.context() as patched:
        patched.setattr("tumble.service.watch.extract_files", away)
        states = [item.state for _ in range(2 * QUICK.max_tries) for item in watch.look()]
        assert states == ["later"] * 2 * QUICK.max_tries
        assert [item.state for item in watch.run(once=True)] == ["failed"]  # which must end
    other = FolderWatch(folder, library, MODEL, settings=QUICK)
    assert [item.state for item in other.look()] == ["added"]


def test_what_does_not_fit_is_said_at_once(folder, library):
    with pytest.raises(ConfigError, match="no such folder"):
        FolderWatch(folder / "none", library, MODEL)
    with pytest.raises(ModelFileError, match="no folder of a model"):
        FolderWatch(folder, library, folder / "model.onnx")
    save(folder / "a.tif")
    extract_files(library, [folder / "a.tif"], options=ExtractionOptions(crop_size=24))
    with pytest.raises(DataError, match="16 x 16"):
        FolderWatch(folder, library, MODEL)
    with pytest.raises(ConfigError, match="interval_s"):
        WatchSettings(interval_s=0)


def test_the_command_watches_once(folder, library):
    save(folder / "a.tif")
    command = ["watch", str(folder), "--library", str(library), "--model", str(MODEL), "--once"]
    outcome = CliRunner().invoke(app, [*command, "--settle", "0", "--interval", "0.05", "--pixel-size", "2nm"])
    assert outcome.exit_code == 0, outcome.output
    assert "40 particles" in outcome.stdout
    assert "1 files, 1 of them new, 0 not usable." in outcome.stdout
    with Library(library) as opened:
        assert opened.micrographs()["pixel_size_nm"].tolist() == [2.0]
    (folder / "bad.tif").write_bytes(b"II*\x00")
    outcome = CliRunner().invoke(app, [*command, "--settle", "0", "--interval", "0.05", "--tries", "1"])
    assert outcome.exit_code == 3
    assert "bad.tif" in outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_commands_end_cleanly(folder, library, number):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    for arguments, ready in (
        (["watch", folder, "--library", library, "--model", MODEL], "Watching"),
        (["serve", MODEL, "--port", "0"], "Stop with"),
    ):
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        with subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stderr is not None
            try:
                while ready not in run.stderr.readline():
                    assert run.poll() is None
                run.send_signal(number)
                _, rest = run.communicate(timeout=60)
            finally:
                run.kill()  # or a process that does not end would be waited for without end
            assert run.returncode == 0, rest
            assert "Stopped" in rest
            assert "Traceback" not in rest
