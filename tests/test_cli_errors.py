"""The command line with bad input and failing systems: one line, an exit code, and nothing changed."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from helpers_cli import PROGRAM
from helpers_pipeline import COLUMNS, ROWS, dump, make_image, make_library, write_files
from typer.testing import CliRunner

from tumble import console
from tumble.cli import app
from tumble.library import Library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


N = ROWS * COLUMNS


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    logger = logging.getLogger("tumble")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = handlers, level
    logger.setLevel(level)
    console.settings.debug = False


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(code: int, *arguments: str | Path) -> str:
    """Run a command that must fail with `code`, and return its one line of error."""
    done = run(*arguments)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0], "the error comes last"
    assert done.stdout == ""
    return lines[0]


# --- bad input ----------------------------------------------------------------------------------------------


def write_text(path: Path) -> None:
    path.write_text("this is not an image\n" * 20)


def write_nan(path: Path) -> None:
    image = make_image()[0].astype(np.float32)
    image[3, 4] = np.nan
    tifffile.imwrite(path, image)


def write_constant(path: Path) -> None:
    tifffile.imwrite(path, np.full((64, 64), 1000, dtype=np.uint16))


def write_empty(path: Path) -> None:
    tifffile.imwrite(path, np.random.default_rng(0).normal(100, 1, (128, 128)).astype(np.float32))


def write_nothing(path: Path) -> None:
    pass


BAD_IMAGES: list[tuple[Callable[[Path], None], int, str]] = [
    (write_nothing, 3, "no such file"),
    (write_text, 3, "cannot be read as TIF"),
    (write_nan, 4, "1 of .* NaN"),
    (write_constant, 4, "all pixels have the value 1000"),
    (write_empty, 4, "no particles?"),
]


@pytest.mark.parametrize(("write", "code", "text"), BAD_IMAGES, ids=[case[0].__name__ for case in BAD_IMAGES])
@pytest.mark.parametrize("exists", [True, False])
def test_bad_image(tmp_path: Path, write: Callable[[Path], None], code: int, text: str, exists: bool) -> None:
    library, image = tmp_path / "particles.db", tmp_path / "bad.tif"
    if exists:
        make_library(tmp_path)
    before = dump(library) if exists else None
    write(image)
    message = fails(code, "extract", image, "--library", library)
    assert str(image) in message
    assert re.search(text, message), message
    assert (dump(library) if library.exists() else None) == before


def labels_for(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


@pytest.mark.parametrize(
    ("table", "code", "text"),
    [
        ("particle_id,label\n1,disc\n777,pair\n", 5, "777"),
        ("id,class\n1,disc\n", 5, "particle_id"),
        ("particle_id,label\n1,disc\n1,pair\n", 5, "different labels"),
        ("particle_id,label\none,disc\n", 5, "'one'"),
        ("particle_id,label\n", 5, "no labels"),
    ],
)
def test_bad_label_table(tmp_path: Path, table: str, code: int, text: str) -> None:
    library = make_library(tmp_path, labels=False)
    before = dump(library)
    assert text in fails(code, "label", library, "--csv", labels_for(tmp_path, table))
    assert dump(library) == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "either --from-mask"),
        (["--from-mask", "m.tif"], "needs --classes"),
        (["--csv", "l.csv", "--from-mask", "m.tif"], "either --from-mask"),
        (["--csv", "l.csv", "--classes", "1=a"], "go with --from-mask"),
        (["--from-mask", "m.tif", "--classes", "single"], "VALUE=NAME"),
    ],
)
def test_label_options_that_do_not_fit(tmp_path: Path, options: list[str], text: str) -> None:
    assert text in fails(2, "label", make_library(tmp_path), *options)


def test_fit_without_labels(tmp_path: Path) -> None:
    library = make_library(tmp_path, labels=False)
    before = dump(library)
    assert "tumble label" in fails(5, "fit", library, "--model", tmp_path / "m")
    assert dump(library) == before
    assert not (tmp_path / "m").exists()


def test_fit_with_one_label_of_a_class(tmp_path: Path) -> None:
    library = make_library(tmp_path, labels=False)
    run("label", library, "--csv", labels_for(tmp_path, "particle_id,label\n1,disc\n3,disc\n2,pair\n"))
    before = dump(library)
    assert "'pair' has one label only" in fails(5, "fit", library, "--model", tmp_path / "m")
    assert dump(library) == before


def test_fit_with_a_setting_that_cannot_be(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    before = dump(library)
    message = fails(2, "fit", library, "--model", tmp_path / "m", "--invariances", "rotation,colour")
    assert "colour" in message
    assert dump(library) == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--set", "calibrate"], "expected NAME=VALUE"),
        (["--set", "calibrat=false"], "Did you mean calibrate?"),
        (["--set", "nothing-like-it=1"], "class_prior"),
        (["--set", "predict_views=many"], "predict_views"),
        (["--classifier", "slow"], "slow"),
    ],
)
def test_fit_with_a_parameter_that_is_none(tmp_path: Path, options: list[str], text: str) -> None:
    library = make_library(tmp_path)
    before = dump(library)
    assert text in fails(2, "fit", library, "--model", tmp_path / "m", *options)
    assert dump(library) == before
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("command", [["info"], ["report"], ["classify", "--model", "m"], ["fit", "--model", "m"]])
def test_library_of_a_newer_schema(tmp_path: Path, command: list[str]) -> None:
    library = make_library(tmp_path)
    with closing(sqlite3.connect(library)) as connection, connection:
        connection.execute("UPDATE tumble_schema_version SET version_num = '9999'")
    before = dump(library)
    message = fails(6, command[0], library, *command[1:])
    assert "newer" in message
    assert dump(library) == before


def test_missing_library(tmp_path: Path) -> None:
    assert "no such library" in fails(6, "info", tmp_path / "l.db")
    assert not (tmp_path / "l.db").exists()


def test_missing_model(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    assert "nowhere" in fails(7, "classify", library, "--model", tmp_path / "nowhere")


def test_damaged_model(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    before = dump(library)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{")
    (tmp_path / "m" / "weights.safetensors").write_bytes(b"\x00" * 4)
    assert str(tmp_path / "m") in fails(7, "classify", library, "--model", tmp_path / "m")
    assert dump(library) == before


def test_report_never_replaces_a_library(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    before = dump(library)
    assert ".html" in fails(2, "report", library, "--out", library)
    assert dump(library) == before


# --- the system fails ---------------------------------------------------------------------------------------


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = write_files(tmp_path)

    def full(self: Library, *arguments: object, file_hash: str | None = None) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "particles.db")

    monkeypatch.setattr(Library, "add_micrograph", full)
    message = fails(9, "extract", image, "--library", tmp_path / "particles.db")
    assert "disk is full: particles.db" in message
    with Library(tmp_path / "particles.db") as library:
        assert library.micrographs().empty


def test_bug_asks_for_a_report_and_shows_its_traceback_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = make_library(tmp_path)

    def broken(self: Library) -> dict[str, Any]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Library, "info", broken)
    assert "ZeroDivisionError: oops. This is a bug" in fails(1, "info", library)
    done = run("--debug", "info", library)
    assert done.exit_code == 1
    assert "Traceback" in done.stderr


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(process: subprocess.Popen[str]) -> str:
    """Send Ctrl-C, check how the process ends, and return what it still wrote to stderr."""
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "Interrupted; what was stored before is intact."
    return stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process alone")
def test_interrupted_extract_keeps_whole_micrographs(tmp_path: Path) -> None:
    library = make_library(tmp_path, labels=False)
    large = np.tile(make_image()[0], (6, 4))
    images = [tmp_path / f"{index}.tif" for index in range(30)]
    for index, image in enumerate(images):
        tifffile.imwrite(image, np.roll(large, index, axis=1))
    process = start("extract", *images, "--library", library)
    deadline = time.monotonic() + 120
    while n_micrographs(library) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    interrupt(process)
    with Library(library) as opened:
        micrographs = opened.micrographs()
        assert 2 <= len(micrographs) < 31
        counts = opened.particles()["micrograph_id"].value_counts()
        assert counts.sort_index().tolist() == micrographs["n_particles"].tolist()
        assert len(opened.crops(opened.particles(1).index.tolist())) == N


def n_micrographs(library: Path) -> int:
    with closing(sqlite3.connect(library)) as connection:
        return int(connection.execute("SELECT count(*) FROM micrographs").fetchone()[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process alone")
def test_interrupted_fit_leaves_no_trace(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    before, files = dump(library), sorted(tmp_path.iterdir())
    process = start("fit", library, "--model", tmp_path / "m", "--max-epochs", "100000")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Fitting, epoch"):
            break
    interrupt(process)
    assert dump(library) == before
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
def test_closed_pipe_is_no_error(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    process = start("info", library)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    stderr = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr
    assert "Error" not in stderr


def test_colours_are_left_out_on_request(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "info", str(tmp_path / "l.db")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 6
    assert "\x1b[31m" not in done.stderr
    assert "\x1b[1;31m" not in done.stderr
