"""The manifold and the confusion matrix as a person uses them, in headless Chromium."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_app import fill
from helpers_browser import Server, browser_page, needs_chromium, until

from tumble import SSRVAEClassifier
from tumble.library import Library
from tumble.pipeline import classify_library, fit_library

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
]
N = 60


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A server of a library that a small model has classified."""
    folder = tmp_path_factory.mktemp("explore")
    path = fill(folder / "p.db", n=N)
    with Library(path) as library:
        ids = library.particle_ids().tolist()
        library.add_labels(ids, ["disc", "bar"] * (N // 2), author="ann", source="test")
        estimator = SSRVAEClassifier(max_epochs=2, batch_size=32, labelled_batch_size=8, random_state=0)
        some = library.current_labels().iloc[:12]
        fit_library(library, folder / "p-models" / "model-1", name="model-1", estimator=estimator, labels=some)
        classify_library(library, folder / "p-models" / "model-1", model_name="model-1")
        table = library.particles(model="model-1")
    server = Server(path)
    yield server, table
    server.kill()


#: The pixels of the object that is drawn.
PIXELS = """
    (() => {
        const image = document.getElementById("one");
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const pen = canvas.getContext("2d");
        pen.drawImage(image, 0, 0);
        return [...pen.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 0);
    })()
"""


def drawn(page, part):
    until(page, f"document.getElementById('one').src.includes({part!r})")
    side = page.evaluate("document.getElementById('one').naturalWidth")
    return np.array(page.evaluate(PIXELS)).reshape(side, side)


def test_sliders_redraw_and_the_address_follows(classified):
    server, _ = classified
    with browser_page() as page:
        page.goto(f"{server.address}/explore/manifold?class=bar")
        until(page, "document.getElementById('one').naturalWidth > 0", 60)
        until(page, "document.getElementById('sheet').naturalWidth > 0")
        middle = drawn(page, "class=bar")
        angle = page.get_by_label("angle")
        for _ in range(90):
            angle.press("ArrowRight")
        np.testing.assert_allclose(drawn(page, "angle=90"), np.rot90(middle), atol=1)
        page.get_by_label("z1").press("End")
        assert (drawn(page, "z=4") != np.rot90(middle)).any()
        assert "z=4%2C0" in page.url
        assert "angle=90" in page.url
        page.click("#class-buttons button[data-name=disc]")
        other = drawn(page, "class=disc")
        assert (other != np.rot90(middle)).any()

        # The address alone brings everything back; so does a click on the sheet change it.
        page.reload()
        np.testing.assert_array_equal(drawn(page, "class=disc"), other)
        assert page.get_by_label("angle").input_value() == "90"
        box = page.locator("#sheet-box").bounding_box()
        page.mouse.click(box["x"] + 1.5 * box["width"] / 9, box["y"] + 0.5 * box["height"] / 9)
        assert page.get_by_label("z1").input_value() == "-2"
        assert page.get_by_label("z2").input_value() == "-1.5"
        drawn(page, "z=-2%2C-1.5")
        page.click("text=Back to the middle")
        until(page, "!location.search.includes('z=')")
        assert not page.complaints


def test_a_cell_opens_its_particles_in_the_gallery(classified):
    server, table = classified
    with browser_page() as page:
        for before, of in (("unseen", "labels"), ("labels", "unseen")):
            page.goto(f"{server.address}/explore/confusion?of={before}")
            page.select_option("select[name=of]", of)
            page.wait_for_url(f"**/explore/confusion?*of={of}*")
            known = table if of == "labels" else table.iloc[12:]
            links = page.locator(".matrix td[class^=shade] a")
            names = [(row, column) for row in ("bar", "disc") for column in ("bar", "disc")]
            cells = {
                name: set(known.index[(known["label"] == name[0]) & (known["predicted"] == name[1])]) for name in names
            }
            filled = [ids for ids in cells.values() if ids]
            assert links.count() == len(filled)
            for i, ids in enumerate(filled):
                links.nth(i).click()
                page.wait_for_selector(".crop")
                shown = {int(box.get_attribute("data-id")) for box in page.locator(".crop").all()}
                assert shown == ids
                page.go_back()
                page.wait_for_selector(".matrix")
        assert not page.complaints
