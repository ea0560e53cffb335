"""What studies train and measure, in pieces that do not depend on each other but for a model that comes first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tumble.errors import ConfigError
from tumble.paper.data import Cards
from tumble.paper.lab import describe
from tumble.paper.methods import AUTOENCODERS, BASELINES, DEGRADED, Fit
from tumble.paper.names import METHOD_TITLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tumble.paper.lab import Lab
    from tumble.paper.outcome import Study

__all__ = ["FitTask", "StudyTask", "Task", "tasks_for"]


@dataclass(frozen=True)
class FitTask:
    """Fit a model and, where it classifies, score it.

    Parameters
    ----------
    fit : Fit
        Which.
    """

    fit: Fit

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"{self.fit.title}, {describe(self.fit)}"

    def run(self, lab: Lab, studies: Mapping[str, Study]) -> None:
        """Do it; the lab keeps what comes of it."""
        del studies
        if self.fit.supervised:
            lab.scores(self.fit)
        # Of one of many only the scores are drawn; classifiers on pixels are not kept.
        if not self.fit.swept and self.fit.method not in BASELINES:
            lab.fitted(self.fit)


@dataclass(frozen=True)
class StudyTask:
    """Measure all that a study asks of one method.

    Parameters
    ----------
    study, method : str
        Their names.
    after : tuple of Fit
        What must be fitted before.
    """

    study: str
    method: str
    after: tuple[Fit, ...]

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"{self.study} of {METHOD_TITLES[self.method]}"

    def run(self, lab: Lab, studies: Mapping[str, Study]) -> None:
        """Do it; the lab keeps what comes of it."""
        measure = studies[self.study].measure
        if measure is not None:
            measure(dataclasses.replace(lab, methods=(self.method,)))


Task = FitTask | StudyTask
_BY_COST = (*AUTOENCODERS, DEGRADED, "boosting", *(name for name in BASELINES if name != "boosting"))


def tasks_for(lab: Lab, studies: Mapping[str, Study]) -> list[Task]:
    """List everything that studies train and measure, each thing once, in a good order.

    Models that most figures share come first, long fits before short ones, measurements last.

    Parameters
    ----------
    lab : Lab
        Its methods are compared.
    studies : mapping of str to Study
        What is recomputed.

    Returns
    -------
    list of FitTask or StudyTask
    """
    fits: dict[Fit, None] = {}
    measured: list[StudyTask] = []
    for name, study in studies.items():
        for method in lab.methods:
            one = dataclasses.replace(lab, methods=(method,))
            try:
                needed = tuple(dict.fromkeys(study.needs(one)))
            except ConfigError:  # the study has no use for this method
                continue
            fits |= dict.fromkeys(fit for fit in needed if fit.method == method)
            if study.measure is not None and any(fit.method == method for fit in needed):
                measured.append(StudyTask(name, method, needed))
    return [*map(FitTask, sorted(fits, key=_urgency)), *measured]


def _urgency(fit: Fit) -> tuple[bool, int, bool]:
    """Sort key of a fit: shared ones first, then by what methods take; there are many cards, few nanoparticles."""
    return not fit.filmed, _BY_COST.index(fit.method), not isinstance(fit.source, Cards)
