"""What is owed to a destination reaches it, or ends in words."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.destination import KOS, NO_ANSWER, QUICK, Destination
from tests.orthanc import free_port
from tfkt_node.delivery import outbox
from tfkt_node.delivery.store_scu import place
from tfkt_node.records import ClaimedDelivery, DeliveryState, Misconfigured, Retriable
from tfkt_node.settings import Peer, Settings

Objects = Callable[[int], list[Path]]

drops_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@dataclass
class Row:
    destination: str
    path: Path
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    due: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    leased_until: datetime | None = None
    error: str = ""
    status: int | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass
class Rows:
    """The deliveries of an audit store, in memory, obeying the contract of its claims."""

    rows: list[Row] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def claim_delivery(
        self, owner: str, destination: str, now: datetime, lease_s: float
    ) -> ClaimedDelivery | None:
        for number, row in enumerate(self.rows):
            free = row.leased_until is None or row.leased_until < now
            due = row.state is DeliveryState.PENDING and row.due <= now
            if row.destination == destination and due and free:
                row.leased_until = now + timedelta(seconds=lease_s)
                return ClaimedDelivery(
                    number, destination, row.attempts, "", "", row.path, row.sha256
                )
        return None

    def delivery_sent(
        self, delivery_id: int, owner: str, status: int, comment: str, at: datetime
    ) -> bool:
        return self._end(delivery_id, state=DeliveryState.SENT, status=status)

    def delivery_retry(
        self, delivery_id: int, owner: str, error: str, next_attempt_at: datetime, at: datetime
    ) -> bool:
        return self._end(delivery_id, due=next_attempt_at, error=error)

    def delivery_left(
        self, delivery_id: int, owner: str, why: str, next_attempt_at: datetime
    ) -> bool:
        self._end(delivery_id, due=next_attempt_at, error=why)
        self.rows[delivery_id].attempts -= 1
        return True

    def deliveries_due(self, destination: str, error_begins: str, now: datetime) -> int:
        waiting = [
            row
            for row in self.rows
            if row.state is DeliveryState.PENDING and row.due > now
            if row.destination == destination and row.error.startswith(error_begins)
        ]
        for row in waiting:
            row.due = now
        return len(waiting)

    def delivery_lost(self, delivery_id: int, owner: str, error: str, at: datetime) -> bool:
        self.lost.append(delivery_id)
        return self._end(delivery_id, error=error)

    def delivery_dead(self, delivery_id: int, owner: str, error: str, at: datetime) -> bool:
        return self._end(delivery_id, state=DeliveryState.DEAD, error=error)

    def _end(self, delivery_id: int, **values: object) -> bool:
        row = self.rows[delivery_id]
        row.attempts += 1
        row.leased_until = None
        for name, value in values.items():
            setattr(row, name, value)
        return True


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def deliver(rows: Rows, peers: tuple[Peer, ...], clock: Clock, destination: str = "pacs") -> int:
    settings = Settings(peers=peers, delivery=QUICK)
    return outbox.deliver_due(rows, settings, destination, "owner", clock, Random(1))


@pytest.mark.station
def test_all_that_is_due_arrives_in_batches(objects: Objects) -> None:
    """P5: each object once, twenty to an association; a turn is one batch, so that it can end."""
    rows = Rows([Row("pacs", path) for path in objects(21)])
    with Destination() as pacs:
        turns = [deliver(rows, (pacs.peer,), Clock()) for _ in range(3)]

    assert [20, 1, 0] == turns

    assert {DeliveryState.SENT} == {row.state for row in rows.rows}
    assert (21, 2) == (len(set(pacs.received)), pacs.associations)


@pytest.mark.station
def test_claim_outlasts_the_slowest_batch(objects: Objects) -> None:
    """P5: what is on its way is not claimed again, however slow its destination is."""
    rows, clock = Rows([Row("pacs", path) for path in objects(1)]), Clock()
    leases: list[float] = []

    class Watched(Rows):
        def claim_delivery(
            self, owner: str, destination: str, now: datetime, lease_s: float
        ) -> ClaimedDelivery | None:
            leases.append(lease_s)
            return super().claim_delivery(owner, destination, now, lease_s)

    with Destination() as pacs:
        deliver(Watched(rows.rows), (pacs.peer,), clock)

    begun_s = Settings().scoring.lease_s / 2
    calls_s = 3 * QUICK.connection_timeout_s  # TCP, association, release
    assert leases[0] >= begun_s + QUICK.response_timeout_s + calls_s


@pytest.mark.station
def test_what_the_audit_did_not_record_is_not_logged_as_sent(
    objects: Objects, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says no more than the rows do: a claim that was lost is a warning."""

    class Lost(Rows):
        def delivery_sent(
            self, delivery_id: int, owner: str, status: int, comment: str, at: datetime
        ) -> bool:
            return False

    caplog.set_level("INFO", "tfkt_node")
    rows = Rows([Row("pacs", path) for path in objects(1)])
    with Destination() as pacs:
        deliver(Lost(rows.rows), (pacs.peer,), Clock())
        lost = [(record.levelname, record.message.split()[0]) for record in own(caplog)]
        caplog.clear()
        rows.rows[0].leased_until = None
        deliver(rows, (pacs.peer,), Clock())

    assert [("WARNING", "delivery.claim_lost")] == lost
    assert ["delivery.sent"] == [record.message.split()[0] for record in own(caplog)]


