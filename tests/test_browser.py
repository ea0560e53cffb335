"""The report in a real browser: it must show itself without a network and without complaint."""

import re
import subprocess

import matplotlib.image
import numpy as np
from helpers_browser import CHROMIUM, needs_chromium
from helpers_report import fill_library

from tumble.library import Library
from tumble.report import write_report

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
]


@needs_chromium
def test_the_report_is_drawn_by_a_browser(tmp_path):
    assert CHROMIUM is not None
    page, picture = tmp_path / "report.html", tmp_path / "page.png"
    with Library(tmp_path / "library.db", create=True) as library:
        fill_library(library, classes=("disc", "ring"), model=True, evaluated=True)
        write_report(library, page)
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1200,3000",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints
    drawn = matplotlib.image.imread(picture)[..., :3]
    # A page whose images did not load would be nearly all white.
    assert np.mean(drawn.min(axis=2) < 0.9) > 0.1
    assert len(re.findall(r'<img[^>]+src="data:image/', page.read_text(encoding="utf-8"))) >= 5
