"""How the tests share the cores: which run one after the other, in what order, and with how many threads."""

from __future__ import annotations

import os
from collections import defaultdict
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
    """Keep each file's tests on one worker (``--dist loadgroup``), for what they share; files of slow tests first.

    A file that begins last, when the other workers are done, should be a short one. A test that takes long and shares
    nothing may go by itself: ``@pytest.mark.xdist_group("each")``.
    """
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        by_itself = item.get_closest_marker("xdist_group") is not None
        name = item.nodeid if by_itself else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(name))
        groups[name].append(item)
    in_order = sorted(groups.values(), key=_n_slow, reverse=True)
    items[:] = [item for group in in_order for item in group]


def _n_slow(group: list[pytest.Item]) -> int:
    return sum(item.get_closest_marker("slow") is not None for item in group)


# Of the module, so that it comes before the models that a module's tests share.
@pytest.fixture(scope="module", autouse=True)
def _short_score_of_novelty(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem not in _IN_FULL:
            patch.setattr(confidence, "_STEPS", _FEWER_NOVELTY_STEPS)
        yield
