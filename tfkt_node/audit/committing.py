"""An assessment becomes rows: its verdict, its slices, and what became of its instances.

`reading` gives it back equal; so nothing of it may be lost or changed here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tfkt_node import __version__
from tfkt_node.audit.database import insert_once, storable
from tfkt_node.audit.schema import (
    bundles,
    criteria,
    instances,
    revision_instances,
    revisions,
    series,
    slice_scores,
    verdicts,
)
from tfkt_node.records import (
    Assessment,
    BundleInForce,
    CriteriaInForce,
    InstanceState,
    Reason,
    StackSummary,
)

SUMMARY_FIELDS = (
    "acquisition",
    "orientation",
    "kernel",
    "rows",
    "columns",
    "score",
    "p10",
    "below_threshold",
    "in_scope",
    "out_of_scope",
    "gaps",
    "repeated",
    "spacing_mm",
)
"""Fields of a StackSummary that are kept as they are."""


def write(  # noqa: PLR0913, PLR0917
    connection: sa.Connection,
    revision_id: int,
    verdict_id: str,
    assessment: Assessment,
    no_report_because: str,
    at: datetime,
) -> list[int]:
    """Write the verdict of a revision with its slices, and what became of its instances.

    Returns the instances whose files are found to be missing. Raises ValueError if the assessment
    names an instance that is not in the revision's list.
    """
    attributes = connection.execute(
        sa.select(series.c.attributes).join(revisions).where(revisions.c.id == revision_id)
    ).scalar_one()
    bundle = assessment.bundle
    low, high = assessment.interval or (None, None)
    connection.execute(
        verdicts.insert().values(
            id=verdict_id,
            revision_id=revision_id,
            decided_at=at,
            outcome=assessment.outcome,
            reason=assessment.reason,
            detail=storable(assessment.detail),
            verdict=assessment.verdict,
            confidence=assessment.confidence,
            confidence_reasons=list(assessment.confidence_reasons),
            flagged=assessment.flagged,
            score=assessment.score,
            low=low,
            high=high,
            deciding_stack=assessment.deciding_stack,
            stacks=[_summary_row(stack) for stack in assessment.stacks],
            criteria_id=_criteria_id(connection, assessment.criteria),
            bundle_id=_bundle_id(connection, bundle) if bundle else None,
            engine=bundle.engine if bundle else None,
            precision=bundle.precision if bundle else None,
            attributes=attributes,
            software_version=__version__,
            no_report_because=no_report_because,
        )
    )
    ids = _instance_ids(connection, revision_id)
    _write_slices(connection, verdict_id, assessment, ids)
    _write_outcomes(connection, revision_id, assessment, ids)
    missing = _mark_missing(connection, revision_id, at)
    _supersede(connection, revision_id)
    return missing


def _summary_row(stack: StackSummary) -> dict[str, Any]:
    row = {name: getattr(stack, name) for name in SUMMARY_FIELDS}
    row["interval"] = stack.interval
    row["minimum"] = None if stack.minimum is None else stack.slices.index(stack.minimum)
    row["physics"] = dict(stack.physics)
    return row


def _criteria_id(connection: sa.Connection, used: CriteriaInForce) -> int:
    insert_once(
        connection,
        criteria,
        digest=used.digest,
        population=used.population,
        diagnostic_from=used.diagnostic_from,
        limited_from=used.limited_from,
        flag_at=used.flag_at,
        min_slices=used.min_slices,
        owner=used.owner,
    )
    found = sa.select(criteria.c.id).where(
        criteria.c.digest == used.digest, criteria.c.population == used.population
    )
    return int(connection.execute(found).scalar_one())


def _bundle_id(connection: sa.Connection, used: BundleInForce) -> int:
    insert_once(connection, bundles, digest=used.digest, name=used.name, version=used.version)
    found = sa.select(bundles.c.id).where(bundles.c.digest == used.digest)
    return int(connection.execute(found).scalar_one())


def _instance_ids(connection: sa.Connection, revision_id: int) -> dict[str, int]:
    rows = connection.execute(
        sa.select(instances.c.digest, instances.c.id)
        .join(revision_instances)
        .where(revision_instances.c.revision_id == revision_id)
    )
    return {row.digest: row.id for row in rows}


def _id_in(ids: dict[str, int], digest: str) -> int:
    if digest not in ids:
        raise ValueError("the assessment names an instance that is not in the revision's list")
    return ids[digest]


def _write_slices(
    connection: sa.Connection, verdict_id: str, assessment: Assessment, ids: dict[str, int]
) -> None:
    rows = []
    for index, stack in enumerate(assessment.stacks):
        for position, found in enumerate(stack.slices):
            low, high = found.interval or (None, None)
            rows.append(
                {
                    "verdict_id": verdict_id,
                    "stack": index,
                    "position": position,
                    "instance_id": _id_in(ids, found.digest),
                    "frame": found.frame,
                    "position_mm": found.position_mm,
                    "score": found.score,
                    "low": low,
                    "high": high,
                    "in_scope": found.in_scope,
                    "reason": found.reason,
                    "outline": found.outline,
                }
            )
    if rows:
        connection.execute(slice_scores.insert(), rows)


def _write_outcomes(
    connection: sa.Connection, revision_id: int, assessment: Assessment, ids: dict[str, int]
) -> None:
    listed = revision_instances.c
    here = listed.revision_id == revision_id
    if assessment.instances:
        connection.execute(
            revision_instances.update().where(here, listed.instance_id == sa.bindparam("which")),
            [
                {
                    "which": _id_in(ids, outcome.digest),
                    "state": outcome.state,
                    "reason": outcome.reason,
                    "detail": storable(outcome.detail),
                }
                for outcome in assessment.instances
            ],
        )
    # An outcome without a word on each instance holds for all of them.
    its_row = sa.and_(here, listed.instance_id == instances.c.id)
    told = {
        "state": sa.func.coalesce(listed.state, InstanceState.NOT_ASSESSED),
        "reason": sa.case((listed.state.is_(None), assessment.reason), else_=listed.reason),
        "detail": listed.detail,
    }
    connection.execute(
        instances.update()
        .where(instances.c.id.in_(sa.select(listed.instance_id).where(here)))
        .values(
            {
                name: sa.select(value).where(its_row).scalar_subquery()
                for name, value in told.items()
            }
        )
    )


def _mark_missing(connection: sa.Connection, revision_id: int, at: datetime) -> list[int]:
    """Mark the instances whose files are gone, so that the same bytes count when they return."""
    listed = revision_instances.c
    marked = connection.scalars(
        instances.update()
        .where(
            instances.c.id.in_(
                sa.select(listed.instance_id).where(listed.revision_id == revision_id)
            ),
            instances.c.reason == Reason.FILE_MISSING,
            instances.c.missing_since.is_(None),
        )
        .values(missing_since=at)
        .returning(instances.c.id)
    )
    return sorted(marked)


def _supersede(connection: sa.Connection, revision_id: int) -> None:
    """Say of older versions of the revision's instances that a later one was received."""
    newer = instances.alias("newer")
    later = (
        sa.select(sa.literal(1))
        .select_from(revision_instances.join(newer))
        .where(
            revision_instances.c.revision_id == revision_id,
            newer.c.series_id == instances.c.series_id,
            newer.c.sop_instance_uid == instances.c.sop_instance_uid,
            sa.or_(  # as `closing` chose it: by row, but what was rebuilt from files by time
                newer.c.id > instances.c.id,
                sa.and_(
                    instances.c.association_id.is_(None),
                    newer.c.received_at > instances.c.received_at,
                ),
            ),
        )
        .correlate(instances)
        .exists()
    )
    this_series = sa.select(revisions.c.series_id).where(revisions.c.id == revision_id)
    connection.execute(
        instances.update()
        .where(instances.c.series_id == this_series.scalar_subquery(), later)
        .values(state=InstanceState.NOT_ASSESSED, reason=Reason.SUPERSEDED, detail="")
    )
