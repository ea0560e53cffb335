"""The views of Explore as a person uses them, in headless Chromium: select, open, point, share the link."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from helpers_app import fill
from helpers_browser import Server, browser_page, needs_chromium, until
from helpers_library import make_predictions, make_record

from tumble.library import Library

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
]


@pytest.fixture
def server(tmp_path):
    """A library whose particles 1 to 20 lie at the left of the latent space, the others at the right."""
    pytest.importorskip("bokeh")
    path = fill(tmp_path / "p.db", n=70)
    with Library(path) as library:
        said = make_predictions(70)
        latent = np.random.default_rng(0).uniform(-0.5, 0.5, (70, 2)).astype(np.float32)
        latent[:, 0] += np.where(np.arange(70) < 20, -3, 3)
        library.add_model(make_record("first"))
        library.add_predictions("first", library.particle_ids(), dataclasses.replace(said, latent=latent))
    running = Server(path)
    yield running
    running.kill()


def ready(page):
    until(page, "document.body && document.body.dataset.ready === 'yes'")


def drag(page, selector, places):
    """Draw a line through places that are given as parts of an element."""
    box = page.locator(selector).bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


LEFT_HALF = [(0.08, 0.02), (0.5, 0.02), (0.5, 0.9), (0.08, 0.9), (0.08, 0.05)]
RANGE = "[...['start', 'end'].map((end) => Bokeh.documents[0].get_model_by_name('plot').x_range[end])]"
IS_OPEN = "document.getElementById('open').href"


@pytest.mark.parametrize("tool", ["lasso", "box"])
def test_what_is_drawn_around_opens_in_the_gallery(server, tool):
    with browser_page() as page:
        page.goto(f"{server.address}/explore/scatter")
        ready(page)
        page.click(f"[data-tool={tool}]")
        drag(page, "#plot", LEFT_HALF if tool == "lasso" else [LEFT_HALF[0], LEFT_HALF[2]])
        until(page, IS_OPEN)
        assert page.text_content("#chosen") == "20 selected"
        shared = page.evaluate("location.href")
        page.click("#open")
        page.wait_for_selector(".crop")
        shown = [int(box.get_attribute("data-id")) for box in page.locator(".crop").all()]
        assert shown == list(range(1, 21))

        # The link shows the same selection to another person, and clearing it is in the address as well.
        page.goto(shared)
        ready(page)
        until(page, IS_OPEN)
        assert page.text_content("#chosen") == "20 selected"
        page.keyboard.press("Escape")
        until(page, "!location.search.includes('selected')")
        assert not page.complaints  # nor did the policy of the page refuse anything


def test_the_crop_of_a_point_is_shown_and_the_view_is_kept(server):
    with browser_page() as page:
        page.goto(f"{server.address}/explore/scatter?colour=probability")
        ready(page)
        box = page.locator("#plot").bounding_box()
        place = "(() => { const plot = Bokeh.documents[0].get_model_by_name('particles').data;"
        x, y = page.evaluate(
            place + " const view = Bokeh.index.roots ? Bokeh.index.roots[0] : Object.values(Bokeh.index)[0];"
            " return [view.frame.x_scale.compute(plot.x[0]), view.frame.y_scale.compute(plot.y[0])]; })()"
        )
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
        until(page, "!document.getElementById('hover').hidden")
        until(page, "document.querySelector('#hover img').naturalWidth > 0")
        assert re.match(r"Particle \d+LabelnoneModel says(rod|sphere|cube), \d+%Diameter", page.text_content("#hover"))
        page.mouse.wheel(0, -400)
        until(page, "location.search.includes('at=')")
        kept = page.evaluate(RANGE)
        page.reload()
        ready(page)
        again = page.evaluate(RANGE)
        np.testing.assert_allclose(kept, again, rtol=1e-3)
        href = page.get_attribute(".exports a", "href")
        page.keyboard.press("0")
        until(page, "!location.search.includes('at=')")
        assert "at=" in href
        assert "at=" not in page.get_attribute(".exports a", "href")
        assert not page.complaints


def test_a_click_in_the_micrograph_opens_the_particle(server):
    with browser_page() as page:
        page.goto(f"{server.address}/explore/micrograph")
        ready(page)
        # Particle 14 is the fourth of the second row; the image is 200 x 160 px and fills the height.
        box = page.locator("#canvas").bounding_box()
        scale = min(box["width"] / 200, box["height"] / 160)
        left = (box["width"] - 200 * scale) / 2
        x, y = box["x"] + left + scale * (62 + 9.5), box["y"] + scale * (22 + 6.5)
        page.mouse.click(x, y)
        page.wait_for_selector("#open")
        assert page.text_content("#one-title") == "Particle 14"
        until(page, "location.search.includes('particle=14')")
        page.keyboard.press("n")
        until(page, "document.getElementById('one-title').textContent === 'Particle 15'")
        page.keyboard.press("p")
        page.mouse.wheel(0, -300)
        until(page, "location.search.includes('at=')")
        page.reload()
        ready(page)
        page.wait_for_selector("#open")
        assert page.text_content("#one-title") == "Particle 14"
        page.click("#open")
        page.wait_for_selector(".crop")
        assert [box.get_attribute("data-id") for box in page.locator(".crop").all()] == ["14"]

        # From there back to where it lies.
        page.keyboard.press("z")
        page.click("#zoom-explore")
        page.wait_for_url("**/explore/micrograph*")
        ready(page)
        page.wait_for_selector("#open")
        assert page.text_content("#one-title") == "Particle 14"
        assert not page.complaints


def test_a_bar_opens_its_particles(server):
    with browser_page() as page:
        page.goto(f"{server.address}/explore/sizes?width=1")
        page.fill("input[name=width]", "2")
        page.press("input[name=width]", "Tab")
        page.wait_for_url("**width=2")
        bar = page.locator(".histogram a").first
        said = bar.get_attribute("aria-label")
        bar.locator("rect").first.click()
        page.wait_for_selector(".crop")
        assert page.locator(".crop").count() == int(said.rsplit(": ")[1])
        assert page.locator(".note").first.text_content().startswith("Only sizes from")
        assert not page.complaints


def test_every_view_names_its_controls(server):
    with browser_page() as page:
        for view in ("", "/scatter", "/sizes", "/micrograph"):
            page.goto(f"{server.address}/explore{view}")
            if view in ("/scatter", "/micrograph"):
                ready(page)
            unnamed = page.evaluate(
                """[...document.querySelectorAll("a, button, select, input, canvas")].filter((one) => !(
                    one.textContent.trim() || one.ariaLabel || (one.labels && one.labels.length))).length"""
            )
            assert unnamed == 0
            assert page.locator("h1").count() == 1
            for width in (1280, 800):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, width)
