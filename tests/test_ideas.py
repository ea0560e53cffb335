"""What `benchmarks.ideas` adds to the default method does what its name says."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

# The benchmarks stand beside the package, which is all that is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import ideas

from tumble import SSRVAEClassifier
from tumble.fit import losses


@pytest.fixture(scope="module")
def cards():
    return ideas.data.cards(5, 100, 50, ideas.TUNING + 1)


@pytest.fixture(scope="module")
def fitted(cards):
    return SSRVAEClassifier(max_epochs=8, random_state=0).fit(cards.X, cards.y)


def test_evidence_of_weight_zero_changes_nothing_and_of_weight_one_rules(cards, fitted):
    by_weight = ideas.with_evidence(fitted, cards.X_test)
    assert (by_weight["0"] == fitted.predict(cards.X_test)).all()
    bounds = ideas.class_bounds(fitted.model_, torch.from_numpy(cards.X_test[:, None]).float()).numpy()
    joint = np.log(fitted.predict_proba(cards.X_test).astype(float)) + bounds
    assert (by_weight["1"] == joint.argmax(axis=1)).all()
    assert (by_weight["1"] != by_weight["0"]).any()  # a bound is hundreds of nats: it overrules the classifier


def test_alignment_moves_the_teacher_to_the_shares_that_it_is_told():
    said = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    given = losses._Views(*[torch.zeros(2)] * 5, said)
    with mock.patch.object(losses, "_views", return_value=given):
        views = ideas.aligned_views(np.array([0.5, 0.5]))
        for _ in range(2000):
            found = views().teacher_p
    # The running mean is that of what was said, (.75, .25), once the start is forgotten.
    expected = said * torch.tensor([0.5, 0.5]) / said.mean(dim=0)
    assert torch.allclose(found, expected / expected.sum(dim=1, keepdim=True), atol=1e-4)
    assert found[1, 1] > 0.5 > found[0, 1]


def test_contrast_is_the_cross_entropy_of_finding_the_other_copy():
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for i in range(6):
        others = [j for j in range(6) if j != i]
        likeness = torch.stack([F.cosine_similarity(z[i], z[j], dim=0) / 0.2 for j in others])
        total -= torch.log_softmax(likeness, dim=0)[others.index((i + 3) % 6)].item()
    assert ideas.contrast(z, 0.2).item() == pytest.approx(total / 6, rel=1e-5)


def test_a_fit_begins_with_what_was_trained_before(cards):
    begun, prepare = [], ideas.pretrain_contrastively(2)

    def first_weights(run):
        weight = run.model.classifier.trunk.layers[0].weight
        begun.append(weight.detach().clone())
        prepare(run)
        begun.append(weight.detach().clone())

    with ideas.begun_by(first_weights):
        fitted = SSRVAEClassifier(max_epochs=1, learning_rate=1e-9, random_state=0).fit(cards.X, cards.y)
    assert len(begun) == 2
    assert not torch.allclose(begun[0], begun[1], atol=1e-3)
    # The running mean begins there as well.
    assert torch.allclose(fitted.model_.classifier.trunk.layers[0].weight, begun[1], atol=1e-5)


def test_generative_pretraining_is_the_parameter_of_the_estimator(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(ideas, "compare", lambda *args, settings, **_: given.append((args[2]["idea"], settings)))
    ideas.main(["--out", str(tmp_path / "ideas.json"), "--seeds", "1", "--ideas", ideas.NOTHING, ideas.GENERATIVE])
    assert [(idea, settings.get("pretrain_epochs")) for idea, settings in given] == [
        (ideas.NOTHING, None),
        (ideas.GENERATIVE, 300),
    ]
