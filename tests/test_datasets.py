"""Synthetic data are what they say they are; the real micrograph arrives whole."""

from __future__ import annotations

import numpy as np
import pytest

from tumble.datasets import (
    affine_matrices,
    card_glyphs,
    load_nanogold,
    make_agglomerates,
    make_cards,
)
from tumble.errors import ConfigError, DataError

STILL = {"angle": 0, "shear": 0, "scale": 1, "translation": 0}
MIDDLE = (48 - 1) / 2


def one_of_each(**pose):
    """Return one image of every suit, in the order of the classes, at a fixed pose."""
    cards = make_cards(1, **{**STILL, **pose}, random_state=0)
    return cards.X[np.argsort(cards.y)]


def naive_place(glyph, matrix, shift):
    """Place a glyph pixel by pixel: a slow and obvious reference, bilinear, zero outside."""
    image = np.zeros((48, 48))
    inverse = np.linalg.inv(matrix)
    for row in range(48):
        for column in range(48):
            r, c = inverse @ (np.array([row, column]) - MIDDLE - shift) + (np.array(glyph.shape) - 1) / 2
            r0, c0 = int(np.floor(r)), int(np.floor(c))
            for i, j in ((r0, c0), (r0, c0 + 1), (r0 + 1, c0), (r0 + 1, c0 + 1)):
                if 0 <= i < glyph.shape[0] and 0 <= j < glyph.shape[1]:
                    image[row, column] += glyph[i, j] * (1 - abs(r - i)) * (1 - abs(c - j))
    return image


# ---------------------------------------------------------------- glyphs


def test_glyphs_are_centred_fit_the_crop_and_are_a_copy():
    glyphs = card_glyphs()
    assert glyphs.shape == (4, 64, 64)
    assert glyphs.dtype == np.float32
    assert glyphs.min() == 0
    assert glyphs.max() == 1
    offset = np.mgrid[:64, :64] - 31.5
    for glyph in glyphs:
        assert np.abs((offset * glyph).sum(axis=(1, 2)) / glyph.sum()).max() < 0.1
        assert np.hypot(*offset)[glyph > 0].max() * 1.3 < 24
    glyphs[:] = 7
    assert card_glyphs().max() == 1


def test_glyphs_are_mirror_symmetric_and_only_the_diamond_is_upside_down_the_same():
    glyphs = card_glyphs()
    np.testing.assert_allclose(glyphs, glyphs[:, :, ::-1], atol=1e-6)
    difference = np.abs(glyphs - glyphs[:, ::-1]).sum(axis=(1, 2)) / glyphs.sum(axis=(1, 2))
    assert (difference > 0.3).tolist() == [True, True, False, True]


def test_upright_glyphs_differ_from_each_other():
    flat = card_glyphs().reshape(4, -1)
    distance = np.abs(flat[:, None] - flat).sum(axis=2) / flat.sum(axis=1)
    assert distance[~np.eye(4, dtype=bool)].min() > 0.15


# ---------------------------------------------------------------- cards: conventions


def test_still_cards_are_the_centre_crop():
    np.testing.assert_allclose(one_of_each(), card_glyphs()[:, 8:-8, 8:-8], atol=1e-6)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_angle_is_counter_clockwise_as_displayed(quarter_turns):
    turned = one_of_each(angle=(90 * quarter_turns, 90 * quarter_turns))
    np.testing.assert_allclose(turned, np.rot90(one_of_each(), quarter_turns, axes=(1, 2)), atol=1e-5)


def test_shift_moves_down_and_right():
    cards = make_cards(1, **{**STILL, "translation": (1 / 16, 1 / 16)}, random_state=0)
    np.testing.assert_allclose(cards.shift, 3.0)
    glyphs = card_glyphs()[cards.y, 8:-8, 8:-8]
    np.testing.assert_allclose(cards.X, np.roll(glyphs, (3, 3), axis=(1, 2)), atol=1e-5)


def test_scale_magnifies_the_object():
    area = one_of_each(scale=1.3).sum(axis=(1, 2)) / one_of_each().sum(axis=(1, 2))
    np.testing.assert_allclose(area, 1.3**2, rtol=0.01)


def test_factors_reproduce_the_images():
    cards = make_cards(2, angle=180, random_state=3)
    matrices = affine_matrices(cards.angle, cards.scale, cards.shear)
    glyphs = card_glyphs()
    for x, y, matrix, shift in zip(cards.X, cards.y, matrices, cards.shift, strict=True):
        np.testing.assert_allclose(x, naive_place(glyphs[y], matrix, shift), atol=1e-4)


def test_shear_follows_the_documented_order():
    angle, shear = 0.3, (0.2, -0.1)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rows = np.array([[1, -np.tan(shear[0])], [0, 1]])
    columns = np.array([[1, 0], [-np.tan(shear[1]), 1]])
    matrix = affine_matrices([angle], [1.2], [shear])[0]
    np.testing.assert_allclose(matrix, 1.2 * rotation @ rows @ columns)


def test_polar_angle_is_the_angle_without_shear_and_leaves_a_symmetric_rest_with_it():
    plain = make_cards(3, angle=170, shear=0, random_state=0)
    np.testing.assert_allclose(plain.polar_angle, plain.angle)
    sheared = make_cards(3, angle=170, random_state=0)
    whole = affine_matrices(sheared.angle, sheared.scale, sheared.shear)
    back = affine_matrices(-sheared.polar_angle, np.ones(12), np.zeros((12, 2)))
    rest = back @ whole
    np.testing.assert_allclose(rest, rest.transpose(0, 2, 1), atol=1e-12)
    assert np.linalg.eigvalsh(rest).min() > 0


