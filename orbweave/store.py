"""The database that remembers jobs: one SQLite file, or PostgreSQL by its address.

Opening checks the file, brings an older one up to date and refuses a newer one. A damaged
file is moved aside and a fresh one begun; `orbweave.jobs.open_jobs` then fills it again from
the design folders, which are the truth.

To check is to read everything, so it is left out where a seal beside the file says that nobody
touched it since it was found sound, or was closed by us. What the system changes without a trace
is noticed where it is read; that breaks the seal.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout
from platformdirs import user_data_dir
from sqlalchemy.dialects import sqlite

from orbweave.errors import OrbweaveError, shown
from orbweave.job import STATES
from orbweave.migrations import HEAD
from orbweave.tables import VERSION_TABLE
from orbweave.tables import jobs as jobs_table

__all__ = ["STORE_VARIABLE", "Store", "StoreError", "open_store", "store_address", "store_exists"]

logger = logging.getLogger(__name__)

STORE_VARIABLE = "ORBWEAVE_STORE"
"""Environment variable with the store's file, or an address such as postgresql://host/name."""
WAIT_S = 30.0
"""How long to wait for another process that is writing."""
SUFFIXES = (".db", ".sqlite", ".sqlite3")
"""Only a damaged file with one of these is moved aside; anything else may not be ours."""
_WRITES = "orbweave_writes"
_MIGRATIONS = Path(__file__).with_name("migrations")
_UPGRADE_LOCK = 7_461_902
"""Chosen by us: the number of PostgreSQL's advisory lock for upgrades."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TEXTS = ("label", "profile", "error", "key", "parameters", "result")
"""Columns of the jobs whose text is read by a check."""
_NO_TEXT = "Could not decode to UTF-8"
"""Begins what Python's sqlite3 says of text that was overwritten; it gives no code then."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class StoreError(OrbweaveError):
    """The store of jobs cannot be opened, read or written."""


class Store:
    """An open database; `read` and `write` are the two ways in."""

    def __init__(
        self, engine: sa.Engine, file: Path | None, *, wait_s: float, moved_aside: Path | None
    ) -> None:
        self._engine = engine
        self._wait_s = wait_s
        self.file = file
        """The SQLite file; None for PostgreSQL."""
        self.moved_aside = moved_aside
        """Where the damaged file of this opening lies now; None if there was none."""

    @property
    def place(self) -> str:
        """The file or address, without a password, for people."""
        return str(self.file or self._engine.url.render_as_string(hide_password=True))

    @property
    def address(self) -> str:
        """What `open_store` takes to open the same, with a password where there is one."""
        return str(self.file or self._engine.url.render_as_string(hide_password=False))

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Yield a connection that sees one moment of the store.

        Raises:
            StoreError: the database refused; also of `write`.
        """
        with _in_our_words(self.place, self._wait_s), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Yield a connection whose changes are kept together, or not at all on an exception.

        SQLite has one writer at a time; it is taken at once, so that what is read here
        cannot change before it is written.
        """
        with _in_our_words(self.place, self._wait_s), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def upsert(self, table: sa.Table) -> Any:
        """Return an INSERT that takes `on_conflict_do_update`, in the database's dialect."""
        if self.file:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql  # which most never need, and takes its time

        return postgresql.insert(table)

    def remember_folder(self, folder: Path) -> None:
        """Note a folder that holds designs, in a file beside the database that outlives it."""
        if self.file is None or folder in self.folders():
            return
        with self._folder_list.open("a", encoding="utf-8") as file:
            file.write(f"\n{folder}\n")  # the line before may be torn, by a full disk

    def folders(self) -> list[Path]:
        """Return the noted folders, oldest first; none for PostgreSQL, which has backups."""
        if self.file is None or not self._folder_list.is_file():
            return []
        lines = self._folder_list.read_text("utf-8", errors="replace").splitlines()
        return [Path(line) for line in dict.fromkeys(lines) if line]

    def close(self) -> None:
        """Give the connections back, and renew the seal unless somebody broke it."""
        self._engine.dispose()
        if self.file is not None and _seal_of(self.file).exists():
            _seal(self.file)

    @property
    def _folder_list(self) -> Path:
        assert self.file is not None
        return _folder_list(self.file)


def store_address() -> str:
    """Return where the store is: `ORBWEAVE_STORE`, or a file in the user's data folder."""
    chosen = os.environ.get(STORE_VARIABLE, "").strip()
    return chosen or str(Path(user_data_dir("orbweave")) / "orbweave.db")


