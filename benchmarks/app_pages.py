"""How long a page of `tumble app` takes in Chromium, with a library of 100,000 particles.

The library is made up as in `library_growth`, with crops of 48 x 48 px, labels of 1 in 500 particles and the
predictions of two models. The server runs in a process of its own, as a user starts it, and the browser beside it on
the same cores. Each visit has a browser without a cache; the first one comes as soon as the server says that it is
ready, "again" is the second. *First paint* is Chromium's first-contentful-paint, *all crops* when the last image of the
gallery has been drawn. The next page is timed from the click to the last of its images: after a pause of a second, in
which a person looks at the page, and at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import library_growth
from benchmarks.common import Record, Row, arguments, parse, with_options

#: What is asked for: of each page, the address and what it is called.
PAGES = {
    "gallery, useful next": "/label",
    "gallery, least sure": "/label?sort=uncertain",
    "gallery, in order of finding": "/label?sort=id",
    "gallery, one class, largest": "/label?class=dimer&sort=large",
    "gallery, with label": "/label?show=labelled",
    "train": "/train",
}
SIDE_PX = 48
MARKS_MS = {"first_paint_ms": 1000.0, "next_page_ms": 200.0}
#: When the images of the gallery are there; one that is still to come has no width.
DRAWN = """() => new Promise((done) => {
    const look = () => {
        const images = [...document.querySelectorAll("#gallery img")];
        const drawn = images.every((image) => image.complete && image.naturalWidth);
        if (drawn) requestAnimationFrame(() => done(performance.now()));
        else setTimeout(look, 2);
    };
    look();
})"""
NEXT = """() => new Promise((done) => {
    const gallery = document.getElementById("gallery");
    const first = gallery.firstElementChild.id;
    const began = performance.now();
    document.getElementById("next").click();
    const look = () => {
        const images = [...gallery.querySelectorAll("img")];
        const turned = gallery.firstElementChild?.id !== first;
        if (turned && images.every((image) => image.complete && image.naturalWidth)) {
            requestAnimationFrame(() => done(performance.now() - began));
        } else setTimeout(look, 2);
    };
    look();
})"""


def main(argv: Sequence[str] | None = None) -> None:
    """Make the library, open each page several times, and print the table."""
    parser = arguments("app_pages", __doc__, seeds=7)
    parser.add_argument("--library", type=Path, help="made, or used where it is there (default: a temporary one)")
    parser.add_argument("--size", type=int, default=100_000, help="particles (default: %(default)s)")
    options = parse(parser, argv)
    size = 2000 if options.quick else options.size
    record = Record(options.out, options.since)
    with TemporaryDirectory() as folder:
        path = options.library or Path(folder) / "library.db"
        library_growth.SIDE_PX = SIDE_PX
        library_growth.grow(path, size)
        for name, address in PAGES.items():
            case = {"what": "page", "page": name, "address": address, "particles": size}
            visits = 2 if options.quick else options.seeds
            record.measure(with_options(case, options), lambda a=address, n=visits, p=path: page(p, a, n))
    for value in ("first_paint_ms", "all_crops_ms", "next_page_ms", "next_page_at_once_ms"):
        print("\n" + record.table(["page", "particles"], value, less_is_better=True))


def page(library: Path, address: str, visits: int) -> Row:
    """Open one page several times, each time with a server that has just been started."""
    from playwright.sync_api import sync_playwright

    seen: list[dict[str, float]] = []
    with sync_playwright() as playwright:
        for _ in range(visits):
            with server(library) as url:
                first = visit(playwright, url + address)
                again = visit(playwright, url + address)
            seen.append({**first, "first_paint_again_ms": again["first_paint_ms"]})
    row: Row = {}
    for name in seen[0]:
        values = [one[name] for one in seen]
        row |= {name: float(np.median(values)), f"{name.removesuffix('_ms')}_worst_ms": max(values)}
    row["other_load"] = f"{os.getloadavg()[0]:.1f} processes ready on {os.cpu_count()} cores in the last minute"
    row |= {f"{name}_met": row[name] <= mark for name, mark in MARKS_MS.items() if name in row}
    return row


def visit(playwright: Any, address: str) -> dict[str, float]:
    """Open an address in a browser that has nothing in its cache, and turn two pages where there are any."""
    browser = launch(playwright)
    try:
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto("about:blank")
        tab.goto(address)
        found = {"answer_ms": float(tab.evaluate("performance.getEntriesByType('navigation')[0].responseStart"))}
        found["first_paint_ms"] = _when(lambda: _first_paint(tab))
        if tab.locator("#gallery .crop").count():
            found["all_crops_ms"] = float(tab.evaluate(DRAWN))
            if tab.locator("#next").is_enabled():
                found["next_page_at_once_ms"] = float(tab.evaluate(NEXT))
            time.sleep(1.0)
            if tab.locator("#next").is_enabled():
                found["next_page_ms"] = float(tab.evaluate(NEXT))
        return found
    finally:
        browser.close()


def launch(playwright: Any) -> Any:
    """Start the system's Chromium, or where there is none that of Playwright."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])


def _first_paint(tab: Any) -> float | None:
    entries = tab.evaluate("performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)")
    return float(entries[0]) if entries else None


def _when(value: Callable[[], float | None], seconds: float = 30) -> float:
    end = time.monotonic() + seconds
    while (found := value()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"nothing was painted in {seconds:g} s")
        time.sleep(0.01)
    return found


@contextmanager
def server(library: Path) -> Iterator[str]:
    """Start `tumble app`; gives its address."""
    command = [sys.executable, "-m", "tumble", "app", str(library), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                words = [word for word in line.split() if word.startswith("http://")]
                if words:
                    yield words[0].rstrip("/")
                    break
            else:
                raise RuntimeError("the server did not start")
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
