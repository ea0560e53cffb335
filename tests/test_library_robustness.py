"""A library survives what happens to files and processes, and says what happened."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from helpers_library import make_micrograph, make_particles
from sqlalchemy import event

from tumble.errors import LibraryError, LibraryVersionError
from tumble.library import Library, database, schema
from tumble.types import Particles


@pytest.fixture
def path(tmp_path):
    """A closed library with one micrograph of five particles, in a folder of its own."""
    path = tmp_path / "particles.db"
    with Library(path, create=True) as library:
        library.add_micrograph(make_micrograph(0), make_particles(5))
        library.add_labels([1, 2], ["rod", "cube"], author="a", source="b")
    return path


def assert_intact(path, micrographs=1):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    with Library(path) as library:
        assert len(library.micrographs()) == micrographs
        assert library.current_labels().to_dict() == {1: "rod", 2: "cube"}
        np.testing.assert_array_equal(library.crops(range(1, 6)), make_particles(5).crops)


def files_in(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


def run_python(code, *arguments, check=True):
    """Run `code` in another process that finds the same packages and helpers."""
    search_path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
    )


class Interrupted(tuple):
    """Outlines during whose use the user presses Ctrl+C, or something fails."""

    error: BaseException

    def __iter__(self):
        for i, outline in enumerate(super().__iter__()):
            if i == 700:  # after the first rows have been sent to the database
                raise self.error
            yield outline


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("no memory"), OSError("gone")])
def test_an_exception_in_the_middle_stores_nothing(path, error):
    found = make_particles(1000, seed=2)
    outlines = Interrupted(found.outlines)
    outlines.error = error
    before = path.read_bytes()
    with Library(path) as library:
        with pytest.raises(type(error)):
            library.add_micrograph(make_micrograph(2), Particles(found.crops, found.table, found.mask, outlines, {}))
        assert library.info()["particles"] == 5
        assert library.add_micrograph(make_micrograph(3), make_particles(2)) == 2
    assert_intact(path, micrographs=2)
    assert before != path.read_bytes()


def test_nothing_is_written_by_what_is_rolled_back(path):
    before = path.read_bytes()
    with Library(path) as library, pytest.raises(ZeroDivisionError):
        library.add_micrograph(make_micrograph(2), make_particles(9), progress=lambda *_: 1 / 0)
    assert path.read_bytes() == before


KILLED = """
    import os, signal, sys
    from helpers_library import make_micrograph, make_particles
    from tumble.library import Library, images

    images.CHUNK = 100
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    library = Library(sys.argv[1])
    library.add_micrograph(make_micrograph(2), make_particles(500, seed=2), progress=progress)
    if sys.argv[2] == "99":
        os.kill(os.getpid(), signal.SIGKILL)  # after the commit, without closing
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("step", [1, 3, 5, 99])
def test_a_killed_process_leaves_all_or_nothing(path, step):
    killed = run_python(KILLED, path, step, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert_intact(path, micrographs=2 if step == 99 else 1)
    with Library(path) as library:
        library.add_micrograph(make_micrograph(2), make_particles(500, seed=2))
        assert library.info()["particles"] == 505
    assert files_in(path.parent) == ["particles.db"]


def test_a_closed_library_is_one_file(path):
    assert files_in(path.parent) == ["particles.db"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_disk(path):
    def limit(connection, *_):
        connection.execute("PRAGMA max_page_count = 70")

    with Library(path) as library:
        event.listen(library._database.engine, "checkout", limit)
        with pytest.raises(LibraryError, match=r"particles\.db: the disk is full.* unchanged"):
            library.add_micrograph(make_micrograph(2), make_particles(2000))
        assert library.info()["particles"] == 5
    assert_intact(path)


def test_a_full_disk_while_a_library_is_created(tmp_path):
    path = tmp_path / "new.db"
    code = """
        import resource, signal, sys
        from tumble.errors import LibraryError
        from tumble.library import Library

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            Library(sys.argv[1], create=True)
        except LibraryError as error:
            sys.stdout.write(str(error))
    """
    pytest.importorskip("resource")
    assert "new.db: the dis" in run_python(code, path).stdout
    assert files_in(tmp_path) == []


def test_two_processes_label_at_the_same_time(path):
    code = """
        import sys
        from tumble.library import Library

        for i in range(30):
            with Library(sys.argv[1]) as library:
                library.add_labels([3, 4], [f"{sys.argv[2]}{i}"] * 2, author=sys.argv[2], source="test")
    """
    search_path = os.pathsep.join(filter(None, sys.path))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path), name],
            env={**os.environ, "PYTHONPATH": search_path},
        )
        for name in ("ann", "bob")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    with Library(path) as library:
        history = library.label_history(3)
    assert len(history) == 60
    for name in ("ann", "bob"):
        own = history.loc[history["author"] == name, "label"]
        assert own.tolist() == [f"{name}{i}" for i in range(30)]


def test_a_locked_library(path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other, Library(path) as library:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LibraryError, match="another process is writing"):
            library.add_labels([1], ["rod"], author="a", source="b")
        assert library.info()["labelled"] == 2  # reading goes on meanwhile
        other.execute("ROLLBACK")
    assert_intact(path)


def test_a_read_only_library_can_be_read(path, monkeypatch):
    monkeypatch.setattr(database.os, "access", lambda *_: False)  # as tests may run as root
    with Library(path) as library:
        assert library.info()["particles"] == 5
        with pytest.raises(LibraryError, match="cannot be written to"):
            library.add_labels([1], ["rod"], author="a", source="b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"this is a text, long enough to be taken for the header of a file\n" * 20,
            "not an SQLite database",
        ),
        (b"", "no library here.*create=True"),
    ],
)
def test_files_that_are_no_library(tmp_path, content, message):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(LibraryError, match=rf"notes\.txt: .*{message}"):
        Library(path)
    assert path.read_bytes() == content
    assert files_in(tmp_path) == ["notes.txt"]


