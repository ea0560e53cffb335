"""Models on disk: a folder with ``config.json`` and ``weights.safetensors``; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tumble._version import __version__
from tumble.errors import ModelFileError
from tumble.model.config import (
    ANGLE_POSTERIORS,
    CLASSIFIERS,
    DECODERS,
    ENCODERS,
    FRAMES,
    INVARIANCES,
    LIKELIHOODS,
    ModelConfig,
)
from tumble.model.equivariant import SYMMETRIES
from tumble.model.ssrvae import SSRVAE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["FORMAT_VERSION", "load_model", "save_model", "write_whole"]

#: Raised when a reader of the version before could not read what is written. Format 1 (tumble 0.1) knew fewer parts:
#: neither class prior nor temperature, one kind of encoder and decoder, no model without classes. Format 2 had the
#: latent axes as the training left them.
FORMAT_VERSION = 3

_CONFIG, _WEIGHTS = "config.json", "weights.safetensors"
#: Sizes beyond these are taken for damage: a config file must not make the reader allocate without bound.
_MIN_SIDE, _MAX_SIDE, _MAX_WIDTH, _MAX_CLASSES = 8, 4096, 16384, 100_000
_CHOICES = {
    "likelihood": LIKELIHOODS,
    "angle_posterior": ANGLE_POSTERIORS,
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "frame": FRAMES,
    "classifier": CLASSIFIERS,
    "symmetry": tuple(SYMMETRIES),
    "standardise": (True, False),
    "radius": (True, False),
    "hidden_layer": (True, False),
    "fold": (True, False),
}
#: What models of format 1 were where the present default differs.
_FORMAT_1: dict[str, Any] = {"radius": False}
_WIDTHS = ("sigma", "translation_prior", "scale_prior", "angle_prior_rad")
#: What the weights of a novelty score and the turned axes are called, where a model has them.
_NOVELTY, _TURN = "novelty.", "turn"


def save_model(folder: Path, model: SSRVAE, description: Mapping[str, Any]) -> None:
    """Write a model into a folder, which is made if need be.

    Parameters
    ----------
    folder : Path
        Where to.
    model : SSRVAE
        Its configuration and weights are written.
    description : mapping
        Whatever else belongs to the model; JSON-serialisable.

    Raises
    ------
    ModelFileError
        If the folder cannot be written.
    """
    config = {
        "format": FORMAT_VERSION,
        "tumble": __version__,
        "model": dataclasses.asdict(model.config),
        **description,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Each file appears whole or not at all, weights first: a folder with a config is complete.
        write_whole(folder / _WEIGHTS, save(tensors))
        write_whole(folder / _CONFIG, json.dumps(config, indent=2).encode())
    except OSError as error:
        raise ModelFileError(f"{folder}: the model cannot be written here ({error.strerror or error}).") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_model(folder: Path) -> tuple[SSRVAE, dict[str, Any]]:
    """Read a model written by :func:`save_model`.

    Parameters
    ----------
    folder : Path
        Where from.

    Returns
    -------
    model : SSRVAE
        In evaluation mode, on the CPU.
    config : dict
        Content of ``config.json``.

    Raises
    ------
    ModelFileError
        If the folder is missing, incomplete, damaged, or of a format that this version does not know.
    """
    config = _read_config(folder)
    built = _model_config(folder, config)
    tensors = _read_weights(folder)
    if config["format"] == 1:
        tensors = _from_format_1(config, built, tensors)
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise ModelFileError(f"{folder / _WEIGHTS}: some weights are not finite; fit the model again.")
    try:
        # Shapes are compared before any memory is taken: sizes that a damaged file claims may be enormous.
        with torch.device("meta"):
            _check_shapes(_built(built, tensors), tensors)
        # Layers draw initial weights, for nothing; the fork keeps torch's global generator as it was.
        with torch.random.fork_rng(devices=[]):
            model = _built(built, tensors)
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(
            f"{folder}: {_WEIGHTS} does not fit {_CONFIG}; the two files are from different models."
        ) from error
    return model.eval(), config


def _built(config: ModelConfig, tensors: Mapping[str, Tensor]) -> SSRVAE:
    """Give a model with the parts that there are weights for."""
    model = SSRVAE(config)
    if any(name.startswith(_NOVELTY) for name in tensors):
        model.add_novelty().requires_grad_(False)
    if _TURN in tensors:
        model.add_turn()
    return model


def _check_shapes(model: SSRVAE, tensors: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if expected != {name: tuple(t.shape) for name, t in tensors.items()}:
        raise ValueError("names or shapes differ")


def _from_format_1(config: Mapping[str, Any], built: ModelConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of a model of format 1 with what has been added since."""
    prior = torch.full((built.n_components,), 1 / built.n_components)
    given = config["params"].get("class_prior") if isinstance(config.get("params"), dict) else None
    if isinstance(given, list) and len(given) == len(prior) and all(isinstance(p, (int, float)) for p in given):
        prior = torch.tensor(given, dtype=torch.float32)
    tensors = {"log_py": (prior / prior.sum()).log(), "log_temperature": torch.tensor(0.0), **tensors}
    if built.likelihood != "gaussian":
        tensors.pop("log_sigma", None)  # it was there, without a use
    return tensors


