"""The chain of events holds under concurrency, and what is tampered with is found."""

from __future__ import annotations

import multiprocessing
import threading
from datetime import timedelta, timezone

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tfkt_node.audit import chain
from tfkt_node.audit.chain import ChainFault, Event, EventKind
from tfkt_node.audit.columns import canonical_json
from tfkt_node.audit.store import Store
from tfkt_node.records import Permanent

from ..postgres import Databases
from .making import at
from .rows import rows_of

PROCESSES, THREADS, EACH = 6, 8, 3


def append(store: Store, count: int, first: int = 1) -> None:
    for number in range(first, first + count):
        with store.writing() as connection:
            event = Event(EventKind.FILE_MISSING, f"instance:{number}", {"number": number})
            chain.append(connection, at(number / 7), event)


FREED = {
    # SQLite cannot drop a constraint: the table is made anew without any.
    "sqlite": (
        "DROP TRIGGER events_no_update",
        "DROP TRIGGER events_no_delete",
        "CREATE TABLE copied AS SELECT * FROM events",
        "DROP TABLE events",
        "ALTER TABLE copied RENAME TO events",
    ),
    "postgresql": (
        "DROP TRIGGER events_no_change ON events",
        "ALTER TABLE events DROP CONSTRAINT uq_events_prev_hash",
        "ALTER TABLE events DROP CONSTRAINT uq_events_hash",
        "ALTER TABLE events DROP CONSTRAINT pk_events",
    ),
}


def tamper(store: Store, *statements: str | sa.Executable) -> None:
    """Change events as somebody with all rights on the database could."""
    with store.writing() as connection:
        for statement in (*FREED[connection.dialect.name], *statements):
            connection.execute(sa.text(statement) if isinstance(statement, str) else statement)


def test_empty_chain_holds(store: Store) -> None:
    """P9: a new audit verifies."""
    report = chain.verify(store)

    assert report.holds
    assert (report.events, report.head) == (0, chain.GENESIS)


def test_chain_is_gapless_and_reads_back_as_it_was_hashed(store: Store) -> None:
    """P9: what was appended verifies after a round trip through the database."""
    append(store, 5)
    with store.writing() as connection:
        events = [
            Event(EventKind.FILE_MISSING, "instance:6", {}),
            Event(EventKind.OBJECT_FAILED, "object:1", {"ü": [1.5]}, "É"),
        ]
        chain.append(connection, at(6).astimezone(timezone(timedelta(hours=-3))), *events)

    rows = rows_of(store, "events")
    report = chain.verify(store)

    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["prev_hash"] for row in rows] == [chain.GENESIS, *(r["hash"] for r in rows[:-1])]
    assert report.holds
    assert (report.events, report.head) == (7, rows[-1]["hash"])


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
scalars = scalars.filter(lambda value: value not in (float("inf"), float("-inf")))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    detail=st.dictionaries(st.text(), scalars | st.lists(scalars)),
    actor=st.text(),
    microseconds=st.integers(-(10**15), 10**15),
)
@example(detail={}, actor="a name with \0 and \udcff", microseconds=0)
def test_any_event_verifies_once_stored(
    store: Store, detail: dict[str, object], actor: str, microseconds: int
) -> None:
    """P9: whatever words, numbers and times an event holds, its hash is that of what is kept."""
    with store.writing() as connection:
        event = Event(EventKind.DELIVERY_RETRIED, "delivery:1", detail, actor)
        chain.append(connection, at(microseconds / 1e6), event)

    assert chain.verify(store).holds


def test_event_is_lost_with_its_transaction(store: Store) -> None:
    """P9: an event is told exactly when its transition happened."""
    append(store, 1)
    with pytest.raises(ZeroDivisionError), store.writing() as connection:  # noqa: PT012
        chain.append(connection, at(2), Event(EventKind.FILE_MISSING, "instance:2", {}))
        raise ZeroDivisionError

    append(store, 1, first=3)

    report = chain.verify(store)
    assert (report.holds, report.events) == (True, 2)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE events SET actor = 'x'", "DELETE FROM events", "DELETE FROM events WHERE seq = 2"],
)
def test_database_refuses_to_change_an_event(store: Store, statement: str) -> None:
    """P9: the database itself refuses UPDATE and DELETE."""
    append(store, 3)

    with pytest.raises(Permanent), store.writing() as connection:
        connection.exec_driver_sql(statement)

    assert chain.verify(store).events == 3


@pytest.mark.peers
def test_postgresql_refuses_to_truncate_events(
    postgresql: Databases, postgresql_template: str
) -> None:
    """P9: TRUNCATE is refused too, where the database has it."""
    store = Store(postgresql(template=postgresql_template))
    append(store, 1)

    with pytest.raises(Permanent), store.writing() as connection:
        connection.exec_driver_sql("TRUNCATE events")

    assert chain.verify(store).events == 1
    store.close()


