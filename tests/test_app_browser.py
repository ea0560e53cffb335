"""The page as a person uses it, in headless Chromium: label by keyboard, train, correct, and lose nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers_app import fill
from helpers_browser import Server, browser_page, needs_chromium, until

from tumble.library import Library

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
]
N_LABELLED = 30


@pytest.fixture
def started(tmp_path):
    """The library, and a function that starts a server; all of them end with the test, and what they left running."""
    path, servers = fill(tmp_path / "p.db", n=70), []

    def start():
        servers.append(Server(path))
        return servers[-1]

    yield path, start
    for server in servers:
        server.kill()
    for status in (tmp_path / "p-models" / ".runs").glob("*/status.json"):
        pid = int(re.search(r'"pid": (\d+)', status.read_text())[1])
        command = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if str(tmp_path) in command.stdout:
            os.kill(pid, signal.SIGKILL)


def saved(page):
    until(page, "document.body.dataset.saved !== 'no'")


def add_class(page, name):
    page.fill("#new-class input", name)
    page.press("#new-class input", "Enter")
    page.wait_for_selector(f'.give[data-name="{name}"]')


def give(page, number, name):
    page.locator(f"#particle-{number}").click()
    page.keyboard.press(name)


def wait_for_state(page, pattern, seconds=240):
    until(page, f"/{pattern}/.test(document.getElementById('run-title').textContent)", seconds)


def wait_for_useful(page):
    """Wait for the choice of what is useful next, which the page offers when it was not there at once."""
    useful = "document.querySelector('select[name=sort]').value === 'useful'"
    until(page, f"({useful}) || document.querySelector('#note a')")
    if page.locator("#note a").count():
        with page.expect_navigation():
            page.click("#note a")
    until(page, useful)
    assert not page.text_content("#note")


def test_label_train_correct_and_lose_nothing(started):
    path, start = started
    server = start()
    with browser_page() as page:
        page.goto(f"{server.address}/label?sort=id")
        add_class(page, "disc")
        add_class(page, "bar")
        page.locator("#particle-1").click()
        for i in range(N_LABELLED):  # odd ids are discs
            page.keyboard.press("1" if i % 2 == 0 else "2")
        saved(page)
        with Library(path) as library:
            truth = {i + 1: "disc" if i % 2 == 0 else "bar" for i in range(N_LABELLED)}
            assert library.current_labels().to_dict() == truth

        page.keyboard.press("x")
        saved(page)
        page.keyboard.press("u")
        until(page, "document.getElementById('message').textContent.includes('taken back')")
        page.keyboard.press(" ")
        with Library(path) as library:
            assert library.current_labels().to_dict() == truth

        # The state is in the address: another window shows the same.
        assert "at=" in page.url
        page.goto(f"{server.address}/label?label=bar&sort=large")
        assert page.locator(".crop").count() == N_LABELLED // 2
        assert page.locator(".crop .tag").first.text_content() == "bar"

        page.goto(f"{server.address}/train")
        page.fill("input[name=max_epochs]", "300")
        page.click("#start-button")
        wait_for_state(page, "^Training")
        page.wait_for_selector("#chart-loss polyline")
        until(page, "document.querySelector('#film img')?.naturalWidth > 0")

        # The server dies in the middle; the labels are there, and so is the training.
        server.kill()
        page.complaints.clear()
        server = start()
        page.goto(f"{server.address}/train")
        wait_for_state(page, "^(Training|Preparing)")
        page.click("#stop")
        wait_for_state(page, "^Stopped")
        epoch = stopped_epoch(page)
        assert 0 < epoch < 300
        page.click("#resume")
        wait_for_state(page, "^Training")
        until(page, f"document.querySelectorAll('#chart-loss polyline').length && ({CURVE}) >= {epoch}")
        page.click("#stop")
        wait_for_state(page, "^Stopped")

        # A short one to its end.
        page.fill("input[name=max_epochs]", "3")
        page.click("#start-button")
        wait_for_state(page, "^Done · model-2")
        assert re.search(r"Balanced accuracy on 6 held-out labels: [\d.]+ %", page.text_content("#run-result") or "")

        assert page.locator("#film-classes figcaption").all_text_contents() == ["bar", "disc"]
        page.locator("#film-epoch").press("Home")
        assert page.text_content("#film-now") == "after epoch 1"

        # The gallery is sorted by the new model: what is useful to label next comes first.
        page.goto(f"{server.address}/label")
        wait_for_useful(page)
        assert page.locator(".crop .guess").first.text_content()
        page.goto(f"{server.address}/label?sort=id&show=labelled")
        give(page, 1, "2")
        give(page, 2, "1")
        saved(page)
        truth |= {1: "bar", 2: "disc"}
        server.kill()
        complaints = list(page.complaints)

        server = start()
        page.goto(f"{server.address}/label?sort=id&show=labelled")
        shown = {
            int(box.get_attribute("data-id")): box.locator(".tag").text_content() for box in page.locator(".crop").all()
        }
        assert shown == truth
        assert not complaints
    with Library(path) as library:
        assert library.current_labels().to_dict() == truth
        assert library.predicting_model() == "model-2"


#: Number of epochs that the curve of the loss shows.
CURVE = "document.querySelector('#chart-loss polyline').getAttribute('points').split(' ').length"


def stopped_epoch(page):
    return int(page.evaluate(CURVE))


def test_several_at_once_zoom_and_pages(started):
    path, start = started
    server = start()
    with browser_page() as page:
        page.goto(f"{server.address}/label?sort=id")
        add_class(page, "disc")
        page.locator("#particle-1").click()
        page.locator("#particle-3").click(modifiers=["Control"])
        page.locator("#particle-5").click(modifiers=["Shift"])
        page.keyboard.press("1")
        saved(page)
        with Library(path) as library:
            assert library.current_labels().to_dict() == dict.fromkeys((3, 4, 5), "disc")
        page.locator("#particle-4").click()
        page.keyboard.press("z")
        page.wait_for_selector("#zoom-history li:has-text('disc by ann')")
        assert page.evaluate("document.getElementById('zoom-context').naturalWidth") > 0
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        page.wait_for_selector("#particle-61")
        assert "after=" in page.url
        page.go_back()
        page.wait_for_selector("#particle-4")
        assert page.locator("#particle-4 .tag").text_content() == "disc"

        page.click("button[aria-label='Change the class disc']")
        page.fill("#class-form input[name=name]", "ball <b>")
        page.click("#class-form button[value=save]")
        until(page, "document.querySelector('#particle-4 .tag').textContent === 'ball <b>'")
        assert not page.complaints


def test_the_next_page_is_there_at_once(started):
    _, start = started
    server = start()
    with browser_page() as page:
        page.goto(f"{server.address}/label?sort=id&limit=10")
        took = []
        for number in (11, 21, 31, 41):
            # What a person needs at the least to look at a page is enough to fetch the next one.
            until(page, "document.body.dataset.ahead === 'yes'")
            took.append(page.evaluate(TURN, number))
        # Another program can make a turn slower, but none faster.
        assert min(took) < 200, took


def test_labels_that_wait_for_their_turn_arrive_when_the_page_is_left(started):
    path, start = started
    server = start()
    with browser_page() as page:
        page.goto(f"{server.address}/label?sort=id")
        page.wait_for_selector("#gallery .crop")
        for name in ("disc", "ring"):
            add_class(page, name)
        page.locator("#particle-1").click()
        # All within one turn of the page's own clock, so that none but the first can have been sent.
        with page.expect_navigation():
            page.evaluate(LABEL_AND_LEAVE, ["1", "2"] * 10)
        with Library(path) as library:
            deadline = time.monotonic() + 20
            while len(library.label_history()) < 20 and time.monotonic() < deadline:
                time.sleep(0.1)
            given = library.current_labels()
        assert given.to_dict() == {k: ("disc", "ring")[(k + 1) % 2] for k in range(1, 21)}


#: Presses keys on the gallery and follows a link at once.
LABEL_AND_LEAVE = """(keys) => {
    const gallery = document.getElementById("gallery");
    gallery.focus();
    for (const key of keys) gallery.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    document.querySelector("nav a[href='/train']").click();
}"""

#: Turns to the page that begins with a particle; gives how long it took until its crops are there.
TURN = """async (number) => {
    const first = `particle-${number}`;
    const crops = () => [...document.querySelectorAll("#gallery img")];
    const began = performance.now();
    document.getElementById("next").click();
    while (!document.getElementById(first) || !crops().every((image) => image.complete && image.naturalWidth)) {
        await new Promise((go) => setTimeout(go, 1));
    }
    return performance.now() - began;
}"""


def test_a_page_of_the_gallery_is_one_question(started):
    _, start = started
    server = start()
    with browser_page() as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(server.address).partition("?")[0]))
        page.goto(f"{server.address}/label?sort=id")
        until(page, "document.body.dataset.ahead === 'yes'")
        assert page.locator(".crop img").count() == 60
        until(page, "[...document.querySelectorAll('.crop img')].every((image) => image.naturalWidth)")
        assert not [path for path in asked if path.startswith("/crops/")]
        assert asked.count("/api/particles") == 1  # the next page
        # The figure of the page is of what is shown, whatever the order would be by now.
        page.click("#exports summary")
        shown = ",".join(page.locator(".crop").evaluate_all("boxes => boxes.map((box) => box.dataset.id)"))
        for link in page.locator("#exports [data-page]").all():
            assert parse_qs(urlsplit(link.get_attribute("href")).query) == {"ids": [shown], "limit": ["60"]}
        assert not page.complaints