def test_a_text_file_is_not_overwritten_by_create(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("important " * 100)
    with pytest.raises(LibraryError, match="not an SQLite database"):
        Library(path, create=True)
    assert path.read_text() == "important " * 100


@pytest.mark.parametrize("create", [False, True])
def test_databases_of_other_programs_are_left_alone(tmp_path, create):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE particles (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(LibraryError, match="not a tumble library"):
        Library(path, create=create)
    assert path.read_bytes() == before


def read_everything(path):
    with Library(path) as library:
        library.particles()
        library.crops()
        library.label_history()


@pytest.mark.parametrize("start", [100, 4096])
def test_a_damaged_library(path, start):
    content = bytearray(path.read_bytes())
    content[start : start + 3000] = b"\xff" * 3000
    path.write_bytes(content)
    with pytest.raises(LibraryError, match=r"particles\.db: .*"):
        read_everything(path)


def test_a_truncated_library(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(LibraryError, match="damaged"):
        read_everything(path)


def test_paths_that_cannot_be_a_library(tmp_path):
    with pytest.raises(LibraryError, match=r"none\.db: there is no such library. Create one with"):
        Library(tmp_path / "none.db")
    with pytest.raises(LibraryError, match="this is a folder"):
        Library(tmp_path, create=True)
    with pytest.raises(LibraryError, match="does not exist"):
        Library(tmp_path / "no" / "a.db", create=True)
    for name in ("a" * 300, "a\0b"):
        with pytest.raises(LibraryError, match="no library can be"):
            Library(tmp_path / name, create=True)
    with pytest.raises(LibraryError, match="is empty"):
        Library("")
    with pytest.raises(LibraryError, match="not a database URL"):
        Library("http//x://")
    assert files_in(tmp_path) == []


def test_unknown_kinds_of_database_are_explained():
    with pytest.raises(LibraryError, match="nosuchdb"):
        Library("nosuchdb://host/a", create=True)


def test_passwords_are_not_shown():
    url = sa.make_url("postgresql://ann:secret@host/library")
    assert "secret" not in url.render_as_string(hide_password=True)
    with pytest.raises(LibraryError) as error:
        Library("postgresql+psycopg2cffi://ann:secret@host/library")
    assert "secret" not in str(error.value)


def test_strange_names_of_files(tmp_path):
    path = tmp_path / "50% ünd #1?.db"
    with Library(path, create=True) as library:
        library.add_micrograph(make_micrograph(), make_particles(1))
    assert files_in(tmp_path) == [path.name]
    with Library(str(path)) as library:
        assert library.info()["particles"] == 1


def test_a_url_of_a_file(path):
    with Library(f"sqlite:///{path.as_posix()}") as library:
        assert library.info()["particles"] == 5
        assert library.url == f"sqlite:///{path.as_posix()}"


def test_create_opens_an_existing_library(path):
    with Library(path, create=True) as library:
        assert library.info()["particles"] == 5


def test_an_interrupted_creation_can_be_repeated(tmp_path, monkeypatch):
    path = tmp_path / "new.db"

    def interrupt(connection):
        connection.execute(sa.text("CREATE TABLE half_done (id INTEGER)"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, "_upgrade", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Library(path, create=True)
    assert files_in(tmp_path) == []
    path.touch()  # as a killed process leaves it
    with Library(path, create=True) as library:
        assert library.info()["micrographs"] == 0


def test_a_library_of_a_newer_version_is_not_touched(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(LibraryVersionError, match=r"newer tumble \(schema 9999.*Update.*nothing was changed"):
        Library(path)
    assert path.read_bytes() == before


@pytest.fixture
def next_version(tmp_path, monkeypatch):
    """Pretend that this is a version with one more revision; return the file of that revision."""
    folder = tmp_path / "migrations"
    shutil.copytree(Path(database.__file__).parent / "migrations", folder)
    monkeypatch.setattr(database, "MIGRATIONS", str(folder))
    monkeypatch.setattr(database, "KNOWN_REVISIONS", (*schema.KNOWN_REVISIONS, "0004"))
    monkeypatch.setattr(database, "SCHEMA_VERSION", "0004")
    return folder / "versions" / "0004_next.py"


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade():
    op.add_column("labels", sa.Column("certainty", sa.Double()))
    op.execute("UPDATE labels SET certainty = 1")
"""


def test_an_older_library_is_upgraded(path, next_version):
    next_version.write_text(NEXT)
    with Library(path) as library:
        assert library.info()["labels"] == {"cube": 1, "rod": 1}
        with library._database.reading() as connection:
            assert connection.scalar(sa.text("SELECT sum(certainty) FROM labels")) == 2.0


def test_a_failing_upgrade_changes_nothing(path, next_version):
    next_version.write_text(NEXT + '    op.execute("INSERT INTO no_such_table VALUES (1)")\n')
    before = path.read_bytes()
    with pytest.raises(LibraryError, match=r"no_such_table.*unchanged"):
        Library(path)
    assert path.read_bytes() == before


def test_the_migrated_schema_is_that_of_the_tables(path):
    with Library(path) as library, library._database.reading() as connection:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def test_the_known_revisions_are_those_of_the_files():
    config = Config()
    config.set_main_option("script_location", database.MIGRATIONS)
    scripts = ScriptDirectory.from_config(config)
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(revisions)) == schema.KNOWN_REVISIONS
    assert scripts.get_current_head() == schema.SCHEMA_VERSION
