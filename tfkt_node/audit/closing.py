"""A quiet series is closed: its OPEN revision becomes STABLE, a frozen list with evidence.

No timeout proves that a series is complete. So the evidence is kept, and whatever comes later opens
the next revision (promise P4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database
from tfkt_node.audit.schema import (
    associations,
    instances,
    revision_instances,
    revisions,
    series,
)
from tfkt_node.records import RevisionState


@dataclass(frozen=True, slots=True)
class QuietRevision:
    """An OPEN revision that has been quiet long enough. Close it with both values."""

    revision_id: int
    last_arrival_at: datetime


class Closing(Database):
    """Transitions of OPEN revisions."""

    def restart_quiet_periods(self, now: datetime) -> int:
        """Let every OPEN revision wait anew, for nothing could arrive while the node was down."""
        with self.writing() as connection:
            restarted = connection.execute(
                revisions.update()
                .where(in_state(revisions, RevisionState.OPEN))
                .values(quiet_since=now)
            )
            return restarted.rowcount

    def quiet_revisions(self, now: datetime, quiet_s: float) -> list[QuietRevision]:
        """Return the OPEN revisions without an arrival for `quiet_s` seconds, oldest first."""
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(revisions.c.id, revisions.c.last_arrival_at)
                .where(
                    in_state(revisions, RevisionState.OPEN),
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
                    in_state(revisions, RevisionState.OPEN),
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


def _freeze(connection: sa.Connection, revision_id: int, series_id: int) -> Sequence[Any]:
    """Write the list of a revision and return its rows in order."""
    versions = connection.execute(
        sa.select(
            instances.c.id,
            instances.c.sop_instance_uid,
            instances.c.instance_number,
            instances.c.expected_count,
            instances.c.association_id,
            instances.c.received_at,
        )
        .where(instances.c.series_id == series_id)
        .order_by(instances.c.id)
    )
    latest: dict[str, Any] = {}
    for row in versions:
        before = latest.setdefault(row.sop_instance_uid, row)
        # Rows follow the arrivals, however the clock was set meanwhile. Only those that were
        # rebuilt from files come in any order; they name no association, and have a file's time.
        if row.association_id or row.received_at >= before.received_at:
            latest[row.sop_instance_uid] = row
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
