"""Damaged files of every format: one clear error or an image, in a process of limited memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rsciio")
pytest.importorskip("zarr")
pytest.importorskip("resource")

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="the program is in the source tree")
def test_damaged_files_of_every_format_give_one_error_or_an_image():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.damaged_images", "--files", "480", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    counts = json.loads(done.stdout)
    assert len(counts) == 16
    assert [failure for count in counts.values() for failure in count["failures"]] == []
    # The damage is real: without it all files would be read as they were written.
    assert all(count["error"] >= 3 for count in counts.values())
    assert sum(count["error"] for count in counts.values()) > 200
