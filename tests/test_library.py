"""What is stored comes back unchanged, and what must not be stored is refused."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from helpers_library import make_micrograph, make_particles, make_predictions, make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tumble.errors import DataError, LabelError, LibraryError
from tumble.library import Library
from tumble.library import images as library_images
from tumble.types import Micrograph, Particles

once = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def library(tmp_path):
    with Library(tmp_path / "particles.db", create=True) as opened:
        yield opened


@pytest.fixture
def filled(library):
    library.add_micrograph(make_micrograph(0), make_particles(5, seed=0))
    library.add_micrograph(make_micrograph(1, pixel_size_nm=None), make_particles(4, seed=1))
    return library


def test_a_micrograph_comes_back_unchanged(filled):
    given_particles = make_particles(4, seed=1)
    frame = filled.particles(micrograph_id=2)
    assert list(frame.index) == [6, 7, 8, 9]
    assert frame["label"].tolist() == [None] * 4
    measured = frame.drop(columns=["micrograph_id", "label"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(measured, given_particles.table, check_exact=True)
    np.testing.assert_array_equal(filled.crops(frame.index), given_particles.crops)
    outlines = filled.outlines(2)
    assert list(outlines) == [6, 7, 8, 9]
    for mine, stored in zip(given_particles.outlines, outlines.values(), strict=True):
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(mine, stored)
    expected = np.where(given_particles.mask > 0, given_particles.mask + 5, 0)
    masks = filled.particle_masks(2)
    assert masks.dtype == np.int32
    np.testing.assert_array_equal(masks, expected)


def test_the_table_of_micrographs(filled):
    table = filled.micrographs()
    assert table.index.name == "micrograph_id"
    first = table.loc[1]
    assert first["source"] == "grid/particles ünder 0.tif"
    assert (first["height_px"], first["width_px"], first["n_particles"]) == (40, 56, 5)
    assert first["pixel_size_nm"] == 1.5
    assert np.isnan(table.loc[2, "pixel_size_nm"])
    assert first["notes"] == ("converted from RGB",)
    assert first["extraction"] == {"threshold": "local", "crop_size": 8, "window": [1, 2]}
    assert first["metadata"] == make_micrograph(0).metadata
    assert first["added_at"].endswith("+00:00")


def test_an_empty_library_has_empty_tables(library):
    assert library.micrographs().empty
    assert list(library.particles().columns) == ["micrograph_id", "label"]
    assert library.crops().shape[0] == 0
    assert library.current_labels().empty
    assert library.label_history().empty
    assert library.models().empty
    assert library.info()["particles"] == 0


def test_a_micrograph_without_particles(library):
    micrograph_id = library.add_micrograph(make_micrograph(), make_particles(0))
    frame = library.particles()
    assert frame.empty
    assert frame["area_px"].dtype == np.float64
    assert library.crops().shape == (0, 8, 8)
    assert library.outlines(micrograph_id) == {}
    assert not library.particle_masks(micrograph_id).any()


def test_tables_with_different_columns_are_joined(library):
    library.add_micrograph(make_micrograph(0), make_particles(3))
    other = make_particles(2)
    table = other.table[["area_px", "touches_border"]].assign(kind=["a", None])
    library.add_micrograph(make_micrograph(1), Particles(other.crops, table, other.mask, other.outlines, {}))
    frame = library.particles()
    assert frame["count_of_holes"].tolist()[:3] == make_particles(3).table["count_of_holes"].tolist()
    assert frame["count_of_holes"].isna().tolist() == [False, False, False, True, True]
    assert frame["touches_border"].dtype == bool
    assert frame.loc[4, "kind"] == "a"


def test_adding_a_micrograph_again_changes_nothing(filled, caplog):
    before = filled.particles()
    with caplog.at_level(logging.INFO, logger="tumble.library"):
        assert filled.add_micrograph(make_micrograph(0), make_particles(5)) == 1
    assert "already in" in caplog.text
    assert "other settings" not in caplog.text
    changed = make_particles(2)
    changed = Particles(changed.crops, changed.table, changed.mask, changed.outlines, {"threshold": "otsu"})
    assert filled.add_micrograph(make_micrograph(0), changed) == 1
    assert "other settings" in caplog.text
    pd.testing.assert_frame_equal(filled.particles(), before)


def test_progress_is_reported(library, monkeypatch):
    monkeypatch.setattr(library_images, "CHUNK", 2)
    calls = []
    library.add_micrograph(make_micrograph(), make_particles(5), progress=lambda *done: calls.append(done))
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_crops_follow_the_order_of_the_ids(filled, monkeypatch):
    monkeypatch.setattr(library_images, "CHUNK", 2)
    everything = filled.crops()
    assert everything.shape == (9, 8, 8)
    np.testing.assert_array_equal(filled.crops([9, 1, 4, 1]), everything[[8, 0, 3, 0]])
    assert filled.crops([]).shape == (0, 8, 8)
    with pytest.raises(LibraryError, match="no particle with id 0, 77"):
        filled.crops([1, 77, 0])
    with pytest.raises(LibraryError, match="integers"):
        filled.crops([1.5])


def test_crops_of_different_sides_do_not_fit_one_array(library):
    library.add_micrograph(make_micrograph(0), make_particles(2, side=8))
    library.add_micrograph(make_micrograph(1), make_particles(2, side=6))
    assert library.crops([3, 4]).shape == (2, 6, 6)
    with pytest.raises(LibraryError, match="6, 8 px"):
        library.crops()


def test_unknown_micrographs_are_named(filled):
    for method in (filled.outlines, filled.particle_masks, filled.micrograph_preview, filled.particles):
        with pytest.raises(LibraryError, match="no micrograph with id 5"):
            method(5)


def test_the_preview_keeps_small_8_bit_images(filled):
    preview, scale = filled.micrograph_preview(1)
    np.testing.assert_array_equal(preview, make_micrograph(0).pixels)
    assert scale == 1.0


def test_the_preview_averages_blocks_and_scales_the_intensity_range(library, monkeypatch):
    monkeypatch.setattr(library_images, "PREVIEW_SIDE_PX", 4)
    pixels = np.full((6, 9), 1000.0, dtype=np.float32)
    pixels[0:3, 3:6] = 3000.0
    pixels[3:6, 6:9] = 9000.0  # above the range
    micrograph = Micrograph(pixels, "a", "b" * 64)
    found = make_particles(1, shape=(6, 9))
    parameters = {"intensity_range": [1000.0, 5000.0]}
    library.add_micrograph(micrograph, Particles(found.crops, found.table, found.mask, found.outlines, parameters))
    preview, scale = library.micrograph_preview(1)
    assert preview.tolist() == [[0, 128, 0], [0, 0, 255]]
    assert scale == 1 / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((3, 3), np.int32)}, "mask of shape"),
        ({"mask": np.full((40, 56), 9, np.int32)}, "labels outside 0..2"),
        ({"crops": np.zeros((2, 4, 5), np.uint8)}, r"crops must be uint8 \(n, S, S\)"),
        ({"crops": np.zeros((2, 4, 4), np.float32)}, "crops must be uint8"),
        ({"crops": np.zeros((3, 4, 4), np.uint8)}, "2 particles are measured, but there are 3 crops"),
        ({"table": pd.DataFrame({"area_px": ["a", "b"]})}, "'area_px' of the particle table is not numeric"),
        ({"table": pd.DataFrame({"label": [1, 2]})}, "columns named label"),
    ],
)
def test_parts_that_do_not_fit_are_refused(library, change, message):
    found = make_particles(2)
    values = {name: getattr(found, name) for name in ("crops", "table", "mask", "outlines", "parameters")}
    with pytest.raises(DataError, match=message):
        library.add_micrograph(make_micrograph(), Particles(**(values | change)))
    assert library.info()["micrographs"] == 0


@once
@given(
    crops=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5)),
    outline=hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(2))),
)
def test_any_crop_and_outline_come_back_unchanged(crops, outline):
    side = min(crops.shape)
    crop = crops[None, :side, :side]
    found = make_particles(1)
    found = Particles(crop, found.table, found.mask, (outline,), {})
    with Library("sqlite://", create=True) as library:
        library.add_micrograph(make_micrograph(), found)
        np.testing.assert_array_equal(library.crops(), crop)
        assert library.outlines(1)[1].tobytes() == outline.tobytes()


texts = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5)


@once
@given(entries=st.lists(st.lists(st.tuples(st.integers(1, 4), st.none() | texts), max_size=4), max_size=6))
def test_the_newest_label_wins(entries):
    expected: dict[int, str | None] = {}
    with Library("sqlite://", create=True) as library:
        library.add_micrograph(make_micrograph(), make_particles(4))
        for batch in entries:
            ids, values = [i for i, _ in batch], [value for _, value in batch]
            assert library.add_labels(ids, values, author="a", source="b") == len(batch)
            expected |= dict(batch)
        known = {i: label for i, label in expected.items() if label is not None}
        assert library.current_labels().to_dict() == known
        assert library.particles()["label"].tolist() == [known.get(i) for i in range(1, 5)]
        history = library.label_history()
        assert list(zip(history["particle_id"], history["label"], strict=True)) == [
            entry for batch in entries for entry in batch
        ]
        assert history.index.is_monotonic_increasing


def test_labels_of_integers_are_kept_as_text(filled):
    filled.add_labels(np.array([1, 9]), np.array([3, 12]), author="me", source="array")
    filled.add_labels(pd.Index([2]), pd.Series([" rod "]), author="me", source="series")
    assert filled.current_labels().to_dict() == {1: "3", 2: "rod", 9: "12"}
    assert filled.particles(2)["label"].tolist() == [None, None, None, "12"]
    assert filled.label_history(9)[["label", "author", "source"]].values.tolist() == [["12", "me", "array"]]


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        ([1, 99, 98], ["a", "b", "c"], "no particle with id 98, 99"),
        ([1, 2], ["a"], "2 particle ids but 1 labels"),
        ([1], "a", "must be a sequence"),
        ([1], [""], "'' is not a label"),
        ([1], ["  "], "is not a label"),
        ([1], ["a\nb"], "is not a label"),
        ([1], [float("nan")], "nan is not a label"),
        ([1], [True], "True is not a label"),
        ([1.0], ["a"], "integers"),
        (["1"], ["a"], "integers"),
        ([2**63], ["a"], "not the id"),
        ([2**70], ["a"], "integers"),
    ],
)
def test_wrong_labels_are_refused_and_nothing_is_stored(filled, ids, labels, message):
    with pytest.raises(LabelError, match=message):
        filled.add_labels(ids, labels, author="me", source="test")
    assert filled.label_history().empty


def test_labels_need_an_author(filled):
    with pytest.raises(LabelError, match="author"):
        filled.add_labels([1], ["a"], author=" ", source="x")


def assert_same_record(one, other):
    for name in one.__dataclass_fields__:
        mine, stored = getattr(one, name), getattr(other, name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == stored.dtype
            np.testing.assert_array_equal(mine, stored)
        else:
            assert mine == stored, name


def test_a_model_comes_back_unchanged_and_the_newest_wins(library):
    with pytest.raises(LibraryError, match="no model yet"):
        library.model_record()
    library.add_model(make_record())
    assert_same_record(make_record(), library.model_record("first"))
    library.add_model(make_record("second", manifold=None, manifold_axis=None))
    assert library.model_record().name == "second"
    assert library.model_record().manifold is None
    library.add_model(make_record(fit_seconds=1.0))
    assert library.model_record("first").fit_seconds == 1.0
    assert library.models()["name"].tolist() == ["first", "second", "first"]
    with pytest.raises(LibraryError, match=r"no model named 'third'. It has: first, second"):
        library.model_record("third")
    with pytest.raises(LibraryError, match="needs a name"):
        library.add_model(make_record(" "))


def test_numpy_values_in_a_configuration_are_stored_and_objects_are_refused(library):
    library.add_model(make_record(config={"a": np.float32(0.5), "b": np.arange(2)}))
    assert library.model_record().config == {"a": 0.5, "b": [0, 1]}
    with pytest.raises(LibraryError, match="type set cannot be stored as JSON"):
        library.add_model(make_record(config={"a": {1, 2}}))
    assert len(library.models()) == 1


def test_the_evaluation_of_a_model_is_replaced(library):
    library.add_model(make_record())
    evaluation = {"balanced_accuracy": 0.75, "confusion": [[3, 1], [0, 4]], "classes": ["a", "b"]}
    library.update_evaluation("first", {"balanced_accuracy": 0.1})
    library.update_evaluation("first", evaluation)
    assert library.model_record().evaluation == evaluation
    assert library.models()["balanced_accuracy"].tolist() == [0.75]
    with pytest.raises(LibraryError, match="no model named"):
        library.update_evaluation("x", {})


def assert_same_predictions(one, other):
    assert one.classes == other.classes
    for name in ("probabilities", "latent"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in one.pose.__dataclass_fields__:
        mine, stored = getattr(one.pose, name), getattr(other.pose, name)
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(mine, stored)


def test_predictions_come_back_unchanged_and_are_replaced(filled):
    filled.add_model(make_record())
    ids, found = filled.predictions()
    assert len(ids) == len(found) == 0
    assert found.probabilities.shape == (0, 3)
    filled.add_predictions("first", np.arange(1, 10), make_predictions(9, seed=1))
    ids, found = filled.predictions("first")
    assert ids.tolist() == list(range(1, 10))
    assert_same_predictions(make_predictions(9, seed=1), found)
    filled.add_predictions("first", [3, 1], make_predictions(2, seed=2))
    ids, found = filled.predictions()
    assert ids.tolist() == list(range(1, 10))
    np.testing.assert_array_equal(found.latent[[2, 0]], make_predictions(2, seed=2).latent)
    np.testing.assert_array_equal(found.latent[3:], make_predictions(9, seed=1).latent[3:])


def test_particles_with_predictions(filled):
    filled.add_model(make_record())
    values = make_predictions(2)
    filled.add_predictions("first", [9, 2], values)
    frame = filled.particles(model="first")
    best = values.probabilities.argmax(axis=1)
    assert frame["predicted"].tolist() == [
        None, values.classes[best[1]], None, None, None, None, None, None, values.classes[best[0]]
    ]  # fmt: skip
    assert frame.loc[9, "probability"] == values.probabilities[0, best[0]]
    assert frame.loc[2, ["latent_0", "latent_1"]].tolist() == values.latent[1].tolist()
    assert frame.loc[9, ["shift_row_px", "shift_col_px"]].tolist() == values.pose.shift_px[0].tolist()
    assert np.isnan(frame.loc[1, "angle_rad"])
    assert filled.particles(2, model="first")["predicted"].notna().sum() == 1
    with pytest.raises(LibraryError, match="no model named"):
        filled.particles(model="x")


def test_wrong_predictions_are_refused(filled):
    filled.add_model(make_record())
    filled.add_model(make_record("other", classes=("a", "b", "c")))
    with pytest.raises(LibraryError, match="no particle with id 50"):
        filled.add_predictions("first", [1, 50], make_predictions(2))
    with pytest.raises(LibraryError, match="must match"):
        filled.add_predictions("first", [1, 1], make_predictions(2))
    with pytest.raises(LibraryError, match="do not belong to model 'other'"):
        filled.add_predictions("other", [1], make_predictions(1))
    assert filled.info()["predictions"] == 0


def test_the_ids_of_all_particles(filled):
    assert filled.particle_ids().tolist() == list(filled.particles().index) == list(range(1, 10))


def test_info_counts(filled):
    filled.add_labels([1, 2, 9], ["rod", "rod", "cube"], author="a", source="b")
    info = filled.info()
    assert info["size_bytes"] > 10_000
    assert info["schema_version"] == "0003"
    counts = {name: info[name] for name in ("micrographs", "particles", "models", "predictions", "labelled")}
    assert counts == {"micrographs": 2, "particles": 9, "models": 0, "predictions": 0, "labelled": 3}
    assert info["labels"] == {"cube": 1, "rod": 2}
