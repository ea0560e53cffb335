"""The whole state of a run in a folder, so that a run that was killed goes on as if it had not been.

``run.json`` holds plain values and the name and hash of a safetensors file with all tensors. The tensors are written
first, under a name of their own; the run moves on to them in the moment in which ``run.json`` is replaced. A kill at
any time leaves the state before or the state after. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tumble._version import __version__
from tumble.errors import ConfigError, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from _typeshed import DataclassInstance
    from torch import Tensor, nn

    from tumble.fit.batches import TrainingData

__all__ = [
    "RunState",
    "check_identity",
    "damaged",
    "defaults_of",
    "discard_state",
    "fingerprint",
    "has_state",
    "load_optimiser",
    "load_weights",
    "optimiser_tensors",
    "read_state",
    "write_state",
]

#: Raised when a reader of the present version could not read what is written.
FORMAT_VERSION = 1
_RUN = "run.json"
_TENSORS = "run-*.safetensors"
#: Images whose pixels enter the fingerprint, spread over the data set, and bytes of them at most.
_SAMPLE, _SAMPLE_BYTES = 64, 2**24


@dataclasses.dataclass(frozen=True)
class RunState:
    """Everything that a run needs to go on.

    Parameters
    ----------
    identity : dict
        What the run is of: data, networks, settings, seed. JSON-serialisable.
    values : dict
        Counters, curves, and states of generators. JSON-serialisable.
    tensors : dict of str to Tensor
        Weights, their running mean, the optimiser's moments.
    digest : str
        Hash of the tensors, where the state was read from a folder.
    """

    identity: dict[str, Any]
    values: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: str = ""


def fingerprint(data: TrainingData | None) -> str:
    """Hash of the shape, all labels and the pixels of some images; "" for no data."""
    if data is None:
        return ""
    digest = hashlib.sha256(repr((data.x.shape, data.x.dtype.str)).encode())
    digest.update(data.y.astype("<i8").tobytes())
    image_bytes = max(1, int(np.prod(data.x.shape[1:])) * data.x.dtype.itemsize)
    n = max(1, min(_SAMPLE, len(data.x), _SAMPLE_BYTES // image_bytes))
    for row in np.linspace(0, len(data.x) - 1, n).astype(int):
        digest.update(data.x[row].tobytes())
    return digest.hexdigest()


def write_state(folder: Path, state: RunState) -> None:
    """Write a state into a folder, in place of the one before.

    Parameters
    ----------
    folder : Path
        Where to; made if need be.
    state : RunState
        What to write.

    Raises
    ------
    ModelFileError
        If the folder cannot be written.
    """
    content = save({name: t.detach().cpu().contiguous() for name, t in state.tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    tensors = folder / f"run-{digest[:16]}.safetensors"
    run = {
        "format": FORMAT_VERSION,
        "tumble": __version__,
        "torch": torch.__version__,
        "tensors": tensors.name,
        "sha256": digest,
        "identity": state.identity,
        "values": state.values,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(tensors, content)
        _replace(folder / _RUN, json.dumps(run, indent=1).encode())
        for old in folder.glob(_TENSORS + "*"):  # also what a kill left half-written
            if old.name != tensors.name:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise ModelFileError(f"{folder}: the checkpoint cannot be written here ({error.strerror or error}).") from error


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        # Else a power cut could leave a file of the new name without its content.
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def has_state(folder: Path) -> bool:
    """Tell whether there is a checkpoint in a folder, damaged or not."""
    return (folder / _RUN).is_file()


def discard_state(folder: Path, *, folder_too: bool = False) -> None:
    """Remove the checkpoint of a folder, if there is one, and if asked to the folder where it is then empty."""
    try:
        (folder / _RUN).unlink(missing_ok=True)
        for old in folder.glob(_TENSORS + "*"):
            old.unlink(missing_ok=True)
        if folder_too and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except NotADirectoryError:
        return  # there is none; the first write will say what is wrong
    except OSError as error:
        raise ModelFileError(f"{folder}: the old checkpoint cannot be removed ({error.strerror or error}).") from error


def read_state(folder: Path) -> RunState | None:
    """Read a state written by :func:`write_state`.

    Parameters
    ----------
    folder : Path
        Where from.

    Returns
    -------
    RunState or None
        None where there is no checkpoint yet.

    Raises
    ------
    ModelFileError
        If the checkpoint is damaged, or of a format that this version does not know.
    """
    path = folder / _RUN
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelFileError(f"{path}: the checkpoint cannot be read ({error.strerror or error}).") from error
    try:
        run = json.loads(raw)
        version, name, digest = int(run["format"]), str(run["tensors"]), str(run["sha256"])
        identity, values = dict(run["identity"]), dict(run["values"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: written by a newer tumble ({run.get('tumble', 'unknown version')}, format {version}; this "
            f"version reads up to {FORMAT_VERSION}). Update tumble to go on with the run."
        )
    return RunState(identity, values, _read_tensors(folder, name, digest), digest)


def _read_tensors(folder: Path, name: str, digest: str) -> dict[str, Tensor]:
    path = folder / name
    if path.parent != folder:
        raise damaged(folder / _RUN, f"it names {name!r}")
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("its content is not what was written")
        return load(content)
    except FileNotFoundError as error:
        raise damaged(path, "the file is missing") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, why: object) -> ModelFileError:
    """Make the error of a checkpoint that cannot be used."""
    return ModelFileError(f"{path}: the checkpoint is damaged ({why}). Start anew with resume=False.")


def check_identity(
    folder: Path, found: Mapping[str, Any], expected: Mapping[str, Any], older: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise a ConfigError unless a checkpoint is of the run that is to go on.

    `older` says what a run had of the fields of an entry that did not exist yet when it was written: their defaults.
    """
    plain, older = json.loads(json.dumps([expected, older]))  # as the file holds it: lists for tuples
    found = {name: _completed(entry, older.get(name)) for name, entry in found.items()}
    differing = [name for name in sorted({*found, *plain}) if found.get(name) != plain.get(name)]
    if differing:
        raise ConfigError(
            f"checkpoint={str(folder)!r}: it is of a run with other {' and '.join(map(_describe, differing))}. Give "
            "what that run was given, another folder, or resume=False to start anew."
        )


