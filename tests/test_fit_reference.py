"""The objects whose orientation is called zero where there are no labels."""

import numpy as np
import pytest
import torch
from helpers_fit import Killed

from tumble import RVAE
from tumble.datasets import make_cards
from tumble.fit import losses, reference, run
from tumble.fit.batches import Batch, TrainingData
from tumble.fit.config import Disorder, FitConfig
from tumble.fit.objective import DefaultObjective
from tumble.fit.reference import of_one_orientation
from tumble.metrics import angle_error
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE


def blobs(n, rng):
    """Bright discs of one size at random places on a grey background, most in the middle, and two oddities there."""
    rows, cols = np.mgrid[:33, :33] - 16.0
    centres, radii = rng.uniform(4, 8, (n, 2)) * rng.choice([-1, 1], (n, 2)), np.full(n, 6.0)
    centres[10:45] = rng.uniform(-0.4, 0.4, (35, 2))
    centres[3], radii[3] = (0.0, 0.0), 2.0
    centres[5], radii[5] = (0.0, 0.0), 12.0
    distance = np.hypot(rows - centres[:, :1, None], cols - centres[:, 1:, None])
    return (0.2 + 0.8 / (1 + np.exp(distance - radii[:, None, None]))).astype(np.float32)


def test_an_ordinary_object_near_the_centre_is_the_first():
    X = blobs(60, np.random.default_rng(0))
    data = TrainingData(X[:, None], np.full(len(X), -1))
    rows = of_one_orientation(data, np.random.default_rng(1))
    assert 10 <= rows[0] < 45
    assert len(rows) == len(set(rows)) <= 13  # a fifth of all at most
    # Bytes and dark objects are no different.
    dark = np.round(255 * (1 - X)).astype(np.uint8)
    assert of_one_orientation(TrainingData(dark[:, None], data.y), np.random.default_rng(1))[0] in range(10, 45)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_blank_images_have_a_choice_too(n):
    data = TrainingData(np.zeros((n, 1, 8, 8), dtype=np.float32), np.full(n, -1))
    rows = of_one_orientation(data, np.random.default_rng(0))
    assert 1 <= len(rows) <= n
    assert set(rows) <= set(range(n))


def off_by(cards, chosen):
    """Angles of the chosen cards from the mean of their suit, in degrees; a diamond is the same after half a turn."""
    found = []
    for k, suit in enumerate(cards.classes):
        angles, turns = cards.polar_angle[chosen[cards.y[chosen] == k]], 2 if suit == "diamond" else 1
        mean = np.angle(np.exp(1j * turns * angles).mean()) / turns
        found.append(np.degrees(angle_error(angles, mean, symmetry=turns)))
    return np.concatenate(found)


