"""Write the saved library of `tests/data/library-REVISION`: `python tests/make_library_fixtures.py`, once per schema.

Files of a schema stay as the version that wrote them left them: what later versions must read are those, not new ones.
That of schema 0001 was made with tumble 0.1.0 at commit b24b05b. `expected.json` is what that version read from it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import numpy as np
from helpers_library import make_micrograph, make_particles, make_predictions, make_record

from tumble.library import Library

DATA = Path(__file__).with_name("data")


def fill(library: Library) -> None:
    """Store two micrographs, labels of two people with a withdrawal, two models of one name, and predictions."""
    library.add_micrograph(make_micrograph(1), make_particles(5, seed=1))
    library.add_micrograph(make_micrograph(2, pixel_size_nm=None), make_particles(4, seed=2))
    library.add_labels([1, 2, 3], ["rod", "cube", "rod"], author="ann", source="table a.csv")
    library.add_labels([2, 7], ["sphere", "rod"], author="bob", source="app")
    library.add_labels([3], [None], author="ann", source="app")
    library.add_model(make_record("first"))
    library.add_model(make_record("first", evaluation={"balanced_accuracy": 0.5}))
    library.add_model(make_record("second"))
    library.add_predictions("first", np.arange(1, 10), make_predictions(9, seed=1))
    library.add_predictions("second", np.arange(1, 6), make_predictions(5, seed=2))


def expected(library: Library) -> dict[str, object]:
    """Everything that a library says, as JSON."""
    ids, predictions = library.predictions("first")
    history = library.label_history()[["particle_id", "label", "author", "source", "created_at"]]
    return {
        "particles": json.loads(library.particles(model="first").drop(columns="novelty", errors="ignore").to_json()),
        "micrographs": library.micrographs()[["source", "content_hash", "pixel_size_nm", "added_at"]].values.tolist(),
        "labels": {str(key): value for key, value in library.current_labels().items()},
        "history": history.values.tolist(),
        "models": library.models()[["name", "n_predictions", "created_at"]].values.tolist(),
        "evaluation": library.model_record("first").evaluation,
        "predicted": ids.tolist(),
        "probabilities": predictions.probabilities.tolist(),
        "latent": predictions.latent.tolist(),
        "crops_sha256": hashlib.sha256(library.crops().tobytes()).hexdigest(),
        "masks_sha256": [hashlib.sha256(library.particle_masks(i).tobytes()).hexdigest() for i in (1, 2)],
        "outlines": [library.outlines(i)[j].tolist() for i, j in ((1, 1), (2, 6))],
    }


def main() -> None:
    """Write the library of the present schema."""
    with Library("sqlite://", create=True) as memory:
        folder = DATA / f"library-{memory.schema_version}"
    folder.mkdir(parents=True)
    path = folder / "library.db"
    with Library(path, create=True) as library:
        fill(library)
        said = json.loads(json.dumps(expected(library)))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")  # the page size cannot be changed otherwise
    connection.execute("PRAGMA page_size = 1024")  # the file is committed: keep it small
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    (folder / "expected.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
