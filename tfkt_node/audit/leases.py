"""Claims: who works on a row, until when, and how a dead process loses it.

An owner is a random id for each start of a process, never a host name: a restart under the same
name must not look alive. A claim is one conditional UPDATE. What a dead process held is released
by a sweep, at boot and every minute.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.database import Database
from tfkt_node.audit.schema import deliveries, objects, revisions
from tfkt_node.records import DeliveryState, ObjectState, RevisionState

OBJECT_ATTEMPTS = 3
"""Processes that may die over one object before it is FAILED."""


def due(table: sa.Table, now: datetime) -> sa.ColumnElement[bool]:
    """Name rows that nobody holds and whose next attempt is not in the future."""
    return sa.and_(
        table.c.lease_owner.is_(None),
        sa.or_(table.c.next_attempt_at.is_(None), table.c.next_attempt_at <= now),
    )


def claim(
    connection: sa.Connection,
    candidates: sa.Select[Any],
    table: sa.Table,
    owner: str,
    until: datetime,
    **values: object,
) -> int | None:
    """Take the lease of the first candidate that no other process is taking; return its id."""
    found: int | None = connection.scalar(
        candidates.limit(1).with_for_update(of=table, skip_locked=True)
    )
    if found is not None:
        connection.execute(
            table.update()
            .where(table.c.id == found)
            .values(lease_owner=owner, lease_until=until, **values)
        )
    return found


def held(table: sa.Table, row_id: int, owner: str) -> sa.ColumnElement[bool]:
    """Name the row, as long as this process holds it."""
    return sa.and_(table.c.id == row_id, table.c.lease_owner == owner)


FREED = {"lease_owner": None, "lease_until": None}
"""Values of the columns of a lease that nobody holds."""


class Leases(Database):
    """The sweep over leases whose time ran out."""

    def release_expired_leases(self, now: datetime) -> int:
        """Release what dead processes held; return how many rows. Each counts as an attempt.

        Revisions go back to STABLE; deliveries are due again (a copy sent twice is one instance
        at the other end); an object that took OBJECT_ATTEMPTS processes with it is FAILED.
        """
        with self.writing() as connection:
            freed = [
                *_release(connection, revisions, now, state=RevisionState.STABLE),
                *_release(connection, objects, now, **_object_after_death()),
                *_release(connection, deliveries, now, state=DeliveryState.PENDING),
            ]
            append(connection, now, *freed)
            return len(freed)


def _object_after_death() -> dict[str, sa.ColumnElement[str]]:
    last = objects.c.attempts + 1 >= OBJECT_ATTEMPTS
    why = f"the process ended {OBJECT_ATTEMPTS} times while making it"
    return {
        "state": sa.case((last, ObjectState.FAILED), else_=ObjectState.OWED),
        "error": sa.case((last, why), else_=objects.c.error),
    }


def _release(
    connection: sa.Connection, table: sa.Table, now: datetime, **values: object
) -> list[Event]:
    released = connection.execute(
        table.update()
        .where(table.c.lease_until < now)
        .values(attempts=table.c.attempts + 1, **FREED, **values)
        .returning(table.c.id, table.c.attempts, table.c.state)
    ).all()
    name = {revisions: "revision", objects: "object", deliveries: "delivery"}[table]
    return [
        Event(
            EventKind.LEASE_RELEASED,
            f"{name}:{row.id}",
            {"attempts": row.attempts, "state": row.state},
        )
        for row in sorted(released, key=lambda row: row.id)
    ]
