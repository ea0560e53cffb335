"""Synthetic agglomerates: exact numbers, exact contact, and the physics that they claim."""

from __future__ import annotations

import numpy as np
import pytest

from tumble.datasets import make_agglomerate_micrograph, make_agglomerates
from tumble.errors import ConfigError

MIDDLE = (48 - 1) / 2


@pytest.fixture(scope="module")
def gold():
    return make_agglomerates((6, 5, 4, 8), neighbours=3, random_state=0)


def test_agglomerates_have_the_numbers_asked_for(gold):
    assert gold.X.shape == (23, 48, 48)
    assert gold.X.dtype == np.float32
    assert gold.X.min() >= 0
    assert gold.X.max() <= 1
    assert np.bincount(gold.y).tolist() == [6, 5, 4, 8]
    assert gold.classes == ("1", "2", "3", "4")
    np.testing.assert_array_equal(gold.n_particles, gold.y + 1)
    assert [len(c) for c in gold.centres] == gold.n_particles.tolist()
    assert [len(d) for d in gold.diameters] == gold.n_particles.tolist()


def test_default_numbers_are_those_of_the_paper():
    counts = np.bincount(make_agglomerates(electrons=None, neighbours=0, random_state=0).y)
    assert counts.tolist() == [304, 93, 49, 31]


def test_particles_touch_in_one_piece_without_overlap(gold):
    for centres, diameters in zip(gold.centres, gold.diameters, strict=True):
        distance = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1))
        gap = distance - (diameters[:, None] + diameters) / 2
        np.fill_diagonal(gap, 0)
        assert gap.min() > -1e-6
        touching = (np.abs(gap) < 1e-6).astype(int)
        connected = np.linalg.matrix_power(touching, len(centres))
        assert connected.min() > 0


def test_agglomerates_lie_in_the_middle_and_wholly_inside(gold):
    for centres, diameters, mask in zip(gold.centres, gold.diameters, gold.mask, strict=True):
        area_centre = np.average(centres, axis=0, weights=diameters**2)
        assert np.abs(area_centre - MIDDLE).max() <= 0.5
        assert mask.sum() == pytest.approx(np.pi / 4 * (diameters**2).sum(), rel=0.1)
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not border.any()


def test_particles_are_brighter_than_the_ground_and_brightest_at_the_edge():
    clean = make_agglomerates(
        (5,),
        size=64,
        diameter_px=40,
        blur_px=0.5,
        electrons=None,
        neighbours=0,
        background_gradient=0,
        random_state=0,
    )
    offset = np.hypot(*(np.mgrid[:64, :64] - 31.5))
    for image, mask in zip(clean.X, clean.mask, strict=True):
        assert image[mask].min() > image[~mask].mean() + 0.1
        radius = np.sqrt(mask.sum() / np.pi)
        rim = image[(offset > radius - 2.5) & (offset < radius - 1)].mean()
        assert rim > image[offset < radius / 2].mean() + 0.05


def test_neighbours_come_into_view_and_keep_their_distance():
    with_noise_off = {"electrons": None, "background_gradient": 0, "random_state": 1}
    alone = make_agglomerates((20,), neighbours=0, **with_noise_off)
    crowded = make_agglomerates((20,), neighbours=4, **with_noise_off)
    assert alone.n_neighbours.max() == 0
    assert crowded.n_neighbours.mean() == pytest.approx(4, abs=1.2)
    for image, centre, diameter in zip(crowded.X, crowded.centres, crowded.diameters, strict=True):
        distance = np.hypot(*(np.mgrid[:48, :48] - centre[0][:, None, None]))
        moat = (distance > diameter[0] / 2 + 1) & (distance < diameter[0] / 2 + 2)
        assert image[moat].mean() < 0.4


def test_gradient_is_the_change_across_the_image():
    gold = make_agglomerates((8,), neighbours=0, electrons=None, background_gradient=0.15, random_state=0)
    for image, (rows, columns) in zip(gold.X, gold.gradient, strict=True):
        assert image[-1, 0] - image[0, 0] == pytest.approx(rows, abs=1e-5)
        assert image[0, -1] - image[0, 0] == pytest.approx(columns, abs=1e-5)
    assert np.hypot(*gold.gradient.T).max() <= 0.15


def test_shot_noise_has_the_variance_of_counted_electrons():
    settings = {"neighbours": 0, "background_gradient": 0, "random_state": 0}
    noisy = make_agglomerates((20,), electrons=100, **settings)
    ground = noisy.X[:, :8]
    assert ground.var() == pytest.approx(ground.mean() / 100, rel=0.1)


def test_angle_is_the_bond_of_a_pair_and_undefined_for_one():
    pairs = make_agglomerates((3, 12), random_state=0)
    assert np.isnan(pairs.angle[pairs.y == 0]).all()
    for k in np.flatnonzero(pairs.y == 1):
        down, right = pairs.centres[k][1] - pairs.centres[k][0]
        assert np.sin(pairs.angle[k] - np.arctan2(-down, right)) == pytest.approx(0, abs=1e-9)
        assert -np.pi / 2 < pairs.angle[k] <= np.pi / 2


def test_agglomerates_repeat_with_their_seed():
    first, again, other = (make_agglomerates((2, 2), random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.X, again.X)
    assert not np.array_equal(first.X, other.X)


def test_diameters_vary_as_asked():
    gold = make_agglomerates((300,), diameter_px=12, polydispersity=0.1, neighbours=0, random_state=0)
    diameters = np.concatenate(gold.diameters)
    assert diameters.mean() == pytest.approx(12, rel=0.02)
    assert diameters.std() == pytest.approx(1.2, rel=0.15)
    assert np.abs(diameters - 12).max() <= 3.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_per_class", (0, 0)),
        ("size", 10.5),
        ("diameter_px", 0),
        ("diameter_px", 40),
        ("polydispersity", 0.5),
        ("neighbours", -1),
        ("background_gradient", 2),
        ("blur_px", -1),
        ("electrons", 0),
    ],
)
def test_impossible_agglomerates_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        make_agglomerates(**{"n_per_class": (1, 1), name: value})


def test_micrograph_holds_every_agglomerate_once():
    gold = make_agglomerate_micrograph((8, 4, 2), shape=(160, 240), random_state=0)
    assert gold.image.shape == (160, 240)
    assert gold.image.dtype == np.uint8
    assert np.bincount(gold.y).tolist() == [8, 4, 2]
    areas = np.bincount(gold.objects.ravel())[1:]
    expected = [np.pi / 4 * (d**2).sum() for d in gold.diameters]
    np.testing.assert_allclose(areas, expected, rtol=0.1)
    assert gold.image[gold.objects > 0].mean() > gold.image[gold.objects == 0].mean() + 50
    with pytest.raises(ConfigError, match="no room"):
        make_agglomerate_micrograph(20, shape=(60, 60), random_state=0)
