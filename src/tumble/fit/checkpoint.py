"""Models on disk: a folder with ``config.json`` and ``weights.safetensors``; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tumble._version import __version__
from tumble.errors import ModelFileError
from tumble.model.ssrvae import INVARIANCES, LIKELIHOODS, SSRVAE, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["FORMAT_VERSION", "load_model", "save_model"]

#: Raised when a reader of the present version could not read what is written.
FORMAT_VERSION = 1

_CONFIG, _WEIGHTS = "config.json", "weights.safetensors"
#: Sizes beyond these are taken for damage: a config file must not make the reader allocate without bound.
_MAX_SIDE, _MAX_WIDTH, _MAX_CLASSES = 4096, 16384, 100_000


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
        _replace(folder / _WEIGHTS, save(tensors))
        _replace(folder / _CONFIG, json.dumps(config, indent=2).encode())
    except OSError as error:
        raise ModelFileError(f"{folder}: the model cannot be written here ({error.strerror or error}).") from error


def _replace(path: Path, content: bytes) -> None:
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
    model = SSRVAE(_model_config(folder, config))
    try:
        tensors = load((folder / _WEIGHTS).read_bytes())
    except FileNotFoundError as error:
        raise ModelFileError(f"{folder}: {_WEIGHTS} is missing; the model folder is incomplete.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{folder / _WEIGHTS}: the file is damaged ({error}).") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelFileError(
            f"{folder}: {_WEIGHTS} does not fit {_CONFIG}; the two files are from different models."
        ) from error
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise ModelFileError(f"{folder / _WEIGHTS}: some weights are not finite; fit the model again.")
    return model.eval(), config


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not folder.is_dir():
        raise ModelFileError(f"{folder}: there is no such model folder. Make one with `tumble fit`.")
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelFileError(f"{folder}: {_CONFIG} is missing; this is not a tumble model folder.") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: the file is damaged ({error}).") from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise ModelFileError(f"{path}: this is not the configuration of a tumble model.")
    if config["format"] > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: written by a newer tumble ({config.get('tumble', 'unknown version')}, format "
            f"{config['format']}; this version reads up to {FORMAT_VERSION}). Update tumble to read it."
        )
    return config


def _model_config(folder: Path, config: Mapping[str, Any]) -> ModelConfig:
    try:
        raw = dict(config["model"])
        for name in ("image_shape", "invariances", "encoder_channels"):
            raw[name] = tuple(raw[name])
        built = ModelConfig(**raw)
        _check_sizes(built)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{folder / _CONFIG}: the description of the networks is damaged ({error}).") from error
    return built


def _check_sizes(config: ModelConfig) -> None:
    channels, height, width = config.image_shape
    limits = {
        "n_classes": (config.n_classes, _MAX_CLASSES),
        "channels": (channels, _MAX_WIDTH),
        "height": (height, _MAX_SIDE),
        "width": (width, _MAX_SIDE),
        "latent_dim": (config.latent_dim, _MAX_WIDTH),
        "hidden": (config.hidden, _MAX_WIDTH),
    } | {f"encoder_channels[{i}]": (c, _MAX_WIDTH) for i, c in enumerate(config.encoder_channels)}
    for name, (value, limit) in limits.items():
        if not isinstance(value, int) or not 1 <= value <= limit:
            raise ValueError(f"{name} is {value!r}")
    if not set(config.invariances) <= set(INVARIANCES) or config.likelihood not in LIKELIHOODS:
        raise ValueError(f"invariances are {config.invariances}, likelihood is {config.likelihood!r}")
