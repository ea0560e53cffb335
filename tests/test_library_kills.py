"""Processes that are killed, or that work at the same time, on one library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers_library import make_micrograph, make_particles

from tumble.library import Library

ROOT = Path(__file__).parents[1]


def environment():
    search_path = [str(Path(__file__).parent), str(ROOT), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search_path), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGKILL"), reason="needs POSIX processes")
@pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="the harness is in the source tree")
def test_killed_steps_lose_nothing_and_go_on(tmp_path):
    """The harness itself fails where a label is lost, a micrograph is half there, or something is double."""
    out = tmp_path / "kills.json"
    command = [sys.executable, "-m", "benchmarks.faults_kill", "--kills", "8", "--steps", "extract", "label"]
    done = subprocess.run([*command, "--out", str(out)], env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["step"] for row in rows] == ["extract"] * 2 + ["label"] * 2
    assert all(row["intact"] for row in rows)
    assert any(row["killed"] for row in rows)


LABELLER = """
    import sys
    from tumble.library import Library

    with Library(sys.argv[1]) as library:
        for i in range(40):
            library.add_labels([1 + i % 5], [f"{sys.argv[2]}{i}"], author=sys.argv[2], source="test")
"""

EXTRACTOR = """
    import sys
    from helpers_library import make_micrograph, make_particles
    from tumble.library import Library

    with Library(sys.argv[1]) as library:
        for i in range(1, 9):
            library.add_micrograph(make_micrograph(i), make_particles(600, seed=i))
"""


def test_two_label_while_one_extracts(tmp_path):
    path = tmp_path / "particles.db"
    with Library(path, create=True) as library:
        library.add_micrograph(make_micrograph(0), make_particles(5))
    jobs = [(LABELLER, "ann"), (LABELLER, "bob"), (EXTRACTOR, "carl")]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path), name], env=environment(), stderr=subprocess.PIPE
        )
        for code, name in jobs
    ]
    assert [(process.communicate(timeout=300)[1], process.returncode) for process in running] == [(b"", 0)] * 3
    with Library(path) as library:
        history = library.label_history()
        assert library.micrographs()["n_particles"].tolist() == [5] + [600] * 8
    assert len(history) == 80
    for name in ("ann", "bob"):
        own = history.loc[history["author"] == name]
        assert own["label"].tolist() == [f"{name}{i}" for i in range(40)]
        assert own["action_id"].is_unique
