"""What follows the training: the temperature of the probabilities, and a score of novelty.

The classifier is trained to be sure of every unlabelled object, also of those whose class nobody labelled: they are
absorbed by the class that looks most alike, and afterwards neither the probability nor the distance to the class tells
them. What tells them is that no labelled object looks like them. So a small network learns to tell labelled from
unlabelled objects ("positive and unlabelled" learning): objects of a known class occur on both sides in equal share,
objects of an unknown class on one side only. Beside it stands the distance from everything that was seen in training,
for objects that come later.

References
----------
.. [1] C. Elkan, K. Noto, "Learning classifiers from only positive and unlabeled data", 2008,
       https://doi.org/10.1145/1401890.1401920 (the logistic regression of labelled against unlabelled).
.. [2] C. Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599 (section 4.2).
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tumble.fit.augment import disturb_geometry, disturb_intensity
from tumble.fit.batches import as_images
from tumble.model.distributions import randn

if TYPE_CHECKING:
    from tumble.fit.batches import TrainingData
    from tumble.fit.config import FitConfig
    from tumble.model.nets import NoveltyHead
    from tumble.model.ssrvae import SSRVAE

__all__ = ["fit_novelty", "fit_temperature", "hold_out_labels"]

#: Disturbed copies of labelled images, and as many of unlabelled ones, that the score of novelty is learned from, and
#: how many of one unlabelled image at most. Fewer are learned by heart: of 300 unlabelled cards one copy each tells a
#: fourth suit from three with an area under the ROC curve of 0.8, ten copies with 0.96, twenty with 0.99.
_SAMPLE = 6000
_COPIES = 20
#: Standard deviation of the noise on their features, in units of the features' own spread. With 3,000 unlabelled cards
#: per suit it raises that area from 0.985 to 0.992, in the mean of four fits.
_NOISE = 0.3
#: Steps per disturbed copy, and within which limits.
_STEPS_PER_COPY = 1 / 6
_STEPS = (200, 1000)
_BATCH = 192
_PIECE = 500
#: Parts of the labelled images that take turns in being kept from the score, to see what it gives to new ones.
_FOLDS = 5
#: Classes with at least this many labels give up a part of them to the calibration.
MIN_LABELS_TO_HOLD_OUT = 20
_HELD_OUT_SHARE = 0.2
_HELD_OUT_MOST = 50
#: Width of the prior on the log temperature: few held-out labels must not make it wild.
_LOG_TEMPERATURE_PRIOR = 0.7
_VIEWS = 8


def hold_out_labels(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose labelled rows that the calibration keeps from the classifier.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class indices, -1 for unlabelled.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int
        A fifth of the labels of each class, at most 50; nothing unless every class has 20 labels.
    """
    members = [np.flatnonzero(y == k) for k in np.unique(y[y >= 0])]
    if not members or min(map(len, members)) < MIN_LABELS_TO_HOLD_OUT:
        return np.zeros(0, dtype=np.int64)
    sizes = [min(_HELD_OUT_MOST, round(_HELD_OUT_SHARE * len(m))) for m in members]
    return np.sort(np.concatenate([rng.choice(m, n, replace=False) for m, n in zip(members, sizes, strict=True)]))


@torch.no_grad()
def _views(
    data: TrainingData, rows: np.ndarray, settings: FitConfig, model: SSRVAE, generator: torch.Generator
) -> Tensor:
    """Images of `rows`, each disturbed at random."""
    x = as_images(data.x[rows], model.pixel_scale.device)
    x, _ = disturb_geometry(x, settings.disorder, generator)
    return disturb_intensity(x, settings.disorder, model.pixel_scale, generator)


def fit_temperature(
    model: SSRVAE, data: TrainingData, rows: np.ndarray, settings: FitConfig, generator: torch.Generator
) -> None:
    """Set the temperature that makes held-out labels likeliest, each seen at several poses [2].

    Parameters
    ----------
    model : SSRVAE
        Its `log_temperature` is set.
    data : TrainingData
        Images and classes.
    rows : ndarray of int
        Held-out labelled images; with none the temperature stays 1.
    settings : FitConfig
        The disorder.
    generator : torch.Generator
        Source of the draws.
    """
    if not len(rows):
        return
    with torch.no_grad():
        pieces = [model.classify(_views(data, rows, settings, model, generator)) for _ in range(_VIEWS)]
    logits = torch.cat(pieces).double()
    y = torch.from_numpy(np.tile(data.y[rows], _VIEWS)).to(logits.device)
    log_t = torch.zeros((), dtype=torch.float64, device=logits.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t], max_iter=50, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        # Views of one image are not independent: together they count as one.
        surprise = F.cross_entropy(logits / log_t.exp(), y, reduction="sum") / _VIEWS
        loss = surprise + 0.5 * (log_t / _LOG_TEMPERATURE_PRIOR) ** 2
        loss.backward()
        return loss

    optimiser.step(objective)
    model.log_temperature.copy_(log_t.detach().clamp(-2.0, 3.0).float())


