"""pyroVED 0.3.0 [1]_ behind the face of scikit-learn, with the settings of the authors' published cards runs.

.. [1] https://github.com/ziatdinovmax/pyroVED, the ss-rVAE of "Semi-supervised learning of images with strong
   rotational disorder" as its authors released it.
"""

from __future__ import annotations

import importlib
import math
import sys
import time
import types
import warnings
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin

from tumble.validation import check_images, check_labels, encode_labels

__all__ = ["PyrovedClassifier", "import_pyroved"]

#: The factor of the KL terms goes from 1 to 2 over this many epochs.
_KL_RAMP_EPOCHS = 30


def import_pyroved() -> Any:
    """Import pyroVED, or say how to get it.

    torchvision, which it asks for and uses for plots alone, must fit torch to the build; a stand-in takes its place
    where it is missing or does not.
    """
    with warnings.catch_warnings():
        # Pyro and pyroVED warn of their own use of older Python and torch; nobody here can mend that.
        warnings.simplefilter("ignore")
        stand_in = _without_torchvision()
        try:
            return importlib.import_module("pyroved")
        except ImportError as error:
            raise ImportError(
                f"pyroVED cannot be imported ({error}); install it with: "
                "python -m pip install --no-deps pyroved==0.3.0 && python -m pip install pyro-ppl"
            ) from error
        finally:
            for name in stand_in:
                sys.modules.pop(name, None)


def _without_torchvision() -> list[str]:
    """Put an empty torchvision in place unless there is one that works; names of the modules that were put there."""
    try:
        importlib.import_module("torchvision.utils")
    except (ImportError, RuntimeError):
        package, utils = types.ModuleType("torchvision"), types.ModuleType("torchvision.utils")
        utils.make_grid = None  # type: ignore[attr-defined]
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules |= {"torchvision": package, "torchvision.utils": utils}
        return ["torchvision", "torchvision.utils"]
    return []


class PyrovedClassifier(ClassifierMixin, BaseEstimator):
    """pyroVED's ssiVAE with rotation and translation, trained step by step with its own trainer.

    Its trainer's own epoch takes one labelled batch in 15 of the authors' cards run, but only one in an epoch where
    all labels fit into one batch; here it is one in `labelled_every`, whatever the number of labels.

    Parameters
    ----------
    latent_dim : int
        Dimension of z.
    invariances : tuple of str
        "r" for rotation, "t" for translation, "s" for scale.
    n_epochs, batch_size : int
        Passes over the images, and images per batch. A run of 100 epochs on 12,000 cards takes a CPU about a day.
    labelled_every : int
        Unlabelled batches between two labelled ones.
    learning_rate : float
        Of Adam.
    aux_loss_multiplier : float
        Weight of the classification loss.
    translation_prior : float
        Standard deviation of the shift, as a fraction of the image.
    max_seconds : float or None
        Ends the fit after the step in which this wall time is passed; `n_steps_` tells how far it came.
    device, random_state
        As in `SSRVAEClassifier`.

    Notes
    -----
    pyroVED needs pixels in [0, 1]: others are cut off. It clears Pyro's global store of parameters, so that only the
    instance that was fitted last can go on training, while all of them can predict.
    """

    def __init__(
        self,
        latent_dim: int = 2,
        invariances: tuple[str, ...] = ("r", "t"),
        *,
        n_epochs: int = 100,
        batch_size: int = 64,
        labelled_every: int = 15,
        learning_rate: float = 5e-4,
        aux_loss_multiplier: float = 30.0,
        translation_prior: float = 0.1,
        max_seconds: float | None = None,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.latent_dim = latent_dim
        self.invariances = invariances
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.labelled_every = labelled_every
        self.learning_rate = learning_rate
        self.aux_loss_multiplier = aux_loss_multiplier
        self.translation_prior = translation_prior
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to labelled and unlabelled images (-1: no label)."""
        started = time.perf_counter()
        images = check_images(X)
        labels, unlabelled = check_labels(y, len(images))
        self.classes_, indices = encode_labels(labels, unlabelled)
        x = _pixels(images)
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as for the import
            self.trainer_ = self.make_trainer(images.shape[-2:], len(self.classes_))
            self.n_steps_ = 0
            for epoch in range(self.n_epochs):
                if not self._epoch(x, indices, epoch, started):
                    break
        self.fit_seconds_ = time.perf_counter() - started
        return self

    def make_trainer(self, image_shape: tuple[int, int], n_classes: int) -> Any:
        """Make pyroVED's model and the trainer that steps it."""
        pyroved = import_pyroved()
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        model = pyroved.models.ssiVAE(
            tuple(image_shape),
            self.latent_dim,
            n_classes,
            invariances=list(self.invariances),
            dx_prior=self.translation_prior,
            dy_prior=self.translation_prior,
            seed=self.random_state,
            device=name,
        )
        return pyroved.trainers.auxSVItrainer(model, lr=self.learning_rate, seed=self.random_state, device=name)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Most probable class of each image."""
        winners = self.predict_proba(X).argmax(axis=1)
        return self.classes_[winners]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Probability of each class of `classes_`."""
        model = self.trainer_.model
        with torch.inference_mode():
            pieces = _pixels(check_images(X)).split(1000)
            return np.concatenate([model.encoder_y(piece.to(model.device)).cpu().numpy() for piece in pieces])

    def _epoch(self, x: torch.Tensor, indices: npt.NDArray[np.int64], epoch: int, started: float) -> bool:
        """One pass over all images; whether there is time for more."""
        rng = np.random.default_rng([self.random_state, epoch])
        order = rng.permutation(len(x))
        labelled = np.flatnonzero(indices >= 0)
        options = {
            "scale_factor": 1 + min(1.0, epoch / _KL_RAMP_EPOCHS),
            "aux_loss_multiplier": self.aux_loss_multiplier,
        }
        one_hot = torch.eye(len(self.classes_))
        for batch in range(math.ceil(len(x) / self.batch_size)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            self.trainer_.compute_loss(x[rows], **options)
            if batch % self.labelled_every == 0:
                rows = rng.choice(labelled, min(self.batch_size, len(labelled)), replace=False)
                self.trainer_.compute_loss(x[rows], one_hot[indices[rows]], **options)
            self.n_steps_ += 1
            if self.max_seconds is not None and time.perf_counter() - started > self.max_seconds:
                return False
        return True


def _pixels(images: npt.NDArray[Any]) -> torch.Tensor:
    """Images as pyroVED takes them: flattened, (n, H * W), in [0, 1]."""
    if images.shape[1] != 1:
        raise ValueError(f"pyroVED takes images of one channel, these have {images.shape[1]}")
    scaled = images[:, 0].astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    return torch.from_numpy(scaled.clip(0, 1)).flatten(1)
