"""Training from the page: runs, each a folder and a process of its own that outlives the server.

What a run is to do is fixed when it starts (its labels and which of them are held out), so that it goes on to the same
result after any interruption, whatever is labelled meanwhile.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from tumble.app.frames import filmed_epochs, frame_path
from tumble.errors import ConfigError, LibraryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tumble.library import Library

__all__ = ["LIBRARY_VARIABLE", "RunLock", "Runs", "held_out_labels", "models_folder", "write_json"]

#: Tells the process which library to open: an address may hold a password, which no file is to keep.
LIBRARY_VARIABLE = "TUMBLE_APP_LIBRARY"
_NAME = re.compile(r"model-(\d+)")
#: Every so many labels of a class one is held out; classes with fewer are not tested.
_HELD_OUT_EACH = 5
_ENDED = frozenset({"done", "failed"})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


class RunLock:
    """Held by the process of a run as long as it lives, however it ends.

    It is the lock of an SQLite file: that works on every system, and goes with the process.

    Parameters
    ----------
    folder : Path
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock.db"

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise ConfigError(f"{self._path.parent}: this run goes on in another process.") from error
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def is_held(self) -> bool:
        """Say whether a process holds it."""
        if not self._path.exists():
            return False
        with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False


def models_folder(address: str, models: Path | None) -> Path:
    """Return where models go: the folder given, or one beside the file of the library."""
    if models is not None:
        return models.expanduser()
    path = (
        Path(address.removeprefix("sqlite:///")) if "://" not in address or address.startswith("sqlite:///") else None
    )
    return Path("tumble-models") if path is None else path.expanduser().with_name(f"{path.stem}-models")


