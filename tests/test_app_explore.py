"""The views of Explore: their numbers against the library's own, their links, exports, and what they refuse."""

from __future__ import annotations

import base64
import csv
import gzip
import html
import io
import re

import numpy as np
import pandas as pd
import pytest
from helpers_app import fill
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi")
pytest.importorskip("bokeh")

from test_app import HTML, client_of, ids_of, predict

from tumble.app.explore import VIEWS, scatter
from tumble.app.explore.histograms import make_histograms
from tumble.errors import ConfigError
from tumble.library import Library

PAGES = ("/explore/scatter", "/explore/sizes", "/explore/micrograph")
PNG, SVG = b"\x89PNG\r\n\x1a\n", b"<?xml"


@pytest.fixture
def path(tmp_path):
    """Two micrographs, one with a pixel size; a model and some labels."""
    path = fill(tmp_path / "p.db")
    fill(path, n=40, seed=1, pixel_size_nm=0.5)
    predict(path)
    with Library(path) as library:
        library.add_labels([1, 2, 70], ["rod", "disc", "disc"], author="ann", source="test")
        library.put_class("disc", "#123456")
    return path


@pytest.fixture
def client(path):
    with client_of(path) as opened:
        yield opened


def rows_of(answer):
    assert answer.status_code == 200, answer.text
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


def drawn(answer):
    """Return the columns of the plot as a browser would read them."""
    assert answer.status_code == 200, answer.text
    found = answer.json()

    def source(node):
        if isinstance(node, dict):
            if node.get("attributes", {}).get("name") == "particles":
                return node["attributes"]["data"]
            node = list(node.values())
        hits = [source(part) for part in node] if isinstance(node, list) else []
        return next((hit for hit in hits if hit is not None), None)

    columns = {}
    for name, array in source(found["item"])["entries"]:
        raw = base64.b64decode(array["array"]["data"])
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw  # Bokeh packs them where it helps
        columns[name] = np.frombuffer(raw, array["dtype"])
    return found, columns


def test_every_view_is_on_the_start_page(client):
    page = client.get("/explore", headers=HTML)
    assert page.status_code == 200
    assert 'aria-current="page">Explore' in page.text
    for view in VIEWS:
        assert page.text.count(f'href="{view.path}"') == 2
        shown = client.get(view.path, headers=HTML)
        assert shown.status_code == 200, view.path
        assert f'<a href="{view.path}" aria-current="page">{view.title}</a>' in shown.text


def test_the_scatter_draws_what_the_library_says(client, path):
    found, columns = drawn(client.get("/api/explore/scatter"))
    with Library(path) as library:
        latents, _ = library.latents("first")
        colours = library.classes()["colour"].to_dict()
    np.testing.assert_array_equal(columns["id"], latents.index)
    np.testing.assert_allclose(columns["x"], latents["latent_0"])
    np.testing.assert_allclose(columns["y"], latents["latent_1"])
    groups = {group["name"]: group for group in found["legend"]["groups"]}
    assert {name: group["n"] for name, group in groups.items()} == latents["predicted"].value_counts().to_dict()
    assert groups["rod"]["colour"] == colours["rod"]
    order = list(dict.fromkeys([*colours, "rod", "sphere", "cube"]))
    assert [order[int(i)] for i in columns["c"]] == latents["predicted"].tolist()
    assert (found["n"], found["total"], found["sampled"]) == (100, 100, False)


def test_the_scatter_is_coloured_by_what_is_known(client, path):
    with Library(path) as library:
        latents, _ = library.latents("first")
    found, columns = drawn(client.get("/api/explore/scatter?colour=label&x=z2&y=probability"))
    np.testing.assert_allclose(columns["x"], latents["latent_1"])
    np.testing.assert_allclose(columns["y"], latents["probability"], rtol=1e-6)
    assert np.isfinite(columns["c"]).sum() == 3
    assert {group["name"]: group["n"] for group in found["legend"]["groups"]} == {"disc": 2, "rod": 1}
    assert found["legend"]["missing"] == 97
    found, columns = drawn(client.get("/api/explore/scatter?colour=size&y=size"))
    # Sizes are in nm, and 60 particles are of an image without a pixel size.
    assert (found["n"], found["left_out"]) == (40, 60)
    assert "nm" in found["legend"]["title"]
    np.testing.assert_allclose(columns["c"], latents["equivalent_diameter_nm"].dropna())
    found, _ = drawn(client.get("/api/explore/scatter?colour=micrograph"))
    assert [(g["name"], g["n"]) for g in found["legend"]["groups"]] == [("1 · grid 0.tif", 60), ("2 · grid 1.tif", 40)]
    found, _ = drawn(client.get("/api/explore/scatter?colour=novelty"))
    assert found["legend"]["missing"] == 100