def store_exists(address: str | None = None) -> bool:
    """Tell whether there is a store already; an address counts as one."""
    file = _file_of(_url(address or store_address()))
    return file is None or file.is_file()


def open_store(address: str | None = None, *, wait_s: float = WAIT_S, check: bool = False) -> Store:
    """Open the store; a SQLite file is made if there is none.

    Args:
        address: A file, or a SQLAlchemy address; default: `store_address()`.
        wait_s: Seconds to wait for another process that is writing, or for a server's answer.
        check: Read a file whole even if it is as we left it.

    Raises:
        StoreError: it cannot be opened, is locked, or was written by a newer Orbweave.
    """
    url = _url(address or store_address())
    file = _file_of(url)
    moved_aside = None
    place = str(file or url.render_as_string(hide_password=True))
    with _in_our_words(place, wait_s), _opening(file, wait_s):
        is_as_left = file is not None and not check and _is_sealed(file)
        if file is not None:
            moved_aside = None if is_as_left else _move_aside_if_damaged(file, wait_s)
            engine = _sqlite_engine(url, wait_s)
        else:
            engine = _server_engine(url, wait_s)
        store = Store(engine, file, wait_s=wait_s, moved_aside=moved_aside)
        with store.write() as connection:
            _bring_up_to_date(connection, store)
        if file is not None and not is_as_left:
            _seal(file)
    return store


def _url(address: str) -> sa.URL:
    if "://" not in address:
        return sa.URL.create("sqlite", database=str(Path(address).expanduser().absolute()))
    try:
        return sa.make_url(address)
    except sa.exc.ArgumentError as err:
        raise StoreError(
            f"wanted a store, {STORE_VARIABLE} is no file and no address; "
            "give for instance postgresql://user@host/orbweave"
        ) from err


