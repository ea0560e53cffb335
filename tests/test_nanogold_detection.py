"""Detection on a real micrograph with its reference labels, with nothing but default settings."""

from __future__ import annotations

import numpy as np
import pytest

from tumble.datasets import load_nanogold
from tumble.metrics import match_segmentations
from tumble.micrograph import micrograph_from_array
from tumble.particles import extract_particles


@pytest.fixture(scope="module")
def nanogold():
    return load_nanogold()


@pytest.fixture(scope="module")
def particles(nanogold):
    return extract_particles(micrograph_from_array(nanogold.image, source="nanogold"))


def test_reference_objects_are_found(nanogold, particles):
    half = match_segmentations(nanogold.objects, particles.mask, iou_threshold=0.5)
    third = match_segmentations(nanogold.objects, particles.mask, iou_threshold=0.3)
    assert half.n_reference == 1518
    assert half.recall >= 0.96
    assert third.recall >= 0.97
    assert third.unmatched_found_fraction <= 0.02


def test_crops_show_one_particle_of_an_8_bit_image(nanogold, particles):
    assert particles.crops.shape == (len(particles), 48, 48)
    # Particles inside the window keep their pixels exactly: the brightest pixel is in the crop.
    inside = ~particles.table["truncated"].to_numpy()
    brightest = particles.table["intensity_max"].to_numpy()[inside]
    np.testing.assert_array_less(brightest - 1, particles.crops[inside].max(axis=(1, 2)))
    # Neighbours are masked: what is left away from the centre is close to the background.
    corner = particles.crops[:, :6, :6].reshape(len(particles), -1).mean(axis=1)
    assert np.percentile(corner, 99) < 130
