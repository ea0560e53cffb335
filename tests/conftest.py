"""How the tests share the cores: which run one after the other, in what order, and with how many threads."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch

from tumble.fit import confidence

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Fits of tests are tiny; the score of novelty that follows each would take most of their time. Where its quality is
#: looked at, it is learned in full.
_FEWER_NOVELTY_STEPS = 60
_IN_FULL = frozenset({"test_confidence"})


def pytest_configure(config: pytest.Config) -> None:
    """One thread for each of several workers: more would only wait for each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
        torch.set_num_threads(1)


# First: `-m` and `-k` choose afterwards.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of most slow tests, so that no worker is left with one when the others are done.

    The tests of a file stay on one worker (``--dist loadfile``), for what they share: models, servers, ports.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


# Of the module, so that it comes before the models that a module's tests share.
@pytest.fixture(scope="module", autouse=True)
def _short_score_of_novelty(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem not in _IN_FULL:
            patch.setattr(confidence, "_STEPS", (_FEWER_NOVELTY_STEPS, _FEWER_NOVELTY_STEPS))
        yield
