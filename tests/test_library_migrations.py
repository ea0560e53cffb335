"""Libraries that older versions of tumble wrote are read, say what they said, and gain what is new."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers_library import make_particles
from make_library_fixtures import expected

from tumble.library import Library, Query, schema
from tumble.library.fingerprints import difference_hashes, exact_hash

SAVED = sorted(Path(__file__).with_name("data").glob("library-*"))


@pytest.fixture(params=SAVED, ids=lambda folder: folder.name)
def saved(request, tmp_path):
    """A copy of a saved library, and what the version that wrote it read from it."""
    path = tmp_path / "library.db"
    shutil.copy(request.param / "library.db", path)
    return path, json.loads((request.param / "expected.json").read_text())


def test_there_is_a_library_of_every_older_schema():
    assert {folder.name for folder in SAVED} >= {f"library-{revision}" for revision in schema.KNOWN_REVISIONS[:-1]}


def test_an_older_library_says_what_it_said(saved):
    path, said = saved
    with Library(path) as library:
        assert library.schema_version == schema.SCHEMA_VERSION
        assert json.loads(json.dumps(expected(library))) == said
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_an_older_library_is_filled_in(saved):
    path, _ = saved
    with Library(path) as library:
        _, predictions = library.predictions("first")
        crops = library.crops()
        first = [
            row.latent_0
            for row in rows(path, "SELECT latent_0 FROM predictions WHERE model_id = 2 ORDER BY particle_id")
        ]
        np.testing.assert_allclose(first, predictions.latent[:, 0])
        hashes = rows(path, "SELECT crop_hash, crop_dhash FROM particles ORDER BY id")
        assert [row.crop_hash for row in hashes] == [exact_hash(crop.tobytes()) for crop in crops]
        assert [row.crop_dhash for row in hashes] == difference_hashes(crops).tolist()
        actions = library.label_actions()
        assert actions[["author", "n_labels", "kind"]].values.tolist() == [
            ["ann", 3, "label"],
            ["bob", 2, "label"],
            ["ann", 1, "label"],
        ]
        assert predictions.novelty is None
        assert library.particles(model="first")["novelty"].isna().all()


def test_an_older_library_goes_on_as_a_new_one(saved):
    path, _ = saved
    with Library(path) as library:
        library.undo_labels("ann")
        assert library.current_labels().to_dict() == {1: "rod", 2: "sphere", 3: "rod", 7: "rod"}
        assert library.search(Query(predicted=("rod",))).particles.index.isin(library.particle_ids()).all()
        library.add_micrograph(_another(), make_particles(3, seed=9))
        assert library.info()["particles"] == 12


def test_the_migration_hashes_as_the_library_does():
    """What a migration computes may never change; the library computes the same."""
    import importlib

    migration = importlib.import_module("tumble.library.migrations.versions.0002_provenance")
    for side in (8, 9, 24, 48, 50):
        crops = np.random.default_rng(side).integers(0, 256, (3, side, side), dtype=np.uint8)
        assert [migration.difference_hash(crop) for crop in crops] == difference_hashes(crops).tolist()
        assert migration.exact_hash(crops[0].tobytes()) == exact_hash(crops[0].tobytes())


class Row:
    def __init__(self, names, values):
        self.__dict__.update(zip(names, values, strict=True))


def rows(path, query):
    with closing(sqlite3.connect(path)) as connection:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [Row(names, values) for values in cursor]


def _another():
    from helpers_library import make_micrograph

    return make_micrograph(9)
