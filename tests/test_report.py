"""The report shows what the library holds, is one safe file, and its figures carry the right numbers."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
from helpers_report import draw_discs, fill_library, make_predictions, make_record
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.container import BarContainer

from tumble.errors import LibraryError, TumbleError
from tumble.library import Library
from tumble.report import collect, write_report
from tumble.report import data as report_data
from tumble.report.encode import crop_uri, figure_uri
from tumble.report.figures import (
    Region,
    busiest_region,
    class_colours,
    confusion_figure,
    history_figure,
    latent_figure,
    manifold_figure,
    micrograph_figure,
    recall_figure,
    size_figure,
)
from tumble.report.html import render
from tumble.report.tables import class_rows, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLASSES = ("single", "dimer", "pile")
HOSTILE = "<script>alert('x')</script> & $\\frac$ _"


class Page(HTMLParser):
    """Tags with their attributes, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "

    def headings(self) -> int:
        return sum(tag == "h2" for tag, _ in self.tags)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "discs.db", create=True) as opened:
        yield opened


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# --- the page -----------------------------------------------------------------------------------------------


def test_full_page_shows_the_librarys_counts_and_names(library: Library, tmp_path: Path) -> None:
    fill_library(library, classes=CLASSES, model=True, evaluated=True, pixel_size_nm=2.0)
    path = write_report(library, tmp_path / "report.html", title="Gold & co")
    page = Page(path.read_text(encoding="utf-8"))
    text = words(page.text)
    assert text.count("Gold & co") == 2  # title and heading
    assert "1 micrograph 40 particles 40 labelled 10 labels trained with 3 classes" in text
    for name in (*CLASSES, "discs-0.tif", "m1", "most frequent class", "columns 100 to 199", "min_area_px"):
        assert name in text
    table = library.particles(model="m1")
    for name, count in table["predicted"].value_counts().items():
        labelled = (table["label"] == name).sum()
        assert f"{name} {count} {labelled}" in text
    evaluation = library.model_record("m1").evaluation
    assert evaluation is not None
    assert f"{evaluation['balanced_accuracy']:.3f} model m1" in text
    assert "0.333 baseline most frequent class" in text
    assert page.headings() == 9


