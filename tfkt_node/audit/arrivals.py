"""Instances come in, and a quiet series is closed: transitions up to a STABLE revision.

The row of a series is locked while one of its instances is indexed or its revision is closed, so
that an arrival is either in the frozen list or opens the next revision (promises P3, P4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.database import Database, insert_once, storable
from tfkt_node.audit.schema import (
    associations,
    instances,
    revision_instances,
    revisions,
    series,
)
from tfkt_node.records import (
    CT_CLASSES,
    AssociationEnd,
    InstanceHeader,
    InstanceState,
    Reason,
    RevisionState,
    StoredInstance,
)


class IndexResult(StrEnum):
    """What indexing an instance came to."""

    NEW = "NEW"
    DUPLICATE = "DUPLICATE"
    SET_ASIDE = "SET_ASIDE"


@dataclass(frozen=True, slots=True)
class QuietRevision:
    """An OPEN revision that has been quiet long enough. Close it with both values."""

    revision_id: int
    last_arrival_at: datetime


class Arrivals(Database):
    """Transitions of associations, instances and OPEN revisions."""

    def open_association(
        self, association_id: str, calling_ae: str, called_ae: str, address: str, at: datetime
    ) -> bool:
        """Record an association that was accepted."""
        with self.writing() as connection:
            return insert_once(
                connection,
                associations,
                id=association_id,
                calling_ae=storable(calling_ae),
                called_ae=storable(called_ae),
                address=address,
                opened_at=at,
            )

    def end_association(self, association_id: str, how: AssociationEnd, at: datetime) -> bool:
        """Record how an association ended, once."""
        with self.writing() as connection:
            ended = connection.execute(
                associations.update()
                .where(associations.c.id == association_id, associations.c.ended_at.is_(None))
                .values(ended_at=at, how=how)
            )
            return ended.rowcount == 1

    def index_instance(
        self, instance: StoredInstance, header: InstanceHeader, now: datetime
    ) -> IndexResult:
        """Give a stored instance its row, and its series an OPEN revision that waits anew.

        The same digest again makes nothing new; it only prolongs an OPEN revision's wait. An
        instance that is no CT image, or that this node made, is set aside.
        """
        reason = None
        if header.made_by_this_node:
            reason = Reason.OWN_OBJECT
        elif instance.sop_class_uid not in CT_CLASSES:
            reason = Reason.NOT_CT
        with self.writing() as connection:
            if reason is not None:
                return _set_aside(connection, instance, header, reason, now)
            series_id, told = _lock_series(connection, instance, header, now)
            row = _instance_row(instance, header, now)
            if not insert_once(
                connection, instances, **row, series_id=series_id, state=InstanceState.INDEXED
            ):
                _arrive_again(connection, instance, series_id, now)
                return IndexResult.DUPLICATE
            told += _conflicts(connection, instance, series_id)
            told += _arrive(connection, series_id, now)
            append(connection, now, *told)
            return IndexResult.NEW

    def known_digests(self) -> set[str]:
        """Return the digests of all instances that have a row."""
        with self.reading() as connection:
            return set(connection.scalars(sa.select(instances.c.digest)))

    def record_missing_file(self, digest: str, at: datetime) -> bool:
        """Record, once, that the file of an instance is gone from the spool."""
        with self.writing() as connection:
            missing = connection.execute(
                instances.update()
                .where(instances.c.digest == digest, instances.c.missing_since.is_(None))
                .values(missing_since=at)
                .returning(instances.c.id)
            ).scalar()
            if missing is not None:
                append(connection, at, Event(EventKind.FILE_MISSING, f"instance:{missing}", {}))
            return missing is not None

    def restart_quiet_periods(self, now: datetime) -> int:
        """Let every OPEN revision wait anew, for nothing could arrive while the node was down."""
        with self.writing() as connection:
            restarted = connection.execute(
                revisions.update()
                .where(revisions.c.state == RevisionState.OPEN)
                .values(quiet_since=now)
            )
            return restarted.rowcount

    def quiet_revisions(self, now: datetime, quiet_s: float) -> list[QuietRevision]:
        """Return the OPEN revisions without an arrival for `quiet_s` seconds, oldest first."""
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(revisions.c.id, revisions.c.last_arrival_at)
                .where(
                    revisions.c.state == RevisionState.OPEN,
                    revisions.c.quiet_since <= now - timedelta(seconds=quiet_s),
                )
                .order_by(revisions.c.last_arrival_at, revisions.c.id)
            )
            return [QuietRevision(row.id, row.last_arrival_at) for row in rows]

    def close_revision(self, revision_id: int, last_arrival_at: datetime, now: datetime) -> bool:
        """Freeze the list of an OPEN revision with the evidence, unless an instance came meanwhile.

        The list holds the latest received version of every SOP Instance UID of the series, by
        instance number, then UID.
        """
        with self.writing() as connection:
            found = connection.execute(
                sa.select(revisions.c.series_id, revisions.c.quiet_since)
                .join(series)
                .where(revisions.c.id == revision_id)
                .with_for_update(of=series)
            ).first()
            closed = connection.execute(
                revisions.update()
                .where(
                    revisions.c.id == revision_id,
                    revisions.c.state == RevisionState.OPEN,
                    revisions.c.last_arrival_at == last_arrival_at,
                )
                .values(state=RevisionState.STABLE, closed_at=now)
            )
            if found is None or closed.rowcount == 0:
                return False
            listed = _freeze(connection, revision_id, found.series_id)
            evidence = {
                "instances": len(listed),
                "expected_count": max((row.expected_count or 0 for row in listed), default=0)
                or None,
                "last_arrival_at": last_arrival_at.isoformat(),
                "quiet_s": round((now - found.quiet_since).total_seconds(), 3),
                "associations": _associations_of(connection, revision_id),
            }
            connection.execute(
                revisions.update().where(revisions.c.id == revision_id).values(evidence=evidence)
            )
            detail = {key: evidence[key] for key in ("instances", "expected_count", "quiet_s")}
            append(
                connection,
                now,
                Event(EventKind.REVISION_CLOSED, f"revision:{revision_id}", detail),
            )
            return True


def _instance_row(
    instance: StoredInstance, header: InstanceHeader, now: datetime
) -> dict[str, Any]:
    return {
        "digest": instance.digest,
        "path": str(instance.path),
        "size_bytes": instance.size_bytes,
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "calling_ae": storable(instance.calling_ae),
        "association_id": instance.association_id,
        "received_at": instance.received_at,
        "indexed_at": now,
        "instance_number": header.instance_number,
        "expected_count": header.expected_count,
    }


def _set_aside(
    connection: sa.Connection,
    instance: StoredInstance,
    header: InstanceHeader,
    reason: Reason,
    now: datetime,
) -> IndexResult:
    row = _instance_row(instance, header, now)
    if insert_once(connection, instances, **row, state=InstanceState.SET_ASIDE, reason=reason):
        told = _conflicts(connection, instance, None)
        subject = f"instance:{_id_of(connection, instance.digest)}"
        told.append(Event(EventKind.INSTANCE_SET_ASIDE, subject, {"reason": reason}))
        append(connection, now, *told)
    else:
        _found_again(connection, instance.digest)
    return IndexResult.SET_ASIDE


def _lock_series(
    connection: sa.Connection, instance: StoredInstance, header: InstanceHeader, now: datetime
) -> tuple[int, list[Event]]:
    """Lock the row of the instance's series, made if it is the first; return its id and events."""
    key = {
        "patient_id": storable(header.patient_id),
        "study_uid": storable(header.study_uid),
        "series_uid": storable(header.series_uid),
    }
    locked = (
        sa.select(series.c.id, series.c.calling_ae)
        .where(*(series.c[name] == value for name, value in key.items()))
        .with_for_update()
    )
    found = connection.execute(locked).first()
    calling_ae = storable(instance.calling_ae)
    if found is not None:
        if found.calling_ae != calling_ae:
            connection.execute(
                series.update().where(series.c.id == found.id).values(calling_ae=calling_ae)
            )
        return found.id, []
    made = insert_once(
        connection,
        series,
        **key,
        modality=storable(header.modality),
        accession_number=storable(header.accession_number),
        study_date=storable(header.study_date),
        series_description=storable(header.series_description),
        calling_ae=calling_ae,
        attributes=header.attributes,
        created_at=now,
    )
    series_id = connection.execute(locked).one().id
    same_uid = sa.select(series.c.id).where(
        series.c.series_uid == key["series_uid"], series.c.id != series_id
    )
    others = sorted(connection.scalars(same_uid)) if made else []
    detail = {"what": "another patient or study under a known series UID", "others": others}
    conflict = Event(EventKind.SERIES_CONFLICT, f"series:{series_id}", detail)
    return series_id, [conflict] if others else []


