"""Rows become an assessment again, and the record that a report is made from.

The report is made from what is read here alone: the same rows give the same record for ever.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.committing import SUMMARY_FIELDS
from tfkt_node.audit.database import Database
from tfkt_node.audit.schema import (
    bundles,
    criteria,
    installation,
    instances,
    objects,
    revision_instances,
    revisions,
    series,
    slice_scores,
    verdicts,
)
from tfkt_node.records import (
    Assessment,
    BundleInForce,
    Confidence,
    CriteriaInForce,
    EarlierVerdict,
    EvidenceInstance,
    InstanceOutcome,
    InstanceState,
    ObjectKind,
    Outcome,
    Population,
    Predecessor,
    Reason,
    ReportRecord,
    SliceScore,
    StackSummary,
    Verdict,
)

REPORTS = (ObjectKind.SR, ObjectKind.ENHANCED_SR)
"""The kinds of object that a later report supersedes."""

CRITERIA = (
    criteria.c.digest.label("criteria_digest"),
    *(criteria.c[name] for name in ("population", "diagnostic_from", "limited_from")),
    *(criteria.c[name] for name in ("flag_at", "min_slices", "owner")),
)
"""The columns that `_criteria` reads."""


class Reports(Database):
    """Queries behind the making of reports."""

    def report_record(self, verdict_id: str, kind: ObjectKind = ObjectKind.SR) -> ReportRecord:
        """Return what the object of a kind of a verdict is made from, from rows alone.

        Once it was made its predecessor is fixed, so that it is made anew as the same bytes.
        Raises LookupError for an unknown verdict.
        """
        with self.reading() as connection:
            return assemble(connection, verdict_id, report_before(connection, verdict_id, kind))


def report_before(connection: sa.Connection, verdict_id: str, kind: ObjectKind) -> Any:
    """Return the row of the report that an object names: where it was made before, the same."""
    made = connection.execute(
        sa.select(objects.c.predecessor_id).where(
            objects.c.verdict_id == verdict_id,
            objects.c.kind == kind,
            objects.c.built_at.is_not(None),
        )
    ).first()
    if made is None:
        return _newest_earlier_report(connection, verdict_id, kind)
    return connection.execute(sa.select(objects).where(objects.c.id == made.predecessor_id)).first()


def _newest_earlier_report(connection: sa.Connection, verdict_id: str, kind: ObjectKind) -> Any:
    """Return the report of the newest earlier revision of the series that was made, or None.

    kind: which of two reports to prefer where that revision has both.
    """
    this = (
        sa.select(revisions.c.series_id, revisions.c.number)
        .join(verdicts)
        .where(verdicts.c.id == verdict_id)
        .subquery("this")
    )
    return connection.execute(
        sa.select(objects)
        .join(verdicts, verdicts.c.id == objects.c.verdict_id)
        .join(revisions, revisions.c.id == verdicts.c.revision_id)
        .join(this, this.c.series_id == revisions.c.series_id)
        .where(
            revisions.c.number < this.c.number,
            objects.c.kind.in_(REPORTS),
            # Not BUILT: one whose file was lost may be at its destination all the same.
            objects.c.built_at.is_not(None),
        )
        .order_by(revisions.c.number.desc(), sa.case((objects.c.kind == kind, 0), else_=1))
        .limit(1)
    ).first()


def assemble(connection: sa.Connection, verdict_id: str, predecessor: Any) -> ReportRecord:
    """Put a report record together. predecessor: row of the report that it supersedes."""
    row = connection.execute(
        sa.select(
            verdicts.c.decided_at,
            verdicts.c.attributes,
            verdicts.c.software_version,
            verdicts.c.revision_id,
            revisions.c.series_id,
            revisions.c.number,
            series.c.patient_id,
            series.c.study_uid,
            series.c.series_uid,
        )
        .join(revisions, revisions.c.id == verdicts.c.revision_id)
        .join(series, series.c.id == revisions.c.series_id)
        .where(verdicts.c.id == verdict_id)
    ).first()
    if row is None:
        raise LookupError("no such verdict")
    assessment = read_assessment(connection, verdict_id)
    return ReportRecord(
        verdict_id=verdict_id,
        decided_at=row.decided_at,
        revision_number=row.number,
        patient_id=row.patient_id,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        attributes=row.attributes,
        assessment=assessment,
        evidence=_evidence(connection, row.revision_id),
        before=_before(connection, row.series_id, row.number, assessment.criteria),
        predecessor=_predecessor(predecessor) if predecessor else None,
        node_uid=connection.execute(sa.select(installation.c.node_uid)).scalar_one(),
        software_version=row.software_version,
    )


def _predecessor(report: Any) -> Predecessor:
    return Predecessor(report.sop_class_uid, report.sop_instance_uid, report.own_series_uid)


def _before(
    connection: sa.Connection, series_id: int, number: int, now: CriteriaInForce
) -> tuple[EarlierVerdict, ...]:
    """Return what earlier revisions that owed a report came to, newest first; it never changes.

    Back to one that was assessed: its flag stands, whatever could not be judged since. Not what
    their reports say: these may be FAILED while a Key Object Selection is delivered. now: the
    criteria of the revision that they are before.
    """
    rows = connection.execute(
        sa.select(
            *(verdicts.c[name] for name in ("outcome", "verdict", "flagged")),
            revisions.c.number,
            *CRITERIA,
        )
        .join_from(verdicts, revisions)
        .join(criteria, criteria.c.id == verdicts.c.criteria_id)
        .where(
            revisions.c.series_id == series_id,
            revisions.c.number < number,
            verdicts.c.id.in_(sa.select(objects.c.verdict_id)),
        )
        .order_by(revisions.c.number.desc())
    )
    found = []
    for row in rows:
        then = _criteria(row)
        found.append(
            EarlierVerdict(
                revision_number=row.number,
                outcome=Outcome(row.outcome),
                verdict=Verdict(row.verdict) if row.verdict else None,
                flagged=row.flagged,
                criteria=then if then != now else None,
            )
        )
        if found[-1].outcome is Outcome.ASSESSED:
            break
    return tuple(found)


def read_assessment(connection: sa.Connection, verdict_id: str) -> Assessment:
    """Read the assessment behind a verdict. Raises LookupError when there is none."""
    row = connection.execute(
        sa.select(
            verdicts,
            *CRITERIA,
            bundles.c.digest.label("bundle_digest"),
            bundles.c.name,
            bundles.c.version,
        )
        .join(criteria)
        .outerjoin(bundles)
        .where(verdicts.c.id == verdict_id)
    ).first()
    if row is None:
        raise LookupError("no such verdict")
    stacks = _read_stacks(connection, row)
    bundle = None
    if row.bundle_id is not None:
        bundle = BundleInForce(row.name, row.version, row.bundle_digest, row.engine, row.precision)
    return Assessment(
        outcome=Outcome(row.outcome),
        reason=_reason(row.reason),
        detail=row.detail,
        verdict=Verdict(row.verdict) if row.verdict else None,
        confidence=Confidence(row.confidence) if row.confidence else None,
        confidence_reasons=tuple(map(reason_of, row.confidence_reasons)),
        flagged=row.flagged,
        score=row.score,
        interval=_interval(row),
        deciding_stack=row.deciding_stack,
        stacks=stacks,
        instances=_read_outcomes(connection, row.revision_id),
        criteria=_criteria(row),
        bundle=bundle,
    )


def _criteria(row: Any) -> CriteriaInForce:
    return CriteriaInForce(
        population=Population(row.population),
        diagnostic_from=row.diagnostic_from,
        limited_from=row.limited_from,
        flag_at=Verdict(row.flag_at),
        min_slices=row.min_slices,
        owner=row.owner,
        digest=row.criteria_digest,
    )


def reason_of(value: str) -> Reason:
    """Turn the text of a column back into its Reason."""
    return Reason(value)  # type: ignore[call-arg]


def _reason(value: str | None) -> Reason | None:
    return None if value is None else reason_of(value)


def _interval(row: Any) -> tuple[float, float] | None:
    return None if row.low is None else (row.low, row.high)


def _read_stacks(connection: sa.Connection, verdict: Any) -> tuple[StackSummary, ...]:
    slices: dict[int, list[SliceScore]] = {}
    for row in connection.execute(
        sa.select(slice_scores, instances.c.digest, instances.c.sop_instance_uid)
        .join(instances)
        .where(slice_scores.c.verdict_id == verdict.id)
        .order_by(slice_scores.c.stack, slice_scores.c.position)
    ):
        slices.setdefault(row.stack, []).append(
            SliceScore(
                digest=row.digest,
                sop_uid=row.sop_instance_uid,
                frame=row.frame,
                position_mm=row.position_mm,
                score=row.score,
                interval=_interval(row),
                in_scope=row.in_scope,
                reason=_reason(row.reason),
                outline=None if row.outline is None else tuple(row.outline),
            )
        )
    return tuple(
        _summary(stack, tuple(slices.get(index, ()))) for index, stack in enumerate(verdict.stacks)
    )


def _summary(stack: dict[str, Any], slices: tuple[SliceScore, ...]) -> StackSummary:
    return StackSummary(
        **{name: stack[name] for name in SUMMARY_FIELDS},
        interval=None if stack["interval"] is None else tuple(stack["interval"]),
        minimum=None if stack["minimum"] is None else slices[stack["minimum"]],
        physics=stack["physics"],
        slices=slices,
    )


def _read_outcomes(connection: sa.Connection, revision_id: int) -> tuple[InstanceOutcome, ...]:
    rows = connection.execute(
        sa.select(
            instances.c.digest,
            revision_instances.c.state,
            revision_instances.c.reason,
            revision_instances.c.detail,
        )
        .join(instances)
        .where(
            revision_instances.c.revision_id == revision_id,
            revision_instances.c.state.is_not(None),
        )
        .order_by(revision_instances.c.position)
    )
    return tuple(
        InstanceOutcome(row.digest, InstanceState(row.state), _reason(row.reason), row.detail)
        for row in rows
    )


def _evidence(connection: sa.Connection, revision_id: int) -> tuple[EvidenceInstance, ...]:
    """Return the instances of a revision in their order, as a report references them."""
    rows = connection.execute(
        sa.select(
            instances.c.sop_class_uid, instances.c.sop_instance_uid, instances.c.instance_number
        )
        .join(revision_instances)
        .where(revision_instances.c.revision_id == revision_id)
        .order_by(revision_instances.c.position)
    )
    return tuple(EvidenceInstance(*row) for row in rows)
