"""Instances come in: their transitions up to an OPEN revision.

The row of a series is locked while instances of it are indexed or its revision is closed, so that
an arrival is either in the frozen list or opens the next revision (promises P3, P4).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database, indexable, insert_new, insert_once, storable
from tfkt_node.audit.schema import instances, revisions, series
from tfkt_node.records import (
    CT_CLASSES,
    InstanceHeader,
    InstanceState,
    Reason,
    RevisionState,
    StoredInstance,
)

LOGGER = logging.getLogger(__name__)

MOST_TOLD = 10
"""Other series that a line of the log names."""

Arrived = tuple[StoredInstance, InstanceHeader]


class IndexResult(StrEnum):
    """What indexing an instance came to."""

    NEW = "NEW"
    DUPLICATE = "DUPLICATE"
    SET_ASIDE = "SET_ASIDE"


class _Indexed(NamedTuple):
    """What indexing some instances came to. series_id: None where they were set aside."""

    series_id: int | None
    told: Sequence[Event]
    results: Sequence[IndexResult]


class Arrivals(Database):
    """Transitions of instances."""

    def index_instance(
        self, instance: StoredInstance, header: InstanceHeader, now: datetime
    ) -> IndexResult:
        """Give one stored instance its row: see index_instances."""
        (result,) = self.index_instances([(instance, header)], now)
        return result

    def index_instances(self, batch: Sequence[Arrived], now: datetime) -> list[IndexResult]:
        """Give stored instances their rows, and each series an OPEN revision that waits anew.

        The same digest again changes nothing, unless its file had been lost: then it counts as an
        arrival. An instance that is no CT image, or that this node made, is set aside. Each series
        has a transaction of its own: when one fails, those before it stand, and the batch may be
        given again.
        """
        groups: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, (instance, header) in enumerate(batch):
            key = () if _why_aside(instance, header) else tuple(_key(header).values())
            groups[key].append(index)
        results = [IndexResult.SET_ASIDE] * len(batch)
        for key, indices in groups.items():
            members = [batch[index] for index in indices]
            with self.writing() as connection:
                indexed = (_index_series if key else _set_aside)(connection, members, now)
            _say(indexed)  # by now it is committed
            for index, result in zip(indices, indexed.results, strict=True):
                results[index] = result
        return results

    def known_digests(self) -> set[str]:
        """Return the digests of all instances that have a row."""
        with self.reading() as connection:
            return set(connection.scalars(sa.select(instances.c.digest)))

    def missing_digests(self) -> set[str]:
        """Return the digests of the instances whose file was recorded as missing."""
        missing = sa.select(instances.c.digest).where(instances.c.missing_since.is_not(None))
        with self.reading() as connection:
            return set(connection.scalars(missing))

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


@dataclass(frozen=True, slots=True)
class _New:
    """An instance that just got its row. others: rows of its SOP Instance UID that were first."""

    id: int
    instance: StoredInstance
    header: InstanceHeader
    others: Sequence[Any]

    def conflicts(self, series_id: int | None) -> list[Event]:
        """Tell of other bytes under its SOP Instance UID."""
        if not self.others:
            return []
        detail = {
            "what": "other bytes under a known SOP Instance UID",
            "others": [row.id for row in self.others],
            "same_series": all(row.series_id == series_id for row in self.others),
        }
        return [Event(EventKind.INSTANCE_CONFLICT, f"instance:{self.id}", detail)]

    def corrects(self, series_id: int) -> bool:
        """Tell whether it is the latest received of several versions in its series."""
        received = [row.received_at for row in self.others if row.series_id == series_id]
        return bool(received) and self.instance.received_at >= max(received)


def _why_aside(instance: StoredInstance, header: InstanceHeader) -> Reason | None:
    """Return why an instance has no part in a revision; None: it has one."""
    if header.made_by_this_node:
        return Reason.OWN_OBJECT
    return None if instance.sop_class_uid in CT_CLASSES else Reason.NOT_CT


def _say(indexed: _Indexed) -> None:
    """Say in the log what an administrator looks for there; rows by their numbers (P10)."""
    series_id, told, _ = indexed
    conflicts = [event.subject for event in told if event.kind is EventKind.INSTANCE_CONFLICT]
    if conflicts:
        LOGGER.warning(
            "instance.conflict series=%s instances=%d first=%s",
            series_id or "none",
            len(conflicts),
            conflicts[0].removeprefix("instance:"),
        )
    aside = [event for event in told if event.kind is EventKind.INSTANCE_SET_ASIDE]
    for reason, count in Counter(event.detail["reason"] for event in aside).items():
        LOGGER.info("instance.set_aside instances=%d reason=%s", count, reason)
    for event in told:
        if event.kind is EventKind.SERIES_CONFLICT:
            others = ",".join(map(str, event.detail["others"][:MOST_TOLD]))
            LOGGER.warning("series.conflict series=%d others=%s", series_id, others)
        elif event.kind is EventKind.REVISION_OPENED:
            revision_id = event.subject.removeprefix("revision:")
            LOGGER.info(
                "revision.opened revision=%s series=%d number=%d",
                revision_id,
                series_id,
                event.detail["number"],
            )


def _set_aside(connection: sa.Connection, batch: Sequence[Arrived], now: datetime) -> _Indexed:
    """Index instances that have no part in a revision."""
    reasons = [_why_aside(*arrived) for arrived in batch]
    states = [{"state": InstanceState.SET_ASIDE, "reason": reason} for reason in reasons]
    inserted = _insert(connection, batch, states, now)
    told = []
    for new, reason in zip(inserted, reasons, strict=True):
        if new is not None:
            told += new.conflicts(None)
            subject = f"instance:{new.id}"
            told.append(Event(EventKind.INSTANCE_SET_ASIDE, subject, {"reason": reason}))
    _found_again(connection, batch)
    append(connection, now, *told)
    return _Indexed(None, told, [IndexResult.SET_ASIDE] * len(batch))


def _index_series(connection: sa.Connection, batch: Sequence[Arrived], now: datetime) -> _Indexed:
    """Index instances of one series, in the order in which they came."""
    series_id, told = _lock_series(connection, batch, now)
    state = {"series_id": series_id, "state": InstanceState.INDEXED}
    inserted = _insert(connection, batch, [state] * len(batch), now)
    for new in filter(None, inserted):
        told += new.conflicts(series_id)
        if new.corrects(series_id):
            its = series.c.id == series_id
            connection.execute(series.update().where(its).values(_copied(new.header)))
    if _found_again(connection, batch) or any(inserted):
        told += _arrive(connection, series_id, now)
    append(connection, now, *told)
    results = [IndexResult.NEW if new else IndexResult.DUPLICATE for new in inserted]
    return _Indexed(series_id, told, results)


def _insert(
    connection: sa.Connection,
    batch: Sequence[Arrived],
    states: Sequence[dict[str, Any]],
    now: datetime,
) -> list[_New | None]:
    """Insert the instances whose digest has no row yet; None stands for one that has."""
    rows = [_instance_row(*one, now) | state for one, state in zip(batch, states, strict=True)]
    inserted = insert_new(connection, instances, rows, instances.c.digest, instances.c.id)
    ids = {row.digest: row.id for row in inserted}
    versions = _versions(
        connection, [one.sop_instance_uid for one, _ in batch if one.digest in ids]
    )
    made = set(ids.values())
    found: list[_New | None] = []
    for instance, header in batch:
        if (row_id := ids.pop(instance.digest, None)) is None:
            found.append(None)
            continue
        same_uid = versions[instance.sop_instance_uid]
        others = [row for row in same_uid if row.id < row_id or row.id not in made]
        found.append(_New(row_id, instance, header, others))
    return found


def _versions(
    connection: sa.Connection, sop_instance_uids: Sequence[str]
) -> defaultdict[str, list[Any]]:
    """Return the rows of SOP Instance UIDs, by UID."""
    columns = instances.c
    selected = sa.select(
        columns.id, columns.sop_instance_uid, columns.series_id, columns.received_at
    ).where(columns.sop_instance_uid.in_(sop_instance_uids))
    versions: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(selected.order_by(columns.id)) if sop_instance_uids else ():
        versions[row.sop_instance_uid].append(row)
    return versions


def _copied(header: InstanceHeader) -> dict[str, Any]:
    """Return what a series copies of the header of one of its instances."""
    return {
        "modality": storable(header.modality),
        "accession_number": indexable(header.accession_number),
        "study_date": storable(header.study_date),
        "series_description": storable(header.series_description),
        "attributes": header.attributes,
    }


def _key(header: InstanceHeader) -> dict[str, str]:
    """Return what tells a series from others."""
    return {
        "patient_id": indexable(header.patient_id),
        "study_uid": indexable(header.study_uid),
        "series_uid": indexable(header.series_uid),
    }


def _lock_series(
    connection: sa.Connection, batch: Sequence[Arrived], now: datetime
) -> tuple[int, list[Event]]:
    """Lock the row of a series, made of its first instance if need be; return its id and events."""
    _, header = batch[0]
    key = _key(header)
    locked = (
        sa.select(series.c.id, series.c.calling_ae)
        .where(*(series.c[name] == value for name, value in key.items()))
        .with_for_update()
    )
    found = connection.execute(locked).first()
    callers = [storable(instance.calling_ae) for instance, _ in batch]  # '' from a file
    calling_ae = next(filter(None, reversed(callers)), "")
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


def _found_again(connection: sa.Connection, batch: Sequence[Arrived]) -> bool:
    """Forget that files were missing; tell whether one was."""
    found = connection.execute(
        instances.update()
        .where(
            instances.c.digest.in_([instance.digest for instance, _ in batch]),
            instances.c.missing_since.is_not(None),
        )
        .values(missing_since=None)
    )
    return found.rowcount > 0
