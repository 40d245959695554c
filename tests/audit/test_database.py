"""Connections keep their promises, and errors of the driver end at the store's door."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa

from tfkt_node.audit.database import PRAGMAS, file_system_of, open_engine, said_errors
from tfkt_node.audit.schema import associations
from tfkt_node.audit.store import Store
from tfkt_node.records import Misconfigured, Permanent, Retriable

from ..postgres import Databases
from .making import at, fill, header, instance
from .rows import rows_of

pytestmark = pytest.mark.station


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Store:
    path = tmp_path / "audit.db"
    path.write_bytes(sqlite_template.read_bytes())
    return Store(f"sqlite:///{path}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://somewhere/audit", "not supported"),
        ("sqlite://", "memory forgets"),
        ("sqlite:///:memory:", "memory forgets"),
        ("sqlite:////no/such/folder/audit.db", "does not exist"),
    ],
)
def test_url_that_cannot_work_is_refused(url: str, words: str) -> None:
    """A wrong setting is said at once, with what was expected."""
    with pytest.raises(Misconfigured, match=words):
        Store(url)


def test_plain_postgresql_url_gets_the_driver() -> None:
    """`postgresql://` is taken as the driver that is installed."""
    engine = open_engine("postgresql://user@host/name")

    assert engine.url.drivername == "postgresql+psycopg"
    engine.dispose()


def test_sqlite_keeps_what_it_is_told(database: Store) -> None:
    """P1: every connection has WAL, full synchronisation, foreign keys and a timeout."""
    with database.reading() as one, database.reading() as two:
        for connection in (one, two):
            got = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS}
            assert got == PRAGMAS
    database.close()


def test_refused_pragma_is_said(monkeypatch: pytest.MonkeyPatch, database: Store) -> None:
    """P1: a database that does not keep a promise is refused, not used."""
    monkeypatch.setitem(PRAGMAS, "synchronous", 7)

    with pytest.raises(Misconfigured, match="synchronous"), database.reading():
        pass

    database.close()


def test_sqlite_on_a_network_file_system_is_recognised(tmp_path: Path) -> None:
    """P1: the file system of the longest mount point counts, with spaces in its name."""
    spaced = tmp_path / "net share"
    (spaced / "deep").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    escaped = str(spaced).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n")

    assert file_system_of(spaced / "deep", mounts) == "nfs4"
    assert file_system_of(tmp_path, mounts) == "ext4"
    assert file_system_of(tmp_path, tmp_path / "none") == ""


def test_sqlite_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: SQLite loses data on a network file system, so it is not tried."""
    monkeypatch.setattr("tfkt_node.audit.database.file_system_of", lambda _: "nfs4")

    with pytest.raises(Misconfigured, match="network file system"):
        Store(f"sqlite:///{tmp_path / 'audit.db'}")


def test_naive_datetime_is_refused(store: Store) -> None:
    """A time without a zone never enters the audit."""
    naive = datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001

    with pytest.raises(sa.exc.StatementError, match="without a zone") as caught:
        store.open_association("a", "SECRET", "NODE", "", naive)

    assert "SECRET" not in str(caught.value)


def test_times_come_back_in_utc_to_the_microsecond(store: Store) -> None:
    """A time in any zone is the same instant when it is read."""
    local = datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=-9)))
    store.open_association("a", "SCANNER", "NODE", "", local)

    (row,) = rows_of(store, "associations")

    assert row["opened_at"] == local
    assert row["opened_at"].tzinfo is UTC


def test_error_text_holds_no_value_of_a_row(store: Store) -> None:
    """P10: what the database says of a row does not leave the store."""
    values = {
        "id": "SECRET",
        "calling_ae": "a",
        "called_ae": "b",
        "address": "",
        "opened_at": at(0),
    }
    with store.writing() as connection:
        connection.execute(associations.insert().values(values))

    with pytest.raises(Permanent) as caught, store.writing() as connection:
        connection.execute(associations.insert().values(values))

    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_transaction_is_all_or_nothing(store: Store) -> None:
    """P5: what fails in the middle leaves nothing behind."""
    with pytest.raises(ZeroDivisionError), store.writing() as connection:  # noqa: PT012
        connection.execute(
            associations.insert().values(
                id="a", calling_ae="", called_ae="", address="", opened_at=at(0)
            )
        )
        raise ZeroDivisionError

    assert rows_of(store, "associations") == []


def test_database_that_is_away_is_retriable(tmp_path: Path) -> None:
    """P7: a database that cannot be reached is tried again, not a crash."""
    store = Store(f"postgresql://user@/name?host={tmp_path}")

    with pytest.raises(Retriable, match="away or busy"):
        store.known_digests()

    store.close()


