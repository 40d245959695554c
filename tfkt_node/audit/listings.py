"""What people ask of the audit: read-only queries for tables and pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database
from tfkt_node.audit.outbox import earlier_pending
from tfkt_node.audit.reading import reason_of
from tfkt_node.audit.schema import (
    deliveries,
    events,
    instances,
    objects,
    revision_instances,
    revisions,
    series,
    verdicts,
)
from tfkt_node.records import (
    Confidence,
    DeliveryRow,
    DeliveryState,
    InstanceState,
    Misconfigured,
    ObjectKind,
    ObjectState,
    RevisionState,
    SeriesRow,
    Verdict,
)


class Listings(Database):
    """Queries behind `series list`, `series show` and `deliveries list`."""

    def series_rows(
        self,
        *,
        study_date: str | None = None,
        accession_number: str | None = None,
        verdict: Verdict | None = None,
        calling_ae: str | None = None,
        limit: int | None = None,
    ) -> list[SeriesRow]:
        """Return one row a series, of its newest revision, the last arrival first.

        study_date: YYYYMMDD. verdict: of the newest revision. None: the filter does not apply.
        limit: most rows to return; None: all.
        """
        wanted = {
            series.c.study_date: study_date,
            series.c.accession_number: accession_number,
            series.c.calling_ae: calling_ae,
            verdicts.c.verdict: verdict,
        }
        order = (revisions.c.last_arrival_at.desc(), revisions.c.id.desc())
        # Chosen first, so that only the instances of what is listed are counted.
        listed = (
            _newest_revisions(revisions.c.id)
            .where(*(column == value for column, value in wanted.items() if value is not None))
            .order_by(*order)
            .limit(limit)
        )
        with self.reading() as connection:
            rows = connection.execute(
                _newest_revisions(*_series_columns())
                .where(revisions.c.id.in_(listed))
                .order_by(*order)
            )
            return [_series_row(row) for row in rows]

    def series_detail(self, series_id: int | str) -> Mapping[str, Any]:
        """Return what is known of a series, by its number or Series Instance UID.

        The attributes of the series, then one list of flat mappings each for its revisions, their
        instances (counted by state and reason), verdicts, stacks, objects, deliveries and events.
        Raises Misconfigured when no series or several have that UID.
        """
        column = series.c.id if isinstance(series_id, int) else series.c.series_uid
        with self.reading() as connection:
            found = connection.execute(sa.select(series).where(column == series_id)).all()
            if not found:
                raise Misconfigured("no such series in the audit; see tfkt-node series list")
            if len(found) > 1:
                numbers = ", ".join(str(row.id) for row in found)
                raise Misconfigured(f"several series have that UID; give one of {numbers}")
            tables = _detail_of(connection, found[0].id)
            return {**_plain(found[0], leave_out=("attributes",)), **tables}

    def set_aside_counts(self) -> dict[str, int]:
        """Return how many instances were set aside, by reason."""
        counted = (
            sa.select(instances.c.reason, sa.func.count())
            .where(instances.c.series_id.is_(None), instances.c.state == InstanceState.SET_ASIDE)
            .group_by(instances.c.reason)
            .order_by(instances.c.reason)
        )
        with self.reading() as connection:
            return {reason: count for reason, count in connection.execute(counted)}

    def conflicts_of(self, series_id: int) -> Mapping[str, Any]:
        """Return what a series has in common with others, and what was told of its instances.

        series_of_the_same_uid: those of other patients or studies. series_of_the_same_instances:
        those that hold one of its SOP Instance UIDs. instance_events: in their order.
        """
        its, others = instances, instances.alias("others")
        this = sa.select(series.c.series_uid).where(series.c.id == series_id).scalar_subquery()
        same_uid = sa.select(series.c.id).where(
            series.c.series_uid == this, series.c.id != series_id
        )
        same_instances = (
            sa.select(others.c.series_id)
            .distinct()
            .join(its, its.c.sop_instance_uid == others.c.sop_instance_uid)
            .where(its.c.series_id == series_id, others.c.series_id != series_id)
        )
        subjects = sa.select(sa.literal("instance:") + sa.cast(its.c.id, sa.Text))
        with self.reading() as connection:
            return {
                "series_of_the_same_uid": sorted(connection.scalars(same_uid)),
                "series_of_the_same_instances": sorted(connection.scalars(same_instances)),
                "instance_events": _told(connection, subjects.where(its.c.series_id == series_id)),
            }

    def delivery_rows(
        self,
        state: DeliveryState | None = None,
        destination: str | None = None,
        delivery_id: int | None = None,
        limit: int | None = None,
    ) -> list[DeliveryRow]:
        """Return what is not SENT in the order it was owed, then what is SENT, the newest first.

        FAILED objects without a delivery stand between them.
        state, destination, delivery_id: of deliveries. None: the filter does not apply.
        limit: most rows to return; None: all.
        """
        wanted = {
            deliveries.c.state: state,
            deliveries.c.destination: destination,
            deliveries.c.id: delivery_id,
        }
        is_sent = deliveries.c.state == DeliveryState.SENT
        is_pending = deliveries.c.state == DeliveryState.PENDING
        earliest = earlier_pending().order_by(None).limit(1).scalar_subquery()
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(
                    deliveries,
                    *(objects.c[name] for name in ("kind", "sop_instance_uid", "verdict_id")),
                    objects.c.state.label("object_state"),
                    objects.c.error.label("object_error"),
                    objects.c.attempts.label("object_attempts"),
                    objects.c.next_attempt_at.label("object_due_at"),
                    sa.case((is_pending, earliest)).label("waits_for"),
                )
                .select_from(objects.outerjoin(deliveries))
                .where(
                    sa.or_(deliveries.c.id.is_not(None), in_state(objects, ObjectState.FAILED)),
                    *(column == value for column, value in wanted.items() if value is not None),
                )
                .order_by(
                    sa.case((is_sent, 1), else_=0),
                    deliveries.c.id.is_(None),
                    sa.case((is_sent, -deliveries.c.id), else_=deliveries.c.id),
                    objects.c.id,
                )
                .limit(limit)
            )
            return [_delivery_row(row) for row in rows]


def _newest_revisions(*columns: Any) -> sa.Select[Any]:
    later = revisions.alias("later")
    has_later = sa.exists().where(
        later.c.series_id == revisions.c.series_id, later.c.number > revisions.c.number
    )
    return (
        sa.select(*columns)
        .select_from(series)
        .join(revisions, revisions.c.series_id == series.c.id)
        .outerjoin(verdicts, verdicts.c.revision_id == revisions.c.id)
        .where(~has_later)
    )


def _series_columns() -> tuple[Any, ...]:
    arrived = (
        sa.select(sa.func.count(instances.c.sop_instance_uid.distinct()))
        .where(instances.c.series_id == series.c.id)
        .scalar_subquery()
    )
    listed = (
        sa.select(sa.func.count())
        .where(revision_instances.c.revision_id == revisions.c.id)
        .scalar_subquery()
    )
    count = sa.case((revisions.c.state == RevisionState.OPEN, arrived), else_=listed)
    return (
        series,
        revisions.c.number,
        revisions.c.state,
        revisions.c.last_arrival_at,
        revisions.c.quiet_since,
        count.label("instances"),
        *(verdicts.c[name] for name in ("decided_at", "verdict", "confidence", "score")),
        *(verdicts.c[name] for name in ("flagged", "reason")),
    )


def _series_row(row: Any) -> SeriesRow:
    return SeriesRow(
        series_id=row.id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        accession_number=row.accession_number,
        study_date=row.study_date,
        series_description=row.series_description,
        calling_ae=row.calling_ae,
        revision=row.number,
        state=RevisionState(row.state),
        instances=row.instances,
        last_arrival_at=row.last_arrival_at,
        quiet_since=row.quiet_since,
        decided_at=row.decided_at,
        verdict=Verdict(row.verdict) if row.verdict else None,
        confidence=Confidence(row.confidence) if row.confidence else None,
        score=row.score,
        flagged=bool(row.flagged),
        reason=reason_of(row.reason) if row.reason else None,
    )


def _delivery_row(row: Any) -> DeliveryRow:
    return DeliveryRow(
        delivery_id=row.id,
        destination=row.destination or "",
        kind=ObjectKind(row.kind),
        state=DeliveryState(row.state) if row.state else None,
        attempts=row.object_attempts if row.id is None else row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_error=row.last_error or "",
        sop_instance_uid=row.sop_instance_uid or "",
        verdict_id=row.verdict_id,
        object_state=ObjectState(row.object_state),
        object_error=row.object_error,
        object_due_at=row.object_due_at,
        waits_for=row.waits_for,
        status=row.status,
        comment=row.comment or "",
    )


def _plain(row: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in leave_out}


def _detail_of(connection: sa.Connection, series_id: int) -> dict[str, list[dict[str, Any]]]:
    """Return the tables below a series, each row with the number of its revision."""
    number = revisions.c.number.label("revision")
    listed = revision_instances.c
    decided = revisions.join(verdicts)
    owing = decided.join(objects, objects.c.verdict_id == verdicts.c.id)

    def rows(source: sa.FromClause, *columns: Any, group: bool = False) -> list[dict[str, Any]]:
        query = sa.select(number, *columns).select_from(source)
        query = query.where(revisions.c.series_id == series_id).order_by(number, columns[0])
        if group:
            query = query.add_columns(sa.func.count().label("count")).group_by(number, *columns)
        return [_plain(row) for row in connection.execute(query)]

    tables = {
        "revisions": rows(revisions, *_columns(revisions, "series_id", "number")),
        "instances": rows(
            revisions.join(revision_instances), listed.state, listed.reason, group=True
        ),
        "verdicts": rows(decided, *_columns(verdicts, "revision_id", "attributes")),
        "objects": rows(owing, *_columns(objects, "series_id", "predecessor_id")),
        "deliveries": rows(owing.join(deliveries), *_columns(deliveries)),
    }
    tables["stacks"] = [
        {"revision": row["revision"], "stack": index, **stack}
        for row in tables["verdicts"]
        for index, stack in enumerate(row.pop("stacks"))
    ]
    tables["events"] = _events_of(connection, series_id, tables)
    return tables


def _columns(table: sa.Table, *leave_out: str) -> list[sa.Column[Any]]:
    hidden = {"lease_owner", "lease_until", *leave_out}
    return [column for column in table.c if column.name not in hidden]


def _events_of(
    connection: sa.Connection, series_id: int, tables: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    subjects = [f"series:{series_id}"]
    subjects += [f"revision:{row['id']}" for row in tables["revisions"]]
    subjects += [f"object:{row['id']}" for row in tables["objects"]]
    subjects += [f"delivery:{row['id']}" for row in tables["deliveries"]]
    return _told(connection, subjects)


def _told(connection: sa.Connection, subjects: Any) -> list[dict[str, Any]]:
    """Return the events of subjects, in their order. subjects: a list, or a select of them."""
    told = connection.execute(
        sa.select(*_columns(events, "prev_hash", "hash"))
        .where(events.c.subject.in_(subjects))
        .order_by(events.c.seq)
    )
    return [{**_plain(row), "detail": json.loads(row.detail)} for row in told]
