"""Explore: manifold, confusion, comparison and agreement, against slow and obvious references."""

from __future__ import annotations

import html
import io
import re
import shutil
import threading
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from helpers_app import SIDE, fill
from helpers_library import make_predictions, make_record

pytest.importorskip("fastapi")

from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from test_app import HTML, client_of

from tumble import SSRVAEClassifier
from tumble.app.explore.decoders import Decoders
from tumble.app.explore.drawing import Place, draw_one, draw_sheet
from tumble.app.explore.matrix import Matrix, count_pairs
from tumble.errors import ModelFileError
from tumble.library import Library
from tumble.pipeline import fit_library

N = 60
CLASSES = ("rod", "sphere", "cube")


def quick(**changes):
    return SSRVAEClassifier(max_epochs=1, batch_size=32, labelled_batch_size=8, random_state=0).set_params(**changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A library with a model of two latent factors, fitted to it."""
    folder = tmp_path_factory.mktemp("trained")
    path = fill(folder / "p.db", n=N)
    with Library(path) as library:
        ids = library.particle_ids()
        library.add_labels(ids[:20].tolist(), ["disc", "bar"] * 10, author="ann", source="test")
        fit_library(library, folder / "p-models" / "model-1", name="model-1", estimator=quick())
    return path


@pytest.fixture
def client(trained):
    with client_of(trained) as opened:
        yield opened


@pytest.fixture
def said(tmp_path):
    """A library that two models have classified, and three people have labelled in part."""
    path = fill(tmp_path / "p.db", n=N)
    rng = np.random.default_rng(0)
    with Library(path) as library:
        ids = library.particle_ids()
        library.add_model(make_record("first", labelled_particle_ids=(1, 2, 3)))
        library.add_predictions("first", ids, make_predictions(N, seed=1))
        library.add_model(make_record("second", labelled_particle_ids=(3, 4)))
        library.add_predictions("second", ids[5:], make_predictions(N - 5, seed=2))
        for k, author in enumerate(("ann", "bob <b>", "cid")):
            chosen = ids[k * 5 : 35 + k * 5]
            library.add_labels(
                chosen.tolist(), rng.choice([*CLASSES, "not a particle"], 35).tolist(), author=author, source="t"
            )
    return path


def words(path):
    """What both models and the present labels say of every particle, read in the slowest way."""
    with Library(path) as library:
        one, two = library.particles(model="first"), library.particles(model="second")
    return pd.DataFrame({"label": one["label"], "first": one["predicted"], "second": two["predicted"]})


def cells_of(page):
    """Read the tables of two classes from a page: (row, column) -> (count, link or None)."""
    found = {}
    for table in re.findall(r'<table class="matrix">.*?</table>', page, re.S):
        columns = [html.unescape(name) for name in re.findall(r'<th scope="col" title="(.*?)"', table)]
        for row in re.findall(r'<tr><th scope="row" title=".*?</tr>', table, re.S):
            name = html.unescape(re.search(r'title="(.*?)"', row)[1])
            for column, cell in zip(columns, re.findall(r'<td class="shade-.*?</td>', row, re.S), strict=True):
                link = re.search(r'href="(.*?)"', cell)
                number = int(re.search(r">([\d,]+)</", cell)[1].replace(",", ""))
                found[name, column] = number, html.unescape(link[1]) if link else None
    return found


def opened(client, link):
    """Return the particles that the gallery shows for a link."""
    answer = client.get(f"/api/particles?{urlsplit(link).query}&limit=500")
    assert answer.status_code == 200, answer.text
    return {record["id"] for record in answer.json()["particles"]}


def image_of(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


# ---- manifold ----


@pytest.fixture(scope="module")
def model(trained):
    return SSRVAEClassifier.load(trained.parent / "p-models" / "model-1")


def test_the_sheet_is_the_traversal_of_the_class(client, model):
    for k, name in enumerate(model.classes_):
        sheet = image_of(client.get(f"/explore/manifold/sheet.png?class={name}&steps=5&extent=1.5"))
        expected = model.traverse(name, n=5, extent=1.5)[0]
        tiles = sheet.reshape(5, SIDE, 5, SIDE).transpose(0, 2, 1, 3)
        np.testing.assert_allclose(tiles, np.clip(255 * expected, 0, 255), atol=0.6)
        assert k == list(model.classes_).index(name)


def test_the_object_follows_the_sliders(client, model):
    middle = image_of(client.get("/explore/manifold/one.png?class=bar"))
    np.testing.assert_array_equal(middle, draw_sheet(model, Place(k=0, z=(0.0, 0.0), steps=1))[0, 0])
    turned = image_of(client.get("/explore/manifold/one.png?class=bar&angle=90"))
    np.testing.assert_allclose(turned, np.rot90(middle).astype(int), atol=1)
    moved = image_of(client.get("/explore/manifold/one.png?class=bar&down=2&right=-3"))
    np.testing.assert_allclose(moved[3:, :-4], middle[1:-2, 3:-1].astype(int), atol=1)
    there = image_of(client.get("/explore/manifold/one.png?class=bar&z=1.5,-0.75"))
    sheet = draw_sheet(model, Place(k=0, z=(0.0, 0.0), steps=5, extent=1.5))
    np.testing.assert_array_equal(there, sheet[4, 1])


def test_other_factors_of_a_larger_model_stay_where_they_are():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (40, SIDE, SIDE), dtype=np.uint8)
    model = quick(latent_dim=3).fit(X, np.arange(40) % 2)
    place = Place(k=1, z=(0.5, -1.0, 2.0), rows=2, columns=0, steps=3, extent=1.0)
    sheet = draw_sheet(model, place)
    for i, third in enumerate((-1.0, 0.0, 1.0)):
        for j, first in enumerate((-1.0, 0.0, 1.0)):
            alone = draw_one(model, Place(k=1, z=(first, -1.0, third)))
            np.testing.assert_allclose(sheet[i, j], alone.astype(int), atol=1)
    single = draw_sheet(quick(latent_dim=1).fit(X, np.arange(40) % 2), Place(k=0, z=(0.0,), rows=0, columns=0, steps=5))
    assert single.shape == (1, 5, SIDE, SIDE)


def test_an_object_is_drawn_fast_and_from_many_threads(client):
    addresses = [f"/explore/manifold/one.png?class=disc&z={z}&angle={10 * z}" for z in range(-3, 4)]
    alone = [client.get(address).content for address in addresses]
    took = []
    for address in addresses:
        began = time.perf_counter()
        client.get(address)
        took.append(time.perf_counter() - began)
    assert np.median(took) < 0.1
    found = {}

    def ask(k):
        found[k] = client.get(addresses[k % len(addresses)]).content

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[k] == alone[k % len(addresses)] for k in range(21))


def test_a_model_is_loaded_once(trained, monkeypatch):
    loads = []
    load = SSRVAEClassifier.load.__func__
    monkeypatch.setattr(SSRVAEClassifier, "load", classmethod(lambda c, *a, **k: loads.append(a) or load(c, *a, **k)))
    with Library(trained) as library:
        decoders = Decoders(library, ())
        record = library.model_record("model-1")
        threads = [threading.Thread(target=decoders.get, args=(record,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert decoders.names() == ["model-1"]
    assert len(loads) == 1


def test_a_library_that_was_moved_with_its_models_still_draws(trained, tmp_path):
    shutil.copy(trained, tmp_path / "q.db")
    shutil.copytree(trained.parent / "p-models", tmp_path / "elsewhere")
    with Library(tmp_path / "q.db") as library:
        record = library.model_record("model-1")
        moved = type(record)(**{**vars(record), "path": "/nowhere/model-1"})
        assert Decoders(library, (tmp_path / "elsewhere",)).get(moved).classes_.tolist() == ["bar", "disc"]
        with pytest.raises(ModelFileError, match="/nowhere/model-1 is gone"):
            Decoders(library, (tmp_path,)).get(moved)
        other = type(record)(**{**vars(record), "environment": {"weights_sha256": "0" * 64}})
        with pytest.raises(ModelFileError, match="holds another model now"):
            Decoders(library, ()).get(other)


def test_the_state_of_the_manifold_is_in_its_address(client):
    page = client.get("/explore/manifold?class=disc&z=0.5,-1&angle=30&down=2&steps=5", headers=HTML).text
    for part in ('"class":"disc"', '"z":[0.5,-1.0]', '"angle":30.0', '"down":2.0', '"steps":5'):
        assert part in page
    links = [html.unescape(link) for link in re.findall(r'href="(/explore/manifold/export[^"]*)"', page)]
    assert len(links) == 3
    for link in links:
        assert parse_qs(urlsplit(link).query)["z"] == ["0.5,-1"]
        answer = client.get(link)
        assert answer.status_code == 200
        assert "attachment" in answer.headers["content-disposition"]


def test_the_table_of_the_manifold_has_its_images(client, model):
    answer = client.get("/explore/manifold/export.csv?class=disc&steps=3&extent=1")
    table = pd.read_csv(io.StringIO(answer.text))
    assert table["class"].tolist() == ["disc"] * 9
    assert table["z1_in_standard_deviations"].tolist() == [-1] * 3 + [0] * 3 + [1] * 3
    z = table[["latent_0", "latent_1"]].to_numpy(np.float32)
    pixels = table.filter(like="grey_").to_numpy().reshape(9, SIDE, SIDE)
    np.testing.assert_allclose(pixels, np.clip(255 * model.decode(z, "disc"), 0, 255), atol=0.6)
    assert client.get("/explore/manifold/export.svg?class=disc").text.startswith("<?xml")
    assert client.get("/explore/manifold/export.pdf?class=disc").status_code == 400


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("model=nobody", 404, "no model named 'nobody'"),
        ("class=nothing", 404, "knows no class 'nothing'"),
        ("z=a", 400, "write numbers"),
        ("z=1,2,3", 400, "2 latent factors"),
        ("z=9", 400, "from -4 to 4"),
        ("z=nan", 400, "from -4 to 4"),
        ("rows=1&columns=1", 400, "choose two"),
        ("rows=3", 400, "choose two"),
        ("steps=99", 422, "steps"),
        ("angle=inf", 422, "angle"),
        ("extent=0", 422, "extent"),
    ],
)
def test_what_cannot_be_drawn_is_said(client, query, status, word):
    for address in ("/explore/manifold", "/explore/manifold/one.png", "/explore/manifold/export.csv"):
        answer = client.get(f"{address}?{query}")
        assert answer.status_code == status, (address, answer.text)
        assert word in answer.json()["detail"]
        assert "<h1>" in client.get(f"{address}?{query}", headers=HTML).text


def test_without_a_model_or_its_files_the_manifold_says_so(tmp_path, said):
    fill(tmp_path / "none.db", n=5)
    with client_of(tmp_path / "none.db") as client:
        assert "No model yet" in client.get("/explore/manifold", headers=HTML).text
        assert client.get("/explore/manifold/one.png").status_code == 404
    with client_of(said) as client:  # its models were never on disk
        page = client.get("/explore/manifold", headers=HTML)
        assert page.status_code == 200
        assert "The files of first, second are gone" in page.text
        assert "is gone" in client.get("/explore/manifold/one.png?model=first").json()["detail"]


# ---- confusion ----


def test_cells_count_and_open_what_they_say(said):
    with client_of(said) as client:
        for of, without in (("labels", ()), ("unseen", (1, 2, 3))):
            known = words(said).drop(list(without)).dropna(subset=["label", "first"])
            page = client.get(f"/explore/confusion?model=first&of={of}", headers=HTML).text
            found = cells_of(page)
            assert set(found) == {(a, b) for a in (*CLASSES, "not a particle") for b in CLASSES}
            for (label, predicted), (n, link) in found.items():
                ids = set(known.index[(known["label"] == label) & (known["first"] == predicted)])
                assert n == len(ids)
                assert (link is None) == (not ids)
                if link:
                    assert opened(client, link) == ids
            n = (known["label"] == "not a particle").sum()
            assert f"{n} are of classes that the model does not know (not a particle) and count as wrong." in page
            assert ("3 of them taught the model, so that this flatters it." in page) == (of == "labels")
            right = (known["label"] == known["first"]).mean()
            assert f"<dd>{100 * right:.1f} %</dd>" in page
            usual = known.loc[known["label"].isin(CLASSES)]
            recalls = [balanced_accuracy_score(usual["label"], usual["first"])] * 3 + [0.0]
            assert f"<dd>{100 * np.mean(recalls):.1f} %</dd>" in page


def test_the_stored_test_is_shown_as_it_was(said):
    known = words(said)
    ids = list(range(10, 40))
    truth = [CLASSES[i % 3] for i in ids]
    counts = pd.crosstab(np.array(truth), known.loc[ids, "first"].to_numpy()).reindex(index=CLASSES, columns=CLASSES)
    evaluation = {
        "classes": list(CLASSES),
        "confusion": counts.fillna(0).astype(int).to_numpy().tolist(),
        "n_test": 30,
        "region": "lower half <i>",
        "test_particle_ids": ids,
        "test_labels": truth,
    }
    with Library(said) as library:
        library.update_evaluation("first", evaluation)
    with client_of(said) as client:
        page = client.get("/explore/confusion?model=first", headers=HTML).text
        assert "The test that was stored with first: lower half &lt;i&gt;" in page
        assert "have changed since" not in page
        for (label, predicted), (n, link) in cells_of(page).items():
            expected = {i for i, t in zip(ids, truth, strict=True) if t == label and known.loc[i, "first"] == predicted}
            assert n == len(expected)
            assert (opened(client, link) if link else set()) == expected
        table = pd.read_csv(io.StringIO(client.get("/explore/confusion/export.csv?model=first&of=test").text))
        assert table["particles"].sum() == 30
        # Of an evaluation without them, the labels of now are all that is known.
        with Library(said) as library:
            library.update_evaluation("first", {k: v for k, v in evaluation.items() if k != "test_labels"})
        page = client.get("/explore/confusion?model=first&of=test", headers=HTML).text
        assert "have changed since" in page
        assert {key: n for key, (n, _) in cells_of(page).items()} == {
            (a, b): int(counts.fillna(0).loc[a, b]) for a in CLASSES for b in CLASSES
        }


def test_confusion_without_model_or_labels_says_what_to_do(tmp_path, said):
    fill(tmp_path / "none.db", n=5)
    with client_of(tmp_path / "none.db") as client:
        assert "No model has classified the particles yet" in client.get("/explore/confusion", headers=HTML).text
        assert "nothing to export" in client.get("/explore/confusion/export.csv").json()["detail"]
        with Library(tmp_path / "none.db") as library:
            library.add_model(make_record("first"))
            library.add_predictions("first", library.particle_ids(), make_predictions(5))
        for of, text in (
            ("", "There are no such labels"),
            ("test", "No test is stored"),
            ("unseen", "All labels taught"),
        ):
            assert text in client.get(f"/explore/confusion?of={of}", headers=HTML).text
    with client_of(said) as client:
        assert client.get("/explore/confusion?model=nobody").status_code == 404
        assert client.get("/explore/confusion?of=x").status_code == 422


# ---- comparison ----


def test_a_comparison_counts_and_opens_what_it_says(said):
    known = words(said)
    both = known.dropna(subset=["first", "second"])
    with client_of(said) as client:
        page = client.get("/explore/compare?a=first&b=second", headers=HTML).text
        for (one, other), (n, link) in cells_of(page).items():
            ids = set(both.index[(both["first"] == one) & (both["second"] == other)])
            assert n == len(ids)
            assert (opened(client, link) if link else set()) == ids
        differ = set(both.index[both["first"] != both["second"]])
        assert f"{len(differ)} particles</a>" in page
        assert opened(client, "/label?model=first&other=second&sort=id") == differ
        rows = pd.read_csv(
            io.StringIO(client.get("/explore/compare/differences.csv?a=first&b=second").text), index_col=0
        )
        assert set(rows.index) == differ
        assert rows["second: predicted"].to_dict() == both.loc[sorted(differ), "second"].to_dict()
        labelled = both.dropna(subset=["label"])
        unseen = labelled.loc[~labelled.index.isin((1, 2, 3, 4))]
        for group in (unseen, labelled):
            for name in ("first", "second"):
                right = int((group[name] == group["label"]).sum())
                assert f"{right} ({100 * right / len(group):.1f} %)" in page
        # Without names: the newest, and the one before it.
        assert cells_of(client.get("/explore/compare", headers=HTML).text) == cells_of(page)


def test_a_comparison_needs_two_models(tmp_path, said):
    fill(tmp_path / "none.db", n=5)
    with client_of(tmp_path / "none.db") as client:
        assert "No model has classified" in client.get("/explore/compare", headers=HTML).text
        assert client.get("/explore/compare/export.png").status_code == 400
        assert client.get("/explore/compare?a=nobody").status_code == 404
        with Library(tmp_path / "none.db") as library:
            for name, ids in (("first", [1, 2]), ("second", [3])):
                library.add_model(make_record(name))
                library.add_predictions(name, ids, make_predictions(len(ids)))
                if name == "first":
                    assert "Only one model has" in client.get("/explore/compare", headers=HTML).text
        assert "no particle in common" in client.get("/explore/compare", headers=HTML).text
    with client_of(said) as client:
        assert "This is one model" in client.get("/explore/compare?a=first&b=first", headers=HTML).text


# ---- agreement ----


def test_agreement_counts_and_opens_what_it_says(said):
    with Library(said) as library:
        ratings = library.labels_by_author()
    a, b = "ann", "bob <b>"
    with client_of(said) as client:
        page = client.get("/explore/agreement", params={"a": a, "b": b}, headers=HTML).text
        assert "bob &lt;b&gt;" in page
        assert "<b>}" not in page
        for (one, other), (n, link) in cells_of(page).items():
            ids = set(ratings.index[(ratings[a] == one) & (ratings[b] == other)])
            assert n == len(ids)
            assert (opened(client, link) if link else set()) == ids
        differ = [i for i, row in ratings.iterrows() if len(set(row.dropna())) > 1]
        assert f"{len(differ)} particles</a>" in page
        assert opened(client, "/label?show=contested&sort=id") == set(differ)
        rows = pd.read_csv(io.StringIO(client.get("/explore/agreement/disagreements.csv").text), index_col=0)
        assert rows.index.tolist() == differ
        pairs = pd.read_csv(io.StringIO(client.get("/explore/agreement/export.csv").text))
        assert pairs["kind_of_kappa"].tolist() == ["Cohen"] * 3 + ["Fleiss"]
        assert pairs["n"].tolist() == [30, 25, 30, 25]
        same = [(ratings[x] == ratings[y]).sum() / n for x, y, n in ((a, b, 30), (a, "cid", 25), (b, "cid", 30))]
        np.testing.assert_allclose(pairs["agreement"][:3], same)
        links = re.findall(r'href="(/label\?ids=[^"]*)" aria-label="\d+ particles on which ann and bob', page)
        assert opened(client, html.unescape(links[0])) == {
            i
            for i in ratings.index
            if isinstance(ratings[a][i], str) and isinstance(ratings[b][i], str) and ratings[a][i] != ratings[b][i]
        }


def test_agreement_needs_two_people(tmp_path, said):
    fill(tmp_path / "none.db", n=5)
    with client_of(tmp_path / "none.db") as client:
        assert "Nobody has labelled" in client.get("/explore/agreement", headers=HTML).text
        client.post("/api/labels", json={"ids": [1], "label": "disc"})
        assert "Only ann has labelled" in client.get("/explore/agreement", headers=HTML).text
        assert client.get("/explore/agreement/export.svg").status_code == 400
        with Library(tmp_path / "none.db") as library:
            library.add_labels([2], ["bar"], author="bob", source="test")
        assert "no particle in common" in client.get("/explore/agreement", headers=HTML).text
    with client_of(said) as client:
        missing = client.get("/explore/agreement?a=nobody")
        assert missing.status_code == 404
        assert "nobody named 'nobody'" in missing.json()["detail"]
        same = client.get("/explore/agreement?a=ann&b=ann", headers=HTML).text
        assert "<h2>ann and bob &lt;b&gt;</h2>" in same
        turned = client.get("/explore/agreement?a=cid&b=ann", headers=HTML).text
        assert "<h2>cid and ann</h2>" in turned


# ---- all of them ----


def test_tables_of_unlike_classes_count_by_name():
    counts = np.array([[5, 1, 0], [2, 0, 7]])
    table = Matrix(["a", "b"], ["b", "c", "a"], counts, "first", "second", lambda row, column: f"{row}{column}")
    assert (table.total, table.agreed) == (15, 2)
    assert table.recalls() == {"a": 0.0, "b": 2 / 9}
    assert table.precisions() == {"b": 2 / 7, "c": 0.0, "a": 0.0}
    frame = table.table()
    assert frame.loc[(frame["first"] == "b") & (frame["second"] == "a"), "particles"].tolist() == [7]
    np.testing.assert_allclose(frame.groupby("first")["share_of_row"].sum(), 1)
    shown = table.cells()[1]["cells"]
    assert [(cell["n"], cell["same"], cell["link"]) for cell in shown] == [
        (2, True, "bb"),
        (0, False, None),
        (7, False, "ba"),
    ]
    assert count_pairs(["a", "a", "b"], ["c", "a", "c"], ["a", "b"], ["b", "c", "a"]).tolist() == [[0, 1, 1], [0, 1, 0]]


def test_figures_that_several_threads_draw_at_once_are_alike(said):
    with client_of(said) as client:
        addresses = [
            "/explore/confusion/export.svg?model=first",
            "/explore/compare/export.png",
            "/explore/agreement/export.svg",
        ]
        alone = {address: client.get(address).content for address in addresses}
        found = []

        def ask(address):
            found.append(client.get(address).content == alone[address])

        threads = [threading.Thread(target=ask, args=(address,)) for address in addresses * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 9


def test_names_are_text_in_every_view_and_export(tmp_path):
    name = "</script><img src=x onerror=alert(1)>\"'&"
    path = fill(tmp_path / "p.db", n=12)
    with Library(path) as library:
        ids = library.particle_ids()
        for model in (name, name + "2"):
            library.add_model(make_record(model, classes=(name, "b", "c")))
            predictions = make_predictions(12, seed=len(model))
            library.add_predictions(model, ids, type(predictions)(**{**vars(predictions), "classes": (name, "b", "c")}))
        for author in (name, "bob"):
            library.add_labels(ids[:6].tolist(), [name, "b"] * 3, author=author, source="test")
    with client_of(path) as client:
        for view in client.app.state.explore:
            page = client.get(view.path, headers=HTML)
            assert page.status_code == 200
            assert "<img src=x" not in page.text
            assert page.text.count("</script>") == page.text.count("<script")
        for view in ("confusion", "compare", "agreement"):
            for kind in ("csv", "png", "svg"):
                answer = client.get(f"/explore/{view}/export.{kind}")
                assert answer.status_code == 200
                assert "attachment" in answer.headers["content-disposition"]
            assert "<img" not in client.get(f"/explore/{view}/export.svg").text
        for link in (link for _, link in cells_of(client.get("/explore/compare", headers=HTML).text).values()):
            if link:
                assert opened(client, link)
