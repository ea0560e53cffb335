"""What lives from step to step of a fit: weights, their running mean, the optimiser, the generators."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tumble.fit.acceleration import accelerated
from tumble.fit.batches import TrainingData, as_images
from tumble.fit.confidence import fit_novelty, fit_temperature, hold_out_labels
from tumble.fit.distributed import share_rows
from tumble.fit.factors import independent_axes
from tumble.fit.losses import Teacher
from tumble.fit.objective import DefaultObjective
from tumble.fit.reference import of_one_orientation
from tumble.fit.state import load_optimiser, load_weights, optimiser_tensors
from tumble.model.ssrvae import SSRVAE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tumble.fit.batches import Batch
    from tumble.fit.config import FitConfig
    from tumble.fit.distributed import Ranks
    from tumble.fit.objective import Objective
    from tumble.model.config import ModelConfig

__all__ = ["Run"]

#: Images that set the offset and scale of the pixels; more would not change them noticeably.
_STATISTICS_SAMPLE = 2000
#: Bytes of float32 pixels that are held at once outside of training steps, where images are large.
_STATISTICS_BYTES, _CHUNK_BYTES = 2**28, 2**26
_CHUNK = 512
#: Fewer objects than this say too little of the spread within a class.
_MIN_MEMBERS = 5


class Run:
    """A training run between two steps.

    Parameters
    ----------
    data : TrainingData
        Images and class indices.
    config : ModelConfig
        Shape of the networks.
    settings : FitConfig
        Everything else.
    objective : Objective
        Loss, optimiser and schedules.
    class_prior : ndarray of shape (K,) or None
        p(y); None is uniform.
    seed : int
        Seeds everything that is drawn.
    ranks : Ranks
        The processes that train together, and the device of this one.
    begin : callable or None
        Changes the initial model in place.
    """

    def __init__(
        self,
        data: TrainingData,
        config: ModelConfig,
        settings: FitConfig,
        objective: Objective,
        *,
        class_prior: np.ndarray | None,
        seed: int,
        ranks: Ranks,
        begin: Callable[[SSRVAE], None] | None = None,
    ) -> None:
        self.settings, self.objective, self.ranks = settings, objective, ranks
        self.rng = np.random.default_rng(seed)
        self.labels = data.y
        self.held_out = hold_out_labels(data.y, self.rng) if settings.calibrate else np.zeros(0, dtype=np.int64)
        self.data = data
        if len(self.held_out):
            kept = data.y.copy()
            kept[self.held_out] = -1
            self.data = TrainingData(data.x, kept)
        # Rows of objects of one orientation, where no label tells any: all of them at first, then the first of them.
        self._upright: np.ndarray | None = None
        if not config.n_classes and "rotation" in config.invariances and isinstance(objective, DefaultObjective):
            self._upright = _leaders_choice(data, self.rng, ranks)
        self.generator = torch.Generator(device=ranks.device).manual_seed(seed)
        self.model = _initial_model(data, config, self.rng, seed, ranks.device, begin).train()
        if class_prior is not None:
            self.model.log_py.copy_(torch.tensor(np.log(class_prior), dtype=torch.float32))
        self.teacher = Teacher(self.model, settings.ema_decay)
        self.optimiser = objective.optimiser(self.model)
        self.n_epochs = settings.epochs_for(len(data), labels=config.n_classes > 0)
        self.n_steps = self.n_epochs * settings.steps_per_epoch(len(data))
        self.step = 0
        self._loss = ranks.gradient_mean(_Loss(self.model, self.teacher.model, objective, self.generator))

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Speed the networks up as the settings say, and share them among the processes, within this context."""
        with contextlib.ExitStack() as stack:
            for model in (self.model, self.teacher.model):
                stack.enter_context(accelerated(model, self.settings))
                stack.enter_context(share_rows(model, self.ranks))
            yield

    def epoch(self, number: int) -> dict[str, float]:
        """Make one pass over all images, number `number` from 1, and return the means of the parts of the loss."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        data = self.data
        if self._upright is not None:
            known = self._upright if number <= (self.n_epochs + 1) // 2 else self._upright[:1]
            labels = data.y.copy()
            labels[known] = 0
            data = TrainingData(data.x, labels)
        for batch in self.objective.batches(data, self.rng, self.ranks.device):
            for name, value in self._one_step(batch, number).items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1  # a method may have labelled images in some steps only
        return {name: total / counts[name] for name, total in sums.items()}

    def _one_step(self, batch: Batch, epoch: int) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.objective.rate(self.step, self.n_steps)
        loss, parts = self._loss(batch, self.objective.kl_weight(epoch, self.step, self.n_steps))
        if not math.isfinite(parts["loss"]):
            raise FloatingPointError(f"the loss became {parts['loss']} in step {self.step}; use a lower rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        longest = getattr(self.objective, "max_gradient_norm", None)
        if longest is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), longest)
        self.optimiser.step()
        self.teacher.update(self.step)
        self.step += 1
        return parts

    @torch.inference_mode()
    def validate(self, data: TrainingData) -> dict[str, float]:
        """Cross-entropy and accuracy of the running mean of the weights on labelled images."""
        rows = np.flatnonzero(data.y >= 0)
        loss, right = 0.0, 0
        for picks in _chunks(rows, data):
            logits = self.teacher.model.classify(as_images(data.x[picks], self.ranks.device))
            y = torch.from_numpy(data.y[picks]).to(self.ranks.device)
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            right += int((logits.argmax(dim=1) == y).sum())
        return {"validation_loss": loss / len(rows), "validation_accuracy": right / len(rows)}

    def finish(self) -> None:
        """Measure what the final weights say of the training images: latents and their axes, temperature, novelty."""
        self.describe_latents()
        model, whole = self.teacher.model, TrainingData(self.data.x, self.labels)
        fit_temperature(model, whole, self.held_out, self.settings, self.generator)
        if self.settings.novelty:
            fit_novelty(model, whole, self.settings, self.rng, self.generator)

    @torch.no_grad()
    def describe_latents(self) -> None:
        """Choose the latent axes, and measure where the factors of each class lie, for traversals to follow the data.

        The prior is where they would lie were the divergence all that counts. In practice the likelihood of thousands
        of pixels moves whole classes away from it, and images decoded there would show no object of the class.
        """
        model = self.teacher.model
        rows = np.sort(self.rng.permutation(len(self.data))[:_STATISTICS_SAMPLE])
        means, classes = [], []
        for picks in _chunks(rows, self.data):
            x = as_images(self.data.x[picks], self.ranks.device)
            y = model.classify(x).argmax(dim=1)
            means.append(model.encode(model.features(x), y).qz.loc)
            classes.append(y)
        z, y = torch.cat(means), torch.cat(classes)
        if getattr(self.objective, "turns_axes", False):
            z = self._turned(z, y)
        for k in range(model.config.n_components):
            members = z[y == k]
            if len(members) >= _MIN_MEMBERS:
                model.latent_loc[k] = members.mean(dim=0)
                model.latent_scale[k] = members.std(dim=0)

    def _turned(self, z: Tensor, y: Tensor) -> Tensor:
        """Turn the model's latent axes to what z (n, latent_dim) of classes y (n,) say, and give z along them."""
        axes = independent_axes(z.cpu().numpy(), y.cpu().numpy())
        if axes is None:
            return z
        # Which axis is first and where it points may hang on a rounding.
        return z @ self.teacher.model.add_turn(self.ranks.from_leader(torch.from_numpy(axes)))

    def values(self) -> dict[str, Any]:
        """Give the plain part of the state."""
        upright = None if self._upright is None else self._upright.tolist()
        return {"step": self.step, "rng": self.rng.bit_generator.state, "of_one_orientation": upright}

    def tensors(self) -> dict[str, Tensor]:
        """Give the tensors of the state."""
        parts = {
            "model": self.model.state_dict(),
            "teacher": self.teacher.model.state_dict(),
            "optimiser": optimiser_tensors(self.optimiser),
        }
        named = {f"{part}.{name}": t for part, tensors in parts.items() for name, t in tensors.items()}
        return named | {"generator": self.generator.get_state()}

    def load(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`values` and :meth:`tensors` gave; ValueError, KeyError or TypeError if damaged."""
        load_weights(self.model, tensors, "model.")
        load_weights(self.teacher.model, tensors, "teacher.")
        moments = {k.removeprefix("optimiser."): t for k, t in tensors.items() if k.startswith("optimiser.")}
        load_optimiser(self.optimiser, moments)
        self.rng.bit_generator.state = dict(values["rng"])
        try:
            self.generator.set_state(tensors["generator"])
        except RuntimeError as error:
            raise ValueError("the state of the generator does not fit") from error
        if self._upright is not None:
            self._upright = np.array(values["of_one_orientation"], dtype=np.intp)
        self.step = int(values["step"])


class _Loss(nn.Module):
    """The loss of a step as the output of a module, which is what averages gradients over processes."""

    def __init__(self, model: SSRVAE, teacher: SSRVAE, objective: Objective, generator: torch.Generator) -> None:
        super().__init__()
        self.model = model
        # In a tuple, so that its weights are none of this module's.
        self._teacher = (teacher,)
        self._objective, self._generator = objective, generator

    def forward(self, batch: Batch, kl_weight: float) -> tuple[Tensor, dict[str, float]]:
        return self._objective.loss(self.model, self._teacher[0], batch, kl_weight=kl_weight, generator=self._generator)


def _leaders_choice(data: TrainingData, rng: np.random.Generator, ranks: Ranks) -> np.ndarray:
    """Give the leader's choice of objects of one orientation, whose rows may hang on a rounding."""
    rows = of_one_orientation(data, rng)
    role = torch.zeros(len(data), dtype=torch.uint8)
    role[rows] = 1
    role[rows[0]] = 2
    role = ranks.from_leader(role).numpy()
    return np.append(np.flatnonzero(role == 2), np.flatnonzero(role == 1))


def _image_bytes(data: TrainingData) -> int:
    return 4 * math.prod(data.x.shape[1:])


def _chunks(rows: np.ndarray, data: TrainingData) -> Iterator[np.ndarray]:
    """Cut rows into pieces whose images are few enough to be held."""
    size = max(1, min(_CHUNK, _CHUNK_BYTES // _image_bytes(data)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _initial_model(
    data: TrainingData,
    config: ModelConfig,
    rng: np.random.Generator,
    seed: int,
    device: torch.device,
    begin: Callable[[SSRVAE], None] | None = None,
) -> SSRVAE:
    n = max(1, min(_STATISTICS_SAMPLE, _STATISTICS_BYTES // _image_bytes(data)))
    rows = np.sort(rng.permutation(len(data))[:n])
    sample = as_images(data.x[rows], torch.device("cpu"))
    scale = max(float(sample.std()), 1e-6)
    # Layers draw their initial weights from torch's global CPU generator; the fork gives it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SSRVAE(config, pixel_offset=float(sample.mean()), pixel_scale=scale)
        if begin is not None:
            begin(model)
    return model.to(device)
