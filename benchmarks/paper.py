"""The published method on the published cards: ``method="paper"`` against the accuracy in the paper.

Labelled: 200 cards per class, angle U(-5, 5) degrees, no translation. Unlabelled (3,000 per class) and test (1,000 per
class, a third seed): angle U(-60, 60), translation 0.1. Published for the ss-rVAE: 0.865 and 0.871 (two runs of the
authors); the ss-VAE, which cannot turn anything, stays far below.

A run writes its state after each epoch into --state and goes on from there when it is called again with the same
settings. --minutes ends a call after the epoch in which that time is over. --step-speed measures one step against
pyroVED's instead.
"""

from __future__ import annotations

import hashlib
import json
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import data as sets
from benchmarks.common import Record, Row, arguments, parse, with_options
from tumble.datasets import make_cards
from tumble.fit import Callback, EpochReport, fit_ssrvae
from tumble.fit.acceleration import PRECISIONS, accelerated
from tumble.fit.batches import Batch, TrainingData, as_images
from tumble.fit.paper import PaperConfig, PaperObjective, labelled_every
from tumble.metrics import recall_per_class
from tumble.model.config import ModelConfig
from tumble.model.ssrvae import SSRVAE
from tumble.types import UNLABELLED

N_LABELLED, N_TEST, SIDE = 200, 1000, 48
PUBLISHED = {"ss-rvae at 60 degrees": [0.865, 0.871]}
INVARIANCES = {"ss-rvae": ("rotation", "translation"), "ss-vae": ()}


class TimeIsUp(Exception):
    """Ends a fit whose state was written, so that another call goes on from there."""


class Score(Callback):
    """Keeps the accuracy on the test images every few epochs, and ends the fit in time.

    Parameters
    ----------
    model : SSRVAE
        Takes the weights to score.
    test : TrainingData
        Images and their classes.
    keep : callable
        Called with the epoch and a function that gives the result.
    options : Namespace
        Of the command.
    folder : Path
        State of the run.
    deadline : float
        When to end, by the clock of `time.perf_counter`.
    """

    def __init__(
        self,
        model: SSRVAE,
        test: TrainingData,
        keep: Callable[[int, Callable[[], Row]], None],
        options: Namespace,
        folder: Path,
        deadline: float,
    ) -> None:
        self.model, self.test, self.keep = model, test, keep
        self.every, self.folder, self.deadline = options.every, folder, deadline

    def __call__(self, report: EpochReport) -> None:
        """Score where it is time to."""
        assert report.run is not None
        weights, losses = report.run.weights(), report.losses
        over = time.perf_counter() >= self.deadline
        print(f"epoch {report.epoch}: loss {losses['loss']:.2f}, {report.elapsed_s:.0f} s", flush=True)
        if over or report.epoch % self.every == 0 or report.epoch == report.max_epochs:
            self.model.load_state_dict(weights)
            self.keep(report.epoch, lambda: {**self._score(), **losses, "train_seconds": report.elapsed_s})
        if over:
            report.run.save(self.folder)
            raise TimeIsUp

    @torch.inference_mode()
    def _score(self) -> Row:
        device = self.model.log_py.device
        logits = [self.model.classify(as_images(x, device)) for x in np.array_split(self.test.x, 8)]
        predicted = torch.cat(logits).argmax(dim=1).cpu().numpy()
        recalls = recall_per_class(self.test.y, predicted, classes=np.arange(self.model.config.n_classes))
        return {"accuracy": float(np.mean(predicted == self.test.y)), "recall": list(recalls.values())}


def published_model(method: str, n_classes: int) -> ModelConfig:
    """Give the published networks."""
    return ModelConfig(
        n_classes=n_classes,
        image_shape=(1, SIDE, SIDE),
        invariances=INVARIANCES[method],
        likelihood="bernoulli",
        angle_posterior="normal",
        encoder="dense",
        decoder="coordinate",
        frame="grid",
        standardise=False,
        translation_prior=0.1,
        scale_prior=0.1,
    )


