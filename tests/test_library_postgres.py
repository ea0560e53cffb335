"""The same library on a real PostgreSQL server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from helpers_library import make_micrograph, make_particles, make_predictions, make_record
from helpers_postgres import postgres_binaries, running_server
from make_library_fixtures import expected, fill

from tumble.errors import LabelError, LibraryError
from tumble.library import Library, Query, models, schema

pytest.importorskip("psycopg")
BINARIES = postgres_binaries()
pytestmark = pytest.mark.skipif(BINARIES is None, reason="PostgreSQL is not installed (Debian: apt install postgresql)")


@pytest.fixture(scope="module")
def server():
    with running_server(BINARIES) as url:
        yield url


@pytest.fixture
def url(server, request):
    """A new, empty database."""
    name = f"t{abs(hash(request.node.nodeid))}"
    engine = sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def small_disk(server):
    """A file system of 40 MB for the server, where one may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="tumble-disk-", dir="/tmp"))
    owner = Path(server.partition("host=")[2]).stat()
    options = f"size=40m,uid={owner.st_uid},gid={owner.st_gid},mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    try:
        made = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if made.returncode:
        folder.rmdir()
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def without_times(said):
    """Leave out what differs between two libraries that were filled one after the other."""
    return {
        **said,
        "history": [row[:-1] for row in said["history"]],
        "models": [row[:-1] for row in said["models"]],
        "micrographs": repr([row[:-1] for row in said["micrographs"]]),  # NaN is not equal to itself
    }


def test_a_library_on_a_server_says_what_one_in_a_file_says(url, tmp_path):
    with pytest.raises(LibraryError, match="no library here"):
        Library(url)
    with Library(url, create=True) as server, Library(tmp_path / "p.db", create=True) as file:
        for library in (server, file):
            fill(library)
            library.undo_labels("bob")
        assert without_times(expected(server)) == without_times(expected(file))
        assert server.info() == {**file.info(), "url": server.url, "size_bytes": None}
        for query in (
            Query(model="first", predicted=("rod", "cube"), order_by="probability", descending=True),
            Query(label_state="labelled"),
            Query(label_state="unlabelled", model="second"),
            Query(label_state="contested"),
            Query(model="first", disagrees_with="second", limit=2),
            Query(model="first", also_predicted=("second", "rod")),
            Query(measurements={"area_px": (10, None)}, order_by="area_px"),
            Query(model="first", disagrees_with_label=True),
            Query(particle_ids=tuple(range(2, 100_000, 2)), limit=3),
        ):
            assert server.count(query) == file.count(query)
            assert server.search(query).particles.equals(file.search(query).particles)
            assert server.search(query).next == file.search(query).next
        assert server.neighbours(2, 4, model="first").equals(file.neighbours(2, 4, model="first"))
        assert server.contingency("first", "second").equals(file.contingency("first", "second"))
        for at_most in (None, 4):
            (shown, n), (as_shown, as_n) = (library.latents("first", at_most=at_most) for library in (server, file))
            assert n == as_n
            assert shown.equals(as_shown)
        assert server.sizes("first").equals(file.sizes("first"))
        assert server.duplicates().equals(file.duplicates())
        assert server.label_log(history=True)["label"].equals(file.label_log(history=True)["label"])
    with Library(url) as library:
        assert library.info()["particles"] == 9


def test_the_migrated_schema_is_that_of_the_tables(url):
    with Library(url, create=True) as library, library._database.reading() as connection:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata) == []


def test_nan_is_no_number_in_any_database(url):
    with Library(url, create=True) as library:
        fill(library)
        library.add_model(make_record("third"))
        said = make_predictions(9)
        said.pose.angle_rad[0] = np.nan
        library.add_predictions("third", np.arange(1, 10), said)
        assert np.isnan(library.particles(model="third")["angle_rad"][1])
        assert library.count(Query(model="third", measurements={"area_px": (None, None)})) == 9
        with library._database.reading() as connection:
            column = schema.predictions.c.angle_rad
            assert connection.scalar(sa.select(sa.func.count()).where(column == float("nan"))) == 0


