"""The folder of a model: complete or not there; what killed processes left is removed, what others fill is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tumble.pipeline.model_folder import new_folder

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX processes")

WRITER = """
    import sys, time
    from pathlib import Path
    from tumble.pipeline.model_folder import new_folder

    with new_folder(Path(sys.argv[1])) as partial:
        (partial / "weights.safetensors.part").write_text("half")
        print(partial, flush=True)
        time.sleep(600)
"""


def start_writer(folder):
    """Start a process that has made half a model, and return it with the hidden folder that it fills."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return process, process.stdout.readline().strip()


def write_model(folder):
    with new_folder(folder) as partial:
        for name in ("config.json", "weights.safetensors"):
            (partial / name).write_text("whole")


def hidden(folder):
    return sorted(str(entry) for entry in folder.glob(".model-*"))


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_fills_is_not(tmp_path):
    living, its_folder = start_writer(tmp_path / "model")
    killed, left = start_writer(tmp_path / "model")
    try:
        killed.kill()
        killed.communicate()
        assert hidden(tmp_path) == sorted([left, its_folder])
        write_model(tmp_path / "model")
        assert hidden(tmp_path) == [its_folder]
        assert (tmp_path / "model" / "config.json").read_text() == "whole"
    finally:
        living.kill()
        living.communicate()


def test_other_hidden_things_of_that_name_are_left_alone(tmp_path):
    notes, other = tmp_path / ".model-thesis12", tmp_path / ".model-notes"
    for folder in (notes, other):
        folder.mkdir()
    (notes / "chapter.txt").write_text("years of work")
    write_model(tmp_path / "model")
    assert hidden(tmp_path) == sorted(map(str, (notes, other)))
    assert (notes / "chapter.txt").read_text() == "years of work"