def held_out_labels(labels: pd.Series, seed: int = 0) -> pd.Series:
    """Choose a fifth of the labels of each class, none of classes with fewer than five.

    Parameters
    ----------
    labels : Series
        Label by particle id.
    seed : int
        Seeds the choice.

    Returns
    -------
    Series
        Those that are held out.
    """
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for _, group in labels.groupby(labels, sort=True):
        ids = np.asarray(group.index)
        chosen += rng.choice(ids, len(ids) // _HELD_OUT_EACH, replace=False).tolist()
    return labels.loc[sorted(chosen)]


class Runs:
    """The runs of one library.

    Parameters
    ----------
    library : Library
        The open library.
    address : str
        What the process opens it by.
    folder : Path
        Where models go; runs are kept in a folder ``.runs`` in it.
    """

    def __init__(self, library: Library, address: str, folder: Path) -> None:
        self._library = library
        self._address = address
        self._models = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    @property
    def _folder(self) -> Path:
        return self._models / ".runs"

    def newest(self) -> str | None:
        """Return the name of the run that was started last."""
        names = [entry.name for entry in self._folder.glob("model-*") if (entry / "run.json").exists()]
        return max(names, key=_number) if names else None

    def start(self, *, max_epochs: int | None, hold_out: bool, seed: int = 0) -> str:
        """Begin to train with the labels as they are now.

        Parameters
        ----------
        max_epochs : int or None
            Passes over all particles; as many as it usually takes where None.
        hold_out : bool
            Keep a fifth of the labels out of the fit, to measure accuracy by.
        seed : int
            Seeds the fit.

        Returns
        -------
        str
            Name of the run and of its model.

        Raises
        ------
        LabelError
            There are too few labels.
        ConfigError
            A run goes on already, or the folder for models cannot be written.
        """
        from tumble.pipeline.fit import semi_supervised_targets

        with self._lock:
            self._refuse_second()
            labels = self._library.current_labels()
            ids = self._library.particle_ids().tolist()
            held_out = held_out_labels(labels, seed) if hold_out else labels.iloc[:0]
            given = labels.drop(held_out.index)
            semi_supervised_targets(ids, given, where=Path(self._address).name)
            with self._writing():
                name = self._new_name()
                folder = self._folder / name
                folder.mkdir(parents=True)
                run = {
                    "name": name,
                    "library": self._address if "@" not in self._address else "",
                    "model": str((self._models / name).resolve()),
                    "max_epochs": max_epochs,
                    "seed": seed,
                    "particle_ids": ids,
                    "labels": {str(key): value for key, value in given.items()},
                    "held_out": {str(key): value for key, value in held_out.items()},
                    "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                write_json(folder / "run.json", run)
            self._spawn(name)
            return name

    def resume(self) -> str:
        """Go on with the newest run where it was stopped or cut off."""
        with self._lock:
            self._refuse_second()
            name = self.newest()
            if name is None:
                raise ConfigError("there is no run to go on with. Start one.")
            if self._state(name)["state"] == "done":
                raise ConfigError(f"{name} is complete. Start another run to train with the labels of now.")
            self._spawn(name)
            return name

    def stop(self) -> str:
        """End the process of the newest run; its state of the last epoch is kept."""
        with self._lock:
            name = self.newest()
            if name is None or not self._alive(name):
                raise ConfigError("no run is going on.")
            folder = self._folder / name
            (folder / "stopped").touch()
            child = self._children.get(name)
            if child is not None:
                child.terminate()
                try:
                    child.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            else:  # of an earlier server; the lock says that the number is still this process's
                os.kill(int(_read_json(folder / "status.json")["pid"]), signal.SIGTERM)
            return name

    def status(self) -> dict[str, Any]:
        """Return what the newest run does, with its curves.

        Returns
        -------
        dict
            `state` ("none", "preparing", "running", "classifying", "stopped", "interrupted", "failed" or "done"),
            `message`, and where there is a run `name`, `epoch`, `max_epochs`, `remaining_s`, `curves` (name to values),
            `epochs`, `n_labels`, `n_held_out`, `scores`, `classes`, and `filmed`, the epochs of which there are images
            of the manifold.
        """
        name = self.newest()
        if name is None:
            return {"state": "none", "message": ""}
        run = _read_json(self._folder / name / "run.json")
        lines = _progress(self._folder / name / "progress.jsonl")
        last = lines[-1] if lines else {}
        curves = {key: [_finite(line["losses"].get(key)) for line in lines] for key in (last.get("losses") or {})}
        return {
            **self._state(name),
            "name": name,
            "started_at": run.get("started_at", ""),
            "epoch": last.get("epoch", 0),
            "max_epochs": last.get("max_epochs") or run.get("max_epochs"),
            "remaining_s": _finite(last.get("remaining_s")),
            "epochs": [line["epoch"] for line in lines],
            "curves": curves,
            "n_labels": len(run.get("labels", {})),
            "n_held_out": len(run.get("held_out", {})),
            "scores": self._scores(name),
            "classes": sorted(set(run.get("labels", {}).values())),
            "filmed": filmed_epochs(self._folder / name),
        }

    def frame(self, name: str, epoch: int, k: int) -> bytes | None:
        """Return the PNG of what a run drew of a class (by number) after an epoch, None where there is none."""
        if _NAME.fullmatch(name) is None:
            return None
        try:
            return frame_path(self._folder / name, epoch, k).read_bytes()
        except OSError:
            return None

    def _state(self, name: str) -> dict[str, Any]:
        folder = self._folder / name
        status = _read_json(folder / "status.json")
        state, message = status.get("state", "preparing"), status.get("message", "")
        parts = {"done": status.get("done"), "total": status.get("total")}
        if self._alive(name):
            return {"state": "preparing" if state in _ENDED else state, "message": "", **parts}
        if state in _ENDED:
            return {"state": state, "message": message, **parts}
        stopped = (folder / "stopped").exists()
        text = "Stopped. " if stopped else "The training was cut off. "
        text += "What was learned up to the last epoch is kept; resume to go on."
        return {"state": "stopped" if stopped else "interrupted", "message": text, **parts}

    def _alive(self, name: str) -> bool:
        child = self._children.get(name)
        if child is not None:
            return child.poll() is None
        return RunLock(self._folder / name).is_held()

    def _scores(self, name: str) -> dict[str, Any] | None:
        try:
            found = self._library.model_record(name).evaluation
        except LibraryError:
            return None
        if not found:
            return None
        keys = ("balanced_accuracy", "recall_per_class", "n_test", "classes", "confusion")
        return {key: found.get(key) for key in keys}

    def _refuse_second(self) -> None:
        name = self.newest()
        if name is not None and self._alive(name):
            raise ConfigError(f"{name} is being trained. Stop it first, or wait until it is done.")

    def _new_name(self) -> str:
        taken = [entry.name for folder in (self._models, self._folder) for entry in folder.glob("model-*")]
        taken += self._library.models()["name"].tolist()
        return f"model-{max(map(_number, taken), default=0) + 1}"

    def _spawn(self, name: str) -> None:
        folder = self._folder / name
        with self._writing():
            (folder / "stopped").unlink(missing_ok=True)
            (folder / "status.json").unlink(missing_ok=True)
            with (folder / "log.txt").open("ab") as log:
                self._children[name] = subprocess.Popen(
                    [sys.executable, "-m", "tumble.app.worker", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, LIBRARY_VARIABLE: self._address},
                    start_new_session=True,  # the server may end, and Ctrl+C there is not meant for it
                )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self._models}: models cannot be written there ({error.strerror or error}). Start tumble app with "
                "--models and a folder that can be written."
            ) from error


def _number(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else 0


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _progress(path: Path) -> list[dict[str, Any]]:
    """Return one line per epoch; epochs that were repeated after a kill count once, as they were the last time."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    found: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            found[int(entry["epoch"])] = entry
        except (ValueError, KeyError, TypeError):  # the last line of a process that was killed
            continue
    return [found[epoch] for epoch in sorted(found)]