def test_page_is_self_contained(library: Library, tmp_path: Path) -> None:
    fill_library(library, classes=CLASSES, model=True, evaluated=True)
    source = write_report(library, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
        if tag == "img":
            assert attributes["alt"]
    assert "url(" not in source
    assert "@import" not in source
    assert len(source) < 3e6


def test_hostile_names_are_shown_as_text(library: Library, tmp_path: Path) -> None:
    classes = (HOSTILE, "dimer")
    fill_library(library, classes=classes, model=True, evaluated=True)
    path = write_report(library, tmp_path / "report.html", title=HOSTILE)
    source = path.read_text(encoding="utf-8")
    assert "<script" not in source
    page = Page(source)
    assert HOSTILE in page.text
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img" and str(attributes["src"]).startswith("data:image/svg"):
            drawing = base64.b64decode(str(attributes["src"]).partition(",")[2])
            assert b"<script" not in drawing


def test_library_without_model_or_labels(library: Library, tmp_path: Path) -> None:
    fill_library(library)
    data = collect(library)
    assert data.record is None
    assert data.evaluation is None
    assert data.crops == {}
    page = Page(write_report(library, tmp_path / "report.html").read_text(encoding="utf-8"))
    text = words(page.text)
    assert "no model yet" in text
    assert "all particles 40" in text
    assert "Pixel size unknown" in text
    assert page.headings() == 3


def test_library_with_labels_but_no_model(library: Library) -> None:
    ids = fill_library(library)
    library.add_labels(ids[:4], ["b", "a", "b", "b"], author="tester", source="hand")
    data = collect(library)
    rows = {row.name: (row.predicted, row.labelled) for row in class_rows(data)}
    assert rows == {"a": (1, 1), "b": (3, 3), "unlabelled": (36, 0)}
    assert "colour by label" in render(data)


def test_model_without_evaluation_says_so(library: Library) -> None:
    fill_library(library, classes=CLASSES, model=True)
    page = Page(render(collect(library)))
    assert "has no evaluation" in words(page.text)
    assert "Disagreements" not in page.text
    assert "Confusion" not in page.text


def test_model_without_predictions_manifold_and_history(library: Library) -> None:
    ids = fill_library(library, classes=CLASSES)
    library.add_model(make_record("bare", CLASSES, ids, manifold=None, manifold_axis=None, history={}))
    data = collect(library)
    assert not data.has_predictions
    assert Page(render(data)).headings() == 3


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_other_latent_dimensions(library: Library, latent_dim: int) -> None:
    fill_library(library, classes=CLASSES, model=True, evaluated=True, latent_dim=latent_dim)
    data = collect(library)
    assert data.latent is not None
    assert data.latent.shape == (40, latent_dim)
    expected = "one row per class" if latent_dim == 1 else "first two of 3 latent coordinates"
    assert expected in render(data)


def test_one_class(library: Library) -> None:
    fill_library(library, classes=("single",), model=True, evaluated=True)
    data = collect(library)
    assert data.disagreements == ()
    assert "There are none." in render(data)


def test_particles_added_after_the_predictions_are_kept_apart(library: Library) -> None:
    fill_library(library, classes=CLASSES, model=True, evaluated=True)
    library.add_micrograph(*draw_discs(seed=1))
    data = collect(library)
    rows = class_rows(data)
    assert (rows[-1].name, rows[-1].predicted) == ("not predicted", 40)
    assert sum(row.predicted for row in rows) == 80
    assert len(data.views) == 2
    assert "not predicted" in render(data)


def test_disagreements_and_samples_are_those_of_the_table(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill_library(library, classes=CLASSES, model=True, evaluated=True)
    table = library.particles(model="m1")
    wrong = table[(table["label"] != table["predicted"]) & table.index.isin(ids[10:])]
    data = collect(library)
    assert set(data.disagreements) == set(wrong.index)
    assert list(table.loc[list(data.disagreements), "probability"].diff().dropna() <= 0) == [True] * (len(wrong) - 1)
    for sample in data.samples:
        members = table[table["predicted"] == sample.name]["probability"]
        assert sample.count == len(members)
        assert not set(sample.most) & set(sample.least)
        assert members[sample.most[0]] == members.max()
        assert members[(*sample.most, *sample.least)[-1 if not sample.least else len(sample.most)]] == members.min()
    assert np.array_equal(data.crops[data.disagreements[0]], library.crops([data.disagreements[0]])[0])
    monkeypatch.setattr(report_data, "MAX_DISAGREEMENTS", 2)
    assert f"Shown are 2 of {len(wrong)}" in words(Page(render(collect(library))).text)


def test_labels_changed_since_the_evaluation_are_mentioned(library: Library) -> None:
    ids = fill_library(library, classes=CLASSES, model=True, evaluated=True)
    assert "labels or predictions have changed" not in render(collect(library))
    wrong = collect(library).disagreements[0]
    predicted = library.particles(model="m1").loc[wrong, "predicted"]
    library.add_labels([wrong], [predicted], author="tester", source="second look")
    assert wrong in ids
    assert "labels or predictions have changed" in render(collect(library))


def test_crops_of_different_sides(library: Library) -> None:
    ids = fill_library(library, classes=CLASSES, model=True)
    micrograph, particles = draw_discs(seed=1)
    small = type(particles)(
        particles.crops[:, 4:-4, 4:-4],
        particles.table,
        particles.mask,
        particles.outlines,
        particles.parameters,
    )
    library.add_micrograph(micrograph, small)
    new = [int(key) for key in library.particles().index if key not in ids]
    library.add_predictions("m1", new, make_predictions(len(new), CLASSES, 2, seed=5))
    sides = {crop.shape for crop in collect(library).crops.values()}
    assert sides == {(24, 24), (16, 16)}


@pytest.mark.parametrize(
    ("baseline", "expected", "better"),
    [
        (0.2, "is ahead of the best baseline", True),
        (0.95, "is better, by", False),
        ("same", "no better", False),
    ],
)
def test_verdict_is_honest(library: Library, baseline: Any, expected: str, better: bool) -> None:
    fill_library(library, classes=CLASSES, model=True, evaluated=True)
    evaluation = dict(library.model_record("m1").evaluation or {})
    own = 0.5
    score = own if baseline == "same" else baseline
    evaluation |= {"balanced_accuracy": own, "confusion": [[5, 5, 0], [0, 10, 10], [5, 5, 10]]}
    evaluation["baselines"] = {"area tree": {"balanced_accuracy": score, "recall_per_class": {}}}
    library.update_evaluation("m1", evaluation)
    found = verdict(collect(library))
    assert found is not None
    assert found.scores == (("m1", own), ("area tree", score))
    assert expected in found.sentence
    assert "(single) is worth 0.033" in found.sentence
    assert found.better is better


# --- errors and files ---------------------------------------------------------------------------------------


def test_empty_library_is_an_error(library: Library, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="no particles"):
        write_report(library, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_unknown_model_is_an_error(library: Library, tmp_path: Path) -> None:
    fill_library(library, classes=CLASSES, model=True)
    with pytest.raises(TumbleError, match="nosuch"):
        write_report(library, tmp_path / "report.html", model="nosuch")


def test_missing_folder_is_an_error(library: Library, tmp_path: Path) -> None:
    fill_library(library)
    with pytest.raises(LibraryError, match="does not exist"):
        write_report(library, tmp_path / "nowhere" / "report.html")


def test_failed_write_leaves_the_old_report(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_library(library)
    target = tmp_path / "report.html"
    target.write_text("old", encoding="utf-8")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(LibraryError, match="No space left"):
        write_report(library, target)
    assert target.read_text(encoding="utf-8") == "old"
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:////home/someone/gold.db", "gold.db"),
        ("postgresql://me:***@lab.example/gold", "gold"),
        ("sqlite://", "library"),
        ("C:\\data\\gold.db", "gold.db"),
    ],
)
def test_database_name_has_no_folder_host_or_password(url: str, name: str) -> None:
    assert report_data._database_name(url) == name


# --- figures ------------------------------------------------------------------------------------------------


def outlines_drawn(figure: Any) -> int:
    lines = [item for item in figure.axes[0].collections if isinstance(item, LineCollection)]
    return sum(len(item.get_segments()) for item in lines)


def squares(*corners: tuple[int, int], side: int = 4) -> dict[int, np.ndarray]:
    shape = np.array([[0, 0], [0, side], [side, side], [side, 0], [0, 0]], float)
    return {index: shape + corner for index, corner in enumerate(corners)}


def test_micrograph_has_one_outline_per_particle_where_it_lies() -> None:
    outlines = squares((1, 2), (20, 50), (33, 0))
    figure = micrograph_figure(
        np.zeros((40, 60), np.uint8),
        outlines,
        {0: "a", 1: "b"},
        border={2},
        pixel_size_nm=2.0,
        image_scale=1.0,
    )
    assert outlines_drawn(figure) == 3
    first = figure.axes[0].collections[0]
    assert isinstance(first, LineCollection)
    assert first.get_segments()[0][0].tolist() == [2, 1]  # x is the column, y the row
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "a (1)",
        "b (1)",
        "no class (1)",
        "cut off by the edge (1)",
    ]
    assert [text.get_text() for text in figure.axes[0].texts] == ["20 nm"]


def test_micrograph_region_shows_only_what_overlaps_it() -> None:
    image = np.arange(240, dtype=np.uint8).reshape(12, 20)
    outlines = squares((0, 0), (6, 12), side=2)
    figure = micrograph_figure(
        image,
        {key: 2 * line for key, line in outlines.items()},
        {},
        image_scale=0.5,
        region=Region(12, 20, 12, 20),
    )
    assert outlines_drawn(figure) == 1
    shown = figure.axes[0].images[0]
    assert np.array_equal(shown.get_array(), image[6:12, 10:20])
    assert list(shown.get_extent()) == [19.5, 39.5, 23.5, 11.5]


def test_busiest_region_prefers_variety_to_number() -> None:
    outlines = squares((1, 1), (1, 10), (10, 1), (80, 80), (82, 90))
    classes = {0: "a", 1: "a", 2: "a", 3: "a", 4: "b"}
    region = busiest_region(outlines, classes, (100, 100), zoom=3)
    assert region.row + region.height == pytest.approx(100)
    assert region.column + region.width == pytest.approx(100)
    assert busiest_region({}, {}, (90, 90)) == Region(0.0, 0.0, 30.0, 30.0)


def test_size_histograms_count_every_particle_once_in_shared_bins() -> None:
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.lognormal(2, 0.5, 300), rng.lognormal(4, 0.5, 40), [np.nan]])
    names = ["small"] * 300 + ["large"] * 30 + [None] * 11
    figure = size_figure(sizes, names, colours=class_colours(["small", "large"]), unit="nm")
    bars = [panel.containers[0] for panel in figure.axes]
    assert all(isinstance(item, BarContainer) for item in bars)
    assert [sum(bar.get_height() for bar in item) for item in bars] == [300, 30, 10]
    edges = [[bar.get_x() for bar in item] for item in bars]
    assert edges[0] == edges[1] == edges[2]
    assert figure.axes[-1].get_xscale() == "log"
    assert "(nm)" in figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("sizes", [[], [3.0], [3.0, 3.0], [1.0, 100.0]])
