"""The geometry against NumPy's own rotations and shifts, on deliberately lopsided images."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from tumble.datasets import make_cards
from tumble.datasets.cards import affine_matrices
from tumble.fit.augment import disturb_geometry
from tumble.fit.config import Disorder
from tumble.model.coordinates import (
    Placement,
    canonical_affine,
    pixel_positions,
    place,
    wrap_angle,
)


@pytest.fixture
def lopsided():
    """An image without any symmetry, zero near the edges so that shifts lose nothing."""
    image = np.zeros((17, 17), dtype=np.float32)
    image[4:9, 5:7] = 1.0
    image[4:6, 5:12] = 0.6
    image[10, 8] = 0.3
    return image


def placed(image, angle=0.0, shift=(0.0, 0.0), scale=None, **options):
    scale = None if scale is None else torch.tensor([scale])
    result = place(
        torch.from_numpy(image.copy())[None, None], torch.tensor([angle]), torch.tensor([shift]), scale, **options
    )
    return result[0, 0].numpy()


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3, -1])
def test_quarter_turns_are_those_of_numpy(lopsided, quarter_turns):
    turned = placed(lopsided, angle=quarter_turns * math.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(lopsided, quarter_turns), atol=1e-5)


@pytest.mark.parametrize("shift", [(2, 0), (0, -3), (-1, 2)])
def test_whole_pixel_shifts_are_those_of_numpy(lopsided, shift):
    moved = placed(lopsided, shift=(float(shift[0]), float(shift[1])))
    np.testing.assert_allclose(moved, np.roll(lopsided, shift, axis=(0, 1)), atol=1e-5)


def test_the_object_is_turned_before_it_is_moved(lopsided):
    expected = np.roll(np.rot90(lopsided), (2, -1), axis=(0, 1))
    np.testing.assert_allclose(placed(lopsided, math.pi / 2, (2.0, -1.0)), expected, atol=1e-5)


def test_an_oblong_image_is_not_distorted():
    image = np.zeros((12, 20), dtype=np.float32)
    image[4:8, 8:12] = 1.0  # a centred square
    turned = placed(image, angle=math.pi / 2)
    np.testing.assert_allclose(turned, image, atol=1e-5)


def test_a_canvas_larger_than_the_image_is_cut_around_its_centre(lopsided):
    cut = placed(lopsided, size=(11, 13))
    np.testing.assert_allclose(cut, lopsided[3:-3, 2:-2], atol=1e-5)


def test_magnification_doubles_distances():
    image = np.zeros((33, 33), dtype=np.float32)
    image[14:19, 20:23] = 1.0
    large = placed(image, scale=2.0)
    centre = np.average(np.arange(33) - 16, weights=large.sum(axis=0))
    assert centre == pytest.approx(2 * 5, abs=0.1)
    assert large.sum() == pytest.approx(4 * image.sum(), rel=0.02)


@given(angle=st.floats(-3, 3), row=st.floats(-4, 4), col=st.floats(-4, 4), scale=st.floats(0.5, 2))
def test_positions_undo_the_pose(angle, row, col, scale):
    """A canonical point, posed by hand, looks back at itself."""
    point = (1.5, -2.0)
    observed = torch.tensor(
        [
            scale * (point[0] * math.cos(angle) - point[1] * math.sin(angle)) + row,
            scale * (point[0] * math.sin(angle) + point[1] * math.cos(angle)) + col,
            1.0,
        ]
    )
    affine = canonical_affine(torch.tensor([angle]), torch.tensor([[row, col]]), torch.tensor([scale]))
    np.testing.assert_allclose((affine[0] @ observed).numpy(), point, atol=1e-4)


def blob(size=41):
    """A smooth lopsided blob off the centre: bilinear resampling twice must hardly matter."""
    rows, cols = pixel_positions(size, size)[..., 0], pixel_positions(size, size)[..., 1]
    return torch.exp(-((rows - 2) ** 2) / 18 - (cols + 3) ** 2 / 40)[None, None]


def test_placing_twice_is_placing_with_the_composed_pose():
    angle, shift, scale = torch.tensor([0.4]), torch.tensor([[2.0, -1.0]]), torch.tensor([1.1])
    turn, move, zoom = torch.tensor([-1.1]), torch.tensor([[0.5, 3.0]]), torch.tensor([0.9])
    twice = place(place(blob(), angle, shift, scale), turn, move, zoom)
    once = place(blob(), *Placement.of(turn, move, zoom).compose(angle, shift, scale))
    assert (twice - once).abs().max() < 0.02


def test_a_placement_moves_objects_as_it_says_shear_included():
    turn, move, zoom = torch.tensor([0.8]), torch.tensor([[1.0, -2.0]]), torch.tensor([1.2])
    shear = torch.tensor([[0.2, -0.1]])
    placed_blob = place(blob(61), turn, move, zoom, shear=shear)[0, 0]
    positions = pixel_positions(61, 61)
    centre = (placed_blob[..., None] * positions).sum(dim=(0, 1)) / placed_blob.sum()
    start = torch.tensor([[2.0, -3.0]])
    _, expected, _ = Placement.of(turn, move, zoom, shear).compose(torch.zeros(1), start, torch.ones(1))
    np.testing.assert_allclose(centre, expected[0], atol=0.1)


@given(turn=st.floats(-3, 3), a=st.floats(-0.3, 0.3), b=st.floats(-0.3, 0.3), zoom=st.floats(0.5, 2))
def test_angle_and_scale_of_a_placement_are_those_of_its_polar_decomposition(turn, a, b, zoom):
    placement = Placement.of(torch.tensor([turn]), torch.zeros(1, 2), torch.tensor([zoom]), torch.tensor([[a, b]]))
    rotation, _ = scipy.linalg.polar(placement.linear[0].double().numpy())
    expected = math.atan2(rotation[1, 0], rotation[0, 0])
    assert math.cos(float(placement.angle) - expected) == pytest.approx(1, abs=1e-6)
    assert float(placement.scale) == pytest.approx(zoom * math.sqrt(1 - a * b), rel=1e-4)


def test_the_cards_call_the_same_angle_polar():
    cards = make_cards(20, angle=180, shear=15, random_state=3)
    matrices = torch.from_numpy(affine_matrices(cards.angle, cards.scale, cards.shear))
    angle = Placement(matrices, torch.zeros(80, 2)).angle.numpy()
    np.testing.assert_allclose(np.cos(angle - cards.polar_angle), 1, atol=1e-9)
    assert np.abs(np.sin(angle - cards.angle)).max() > 0.1, "shear turns"


@given(st.floats(-50, 50))
def test_wrapped_angles_are_the_same_direction(angle):
    wrapped = wrap_angle(torch.tensor(angle, dtype=torch.float64))
    assert -math.pi <= wrapped < math.pi
    assert math.cos(wrapped) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.sin(wrapped) == pytest.approx(math.sin(angle), abs=1e-9)


def test_the_cards_use_the_same_convention():
    """Two routes to one number: the data set's angle and shift, and the model's placement of the upright card."""
    upright = make_cards(1, angle=(0, 0), shear=0, scale=(1, 1), translation=0, random_state=0)
    posed = make_cards(1, angle=(50, 50), shear=0, scale=(1, 1), translation=0.05, random_state=0)
    for k in range(4):
        source, target = upright.X[upright.y == k][0], posed.X[posed.y == k][0]
        pose = posed.angle[posed.y == k][0], posed.shift[posed.y == k][0]
        assert pose[0] == pytest.approx(math.radians(50))
        ours = placed(source, float(pose[0]), tuple(float(v) for v in pose[1]))
        wrong = placed(source, -float(pose[0]), tuple(float(v) for v in pose[1]))
        assert np.abs(ours - target).mean() < 0.012
        assert np.abs(wrong - target).mean() > 0.03


def test_disorder_stays_within_its_ranges_and_is_reported_truly(lopsided):
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(lopsided)[None, None].repeat(200, 1, 1, 1)
    disorder = Disorder(angle_rad=1.0, shift_px=2.0, log_scale=0.1, shear=0.0, intensity=0.0)
    disturbed, applied = disturb_geometry(x, disorder, generator)
    assert applied.angle.abs().max() <= 1.0 + 1e-6
    assert applied.angle.abs().max() > 0.9
    assert applied.move.abs().max() <= 2.0
    np.testing.assert_allclose(disturbed, place(x, applied.angle, applied.move, applied.scale), atol=1e-4)


def test_shear_moves_columns_by_rows():
    image = np.zeros((21, 21), dtype=np.float32)
    image[4:17, 10] = 1.0  # an upright bar
    sheared = placed(image, shear=torch.tensor([[0.0, 0.3]]))
    top = np.average(np.arange(21), weights=sheared[6])
    bottom = np.average(np.arange(21), weights=sheared[14])
    assert bottom - top == pytest.approx(0.3 * 8, abs=0.1)