def _file_of(url: sa.URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise StoreError("wanted a store that lasts, got a SQLite address without a file; name one")
    return Path(url.database).absolute()


def _folder_list(file: Path) -> Path:
    return file.with_name(f"{file.name}.folders")


def _seal_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sound")


def _seal(file: Path) -> None:
    """Note that the file is sound as it is now."""
    with suppress(OSError):  # without a seal it is checked again, nothing else
        _seal_of(file).write_text(_size_and_change(file), "ascii")


def _is_sealed(file: Path) -> bool:
    """Whether the file is as it was when it was sealed."""
    try:
        return _seal_of(file).read_text("ascii") == _size_and_change(file)
    except (OSError, UnicodeDecodeError):
        return False


def _size_and_change(file: Path) -> str:
    """Return what differs once anybody wrote to the file, or put another in its place.

    Not the time of modification: a copy from a backup may bring its own.
    """
    known = file.stat()
    return f"{known.st_size} {known.st_ctime_ns}"


def _sqlite_engine(url: sa.URL, wait_s: float) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": wait_s})

    @sa.event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        # Readers and the writer do not hinder each other; a power cut may cost the last
        # changes, never the file. The folders hold what was made.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _server_engine(url: sa.URL, wait_s: float) -> sa.Engine:
    if url.get_backend_name() != "postgresql":
        raise StoreError(
            f"wanted a SQLite file or a PostgreSQL address, got {shown(url.drivername)}; "
            f"set {STORE_VARIABLE} to one of them"
        )
    url = url.set(drivername="postgresql+psycopg")
    try:
        patience = {"connect_timeout": max(2, round(wait_s))}  # libpq takes no less
        return sa.create_engine(url, pool_pre_ping=True, connect_args=patience)
    except ImportError as err:
        raise StoreError(
            "wanted psycopg to talk to PostgreSQL, it is not installed; "
            "run: pip install 'psycopg[binary]'"
        ) from err


@contextmanager
def _opening(file: Path | None, wait_s: float) -> Iterator[None]:
    """Let one process at a time check, move and upgrade the file."""
    if file is None:
        yield
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock", timeout=wait_s):
            yield
    except Timeout as err:
        raise StoreError(_held(str(file), wait_s)) from err
    except OSError as err:
        raise StoreError(
            f"wanted to open the store {file}, the system said {shown(err.strerror or err)}; "
            f"mend that, or set {STORE_VARIABLE} to another file"
        ) from err


def _move_aside_if_damaged(file: Path, wait_s: float) -> Path | None:
    """Rename a damaged file and its journals; return the new place, None if it is sound."""
    fault = _fault_of(file, wait_s) if file.is_file() else None
    if fault is None:
        return None
    if file.suffix not in SUFFIXES:
        raise StoreError(
            f"wanted a store of jobs in {file}, found no sound database ({fault}); set "
            f"{STORE_VARIABLE} to a file that ends in .db, and remove this one if it was ours"
        )
    aside = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("-wal", "-shm", ""):
        part = Path(f"{file}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    logger.warning("the store %s was damaged (%s); it lies in %s now", file, fault, aside)
    return aside


def _fault_of(file: Path, wait_s: float) -> str | None:
    """Return what is wrong with a database file, None if nothing is."""
    if not file.stat().st_size and _folder_list(file).is_file():
        return "it is empty, though folders are noted beside it"
    try:
        with closing(sqlite3.connect(file, timeout=wait_s)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            return _nonsense_in(connection) if verdict == "ok" else shown(verdict)
    except sqlite3.DatabaseError as err:
        if _code(err) in _DAMAGED:
            return str(err)
        raise sa.exc.OperationalError("PRAGMA integrity_check", None, err) from err


def _nonsense_in(connection: sqlite3.Connection) -> str | None:
    """Return what no job of ours holds, None if all can be read.

    SQLite keeps no checksums: text that was overwritten leaves its pages in good order.
    """
    connection.text_factory = bytes
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if jobs_table.name.encode() not in tables:
        return None
    texts = " || ".join(f"coalesce({name}, '')" for name in _TEXTS)
    states = ", ".join(f"'{state}'" for state in STATES)
    strange = f"state NOT IN ({states}) OR NOT json_valid(parameters) OR NOT json_valid(result)"
    try:
        for (text,) in connection.execute(f"SELECT {texts} FROM {jobs_table.name}"):
            text.decode()
        query = f"SELECT state, parameters, result FROM {jobs_table.name} WHERE {strange}"
        for state, parameters, result in connection.execute(query):
            # Python's JSON knows NaN, SQLite's does not.
            json.loads(parameters)
            json.loads(result or "null")
            if state.decode() not in STATES:
                return f"a job in the state {shown(state.decode())}"
    except (ValueError, TypeError, AttributeError) as err:
        return f"a job that cannot be read: {shown(err)}"
    return None


def _bring_up_to_date(connection: sa.Connection, store: Store) -> None:
    """Apply the migrations that are missing, all or none."""
    if store.file is None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
    tables = sa.inspect(connection).get_table_names()
    version = None
    if VERSION_TABLE in tables:
        version = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
    elif tables and store.file is not None:
        raise StoreError(
            f"wanted a store of jobs in {store.place}, found a database of something else; "
            f"set {STORE_VARIABLE} to another file"
        )
    if version == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise StoreError(
            f"wanted a store of version {HEAD} or older, {store.place} has {shown(version)}: "
            f"a newer Orbweave wrote it; upgrade, or set {STORE_VARIABLE} to another file"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _in_our_words(place: str, wait_s: float) -> Iterator[None]:
    """Say in our words what the database refused; our own mistakes in SQL pass unchanged."""
    try:
        yield
    except json.JSONDecodeError as err:  # of a value that was overwritten
        raise _damaged(place, err) from err
    except sa.exc.DatabaseError as err:
        if not (isinstance(err, sa.exc.OperationalError) or type(err) is sa.exc.DatabaseError):
            raise
        code = _code(err.orig)
        if code in _BUSY:
            raise StoreError(_held(place, wait_s)) from err
        if code in _DAMAGED or _NO_TEXT in str(err.orig):
            raise _damaged(place, err.orig) from err
        said = " ".join(str(err.orig).split())
        raise StoreError(
            f"wanted to use the store {place}, the database said {shown(said, 160)}; "
            f"mend that, or set {STORE_VARIABLE} to another"
        ) from err


def _damaged(place: str, err: BaseException | None) -> StoreError:
    """Break the seal of a file, so that the next opening checks it; return the error to raise."""
    _seal_of(Path(place)).unlink(missing_ok=True)
    return StoreError(
        f"wanted to use the store {place}, it is damaged ({shown(err, 160)}); run the command "
        "again: the file is then moved aside and filled anew from the design folders"
    )


def _code(err: BaseException | None) -> int | None:
    """Return SQLite's primary error code; None for another database's error."""
    code = getattr(err, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _held(place: str, wait_s: float) -> str:
    return (
        f"wanted to use the store {place}, another process has held it for {wait_s:.0f} s; "
        "wait until it is done, or stop it, and try again"
    )
