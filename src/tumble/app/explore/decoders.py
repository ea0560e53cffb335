"""Models that draw: found by what the library knows of them, loaded once, and asked from many threads."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from tumble.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tumble.estimators import SSRVAEClassifier
    from tumble.library import Library
    from tumble.types import ModelRecord

__all__ = ["Decoders"]

_WEIGHTS = "weights.safetensors"


class Decoders:
    """The models of a library whose files are present.

    Where a model lies is what the library says, never what a request says. A folder may have been moved with its
    library, or be used for another model by now: the weights decide.

    Parameters
    ----------
    library : Library
        The open library.
    places : sequence of Path
        Folders beside which models are looked for, too: that of the library, that of the models.
    at_most : int
        How many are kept loaded.
    """

    def __init__(self, library: Library, places: Sequence[Path], at_most: int = 4) -> None:
        self._library = library
        self._places = tuple(places)
        self._at_most = at_most
        self._loaded: OrderedDict[tuple[str, str, int], SSRVAEClassifier] = OrderedDict()
        self._lock = Lock()

    def names(self) -> list[str]:
        """Return the models whose files are present, the newest first."""
        known = self._library.models()
        names = list(dict.fromkeys(known["name"].iloc[::-1].tolist()))
        paths = dict(zip(known["name"], known["path"], strict=True))  # the newest of a name
        return [name for name in names if self._present(name, paths[name])]

    def get(self, record: ModelRecord) -> SSRVAEClassifier:
        """Return a model, ready to draw.

        Its methods only read it, so that threads may share it.

        Parameters
        ----------
        record : ModelRecord
            What the library knows of it.

        Returns
        -------
        SSRVAEClassifier

        Raises
        ------
        ModelFileError
            Its files are gone, damaged, or those of another model.
        """
        folders = self._present(record.name, record.path)
        if not folders:
            raise ModelFileError(
                f"{record.name}: its folder {record.path} is gone. Bring it back, or train another model."
            )
        weights = str(record.environment.get("weights_sha256", ""))
        with self._lock:  # two requests must not load the same model at once
            for folder in folders:
                try:
                    key = (str(folder), weights, (folder / _WEIGHTS).stat().st_mtime_ns)
                except OSError:  # removed in this moment
                    continue
                if key not in self._loaded:
                    found = _load(folder, weights)
                    if found is None:
                        continue
                    self._loaded[key] = found
                self._loaded.move_to_end(key)
                while len(self._loaded) > self._at_most:
                    self._loaded.popitem(last=False)
                return self._loaded[key]
        raise ModelFileError(
            f"{record.name}: {folders[0]} holds another model now, with other weights. Bring the one back that the "
            "library knows, or classify with the new one (tumble classify)."
        )

    def _present(self, name: str, path: str) -> list[Path]:
        """Return the folders that may be this model's and have files of one."""
        told = Path(path).expanduser()
        candidates = [told]
        for place in self._places:
            candidates += [place / told.name, place / name] if told.is_absolute() else [place / told, place / name]
        return [folder for folder in dict.fromkeys(candidates) if (folder / _WEIGHTS).is_file()]


def _load(folder: Path, weights: str) -> SSRVAEClassifier | None:
    """Load a model if its weights are those expected; a library of an early version does not know them."""
    from tumble.estimators import SSRVAEClassifier  # torch takes seconds to import, and other pages do without
    from tumble.pipeline.fit import fingerprint

    if weights and fingerprint(folder) != weights:
        return None
    return SSRVAEClassifier.load(folder, device="cpu")
