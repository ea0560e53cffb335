"""The path that the README describes, in headless Chromium: extract, label, train, correct, export, report."""

from __future__ import annotations

import json

import pytest
from helpers_browser import needs_chromium

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
]


def test_the_path_of_the_readme_leads_to_a_report(tmp_path):
    pytest.importorskip("playwright")
    from benchmarks.first_use import main

    out, pictures = tmp_path / "first_use.json", tmp_path / "pictures"
    main(["--quick", "--out", str(out), "--pictures", str(pictures)])
    (row,) = json.loads(out.read_text())["rows"]
    assert row["exported"] == 1506
    assert "held-out labels" in row["held_out"]
    assert min(row["sheet_bytes"], row["report_bytes"]) > 10**6
    assert len(list(pictures.iterdir())) == 6
