"""The chain of events: append-only, gapless, each with the hash of the one before (promise P9).

A hash chain in one's own database proves little against its owner: note the head (number and
hash, printed by `tfkt-node audit verify`) outside, and give it to `verify` as the anchor. That
alone shows a tail that was cut off or a chain that was made anew.

Hash of an event: SHA-256 over its fields as stored, each as UTF-8 preceded by its length in bytes
(8 bytes, big endian): seq, at (ISO 8601, UTC, microseconds), kind, subject, actor, detail,
prev_hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.columns import canonical_json
from tfkt_node.audit.database import Database, storable
from tfkt_node.audit.schema import events

GENESIS = "0" * 64
"""The prev_hash of event 1."""

CHAIN_LOCK = 0x74666B7402


class EventKind(StrEnum):
    """What the audit tells. Details name rows by their ids, never a patient or a UID."""

    REVISION_OPENED = "REVISION_OPENED"
    REVISION_CLOSED = "REVISION_CLOSED"
    REVISION_ASSESSED = "REVISION_ASSESSED"
    REVISION_NOT_ASSESSED = "REVISION_NOT_ASSESSED"
    REVISION_FAILED = "REVISION_FAILED"
    ATTEMPT_FAILED = "ATTEMPT_FAILED"
    INSTANCE_SET_ASIDE = "INSTANCE_SET_ASIDE"
    INSTANCE_CONFLICT = "INSTANCE_CONFLICT"
    SERIES_CONFLICT = "SERIES_CONFLICT"
    FILE_MISSING = "FILE_MISSING"
    OBJECT_BUILT = "OBJECT_BUILT"
    OBJECT_FAILED = "OBJECT_FAILED"
    OBJECT_RETRIED = "OBJECT_RETRIED"
    OBJECT_SUPERSEDED = "OBJECT_SUPERSEDED"
    DELIVERY_SENT = "DELIVERY_SENT"
    DELIVERY_DEAD = "DELIVERY_DEAD"
    DELIVERY_RETRIED = "DELIVERY_RETRIED"
    LEASE_RELEASED = "LEASE_RELEASED"


class ChainFault(StrEnum):
    """What is wrong with a chain, or (CONTRADICTED) with a row that it tells of."""

    BROKEN = "BROKEN"
    FORKED = "FORKED"
    GAP = "GAP"
    TRUNCATED = "TRUNCATED"
    CONTRADICTED = "CONTRADICTED"


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be told. subject: table and id, such as `revision:12`. actor: who did it."""

    kind: EventKind
    subject: str
    detail: Mapping[str, Any]
    actor: str = "node"


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What `verify` found.

    events: rows that hold, counted from the first. head: hash of the last row that holds.
    fault: None when all is well. first_bad: number of the first event that does not hold.
    """

    events: int
    head: str
    fault: ChainFault | None
    first_bad: int | None
    message: str

    @property
    def holds(self) -> bool:
        """True when nothing is wrong."""
        return self.fault is None


def event_hash(*fields: str) -> str:
    """Return the hash of one event from its fields as text, in the order above: 64 hex digits."""
    total = hashlib.sha256()
    for field in fields:
        data = field.encode()
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def append(connection: sa.Connection, at: datetime, *new: Event) -> None:
    """Append events inside the caller's transaction, which must be a writing one.

    Reading the head and inserting after it happen under one lock that is held until the commit:
    SQLite's write lock, PostgreSQL's advisory lock. So call this last in a transaction.
    """
    if not new:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CHAIN_LOCK)))
    newest = sa.select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)
    head = connection.execute(newest).first()
    seq, prev_hash = (head.seq, head.hash) if head else (0, GENESIS)
    rows = []
    for event in new:
        seq += 1
        row = {
            "kind": str(event.kind),
            "subject": event.subject,
            "actor": storable(event.actor),
            "detail": canonical_json(event.detail),
            "prev_hash": prev_hash,
        }
        prev_hash = event_hash(str(seq), _stamp(at), *row.values())
        rows.append({"seq": seq, "at": at, **row, "hash": prev_hash})
    connection.execute(events.insert(), rows)


def verify(store: Database, anchor: tuple[int, str] | None = None) -> ChainReport:
    """Read the whole chain and tell whether it holds, or the first event that does not and why.

    anchor: number and hash of a head noted outside.
    """
    count, head = 0, GENESIS
    in_order = sa.select(events).order_by(events.c.seq, events.c.hash)
    with (
        store.reading() as connection,
        connection.execution_options(yield_per=1000).execute(in_order) as rows,
    ):
        for row in rows:
            fault = _fault_of(connection, row, count, head)
            if fault is None and anchor and row.seq == anchor[0] and row.hash != anchor[1]:
                fault = ChainFault.BROKEN, "it is not the one noted outside: the chain was remade"
            if fault is not None:
                kind, why = fault
                return ChainReport(count, head, kind, row.seq, f"event {row.seq}: {why}")
            count, head = row.seq, row.hash
    if anchor and count < anchor[0]:
        why = f"the chain ends at event {count}; event {anchor[0]} was noted outside"
        return ChainReport(count, head, ChainFault.TRUNCATED, count + 1, why)
    return ChainReport(count, head, None, None, f"{count} events hold; head {head}")


def _fault_of(
    connection: sa.Connection, row: Any, count: int, head: str
) -> tuple[ChainFault, str] | None:
    """Tell what is wrong with the row that comes after event `count` with hash `head`."""
    if row.seq != count + 1 or row.prev_hash != head:
        siblings = sa.select(events.c.seq).where(events.c.prev_hash == row.prev_hash)
        numbers = sorted(connection.scalars(siblings))
        if len(numbers) > 1:
            return ChainFault.FORKED, f"events {numbers} follow the same event"
    if row.seq != count + 1:
        return ChainFault.GAP, f"the event before it has number {count}; events are missing"
    if row.prev_hash != head:
        return ChainFault.BROKEN, "it does not carry the hash of the event before it"
    told = (row.kind, row.subject, row.actor, row.detail, row.prev_hash)
    if event_hash(str(row.seq), _stamp(row.at), *told) != row.hash:
        return ChainFault.BROKEN, "its fields do not give its hash: it was changed"
    return None
