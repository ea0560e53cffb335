"""The process that trains: ``python -m tumble.app.worker FOLDER``, started by the page and on its own from then on.

It reads what to do from ``run.json`` in that folder, where `tumble.app.runs` left it, and fits as ``tumble fit`` does,
with a checkpoint after each epoch. It may be killed at any time; started again, it goes on where it was.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tumble.app.runs import LIBRARY_VARIABLE, RunLock, write_json
from tumble.errors import TumbleError

if TYPE_CHECKING:
    from tumble.fit import EpochReport
    from tumble.library import Library

__all__ = ["main"]

logger = logging.getLogger("tumble.app.worker")


def main(folder: Path) -> int:
    """Do the work of one run.

    Parameters
    ----------
    folder : Path
        Of the run.

    Returns
    -------
    int
        Exit status: 0 if all was done, 2 if it failed for a reason that is said in ``status.json``.
    """
    signal.signal(signal.SIGTERM, _leave)
    with RunLock(folder):
        try:
            _work(folder, json.loads((folder / "run.json").read_text(encoding="utf-8")))
        except TumbleError as error:
            _tell(folder, "failed", str(error))
            return 2
        except Exception as error:  # said on the page; the traceback is in the log
            logger.exception("the run in %s failed", folder)
            _tell(folder, "failed", f"Something went wrong in tumble itself ({type(error).__name__}: {error}).")
            return 2
    return 0


def _leave(*_: object) -> None:
    sys.exit(143)  # so that files in the making are removed on the way out


def _tell(folder: Path, state: str, message: str = "", **more: Any) -> None:
    write_json(folder / "status.json", {"state": state, "message": message, "pid": os.getpid(), **more})


def _work(folder: Path, run: dict[str, Any]) -> None:
    _tell(folder, "preparing")
    from tumble.library import Library

    with Library(os.environ.get(LIBRARY_VARIABLE) or run["library"]) as library:
        model = Path(run["model"])
        if not (model / "weights.safetensors").exists():
            _fit(folder, run, library, model)
        _tell(folder, "classifying")
        from tumble.pipeline import classify_library, evaluate

        def advance(_: str, done: int, total: int) -> None:
            _tell(folder, "classifying", done=done, total=total)

        classify_library(library, model, model_name=run["name"], progress=advance)
        held_out, given = _series(run["held_out"]), _series(run["labels"])
        if len(held_out):
            region = f"{len(held_out)} labels that were held out"
            evaluate(library, run["name"], held_out, given, region=region)
    _tell(folder, "done")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def _fit(folder: Path, run: dict[str, Any], library: Library, model: Path) -> None:
    from tumble.app.film import SAMPLE, Film
    from tumble.pipeline import estimator_for_crops, fit_library

    held_out, labels = _series(run["held_out"]), _series(run["labels"])
    estimator = estimator_for_crops(max_epochs=run["max_epochs"], random_state=run["seed"])
    ids = run["particle_ids"]
    some = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, SAMPLE).astype(int))]
    film = Film(folder, estimator, labels.tolist(), library.crops(some))
    with (folder / "progress.jsonl").open("a", encoding="utf-8") as progress:

        def follow(report: EpochReport) -> None:
            line = {
                "epoch": report.epoch,
                "max_epochs": report.max_epochs,
                "losses": {name: float(value) for name, value in report.losses.items()},
                "elapsed_s": report.elapsed_s,
                "remaining_s": report.remaining_s,
            }
            progress.write(json.dumps(line) + "\n")
            progress.flush()

        _tell(folder, "running")
        fit_library(
            library,
            model,
            name=run["name"],
            estimator=estimator,
            particle_ids=ids,
            labels=labels,
            validation=held_out if len(held_out) else None,
            callbacks=[film, follow],
            checkpoint=folder / "checkpoint",
            resume=True,
        )


def _series(labels: dict[str, str]) -> pd.Series:
    ids = [int(key) for key in labels]
    return pd.Series(list(labels.values()), index=pd.Index(ids, dtype="int64", name="particle_id"), dtype=object)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.exit(main(Path(sys.argv[1])))