def test_errors_of_a_server_are_explained(server, url):
    with Library(url, create=True) as library:
        library.add_micrograph(make_micrograph(0), make_particles(3))
        with pytest.raises(LabelError, match="no particle with id 9"):
            library.add_labels([1, 9], ["rod", "rod"], author="a", source="b")
        assert library.label_history().empty
    with pytest.raises(LibraryError, match="no server answers there"):
        Library("postgresql://tumble:secret@127.0.0.1:1/postgres")
    with pytest.raises(LibraryError, match="does not exist"):
        Library(server.replace("/postgres?", "/nowhere?"))


def test_a_full_disk_of_the_server(server, small_disk):
    """The tables lie on a small disk of their own; what is half stored when it is full goes, all else stays."""
    name = "on_a_small_disk"
    engine = sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE TABLESPACE small LOCATION '{small_disk}'"))
        connection.execute(sa.text(f"CREATE DATABASE {name} TABLESPACE small"))
    try:
        fill_up(server.replace("/postgres?", f"/{name}?"))
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(sa.text("DROP TABLESPACE small"))
        engine.dispose()


def fill_up(url):
    """Add micrographs until one finds no room, and compare with what was stored before it."""
    with Library(url, create=True) as library:
        library.add_micrograph(make_micrograph(0), make_particles(5))
        library.add_labels([1, 2], ["rod", "cube"], author="a", source="b")
        stored = 1

        def add_more():
            nonlocal stored
            for stored in range(1, 100):
                library.add_micrograph(make_micrograph(stored), make_particles(500, side=64, seed=stored))

        with pytest.raises(LibraryError, match=r"disk of the server is full\. Free some space.*unchanged"):
            add_more()
        info = library.info()
        assert (info["micrographs"], info["particles"]) == (stored, 5 + 500 * (stored - 1))
        assert info["labels"] == {"cube": 1, "rod": 1}
        np.testing.assert_array_equal(library.crops(range(1, 6)), make_particles(5).crops)


def test_a_model_that_another_process_is_storing_is_waited_for(url):
    record = make_record("m", environment={"weights_sha256": "x"})
    with Library(url, create=True) as first, Library(url) as second, ThreadPoolExecutor(1) as pool:
        with first._database.writing() as connection:
            stored = models.ensure_model(connection, record)
            other = pool.submit(second.ensure_model, record)
            with pytest.raises(TimeoutError):
                other.result(timeout=0.5)
        assert other.result(timeout=60) == stored


WORKER = """
    import sys
    from helpers_library import make_micrograph, make_particles, make_predictions, make_record
    from tumble.library import Library

    with Library(sys.argv[1], create=True) as library:
        for i in range(3):
            library.add_micrograph(make_micrograph(i), make_particles(20, seed=i))
        ids = library.particle_ids()[:60]
        for i in range(10):
            library.add_labels(ids[:5], [f"{sys.argv[2]}{i}"] * 5, author=sys.argv[2], source="test")
        library.ensure_model(make_record("m", environment={"weights_sha256": "x"}))
        library.add_predictions("m", ids, make_predictions(60))
"""


def test_processes_that_do_the_same_at_once_store_it_once(url):
    """Both make the tables, add the same micrographs and predictions, and label."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    command = [sys.executable, "-c", textwrap.dedent(WORKER), url]
    running = [subprocess.Popen([*command, name], env=environment, stderr=subprocess.PIPE) for name in ("ann", "bob")]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in running] == [(b"", 0)] * 2
    with Library(url) as library:
        assert library.info()["micrographs"] == 3
        assert library.info()["particles"] == library.info()["predictions"] == 60
        history = library.label_history()
    assert len(history) == 100
    for name in ("ann", "bob"):
        assert history.loc[history["author"] == name, "label"].tolist() == [
            f"{name}{i}" for i in range(10) for _ in "12345"
        ]
