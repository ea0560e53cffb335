"""Kill the steps of the pipeline at random moments: no label is lost, no micrograph half there, nothing double.

Each trial starts one step (extract, label, fit, classify) in a process of its own, kills it (SIGKILL) after a random
time within what the step takes undisturbed, and looks at the library; then the step is run again to its end, and the
library must hold exactly what it would have held without the kill. `python -m benchmarks.faults_kill --kills 200`.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import traceback
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
import torch

from benchmarks import common
from tumble import SSRVAEClassifier
from tumble.errors import LibraryError
from tumble.library import Library
from tumble.pipeline import ExtractionOptions, classify_library, extract_files, fit_library

STEPS = ("extract", "label", "fit", "classify")
IMAGES = 6
PER_IMAGE = 40
LABELS = 30


def work(step: str, folder: Path) -> None:
    """Do a step as a user's process would, saying what is done."""
    path = folder / "library.db"
    if step == "extract":
        extract_files(path, sorted(folder.glob("image-*.tif")), options=ExtractionOptions(crop_size=24))
        return
    with Library(path) as library:
        if step == "label":
            have = set(library.label_history()["particle_id"])
            for particle in [i for i in range(1, LABELS + 1) if i not in have]:
                library.add_labels([particle], [("disc", "pair")[particle % 2]], author="ann", source="test")
                os.write(1, b"%d\n" % particle)  # told: this label is stored
        elif step == "fit" and not (folder / "model").exists():
            model = SSRVAEClassifier(max_epochs=1, hidden=8, random_state=0, device="cpu")
            fit_library(library, folder / "model", estimator=model)
        elif step == "classify":
            classify_library(library, folder / "model")


def make_images(folder: Path) -> None:
    """Write micrographs of discs on a grid, each its own."""
    rows, columns = np.mgrid[:120, :192]
    for k in range(IMAGES):
        rng = np.random.default_rng(k)
        image = np.full(rows.shape, 40.0) + rng.normal(0, 3, rows.shape)
        for index in range(PER_IMAGE):
            row, column = 24 * (np.array(divmod(index, 8)) + 0.5) + rng.uniform(-1, 1, 2)
            image[(rows - row) ** 2 + (columns - column) ** 2 <= 9 + 12 * (index % 2)] = 180
        tifffile.imwrite(folder / f"image-{k}.tif", np.clip(np.rint(image), 0, 255).astype(np.uint8))


def run(step: str, folder: Path, kill_after_s: float | None = None) -> tuple[list[str], float, bool]:
    """Run a step in a process of its own; return what it said, how long it took, and whether it was killed."""
    begun = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()  # a copy of this process, which has imported everything and opened nothing
    if child == 0:
        code = 1
        try:
            os.dup2(writing, 1)
            torch.set_num_threads(1)
            work(step, folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    while kill_after_s is not None and time.monotonic() - begun < kill_after_s:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.001)
    if kill_after_s is not None:
        os.kill(child, signal.SIGKILL)  # no error if it has ended but was not waited for
    with os.fdopen(reading) as pipe:
        said = pipe.read().split("\n")[:-1]  # a last line without an end was cut off
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{step} ended with status {code}")
    return said, time.monotonic() - begun, code != 0


def check(step: str, folder: Path, said: list[str]) -> None:
    """Look for anything lost, half-done or double; raise AssertionError if there is."""
    path = folder / "library.db"
    if not path.exists() or path.stat().st_size == 0:
        assert step == "extract"
        return
    try:
        Library(path).close()
    except LibraryError:  # killed before it had made the tables: as good as no library
        assert step == "extract", "the library cannot be opened"
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        connection.close()
        return
    with Library(path) as library:  # as any reader would, with whatever the killed process left
        found = library.micrographs()
        history = library.label_history()
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        images = connection.execute("SELECT count(*) FROM particle_images").fetchone()[0]
    finally:
        connection.close()
    assert (found["n_particles"] == PER_IMAGE).all(), "half a micrograph"
    assert images == PER_IMAGE * len(found)
    assert found["content_hash"].is_unique
    if step == "label":
        assert set(map(int, said)) <= set(history["particle_id"]), "a label that was confirmed is lost"
    else:
        assert len(history) in (0, LABELS), "labels changed"
    assert not history["particle_id"].duplicated().any()


def check_complete(step: str, folder: Path) -> None:
    """Compare with what the step leaves undisturbed."""
    with Library(folder / "library.db") as library:
        info, models = library.info(), library.models()
    assert (info["micrographs"], info["particles"]) == (IMAGES, IMAGES * PER_IMAGE)
    done = STEPS.index(step)
    assert info["labelled"] == (LABELS if done >= 1 else 0)
    assert models["name"].tolist() in ([[], ["model"]] if done == 2 else [["model"]] if done > 2 else [[]])
    assert info["predictions"] == (IMAGES * PER_IMAGE if done == 3 else 0)
    assert (folder / "model" / "weights.safetensors").exists() == (done >= 2)
    assert not list(folder.glob(".model-*")), "a killed fit left its folder"


def prepare(folder: Path, steps: tuple[str, ...]) -> None:
    """Make the state before a step."""
    make_images(folder)
    for step in steps:
        run(step, folder)


def trial(step: str, template: Path, seconds: float, seed: int) -> dict[str, object]:
    """Kill a step once at a random moment, look, run it again, look again."""
    moment = float(np.random.default_rng(seed).uniform(0, seconds))
    with TemporaryDirectory() as name:
        folder = Path(name)
        for source in template.rglob("*"):
            target = folder / source.relative_to(template)
            if source.is_dir():
                target.mkdir()
            else:
                target.write_bytes(source.read_bytes())
        said, _, killed = run(step, folder, moment)
        check(step, folder, said)
        again, _, _ = run(step, folder)
        check(step, folder, [*said, *again])
        check_complete(step, folder)
    return {"killed": killed, "moment_s": moment, "intact": True}


def main(argv: list[str] | None = None) -> None:
    """Kill as often as asked for, in turns over the steps."""
    parser = common.arguments("faults_kill", __doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="which (default: all)")
    options = common.parse(parser, argv)
    record = common.Record(options.out, since=options.since)
    torch.set_num_threads(1)
    kills = min(options.kills, 10) if options.quick else options.kills
    for number, step in enumerate(STEPS):
        if step not in options.steps:
            continue
        seeds = range(number, kills, len(STEPS))
        cases = [common.with_options({"step": step, "seed": seed}, options, uses_settings=False) for seed in seeds]
        if all(record.has(case) for case in cases):
            continue
        with TemporaryDirectory() as name:
            template = Path(name)
            prepare(template, STEPS[:number])
            with TemporaryDirectory() as other:
                prepare(Path(other), STEPS[:number])
                seconds = run(step, Path(other))[1]
            for case in cases:
                record.measure(case, partial(trial, step, template, seconds, case["seed"]))
    killed = sum(bool(row["killed"]) for row in record.rows)
    print(f"{killed} of {len(record.rows)} processes were killed before their end; all libraries were intact.")


if __name__ == "__main__":
    main()
