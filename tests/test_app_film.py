"""The manifold as it grows while a model is trained: kept without touching the fit, and shown by the page."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from helpers_app import SIDE, fill

pytest.importorskip("fastapi")

from PIL import Image
from test_app import client_of

from tumble import SSRVAEClassifier
from tumble.app import worker
from tumble.app.film import FILM_STEPS, Film
from tumble.app.frames import filmed_epochs, frame_path
from tumble.library import Library


def quick(**changes):
    return SSRVAEClassifier(max_epochs=3, batch_size=16, labelled_batch_size=8, random_state=0).set_params(**changes)


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    with Library(fill(tmp_path_factory.mktemp("film") / "p.db", n=40)) as library:
        return library.crops(), np.array(["disc", "bar"] * 10 + [None] * 20, dtype=object)


def frame_of(folder, epoch, k):
    return np.asarray(Image.open(frame_path(folder, epoch, k)))


def test_the_fit_is_the_same_with_and_without_a_film(particles, tmp_path):
    X, y = particles
    film = Film(tmp_path, quick(), ["disc", "bar", "disc"], X)
    with_film, without = quick().fit(X, y, callbacks=[film]), quick().fit(X, y)
    for name, weights in without.model_.state_dict().items():
        np.testing.assert_array_equal(weights.numpy(), with_film.model_.state_dict()[name].numpy())
    assert filmed_epochs(tmp_path) == [1, 2, 3]
    for k in (0, 1):
        assert frame_of(tmp_path, 1, k).shape == (FILM_STEPS * SIDE, FILM_STEPS * SIDE)
        assert (frame_of(tmp_path, 1, k) != frame_of(tmp_path, 3, k)).mean() > 0.2


def test_the_last_frame_is_what_the_fitted_model_draws(particles, tmp_path):
    """The fit itself measures where classes lie on the same particles, so that its traversal is the same."""
    X, y = particles
    model = quick(max_epochs=2).fit(X, y, callbacks=[Film(tmp_path, quick(), ["bar", "disc"], X)])
    k = np.searchsorted(model.classes_, model.predict(X))
    drawn = model.traverse(n=FILM_STEPS, extent=1.5)
    for i in np.flatnonzero(np.bincount(k, minlength=2) >= 5):
        tiles = frame_of(tmp_path, 2, i).reshape(FILM_STEPS, SIDE, FILM_STEPS, SIDE).transpose(0, 2, 1, 3)
        np.testing.assert_allclose(tiles, np.clip(255 * drawn[i], 0, 255), atol=1)


def test_long_runs_keep_some_frames_only(particles, tmp_path):
    X, y = particles
    quick(max_epochs=50).fit(X[:24], y[:24], callbacks=[Film(tmp_path, quick(), ["bar", "disc"], X[:24])])
    kept = filmed_epochs(tmp_path)
    assert kept[:2] == [1, 3]
    assert kept[-1] == 50
    assert len(kept) <= 26


def test_a_frame_that_cannot_be_kept_does_not_end_the_training(particles, tmp_path):
    X, y = particles
    (tmp_path / "manifold").write_text("in the way")
    model = quick(max_epochs=1).fit(X, y, callbacks=[Film(tmp_path, quick(), ["bar", "disc"], X)])
    assert model.n_iter_ == 1
    assert (tmp_path / "manifold").read_text() == "in the way"


def test_a_run_of_the_page_is_filmed(tmp_path, monkeypatch):
    path = fill(tmp_path / "p.db", n=40)
    with client_of(path) as client:
        client.post("/api/labels", json={"ids": list(range(1, 21, 2)), "label": "disc"})
        client.post("/api/labels", json={"ids": list(range(2, 21, 2)), "label": "bar"})
        runs = client.app.state.runs
        monkeypatch.setattr(runs, "_spawn", lambda name: None)
        name = runs.start(max_epochs=2, hold_out=False)
        folder = tmp_path / "p-models" / ".runs" / name
        monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
        assert worker.main(folder) == 0
        status = client.get("/api/train").json()
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
        assert status["classes"] == ["bar", "disc"]
        assert status["filmed"] == [1, 2]
        answer = client.get(f"/api/train/manifold/{name}/2/1.png")
        assert answer.headers["content-type"] == "image/png"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), frame_of(folder, 2, 1))
        # The gallery is sorted by the new model from now on, as its views say.
        page = client.get("/api/particles").json()
        assert page["particles"][0]["predicted"] in ("bar", "disc")
        assert page["sort"] == "useful"
        for wrong in (f"{name}/9/0", f"{name}/2/7", "model-9/1/0", "..%2f..%2fetc/1/0", "model-1%2f../1/0"):
            assert client.get(f"/api/train/manifold/{wrong}.png").status_code == 404, wrong
        assert client.get(f"/api/train/manifold/{name}/0/0.png").status_code == 422