@pytest.mark.parametrize("column", ["at", "kind", "subject", "actor", "detail", "hash"])
def test_changed_event_is_found(store: Store, column: str) -> None:
    """P9: a change of any field, by as little as can be, is named with the first bad event."""
    append(store, 5)
    third = rows_of(store, "events")[2]
    value = third["at"] + timedelta(microseconds=1) if column == "at" else third[column] + " "

    tamper(store, chain.events.update().where(chain.events.c.seq == 3).values({column: value}))

    report = chain.verify(store)
    assert (report.fault, report.first_bad, report.events) == (ChainFault.BROKEN, 3, 2)
    assert "event 3" in report.message


def test_missing_event_is_a_gap(store: Store) -> None:
    """P9: an event taken out of the middle is a gap, not a break."""
    append(store, 5)

    tamper(store, "DELETE FROM events WHERE seq = 3")

    report = chain.verify(store)
    assert (report.fault, report.first_bad, report.events) == (ChainFault.GAP, 4, 2)


def test_swapped_events_are_found(store: Store) -> None:
    """P9: two events that changed places are found."""
    append(store, 5)

    tamper(
        store,
        "UPDATE events SET seq = 99 WHERE seq = 2",
        "UPDATE events SET seq = 2 WHERE seq = 3",
        "UPDATE events SET seq = 3 WHERE seq = 99",
    )

    report = chain.verify(store)
    assert (report.fault, report.first_bad) == (ChainFault.BROKEN, 2)


def test_second_successor_is_a_fork(store: Store) -> None:
    """P9: two events after the same one are told apart from a break."""
    append(store, 5)
    third = rows_of(store, "events")[2]
    fields = [third[name] for name in ("kind", "subject", "actor", "detail", "prev_hash")]
    forged = chain.event_hash("4", at(0).isoformat(timespec="microseconds"), *fields)

    tamper(store, "DELETE FROM events WHERE seq > 3")
    with store.writing() as connection:
        row = {**third, "seq": 4, "at": at(0), "hash": forged}
        connection.execute(chain.events.insert().values(row))

    report = chain.verify(store)
    assert (report.fault, report.first_bad, report.events) == (ChainFault.FORKED, 4, 3)


def test_cut_off_tail_shows_against_an_anchor_only(store: Store) -> None:
    """P9: a head noted outside shows what a chain alone cannot."""
    append(store, 5)
    noted = chain.verify(store)
    anchor = (noted.events, noted.head)
    assert chain.verify(store, anchor).holds

    tamper(store, "DELETE FROM events WHERE seq > 3")

    assert chain.verify(store).holds
    report = chain.verify(store, anchor)
    assert (report.fault, report.first_bad, report.events) == (ChainFault.TRUNCATED, 4, 3)


def test_chain_made_anew_shows_against_an_anchor(store: Store) -> None:
    """P9: a chain that was rewritten from its first event holds, but not against the anchor."""
    append(store, 3)
    anchor = (3, chain.verify(store).head)
    tamper(store, "DELETE FROM events")
    append(store, 4, first=11)

    assert chain.verify(store).holds
    report = chain.verify(store, anchor)
    assert (report.fault, report.first_bad) == (ChainFault.BROKEN, 3)


def test_database_refuses_a_fork(store: Store) -> None:
    """P9: even without the lock, no event gets two successors and no number two events."""
    append(store, 2)
    second = rows_of(store, "events")[1]

    for change in ({"seq": 3, "hash": "a"}, {"prev_hash": "b", "hash": "c"}):
        with pytest.raises(Permanent), store.writing() as connection:
            connection.execute(chain.events.insert().values({**second, **change}))


def test_json_is_canonical() -> None:
    """P9: what is hashed has one form: sorted, ASCII, without spaces or infinities."""
    assert canonical_json({"b": 1, "a": ["ü", None]}) == '{"a":["\\u00fc",null],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


@pytest.mark.station
def test_many_processes_and_threads_never_fork_the_chain(database_url: str) -> None:
    """P9: 6 processes of 8 threads append at once, and every event has one successor."""
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=append_in_threads, args=(database_url,)) for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)

    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    store = Store(database_url)
    report = chain.verify(store)
    rows = rows_of(store, "events")
    store.close()
    assert report.holds, report.message
    assert report.events == PROCESSES * THREADS * EACH
    assert len({row["prev_hash"] for row in rows}) == len(rows)


def append_in_threads(url: str) -> None:
    """Append from several threads of this process; the exit code tells of a failure."""
    store = Store(url)
    threads = [threading.Thread(target=append, args=(store, EACH)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