def _conflicts(
    connection: sa.Connection, instance: StoredInstance, series_id: int | None
) -> list[Event]:
    """Tell of other bytes under the SOP Instance UID of an instance that was just inserted."""
    rows = connection.execute(
        sa.select(instances.c.id, instances.c.series_id)
        .where(
            instances.c.sop_instance_uid == instance.sop_instance_uid,
            instances.c.digest != instance.digest,
        )
        .order_by(instances.c.id)
    ).all()
    if not rows:
        return []
    detail = {
        "what": "other bytes under a known SOP Instance UID",
        "others": [row.id for row in rows],
        "same_series": all(row.series_id == series_id for row in rows),
    }
    subject = f"instance:{_id_of(connection, instance.digest)}"
    return [Event(EventKind.INSTANCE_CONFLICT, subject, detail)]


def _id_of(connection: sa.Connection, digest: str) -> int:
    found = sa.select(instances.c.id).where(instances.c.digest == digest)
    return int(connection.execute(found).scalar_one())


def _bump(connection: sa.Connection, series_id: int, now: datetime) -> bool:
    """Let the OPEN revision of a series wait anew; tell whether there is one."""
    bumped = connection.execute(
        revisions.update()
        .where(revisions.c.series_id == series_id, revisions.c.state == RevisionState.OPEN)
        .values(last_arrival_at=now, quiet_since=now)
    )
    return bumped.rowcount == 1