def cards(options: Namespace, seed: int) -> tuple[TrainingData, TrainingData, tuple[str, ...]]:
    """Give the training images, the test images and the names of the classes."""
    glyphs = None if options.glyphs is None else np.load(options.glyphs)
    n_unlabelled, n_labelled, n_test = (8, 4, 4) if options.quick else (options.unlabelled, N_LABELLED, N_TEST)
    labelled = make_cards(n_labelled, angle=5, translation=0, glyphs=glyphs, random_state=sets.LABELLED + seed)
    free = make_cards(n_unlabelled, angle=60, glyphs=glyphs, random_state=sets.UNLABELLED_CARDS + seed)
    test = make_cards(n_test, angle=60, glyphs=glyphs, random_state=sets.TEST + seed)
    x = np.concatenate([labelled.X, free.X])[:, np.newaxis]
    y = np.concatenate([labelled.y, np.full(len(free.y), UNLABELLED)])
    return TrainingData(x, y), TrainingData(test.X[:, np.newaxis], test.y), labelled.classes


def train(record: Record, options: Namespace, method: str, seed: int, deadline: float) -> None:
    """Train one run to its end or to the deadline, and keep its accuracy every few epochs."""
    names = ("pixel_fraction", "learning_rate", "analytic_kl", "class_floor", "precision")
    settings = {name: getattr(options, name) for name in names}
    glyphs = None if options.glyphs is None else options.glyphs.name
    case: Row = {"method": method, "seed": seed, "unlabelled_per_class": options.unlabelled, "glyphs": glyphs}
    case |= {"epochs": options.epochs, **settings}
    device = torch.device(options.device)
    data, test, classes = cards(options, seed)
    shape = published_model(method, len(classes))
    config = PaperConfig(max_epochs=options.epochs, **settings)
    folder = options.state / f"{method}-{hashlib.sha256(json.dumps(case).encode()).hexdigest()[:12]}"

    def keep(epoch: int, work: Callable[[], Row]) -> None:
        record.measure(with_options({**case, "epoch": epoch}, options), work)

    score = Score(SSRVAE(shape).to(device).eval(), test, keep, options, folder, deadline)
    try:
        fit_ssrvae(
            data,
            shape,
            config.loop_settings(),
            objective=PaperObjective(config),
            seed=seed,
            device=device,
            callbacks=[score],
            checkpoint=folder,
            resume=True,
        )
    except TimeIsUp:
        print(f"time is up; the same command goes on from {folder}", flush=True)


def step_speed(options: Namespace) -> Row:
    """Time one optimiser step of ours and of pyroVED's trainer, in turns, at 48 x 48, 4 classes, r and t.

    A labelled batch joins one unlabelled batch in 15, as in the cards run: its time counts by that share.
    """
    batch_size = 4 if options.quick else 100
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch_size, 1, SIDE, SIDE, generator=generator)
    y = torch.arange(batch_size) % 4
    ours, theirs = _our_steps(x, y, options.precision), _pyroved_steps(x, y)
    wall: dict[str, list[float]] = {"ours": [], "pyroved": []}
    processor: dict[str, list[float]] = {"ours": [], "pyroved": []}
    share = 1 / labelled_every(13, 188)
    for _ in range(1 + options.repeats):  # the first turn warms up
        for name, (unlabelled, labelled) in (("ours", ours), ("pyroved", theirs)):
            free, tied = _seconds(unlabelled), _seconds(labelled)
            # Ours takes both batches in one step; what the labelled one adds is the difference.
            extra = [t - f for t, f in zip(tied, free, strict=True)] if name == "ours" else tied
            wall[name].append(free[0] + share * extra[0])
            processor[name].append(free[1] + share * extra[1])
    # The median of the ratios of neighbours in time: other processes slow both alike.
    ratios = {
        kind: [b / a for a, b in zip(times["ours"][1:], times["pyroved"][1:], strict=True)]
        for kind, times in (("wall", wall), ("processor", processor))
    }
    return {
        "ours_s": median(wall["ours"][1:]),
        "pyroved_s": median(wall["pyroved"][1:]),
        "ratio": median(ratios["wall"]),
        "ratios": ratios["wall"],
        "processor_ratio": median(ratios["processor"]),
    }


