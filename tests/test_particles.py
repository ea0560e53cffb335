"""Particles of known size, place and direction; what crops show; what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tumble.errors import ConfigError, DataError
from tumble.micrograph import micrograph_from_array
from tumble.particles import extract_particles, measurement_columns


def scene(shape, ellipses, *, background=50.0, height=120.0, noise=3.0, blur=1.0):
    """Draw ellipses (row, column, major, minor, angle), blurred as by a microscope, on a noisy background."""
    fine = 4  # samples per pixel and axis, so that areas are true to a fraction of a pixel
    rows, columns = ((np.mgrid[: shape[0] * fine, : shape[1] * fine] + 0.5) / fine) - 0.5
    inside = np.zeros(rows.shape, bool)
    for row, column, major, minor, angle in ellipses:
        x, y = columns - column, row - rows  # as displayed: y up
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        inside |= np.hypot(2 * along / major, 2 * across / minor) <= 1
    covered = inside.reshape(shape[0], fine, shape[1], fine).mean(axis=(1, 3))
    image = background + height * ndimage.gaussian_filter(covered, blur)
    return image + np.random.default_rng(0).normal(scale=noise, size=shape)


def extract(image, **settings):
    pixel_size_nm = settings.pop("pixel_size_nm", None)
    micrograph = micrograph_from_array(
        np.clip(np.rint(image), 0, 255).astype(np.uint8) if image.dtype == np.float64 else image,
        source="scene",
        pixel_size_nm=pixel_size_nm,
    )
    return extract_particles(micrograph, **settings)


ELLIPSES = [(30, 40, 24, 12, 0.4), (35, 110, 30, 14, -1.2), (90, 50, 20, 20, 0), (95, 120, 26, 10, np.pi / 2)]
SHAPE = (130, 160)


def angle_between(a, b):
    """Angle between two axes, which have no sense of direction."""
    return np.abs((np.asarray(a) - b + np.pi / 2) % np.pi - np.pi / 2)


def test_ellipses_are_measured_as_drawn():
    table = extract(scene(SHAPE, ELLIPSES)).table
    assert len(table) == 4
    true = np.array(ELLIPSES)
    np.testing.assert_allclose(table[["centroid_row_px", "centroid_col_px"]], true[:, :2], atol=0.3)
    np.testing.assert_allclose(table["area_px"], np.pi / 4 * true[:, 2] * true[:, 3], rtol=0.06)
    np.testing.assert_allclose(table["major_axis_px"], true[:, 2], rtol=0.05)
    np.testing.assert_allclose(table["minor_axis_px"], true[:, 3], atol=0.8)
    np.testing.assert_allclose(table["feret_max_px"], true[:, 2], atol=1.5)
    long = true[:, 2] != true[:, 3]
    assert angle_between(table["orientation_rad"][long], true[long, 4]).max() < 0.04
    assert table["circularity"][2] == pytest.approx(1, abs=0.08)
    assert table["solidity"].min() > 0.9
    np.testing.assert_allclose(table["background_mean"], 50, atol=2)
    assert not table["touches_border"].any()
    assert not table["truncated"].any()


def test_orientation_follows_rot90():
    image = scene((80, 80), [(40, 40, 30, 12, 0.3)], noise=0)
    for quarter_turns in range(4):
        angle = extract(np.rot90(image, quarter_turns)).table["orientation_rad"][0]
        assert -np.pi / 2 < angle <= np.pi / 2
        assert angle_between(angle, 0.3 + quarter_turns * np.pi / 2) < 0.02


def test_axis_along_rows_is_plus_half_pi():
    image = np.full((40, 40), 20, np.uint8)
    image[10:30, 18:22] = 220
    table = extract(image, smoothing_px=0).table
    assert table["orientation_rad"][0] == pytest.approx(np.pi / 2)
    # A rectangle: second moments a^2/12, the same as those of an ellipse with axes 4 a / sqrt(12).
    assert table["major_axis_px"][0] == pytest.approx(4 * 20 / np.sqrt(12))
    assert table["area_px"][0] == 80
    assert table["extent"][0] == 1
    assert table["solidity"][0] == pytest.approx(1)


@pytest.mark.parametrize("convert", [lambda x: np.rint(200 * x).astype(np.uint16), lambda x: x / 7 - 30])
def test_other_types_give_the_same_particles(convert):
    image = scene(SHAPE, ELLIPSES)
    reference = extract(image)
    particles = extract(convert(image).astype(np.uint16 if convert(image).dtype.kind == "u" else np.float32))
    overlap = (particles.mask > 0) & (reference.mask > 0)
    assert overlap.sum() / ((particles.mask > 0) | (reference.mask > 0)).sum() > 0.98
    assert particles.crops.min() < 20
    assert particles.crops.max() > 235


def test_dark_particles_are_the_same_as_bright_ones():
    image = np.rint(scene(SHAPE, ELLIPSES)).astype(np.uint8)
    bright, dark = extract(image), extract(255 - image)
    assert (bright.parameters["polarity"], dark.parameters["polarity"]) == ("bright", "dark")
    np.testing.assert_array_equal(bright.mask, dark.mask)
    np.testing.assert_allclose(bright.table["contrast"], -dark.table["contrast"], atol=0.01)
    np.testing.assert_allclose(bright.crops.astype(int), 255 - dark.crops.astype(int), atol=1)


def test_size_does_not_depend_on_brightness_or_illumination():
    image = scene(SHAPE, [*ELLIPSES[:2], *[(r, c, 18, 18, 0) for r in (75, 105) for c in (30, 80, 130)]])
    uneven = image * np.linspace(0.6, 1.3, SHAPE[1])
    np.testing.assert_allclose(extract(uneven).table["area_px"], extract(image).table["area_px"], rtol=0.05)


def test_columns_in_nm_exist_only_with_a_pixel_size():
    image = scene(SHAPE, ELLIPSES)
    plain, scaled = extract(image).table, extract(image, pixel_size_nm=2.0).table
    assert list(plain.columns) == list(measurement_columns(False))
    assert list(scaled.columns) == list(measurement_columns(True))
    assert not [name for name in plain.columns if "nm" in name]
    np.testing.assert_allclose(scaled["area_nm2"], 4 * plain["area_px"])
    np.testing.assert_allclose(scaled["feret_max_nm"], 2 * plain["feret_max_px"])
    assert not scaled.isna().any().any()


def test_mask_table_and_outlines_agree():
    particles = extract(scene(SHAPE, ELLIPSES))
    assert particles.mask.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(particles.mask.ravel())[1:], particles.table["area_px"])
    for i, outline in enumerate(particles.outlines):
        np.testing.assert_array_equal(outline[0], outline[-1])
        rows, columns = np.nonzero(particles.mask == i + 1)
        np.testing.assert_allclose(outline.min(axis=0), [rows.min() - 0.5, columns.min() - 0.5])
        np.testing.assert_allclose(outline.max(axis=0), [rows.max() + 0.5, columns.max() + 0.5])
    assert json.loads(json.dumps(particles.parameters)) == particles.parameters


def test_particles_at_the_border_are_flagged_or_dropped():
    image = scene((80, 80), [(2, 40, 20, 20, 0), (50, 40, 20, 20, 0)])
    flagged, dropped = extract(image), extract(image, border="drop")
    assert flagged.table["touches_border"].tolist() == [True, False]
    assert len(dropped) == 1
    np.testing.assert_array_equal(dropped.crops[0], flagged.crops[1])


def test_crop_is_the_image_around_the_particle():
    image = np.rint(scene((90, 90), [(45, 40, 20, 10, 0.5)])).astype(np.uint8)
    particles = extract(image, crop_size=31)
    row, column = np.floor(particles.table.loc[0, ["centroid_row_px", "centroid_col_px"]] + 0.5).astype(int)
    np.testing.assert_array_equal(particles.crops[0], image[row - 15 : row + 16, column - 15 : column + 16])


def test_crop_beyond_the_edge_shows_background():
    crop = extract(scene((80, 80), [(5, 5, 14, 14, 0)], noise=0)).crops[0]
    assert np.abs(crop[:15].astype(int) - 50).max() <= 3
    assert np.abs(crop[:, :15].astype(int) - 50).max() <= 3


def test_neighbours_are_masked_but_not_the_particle():
    image = scene((80, 80), [(39, 30, 16, 16, 0), (41, 49, 16, 16, 0)])
    kept, masked = extract(image, neighbours="keep"), extract(image)
    assert len(masked) == 2
    for kept_crop, crop, other_side in zip(kept.crops, masked.crops, (np.s_[:, 38:], np.s_[:, :10]), strict=True):
        assert kept_crop[other_side].max() > 150
        assert crop[other_side].max() < 75
        np.testing.assert_array_equal(crop[16:32, 17:31], kept_crop[16:32, 17:31])


def test_blurred_edge_of_a_neighbour_outside_of_the_window_is_masked():
    image = np.rint(scene((60, 60), [(30, 20, 12, 12, 0), (30, 39, 12, 12, 0)], noise=0, blur=1.5)).astype(np.uint8)
    kept, masked = (extract(image, crop_size=25, neighbours=mode).crops[0] for mode in ("keep", "mask"))
    assert kept[12, -1] > 65
    assert masked[12, -1] < 60


def test_window_is_resampled_to_the_crop():
    image = scene((100, 100), [(50, 50, 40, 20, 0.5)])
    small = extract(image, crop_size=24, window_px=48).crops[0].astype(float)
    full = extract(image, crop_size=48).crops[0].astype(float)
    block_means = full.reshape(24, 2, 24, 2).mean(axis=(1, 3))
    assert np.abs(small - block_means).max() < 25
    assert small.mean() == pytest.approx(full.mean(), abs=0.5)
    assert extract(image, crop_size=64, window_px=48).crops.shape == (1, 64, 64)


def test_particle_larger_than_its_window_is_truncated():
    particles = extract(scene((100, 100), [(50, 50, 40, 20, 0)]), crop_size=24)
    assert particles.table["truncated"].tolist() == [True]


def test_touching_particles_are_one_object_unless_split():
    chain = [(35, 30, 16, 16, 0), (40, 43, 16, 16, 0), (45, 56, 16, 16, 0)]
    image = scene((80, 90), chain)
    assert len(extract(image)) == 1
    split = extract(image, split_touching=True).table
    np.testing.assert_allclose(split[["centroid_row_px", "centroid_col_px"]], np.array(chain)[:, :2], atol=1)


def test_holes():
    image = scene((80, 80), [(40, 40, 36, 36, 0)]) - scene((80, 80), [(40, 40, 14, 14, 0)], background=0)
    filled, open_ = extract(image), extract(image, fill_holes=False)
    assert filled.table["area_px"][0] - open_.table["area_px"][0] == pytest.approx(np.pi * 49, rel=0.15)
    assert len(filled) == len(open_) == 1


def test_area_limits():
    image = scene(SHAPE, ELLIPSES)
    areas = extract(image).table["area_px"]
    limited = extract(image, min_area_px=210, max_area_px=320).table["area_px"]
    assert limited.tolist() == [area for area in areas if 210 <= area <= 320]
    assert 0 < len(limited) < len(areas)


@pytest.mark.parametrize("threshold", ["otsu", 110])
def test_other_thresholds(threshold):
    particles = extract(scene(SHAPE, ELLIPSES), threshold=threshold)
    np.testing.assert_allclose(particles.table["area_px"], extract(scene(SHAPE, ELLIPSES)).table["area_px"], rtol=0.1)


def test_few_particles_in_much_noise():
    spots = [(60, 200, 12, 12, 0), (220, 90, 12, 12, 0)]
    particles = extract(scene((300, 300), spots, noise=12, height=100))
    centroids = particles.table[["centroid_row_px", "centroid_col_px"]]
    np.testing.assert_allclose(centroids, np.array(spots)[:, :2], atol=1)


def test_noise_alone_holds_no_particles():
    noise = np.random.default_rng(0).normal(100, 10, (200, 200))
    with pytest.raises(DataError, match=r"scene: no particles found \(threshold: Otsu.*Try"):
        extract(noise)


def test_nothing_left_by_the_limits():
    with pytest.raises(DataError, match="4 objects rejected"):
        extract(scene(SHAPE, ELLIPSES), min_area_px=5000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"polarity": "white"},
        {"threshold": "yen"},
        {"threshold": float("nan")},
        {"border": "cut"},
        {"neighbours": "blur"},
        {"crop_size": 4},
        {"window_px": 10.5},
        {"smoothing_px": -1.0},
        {"min_area_px": 0},
        {"min_area_px": 50, "max_area_px": 20},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        extract(scene(SHAPE, ELLIPSES), **wrong)


@settings(max_examples=15, deadline=None)
@given(st.integers(-20, 20), st.integers(-20, 20))
def test_measurements_move_with_the_particle(down, right):
    image = np.full((120, 120), 30, np.uint8)
    blob = np.rint(scene((40, 40), [(20, 20, 24, 12, 0.7)], background=30, noise=0)).astype(np.uint8)
    image[40:80, 40:80] = blob
    moved = np.roll(image, (down, right), axis=(0, 1))
    here, there = extract(image), extract(moved)
    position = [name for name in here.table if "row" in name or "col" in name]
    np.testing.assert_allclose(
        there.table.drop(columns=position).astype(float),
        here.table.drop(columns=position).astype(float),
        atol=1e-3,
        rtol=1e-5,
    )
    shift = there.table[position].to_numpy() - here.table[position].to_numpy()
    expected = np.where(["row" in name for name in position], down, right)
    np.testing.assert_allclose(shift[0], expected, atol=1e-9)
    np.testing.assert_allclose(there.crops.astype(int), here.crops.astype(int), atol=1)