def _read_weights(folder: Path) -> dict[str, Tensor]:
    try:
        return load(_content(folder / _WEIGHTS))
    except FileNotFoundError as error:
        raise ModelFileError(f"{folder}: {_WEIGHTS} is missing; the model folder is incomplete.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{folder / _WEIGHTS}: the file is damaged ({error}).") from error


def _content(path: Path) -> bytes:
    """Read a file, but no pipe or device that has no end, which a link in a folder from elsewhere may lead to."""
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path}: is no file; do not load this folder unless you know who made it.")
    return path.read_bytes()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not folder.is_dir():
        raise ModelFileError(f"{folder}: there is no such model folder. Make one with `tumble fit`.")
    try:
        config = json.loads(_content(path))
    except FileNotFoundError as error:
        raise ModelFileError(f"{folder}: {_CONFIG} is missing; this is not a tumble model folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the file is damaged ({error}).") from error
    if not isinstance(config, dict) or type(config.get("format")) is not int or config["format"] < 1:
        raise ModelFileError(f"{path}: this is not the configuration of a tumble model.")
    if config["format"] > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: written by a newer tumble ({config.get('tumble', 'unknown version')}, format "
            f"{config['format']}; this version reads up to {FORMAT_VERSION}). Update tumble to read it."
        )
    return config


def _model_config(folder: Path, config: Mapping[str, Any]) -> ModelConfig:
    try:
        raw = {**(_FORMAT_1 if config["format"] == 1 else {}), **config["model"]}
        for name in ("image_shape", "invariances", "encoder_channels"):
            raw[name] = tuple(raw[name])
        built = ModelConfig(**raw)
        _check_sizes(built)
        _check_choices(built)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{folder / _CONFIG}: the description of the networks is damaged ({error}).") from error
    return built


def _check_sizes(config: ModelConfig) -> None:
    channels, height, width = config.image_shape
    limits = {
        "n_classes": (config.n_classes, 0, _MAX_CLASSES),
        "channels": (channels, 1, _MAX_WIDTH),
        "height": (height, _MIN_SIDE, _MAX_SIDE),
        "width": (width, _MIN_SIDE, _MAX_SIDE),
        "latent_dim": (config.latent_dim, 1, _MAX_WIDTH),
        "hidden": (config.hidden, 1, _MAX_WIDTH),
        "number of encoder_channels": (len(config.encoder_channels), 1, _MAX_WIDTH),
    } | {f"encoder_channels[{i}]": (c, 1, _MAX_WIDTH) for i, c in enumerate(config.encoder_channels)}
    for name, (value, low, high) in limits.items():
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}")


def _check_choices(config: ModelConfig) -> None:
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if type(value) is not type(choices[0]) or value not in choices:
            raise ValueError(f"{name} is {value!r}")
    if not set(config.invariances) <= set(INVARIANCES) or len(set(config.invariances)) != len(config.invariances):
        raise ValueError(f"invariances are {config.invariances}")
    for name in _WIDTHS:
        value: Any = getattr(config, name)
        if value is None and name == "sigma":
            continue
        if not _is_number(value) or not 0 < value < math.inf:
            raise ValueError(f"{name} is {value!r}")
    concentration = config.angle_prior_concentration
    if not _is_number(concentration) or not 0 <= concentration < math.inf:
        raise ValueError(f"angle_prior_concentration is {concentration!r}")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