# ---------------------------------------------------------------- cards: ranges, noise, seeds


def test_factors_fill_their_ranges_and_no_more():
    cards = make_cards(100, angle=30, shear=10, scale=(1.1, 1.2), translation=0.05, random_state=0)
    for values, low, high in [
        (np.degrees(cards.angle), -30, 30),
        (np.degrees(cards.shear), -10, 10),
        (cards.scale, 1.1, 1.2),
        (cards.shift, -2.4, 2.4),
    ]:
        assert values.min() >= low
        assert values.max() <= high
        assert np.ptp(values) > 0.95 * (high - low)
    assert cards.X.dtype == np.float32
    assert cards.X.min() >= 0
    assert cards.X.max() <= 1
    assert np.bincount(cards.y).tolist() == [100] * 4
    assert cards.y[:100].std() > 0.5  # in random order, not one class after the other


def test_counts_may_differ_between_classes():
    cards = make_cards([3, 0, 1, 2], random_state=0)
    assert np.bincount(cards.y, minlength=4).tolist() == [3, 0, 1, 2]


def test_contamination_replaces_exactly_its_fraction_of_the_pixels():
    clean = make_cards(3, random_state=0)
    dirty = make_cards(3, contamination_density=0.2, contamination_intensity=0.625, random_state=0)
    np.testing.assert_array_equal(dirty.angle, clean.angle)
    changed = dirty.X != clean.X
    assert np.all(dirty.X[changed] == 0.625)
    per_image = (dirty.X == 0.625).sum(axis=(1, 2))
    assert np.all(np.abs(per_image - round(0.2 * 48 * 48)) <= 2)  # a grey pixel of an edge may equal it
    assert len({tuple(row) for row in changed.reshape(12, -1)}) == 12


def test_noise_has_its_standard_deviation_and_is_not_clipped():
    clean, noisy = (make_cards(10, noise=noise, random_state=0) for noise in (0, 0.5))
    difference = noisy.X - clean.X
    assert difference.std() == pytest.approx(0.5, rel=0.02)
    assert difference.mean() == pytest.approx(0, abs=0.01)
    assert noisy.X.min() < 0
    assert noisy.X.max() > 1


def test_seeds_reproduce_and_differ():
    first, again, other = (make_cards(2, noise=0.1, random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.X, again.X)
    assert not np.array_equal(first.X, other.X)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(make_cards(2, noise=0.1, random_state=rng).X, first.X)
    assert not np.array_equal(make_cards(2, noise=0.1, random_state=rng).X, first.X)
    old = [make_cards(2, random_state=np.random.RandomState(4)).X for _ in range(2)]
    np.testing.assert_array_equal(*old)


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_cards(1, noise=0.1)
    make_agglomerates((1, 1))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_other_glyphs_take_the_place_of_the_suits():
    glyphs = np.zeros((2, 28, 20))
    glyphs[0, 3, 5] = 1
    glyphs[1, 20:, :4] = 0.5
    drawn = make_cards(1, **STILL, glyphs=glyphs, random_state=0)
    assert drawn.classes == ("0", "1")
    np.testing.assert_allclose(drawn.X[:, 10:38, 14:34], glyphs[drawn.y], atol=1e-6)
    assert make_cards(1, glyphs=glyphs, class_names=["dot", "box"]).classes == ("dot", "box")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_per_class", -1),
        ("n_per_class", [1, 2]),
        ("n_per_class", 0),
        ("angle", -5),
        ("angle", float("nan")),
        ("angle", (1, 2, 3)),
        ("angle", (2, 1)),
        ("shear", 90),
        ("scale", 0),
        ("scale", (-1, 1)),
        ("translation", "much"),
        ("noise", -0.1),
        ("contamination_density", 1.5),
        ("contamination_intensity", float("inf")),
        ("class_names", ["a"]),
        ("random_state", -3),
        ("random_state", "seed"),
    ],
)
def test_impossible_settings_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        make_cards(**{"n_per_class": 1, name: value})


@pytest.mark.parametrize("glyphs", [np.zeros((64, 64)), np.full((1, 8, 8), 2.0), np.full((1, 8, 8), np.nan)])
def test_unusable_glyphs_are_refused(glyphs):
    with pytest.raises(DataError, match="glyphs"):
        make_cards(1, glyphs=glyphs)


# ---------------------------------------------------------------- nanogold


def test_nanogold_is_whole():
    gold = load_nanogold()
    for name, dtype in [("image", np.uint8), ("labels", np.uint8), ("mask", bool), ("objects", np.int32)]:
        assert gold[name].shape == (614, 1012)
        assert gold[name].dtype == dtype
    assert gold.classes == ("single", "dimer", "cluster", "pile")
    assert np.bincount(gold.object_classes).tolist() == [1163, 269, 46, 40]
    assert gold.objects.max() == 1518
    assert gold.pixel_size_nm is None
    assert "pyparty" in gold.DESCR
    assert "BSD" in gold.DESCR
    assert gold.filename.endswith("nanogold.tif")


def test_nanogold_objects_have_the_class_of_their_pixels_and_cover_them():
    gold = load_nanogold()
    inside = gold.objects > 0
    np.testing.assert_array_equal(inside, gold.labels > 0)
    np.testing.assert_array_equal(gold.object_classes[gold.objects[inside] - 1] + 1, gold.labels[inside])
    assert gold.image[gold.mask].mean() > gold.image[~gold.mask].mean() + 50
