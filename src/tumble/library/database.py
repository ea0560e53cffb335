"""Opening a database: connection settings, schema migrations, and errors in the user's words."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from tumble.errors import LibraryError, LibraryVersionError
from tumble.library.schema import KNOWN_REVISIONS, SCHEMA_VERSION, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Database", "wait_for_turn"]

logger = logging.getLogger(__name__)

#: How long a writer waits for another process that is writing.
BUSY_TIMEOUT_S = 30.0

#: Pages that a connection to an SQLite file keeps in memory at most.
CACHE_KIB = 64 * 1024

#: Of a new SQLite file. A crop of the default size with its outline takes a page of 4096 bytes for itself, the default;
#: three share one of 8192, and a library is a quarter smaller.
PAGE_BYTES = 8192

#: Of the write-ahead log before SQLite folds it into the file: rows that come in order change the same pages of the
#: indexes again and again, and each is then written once for several micrographs. This is 32 MB.
LOG_PAGES = 4000

#: Where Alembic finds the revisions: a folder of this package.
MIGRATIONS = "tumble.library:migrations"

_UNCHANGED = "Nothing of this step was stored; what the library held before is unchanged."

# What the database says -> what it means and what to do. The first match counts.
_MESSAGES = (
    ("database or disk is full", "the disk is full. Free some space and run the step again."),
    ("database is locked", "another process is writing to it. Run the step again when that one is done."),
    (
        "database table is locked",
        "another process is writing to it. Run the step again when that one is done.",
    ),
    ("readonly database", "it cannot be written to. Check the permissions of the file and of its folder."),
    (
        "unable to open database file",
        "it cannot be opened. Check that the folder exists and may be written to.",
    ),
    ("file is not a database", "this file is not a tumble library (not an SQLite database). Check the path."),
    ("malformed", "the file is damaged. Restore it from a backup, or create a new library."),
    ("no space left on device", "the disk of the server is full. Free some space and run the step again."),
    ("could not extend file", "the disk of the server is full. Free some space and run the step again."),
    ("permission denied", "this user may not do that. Ask for the right to read and write its tables."),
    ("read-only transaction", "the server does not allow writing at present. Run the step again later."),
    ("authentication failed", "the server refused user name or password. Check the URL."),
    ("connection refused", "no server answers there. Check host and port of the URL, and whether it runs."),
    ("could not translate host name", "there is no such host. Check the URL."),
    ("failed to resolve host", "there is no such host. Check the URL."),
    ("deadlock detected", "another process was writing to the same rows. Run the step again."),
    ("server closed the connection", "the server ended the connection. Run the step again when it is back."),
    ("terminating connection", "the server ended the connection. Run the step again when it is back."),
    ("disk i/o error", "the disk cannot be read or written. Check the disk, its free space and its limits."),
)


class Database:
    """An open library database at its current schema.

    Parameters
    ----------
    url_or_path : str or Path
        Path of an SQLite file, or an SQLAlchemy URL.
    create : bool
        Create the library where there is none.
    """

    def __init__(self, url_or_path: str | Path, *, create: bool = False) -> None:
        self.url = _resolve_url(url_or_path)
        self.path = _sqlite_path(self.url)
        self.name = str(self.path) if self.path else self.url.render_as_string(hide_password=True)
        created_file = _claim_file(self.path, self.name, create)
        try:
            self.engine = self._make_engine()
            try:
                self._prepare(create)
            except BaseException:
                self.engine.dispose()
                raise
        except BaseException:
            if created_file and self.path:
                _remove_sqlite_file(self.path)
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection that sees one consistent state of the library."""
        with self._explained(), self.engine.connect() as connection:
            if not self._is_sqlite:
                # PostgreSQL would let each statement see what others have committed since the one before.
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection in one transaction: all of the block is stored, or nothing where it raises."""
        with (
            self._explained(),
            self.engine.connect().execution_options(tumble_writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @property
    def _is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def close(self) -> None:
        """Close all connections; SQLite then folds its write-ahead log into the one file."""
        self.engine.dispose()

    def size_bytes(self) -> int | None:
        """Return the size of the file with its write-ahead log, None for a database on a server."""
        if self.path is None:
            return None
        parts = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())

    def _make_engine(self) -> sa.Engine:
        if not self._is_sqlite:
            return self._make_server_engine()
        url, arguments = self.url, {"timeout": BUSY_TIMEOUT_S}
        if self.path and _is_read_only(self.path):
            # Without write access SQLite cannot make the files that a write-ahead log needs, even to read.
            url = sa.URL.create(
                "sqlite", database=f"{self.path.resolve().as_uri()}", query={"immutable": "1", "uri": "true"}
            )
        engine = sa.create_engine(url, connect_args=arguments)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _make_server_engine(self) -> sa.Engine:
        try:
            return sa.create_engine(self.url)
        except (ImportError, exc.ArgumentError) as error:
            raise LibraryError(
                f"{self.name}: this kind of database cannot be used here ({error}). Check the URL, and "
                "install the driver for it: for PostgreSQL, pip install 'tumble[scale]' and a URL postgresql+psycopg://."
            ) from error

    def _prepare(self, create: bool) -> None:
        """Bring the schema to the version of this package, or say why that cannot be."""
        with self.reading() as connection:
            revision = _stored_revision(connection)
            foreign = revision is None and self.path and bool(sa.inspect(connection).get_table_names())
        if revision == SCHEMA_VERSION:
            return
        if revision is None and foreign:
            raise LibraryError(
                f"{self.name}: this database is not a tumble library. Check the path; nothing was changed."
            )
        if revision is None and not create:
            raise LibraryError(f"{self.name}: there is no library here. {_how_to_create(self.name)}")
        if revision is not None and revision not in KNOWN_REVISIONS:
            raise LibraryVersionError(
                f"{self.name}: this library was written by a newer tumble (schema {revision}; this version "
                f"knows {SCHEMA_VERSION}). Update the package (pip install -U tumble); nothing was changed."
            )
        if revision is None and self.path:
            with self._explained(), self.engine.connect() as connection:
                _use_write_ahead_log(connection)
        with self.writing() as connection:
            wait_for_turn(connection, "schema")
            if _stored_revision(connection) == SCHEMA_VERSION:
                return  # another process was faster
            _upgrade(connection)
        logger.info("%s: schema %s -> %s", self.name, revision or "none", SCHEMA_VERSION)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the database into a `LibraryError` that says what to do."""
        try:
            yield
        except (exc.StatementError, exc.DBAPIError, sqlite3.Error) as error:
            raise LibraryError(self._explanation(error)) from error
        except exc.SQLAlchemyError as error:
            raise LibraryError(f"{self.name}: {error}. {_UNCHANGED}") from error

    def _explanation(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        for fragment, meaning in _MESSAGES:
            if fragment in str(cause).lower():
                return f"{self.name}: {meaning} {_UNCHANGED}"
        return f"{self.name}: the database refused: {cause}. {_UNCHANGED}"


def _resolve_url(url_or_path: str | Path) -> sa.URL:
    text = os.fspath(url_or_path)
    if not text.strip():
        raise LibraryError("the path of the library is empty. Give a file such as particles.db.")
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = sa.make_url(text)
        # The driver that the extra brings; the name alone would mean another one in older versions of SQLAlchemy.
        return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url
    except exc.ArgumentError as error:
        raise LibraryError(
            f"{text.split('://')[0]}://...: this is not a database URL. Give a file or an SQLAlchemy URL."
        ) from error


def _sqlite_path(url: sa.URL) -> Path | None:
    """Return the file of an SQLite URL, None for a database in memory or on a server."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return None if url.database.startswith("file:") else Path(url.database)


def _how_to_create(name: str) -> str:
    return f"Create one with `tumble extract IMAGE... --library {name}`, or Library({name!r}, create=True)."


def _claim_file(path: Path | None, name: str, create: bool) -> bool:
    """Check that `path` can be a library; return whether an empty file was made for a new one."""
    if path is None:
        return False
    try:
        if path.is_dir():
            raise LibraryError(f"{name}: this is a folder, not a library. Give the path of a file in it.")
        if path.exists():
            return False
        if not create:
            raise LibraryError(f"{name}: there is no such library. {_how_to_create(name)}")
        if not path.parent.is_dir():
            raise LibraryError(f"{name}: the folder {path.parent} does not exist. Create it first.")
        with path.open("xb"):
            return True
    except FileExistsError:  # another process was faster; the migrations are safe for both
        return False
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise LibraryError(f"{name}: no library can be opened or created here ({reason}).") from error


def _remove_sqlite_file(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _is_read_only(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return not os.access(path.parent, os.W_OK) and not log.exists()


def _configure_sqlite(dbapi_connection: Any, record: object) -> None:
    # The driver would begin transactions late and commit before DDL; _begin_sqlite takes over.
    dbapi_connection.isolation_level = None
    dbapi_connection.execute("PRAGMA foreign_keys = ON")
    # The 2 MB by default hold no index of a million rows; every insertion would read its pages again.
    dbapi_connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    dbapi_connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock at once: upgrading a read lock later can fail without waiting for its turn.
    writes = connection.get_execution_options().get("tumble_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_write_ahead_log(connection: sa.Connection) -> None:
    """Let readers and one writer work at the same time; the file, empty so far, remembers this and its page size."""
    dbapi_connection = connection.connection.dbapi_connection
    assert isinstance(dbapi_connection, sqlite3.Connection)
    dbapi_connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    dbapi_connection.execute("PRAGMA journal_mode = WAL")  # not possible inside a transaction


def wait_for_turn(connection: sa.Connection, what: str) -> None:
    """Let one process at a time look for something and store it if it is missing, until its transaction ends.

    SQLite has but one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        # Other applications may lock in the same database: the key is 60 bits that they will not hit.
        key = int(hashlib.sha256(f"tumble {what}".encode()).hexdigest()[:15], 16)
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _stored_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _upgrade(connection: sa.Connection) -> None:
    """Apply all missing revisions in the transaction of `connection`."""
    # Imported here because most libraries that are opened are up to date.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
