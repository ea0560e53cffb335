"""What else the unlabelled images could add: ideas that the default method does without, each added alone.

- ``evidence``: at prediction the bound on log p(x, y) of each class joins log q(y | x), with several weights.
- ``alignment``: what the teacher says of the unlabelled images is moved towards classes of known shares, the true ones
  here, by their ratio to the running mean of what it said (distribution alignment, as in ReMixMatch).
- ``generative pre-training``: ``pretrain_epochs`` for about 1,500 steps, 2,000 with the best settings of plankton.
- ``contrastive pre-training``: the convolutions of the classifier begin as trained to tell disturbed copies of one
  image from those of others (NT-Xent, as in SimCLR).

Data are those of `benchmarks.mnist` (10 labels per class, 24 epochs), `benchmarks.agglomerates` and, with the default
settings and with the best ones, `benchmarks.plankton`; seeds are those of tuning, as in `benchmarks.ablation`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import agglomerates, data, mnist, plankton
from benchmarks.ablation import TUNING
from benchmarks.common import Record, Row, arguments, parse
from benchmarks.methods import Fitted, compare
from tumble import SSRVAEClassifier
from tumble.fit import losses
from tumble.fit.augment import degrade, disturb_geometry, disturb_intensity
from tumble.fit.batches import as_images
from tumble.fit.run import Run
from tumble.metrics import balanced_accuracy, recall_per_class
from tumble.model import objectives
from tumble.model.ssrvae import SSRVAE

#: Weights of the evidence, in nats; 0 is q(y | x) alone.
EVIDENCE_WEIGHTS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
#: Draws from the posterior over which the evidence is averaged.
_N_DRAWS = 4
_CHUNK, _CPU = 250, torch.device("cpu")
_RUNNING = 0.99
_PRETRAIN_BATCH, _PRETRAIN_RATE, _TEMPERATURE, _PROJECTED = 192, 1e-3, 0.2, 64
NOTHING, ALIGNMENT = "nothing (the default)", "alignment"
GENERATIVE, CONTRASTIVE = "generative pre-training", "contrastive pre-training"
#: Evidence needs no fit of its own: it is in the row of the default.
IDEAS = (NOTHING, ALIGNMENT, GENERATIVE, CONTRASTIVE)
#: Optimiser steps of the contrastive pre-training.
_CONTRASTIVE_STEPS = 1500


@torch.no_grad()
def class_bounds(model: SSRVAE, x: Tensor) -> Tensor:
    """Bounds on log p(x, y), in nats, of images (n, C, H, W) for each class; (n, K)."""
    generator = torch.Generator().manual_seed(0)
    features, prior = model.features(x), objectives.pose_prior_for(model, x)
    columns = []
    for k in range(model.config.n_classes):
        y = torch.full((len(x),), k)
        posterior = model.encode(features, y)
        draws = [
            objectives.elbo_terms(model, x, y, posterior, prior=prior, generator=generator).bound()
            for _ in range(_N_DRAWS)
        ]
        columns.append(torch.stack(draws).mean(dim=0))
    return torch.stack(columns, dim=1)


def with_evidence(model: SSRVAEClassifier, X: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.intp]]:
    """Class of each image by log q(y | x) and the evidence, for each weight of the latter."""
    log_q = np.log(np.asarray(model.predict_proba(X), dtype=float).clip(1e-30))
    images = X.reshape(-1, *model.model_.config.image_shape)
    parts = [class_bounds(model.model_, as_images(images[i : i + _CHUNK], _CPU)) for i in range(0, len(X), _CHUNK)]
    bounds = torch.cat(parts).double().numpy()
    return {f"{weight:g}": (log_q + weight * bounds).argmax(axis=1) for weight in EVIDENCE_WEIGHTS}


def aligned_views(shares: npt.NDArray[np.float64]) -> Callable[..., Any]:
    """`tumble.fit.losses._views` whose teacher keeps to classes of these shares on average."""
    original, target = losses._views, torch.tensor(shares, dtype=torch.float32)
    running = target.clone()

    def views(*given: Any) -> Any:
        found = original(*given)
        running.lerp_(found.teacher_p.mean(dim=0), 1 - _RUNNING)
        moved = found.teacher_p * target / running.clamp(min=1e-4)
        return replace(found, teacher_p=moved / moved.sum(dim=1, keepdim=True))

    return views


@contextlib.contextmanager
def begun_by(prepare: Callable[[Run], None]) -> Iterator[None]:
    """Let every run begin with what `prepare` makes of its first weights."""
    original = Run.__init__

    def begin(run: Run, *given: Any, **named: Any) -> None:
        original(run, *given, **named)
        prepare(run)
        run.teacher.model.load_state_dict(run.model.state_dict())

    with mock.patch.object(Run, "__init__", begin):
        yield


def pretrain_contrastively(n_steps: int) -> Callable[[Run], None]:
    """Begin with convolutions of the classifier that know copies of an image from those of others."""

    def prepare(run: Run) -> None:
        model, disorder = run.model, run.settings.disorder
        classifier: Any = model.classifier
        n = classifier.n_embedded
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            project = nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, _PROJECTED))
        weights = [*classifier.trunk.parameters(), *project.parameters()]
        optimiser = torch.optim.AdamW(weights, lr=_PRETRAIN_RATE, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
        rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        size = min(_PRETRAIN_BATCH, len(run.data))
        for _ in range(n_steps):
            x = as_images(run.data.x[np.sort(rng.permutation(len(run.data))[:size])], _CPU)
            copies = torch.cat([disturb_geometry(x, disorder, generator)[0] for _ in range(2)])
            copies = disturb_intensity(copies, disorder, model.pixel_scale, generator)
            copies = degrade(copies, disorder, model.pixel_scale, generator)
            loss = contrast(project(classifier.embed(model.standardise(copies))))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()

    return prepare


def contrast(embedded: Tensor, temperature: float = _TEMPERATURE) -> Tensor:
    """NT-Xent of (2 n, d) features: row i and row i + n are copies of one image."""
    unit = F.normalize(embedded, dim=1)
    similarity = unit @ unit.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(unit), dtype=torch.bool), -math.inf)
    partner = torch.arange(len(unit)).roll(len(unit) // 2)
    return F.cross_entropy(similarity, partner)


def applied(
    idea: str, shares: Callable[[], npt.NDArray[np.float64]], *, quick: bool
) -> contextlib.AbstractContextManager[Any]:
    """Context in which every fit follows an idea."""
    if idea == ALIGNMENT:
        return mock.patch.object(losses, "_views", aligned_views(shares()))
    if idea == CONTRASTIVE:
        return begun_by(pretrain_contrastively(2 if quick else _CONTRASTIVE_STEPS))
    return contextlib.nullcontext()


def score(model: Fitted, split: data.Split) -> Row:
    """Accuracy, balanced accuracy and least recall; the second for each weight of the evidence as well."""
    predicted = model.predict(split.X_test)
    recalls = recall_per_class(split.y_test, predicted, classes=np.arange(len(split.classes)))
    by_weight = with_evidence(model, split.X_test)
    return {
        "accuracy": float(np.mean(predicted == split.y_test)),
        "balanced_accuracy": balanced_accuracy(split.y_test, predicted),
        "least_recall": min(recalls.values()),
        "with_evidence": {w: balanced_accuracy(split.y_test, classes) for w, classes in by_weight.items()},
    }


@dataclass(frozen=True)
class _Set:
    """Data, settings, epochs of pre-training, ideas that apply, and shares of the classes (None: those of the test)."""

    make: Callable[[int], data.Split]
    settings: Row
    pretrain_epochs: int
    ideas: tuple[str, ...] = IDEAS
    shares: tuple[float, ...] | None = None

    def shares_for(self, seed: int) -> npt.NDArray[np.float64]:
        counts = np.bincount(self.make(seed).y_test) if self.shares is None else np.array(self.shares)
        return counts / counts.sum()


def sets_of_data(options: argparse.Namespace) -> dict[str, _Set]:
    """Give the sets of data that the options have files for."""
    few = options.quick

    def particles(seed: int) -> data.Split:
        if few:
            return data.agglomerates(2, 3, TUNING + seed, counts=(6, 5, 4, 4))
        return data.agglomerates(data.LABELS_PER_CLASS, 200, TUNING + seed)

    def digits(seed: int) -> data.Split:
        return data.mnist(options.mnist, 10, TUNING + seed, **({"n_unlabelled": 20, "n_test": 20} if few else {}))

    def organisms(seed: int) -> data.Split:
        return data.plankton(options.plankton, data.LABELS_PER_CLASS, TUNING + seed)

    found = {"agglomerates": _Set(particles, agglomerates.SETTINGS, 300, shares=data.GOLD_COUNTS)}
    if options.mnist is not None:
        found["digits"] = _Set(digits, {**mnist.SETTINGS, "max_epochs": 24}, 12)
    if options.plankton is not None:
        # Without pseudo-labels the teacher has no say.
        pretrained = (NOTHING, GENERATIVE, CONTRASTIVE)
        found["plankton"] = _Set(organisms, plankton.SETTINGS, 62)
        found["plankton, best settings"] = _Set(organisms, {**plankton.SETTINGS, **plankton.BEST}, 83, pretrained)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every idea on every set of data for every seed, then print the table."""
    parser = arguments("ideas", __doc__, seeds=2)
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="folder of the MNIST idx files")
    parser.add_argument("--plankton", type=Path, metavar="FILE", help="plankton48.npz")
    parser.add_argument("--ideas", nargs="+", choices=IDEAS, default=list(IDEAS), metavar="NAME")
    parser.add_argument("--data", nargs="+", metavar="NAME", help="only these sets of data (default: all with a file)")
    options = parse(parser, argv)
    record = Record(options.out, options.since)
    sets = sets_of_data(options)
    unknown = set(options.data or ()) - set(sets)
    if unknown:
        parser.error(f"--data {' '.join(sorted(unknown))}: with these files there are: {', '.join(sets)}")
    chosen = {name: sets[name] for name in options.data or sets}
    for seed, (name, one) in itertools.product(range(1, options.seeds + 1), chosen.items()):
        for idea in (i for i in options.ideas if i in one.ideas):
            case = {"data": name, "idea": idea, "seed": seed}
            make = partial(one.make, seed)
            pretrained = {"pretrain_epochs": 1 if options.quick else one.pretrain_epochs} if idea == GENERATIVE else {}
            with applied(idea, partial(one.shares_for, seed), quick=options.quick):
                settings = {**one.settings, **pretrained}
                compare(record, options, case, make, score, settings=settings, methods=["tumble"])
    print("\n" + record.table(["data", "idea"], "balanced_accuracy"))


if __name__ == "__main__":
    main()
