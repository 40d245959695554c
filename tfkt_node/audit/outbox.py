"""Objects are made and delivered: transitions of what a verdict owes (promise P5).

One row an object, one row a delivery; a row leaves its state once. An object's delivery can be
claimed only when the object is BUILT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database, storable
from tfkt_node.audit.leases import FREED, claim, due, held, release_own
from tfkt_node.audit.reading import REPORTS, assemble, newest_earlier_report
from tfkt_node.audit.schema import (
    deliveries,
    objects,
)
from tfkt_node.records import (
    ClaimedDelivery,
    ClaimedObject,
    DeliveryState,
    MadeObject,
    ObjectKind,
    ObjectState,
)

UNREADABLE_ROWS = (AttributeError, LookupError, TypeError, ValueError)
"""What reading a row raises that no longer holds what was written."""


class Outbox(Database):
    """Transitions of objects and deliveries."""

    def claim_object(self, owner: str, now: datetime, lease_s: float) -> ClaimedObject | None:
        """Take the oldest object that is owed, with all that its making needs.

        The reports of a series are made in the order of its revisions, since each names the one
        before it; a FAILED one is not waited for. An object whose rows cannot be read is FAILED,
        and the next one taken.
        """
        while (object_id := self._take_object(owner, now, lease_s)) is not None:
            try:
                return self._read_owed(object_id)
            except UNREADABLE_ROWS as error:
                # No text of the error: values of the rows may stand in it (P10).
                what = f"the rows of its verdict cannot be read ({type(error).__name__})"
                self.object_failed(object_id, owner, what, now)
        return None

    def _take_object(self, owner: str, now: datetime, lease_s: float) -> int | None:
        """Take the oldest object that is owed, and fix the report that it names."""
        candidates = (
            sa.select(objects.c.id)
            .where(in_state(objects, ObjectState.OWED), due(objects, now), ~_waits_for_earlier())
            .order_by(objects.c.id)
        )
        with self.writing() as connection:
            until = now + timedelta(seconds=lease_s)
            release_own(connection, objects, owner, now)
            object_id = claim(connection, candidates, objects, owner, until)
            if object_id is not None:
                here = objects.c.id == object_id
                verdict_id, kind = connection.execute(
                    sa.select(objects.c.verdict_id, objects.c.kind).where(here)
                ).one()
                predecessor = newest_earlier_report(connection, verdict_id, ObjectKind(kind))
                named = predecessor.id if predecessor else None
                connection.execute(objects.update().where(here).values(predecessor_id=named))
            return object_id

    def _read_owed(self, object_id: int) -> ClaimedObject:
        """Read what an object is made from."""
        with self.reading() as connection:
            row = connection.execute(
                sa.select(objects.c.kind, objects.c.verdict_id, objects.c.predecessor_id).where(
                    objects.c.id == object_id
                )
            ).one()
            predecessor = connection.execute(
                sa.select(objects).where(objects.c.id == row.predecessor_id)
            ).first()
            record = assemble(connection, row.verdict_id, predecessor)
            return ClaimedObject(object_id, ObjectKind(row.kind), record)

    def object_built(
        self, object_id: int, owner: str, made: MadeObject, path: Path, at: datetime
    ) -> bool:
        """Record an object whose file is synced at `path`; its deliveries can start."""
        sha256 = hashlib.sha256(made.content).hexdigest()
        with self.writing() as connection:
            built = connection.execute(
                objects.update()
                .where(held(objects, object_id, owner))
                .values(
                    state=ObjectState.BUILT,
                    sop_class_uid=made.sop_class_uid,
                    sop_instance_uid=made.sop_instance_uid,
                    own_series_uid=made.series_uid,
                    path=str(path),
                    sha256=sha256,
                    built_at=at,
                    error="",
                    **FREED,
                )
            )
            if built.rowcount == 1:
                detail = {"kind": made.kind, "sha256": sha256}
                append(connection, at, Event(EventKind.OBJECT_BUILT, f"object:{object_id}", detail))
            return built.rowcount == 1

    def object_failed(self, object_id: int, owner: str, error: str, at: datetime) -> bool:
        """Record that an object cannot be made; it is retried by command only."""
        with self.writing() as connection:
            failed = connection.execute(
                objects.update()
                .where(held(objects, object_id, owner))
                .values(
                    state=ObjectState.FAILED,
                    error=storable(error),
                    attempts=objects.c.attempts + 1,
                    **FREED,
                )
            )
            if failed.rowcount == 1:
                told = Event(EventKind.OBJECT_FAILED, f"object:{object_id}", {"error": error})
                append(connection, at, told)
            return failed.rowcount == 1

    def object_retry(
        self, object_id: int, owner: str, error: str, next_attempt_at: datetime
    ) -> bool:
        """Record that an object could not be made just now; no fault of its own is counted."""
        with self.writing() as connection:
            later = connection.execute(
                objects.update()
                .where(held(objects, object_id, owner))
                .values(
                    state=ObjectState.OWED,
                    error=storable(error),
                    next_attempt_at=next_attempt_at,
                    **FREED,
                )
            )
            return later.rowcount == 1

    def claim_delivery(
        self, owner: str, destination: str, now: datetime, lease_s: float
    ) -> ClaimedDelivery | None:
        """Take the delivery to a destination that has been due for longest."""
        candidates = (
            sa.select(deliveries.c.id)
            .join(objects)
            .where(
                deliveries.c.destination == destination,
                in_state(deliveries, DeliveryState.PENDING),
                due(deliveries, now),
                objects.c.state == ObjectState.BUILT,
            )
            .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
        )
        with self.writing() as connection:
            until = now + timedelta(seconds=lease_s)
            this_one = deliveries.c.destination == destination
            release_own(connection, deliveries, owner, now, this_one)
            delivery_id = claim(connection, candidates, deliveries, owner, until)
            if delivery_id is None:
                return None
            row = connection.execute(
                sa.select(
                    deliveries.c.attempts,
                    objects.c.sop_class_uid,
                    objects.c.sop_instance_uid,
                    objects.c.path,
                )
                .join(objects)
                .where(deliveries.c.id == delivery_id)
            ).one()
            return ClaimedDelivery(
                delivery_id=delivery_id,
                destination=destination,
                attempts=row.attempts,
                sop_class_uid=row.sop_class_uid,
                sop_instance_uid=row.sop_instance_uid,
                path=Path(row.path),
            )

    def delivery_sent(
        self, delivery_id: int, owner: str, status: int, comment: str, at: datetime
    ) -> bool:
        """Record that the destination has the object. status: of the C-STORE response."""
        values = {
            "state": DeliveryState.SENT,
            "sent_at": at,
            "next_attempt_at": None,
            "status": status,
            "comment": storable(comment),
            "last_error": "",
        }
        told = Event(EventKind.DELIVERY_SENT, f"delivery:{delivery_id}", {"status": status})
        return self._end_delivery(delivery_id, owner, values, at, told)

    def delivery_retry(
        self, delivery_id: int, owner: str, error: str, next_attempt_at: datetime, at: datetime
    ) -> bool:
        """Record an attempt that failed; the delivery is due again at `next_attempt_at`."""
        values = {"last_error": storable(error), "next_attempt_at": next_attempt_at}
        return self._end_delivery(delivery_id, owner, values, at)

    def delivery_dead(self, delivery_id: int, owner: str, error: str, at: datetime) -> bool:
        """Record that a delivery can never work as things stand. error: with the cure."""
        values = {"state": DeliveryState.DEAD, "last_error": storable(error)}
        told = Event(EventKind.DELIVERY_DEAD, f"delivery:{delivery_id}", {"error": error})
        return self._end_delivery(delivery_id, owner, values, at, told)

    def _end_delivery(
        self, delivery_id: int, owner: str, values: dict[str, Any], at: datetime, *told: Event
    ) -> bool:
        with self.writing() as connection:
            ended = connection.execute(
                deliveries.update()
                .where(held(deliveries, delivery_id, owner))
                .values(attempts=deliveries.c.attempts + 1, **values, **FREED)
            )
            if ended.rowcount == 1:
                append(connection, at, *told)
            return ended.rowcount == 1

    def end_orphaned_deliveries(self, destinations: Sequence[str], at: datetime) -> int:
        """Make PENDING deliveries to other than these destinations DEAD; return how many.

        Nobody would send them: their peer was removed from the settings or renamed. One that a
        process holds is left alone.
        """
        orphaned = (
            deliveries.update()
            .where(
                in_state(deliveries, DeliveryState.PENDING),
                deliveries.c.destination.not_in(destinations),
                deliveries.c.lease_owner.is_(None),
            )
            .values(
                state=DeliveryState.DEAD,
                last_error=sa.literal("no peer named ")
                + deliveries.c.destination
                + sa.literal(
                    " has deliver = true in the settings; add it, then run tfkt-node deliveries "
                    "retry"
                ),
            )
            .returning(deliveries.c.id, deliveries.c.last_error)
        )
        with self.writing() as connection:
            ended = sorted(tuple(row) for row in connection.execute(orphaned))
            told = [
                Event(EventKind.DELIVERY_DEAD, f"delivery:{number}", {"error": error})
                for number, error in ended
            ]
            append(connection, at, *told)
            return len(ended)

    def retry_deliveries(
        self, which: int | str | None, actor: str, reason: str, now: datetime
    ) -> int:
        """Make DEAD deliveries PENDING and FAILED objects OWED again; return how many rows.

        which: a delivery, a destination, or None for all. Their attempts are counted anew.
        """
        chosen: sa.ColumnElement[bool] = sa.true()
        if which is not None:
            column = deliveries.c.destination if isinstance(which, str) else deliveries.c.id
            chosen = column == which
        failed: sa.ColumnElement[bool] = objects.c.state == ObjectState.FAILED
        if which is not None:
            failed &= objects.c.id.in_(sa.select(deliveries.c.object_id).where(chosen))
        dead = sa.and_(deliveries.c.state == DeliveryState.DEAD, chosen)
        with self.writing() as connection:
            owed = _revive(connection, objects, failed, state=ObjectState.OWED)
            pending = _revive(
                connection, deliveries, dead, state=DeliveryState.PENDING, next_attempt_at=now
            )
            told = [
                *(
                    Event(EventKind.OBJECT_RETRIED, f"object:{i}", {"reason": reason}, actor)
                    for i in owed
                ),
                *(
                    Event(EventKind.DELIVERY_RETRIED, f"delivery:{i}", {"reason": reason}, actor)
                    for i in pending
                ),
            ]
            append(connection, now, *told)
            return len(told)


def _revive(
    connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool], **values: Any
) -> list[int]:
    """Let rows be tried anew, and return their ids."""
    revived = connection.scalars(
        table.update().where(condition).values(attempts=0, **values).returning(table.c.id)
    )
    return sorted(revived)


def _waits_for_earlier() -> sa.ColumnElement[bool]:
    """Tell whether an earlier report of the same series is owed.

    A series' revisions are decided one after another, so its objects' ids follow their order.
    """
    earlier = objects.alias("earlier")
    return sa.exists().where(
        earlier.c.series_id == objects.c.series_id,
        earlier.c.id < objects.c.id,
        earlier.c.kind.in_(REPORTS),
        earlier.c.state == ObjectState.OWED,
    )
