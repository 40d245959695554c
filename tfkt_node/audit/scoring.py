"""A STABLE revision is claimed, scored and committed: transitions up to an outcome.

Every revision ends in exactly one outcome (P4), and the reports it owes are written in the same
transaction as its verdict (P5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from tfkt_node.audit import committing
from tfkt_node.audit.chain import Event, EventKind, append
from tfkt_node.audit.columns import in_state
from tfkt_node.audit.database import Database
from tfkt_node.audit.leases import FREED, claim, due, free, held, release_own
from tfkt_node.audit.schema import (
    deliveries,
    instances,
    objects,
    revision_instances,
    revisions,
    series,
    verdicts,
)
from tfkt_node.records import (
    Assessment,
    ClaimedRevision,
    DeliveryState,
    InstanceRef,
    ObjectKind,
    ObjectState,
    Outcome,
    Reason,
    RevisionState,
)

EVENT_OF_OUTCOME = {
    Outcome.ASSESSED: EventKind.REVISION_ASSESSED,
    Outcome.NOT_ASSESSED: EventKind.REVISION_NOT_ASSESSED,
    Outcome.FAILED: EventKind.REVISION_FAILED,
}


class Scoring(Database):
    """Transitions of STABLE and SCORING revisions."""

    def claim_revision(
        self, owner: str, now: datetime, lease_s: float, backlog_after_s: float
    ) -> ClaimedRevision | None:
        """Take the next STABLE revision that is due: live ones before backlog, oldest first.

        A series' revisions are scored one after another, so that a later one finds what it
        supersedes. `attempts` of the result counts those that failed before.
        """
        earlier = revisions.alias("earlier")
        waits_for_earlier = sa.exists().where(
            earlier.c.series_id == revisions.c.series_id,
            earlier.c.number < revisions.c.number,
            earlier.c.state.in_([RevisionState.STABLE, RevisionState.SCORING]),
        )
        is_backlog = sa.case(
            (revisions.c.last_arrival_at <= now - timedelta(seconds=backlog_after_s), 1), else_=0
        )
        candidates = (
            sa.select(revisions.c.id)
            .where(
                in_state(revisions, RevisionState.STABLE),
                due(revisions, now),
                ~waits_for_earlier,
            )
            .order_by(is_backlog, revisions.c.last_arrival_at, revisions.c.id)
        )
        until = now + timedelta(seconds=lease_s)
        with self.writing() as connection:
            release_own(connection, revisions, owner, now)
            revision_id = claim(
                connection, candidates, revisions, owner, until, state=RevisionState.SCORING
            )
            return None if revision_id is None else _claimed(connection, revision_id)

    def renew_revision(self, revision_id: int, owner: str, until: datetime) -> bool:
        """Prolong the lease of a revision; False when another process may have it by now."""
        with self.writing() as connection:
            renewed = connection.execute(
                revisions.update()
                .where(held(revisions, revision_id, owner))
                .values(lease_until=until)
            )
            return renewed.rowcount == 1

    def give_back_revision(self, revision_id: int, owner: str) -> bool:
        """Give up the lease of a revision without counting an attempt, as on an orderly stop."""
        with self.writing() as connection:
            return free(connection, revisions, revision_id, owner, state=RevisionState.STABLE)

    def commit_assessment(  # noqa: PLR0913, PLR0917
        self,
        revision_id: int,
        owner: str,
        assessment: Assessment,
        verdict_id: str,
        owed: Mapping[ObjectKind, Sequence[str]],
        no_report_because: str,
        at: datetime,
    ) -> bool:
        """End a revision: verdict, slices, instances, objects and deliveries, in one transaction.

        owed: each object to be made, with the destinations that get it. no_report_because: ''
        when objects are owed. False, and nothing written, when the lease
        was lost. Raises ValueError for an assessment that does not fit the revision.
        """
        with self.writing() as connection:
            state = RevisionState(assessment.outcome)
            if not free(
                connection, revisions, revision_id, owner, state=state, next_attempt_at=None
            ):
                return False
            missing = committing.write(
                connection, revision_id, verdict_id, assessment, no_report_because, at
            )
            for kind, destinations in owed.items():
                _owe(connection, verdict_id, kind, destinations, at)
            detail = {
                "verdict": assessment.verdict,
                "confidence": assessment.confidence,
                "score": assessment.score,
                "flagged": assessment.flagged,
                "reason": assessment.reason,
                "criteria": assessment.criteria.digest,
                "bundle": assessment.bundle.digest if assessment.bundle else None,
                "objects": list(owed),
                "no_report_because": no_report_because,
            }
            kind_of_event = EVENT_OF_OUTCOME[assessment.outcome]
            append(
                connection,
                at,
                *(Event(EventKind.FILE_MISSING, f"instance:{i}", {}) for i in missing),
                Event(kind_of_event, f"revision:{revision_id}", detail),
            )
            return True

    def record_failed_attempt(  # noqa: PLR0913, PLR0917
        self,
        revision_id: int,
        owner: str,
        reason: Reason,
        detail: str,
        retry_at: datetime,
        at: datetime,
    ) -> bool:
        """Give a revision back after an attempt that failed; it is due again at `retry_at`.

        detail: words without an identifier. The last attempt ends in `commit_assessment` instead.
        """
        with self.writing() as connection:
            attempts = connection.execute(
                revisions.update()
                .where(held(revisions, revision_id, owner))
                .values(
                    state=RevisionState.STABLE,
                    attempts=revisions.c.attempts + 1,
                    next_attempt_at=retry_at,
                    **FREED,
                )
                .returning(revisions.c.attempts)
            ).scalar()
            if attempts is None:
                return False
            told = {"reason": reason, "detail": detail, "attempts": attempts}
            append(connection, at, Event(EventKind.ATTEMPT_FAILED, f"revision:{revision_id}", told))
            return True


def _claimed(connection: sa.Connection, revision_id: int) -> ClaimedRevision:
    row = connection.execute(
        sa.select(
            revisions.c.number,
            revisions.c.attempts,
            series.c.attributes,
            sa.exists().where(objects.c.series_id == series.c.id).label("answers_earlier"),
        )
        .join(series)
        .where(revisions.c.id == revision_id)
    ).one()
    listed = connection.execute(
        sa.select(
            instances.c.path,
            instances.c.digest,
            instances.c.sop_class_uid,
            instances.c.sop_instance_uid,
        )
        .join(revision_instances)
        .where(revision_instances.c.revision_id == revision_id)
        .order_by(revision_instances.c.position)
    )
    refs = tuple(InstanceRef(Path(path), *rest) for path, *rest in listed)
    return ClaimedRevision(
        revision_id, row.number, row.attempts, refs, row.attributes, row.answers_earlier
    )


def _owe(
    connection: sa.Connection,
    verdict_id: str,
    kind: ObjectKind,
    destinations: Sequence[str],
    at: datetime,
) -> None:
    series_id = sa.select(revisions.c.series_id).join(verdicts).where(verdicts.c.id == verdict_id)
    object_id = connection.execute(
        objects.insert()
        .values(
            series_id=series_id.scalar_subquery(),
            verdict_id=verdict_id,
            kind=kind,
            state=ObjectState.OWED,
        )
        .returning(objects.c.id)
    ).scalar_one()
    rows = [
        {
            "object_id": object_id,
            "destination": destination,
            "state": DeliveryState.PENDING,
            "owed_at": at,
            "next_attempt_at": at,
        }
        for destination in destinations
    ]
    if rows:
        connection.execute(deliveries.insert(), rows)
