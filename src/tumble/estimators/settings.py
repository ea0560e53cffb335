"""From the parameters of an estimator to the settings of its model and its training, with checks."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tumble.errors import ConfigError, DataError
from tumble.fit import FitConfig
from tumble.fit.config import Disorder
from tumble.fit.paper import PaperConfig, PaperObjective
from tumble.model.config import (
    ANGLE_POSTERIORS,
    DECODERS,
    ENCODERS,
    INVARIANCES,
    LIKELIHOODS,
    ModelConfig,
)
from tumble.validation import check_choice, check_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tumble.fit.objective import Objective

__all__ = [
    "METHODS",
    "ORIENTATIONS",
    "REFLECTION",
    "check_params",
    "check_unit_range",
    "class_prior",
    "fit_config",
    "model_config",
    "objective",
]

METHODS = ("default", "paper")
ORIENTATIONS = ("aligned", "arbitrary")
PRECISIONS = ("float32", "bfloat16")
#: What a user chooses from, cheap to dear. "detailed" and "fine" are one network of the model's `CLASSIFIERS`, without
#: and with a group that it is equivariant to.
_DETAIL = ("fast", "detailed", "fine")
#: An invariance of the class that is no part of the pose.
REFLECTION = "reflection"

_FULL_TURN = math.pi - 1e-6
#: Images of at most this many px to a side are classified at full resolution.
_SMALL_PX = 32

_CHOICES: dict[str, tuple[str, ...]] = {
    "method": METHODS,
    "encoder": ENCODERS,
    "classifier": _DETAIL,
    "decoder": DECODERS,
    "likelihood": LIKELIHOODS,
    "angle_posterior": ANGLE_POSTERIORS,
    "labelled_orientation": ORIENTATIONS,
    "precision": PRECISIONS,
}
#: Parameter -> least value, largest value, whether whole.
_RANGES: dict[str, tuple[float, float, bool]] = {
    **dict.fromkeys(("latent_dim", "hidden", "max_epochs", "predict_views"), (1, math.inf, True)),
    **dict.fromkeys(("batch_size", "labelled_batch_size"), (2, math.inf, True)),
    **dict.fromkeys(("scale_jitter", "shear_jitter", "intensity_jitter", "translation_prior"), (0, 0.9, False)),
    **dict.fromkeys(("learning_rate", "weight_decay", "kl_weight", "degradation"), (0, math.inf, False)),
    **dict.fromkeys(("pseudo_label_weight", "generative_weight", "pose_weight"), (0, math.inf, False)),
    "pretrain_epochs": (0, math.inf, True),
    "sigma": (1e-6, math.inf, False),
    "pixel_fraction": (1e-6, 1, False),
    "rotation_range_rad": (0, math.pi + 1e-6, False),
    # Beyond these the angle is as good as known, or as good as unknown, and float32 would not do.
    "angle_prior_rad": (1e-3, 1e3, False),
    **dict.fromkeys(("pseudo_label_threshold", "class_floor", "ema_decay"), (0, 1, False)),
}
_MAY_BE_NONE = frozenset({"max_epochs", "batch_size", "learning_rate", "sigma", "class_floor", "angle_prior_rad"})


def check_params(params: Mapping[str, Any]) -> None:
    """Raise a ConfigError that names the first parameter whose value it cannot have."""
    given = {name: value for name, value in params.items() if not (value is None and name in _MAY_BE_NONE)}
    invariances = given.get("invariances", ())
    if isinstance(invariances, str):
        raise ConfigError(f"invariances={invariances!r}: expected a tuple of names, such as ({invariances!r},).")
    for name in invariances:
        check_choice("invariances", name, (*INVARIANCES, REFLECTION))
    for name, choices in _CHOICES.items():
        if name in given:
            check_choice(name, given[name], choices)
    for name, (low, high, whole) in _RANGES.items():
        if name in given:
            check_number(name, given[name], low=low, high=high, integer=whole)
    _check_channels("encoder_channels", given.get("encoder_channels"))


def _check_channels(name: str, channels: Any) -> None:
    if channels is None:
        return
    whole = isinstance(channels, (tuple, list)) and all(isinstance(c, (int, np.integer)) for c in channels)
    if not whole or not len(channels) or min(channels) < 1:
        raise ConfigError(f"{name}={channels!r}: expected a tuple of whole numbers above 0, such as (32, 64).")


def check_unit_range(images: npt.NDArray[Any], likelihood: str) -> None:
    """Raise a DataError if a Bernoulli likelihood meets pixels outside [0, 1]."""
    if likelihood == "gaussian" or images.dtype == np.uint8:
        return
    # In pieces, so that a memory map is never held whole.
    low = min(float(images[i : i + 4096].min()) for i in range(0, len(images), 4096))
    high = max(float(images[i : i + 4096].max()) for i in range(0, len(images), 4096))
    if low < 0 or high > 1:
        raise DataError(
            f"X: likelihood={likelihood!r} needs pixels in [0, 1], these span [{low:.3g}, {high:.3g}]. "
            "Rescale them or use likelihood='gaussian'."
        )


def model_config(params: Mapping[str, Any], n_classes: int, image_shape: tuple[int, ...]) -> ModelConfig:
    """Give the shape of the networks for the parameters of an estimator."""
    channels, height, width = image_shape
    shared: dict[str, Any] = {
        "n_classes": n_classes,
        "image_shape": (channels, height, width),
        "latent_dim": int(params["latent_dim"]),
        "invariances": tuple(name for name in INVARIANCES if name in params["invariances"]),
        "likelihood": params["likelihood"],
        "sigma": params["sigma"],
        # A prior of no width would make the divergence infinite; a hundredth of the image is as good as none.
        "translation_prior": max(0.01, params["translation_prior"]),
        "hidden": int(params["hidden"]),
    }
    if params["method"] == "paper":
        return ModelConfig(
            **shared,
            **_angle_prior("normal", params["angle_prior_rad"]),
            scale_prior=0.1,
            angle_posterior="normal",
            encoder="dense",
            decoder="coordinate",
            frame="grid",
            standardise=False,
        )
    invariances = params["invariances"]
    symmetry = "none"
    if params.get("classifier") == "fine" and "rotation" in invariances and params["rotation_range_rad"] >= _FULL_TURN:
        symmetry = "rotations+mirror" if REFLECTION in invariances else "rotations"
    fast = params.get("classifier", "fast") == "fast"
    return ModelConfig(
        **shared,
        **_angle_prior(params["angle_posterior"], params["angle_prior_rad"]),
        angle_posterior=params["angle_posterior"],
        encoder=params["encoder"],
        decoder=params["decoder"],
        encoder_channels=tuple(int(c) for c in params["encoder_channels"]),
        classifier="fast" if fast else "fine",
        hidden_layer=fast,
        # More of the object in view at once: with noise as strong as the signal no small part of it tells the class.
        extra_convolutions=3 if params["degradation"] else 1,
        symmetry=symmetry,
        fold=max(height, width) > _SMALL_PX,
    )


def _angle_prior(posterior: str, width_rad: float | None) -> dict[str, Any]:
    """Give the prior of the angle that goes with a family of posteriors, where there is one beside the default."""
    if width_rad is None:
        return {}
    if posterior == "normal":
        return {"angle_prior_rad": float(width_rad)}
    return {"angle_prior_concentration": 1 / float(width_rad) ** 2}


def class_prior(given: Any, n_classes: int) -> npt.NDArray[np.float64] | None:
    """Give p(y) as the parameter of an estimator says, or None where it begins uniform."""
    if given is None or (isinstance(given, str) and given == "learned"):
        return None
    try:
        prior = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        prior = np.zeros(0)
    if prior.shape != (n_classes,) or not (prior > 0).all():
        raise ConfigError(f"class_prior={given!r}: expected {n_classes} positive numbers, one per class, or 'learned'.")
    return prior / prior.sum()


def objective(params: Mapping[str, Any]) -> Objective | None:
    """Give the method of training where it is not the default one."""
    return PaperObjective(_paper_config(params)) if params["method"] == "paper" else None


def _paper_config(params: Mapping[str, Any]) -> PaperConfig:
    names = ("max_epochs", "batch_size", "learning_rate", "class_floor")
    chosen = {name: params[name] for name in names if params.get(name) is not None}
    return PaperConfig(**chosen, pixel_fraction=params.get("pixel_fraction", 1.0), precision=params["precision"])


def fit_config(params: Mapping[str, Any], config: ModelConfig) -> FitConfig:
    """Give the settings of the training for the parameters of an estimator."""
    disorder = Disorder(
        angle_rad=min(params["rotation_range_rad"], math.pi) if "rotation" in config.invariances else 0.0,
        shift_px=params["translation_prior"] * config.side if "translation" in config.invariances else 0.0,
        log_scale=params["scale_jitter"],
        shear=params["shear_jitter"],
        intensity=params["intensity_jitter"],
        mirror=REFLECTION in params["invariances"],
        degradation=params["degradation"],
    )
    names = ("weight_decay", "ema_decay", "kl_weight", "generative_weight", "pose_weight", "compile", "precision")
    chosen: dict[str, Any] = {name: params[name] for name in names}
    given = ("max_epochs", "batch_size", "learning_rate", "labelled_batch_size", "pseudo_label_weight", "class_floor")
    for name in given:
        if params.get(name) is not None:
            chosen[name] = params[name]
    if "pseudo_label_threshold" in params:
        chosen["threshold"] = params["pseudo_label_threshold"]
    if params["method"] == "paper":
        # The disorder plays no part in the published training, but in the score of novelty that follows it.
        novelty = params["novelty_score"]
        return dataclasses.replace(_paper_config(params).loop_settings(), disorder=disorder, novelty=novelty)
    return FitConfig(
        disorder=disorder,
        # Without labels there are objects of known orientation, see tumble.fit.reference.
        aligned=params.get("labelled_orientation", "aligned") == "aligned",
        calibrate=params.get("calibrate", True),
        novelty=params["novelty_score"],
        pretrain_epochs=int(params.get("pretrain_epochs", 0)),
        learn_class_prior=isinstance(params.get("class_prior"), str),
        **chosen,
    )
