"""What a notebook shows: libraries, models and figures, each complete in itself."""

import base64
import html
import json
import re

import imagecodecs
import nbformat
import numpy as np
import pytest
from helpers_report import fill_library
from nbclient import NotebookClient
from sklearn import config_context

from tumble import RVAE, SSRVAEClassifier
from tumble.datasets import make_cards
from tumble.errors import NotFittedError
from tumble.library import Library, Query
from tumble.notebook import grey_levels, png_uri
from tumble.report.figures import size_figure

EVIL = "</script><img src=x onerror=alert(1)>"


def decoded(uri):
    return imagecodecs.png_decode(base64.b64decode(uri.partition(",")[2]))


@pytest.fixture(scope="module")
def cards():
    data = make_cards(4, random_state=0)
    return np.rint(255 * data.X[:, ::3, ::3]).astype(np.uint8), data.y


@pytest.fixture(scope="module")
def fitted(cards):
    names = np.array(["club", EVIL, "diamond", "heart"])[cards[1]]
    return SSRVAEClassifier(max_epochs=1, hidden=16, encoder_channels=(4, 8), random_state=0).fit(cards[0], names)


def test_a_gallery_shows_the_crops_that_the_query_finds(tmp_path):
    with Library(tmp_path / "a.db", create=True) as library:
        ids = fill_library(library, classes=("disc", EVIL), model=True)
        view = library.gallery(Query(particle_ids=tuple(ids[3:8]), limit=4))
        crops = library.crops(ids[3:7])
    uris = re.findall(r'src="(data:image/png[^"]+)"', view._repr_html_())
    assert len(uris) == 4
    for uri, crop in zip(uris, crops, strict=True):
        np.testing.assert_array_equal(decoded(uri), crop)
    assert "4 of 5 particles" in view.markup
    assert "<script" not in view.markup
    assert EVIL not in view.markup
    assert html.escape(EVIL) in view.markup
    assert "http" not in view.markup


def test_a_gallery_of_nothing_and_of_nobodys_labels(tmp_path):
    with Library(tmp_path / "a.db", create=True) as library:
        assert "0 particles" in library.gallery().markup
        fill_library(library)
        view = library.gallery()
    assert "40 particles" in repr(view)
    assert "dotted" in view.markup
    assert "dashed" not in view.markup


def test_the_explorer_holds_what_the_model_draws(fitted):
    view = fitted.explore(n=3, extent=1.5)
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', view._repr_html_())[1])
    content = json.loads(re.search(r"const content = (\{.*\});", page)[1])
    assert [entry["name"] for entry in content["classes"]] == fitted.classes_.tolist()
    assert content["axis"] == [-1.5, 0.0, 1.5]
    assert content["rotation"]
    assert content["translation"]
    drawn = fitted.traverse(n=3, extent=1.5)
    side = drawn.shape[-1]
    np.testing.assert_array_equal(
        decoded(content["sheets"][2])[side : 2 * side, 2 * side :], grey_levels(drawn)[2, 1, 2]
    )
    # The name of a class must not end the script.
    assert page.count("</script>") == 1


def test_the_repr_of_an_estimator_says_what_came_of_the_fit(fitted, cards):
    text = fitted._repr_html_()
    assert "1 epochs" in text
    assert text.count("data:image/png") == 4
    assert EVIL not in text
    assert fitted._repr_mimebundle_()["text/html"].count("data:image/png") == 4
    assert "trained" not in SSRVAEClassifier()._repr_html_()
    with config_context(display="text"):
        assert "text/html" not in fitted._repr_mimebundle_()
    model = RVAE(max_epochs=1, hidden=16, encoder_channels=(4, 8), invariances=("rotation",)).fit(cards[0])
    assert "all objects" in model._repr_html_()
    assert '"translation": false' in html.unescape(model.explore(n=2).markup)


def test_what_is_not_fitted_cannot_be_explored():
    with pytest.raises(NotFittedError, match="call fit"):
        SSRVAEClassifier().explore()


def test_grey_levels_keep_what_lies_within_zero_and_one():
    np.testing.assert_array_equal(grey_levels(np.array([0.0, 0.5, 1.0])), [0, 127, 255])
    wide = grey_levels(np.linspace(-300, 900, 10_000))
    assert wide[0] == 0
    assert wide[-1] == 255
    assert grey_levels(np.full(4, 7.0)).shape == (4,)
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(png_uri(colours)), colours)


def test_figures_show_themselves_without_pyplot():
    figure = size_figure([1.0, 2.0, 3.0], ["a", None, "a"])
    picture = imagecodecs.png_decode(figure._repr_png_())
    assert picture.shape[1] == 960
    assert len(np.unique(picture)) > 10


@pytest.mark.slow
def test_a_notebook_shows_figure_and_gallery(tmp_path):
    with Library(tmp_path / "a.db", create=True) as library:
        fill_library(library, classes=("disc",))
    cells = [
        "from tumble import Library\nfrom tumble.report.figures import size_figure",
        "size_figure([1.0, 2.0, 3.0], ['a', 'b', 'a'])",
        "Library('a.db').gallery()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [cell.outputs[0].data for cell in notebook.cells[1:]]
    assert "image/png" in shown[0]
    assert "40 particles" in shown[1]["text/html"]
