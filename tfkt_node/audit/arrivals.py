"""Instances come in: transitions of associations and instances up to an OPEN revision.

The row of a series is locked while one of its instances is indexed or its revision is closed, so
that an arrival is either in the frozen list or opens the next revision (promises P3, P4).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database, indexable, insert_once, storable
from tfkt_node.audit.schema import (
    associations,
    instances,
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

LONGEST_ASSOCIATION = timedelta(days=1)
"""An association that another node opened longer ago is held to be lost."""


class IndexResult(StrEnum):
    """What indexing an instance came to."""

    NEW = "NEW"
    DUPLICATE = "DUPLICATE"
    SET_ASIDE = "SET_ASIDE"


class Arrivals(Database):
    """Transitions of associations and instances."""

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

    def end_lost_associations(self, started_at: datetime, at: datetime) -> int:
        """Record as LOST the associations that a node left open when it died; return how many.

        started_at: when this node started. SQLite is one node's own, so that all opened before are
        lost. On PostgreSQL another node may hold them: there, those opened a day before it.
        """
        with self.writing() as connection:
            alone = connection.dialect.name == "sqlite"
            before = started_at if alone else started_at - LONGEST_ASSOCIATION
            lost = connection.execute(
                associations.update()
                .where(associations.c.ended_at.is_(None), associations.c.opened_at < before)
                .values(ended_at=at, how=AssociationEnd.LOST)
            )
            return lost.rowcount

    def index_instance(
        self, instance: StoredInstance, header: InstanceHeader, now: datetime
    ) -> IndexResult:
        """Give a stored instance its row, and its series an OPEN revision that waits anew.

        The same digest again changes nothing, unless its file had been lost: then it counts as an
        arrival. An instance that is no CT image, or that this node made, is set aside.
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
                if _found_again(connection, instance.digest):
                    append(connection, now, *_arrive(connection, series_id, now))
                return IndexResult.DUPLICATE
            if _corrects(connection, instance, series_id):
                connection.execute(
                    series.update().where(series.c.id == series_id).values(_copied(header))
                )
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


def _copied(header: InstanceHeader) -> dict[str, Any]:
    """Return what a series copies of the header of one of its instances."""
    return {
        "modality": storable(header.modality),
        "accession_number": indexable(header.accession_number),
        "study_date": storable(header.study_date),
        "series_description": storable(header.series_description),
        "attributes": header.attributes,
    }


def _corrects(connection: sa.Connection, instance: StoredInstance, series_id: int) -> bool:
    """Tell whether an instance just inserted is the latest received of several versions."""
    others = sa.select(sa.func.max(instances.c.received_at)).where(
        instances.c.series_id == series_id,
        instances.c.sop_instance_uid == instance.sop_instance_uid,
        instances.c.digest != instance.digest,
    )
    latest: datetime | None = connection.execute(others).scalar()
    return latest is not None and instance.received_at >= latest


def _lock_series(
    connection: sa.Connection, instance: StoredInstance, header: InstanceHeader, now: datetime
) -> tuple[int, list[Event]]:
    """Lock the row of the instance's series, made if it is the first; return its id and events."""
    key = {
        "patient_id": indexable(header.patient_id),
        "study_uid": indexable(header.study_uid),
        "series_uid": indexable(header.series_uid),
    }
    locked = (
        sa.select(series.c.id, series.c.calling_ae)
        .where(*(series.c[name] == value for name, value in key.items()))
        .with_for_update()
    )
    found = connection.execute(locked).first()
    calling_ae = storable(instance.calling_ae)  # '' when rebuilt from a file
    if found is not None:
        if calling_ae and found.calling_ae != calling_ae:
            connection.execute(
                series.update().where(series.c.id == found.id).values(calling_ae=calling_ae)
            )
        return found.id, []
    made = insert_once(
        connection,
        series,
        **key,
        **_copied(header),
        calling_ae=calling_ae,
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


def _arrive(connection: sa.Connection, series_id: int, now: datetime) -> list[Event]:
    """Let the OPEN revision of a series wait anew, opened as the next number if there is none."""
    bumped = connection.execute(
        revisions.update()
        .where(revisions.c.series_id == series_id, in_state(revisions, RevisionState.OPEN))
        .values(last_arrival_at=now, quiet_since=now)
    )
    if bumped.rowcount == 1:
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
