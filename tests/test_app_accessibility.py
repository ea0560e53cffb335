"""Every page, light and dark, as axe-core judges it: nothing serious or critical."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
import pytest
from helpers_app import fill
from helpers_browser import Server, browser_page, needs_chromium, until

from tumble.app import explore, worker
from tumble.app.server import create_app
from tumble.library import Library

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
]
N = 60
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
VIEWS = [view.path for view in explore.VIEWS]
PAGES = ["/label", "/label?ids=1,2,3&sort=id", "/train", "/explore", *VIEWS, "/nothing"]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server of a library with everything (labels of two people, two models with tests), and of an empty one."""
    folder = tmp_path_factory.mktemp("axe")
    path = fill(folder / "p.db", n=N)
    with pytest.MonkeyPatch.context() as patch, Library(path) as library:
        ids = library.particle_ids().tolist()
        library.add_labels(ids[:40], ["disc", "bar"] * 20, author="bob", source="test")
        library.add_labels(ids[:30], ["disc", "bar", "bar"] * 10, author="ann", source="test")
        patch.setattr(worker.signal, "signal", lambda *_: None)
        patch.setenv(worker.LIBRARY_VARIABLE, str(path))
        runs = create_app(path).state.runs
        patch.setattr(runs, "_spawn", lambda name: None)
        for seed in (0, 1):
            name = runs.start(max_epochs=1, hold_out=True, seed=seed)
            assert worker.main(folder / "p-models" / ".runs" / name) == 0
    Library(folder / "empty.db", create=True).close()
    started = Server(path), Server(folder / "empty.db")
    yield started
    for server in started:
        server.kill()


def findings(page):
    """Return what axe-core finds serious or critical, in words."""
    page.evaluate(AXE + "; 0")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 5  # it did look
    return [
        f"{page.url}: {one['id']} ({one['impact']}): {one['help']}: {node['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def settle(page):
    """Wait for what a page fetches by itself, and for what fades in."""
    page.wait_for_load_state("networkidle")
    until(page, "document.getAnimations().every((one) => one.playState !== 'running')")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 800)])
def test_no_page_has_a_serious_finding(servers, scheme, width):
    found = []
    with browser_page() as page:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        for server in servers:
            for address in PAGES:
                page.goto(server.address + address)
                settle(page)
                found += findings(page)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_state_of_a_page_has_a_serious_finding(servers, scheme):
    found = []
    with browser_page() as page:
        page.emulate_media(color_scheme=scheme)
        page.goto(servers[0].address + "/label?sort=id&show=labelled")
        page.locator("#particle-1").click()
        page.locator("#particle-3").click(modifiers=["Control"])
        page.keyboard.press("u")
        until(page, "!document.getElementById('message').hidden")
        found += findings(page)
        page.keyboard.press("r")
        page.keyboard.press("z")
        page.wait_for_selector("#zoom-history li")
        found += findings(page)
        page.keyboard.press("Escape")
        page.click("button[aria-label='Change the class disc']")
        found += findings(page)
    assert not found, "\n".join(found)


def test_the_check_can_fail(servers):
    with browser_page() as page:
        page.goto(servers[0].address + "/nothing")
        page.evaluate("document.querySelector('main').append(document.createElement('button'))")
        assert any("button-name" in one for one in findings(page))