def test_database_that_is_silent_is_retriable_in_time() -> None:
    """P7: a host that takes a connection and says nothing holds nobody up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = Store(f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/name")
        began = monotonic()

        with pytest.raises(Retriable, match="away or busy"):
            store.check_schema()

    assert monotonic() - began < 30
    store.close()


def test_limits_of_a_connection_can_be_set_in_its_url() -> None:
    """P7: a silent server is found out; what the administrator says goes first."""
    engine = open_engine("postgresql://user@host/name?connect_timeout=60")

    assert engine.url.query["connect_timeout"] == "60"
    assert engine.url.query["tcp_user_timeout"] == "30000"
    engine.dispose()


@pytest.mark.peers
def test_lock_is_not_waited_for_without_end(
    postgresql: Databases, postgresql_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: a statement that waits for a lock on PostgreSQL ends, as it does on SQLite."""
    monkeypatch.setattr("tfkt_node.audit.database.BUSY_TIMEOUT_MS", 100)
    store = Store(postgresql(template=postgresql_template))
    lock = "LOCK TABLE installation IN ACCESS EXCLUSIVE MODE"
    with store.writing() as connection:
        connection.exec_driver_sql(lock)

        with pytest.raises(Retriable, match="busy"):
            store.node_uid()

    store.close()


@pytest.mark.parametrize("what", ["page", "head", "text"])
def test_damaged_file_is_said_with_its_cure(database: Store, what: str) -> None:
    """P7: the cure for a damaged file is the backup, not an upgrade."""
    fill(database, 1)
    database.close()
    path = Path(str(database._engine.url.database))
    content = bytearray(path.read_bytes())
    damage = {"page": slice(4096, 9 * 4096), "head": slice(0, 100), "text": slice(0, None)}[what]
    content[damage] = b"\xab" * len(content[damage])
    path.write_bytes(content)

    with pytest.raises(Permanent, match="is damaged") as caught:
        database.check_schema()

    assert "from a backup" in caught.value.cure
    database.close()


def test_full_disk_is_said_with_its_cure(database: Store) -> None:
    """P7: a disk that is full is tried again, and not called a wrong password."""
    with database.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

        with pytest.raises(Retriable, match=r"no room on its disk.*free space"), said_errors():
            connection.execute(
                associations.insert().values(
                    id="a" * 9_000_000, calling_ae="", called_ae="", address="", opened_at=at(0)
                )
            )
    database.close()


@pytest.mark.peers
def test_user_without_rights_is_said_with_its_cure(
    postgresql: Databases, postgresql_template: str
) -> None:
    """P7: rights that lack are named, not called a fault of the node."""
    store = Store(postgresql(template=postgresql_template))

    with pytest.raises(Permanent, match="no rights") as caught, store.writing() as connection:
        connection.exec_driver_sql(
            "CREATE ROLE nobody; SET LOCAL ROLE nobody; SELECT * FROM events"
        )

    assert "owner of its tables" in caught.value.cure
    store.close()


@pytest.mark.peers
def test_connection_that_is_cut_costs_one_call_at_most(
    postgresql: Databases, postgresql_template: str
) -> None:
    """P7: after a connection was cut the store works again by itself."""
    store = Store(postgresql(template=postgresql_template))
    fill(store, 1)
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    )
    with pytest.raises(Retriable), store.writing() as connection:
        connection.exec_driver_sql(cut)

    store.index_instance(instance(2), header(2), at(1))

    assert len(store.known_digests()) == 2
    store.close()


def test_missing_tables_are_said_with_the_cure(tmp_path: Path) -> None:
    """A database that was never made says which command makes it."""
    store = Store(f"sqlite:///{tmp_path / 'empty.db'}")

    with pytest.raises(Permanent) as caught:
        store.known_digests()

    assert "db upgrade" in caught.value.cure
    store.close()


def test_looking_for_work_reads_no_finished_row(database: Store) -> None:
    """P8: after years of finished rows, a look for work costs what it cost at first."""
    plans = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "sqlite_" not in statement:
            plan = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in plan)

    sa.event.listen(sa.Engine, "before_cursor_execute", explain)
    try:
        database.quiet_revisions(at(0), 30)
        database.claim_revision("owner", at(0), 60, 3600)
        database.claim_object("owner", at(0), 60)
        database.claim_delivery("owner", "pacs", at(0), 60)
        database.release_expired_leases(at(0), "owner")
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", explain)
    database.close()

    used = {plan.partition(" USING INDEX ")[2].partition(" ")[0] for plan in plans}
    assert not [plan for plan in plans if plan.startswith("SCAN") and "INDEX" not in plan], plans
    assert used >= {"uq_revisions_open", "ix_revisions_stable", "ix_deliveries_pending"}
    assert used >= {"ix_revisions_leased", "ix_objects_leased", "ix_deliveries_leased"}
    assert any("ix_objects_owed" in plan for plan in plans), plans
