"""Objects are made: transitions of what a verdict owes, up to a file (promise P5).

One row an object; nothing is sent before its object is BUILT.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database, storable
from tfkt_node.audit.leases import FREED, claim, due, free, release_own
from tfkt_node.audit.reading import REPORTS, assemble, report_before
from tfkt_node.audit.schema import deliveries, objects, revisions, verdicts
from tfkt_node.records import (
    ClaimedObject,
    DeliveryState,
    MadeObject,
    ObjectKind,
    ObjectState,
)

UNREADABLE_ROWS = (AttributeError, LookupError, TypeError, ValueError)
"""What reading a row raises that no longer holds what was written."""


class Objects(Database):
    """Transitions of objects."""

    def claim_object(self, owner: str, now: datetime, lease_s: float) -> ClaimedObject | None:
        """Take the oldest object that is owed, with all that its making needs.

        The objects of a series are made in the order of its revisions, since each report names the
        one before it; a FAILED one is not waited for. An object whose rows cannot be read is
        FAILED, and the next one taken.
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
        """Take the oldest object that is owed, and note the report that it names.

        That of an object which was made before stays, so that it is made the same.
        """
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
                named = report_before(connection, verdict_id, ObjectKind(kind))
                connection.execute(
                    objects.update().where(here).values(predecessor_id=named.id if named else None)
                )
            return object_id

    def _read_owed(self, object_id: int) -> ClaimedObject:
        """Read what an object is made from."""
        with self.reading() as connection:
            row = connection.execute(sa.select(objects).where(objects.c.id == object_id)).one()
            predecessor = connection.execute(
                sa.select(objects).where(objects.c.id == row.predecessor_id)
            ).first()
            record = assemble(connection, row.verdict_id, predecessor)
            return ClaimedObject(object_id, ObjectKind(row.kind), record, row.sha256)

    def object_built(
        self, object_id: int, owner: str, made: MadeObject, path: Path, at: datetime
    ) -> bool:
        """Record an object whose file is synced at `path`; its deliveries can start.

        What earlier revisions of the series still owe, as a FAILED object, is SUPERSEDED by a
        report: made later, it would arrive as the newest word on the series. What was made of them
        and waits for its next attempt is due at once, since this object waits for it.
        """
        sha256 = hashlib.sha256(made.content).hexdigest()
        with self.writing() as connection:
            is_ours = free(
                connection,
                objects,
                object_id,
                owner,
                state=ObjectState.BUILT,
                sop_class_uid=made.sop_class_uid,
                sop_instance_uid=made.sop_instance_uid,
                own_series_uid=made.series_uid,
                path=str(path),
                sha256=sha256,
                built_at=at,
                error="",
            )
            if is_ours:
                detail = {"kind": made.kind, "sha256": sha256}
                told = Event(EventKind.OBJECT_BUILT, f"object:{object_id}", detail)
                append(connection, at, told)
                if made.kind in REPORTS:
                    _supersede(connection, object_id, at)
                _let_earlier_go(connection, object_id, at)
            return is_ours

    def object_failed(self, object_id: int, owner: str, error: str, at: datetime) -> bool:
        """Record that an object cannot be made; it is retried by command only."""
        with self.writing() as connection:
            is_ours = free(
                connection,
                objects,
                object_id,
                owner,
                state=ObjectState.FAILED,
                error=storable(error),
                attempts=objects.c.attempts + 1,
            )
            if is_ours:
                told = Event(EventKind.OBJECT_FAILED, f"object:{object_id}", {"error": error})
                append(connection, at, told)
            return is_ours

    def object_retry(
        self, object_id: int, owner: str, error: str, next_attempt_at: datetime
    ) -> bool:
        """Record that an object could not be made just now; no fault of its own is counted."""
        with self.writing() as connection:
            return free(
                connection,
                objects,
                object_id,
                owner,
                state=ObjectState.OWED,
                error=storable(error),
                next_attempt_at=next_attempt_at,
            )


def _waits_for_earlier() -> sa.ColumnElement[bool]:
    """Tell whether an earlier object of the same series is owed.

    A series' revisions are decided one after another, so its objects' ids follow their order.
    """
    earlier = objects.alias("earlier")
    return sa.exists().where(
        earlier.c.series_id == objects.c.series_id,
        earlier.c.id < objects.c.id,
        earlier.c.state == ObjectState.OWED,
    )


def _let_earlier_go(connection: sa.Connection, object_id: int, at: datetime) -> None:
    this, of_series = objects.alias("this"), objects.alias("of_series")
    same_series = sa.select(of_series.c.id).where(
        this.c.id == object_id, of_series.c.series_id == this.c.series_id
    )
    connection.execute(
        deliveries.update()
        .where(
            in_state(deliveries, DeliveryState.PENDING),
            deliveries.c.object_id.in_(same_series),
            deliveries.c.next_attempt_at > at,
            deliveries.c.lease_owner.is_(None),
        )
        .values(next_attempt_at=at)
    )


def _supersede(connection: sa.Connection, object_id: int, at: datetime) -> None:
    """Close the objects of earlier revisions that were never made, and their deliveries."""
    this = connection.execute(
        sa.select(objects.c.series_id, objects.c.verdict_id, revisions.c.number)
        .join(verdicts, verdicts.c.id == objects.c.verdict_id)
        .join(revisions, revisions.c.id == verdicts.c.revision_id)
        .where(objects.c.id == object_id)
    ).one()
    why = f"superseded: the report of revision {this.number} of the series was made before it"
    closed = sorted(
        connection.scalars(
            objects.update()
            .where(
                objects.c.series_id == this.series_id,
                objects.c.id < object_id,
                objects.c.verdict_id != this.verdict_id,
                # OWED: an operator let it be tried again while the later report was being made.
                objects.c.state.in_([ObjectState.FAILED, ObjectState.OWED]),
                objects.c.built_at.is_(None),
            )
            .values(state=ObjectState.SUPERSEDED, error=why, **FREED)
            .returning(objects.c.id)
        )
    )
    if not closed:
        return
    dead = connection.scalars(
        deliveries.update()
        .where(deliveries.c.object_id.in_(closed))
        .values(state=DeliveryState.DEAD, last_error=why, next_attempt_at=None)
        .returning(deliveries.c.id)
    )
    append(
        connection,
        at,
        *(Event(EventKind.OBJECT_SUPERSEDED, f"object:{i}", {"error": why}) for i in closed),
        *(Event(EventKind.DELIVERY_DEAD, f"delivery:{i}", {"error": why}) for i in sorted(dead)),
    )