def test_size_figure_with_few_particles(sizes: list[float]) -> None:
    figure = size_figure(sizes, ["a"] * len(sizes))
    assert sum(bar.get_height() for panel in figure.axes for item in panel.containers for bar in item) == len(sizes)
    assert figure_uri(figure).startswith("data:image/svg+xml;base64,")


def test_confusion_texts_are_the_counts_and_row_percentages() -> None:
    confusion = [[8, 2, 0], [1, 3, 0], [0, 0, 0]]
    figure = confusion_figure(confusion, CLASSES)
    left, right = ([text.get_text() for text in panel.texts] for panel in figure.axes)
    assert left == ["8", "2", "0", "1", "3", "0", "0", "0", "0"]
    assert right == ["80%", "20%", "0%", "25%", "75%", "0%", "–", "–", "–"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(CLASSES)


def test_recall_bars_have_the_given_heights() -> None:
    recalls = {"model": {"a": 0.9, "b": 0.5}, "baseline": {"a": 1.0}}
    figure = recall_figure(recalls, ["a", "b"], support={"a": 10, "b": 2})
    heights = [[bar.get_height() for bar in item] for item in figure.axes[0].containers]
    assert heights[0] == [0.9, 0.5]
    assert heights[1][0] == 1.0
    assert np.isnan(heights[1][1])
    assert figure.axes[0].get_xticklabels()[1].get_text() == "b\nn = 2"


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_latent_scatter_has_all_points_and_rings(dimensions: int) -> None:
    latent = np.random.default_rng(0).normal(size=(9, dimensions))
    latent[8] = np.nan
    names = ["a"] * 5 + ["b"] * 2 + [None, "a"]
    wrong = np.array([True] + [False] * 8)
    figure = latent_figure(latent, names, wrong=wrong)
    drawn = [item for item in figure.axes[0].collections if isinstance(item, PathCollection)]
    assert [len(np.asarray(item.get_offsets())) for item in drawn] == [5, 2, 1]
    assert np.allclose(np.asarray(drawn[2].get_offsets())[0, 0], latent[0, 0])
    assert np.allclose(np.asarray(drawn[1].get_offsets())[:, 0], latent[5:7, 0])


def test_manifold_tiles_z1_down_and_z2_to_the_right() -> None:
    manifold = np.zeros((2, 3, 3, 4, 5), np.uint8)
    manifold[1, 2, 0] = 200
    figure = manifold_figure(manifold, ["a", "b"], axis=np.array([-1.0, 0.0, 1.0]))
    tiled = np.asarray(figure.axes[1].images[0].get_array())
    assert tiled.shape == (12, 15)
    assert (tiled[8:12, 0:5] == 200).all()
    assert tiled.sum() == 200 * 20
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["−1", "0", "1"]
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == ("z1", "z2")


def test_history_groups_curves_of_any_name() -> None:
    history = {
        "loss": [3.0, float("nan"), 1.0],
        "elbo_a": [1.0],
        "elbo_b": [2.0],
        "empty": [],
        "_odd$": [1.0, 2.0],
    }
    figure = history_figure(history)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == ["loss", "elbo", " _odd\\$"]
    lines = [[line.get_ydata().tolist() for line in panel.get_lines()] for panel in figure.axes]
    assert lines[1] == [[1.0], [2.0]]
    assert lines[2] == [[1.0, 2.0]]
    assert figure.axes[0].get_lines()[0].get_xdata().tolist() == [1, 2, 3]
    assert figure_uri(history_figure({})).startswith("data:image/svg")


def test_figures_leave_matplotlibs_settings_alone() -> None:
    before = dict(mpl.rcParams)
    figure_uri(confusion_figure([[1]], ["a"]), kind="png")
    assert dict(mpl.rcParams) == before


def test_letters_missing_from_the_font_do_not_warn() -> None:
    assert figure_uri(confusion_figure([[1]], ["金"]), kind="jpg").startswith("data:image/jpeg;base64,")


def test_figure_images_are_reproducible() -> None:
    assert figure_uri(size_figure([1.0, 2.0], ["a", "a"])) == figure_uri(size_figure([1.0, 2.0], ["a", "a"]))


def test_crop_uri_is_a_png_of_the_same_pixels() -> None:
    imageio = pytest.importorskip("imageio.v3")
    crop = np.arange(64, dtype=np.uint8).reshape(8, 8)
    content = base64.b64decode(crop_uri(crop).partition(",")[2])
    assert np.array_equal(imageio.imread(content), crop)


def test_class_colours_differ_for_twelve_classes_and_start_over_after() -> None:
    colours = class_colours([f"class {index}" for index in range(14)])
    assert len(set(list(colours.values())[:12])) == 12
    assert colours["class 12"] == colours["class 0"]