def fit_novelty(
    model: SSRVAE, data: TrainingData, settings: FitConfig, rng: np.random.Generator, generator: torch.Generator
) -> None:
    """Learn the score of novelty, on the features of the fitted networks.

    Parameters
    ----------
    model : SSRVAE
        Gets a :class:`tumble.model.nets.NoveltyHead`; nothing else of it changes.
    data : TrainingData
        Images and classes.
    settings : FitConfig
        The disorder.
    rng, generator
        Sources of the draws.
    """
    labelled, unlabelled = np.flatnonzero(data.y >= 0), np.flatnonzero(data.y < 0)
    chosen = np.sort(_repeated(unlabelled, rng)) if len(unlabelled) else labelled
    seen, frequencies = _features(model, data, chosen, settings, generator)
    # Layers draw their initial weights from torch's global CPU generator; the fork gives it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**31)))
        head = model.add_novelty()
    head.describe(seen)
    parts = None
    if len(labelled) and len(unlabelled):
        rows = _like_the_unlabelled(data.y, frequencies, len(chosen), rng)
        known, _ = _features(model, data, rows, settings, generator)
        parts = _parts_of_unseen(head, known, _folds(data.y, rows, rng), seen, settings, generator)
        _train(head, known, seen, settings, generator)
    head.eval().requires_grad_(False)
    # Without labels, or without two of a class, what is known is all that was seen.
    head.set_scale(head.parts(seen) if parts is None else parts, head.parts(seen))


def _repeated(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give each of `rows` as often as all others, give or take one; all together as many as the score needs."""
    n_copies = min(_COPIES, math.ceil(_SAMPLE / len(rows)))
    return np.concatenate([rng.permutation(rows) for _ in range(n_copies)])[:_SAMPLE]


def _folds(y: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Divide the labelled images of `rows`, class by class, into up to five folds; gives the fold of each row.

    All in fold 0 if a class has one label only.
    """
    fold = np.zeros(len(y), dtype=np.int64)
    classes, counts = np.unique(y[y >= 0], return_counts=True)
    n_folds = min(_FOLDS, int(counts.min()))
    for k in classes:
        members = rng.permutation(np.flatnonzero(y == k))
        fold[members] = np.arange(len(members)) % n_folds
    return fold[rows]


def _parts_of_unseen(
    head: NoveltyHead,
    known: Tensor,
    folds: np.ndarray,
    seen: Tensor,
    settings: FitConfig,
    generator: torch.Generator,
) -> Tensor | None:
    """Score labelled objects by networks that were not trained on them; None where there is one fold only.

    A network knows the few labelled images it was trained on by heart: their own scores would promise a far lower
    limit than new objects of the same classes keep to.
    """
    # Of those that occur: with few images a fold may have been drawn never, or alone.
    present = np.unique(folds)
    if len(present) < 2:
        return None
    kept = torch.from_numpy(folds).to(known.device)
    parts = known.new_empty(len(known), 2)
    for fold in present.tolist():
        own = copy.deepcopy(head)
        _train(own, known[kept != fold], seen, settings, generator)
        with torch.no_grad():
            parts[kept == fold] = own.parts(known[kept == fold])
    return parts


@torch.no_grad()
def _features(
    model: SSRVAE, data: TrainingData, rows: np.ndarray, settings: FitConfig, generator: torch.Generator
) -> tuple[Tensor, np.ndarray]:
    """Evidence (n, n_features) of disturbed images, and the mean of q(y | x) over them (K,)."""
    features, p = [], []
    for start in range(0, len(rows), _PIECE):
        x = _views(data, rows[start : start + _PIECE], settings, model, generator)
        features.append(model.evidence(x))
        p.append(model.probabilities(x))
    return torch.cat(features), torch.cat(p).mean(dim=0).cpu().numpy()


def _like_the_unlabelled(y: np.ndarray, frequencies: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `n` labelled rows, with repetition, in the class frequencies of the unlabelled ones.

    Without this a class that is more frequent among the unlabelled would count as novel.
    """
    members = {int(k): np.flatnonzero(y == k) for k in np.unique(y[y >= 0])}
    share = np.array([frequencies[k] for k in members]) + 1e-3
    drawn = rng.choice(list(members), n, p=share / share.sum())
    return np.array([rng.choice(members[int(k)]) for k in drawn])


def _train(head: NoveltyHead, known: Tensor, seen: Tensor, settings: FitConfig, generator: torch.Generator) -> None:
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=1e-2)

    def draw(features: Tensor) -> Tensor:
        rows = torch.randint(len(features), (_BATCH,), generator=generator, device=generator.device)
        return features[rows] + _NOISE * head.spread * randn(features[rows], generator)

    least, most = _STEPS
    with torch.enable_grad():
        for _ in range(min(most, max(least, round(_STEPS_PER_COPY * len(seen))))):
            loss = F.softplus(head.logit(draw(known))).mean() + F.softplus(-head.logit(draw(seen))).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
