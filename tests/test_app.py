"""The page in the browser, asked as a browser and as a stranger would."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import zipfile
from itertools import chain

import numpy as np
import pytest
import sqlalchemy as sa
from helpers_app import fill
from helpers_library import make_predictions, make_record
from PIL import Image

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from tumble.app import export_routes, gallery, label_routes, page_figures, suggestions
from tumble.app.security import CSRF_HEADER, Security
from tumble.app.server import create_app
from tumble.errors import ConfigError
from tumble.library import Library
from tumble.pipeline import varied_particles

ADDRESS = "http://127.0.0.1:8765"
TOKEN = "a long secret token"
HTML = {"accept": "text/html"}


def client_of(path, security=None, models=None):
    app = create_app(path, security=security, author="ann", models=models)
    client = TestClient(app, base_url=ADDRESS, raise_server_exceptions=False)
    client.headers[CSRF_HEADER] = app.state.security.csrf_token
    return client


@pytest.fixture
def path(tmp_path):
    return fill(tmp_path / "p.db")


@pytest.fixture
def client(path):
    with client_of(path) as opened:
        yield opened


def predict(path, name="first"):
    with Library(path) as library:
        library.add_model(make_record(name))
        ids = library.particle_ids()
        library.add_predictions(name, ids, make_predictions(len(ids)))


def ids_of(answer):
    assert answer.status_code == 200, answer.text
    return [record["id"] for record in answer.json()["particles"]]


def walk(client, query, *, limit=7):
    """Read a view to its end, then back to its beginning; both must be the same."""
    pages = [client.get(f"/api/particles?{query}&limit={limit}").json()]
    while pages[-1]["after"]:
        pages.append(client.get(f"/api/particles?{query}&limit={limit}&after={pages[-1]['after']}").json())
    forth = [[record["id"] for record in page["particles"]] for page in pages]
    back = [forth[-1]]
    page = pages[-1]
    while page["before"]:
        page = client.get(f"/api/particles?{query}&limit={limit}&before={page['before']}").json()
        back.insert(0, [record["id"] for record in page["particles"]])
    assert list(chain(*back)) == list(chain(*forth))
    return list(chain(*forth))


def test_the_gallery_comes_with_its_first_page(client):
    page = client.get("/", headers=HTML)
    assert page.status_code == 200
    assert page.url.path == "/label"
    assert 'aria-current="page">Label' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text.count('"id":') == 60


@pytest.mark.parametrize("sort", ["id", "large", "small", "uncertain", "sure", "class", "useful"])
def test_pages_show_every_particle_once_in_both_directions(path, sort):
    predict(path)
    with client_of(path) as client:
        client.app.state.suggestions._wait_s = 60
        assert sorted(walk(client, f"sort={sort}")) == list(range(1, 61))


def test_pages_are_in_the_order_of_the_view(path):
    predict(path)
    with client_of(path) as client:
        p = {r["id"]: r for r in client.get("/api/particles?sort=id&limit=60").json()["particles"]}
        doubt = [p[i]["probability"] for i in walk(client, "sort=uncertain")]
        assert doubt == sorted(doubt)
        classes = [p[i]["predicted"] for i in walk(client, "sort=class")]
        assert [name for k, name in enumerate(classes) if k == 0 or classes[k - 1] != name] == ["rod", "sphere", "cube"]
        sizes = [p[i]["diameter_px"] for i in walk(client, "sort=large")]
        assert sizes == sorted(sizes, reverse=True)
        assert set(walk(client, "class=rod&sort=id")) == {i for i in p if p[i]["predicted"] == "rod"}


def test_without_a_model_its_orders_say_what_they_need(client):
    page = client.get("/api/particles?sort=uncertain").json()
    assert page["sort"] == "id"
    assert "needs a model" in page["note"]


def test_without_a_model_the_gallery_begins_with_particles_that_differ(client, path):
    client.app.state.suggestions._wait_s = 60
    page = client.get("/api/particles?limit=8").json()
    assert (page["sort"], page["note"], page["choosing"]) == ("useful", "", False)
    with Library(path) as library:
        assert [one["id"] for one in page["particles"]] == varied_particles(library, 8).index.tolist()
    assert sorted(walk(client, "sort=useful")) == list(range(1, 61))
    client.post("/api/labels", json={"ids": [one["id"] for one in page["particles"]], "label": "disc"})
    assert len(walk(client, "")) == 52  # what has a label is not asked for again


def test_the_end_of_the_suggestions_is_not_taken_for_the_end_of_the_library(client, monkeypatch):
    monkeypatch.setattr(suggestions, "MOST_SUGGESTED", 20)
    monkeypatch.setattr(gallery, "MOST_SUGGESTED", 20)
    client.app.state.suggestions.close()
    client.app.state.suggestions = suggestions.Suggestions(wait_s=60)
    assert len(walk(client, "sort=useful", limit=10)) == 20
    first = client.get("/api/particles?sort=useful&limit=10").json()
    assert first["note"] == ""
    last = client.get(f"/api/particles?sort=useful&limit=10&after={first['after']}").json()
    assert "another order" in last["note"]
    client.app.state.suggestions.close()


def test_labels_are_stored_at_once_and_can_be_taken_back(client, path):
    assert client.post("/api/labels", json={"ids": [1, 2, 2], "label": "disc"}).json()["n"] == 2
    client.post("/api/labels", json={"ids": [3], "label": "bar"})
    with Library(path) as library:
        assert library.current_labels().to_dict() == {1: "disc", 2: "disc", 3: "bar"}
        assert set(library.label_history()["author"]) == {"ann"}
    assert ids_of(client.get("/api/particles?show=labelled&sort=id")) == [1, 2, 3]
    assert ids_of(client.get("/api/particles?label=disc&sort=id")) == [1, 2]
    assert len(ids_of(client.get("/api/particles?show=unlabelled&sort=id"))) == 57
    assert client.post("/api/undo").json()["n"] == 1
    client.post("/api/undo")
    assert client.get("/api/count?show=labelled").json() == {"n": 0}
    nothing = client.post("/api/undo")
    assert nothing.status_code == 400
    assert "could be taken back" in nothing.json()["detail"]
    client.post("/api/redo")
    assert client.get("/api/count?show=labelled").json() == {"n": 2}
    client.post("/api/labels", json={"ids": [1], "label": None})
    assert ids_of(client.get("/api/particles?show=labelled&sort=id")) == [2]


def test_classes_are_made_coloured_renamed_merged_and_removed(client):
    assert client.post("/api/classes", json={"name": "disc"}).json()[0]["name"] == "disc"
    client.post("/api/classes", json={"name": "disc", "colour": "#123456"})
    client.post("/api/labels", json={"ids": [1, 2], "label": "disc"})
    client.post("/api/labels", json={"ids": [3], "label": "bar"})
    refused = client.post("/api/classes/rename", json={"old": "disc", "new": "bar"})
    assert refused.status_code == 400
    assert "Merge the two" in refused.json()["detail"]
    done = client.post("/api/classes/rename", json={"old": "disc", "new": "bar", "merge": True}).json()
    assert (done["n"], [one["n"] for one in done["classes"]]) == (2, [3])
    assert client.post("/api/classes/remove", json={"name": "bar"}).status_code == 400
    client.post("/api/classes", json={"name": "empty"})
    assert [c["name"] for c in client.post("/api/classes/remove", json={"name": "empty"}).json()] == ["bar"]


def test_html_in_names_is_text(client, path):
    name = "</script><img src=x onerror=alert(1)>\"'"
    client.post("/api/classes", json={"name": name})
    client.post("/api/labels", json={"ids": [1, 2], "label": name})
    for address in ("/label", "/train", f"/label?label={name}"):
        page = client.get(address, headers=HTML).text
        assert "<img src=x" not in page
        assert page.count("</script>") == page.count("<script")


def test_crops_are_png_that_a_browser_keeps(client, path):
    first = client.get("/crops/1.png")
    assert first.content[:8] == b"\x89PNG\r\n\x1a\n"
    assert "immutable" in first.headers["cache-control"]
    assert client.get("/crops/1.png", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert client.get("/crops/2.png").headers["etag"] != first.headers["etag"]
    assert client.get("/crops/999.png").status_code == 404
    from PIL import Image

    with Library(path) as library:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(first.content))), library.crops([1])[0])


def test_a_particle_is_shown_in_its_micrograph(client):
    client.post("/api/labels", json={"ids": [12], "label": "bar"})
    found = client.get("/api/particles/12").json()
    assert found["source"] == "grid 0.tif"
    assert [entry["label"] for entry in found["history"]] == ["bar"]
    assert all(0 <= found["place"][side] <= 1 for side in ("left", "top", "width", "height"))
    assert client.get("/context/12.png").headers["content-type"] == "image/png"
    assert client.get("/context/999.png").status_code == 400


def test_the_export_has_the_particles_of_the_view(client):
    client.post("/api/labels", json={"ids": [4, 5], "label": "disc"})
    answer = client.get("/export/labels.csv?label=disc")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["particle_id"], row["label"]) for row in rows] == [("4", "disc"), ("5", "disc")]
    assert "attachment" in answer.headers["content-disposition"]
    assert len(client.get("/export/labels.csv").text.splitlines()) == 61


def test_a_selection_is_a_link_to_exactly_these_particles(path):
    predict(path)
    with client_of(path) as client:
        client.post("/api/labels", json={"ids": [5], "label": "disc"})
        text = client.post("/api/selection", json={"ids": [9, 5, 31, 5]}).json()
        assert text == {"ids": "5,9,31", "n": 3}
        # Suggestions leave out what has a label; a selection does not.
        assert ids_of(client.get("/api/particles?ids=5,9,31")) == [5, 9, 31]
        assert set(ids_of(client.get("/api/particles?ids=5,9,31&sort=useful"))) <= {9, 31}
        page = client.get("/label?ids=5,9,31", headers=HTML).text
        assert "Only 3 chosen particles" in page
        assert page.count('"id":') == 3
        assert len(client.get("/export/labels.csv?ids=5,9,31").text.splitlines()) == 4


def test_a_large_selection_is_a_short_link(client):
    chosen = list(range(2, 200_000, 3))
    text = client.post("/api/selection", json={"ids": chosen}).json()["ids"]
    assert len(text) < 500
    assert ids_of(client.get(f"/api/particles?ids={text}&limit=500")) == [i for i in chosen if i <= 60]
    assert client.get(f"/api/count?ids={text}").json() == {"n": 20}


def test_sizes_limit_the_gallery_without_their_upper_bound(client):
    sizes = {r["id"]: r["diameter_px"] for r in client.get("/api/particles?sort=id&limit=60").json()["particles"]}
    low, high = sizes[2], sizes[10]
    expected = [i for i, size in sizes.items() if low <= size < high]
    assert ids_of(client.get(f"/api/particles?unit=px&from={low!r}&to={high!r}")) == expected
    assert 10 not in expected
    assert client.get(f"/api/count?from={low!r}&to={high!r}").json() == {"n": len(expected)}
    assert ids_of(client.get("/api/particles?unit=nm&from=1")) == []  # no pixel size is known
    assert f"Only sizes from {low:g} px to {high:g} px" in client.get(f"/label?from={low}&to={high}", headers=HTML).text


def test_pictures_of_a_view_are_exported(client):
    client.post("/api/labels", json={"ids": [4, 5], "label": "disc/../x"})
    sheet = client.get("/export/sheet.html?ids=4,5,6")
    assert sheet.text.count("<figure>") == 3
    assert client.get("/export/sheet.pdf?label=disc/../x").content[:5] == b"%PDF-"
    with zipfile.ZipFile(io.BytesIO(client.get("/export/crops.zip?show=labelled").content)) as crops:
        names = [name for name in crops.namelist() if name.endswith(".png")]
    assert len(names) == 2
    assert all(name.count("/") == 1 and ".." not in name for name in names)
    nothing = client.get("/export/crops.zip?ids=999")
    assert (nothing.status_code, "nothing to export" in nothing.json()["detail"]) == (400, True)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_page_of_the_gallery_comes_as_a_figure(client, path, kind):
    client.post("/api/labels", json={"ids": [4, 5], "label": "two $words & more"})
    answer = client.get(f"/export/page.{kind}?sort=id&limit=12")
    assert answer.status_code == 200
    assert f'filename="page.{kind}"' in answer.headers["content-disposition"]
    if kind == "svg":
        assert answer.text.count("<image") == 12
    else:
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.width == 1500
    second = client.get("/api/particles?sort=id&limit=12").json()["after"]
    assert client.get(f"/export/page.{kind}?sort=id&limit=12&after={second}").content != answer.content
    assert client.get(f"/export/page.{kind}?ids=999").status_code == 400
    assert client.get("/export/page.exe").status_code == 422


def test_the_exported_page_is_the_one_that_is_named(client, monkeypatch):
    shown = []
    monkeypatch.setattr(
        page_figures, "gallery_figure", lambda crops, particles, colours: shown.extend(one["id"] for one in particles)
    )
    monkeypatch.setattr(export_routes, "figure_response", lambda make, kind, name: make() or "drawn")
    client.post("/api/labels", json={"ids": [9, 2], "label": "disc"})  # by now the order would be another one
    assert client.get("/export/page.png?ids=9,2,31,4&limit=4").status_code == 200
    assert shown == [9, 2, 31, 4]


def test_new_particles_are_shown_at_once(tmp_path):
    path = tmp_path / "new.db"
    with Library(path, create=True):
        pass
    with client_of(path) as client:
        client.app.state.suggestions._wait_s = 60
        assert client.get("/api/particles").json()["particles"] == []
        fill(path)
        assert len(ids_of(client.get("/api/particles"))) == 60


def test_a_damaged_crop_does_not_keep_the_page_from_opening(path):
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE particle_images SET crop = x'0102' WHERE particle_id = 1"))
    engine.dispose()
    with client_of(path) as client:
        assert ids_of(client.get("/api/particles?sort=id&ids=7&crops=false")) == [7]


def test_one_micrograph_is_shown_whole_while_there_is_no_model(path):
    fill(path, n=20, seed=3)
    with client_of(path) as client:
        page = client.get("/api/particles?micrograph=2").json()
        assert (page["sort"], len(page["particles"])) == ("id", 20)


def test_the_curves_of_a_training_come_as_table_and_figure(client):
    nothing = client.get("/export/training.csv")
    assert (nothing.status_code, "no curves" in nothing.text) == (404, True)
    run = client.app.state.runs.status()
    curves = {"loss": [3.5, None, 1.25], "validation_accuracy": [0.5, 0.75, 1.0]}
    client.app.state.runs.status = lambda: {**run, "epochs": [1, 2, 3], "curves": curves}
    table = client.get("/export/training.csv").text.splitlines()
    assert table == ["epoch,loss,validation_accuracy", "1,3.5,0.5", "2,,0.75", "3,1.25,1.0"]
    assert client.get("/export/training.png").content[:4] == b"\x89PNG"
    assert b"<svg" in client.get("/export/training.svg").content


@pytest.mark.parametrize(
    "query",
    [
        "sort=x",
        "show=x",
        "limit=0",
        "limit=501",
        "after=x",
        "after=nan,1",
        "sort=small&after=1",
        "ids=1;2",
        "ids=.AAAA",
        "ids=.eNoLyf//",
        "from=2&to=1",
        "from=nan",
        "from=1&unit=mm",
        "micrograph=0",
    ],
)
def test_wrong_addresses_are_refused_in_words(client, query):
    answer = client.get(f"/api/particles?{query}")
    assert answer.status_code in (400, 422)
    assert len(answer.json()["detail"]) > 10
    page = client.get(f"/label?{query}", headers=HTML)
    assert page.status_code in (400, 422)
    assert "<h1>" in page.text


@pytest.mark.parametrize(
    "body",
    [
        {"ids": [], "label": "a"},
        {"ids": [0], "label": "a"},
        {"ids": [2**70], "label": "a"},
        {"ids": [1], "label": ""},
        {"ids": [1], "label": "a" * 81},
        {"ids": [1], "label": "a\nb"},
        {"ids": [999], "label": "a"},
        {"ids": [1]},
        {"ids": [1], "label": "a", "author": "bob"},
    ],
)
def test_wrong_labels_are_refused_and_nothing_is_stored(client, body):
    answer = client.post("/api/labels", json=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]
    assert client.get("/api/count?show=labelled").json() == {"n": 0}


def test_an_empty_library_says_what_to_do(tmp_path):
    Library(tmp_path / "empty.db", create=True).close()
    with client_of(tmp_path / "empty.db") as client:
        assert "holds no particles yet" in client.get("/label", headers=HTML).text
        assert "No particle has a label yet" in client.get("/train", headers=HTML).text
        assert client.get("/nothing", headers=HTML).status_code == 404


def test_training_without_labels_is_refused_in_words(client, tmp_path):
    answer = client.post("/api/train", json={})
    assert answer.status_code == 400
    assert "has a label" in answer.json()["detail"]
    for action in ("stop", "resume"):
        assert client.post(f"/api/train/{action}").status_code == 400
    assert client.get("/api/train").json()["state"] == "none"
    assert not (tmp_path / "p-models").exists()


# ---- who may ask ----


def addresses(app):
    """Every route with its methods, and one file of the mount."""
    schema = [("GET", "/static/app.css"), ("GET", "/"), ("GET", "/label"), ("GET", "/train"), ("GET", "/nothing")]
    for path, methods in app.openapi()["paths"].items():
        schema += [(method.upper(), path.replace("{particle_id}", "1")) for method in methods]
    return schema


def test_every_route_refuses_without_the_token(path):
    with client_of(path, Security(host="0.0.0.0", token=TOKEN)) as client:
        routes = addresses(client.app)
        assert len(routes) > 15
        for method, address in [*routes, ("GET", "/openapi.json")]:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "tumble_token=wrong"}):
                answer = client.request(method, address, headers=headers, follow_redirects=False)
                assert answer.status_code == 401, (method, address)
        assert client.get("/label?token=wrong", follow_redirects=False).status_code == 401
        assert client.get("/api/classes", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_token_in_the_address_becomes_a_cookie(path):
    with client_of(path, Security(host="0.0.0.0", token=TOKEN)) as client:
        answer = client.get(f"/label?sort=id&token={TOKEN.replace(' ', '+')}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/label?sort=id")
        assert "httponly" in answer.headers["set-cookie"].lower()
        assert client.get("/label", headers=HTML).status_code == 200
        away = client.get(f"//evil.example/?token={TOKEN.replace(' ', '+')}", follow_redirects=False)
        assert away.headers["location"][:1] == "/"
        assert away.headers["location"][:2] != "//"


def test_an_open_address_needs_a_token_that_cannot_be_guessed():
    with pytest.raises(ConfigError, match="needs a token"):
        Security(host="0.0.0.0")
    with pytest.raises(ConfigError, match="can be guessed"):
        Security(host="0.0.0.0", token="short")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", ""])
def test_another_host_is_refused(client, host):
    assert client.get("/label", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {CSRF_HEADER: "wrong"},
        {CSRF_HEADER: ""},
    ],
)
def test_a_request_from_another_site_changes_nothing(client, headers):
    answer = client.post("/api/labels", json={"ids": [1], "label": "a"}, headers=headers)
    assert answer.status_code == 403
    assert client.get("/api/count?show=labelled").json() == {"n": 0}


def test_the_page_itself_may_ask(client):
    headers = {"origin": ADDRESS, "sec-fetch-site": "same-origin"}
    assert client.post("/api/labels", json={"ids": [1], "label": "a"}, headers=headers).status_code == 200


def test_a_body_that_is_too_large_is_refused(path):
    with client_of(path, Security(max_body_bytes=1000)) as client:
        large = b'{"ids": [1], "label": "' + b"a" * 2000 + b'"}'
        headers = {"content-type": "application/json"}
        assert client.post("/api/labels", content=large, headers=headers).status_code == 413
        assert client.post("/api/labels", content=iter([large[:900], large[900:]]), headers=headers).status_code == 413
        assert client.get("/api/count?show=labelled").json() == {"n": 0}


def test_no_address_leads_out_of_the_static_files(client):
    for address in (
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/crops/../../etc/passwd",
    ):
        assert client.get(address).status_code in (404, 405, 422)


def test_the_package_and_its_help_need_no_extra():
    code = "import sys, tumble.cli; assert not {'fastapi', 'starlette', 'uvicorn', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_missing_extra_is_said_in_one_sentence(path):
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        f"sys.argv = ['tumble', 'app', {str(path)!r}]\nfrom tumble.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert 'pip install "tumble[app]"' in " ".join(done.stderr.split())


@pytest.mark.parametrize("with_model", [False, True])
def test_the_first_visit_finds_statements_and_templates_compiled(path, monkeypatch, with_model):
    if with_model:
        predict(path)
    label_routes.templates.env.cache.clear()
    with client_of(path) as visitor:
        dialect, compiled, loaded = visitor.app.state.library._database.engine.dialect, [], []
        compiler, get_source = dialect.statement_compiler, label_routes.templates.env.loader.get_source

        def noted(*given, **named):
            compiled.append(given[1])
            return compiler(*given, **named)

        def read(environment, template):
            loaded.append(template)
            return get_source(environment, template)

        monkeypatch.setattr(dialect, "statement_compiler", noted)
        monkeypatch.setattr(label_routes.templates.env.loader, "get_source", read)
        assert visitor.get("/label", headers=HTML).status_code == 200
        assert not loaded
        assert not compiled, [str(statement) for statement in compiled]