def choose(X, seed=0):
    return of_one_orientation(TrainingData(X, np.full(len(X), -1)), np.random.default_rng(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_objects_of_a_kind_are_chosen_at_one_angle(seed, noise, monkeypatch):
    """Kinds may differ by a constant."""
    monkeypatch.setattr(reference, "_JOINED", 500)  # the others are compared with these
    monkeypatch.setattr(reference, "_CENTRAL", 1.0)
    cards = make_cards(400, angle=180, random_state=seed)
    chosen = choose(cards.X[:, None] + np.random.default_rng(seed).normal(0, noise, cards.X[:, None].shape), seed)
    assert len(chosen) >= 40
    assert len({cards.y[row] for row in chosen}) == 4
    off = off_by(cards, chosen)
    assert np.median(off) < 12
    assert np.mean(off < 40) > 0.9


def test_large_noisy_images_are_compared_without_their_noise(monkeypatch):
    monkeypatch.setattr(reference, "_CENTRAL", 1.0)
    cards = make_cards(100, angle=180, random_state=0)
    large = np.kron(cards.X, np.ones((1, 5, 5)))[:, None]
    chosen = choose(large + np.random.default_rng(0).normal(0, 0.5, large.shape))
    assert np.mean(off_by(cards, chosen) < 40) > 0.8


def test_those_in_the_middle_are_taken():
    cards = make_cards(400, angle=180, random_state=0)
    # A card is displaced by up to 10 % of 48 px in each direction.
    assert np.hypot(*cards.shift[choose(cards.X[:, None])].T).max() < 3.5


def test_blank_images_are_not_taken_where_there_are_others():
    cards = make_cards(100, angle=180, random_state=0)
    X = cards.X.copy()
    X[::4] = 0.2
    assert (choose(X[:, None]) % 4 != 0).all()


@pytest.mark.parametrize("shape", [(3, 24, 40), (1, 9, 250), (2, 60, 17)])
def test_shapes_of_all_kinds_have_a_choice(shape):
    X = np.random.default_rng(0).integers(0, 255, (50, *shape), dtype=np.uint8)
    assert len(choose(X)) >= 1


@pytest.mark.parametrize(("max_epochs", "first"), [(1, 1), (4, 2), (5, 3)])
def test_one_of_them_is_left_in_the_second_half_of_the_epochs(max_epochs, first, monkeypatch):
    labelled, batches = [], DefaultObjective.batches
    monkeypatch.setattr(
        DefaultObjective,
        "batches",
        lambda self, data, *rest: labelled.append(np.flatnonzero(data.y >= 0)) or batches(self, data, *rest),
    )
    X = make_cards(60, angle=180, random_state=0).X[:, ::2, ::2]
    RVAE(max_epochs=max_epochs, hidden=16, encoder_channels=(8,), random_state=0, novelty_score=False).fit(X)
    many = labelled[0]
    assert len(many) > 1
    assert [len(rows) for rows in labelled] == [len(many)] * first + [1] * (max_epochs - first)
    assert set(labelled[-1]) <= set(many)


def test_a_resumed_run_keeps_its_objects(tmp_path, monkeypatch):
    X = make_cards(60, angle=180, random_state=0).X[:, ::2, ::2]
    model = RVAE(max_epochs=4, hidden=16, encoder_channels=(8,), random_state=0, novelty_score=False)
    chosen = choose(X[:, None]).tolist()
    assert len(chosen) > 1

    def crash(report):
        if report.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        model.fit(X, checkpoint=tmp_path, callbacks=[crash])  # the state is that of the first epoch
    labelled, batches = [], DefaultObjective.batches
    monkeypatch.setattr(run, "of_one_orientation", lambda data, rng: np.array([7, 8]))  # as another processor might
    monkeypatch.setattr(
        DefaultObjective,
        "batches",
        lambda self, data, *rest: labelled.append(np.flatnonzero(data.y >= 0).tolist()) or batches(self, data, *rest),
    )
    model.fit(X, checkpoint=tmp_path, resume=True)
    assert labelled == [sorted(chosen), chosen[:1], chosen[:1]]


def test_all_processes_take_the_objects_of_the_leader(monkeypatch):
    class Follower:
        def from_leader(self, tensor):
            return torch.zeros_like(tensor).index_fill(0, torch.tensor([2, 9]), 1).index_fill(0, torch.tensor([5]), 2)

    monkeypatch.setattr(run, "of_one_orientation", lambda data, rng: np.array([7, 8]))
    data = TrainingData(np.zeros((12, 1, 8, 8), dtype=np.float32), np.full(12, -1))
    assert run._leaders_choice(data, np.random.default_rng(0), Follower()).tolist() == [5, 2, 9]


def test_without_classes_the_reference_is_not_mirrored_and_no_angle_is_taken_for_upright():
    model = SSRVAE(ModelConfig(0, (1, 16, 16))).eval()
    still = Disorder(angle_rad=0.0, shift_px=0.0, log_scale=0.0, shear=0.0, mirror=True)
    ramp = torch.linspace(0, 1, 16).expand(32, 1, 16, 16)
    batch = Batch(ramp, torch.zeros(32, dtype=torch.long), ramp)
    views = losses._views(model, batch, FitConfig(disorder=still), torch.Generator().manual_seed(0))
    torch.testing.assert_close(views.labelled, ramp)
    flipped = (views.undisturbed == ramp.flip(3)).flatten(1).all(dim=1)
    assert 4 < int(flipped.sum()) < 28
    limited = FitConfig(disorder=Disorder(angle_rad=1.0))
    angle, shift = losses._present_pose(model, ramp, torch.ones(32, 1), limited)
    assert angle is None
    assert shift is not None


@pytest.mark.slow
def test_the_angle_of_objects_without_labels_comes_about():
    cards = make_cards(700, angle=180, random_state=3)
    test = make_cards(100, angle=180, random_state=4)
    spade, seen = cards.classes.index("spade"), test.y == test.classes.index("spade")
    model = RVAE(max_epochs=60, random_state=0).fit(cards.X[cards.y == spade])
    found, truth = model.pose(test.X[seen]).angle_rad, test.polar_angle[seen]
    constant = np.angle(np.exp(1j * (found - truth)).mean())
    # Chance is 90 degrees.
    assert np.degrees(np.median(angle_error(found - constant, truth))) < 20