def own(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("tfkt_node")]


@pytest.mark.station
def test_busy_destination_gets_it_later(objects: Objects) -> None:
    """0xA700 is tried again when its time has come, and not before."""
    rows, clock = Rows([Row("pacs", path) for path in objects(1)]), Clock()
    with Destination(statuses=[0xA700]) as pacs:
        assert 0 == deliver(rows, (pacs.peer,), clock)
        (row,) = rows.rows
        waited = (row.due - clock.now).total_seconds()
        assert 0 == deliver(rows, (pacs.peer,), clock)
        assert 1 == row.attempts

        clock.now = row.due
        assert 1 == deliver(rows, (pacs.peer,), clock)

    assert 0.5 <= waited <= 1
    assert (DeliveryState.SENT, 2) == (row.state, row.attempts)


@pytest.mark.station
def test_only_what_was_tried_is_charged(objects: Objects) -> None:
    """An object on which the destination aborts costs no other an attempt, nor a wait."""
    rows, clock = Rows([Row("pacs", path) for path in objects(4)]), Clock()
    with Destination(statuses=[0x0000, NO_ANSWER]) as pacs:
        assert 1 == deliver(rows, (pacs.peer,), clock)
        _, tried, *rest = rows.rows
        assert [1, 0, 0] == [row.attempts for row in (tried, *rest)]
        assert tried.due > clock.now
        assert ["left for the next association" in row.error for row in rest] == [True, True]
        assert 2 == deliver(rows, (pacs.peer,), clock)


@drops_socket
@pytest.mark.station
def test_failed_association_is_one_attempt(objects: Objects) -> None:
    """The first object pays for it, and the others wait with it."""
    rows, clock = Rows([Row("pacs", path) for path in objects(3)]), Clock()
    dead = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port(), deliver=True)

    assert 0 == deliver(rows, (dead,), clock)

    assert [1, 0, 0] == [row.attempts for row in rows.rows]
    assert 1 == len({row.due for row in rows.rows})
    assert rows.rows[0].due > clock.now
    assert all("cannot be reached" in row.error for row in rows.rows)


@pytest.mark.station
def test_backlog_is_due_at_once_when_its_destination_answers_again(objects: Objects) -> None:
    """P5: what waited for the destination goes out; what it failed to take waits for its time."""
    rows, clock = Rows([Row("pacs", path) for path in objects(4)]), Clock()
    fresh, away, elsewhere, failed = rows.rows
    with Destination() as pacs:
        away.error = elsewhere.error = f"{place(pacs.peer)} cannot be reached"
        failed.error = "the destination failed to store it (0x0110)"
        elsewhere.destination = "archive"
        for row in (away, elsewhere, failed):
            row.due = clock.now + timedelta(hours=1)

        assert [1, 1, 0] == [deliver(rows, (pacs.peer,), clock) for _ in range(3)]

    assert [DeliveryState.SENT] * 2 == [fresh.state, away.state]
    assert [clock.now + timedelta(hours=1)] * 2 == [elsewhere.due, failed.due]