def _arrive(connection: sa.Connection, series_id: int, now: datetime) -> list[Event]:
    """Let the OPEN revision of a series wait anew, opened as the next number if there is none."""
    if _bump(connection, series_id, now):
        return []
    newest = sa.select(sa.func.max(revisions.c.number)).where(revisions.c.series_id == series_id)
    number = (connection.execute(newest).scalar() or 0) + 1
    revision_id = connection.execute(
        revisions.insert()
        .values(
            series_id=series_id,
            number=number,
            state=RevisionState.OPEN,
            opened_at=now,
            last_arrival_at=now,
            quiet_since=now,
        )
        .returning(revisions.c.id)
    ).scalar_one()
    detail = {"series": series_id, "number": number}
    return [Event(EventKind.REVISION_OPENED, f"revision:{revision_id}", detail)]


def _found_again(connection: sa.Connection, digest: str) -> bool:
    """Forget that a file was missing; tell whether it was."""
    found = connection.execute(
        instances.update()
        .where(instances.c.digest == digest, instances.c.missing_since.is_not(None))
        .values(missing_since=None)
    )
    return found.rowcount == 1


def _arrive_again(
    connection: sa.Connection, instance: StoredInstance, series_id: int, now: datetime
) -> None:
    """Let a duplicate prolong the wait; one whose file had been lost counts as an arrival."""
    if _found_again(connection, instance.digest):
        append(connection, now, *_arrive(connection, series_id, now))
    else:
        _bump(connection, series_id, now)


def _freeze(connection: sa.Connection, revision_id: int, series_id: int) -> Sequence[Any]:
    """Write the list of a revision and return its rows in order."""
    versions = connection.execute(
        sa.select(
            instances.c.id,
            instances.c.sop_instance_uid,
            instances.c.instance_number,
            instances.c.expected_count,
        )
        .where(instances.c.series_id == series_id)
        .order_by(instances.c.received_at, instances.c.id)
    ).all()
    latest = {row.sop_instance_uid: row for row in versions}
    # Sorted here, because databases collate text differently.
    listed = sorted(
        latest.values(),
        key=lambda row: (
            row.instance_number is None,
            row.instance_number or 0,
            row.sop_instance_uid,
        ),
    )
    connection.execute(
        revision_instances.insert(),
        [
            {"revision_id": revision_id, "position": position, "instance_id": row.id}
            for position, row in enumerate(listed)
        ],
    )
    return listed


def _associations_of(connection: sa.Connection, revision_id: int) -> list[dict[str, Any]]:
    """Return the associations that brought a revision's instances, and how each ended."""
    rows = connection.execute(
        sa.select(instances.c.association_id, associations.c.how, sa.func.count().label("brought"))
        .select_from(revision_instances)
        .join(instances)
        .outerjoin(associations, associations.c.id == instances.c.association_id)
        .where(revision_instances.c.revision_id == revision_id)
        .group_by(instances.c.association_id, associations.c.how)
    ).all()
    return sorted(
        ({"id": row.association_id, "how": row.how, "instances": row.brought} for row in rows),
        key=lambda item: str(item["id"]),
    )
