"""One door to SQLite and PostgreSQL: connections that keep their promises, and transactions.

SQLite: WAL, synchronous FULL, foreign keys, a busy timeout, each read back; writers take the lock
at BEGIN, because a transaction that reads first and then writes fails at once when another wrote
meanwhile. PostgreSQL: READ COMMITTED; claims skip locked rows. Errors of the driver end here: what
leaves is Retriable, Permanent or Misconfigured, without a value of a row (promise P10).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tfkt_node.audit.schema import NEWEST, installation
from tfkt_node.records import Misconfigured, Permanent, Retriable

BUSY_TIMEOUT_MS = 30_000
PRAGMAS = {
    "busy_timeout": BUSY_TIMEOUT_MS,
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: NORMAL may lose the last commits when the power goes
    "foreign_keys": 1,
}
CONNECTION_LIMITS = {
    "connect_timeout": "5",
    "tcp_user_timeout": "30000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""How PostgreSQL's client finds out that its server is silent or gone: libpq's own parameters (s,
but tcp_user_timeout in ms). What a URL says goes before them."""

UPGRADE_LOCK = 0x74666B7401
LONGEST_KEY = 256
"""Characters; three such keys of four bytes a character would not fit, but DICOM's LO has 64."""

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "ceph", "gluster", "lustre", "afs", "sshfs")


def open_engine(url: str) -> sa.Engine:
    """Make the engine of a database URL; nothing is opened yet.

    Raises Misconfigured for a URL that names no database the node can use.
    """
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise Misconfigured(
            "storage.database: not a database URL; expected sqlite:///PATH or "
            "postgresql+psycopg://USER@HOST/NAME"
        ) from None
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        engine = sa.create_engine(
            parsed.set(
                drivername="postgresql+psycopg", query={**CONNECTION_LIMITS, **parsed.query}
            ),
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            max_overflow=30,
            hide_parameters=True,
        )
        sa.event.listen(engine, "connect", _limit_waits)
        return engine
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise Misconfigured(
            f"storage.database: {parsed.drivername} is not supported; expected sqlite or "
            "postgresql+psycopg"
        )
    _check_sqlite_place(parsed.database)
    engine = sa.create_engine(parsed, max_overflow=30, hide_parameters=True)
    sa.event.listen(engine, "connect", _set_pragmas)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _check_sqlite_place(database: str | None) -> None:
    if not database or database == ":memory:":
        raise Misconfigured("storage.database: SQLite needs a file; memory forgets the audit")
    folder = Path(database).absolute().parent
    if not folder.is_dir():
        raise Misconfigured(f"storage.database: the folder {folder} does not exist; create it")
    kind = file_system_of(folder)
    if any(name in kind for name in NETWORK_FILE_SYSTEMS):
        raise Misconfigured(
            f"storage.database: {folder} lies on a network file system ({kind}), where SQLite "
            "loses data; put it on a local disk or use PostgreSQL"
        )