def defaults_of(settings: DataclassInstance) -> dict[str, Any]:
    """Give the defaults of the fields of settings, those of settings within them as a dict of their own."""
    defaults = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            defaults[field.name] = defaults_of(value)
        elif field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
    return defaults


def _completed(entry: Any, defaults: Any) -> Any:
    if isinstance(entry, list) and isinstance(defaults, list) and len(entry) == len(defaults):
        return [_completed(part, default) for part, default in zip(entry, defaults, strict=True)]
    # Whatever else a damaged file holds in place of a dict stays as it is, and differs from what is expected.
    if not isinstance(entry, dict) or not isinstance(defaults, dict):
        return entry
    return {**defaults, **{name: _completed(value, defaults.get(name)) for name, value in entry.items()}}


def _describe(name: str) -> str:
    return {"model": "networks", "class_prior": "class prior", "validation": "validation data"}.get(name, name)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Load the tensors whose names begin with `prefix` into a module; ValueError if they do not fit."""
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError("the weights do not fit the networks") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Give the optimiser's moments and counters, named by the number of the weight and their own name."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load what :func:`optimiser_tensors` gave; rates are set in each step anyway."""
    weights = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        if int(index) >= len(weights):
            raise ValueError("the optimiser's moments do not fit the networks")
        state.setdefault(int(index), {})[name] = _laid_out(value, weights[int(index)])
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """Give a moment the memory layout of its weight: fused optimisers go through both as they lie in memory."""
    if value.shape != like.shape:
        return value
    return torch.empty_like(like).copy_(value).detach()
