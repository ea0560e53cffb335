"""Symmetry by construction, and what the classifier sees beside the pixels."""

import math

import pytest
import torch

from tumble import SSRVAEClassifier
from tumble.estimators.settings import model_config
from tumble.model.config import ModelConfig
from tumble.model.equivariant import SYMMETRIES, GroupConv, GroupNorm2d, group_order
from tumble.model.nets import Classifier, ConvTrunk, FineTrunk
from tumble.model.ssrvae import SSRVAE


def acted(x, element):
    """Do to an image what an element of the group says: mirror, then turn."""
    quarter_turns, mirrored = element
    return torch.rot90(x.flip(-1) if mirrored else x, quarter_turns, (-2, -1))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
def test_turning_the_image_turns_the_planes_and_permutes_the_stack(symmetry, kernel, stride):
    torch.manual_seed(0)
    lift = GroupConv(2, 3, kernel, stride, symmetry=symmetry, lift=True).double()
    second = GroupConv(3, 4, 3, 1, symmetry=symmetry).double()
    norm = GroupNorm2d(3, symmetry).double().eval()
    x = torch.randn(2, 2, 12, 12, dtype=torch.float64)
    order = group_order(symmetry)

    def features(x):
        return second(torch.relu(norm(lift(x)))).unflatten(1, (order, 4)).transpose(1, 2)

    plain = features(x)
    for element in SYMMETRIES[symmetry]:
        turned = features(acted(x, element))
        expected = acted(plain, element)
        # The planes come in another order: the same one for all features and places.
        matches = [
            [bool(torch.allclose(turned[:, :, i], expected[:, :, j], atol=1e-9)) for j in range(order)]
            for i in range(order)
        ]
        assert [sum(row) for row in matches] == [1] * order
        assert [sum(column) for column in zip(*matches, strict=True)] == [1] * order


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_planes_of_a_feature_share_one_normalisation(memory_format):
    torch.manual_seed(0)
    norm, plain = GroupNorm2d(3, "rotations").double(), torch.nn.BatchNorm3d(3).double()
    x = torch.randn(5, 4 * 3, 6, 7, dtype=torch.float64).contiguous(memory_format=memory_format)
    expected = plain(x.unflatten(1, (4, 3)).transpose(1, 2)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm.norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.norm.running_var, plain.running_var)


@pytest.mark.parametrize("symmetry", ["rotations", "rotations+mirror"])
@pytest.mark.parametrize("side", [48, 64, 96])
def test_the_fine_classifier_does_not_see_quarter_turns(symmetry, side):
    torch.manual_seed(0)
    config = ModelConfig(3, (1, side, side), classifier="fine", symmetry=symmetry)
    model = SSRVAE(config, pixel_offset=0.4, pixel_scale=0.3).eval()
    x = torch.rand(4, 1, side, side)
    with torch.no_grad():
        plain = model.classify(x)
        for element in SYMMETRIES[symmetry]:
            torch.testing.assert_close(model.classify(acted(x, element)), plain, rtol=1e-4, atol=1e-5)
        mirrored = model.classify(x.flip(-1))
    assert torch.allclose(mirrored, plain, rtol=1e-3, atol=1e-4) == (symmetry == "rotations+mirror")


@pytest.mark.parametrize(
    "trunk", [ConvTrunk(1, (48, 48), (8, 16), radius=True), FineTrunk(1, (48, 48), "none", radius=True)]
)
def test_the_classifier_sees_the_distance_from_the_centre(trunk):
    radius = trunk.radius
    torch.testing.assert_close(radius, torch.rot90(radius, 1, (-2, -1)))
    assert float(radius.min()) == pytest.approx(-1, abs=0.01)
    half = radius.shape[-1] // 2
    assert float(radius[0, 0, half, -1]) == pytest.approx(1, abs=0.2)
    net = Classifier(trunk, 3, hidden=16).eval()
    x = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        seen = net(x)
        trunk.radius.mul_(-1)
        assert not torch.allclose(net(x), seen, atol=1e-4)


@pytest.mark.parametrize("classifier", ["fast", "fine"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 17, 30), (1, 256, 128)])
def test_any_size_and_number_of_channels(classifier, shape):
    config = ModelConfig(5, shape, latent_dim=32, classifier=classifier, symmetry="rotations", hidden=16)
    model = SSRVAE(config).eval()
    x = torch.rand(2, *shape)
    with torch.no_grad():
        assert model.classify(x).shape == (2, 5)
        y = torch.tensor([0, 4])
        posterior = model.encode(model.features(x), y)
        assert posterior.qz.loc.shape == (2, 32)
        assert model.decode(posterior.qz.loc, y, model.mean_pose(posterior)).shape == x.shape
        assert math.isfinite(float(model.log_likelihood(x, x).sum()))


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (17, 30), (28, 28), (48, 33)])
def test_the_trunk_of_the_fast_classifier_gives_the_shape_it_says(size, fold):
    trunk = ConvTrunk(2, size, (8, 16), extra=1, radius=True, fold=fold).eval()
    x = torch.rand(3, 2, *size)
    with torch.no_grad():
        assert trunk(x).shape[1:] == trunk.out_shape
    assert trunk.layers[0].in_channels == (9 if fold else 3)


@pytest.mark.parametrize(("size", "fold"), [((28, 28), False), ((20, 32), False), ((20, 33), True), ((48, 48), True)])
def test_small_images_are_classified_at_full_resolution(size, fold):
    config = model_config(SSRVAEClassifier().get_params(), 3, (1, *size))
    assert config.fold is fold
    assert SSRVAE(config).classifier.trunk.block == 1 + fold
