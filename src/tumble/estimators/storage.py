"""What is kept of an estimator beside its networks, as JSON, and how it is read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tumble.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tumble.estimators.base import ImageModel
    from tumble.model.ssrvae import SSRVAE

__all__ = ["describe", "restored"]

Model = TypeVar("Model", bound="ImageModel")


def describe(estimator: ImageModel) -> dict[str, Any]:
    """Give parameters, classes and the record of the fit of a fitted estimator."""
    classes = getattr(estimator, "classes_", None)
    return {
        "estimator": type(estimator).__name__,
        "params": _jsonable(estimator.get_params()),
        "classes": None if classes is None else classes.tolist(),
        "history": estimator.history_,
        "stop_reason": estimator.stop_reason_,
        "fit_seconds": estimator.fit_seconds_,
    }


def restored(kind: type[Model], config: Mapping[str, Any], model: SSRVAE, path: Path) -> Model:
    """Give the estimator that :func:`describe` described, without its networks.

    Parameters
    ----------
    kind : type
        Class of the estimator.
    config : mapping
        Content of the file.
    model : SSRVAE
        Its networks, to compare with.
    path : Path
        Folder of the file, for messages.

    Raises
    ------
    ModelFileError
        If the file describes another kind of estimator, or is damaged.
    """
    file = path / "config.json"
    if config.get("estimator") not in {c.__name__ for c in kind.__mro__}:
        raise ModelFileError(f"{file}: holds a model of {config.get('estimator')!r}, not of {kind.__name__!r}.")
    try:
        estimator = kind(**_parameters(config))
        if config["classes"] is not None:
            estimator.classes_ = _classes(config["classes"])
            estimator.class_prior_ = model.log_py.exp().numpy()
        estimator.history_ = {str(k): [float(v) for v in values] for k, values in config["history"].items()}
        estimator.stop_reason_ = str(config["stop_reason"])
        estimator.fit_seconds_ = float(config["fit_seconds"])
        estimator.n_iter_ = max(map(len, estimator.history_.values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{file}: the description is damaged ({error}).") from error
    n_classes = 0 if config["classes"] is None else len(estimator.classes_)
    if n_classes != model.config.n_classes:
        raise ModelFileError(f"{file}: the number of classes does not fit the networks.")
    return estimator


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    params = dict(config["params"])
    # Format 1 had the channels in the description of the networks only.
    params.setdefault("encoder_channels", config["model"]["encoder_channels"])
    for name in ("invariances", "encoder_channels"):
        params[name] = tuple(params[name])
    return params


def _classes(values: Any) -> np.ndarray:
    classes = np.array(values)
    if classes.ndim != 1 or classes.dtype.kind not in "iU" or len(set(values)) != len(values):
        raise ValueError(f"classes are {values!r}")
    return classes


def _jsonable(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON can hold them; a generator object, which it cannot, becomes None."""
    plain: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, np.random.RandomState):
            plain[name] = None
        elif isinstance(value, np.generic):
            plain[name] = value.item()
        elif isinstance(value, (tuple, list, np.ndarray)):
            plain[name] = np.asarray(value).tolist()
        else:
            plain[name] = value
    return plain