@pytest.mark.station
def test_database_that_goes_away_costs_what_was_in_hand(objects: Objects) -> None:
    """P5: what the destination acknowledged before is recorded, and not sent again."""

    class GoesAway(Rows):
        def delivery_sent(
            self, delivery_id: int, owner: str, status: int, comment: str, at: datetime
        ) -> bool:
            if delivery_id == 1:
                raise Retriable("the audit database is away")
            return super().delivery_sent(delivery_id, owner, status, comment, at)

    rows = Rows([Row("pacs", path) for path in objects(3)])
    with Destination() as pacs, pytest.raises(Retriable, match="database is away"):
        deliver(GoesAway(rows.rows), (pacs.peer,), Clock())

    assert DeliveryState.SENT is rows.rows[0].state
    assert 2 == len(pacs.received)


@pytest.mark.station
def test_file_that_is_not_what_was_made_is_not_sent(objects: Objects) -> None:
    """P5: a file that was changed, or is gone, is told as lost; the object beside it arrives."""
    paths = objects(3)
    rows = Rows([Row("pacs", path) for path in paths])
    paths[0].write_bytes(paths[0].read_bytes()[:-2] + b"  ")
    paths[1].unlink()
    with Destination() as pacs:
        assert 1 == deliver(rows, (pacs.peer,), Clock())

    assert [0, 1] == rows.lost
    assert all("no longer what was made; cure:" in row.error for row in rows.rows[:2])
    assert 1 == len(pacs.received)


@pytest.mark.station
def test_refused_object_is_dead_with_its_cure(objects: Objects) -> None:
    """A peer without SR kills the SR's delivery at once, in words, and takes the KOS."""
    rows = Rows([Row("pacs", path) for path in objects(2)])
    with Destination(classes=[KOS]) as pacs:
        assert 1 == deliver(rows, (pacs.peer,), Clock())

    sr, kos = rows.rows
    assert DeliveryState.DEAD is sr.state
    assert "does not take Comprehensive SR Storage; cure: enable" in sr.error
    assert DeliveryState.SENT is kos.state


@drops_socket
@pytest.mark.station
def test_dead_destination_delays_no_other(objects: Objects) -> None:
    """Each destination has its own rows and turns."""
    (path,) = objects(1)
    rows, clock = Rows([Row("dead", path), Row("pacs", path)]), Clock()
    dead = Peer(name="dead", ae_title="DEAD", host="127.0.0.1", port=free_port(), deliver=True)
    with Destination() as pacs:
        peers = (dead, pacs.peer)
        assert 0 == deliver(rows, peers, clock, "dead")
        assert 1 == deliver(rows, peers, clock, "pacs")

    assert DeliveryState.PENDING is rows.rows[0].state
    assert "cannot be reached" in rows.rows[0].error
    assert rows.rows[0].due > clock.now


def test_destination_that_is_no_more_is_named() -> None:
    """A destination without a peer is a fault of the settings."""
    with pytest.raises(Misconfigured, match="no peer named 'gone'"):
        deliver(Rows(), (), Clock(), "gone")


@given(
    attempts=st.integers(0, 10_000),
    first_s=st.floats(0.1, 60),
    longest_s=st.floats(60, 86_400),
    jitter=st.floats(0, 1),
)
def test_waiting_grows_to_its_ceiling(
    attempts: int, first_s: float, longest_s: float, jitter: float
) -> None:
    """Never under half the first interval, never over the ceiling, never shorter than before."""
    wait_s = outbox.retry_after_s(attempts, first_s, longest_s, jitter)
    next_s = outbox.retry_after_s(attempts + 1, first_s, longest_s, jitter)

    assert first_s / 2 <= wait_s <= longest_s
    assert wait_s <= next_s


def test_waiting_doubles() -> None:
    """5, 10, 20, 40 s with no jitter, 3600 s at most."""
    waits = [outbox.retry_after_s(n, 5, 3600, 0) for n in (0, 1, 2, 3, 12)]

    assert [5, 10, 20, 40, 3600] == waits
    assert 2.5 == outbox.retry_after_s(0, 5, 3600, 1)