def _seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def _our_steps(x: torch.Tensor, y: torch.Tensor, precision: str) -> tuple[Callable[[], None], Callable[[], None]]:
    objective = PaperObjective(PaperConfig(precision=precision))
    model = SSRVAE(published_model("ss-rvae", 4))
    optimiser, generator = objective.optimiser(model), torch.Generator().manual_seed(0)

    def step(batch: Batch) -> None:
        with accelerated(model, objective.config.loop_settings()):
            loss, _ = objective.loss(model, None, batch, kl_weight=1.0, generator=generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return lambda: step(Batch(x[:0], y[:0], x)), lambda: step(Batch(x, y, x))


def _pyroved_steps(x: torch.Tensor, y: torch.Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from benchmarks.pyroved_peer import import_pyroved

    pv = import_pyroved()
    model = pv.models.ssiVAE((SIDE, SIDE), 2, 4, ["r", "t"], device="cpu", seed=0)
    trainer = pv.trainers.auxSVItrainer(model, device="cpu", seed=0)
    settings = {"scale_factor": 1.0, "aux_loss_multiplier": 30}
    pixels, one_hot = x.flatten(1), torch.nn.functional.one_hot(y, 4).float()
    return (
        lambda: trainer.compute_loss(pixels, **settings),
        lambda: trainer.compute_loss(pixels, one_hot, **settings),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train or go on training, then print the table."""
    parser = arguments("paper", __doc__, methods=tuple(INVARIANCES), default_methods=("ss-rvae",), seeds=1)
    parser.add_argument("--glyphs", type=Path, help="array (4, 64, 64) of the suits (default: those of tumble)")
    parser.add_argument("--unlabelled", type=int, default=3000, help="unlabelled cards per class")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--every", type=int, default=5, help="epochs between two scores")
    parser.add_argument("--pixel-fraction", type=float, default=1.0, help="share of pixels in the likelihood")
    parser.add_argument("--learning-rate", type=float, default=PaperConfig().learning_rate)
    parser.add_argument("--analytic-kl", action="store_true", help="divergences in closed form")
    parser.add_argument("--class-floor", type=float, default=0.0, help="least q(y | x) of a class in the sum; try 1e-8")
    parser.add_argument("--precision", choices=PRECISIONS, default=PaperConfig().precision)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="ends after the epoch that passes this")
    parser.add_argument("--state", type=Path, default=Path("outputs/paper"), help="folder of the runs' states")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--step-speed", action="store_true", help="time one step against pyroVED's instead")
    parser.add_argument("--repeats", type=int, default=5, help="turns of --step-speed")
    options = parse(parser, argv)
    if options.quick:
        options.unlabelled, options.epochs, options.repeats = 8, min(options.epochs, 2), 1
        options.state = options.out.parent / "paper-state"
    record = Record(options.out, options.since, published=PUBLISHED)
    if options.step_speed:
        threads = torch.get_num_threads()
        case = {"what": "step against pyroVED 0.3.0", "torch_threads": threads, "precision": options.precision}
        record.measure(with_options(case, options), lambda: step_speed(options))
        return
    deadline = time.perf_counter() + 60 * options.minutes
    for method in options.methods:
        for seed in range(options.seeds):
            if time.perf_counter() < deadline:
                train(record, options, method, seed, deadline)
    print("\n" + record.table(["method", "unlabelled_per_class", "pixel_fraction", "epoch"], "accuracy"))


if __name__ == "__main__":
    main()
