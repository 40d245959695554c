"""Claims: who works on a row, until when, and how a dead process loses it.

An owner is a random id for each start of a process, never a host name: a restart under the same
name must not look alive. A claim is one conditional UPDATE. What a dead process held is released
by a sweep, at boot and every ten seconds; what a living one left behind, by its own next claim.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.database import Database
from tfkt_node.audit.schema import deliveries, objects, revisions
from tfkt_node.records import DeliveryState, ObjectState, RevisionState

OBJECT_ATTEMPTS = 3
"""Processes that may die over one object before it is FAILED."""

FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 3600.0
"""How long a delivery or an object waits when its lease was lost: doubled from loss to loss, so
that a destination slower than the lease does not get the same object again and again."""


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


def free(
    connection: sa.Connection, table: sa.Table, row_id: int, owner: str, **values: object
) -> bool:
    """Write values into the row and give up its lease; False when this process lost that."""
    freed = connection.execute(
        table.update().where(held(table, row_id, owner)).values(**values, **FREED)
    )
    return freed.rowcount == 1


class Leases(Database):
    """The sweep over leases whose time ran out."""

    def release_expired_leases(self, now: datetime, owner: str) -> int:
        """Release what dead processes held; return how many rows. Each counts as an attempt.

        owner: who asks. Its own rows are spared: it lives, and only its work takes longer than the
        lease. Revisions go back to STABLE; deliveries are due again after a while (a copy sent
        twice is one instance at the other end); an object that took OBJECT_ATTEMPTS processes with
        it is FAILED.
        """
        with self.writing() as connection:
            return sum(
                _release(connection, table, now, table.c.lease_owner != owner)
                for table in (revisions, objects, deliveries)
            )


def release_own(
    connection: sa.Connection,
    table: sa.Table,
    owner: str,
    now: datetime,
    *which: sa.ColumnElement[bool],
) -> None:
    """Release what an earlier turn of this owner left behind, with its lease run out.

    The sweep spares a living owner, so each of its claims begins with this. An owner claims one
    kind of work (`which`: to one destination) on one thread: its earlier turn is over, and ended
    without a record, as when the database was away.
    """
    _release(connection, table, now, table.c.lease_owner == owner, *which)


def _release(
    connection: sa.Connection, table: sa.Table, now: datetime, *which: sa.ColumnElement[bool]
) -> int:
    expired = connection.execute(
        sa.select(table.c.id, table.c.attempts)
        .where(table.c.lease_until < now, *which)
        .with_for_update(skip_locked=True)
    ).all()
    name = {revisions: "revision", objects: "object", deliveries: "delivery"}[table]
    told = []
    for row in sorted(expired, key=lambda row: row.id):  # not ordered by SQL: it would scan
        values = _after_loss(table, row.attempts + 1, now)
        connection.execute(table.update().where(table.c.id == row.id).values(**values, **FREED))
        detail = {"attempts": values["attempts"], "state": values["state"]}
        told.append(Event(EventKind.LEASE_RELEASED, f"{name}:{row.id}", detail))
    append(connection, now, *told)
    return len(told)


def _after_loss(table: sa.Table, attempts: int, now: datetime) -> dict[str, Any]:
    """Return the values of a row whose lease was lost. attempts: with the one that was lost."""
    if table is revisions:
        return {"attempts": attempts, "state": RevisionState.STABLE}
    wait_s = min(FIRST_WAIT_S * 2.0 ** min(attempts - 1, 64), LONGEST_WAIT_S)
    values = {"attempts": attempts, "next_attempt_at": now + timedelta(seconds=wait_s)}
    if table is deliveries:
        return {**values, "state": DeliveryState.PENDING}
    if attempts < OBJECT_ATTEMPTS:
        return {**values, "state": ObjectState.OWED}
    why = f"the process ended {OBJECT_ATTEMPTS} times while making it"
    return {"attempts": attempts, "state": ObjectState.FAILED, "error": why}
