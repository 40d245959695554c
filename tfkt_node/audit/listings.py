"""What people ask of the audit: read-only queries for tables and pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit import assessments
from tfkt_node.audit.database import Database
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
    Misconfigured,
    ObjectKind,
    RevisionState,
    SeriesRow,
    Verdict,
)


class Listings(Database):
    """Queries behind `series list`, `series show` and `deliveries list`."""

    def series_rows(  # noqa: PLR0913
        self,
        *,
        state: RevisionState | None = None,
        verdict: Verdict | None = None,
        flagged: bool | None = None,
        patient_id: str | None = None,
        accession_number: str | None = None,
        study_uid: str | None = None,
        series_uid: str | None = None,
        since: datetime | None = None,
        limit: int = 200,
    ) -> list[SeriesRow]:
        """Return one row a series, of its newest revision, the last arrival first.

        since: least time of the last arrival. Filters that are None do not apply.
        """
        wanted = {
            revisions.c.state: state,
            verdicts.c.verdict: verdict,
            verdicts.c.flagged: flagged,
            series.c.patient_id: patient_id,
            series.c.accession_number: accession_number,
            series.c.study_uid: study_uid,
            series.c.series_uid: series_uid,
        }
        conditions = [column == value for column, value in wanted.items() if value is not None]
        if since is not None:
            conditions.append(revisions.c.last_arrival_at >= since)
        with self.reading() as connection:
            rows = connection.execute(
                _newest_revisions()
                .where(*conditions)
                .order_by(revisions.c.last_arrival_at.desc(), revisions.c.id.desc())
                .limit(limit)
            )
            return [_series_row(row) for row in rows]

    def series_detail(self, series_id: int | str) -> Mapping[str, Any]:
        """Return all that is known of a series, by its number or Series Instance UID, as JSON data.

        Times are ISO 8601 in UTC. Raises Misconfigured when none or several have that UID.
        """
        column = series.c.id if isinstance(series_id, int) else series.c.series_uid
        with self.reading() as connection:
            found = connection.execute(sa.select(series).where(column == series_id)).all()
            if not found:
                raise Misconfigured("no such series in the audit; see tfkt-node series list")
            if len(found) > 1:
                numbers = ", ".join(str(row.id) for row in found)
                raise Misconfigured(f"several series have that UID; give one of {numbers}")
            detail = _plain(found[0], leave_out=("attributes",))
            rows = connection.execute(
                sa.select(revisions)
                .where(revisions.c.series_id == found[0].id)
                .order_by(revisions.c.number)
            ).all()
            detail["revisions"] = [_revision_detail(connection, row) for row in rows]
            return detail

    def delivery_rows(
        self, state: DeliveryState | None = None, destination: str | None = None
    ) -> list[DeliveryRow]:
        """Return deliveries in the order they were owed."""
        wanted = {deliveries.c.state: state, deliveries.c.destination: destination}
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(
                    deliveries, objects.c.kind, objects.c.sop_instance_uid, objects.c.verdict_id
                )
                .join(objects)
                .where(*(column == value for column, value in wanted.items() if value is not None))
                .order_by(deliveries.c.id)
            )
            return [_delivery_row(row) for row in rows]


def _newest_revisions() -> sa.Select[Any]:
    later = revisions.alias("later")
    has_later = sa.exists().where(
        later.c.series_id == revisions.c.series_id, later.c.number > revisions.c.number
    )
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
        sa.select(
            series,
            revisions.c.number,
            revisions.c.state,
            revisions.c.last_arrival_at,
            revisions.c.quiet_since,
            count.label("instances"),
            *(verdicts.c[name] for name in ("decided_at", "verdict", "confidence", "score")),
            *(verdicts.c[name] for name in ("flagged", "reason")),
        )
        .join(revisions, revisions.c.series_id == series.c.id)
        .outerjoin(verdicts, verdicts.c.revision_id == revisions.c.id)
        .where(~has_later)
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
        reason=assessments.reason_of(row.reason) if row.reason else None,
    )


def _delivery_row(row: Any) -> DeliveryRow:
    return DeliveryRow(
        delivery_id=row.id,
        destination=row.destination,
        kind=ObjectKind(row.kind),
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_error=row.last_error,
        sop_instance_uid=row.sop_instance_uid or "",
        verdict_id=row.verdict_id,
    )


def _plain(row: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Turn a row into JSON data."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row._mapping.items()
        if name not in leave_out
    }


def _revision_detail(connection: sa.Connection, row: Any) -> dict[str, Any]:
    detail = _plain(row, leave_out=("series_id",))
    verdict = connection.execute(
        sa.select(verdicts).where(verdicts.c.revision_id == row.id)
    ).first()
    detail["verdict"] = (
        _plain(verdict, leave_out=("attributes", "revision_id")) if verdict else None
    )
    listed = connection.execute(
        sa.select(
            revision_instances.c.position,
            *(instances.c[name] for name in ("digest", "sop_instance_uid", "path")),
            *(revision_instances.c[name] for name in ("state", "reason", "detail")),
        )
        .join(instances)
        .where(revision_instances.c.revision_id == row.id)
        .order_by(revision_instances.c.position)
    )
    detail["instances"] = [_plain(item) for item in listed]
    made = connection.execute(
        sa.select(objects).join(verdicts).where(verdicts.c.revision_id == row.id)
    ).all()
    detail["objects"] = [
        {**_plain(item), "deliveries": _deliveries_of(connection, item.id)} for item in made
    ]
    told = connection.execute(
        sa.select(events.c.seq, events.c.at, events.c.kind, events.c.actor, events.c.detail)
        .where(events.c.subject == f"revision:{row.id}")
        .order_by(events.c.seq)
    )
    detail["events"] = [_plain(item) for item in told]
    return detail


def _deliveries_of(connection: sa.Connection, object_id: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        sa.select(deliveries)
        .where(deliveries.c.object_id == object_id)
        .order_by(deliveries.c.destination)
    )
    return [_plain(row) for row in rows]
