"""The page as a browser shows it: where Chromium is, a server to look at, and a page that keeps its complaints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium; .ci/run installs it from Debian's packages"
)
#: How long to wait for what must come: other programs may use the processors, too.
PATIENCE_S = 120


class Server:
    """`tumble app` in a process of its own, as a user starts it."""

    def __init__(self, path):
        command = [sys.executable, "-m", "tumble", "app", str(path), "--port", "0", "--no-browser", "--author", "ann"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            found = re.search(r"http://[\d.:]+/", line)
            if found:
                self.address = found[0].rstrip("/")
                return
        raise AssertionError(seen)

    def kill(self):
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


#: What Chromium says of a server that a test has killed.
GONE = re.compile("net::ERR_(CONNECTION|EMPTY|INCOMPLETE|SOCKET)")


def complains(said):
    return said.type == "error" and not GONE.search(said.text)


@contextmanager
def browser_page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(1000 * PATIENCE_S)
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda said: page.complaints.append(said.text) if complains(said) else None)
        try:
            yield page
        finally:
            browser.close()


def until(page, condition, seconds=PATIENCE_S):
    """Wait for a condition in the page; Playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"{condition} after {seconds} s; the page says {page.text_content('main')}"
        time.sleep(0.05)
