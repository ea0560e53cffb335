"""A fitted classifier made ready for many small batches, as a service has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tumble.estimators.base import stacked
from tumble.estimators.folding import folded_copy
from tumble.types import Pose, Predictions

if TYPE_CHECKING:
    from torch import Tensor

    from tumble.estimators.ssrvae import SSRVAEClassifier

__all__ = ["Predictor"]


class Predictor:
    """Everything that a fitted classifier says of images, in one pass through each network.

    The same numbers, up to rounding, as `predict_proba`, `transform`, `pose` and `novelty` of the estimator, for less
    than the four together take. The networks are prepared once: later changes of the estimator are not followed.

    Parameters
    ----------
    estimator : SSRVAEClassifier
        Fitted.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    """

    def __init__(self, estimator: SSRVAEClassifier) -> None:
        estimator._check_fitted()
        self._estimator = estimator
        self._folded = estimator._folded()
        self._encoder = folded_copy(estimator.model_.encoder)
        self.classes = tuple(str(name) for name in estimator.classes_)
        self.image_shape = estimator.model_.config.image_shape

    def predict(self, X: Any) -> Predictions:
        """Give class probabilities, latent factors, pose and novelty of images.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            uint8 or float images of the size that was fitted.

        Returns
        -------
        Predictions

        Raises
        ------
        DataError
            If `X` is not a stack of finite images of the right size.
        """
        rows = [self._of_batch(x) for x in self._estimator._batches(X)]
        probabilities, latent, angle, shift, scale, width = (
            stacked(iter(part)) for part in zip(*(row[:6] for row in rows), strict=True)
        )
        has_novelty = self._estimator.model_.novelty is not None
        return Predictions(
            classes=self.classes,
            probabilities=probabilities,
            latent=latent,
            pose=Pose(angle_rad=angle, shift_px=shift, scale=scale, angle_std_rad=width),
            novelty=stacked(row[6] for row in rows) if has_novelty else None,
        )

    def _of_batch(self, x: Tensor) -> tuple[Tensor, ...]:
        model = self._estimator.model_
        embedded = self._folded.embed(x)
        probabilities, upright = self._folded(x, embedded)
        features = self._encoder.features(model.standardise(x))
        # The estimator's latent factors and pose are those of the class that the upright view gives.
        y = upright.argmax(dim=1)
        posterior = model.encode(features, y)
        pose = model.mean_pose(posterior)
        width = posterior.qangle.circular_std() if posterior.qangle else torch.zeros_like(pose.angle)
        said = (probabilities, posterior.qz.loc, pose.angle, pose.shift, pose.scale, width)
        if model.novelty is None:
            return said
        return (*said, model.novelty(torch.cat([embedded, features], dim=1)))  # as `SSRVAE.evidence` puts it together
