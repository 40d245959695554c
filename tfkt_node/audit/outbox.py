"""Objects are delivered: transitions of what a verdict owes to each destination (promise P5).

One row a delivery; it can be claimed only when its object is BUILT.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database, storable
from tfkt_node.audit.leases import FREED, claim, due, free, held, release_own
from tfkt_node.audit.schema import deliveries, objects
from tfkt_node.records import RETRY_DELIVERIES, ClaimedDelivery, DeliveryState, ObjectState

WAITED_FOR_ATTEMPTS = 10
"""A destination that refuses one object again and again must not keep a series' later word back."""


class Outbox(Database):
    """Transitions of deliveries, and the operator's retry."""

    def claim_delivery(
        self, owner: str, destination: str, now: datetime, lease_s: float
    ) -> ClaimedDelivery | None:
        """Take the delivery to a destination that has been due for longest.

        The objects of a series go out in the order of its revisions: sent later, an older report
        would pass for the newest word on it.
        """
        candidates = (
            sa.select(deliveries.c.id)
            .join(objects)
            .where(
                deliveries.c.destination == destination,
                in_state(deliveries, DeliveryState.PENDING),
                due(deliveries, now),
                objects.c.state == ObjectState.BUILT,
                ~earlier_pending().exists(),
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
                    objects.c.sha256,
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
                sha256=row.sha256,
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

    def delivery_lost(self, delivery_id: int, owner: str, error: str, at: datetime) -> bool:
        """Record that the file of an object is lost: the object is FAILED, and retried by command.

        Its deliveries wait for it. error: with the cure.
        """
        with self.writing() as connection:
            object_id = connection.execute(
                deliveries.update()
                .where(held(deliveries, delivery_id, owner))
                .values(**FREED)
                .returning(deliveries.c.object_id)
            ).scalar()
            if object_id is None:
                return False
            failed = connection.execute(
                objects.update()
                .where(objects.c.id == object_id, objects.c.state == ObjectState.BUILT)
                .values(state=ObjectState.FAILED, error=storable(error))
            )
            if failed.rowcount == 1:
                told = Event(EventKind.OBJECT_FAILED, f"object:{object_id}", {"error": error})
                append(connection, at, told)
            return True

    def _end_delivery(
        self, delivery_id: int, owner: str, values: dict[str, Any], at: datetime, *told: Event
    ) -> bool:
        with self.writing() as connection:
            counted = deliveries.c.attempts + 1
            is_ours = free(connection, deliveries, delivery_id, owner, attempts=counted, **values)
            if is_ours:
                append(connection, at, *told)
            return is_ours

    def delivery_left(
        self, delivery_id: int, owner: str, why: str, next_attempt_at: datetime
    ) -> bool:
        """Give back a delivery that was not tried; no attempt is counted."""
        with self.writing() as connection:
            return free(
                connection,
                deliveries,
                delivery_id,
                owner,
                last_error=storable(why),
                next_attempt_at=next_attempt_at,
            )

    def deliveries_due(self, destination: str, error_begins: str, now: datetime) -> int:
        """Make due at once what waits for its next attempt with such an error; return how many."""
        waiting = (
            in_state(deliveries, DeliveryState.PENDING),
            deliveries.c.destination == destination,
            deliveries.c.next_attempt_at > now,
            deliveries.c.lease_owner.is_(None),
            deliveries.c.last_error.startswith(error_begins, autoescape=True),
        )
        with self.writing() as connection:
            return connection.execute(
                deliveries.update().where(*waiting).values(next_attempt_at=now)
            ).rowcount

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
                    " has deliver = true in the settings; cure: add it, restart the node, then "
                    f"run {RETRY_DELIVERIES}"
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

        A PENDING delivery that waits for its next attempt is due at once. which: a delivery, a
        destination, or None for all. Their attempts are counted anew. What is SUPERSEDED stays so.
        """
        chosen: sa.ColumnElement[bool] = sa.true()
        if which is not None:
            column = deliveries.c.destination if isinstance(which, str) else deliveries.c.id
            chosen = column == which
        failed: sa.ColumnElement[bool] = objects.c.state == ObjectState.FAILED
        if which is not None:
            failed &= objects.c.id.in_(sa.select(deliveries.c.object_id).where(chosen))
        superseded = sa.select(objects.c.id).where(objects.c.state == ObjectState.SUPERSEDED)
        dead = sa.and_(
            deliveries.c.state == DeliveryState.DEAD, deliveries.c.object_id.not_in(superseded)
        )
        waiting = sa.and_(
            in_state(deliveries, DeliveryState.PENDING),
            deliveries.c.next_attempt_at > now,
            deliveries.c.lease_owner.is_(None),
        )
        with self.writing() as connection:
            owed = _revive(connection, objects, failed, state=ObjectState.OWED)
            pending = _revive(
                connection,
                deliveries,
                sa.and_(chosen, sa.or_(dead, waiting)),
                state=DeliveryState.PENDING,
                next_attempt_at=now,
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


def earlier_pending() -> sa.Select[Any]:
    """Select the deliveries, to the same destination, that a delivery and its object wait for.

    They are PENDING, of an earlier verdict on the same series. One whose object is FAILED, or that
    was tried often, is not waited for: nobody knows whether it will ever be made, or be taken.
    """
    earlier, its_object = deliveries.alias("earlier"), objects.alias("its_object")
    return (
        sa.select(earlier.c.id)
        .join_from(its_object, earlier)
        .where(
            its_object.c.series_id == objects.c.series_id,
            # A series' revisions are decided one after another, so ids follow their order.
            its_object.c.id < objects.c.id,
            its_object.c.verdict_id != objects.c.verdict_id,
            its_object.c.state.in_([ObjectState.OWED, ObjectState.BUILT]),
            earlier.c.destination == deliveries.c.destination,
            earlier.c.state == DeliveryState.PENDING,
            earlier.c.attempts < WAITED_FOR_ATTEMPTS,
        )
        .correlate(objects, deliveries)
    )


def _revive(
    connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool], **values: Any
) -> list[int]:
    """Let rows be tried anew, and return their ids."""
    revived = connection.scalars(
        table.update().where(condition).values(attempts=0, **values).returning(table.c.id)
    )
    return sorted(revived)