def test_a_large_library_is_shown_as_a_sample_that_says_so(client, monkeypatch):
    monkeypatch.setattr(scatter, "MOST_POINTS", 10)
    found, columns = drawn(client.get("/api/explore/scatter"))
    assert (found["n"], found["total"], found["sampled"], len(columns["id"])) == (10, 100, True, 10)


def test_the_table_of_the_scatter_is_of_what_is_shown(client, path):
    everything = rows_of(client.get("/explore/scatter.csv"))
    assert len(everything) == 100
    with Library(path) as library:
        latents, _ = library.latents("first")
    assert [float(row["z2"]) for row in everything] == latents["latent_1"].tolist()
    inside = rows_of(client.get("/explore/scatter.csv?at=-0.5,0.5,-1,1"))
    expected = latents[latents["latent_0"].between(-0.5, 0.5) & latents["latent_1"].between(-1, 1)]
    assert 0 < len(inside) < 100
    assert [int(row["particle_id"]) for row in inside] == expected.index.tolist()
    assert [row["particle_id"] for row in rows_of(client.get("/explore/scatter.csv?selected=3,80"))] == ["3", "80"]


def test_a_page_with_a_plot_allows_only_styles_with_its_nonce(client):
    pages = [client.get("/explore/scatter", headers=HTML) for _ in range(2)]
    policies = [page.headers["content-security-policy"] for page in pages]
    assert policies[0] != policies[1]
    for page, policy in zip(pages, policies, strict=True):
        nonce = re.search(r'name="style-nonce" content="([\w-]+)"', page.text)[1]
        assert f"style-src 'self' 'nonce-{nonce}'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        script = re.search(r'src="(/bokeh/[^"]+)"', page.text)[1]
        assert "https://" not in page.text
    served = client.get(script)
    assert served.headers["content-type"].startswith("text/javascript")
    assert len(served.content) > 100_000


BAR = re.compile(r'<a href="([^"]+)" aria-label="([^"]+), ([\d.e-]+) to ([\d.e-]+) (nm|px): (\d+)"')


@pytest.mark.parametrize(
    "query", ["", "unit=px", "unit=px&edge=in", "by=label&unit=px", "by=label&width=0.37&edge=in", "width=0.01"]
)
def test_every_bar_opens_as_many_particles_as_it_counts(client, query):
    page = client.get(f"/explore/sizes?{query}", headers=HTML)
    bars = BAR.findall(page.text)
    assert len(bars) > 3
    opened = []
    for href, _, low, high, unit, n in bars:
        address = html.unescape(href).replace("/label?", "/api/particles?")
        sizes = client.get(f"{address}&limit=500").json()["particles"]
        assert len(sizes) == int(n)
        assert all(float(low) <= one[f"diameter_{unit}"] < float(high) for one in sizes)
        opened += [one["id"] for one in sizes]
    assert len(set(opened)) == len(opened)
    table = rows_of(client.get(f"/explore/sizes.csv?{query}"))
    assert sum(int(row["n"]) for row in table) == len(opened)
    assert f"n = {sum(int(n) for *_, n in bars if _[1] == bars[0][1])}," in page.text


def test_sizes_are_in_nm_where_they_are_known_and_cut_off_ones_are_left_out(client, path):
    with Library(path) as library:
        sizes = library.sizes("first")
    whole = sizes[sizes["equivalent_diameter_nm"].notna() & ~sizes["touches_border"]]
    assert 0 < len(whole) < 40
    for query, n in (("", len(whole)), ("edge=in", 40), ("unit=px&edge=in", 100)):
        assert sum(int(row["n"]) for row in rows_of(client.get(f"/explore/sizes.csv?{query}"))) == n
    page = client.get("/explore/sizes", headers=HTML).text
    assert "60 particles without a size in nm are left out" in page
    assert f"Cut off by an edge ({40 - len(whole)})" in page


@given(
    st.lists(st.floats(0.5, 200), min_size=1, max_size=40),
    st.sampled_from([None, 0.1, 0.3, 0.7, 1.0, 7.0]),
    st.booleans(),
)
def test_bins_hold_every_size_once(sizes, width, whole_only):
    n = len(sizes)
    table = pd.DataFrame(
        {
            "equivalent_diameter_px": sizes,
            "touches_border": np.arange(n) % 5 == 4,
            "label": pd.Series([["a", "b", None][i % 3] for i in range(n)], dtype=object),
        }
    )
    try:
        found = make_histograms(
            table, "label", colours={"a": "#111111", "b": "#222222"}, unit="px", width=width, whole_only=whole_only
        )
    except ConfigError:
        assert width is not None
        assert (max(sizes) - min(sizes)) / width > 390
        return
    assert np.all(np.diff(found.edges) > 0)
    counted = []
    for group in found.groups:
        for i, ids in enumerate(group.ids):
            for particle in ids.tolist():
                assert found.edges[i] <= sizes[particle] < found.edges[i + 1]
                assert table["label"][particle] == group.name
                counted.append(particle)
    assert sorted(counted) == [i for i in range(n) if not (whole_only and i % 5 == 4)]


def test_the_micrograph_has_the_outlines_and_classes_of_its_particles(client, path):
    with Library(path) as library:
        table, lines = library.particles(2, "first"), library.outlines(2)
    found = client.get("/api/explore/micrograph?micrograph=2").json()
    assert (found["height"], found["width"], found["pixel_size_nm"]) == (100, 200, 0.5)
    assert [one["id"] for one in found["particles"]] == list(range(61, 101))
    for one in found["particles"]:
        np.testing.assert_allclose(np.reshape(one["outline"], (-1, 2)), lines[one["id"]], atol=0.05)
    classes = {
        by: {
            one["id"]: one["class"]
            for one in client.get(f"/api/explore/micrograph?micrograph=2&by={by}").json()["particles"]
        }
        for by in ("known", "class", "label")
    }
    assert classes["class"] == table["predicted"].to_dict()
    assert classes["label"] == {i: "disc" if i == 70 else None for i in range(61, 101)}
    assert classes["known"] == {**table["predicted"].to_dict(), 70: "disc"}
    assert [one["id"] for one in found["particles"] if one["labelled"]] == [70]
    image = client.get("/explore/micrograph/2.png")
    assert (image.content[:8], image.headers["content-type"]) == (PNG, "image/png")
    rows = rows_of(client.get("/explore/micrograph.csv?micrograph=2"))
    assert [row["class"] for row in rows] == list(classes["known"].values())
    part = rows_of(client.get("/explore/micrograph.csv?micrograph=2&at=0,0,50,21"))
    assert [int(row["particle_id"]) for row in part] == [61, 62, 63]
    page = client.get("/explore/micrograph?micrograph=2&by=class&outlines=off", headers=HTML).text
    assert 'href="?micrograph=1&amp;by=class&amp;outlines=off"' in page


@pytest.mark.parametrize(
    "address",
    [
        "/explore/scatter.{}?colour=class&selected=1,2,3",
        "/explore/scatter.{}?colour=probability&x=size&at=0,20,-1,1",
        "/explore/scatter.{}?colour=novelty",
        "/explore/sizes.{}",
        "/explore/sizes.{}?by=label&unit=px",
        "/explore/micrograph.{}",
        "/explore/micrograph.{}?outlines=off",
        "/explore/micrograph.{}?micrograph=2&at=-20,10,90,40&by=label",
    ],
)
def test_every_view_is_exported_as_a_figure(client, address):
    for kind, start in (("png", PNG), ("svg", SVG)):
        answer = client.get(address.format(kind))
        assert answer.status_code == 200, answer.text
        assert answer.content.startswith(start)
        assert "attachment" in answer.headers["content-disposition"]
        assert answer.content == client.get(address.format(kind)).content  # the same state, the same figure


def test_links_to_exports_keep_the_state(client):
    page = client.get("/explore/sizes?by=label&width=0.5&unit=px", headers=HTML).text
    assert 'href="/explore/sizes.svg?by=label&amp;width=0.5&amp;unit=px"' in page


def test_html_in_names_is_text_in_every_view(client, path):
    name = "</script><img src=x onerror=alert(1)>\"'$x_"
    client.post("/api/labels", json={"ids": [3, 4, 75], "label": name})
    for address in (*PAGES, "/explore/sizes?by=label&unit=px", "/explore/sizes?by=label&width=0.2"):
        page = client.get(address, headers=HTML).text
        assert "<img src=x" not in page
        assert page.count("</script>") == page.count("<script")
    for address in ("/explore/scatter.svg?colour=label", "/explore/sizes.svg?by=label", "/explore/micrograph.svg"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert b"<img" not in answer.content
    link = next(href for href, *_ in BAR.findall(client.get("/explore/sizes?by=label&unit=px", headers=HTML).text))
    assert ids_of(client.get(html.unescape(link).replace("/label?", "/api/particles?")))


def test_another_model_is_shown_where_it_is_named(path):
    with Library(path) as library:
        from helpers_library import make_predictions, make_record

        library.add_model(make_record("second"))
        library.add_predictions("second", list(range(1, 51)), make_predictions(50, seed=9))
    with client_of(path) as client:
        for name, n in (("first", 100), ("second", 50)):
            assert drawn(client.get(f"/api/explore/scatter?model={name}"))[0]["total"] == n
        for address in PAGES:
            page = client.get(f"{address}?model=first", headers=HTML).text
            assert "<option selected>first</option>" in page
            assert "<option>second</option>" in page
        # 50 particles were not classified by it; their bars open them all the same.
        page = client.get("/explore/sizes?model=second&unit=px&edge=in", headers=HTML).text
        bars = [bar for bar in BAR.findall(page) if bar[1] == "not classified"]
        assert sum(int(bar[5]) for bar in bars) == 50
        opened = [ids_of(client.get(html.unescape(bar[0]).replace("/label?", "/api/particles?"))) for bar in bars]
        assert sorted(i for ids in opened for i in ids) == list(range(51, 101))


def test_an_empty_library_says_what_to_do_in_every_view(tmp_path):
    Library(tmp_path / "empty.db", create=True).close()
    with client_of(tmp_path / "empty.db") as client:
        for address in ("/explore", *PAGES):
            page = client.get(address, headers=HTML)
            assert page.status_code == 200
            assert "holds no particles yet" in page.text
        for address in ("/explore/scatter.csv", "/explore/scatter.png", "/api/explore/scatter"):
            assert client.get(address).status_code == 400
        assert client.get("/api/explore/micrograph").status_code == 404
        assert client.get("/explore/micrograph.png").status_code == 404
        assert client.get("/explore/sizes.png").content[:8] == PNG
        assert client.get("/explore/sizes.csv").text == "class,from,to,unit,n\n"


def test_without_a_model_the_views_show_labels_or_say_what_is_missing(tmp_path):
    path = fill(tmp_path / "p.db")
    with client_of(path) as client:
        page = client.get("/explore/scatter", headers=HTML).text
        assert "No model has classified the particles yet" in page
        assert 'href="/train"' in page
        assert "without label" in client.get("/explore/sizes", headers=HTML).text
        assert {one["class"] for one in client.get("/api/explore/micrograph").json()["particles"]} == {None}
        assert client.get("/explore/micrograph.svg").status_code == 200
        answer = client.get("/explore/sizes?by=class")
        assert (answer.status_code, "Train one first" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/explore/scatter?colour=x", 400),
        ("/explore/scatter?at=1,2,3", 400),
        ("/explore/scatter?at=1,0,0,1", 400),
        ("/explore/scatter?at=nan,1,0,1", 400),
        ("/explore/scatter?selected=.xyz", 400),
        ("/explore/scatter?model=none", 400),
        ("/api/explore/scatter?x=z3", 400),
        ("/api/explore/scatter?y=latent_0", 400),
        ("/explore/scatter.gif", 422),
        ("/explore/sizes?by=x", 400),
        ("/explore/sizes?unit=m", 400),
        ("/explore/sizes?width=0", 400),
        ("/explore/sizes?width=inf", 400),
        ("/explore/sizes?width=1e-9", 400),
        ("/explore/sizes?width=1e-320", 400),
        ("/explore/sizes?edge=x", 400),
        ("/explore/micrograph?micrograph=9", 404),
        ("/explore/micrograph?micrograph=0", 422),
        ("/explore/micrograph?by=x", 400),
        ("/explore/micrograph?at=0,0,0,5", 400),
        ("/explore/micrograph?outlines=x", 400),
        ("/explore/micrograph.png?at=900,900,10,10", 400),
        ("/explore/micrograph/9.png", 404),
        ("/explore/micrograph/99999999999999999999.png", 422),
        ("/api/explore/micrograph?micrograph=9", 404),
        ("/explore/micrograph.csv?micrograph=9", 404),
        ("/explore/nothing", 404),
    ],
)
def test_wrong_addresses_are_refused_in_words(client, address, status):
    answer = client.get(address)
    assert answer.status_code == status
    assert len(answer.json()["detail"]) > 8
    page = client.get(address, headers=HTML)
    assert page.status_code == status
    assert "<h1>" in page.text