def file_system_of(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of the file system that holds a folder; '' where the system does not tell."""
    if not mounts.exists():
        return ""
    best, kind = -1, ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, found, *_ = line.split(" ")
        place = Path(point.replace("\\040", " "))
        if folder.resolve().is_relative_to(place) and len(place.parts) > best:
            best, kind = len(place.parts), found
    return kind


def _limit_waits(connection: Any, _record: Any) -> None:
    """Let no statement wait for a lock for ever, as SQLite's busy timeout does."""
    connection.execute(f"SET lock_timeout = {BUSY_TIMEOUT_MS}")
    connection.commit()


def _set_pragmas(connection: Any, _record: Any) -> None:
    # The driver's own BEGIN would come late and deferred; ours is sent by `_begin`.
    connection.isolation_level = None
    for name, wanted in PRAGMAS.items():
        got = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if got != wanted:
            connection.execute(f"PRAGMA {name} = {wanted}").fetchall()
            got = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if got != wanted:
            raise Misconfigured(
                f"storage.database: SQLite answered {name} = {got}; expected {wanted}. The file "
                "must lie on a local disk that the node may write, not on a network file system"
            )


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


RESTORE = "stop the node and restore the database from a backup, as RUNBOOK.md says"
FAULTS = {
    "SQLITE_CORRUPT": ("is damaged", RESTORE),
    "SQLITE_NOTADB": ("is damaged, or its file is none of SQLite's", RESTORE),
    "SQLITE_READONLY": (
        "cannot be written by this user",
        "give the file, and its -wal and -shm beside it, to the user that runs the node",
    ),
    "SQLITE_CANTOPEN": (
        "cannot be opened by this user",
        "give the file and its folder to the user that runs the node",
    ),
    "SQLITE_FULL": ("has no room on its disk", "free space on the disk that holds it"),
    "SQLITE_IOERR": ("cannot be read or written", "look after the disk that holds it"),
    "42501": (
        "gives this user no rights",
        "make the user of storage.database the owner of its tables",
    ),
    "42P01": ("has no tables", "run tfkt-node db upgrade"),
    "53100": ("has no room on its disk", "free space on the disk of the PostgreSQL server"),
    "58030": ("cannot be read or written", "look after the disk of the PostgreSQL server"),
    "XX001": ("is damaged", RESTORE),
    "XX002": ("is damaged", RESTORE),
}
"""What is wrong with the database, and the cure, by the beginning of SQLite's name for it
(https://www.sqlite.org/rescode.html) or by SQLSTATE (PostgreSQL's manual, appendix A)."""

PASSING = ("SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "53100", "58030")
"""Those that may be over at the next attempt."""


def _said(error: DBAPIError) -> Retriable | Permanent:
    """Say what the database answered by its code alone: its text quotes the row."""
    original = error.orig
    code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None) or ""
    if str(original).startswith("no such table"):  # SQLite has no code of its own for it
        code = "42P01"
    named = f"{type(original).__name__} {code or 'without a code'}"
    for beginning, (what, cure) in FAULTS.items():
        if code.startswith(beginning):
            said = f"the audit database {what} ({named})"
            return Retriable(f"{said}; {cure}") if beginning in PASSING else Permanent(said, cure)
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return Retriable(
            f"the audit database is away or busy ({named}); if it stays so, look at host, port, "
            "user and password in storage.database"
        )
    return Permanent(
        f"the audit database refused a statement ({named})",
        "run tfkt-node db upgrade; if it stays, report it as a fault of the node",
    )


@contextmanager
def said_errors() -> Iterator[None]:
    """Turn errors of the driver into errors of the node."""
    try:
        yield
    except DBAPIError as error:
        raise _said(error) from None
    except PoolTimeout:
        raise Retriable("the audit database has no free connection") from None


class Database:
    """Connections to one database. Safe for threads; each process opens its own."""

    def __init__(self, url: str) -> None:
        """Prepare connections to `url`; nothing is opened yet. Raises Misconfigured."""
        self._engine = open_engine(url)
        # SQLite's waiters poll and may starve; those of one process queue here instead.
        self._writer: Callable[[], Any] = nullcontext
        if self._engine.dialect.name == "sqlite":
            lock = threading.Lock()
            self._writer = lambda: lock

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that sees one state and changes nothing."""
        with said_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits as a whole at the end of the block, or not at all."""
        with said_errors(), self._writer(), self._engine.connect() as opened:
            connection = opened.execution_options(writes=True)
            with connection.begin():
                yield connection

    def check_schema(self) -> None:
        """Raise Misconfigured unless the database has the newest schema."""
        with self.reading() as connection:
            have = schema_of(connection)
        if have != NEWEST:
            raise Misconfigured(
                f"the audit database has schema {have or 'none'}; expected {NEWEST}. "
                "Run tfkt-node db upgrade"
            )

    def check_writable(self) -> None:
        """Raise Permanent or Retriable unless a row can be written; nothing is changed."""
        with self.writing() as connection:
            connection.execute(installation.update().values(node_uid=installation.c.node_uid))


def schema_of(connection: sa.Connection) -> str | None:
    """Return the last step of the migrations that a database has seen; None: it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def upgrade(url: str, to: str = NEWEST) -> tuple[str | None, str]:
    """Bring a database to the newest schema in one transaction; an empty one gets all of it.

    to: the last step to take. Returns (schema before, schema after); None before for an empty
    database. Idempotent, and safe when several processes start at once. Raises Misconfigured,
    Retriable.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    database = Database(url)
    try:
        with database.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
            before = schema_of(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, to)
    except CommandError:
        raise Misconfigured(
            f"the audit database has schema {before}, which this version of the node does not "
            "know; install the version that made it, or a newer one"
        ) from None
    finally:
        database.close()
    return before, to


def without_password(url: str) -> str:
    """Return a database URL that may be shown: its password is starred out."""
    return sa.make_url(url).render_as_string(hide_password=True)


def insert_once(connection: sa.Connection, table: sa.Table, **values: Any) -> bool:
    """Insert a row unless a unique constraint has it already; tell whether it was inserted.

    PostgreSQL waits for a transaction that is inserting the same row, and then sees it.
    """
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    key = next(iter(table.primary_key))
    statement = insert(table).values(**values).on_conflict_do_nothing().returning(key)
    return connection.execute(statement).first() is not None


def insert_new(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    *returned: sa.Column[Any],
) -> Sequence[sa.Row[Any]]:
    """Insert the rows that no unique constraint has already; return columns of these, in no order.

    All rows have the same keys.
    """
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).on_conflict_do_nothing().returning(*returned)
    return connection.execute(statement, rows).all()


def indexable(text: str) -> str:
    """Shorten what is too long for PostgreSQL's index (2704 bytes) to its beginning and digest."""
    text = storable(text)
    if len(text) <= LONGEST_KEY:
        return text
    return f"{text[:64]}… {hashlib.sha256(text.encode()).hexdigest()}"


def storable(text: str) -> str:
    """Replace what a text column cannot hold: NUL (PostgreSQL) and lone surrogates (both)."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
