"""Make the pictures of the page in ``docs/images``: ``python docs/make_screenshots.py [DEMO]``.

Opens the library of `tumble demo` (made first where the folder DEMO has none, `tumble-demo` by default) in headless
Chromium, 1280 px wide, and photographs each view. So that each view has something to show, a copy of the library gets a
second model and a second person's labels. Needs the extra `test` and Chromium; the documentation is not built by this.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tumble import SSRVAEClassifier
from tumble.library import Library
from tumble.pipeline import classify_library, fit_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1280, 800
MOST_BYTES = 250_000
#: For a page on a machine that does other things, too.
PATIENCE_S = 180
#: Name of the picture -> address, and what is done before it is taken. MODEL is the model of the demo.
VIEWS: dict[str, tuple[str, Callable[[Page], None] | None]] = {
    "app-label": ("/label?sort=uncertain&model=MODEL", None),
    "app-zoom": ("/label?sort=uncertain&model=MODEL", lambda page: _zoom(page)),
    "app-train": ("/train", lambda page: _train(page)),
    "app-scatter": ("/explore/scatter?model=MODEL", None),
    "app-manifold": ("/explore/manifold?model=MODEL", None),
    "app-sizes": ("/explore/sizes?model=MODEL", None),
    "app-micrograph": ("/explore/micrograph?model=MODEL", lambda page: _closer(page)),
    "app-confusion": ("/explore/confusion?model=MODEL", None),
    "app-compare": ("/explore/compare", None),
    "app-agreement": ("/explore/agreement", None),
}
DARK = ("app-label",)


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, nargs="?", default=Path("tumble-demo"), help="folder of `tumble demo`")
    parser.add_argument("--only", nargs="+", choices=VIEWS, default=list(VIEWS), help="these pictures alone")
    parser.add_argument("--out", type=Path, default=IMAGES, help="where to put them (default: docs/images)")
    options = parser.parse_args()
    if not (options.demo / "library.db").exists():
        subprocess.run([sys.executable, "-m", "tumble", "demo", "--out", str(options.demo)], check=True)
    with TemporaryDirectory() as folder:
        library, model = prepared(options.demo, Path(folder))
        with served(library) as address, sync_playwright() as playwright:
            executable = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            for name in options.only:
                take(browser, address, name, model, options.out, dark=False)
                if name in DARK:
                    take(browser, address, name, model, options.out, dark=True)
            browser.close()


def prepared(demo: Path, folder: Path) -> tuple[Path, str]:
    """Copy the library of the demo, and add another model and another person's labels; gives the first model's name."""
    path = folder / "gold.db"
    shutil.copy(demo / "library.db", path)
    shutil.copytree(demo / "model", folder / "model")
    with Library(path) as library:
        labels = library.current_labels()
        rng = np.random.default_rng(0)
        ids = rng.choice(labels.index.to_numpy(), min(60, len(labels)), replace=False)
        names = labels.unique()
        # Someone who mostly agrees, as people do.
        given = [rng.choice(names) if rng.random() < 0.12 else labels[i] for i in ids]
        library.add_labels(ids.tolist(), given, author="bob", source="screenshots")
        if len(library.models()) < 2:
            fit_library(library, folder / "shorter", estimator=SSRVAEClassifier(max_epochs=25, random_state=1))
            classify_library(library, folder / "shorter")
        return path, str(library.models()["name"].iloc[0])


@contextmanager
def served(library: Path) -> Iterator[str]:
    """Start `tumble app`; gives its address."""
    command = [sys.executable, "-m", "tumble", "app", str(library), "--port", "0", "--no-browser", "--author", "ann"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            words = (word for line in process.stdout for word in line.split() if word.startswith("http://"))
            yield next(words).rstrip("/")
        finally:
            process.terminate()


def take(browser: Any, address: str, name: str, model: str, out: Path, *, dark: bool) -> None:
    """Take one picture, and store it with as many colours as fit into the size that a picture may have."""
    path, before = VIEWS[name]
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    page.set_default_timeout(1000 * PATIENCE_S)
    page.goto(address + path.replace("MODEL", model), wait_until="load")
    page.wait_for_load_state("networkidle")
    time.sleep(1.0)  # plots are drawn after they are loaded
    if before is not None:
        before(page)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    target = out / f"{name}{'-dark' if dark else ''}.png"
    # By coverage: a median cut leaves out colours of few pixels, such as that of a rare class in a legend.
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        reduced(image, colours).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    target.write_bytes(buffer.getvalue())
    sys.stdout.write(f"{target}: {buffer.tell() / 1000:.0f} kB, {colours} colours\n")


def reduced(image: Image.Image, colours: int) -> Image.Image:
    """Reduce the colours of an image, but keep its most frequent ones, grounds and frames, as they are."""
    indexed = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette = np.array(indexed.getpalette(), dtype=np.uint8).reshape(-1, 3)
    pixels, places = np.asarray(image).reshape(-1, 3), np.asarray(indexed).ravel()
    frequent, counts = np.unique(pixels, axis=0, return_counts=True)
    for colour in frequent[np.argsort(counts)][-12:]:
        here = places[(pixels == colour).all(axis=1)]
        palette[np.bincount(here).argmax()] = colour
    indexed.putpalette(palette.ravel().tolist())
    return indexed


def _zoom(page: Page) -> None:
    page.keyboard.press("z")
    page.wait_for_selector("#zoom-history li")
    page.wait_for_load_state("networkidle")
    time.sleep(0.5)


def _closer(page: Page) -> None:
    for _ in range(4):
        page.keyboard.press("+")
    time.sleep(1.5)


def _train(page: Page) -> None:
    """Train for a while, so that there are curves."""
    page.fill("input[name=max_epochs]", "40")
    page.click("#start-button")
    end = time.monotonic() + 5 * PATIENCE_S
    while not (page.text_content("#run-title") or "").startswith("Done"):
        if time.monotonic() > end:
            raise TimeoutError(f"the training does not end: {page.text_content('#run-title')}")
        time.sleep(0.5)
    page.mouse.move(0, 0)


if __name__ == "__main__":
    main()
