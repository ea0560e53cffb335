"""The path of the README, "Label and explore in the browser", as someone new takes it, with a clock beside.

Runs the commands of the README on the bundled micrograph and drives the page in Chromium by mouse and keyboard: name
four classes, label particles one after the other in the order in which the page shows them, train with the settings
that are there, correct what the model suggests, export, report. The labels are the reference's own, and each takes
--pace seconds, as it would take a person who looks at the crop; what has no reference is skipped. Each step is
photographed into --pictures. Nothing is known to the driver that the page or the README does not say.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.app_pages import launch, server
from benchmarks.common import Record, Row, arguments, parse, with_options
from tumble.datasets import load_nanogold
from tumble.library import Library, labels_from_mask

PATIENCE_S = 300


class Clock:
    """Seconds of each step, and a picture after it."""

    def __init__(self, pictures: Path | None) -> None:
        self.began = self.last = time.perf_counter()
        self.steps: dict[str, float] = {}
        self.pictures = pictures

    def step(self, name: str, page: Any = None) -> None:
        """End a step."""
        now = time.perf_counter()
        self.steps[name], self.last = now - self.last, now
        print(f"{now - self.began:6.1f} s: {name}", flush=True)
        if page is not None and self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=self.pictures / f"{len(self.steps):02d}-{re.sub(r'[^a-z]+', '-', name)}.png")
            self.last = time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds of all steps, without those of taking pictures."""
        return sum(self.steps.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Take the path once, and print how long each step took."""
    parser = arguments("first_use", __doc__, seeds=1)
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds per label (default: %(default)s)")
    parser.add_argument("--labels", type=int, default=60, help="particles to label before training")
    parser.add_argument("--corrections", type=int, default=10, help="particles to label after it")
    options = parse(parser, argv)
    record = Record(options.out, options.since)
    pace, n_labels, n_corrections = options.pace, options.labels, options.corrections
    if options.quick:
        pace, n_labels, n_corrections = 0.0, 24, 2
    case = with_options({"what": "path of the README", "labels": n_labels, "pace_s": pace}, options)

    def work() -> Row:
        with TemporaryDirectory() as folder:
            return take(Path(folder), Clock(options.pictures), pace, n_labels, n_corrections, quick=options.quick)

    record.measure(case, work)


def take(folder: Path, clock: Clock, pace: float, n_labels: int, n_corrections: int, *, quick: bool) -> Row:
    """Go the whole way; gives the seconds of each step, and what came out."""
    from playwright.sync_api import sync_playwright

    library = folder / "gold.db"
    run("extract", load_nanogold().filename, "--library", library)
    clock.step("extract")
    known = reference(library)
    with server(library) as address, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, accept_downloads=True)
        page.set_default_timeout(1000 * PATIENCE_S)
        page.goto(address)
        page.wait_for_selector("#gallery .crop")
        clock.step("open the page", page)
        classes = sorted(set(known.values()))
        for name in classes:
            page.fill("#new-class input[name=name]", name)
            page.press("#new-class input[name=name]", "Enter")
            page.wait_for_selector(f"#classes li:has-text('{name}')")
        clock.step("name the classes", page)
        label(page, known, n_labels, pace)
        clock.step("label", page)
        accuracy = train(page, epochs=2 if quick else None)
        clock.step("train", page)
        page.click("nav a[href='/label']")
        page.wait_for_selector("#gallery .crop")
        label(page, known, n_corrections, pace)
        clock.step("correct", page)
        table, sheet = export(page, folder)
        clock.step("export", page)
        browser.close()
    run("report", library, "--out", folder / "gold.html")
    clock.step("report")
    with table.open(newline="") as file:
        n_exported = sum(1 for _ in csv.DictReader(file))
    sizes = {"sheet_bytes": sheet.stat().st_size, "report_bytes": (folder / "gold.html").stat().st_size}
    shown = {name: round(seconds, 1) for name, seconds in clock.steps.items()}
    found = {"seconds": clock.total, "steps_s": shown, "held_out": accuracy, "exported": n_exported, **sizes}
    return {**found, "within_five_minutes": clock.total <= 300}


def run(*words: object) -> None:
    """Run a command of tumble."""
    subprocess.run([sys.executable, "-m", "tumble", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def reference(library: Path) -> dict[int, str]:
    """Classes of the particles by the labels that come with the micrograph."""
    gold = load_nanogold()
    with Library(library) as opened:
        (micrograph,) = opened.micrographs().index.tolist()
        masks = opened.particle_masks(micrograph)
    return labels_from_mask(masks, gold.labels, dict(enumerate(gold.classes, 1)))


def label(page: Any, known: dict[int, str], n: int, pace: float) -> None:
    """Label the particles with the orange frame, one after the other, by key."""
    keys = {shown: str(i + 1) for i, shown in enumerate(page_classes(page))}
    page.focus("#gallery")
    given = 0
    while given < n:
        time.sleep(pace)
        particle = focus(page)
        name = known.get(particle or 0)
        page.keyboard.press(keys[name] if name else " ")
        given += name is not None
        if given < n:  # the next one has the frame, on another page perhaps
            wait(lambda before=particle: focus(page) != before, page)
    # Keys come faster here than a person's: the page is left when the last label is stored.
    wait(lambda: page.get_attribute("body", "data-saved") != "no", page)


def focus(page: Any) -> int | None:
    """Give the particle with the orange frame, None while there is none."""
    framed = page.locator("#gallery .crop.focus")
    return int(framed.get_attribute("data-id")) if framed.count() else None


def page_classes(page: Any) -> list[str]:
    """Names of the classes in the order of their keys, as the page shows them."""
    return page.eval_on_selector_all("#classes .give", "buttons => buttons.map((button) => button.dataset.name)")


def train(page: Any, epochs: int | None) -> str:
    """Train with the settings that are there; gives what the page says at the end."""
    page.click("nav a[href='/train']")
    if epochs is not None:
        page.fill("input[name=max_epochs]", str(epochs))
    page.click("#start-button")
    wait(lambda: (page.text_content("#run-title") or "").startswith("Done"), page)
    return " ".join((page.text_content("#run-result") or "").split())


def wait(done: Callable[[], bool], page: Any) -> None:
    """Wait until something has come about."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{page.url}: nothing has changed for {PATIENCE_S} s")
        time.sleep(0.02)


def export(page: Any, folder: Path) -> tuple[Path, Path]:
    """Take the labels and a contact sheet out of the gallery."""
    found = []
    for link, name in (("/export/labels.csv", "labels.csv"), ("/export/sheet.html", "sheet.html")):
        page.click("#exports summary")
        with page.expect_download() as download:
            page.click(f"#exports a[href^='{link}']")
        download.value.save_as(folder / name)
        found.append(folder / name)
        if page.locator("#exports[open]").count():
            page.click("#exports summary")
    return found[0], found[1]


if __name__ == "__main__":
    main()
