"""The disorder of training: what it does to images, and what it must leave alone."""

import math

import pytest
import torch

from tumble.fit.augment import degrade, disturb_geometry, mirror
from tumble.fit.config import Disorder

SCALE = torch.tensor(0.25)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(400, 1, 24, 31, generator=torch.Generator().manual_seed(1))


def test_without_degradation_images_stay(images, generator):
    assert degrade(images, Disorder(), SCALE, generator) is images


def test_degradation_spoils_most_images_and_leaves_a_fifth_alone(images, generator):
    spoilt = degrade(images, Disorder(degradation=1.0), SCALE, generator)
    same = (spoilt == images).flatten(1).all(dim=1).float().mean()
    assert 0.15 < float(same) < 0.45
    off = (spoilt - images).flatten(1).std(dim=1)
    # Four standard deviations of the pixels at most, with an amplitude that varies by a quarter over the image.
    assert float(off.max()) < 1.3
    assert float((off > 0.4).float().mean()) > 0.2
    assert bool(torch.isfinite(spoilt).all())


def test_degradation_grows_with_its_strength(images):
    def spread(strength):
        generator = torch.Generator().manual_seed(3)
        return float((degrade(images, Disorder(degradation=strength), SCALE, generator) - images).std())

    assert spread(0.2) < spread(0.5) < spread(1.0)


def test_half_of_the_images_are_mirrored(images, generator):
    result = mirror(images, generator)
    kept = (result == images).flatten(1).all(dim=1)
    flipped = (result == images.flip(3)).flatten(1).all(dim=1)
    assert bool((kept | flipped).all())
    assert 0.4 < float(flipped.float().mean()) < 0.6


def test_objects_are_turned_to_an_angle_within_their_range(images, generator):
    disorder = Disorder(angle_rad=math.pi / 2, shear=0.0, log_scale=0.0)
    present = torch.linspace(-math.pi / 2, math.pi / 2, len(images))
    _, applied = disturb_geometry(images, disorder, generator, present_angle=present)
    after = present + applied.angle
    after = torch.remainder(after + math.pi, 2 * math.pi) - math.pi
    assert float(after.abs().max()) <= math.pi / 2 + 1e-5
    # All of the range is reached, wherever an object was.
    assert float(after[:100].max()) > 1.2
    assert float(after[-100:].min()) < -1.2


def test_objects_are_brought_to_a_place_that_does_not_depend_on_where_they_were(generator):
    disorder = Disorder(shift_px=3.0)
    n, side = 300, 41
    present = torch.rand(n, 2, generator=torch.Generator().manual_seed(2)) * 12 - 6
    rows = torch.arange(side) - (side - 1) / 2
    near = [torch.exp(-0.5 * ((rows - present[:, i, None]) / 2.5) ** 2) for i in range(2)]
    images = (near[0][:, :, None] * near[1][:, None, :]).unsqueeze(1)
    disturbed, applied = disturb_geometry(images, disorder, generator, present_shift=present)
    mass = disturbed.sum(dim=(2, 3))
    place = torch.cat([(disturbed.sum(dim=3) @ rows) / mass, (disturbed.sum(dim=2) @ rows) / mass], dim=1)
    # The record of what was done says the same as the image.
    said = (applied.linear @ present.unsqueeze(-1)).squeeze(-1) + applied.move
    torch.testing.assert_close(place, said, atol=0.15, rtol=0)
    assert float(place.abs().max()) < 3.2
    # In particular the direction from the centre no longer turns with the image.
    before, after = torch.atan2(present[:, 0], present[:, 1]), torch.atan2(place[:, 0], place[:, 1])
    together = torch.stack([torch.cos(after - before - applied.angle * s) for s in (1, -1)]).mean(dim=1)
    assert float(together.abs().max()) < 0.15
