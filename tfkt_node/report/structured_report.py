"""The Structured Report of one verdict (Comprehensive SR, PS3.16 TID 1500).

An ASSESSED revision becomes one measurement group for each stack with a score (TID 1501), the
deciding stack first, then its worst slices (TID 1410). Every group has coordinates: one without
would leave OHIF's viewport black. A revision without a score becomes prose under a private title,
which viewers print as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydicom.sr.coding import Code

from tfkt_node.records import (
    Assessment,
    Confidence,
    EvidenceInstance,
    MadeObject,
    Outcome,
    ReportRecord,
    SliceScore,
    StackSummary,
)
from tfkt_node.report import codes, prose, uids
from tfkt_node.report.content import (
    NODE_NAME,
    Item,
    Relationship,
    code,
    container,
    device_observer,
    image,
    language,
    number,
    rectangle,
    text,
    uid,
)
from tfkt_node.report.document import SR_FORM, Form, make
from tfkt_node.report.findings import (
    DESCRIPTIONS,
    contradiction,
    deciding_stack,
    has_score,
    lowest,
    outline,
    reference,
    score_of,
    scored_evidence,
    verdict_of,
    worst_first,
)
from tfkt_node.report.summary import place, short, summary


def build(record: ReportRecord, worst_slices: int, form: Form = SR_FORM) -> MadeObject:
    """Make the report. worst_slices: how many slices are listed beside the worst one, 0 to 30.

    form: Comprehensive or Enhanced SR, of the same content. Raises Permanent where the record
    contradicts itself; nothing is invented to hide that.
    """
    a = record.assessment
    if a.outcome is Outcome.ASSESSED:
        evidence = scored_evidence(record)
        tree = _measurement_report(record, form, evidence, worst_slices)
        flagged = ", flagged" if a.flagged else ""
        unsure = ", low confidence" if a.confidence is Confidence.LOW_CONFIDENCE else ""
        said = f"{DESCRIPTIONS[verdict_of(a)]}{flagged}{unsure}"
    else:
        evidence = {instance.sop_uid: instance for instance in record.evidence}
        tree = _text_report(record)
        said = DESCRIPTIONS[a.outcome]
    return make(form, record, f"CT image quality: {said}", tree, tuple(evidence.values()))


def _head(record: ReportRecord) -> tuple[Item, ...]:
    return (
        language(),
        *device_observer(record),
        code(codes.PROCEDURE_REPORTED, codes.CT_PROCEDURE, "HAS CONCEPT MOD"),
    )


def _measurement_report(
    record: ReportRecord,
    form: Form,
    evidence: Mapping[str, EvidenceInstance],
    worst_slices: int,
) -> Item:
    a = record.assessment
    deciding = deciding_stack(a)
    others = [stack for stack in a.stacks if stack is not deciding and has_score(stack)]
    # The worst slice itself has its outline in the stack's group; two there would overprint.
    worst = (lowest(deciding).sop_uid, lowest(deciding).frame)
    ordered = [item for item in worst_first(deciding) if (item.sop_uid, item.frame) != worst]
    listed = ordered[:worst_slices]
    decided = (_verdict(a), _criteria(a, ordered, listed))
    groups = [_stack_group(record, form, deciding, _measurements(deciding, evidence), decided)]
    groups += [
        _stack_group(record, form, stack, _measurements(stack, evidence)) for stack in others
    ]
    groups += [_slice_group(record, form, deciding, item, evidence) for item in listed]
    remarks = [text(codes.COMMENT, line) for line in prose.remarks(a)]
    return container(
        codes.IMAGING_MEASUREMENT_REPORT,
        *_head(record),
        *summary(record, listed),
        container(codes.IMAGING_MEASUREMENTS, *groups),
        *([container(codes.QUALITATIVE_EVALUATIONS, *remarks)] if remarks else []),
        template="1500",
        root=True,
    )


def _tracking(record: ReportRecord, form: Form, name: str, *key: str) -> tuple[Item, Item]:
    """Name a group of one object: OHIF would draw what it once read under the same UID again."""
    return (
        text(codes.TRACKING_IDENTIFIER, name, "HAS OBS CONTEXT"),
        uid(codes.TRACKING_UID, uids.derived("tracking", form.kind, record.verdict_id, *key)),
    )


def _stack_group(
    record: ReportRecord,
    form: Form,
    stack: StackSummary,
    measurements: Iterable[Item],
    decided: tuple[Iterable[Item], Iterable[Item]] = ((), ()),
) -> Item:
    """Sum a stack up (TID 1501). decided: verdict and criteria, for the stack that decided."""
    a = record.assessment
    index = next(i for i, other in enumerate(a.stacks) if other is stack)
    verdict, criteria = decided
    return container(
        codes.MEASUREMENT_GROUP,
        *_tracking(record, form, prose.stack_name(a, index), "stack", str(index)),
        code(codes.FINDING, codes.IMAGE_QUALITY_ANALYSIS),
        *verdict,
        *measurements,
        *criteria,
        *_algorithm(record),
        template="1501",
    )


def _algorithm(
    record: ReportRecord, relationship: Relationship = "HAS CONCEPT MOD"
) -> Iterator[Item]:
    """Name model, criteria and software (TID 4019)."""
    a = record.assessment
    if a.bundle is not None:
        yield text(codes.ALGORITHM_NAME, a.bundle.name, relationship)
        yield text(codes.ALGORITHM_VERSION, a.bundle.version, relationship)
    elif a.outcome is Outcome.ASSESSED:
        raise contradiction("ASSESSED without a bundle")
    for line in _parameters(record):
        yield text(codes.ALGORITHM_PARAMETERS, line, relationship)


def _parameters(record: ReportRecord) -> Iterator[str]:
    """Return what an outcome depends on, one line each."""
    a = record.assessment
    if a.bundle is not None:
        yield f"bundle digest: {a.bundle.digest}"
        yield f"engine: {a.bundle.engine}, precision: {a.bundle.precision}"
    yield f"criteria owner: {a.criteria.owner}"
    yield f"criteria digest: {a.criteria.digest}"
    yield f"software: {NODE_NAME} {record.software_version}"


def _verdict(a: Assessment) -> Iterator[Item]:
    """Say what was decided; the comments are what OHIF writes first beside the worst slice."""
    for line in short(a):
        yield text(codes.COMMENT, line)
    yield code(codes.SERIES_QUALITY, codes.VERDICTS[verdict_of(a)])
    yield code(codes.FLAG, codes.FLAGS[a.flagged])
    if a.confidence is not None:
        yield code(codes.CONFIDENCE, codes.CONFIDENCES[a.confidence])
    for reason in a.confidence_reasons:
        yield code(codes.CONFIDENCE_REASON, codes.REASONS[reason])


def _measurements(stack: StackSummary, evidence: Mapping[str, EvidenceInstance]) -> Iterator[Item]:
    worst = lowest(stack)
    region = rectangle(
        codes.IMAGE_REGION,
        outline(worst.outline, stack.rows, stack.columns),
        "INFERRED FROM",
        image(*reference(worst, evidence), "SELECTED FROM"),
    )
    # OHIF prints five lines, so what matters comes first.
    yield number(codes.STACK_SCORE, score_of(stack), codes.SCORE_UNIT)
    if stack.interval is not None:
        yield number(codes.INTERVAL_LOW, stack.interval[0], codes.SCORE_UNIT)
        yield number(codes.INTERVAL_HIGH, stack.interval[1], codes.SCORE_UNIT)
    yield number(codes.LOWEST_SCORE, score_of(worst), codes.SCORE_UNIT, region)
    if worst.position_mm is not None:
        yield number(codes.LOWEST_POSITION, round(worst.position_mm, 4), codes.MILLIMETRE)
    if stack.p10 is not None:
        yield number(codes.TENTH_PERCENTILE, stack.p10, codes.SCORE_UNIT)
    if stack.below_threshold is not None:
        share = round(100 * stack.below_threshold, 2)
        yield number(codes.BELOW_THRESHOLD, share, codes.PERCENT)
    yield number(codes.SLICES_IN_SCOPE, stack.in_scope, codes.SLICES_UNIT)
    yield number(codes.SLICES_OUT_OF_SCOPE, stack.out_of_scope, codes.SLICES_UNIT)
    if stack.gaps is not None:
        yield number(codes.COVERAGE_GAPS, stack.gaps, codes.PLACES_UNIT)
    if stack.repeated is not None:
        yield number(codes.REPEATED_POSITIONS, stack.repeated, codes.PLACES_UNIT)
    if stack.spacing_mm is not None:
        yield number(codes.SLICE_SPACING, round(stack.spacing_mm, 4), codes.MILLIMETRE)
    ends = [item.position_mm for item in stack.slices if item.position_mm is not None]
    if len(ends) == len(stack.slices):
        yield number(codes.EXTENT, round(max(ends) - min(ends), 4), codes.MILLIMETRE)
    for name, (concept, unit) in codes.PHYSICS.items():
        value = stack.physics.get(name)
        if value is not None:
            yield number(concept, value, unit)


def _criteria(
    a: Assessment, ordered: Sequence[SliceScore], listed: Sequence[SliceScore]
) -> Iterator[Item]:
    """Say by which thresholds it was decided, and how many slices have no group of their own."""
    yield number(codes.NOT_LISTED, len(ordered) - len(listed), codes.SLICES_UNIT)
    yield number(codes.DIAGNOSTIC_FROM, a.criteria.diagnostic_from, codes.SCORE_UNIT)
    yield number(codes.LIMITED_FROM, a.criteria.limited_from, codes.SCORE_UNIT)
    yield number(codes.MINIMUM_SLICES, a.criteria.min_slices, codes.SLICES_UNIT)
    yield code(codes.FLAG_AT, codes.VERDICTS[a.criteria.flag_at])
    yield code(codes.CRITERIA_FOR, codes.POPULATIONS[a.criteria.population])


def _slice_group(
    record: ReportRecord,
    form: Form,
    stack: StackSummary,
    item: SliceScore,
    evidence: Mapping[str, EvidenceInstance],
) -> Item:
    """Point at one slice (TID 1410)."""
    region = rectangle(
        codes.IMAGE_REGION,
        outline(item.outline, stack.rows, stack.columns),
        "CONTAINS",
        image(*reference(item, evidence), "SELECTED FROM"),
    )
    key = ("slice", item.sop_uid, str(item.frame or 0))
    return container(
        codes.MEASUREMENT_GROUP,
        *_tracking(record, form, _title(item, evidence), *key),
        region,
        number(codes.SLICE_SCORE, score_of(item), codes.SCORE_UNIT),
        template="1410",
    )


def _title(item: SliceScore, evidence: Mapping[str, EvidenceInstance]) -> str:
    name = place(item, evidence)
    return f"{name[0].upper()}{name[1:]}"


def _text_report(record: ReportRecord) -> Item:
    a = record.assessment
    if a.reason is None:
        raise contradiction(f"{a.outcome} without a reason")
    result = [
        code(codes.OUTCOME, codes.OUTCOMES[a.outcome]),
        code(codes.REASON, codes.REASONS[a.reason]),
        code(codes.FLAG, codes.FLAGS[a.flagged]),
    ]
    if a.detail:
        result.append(text(codes.DETAIL, a.detail))
    remarks = [text(codes.COMMENT, line) for line in prose.remarks(a)]
    return container(
        codes.TEXT_REPORT,
        *_head(record),
        *summary(record),
        container(codes.OUTCOME_SECTION, *result),
        *_section(codes.STACKS_SECTION, remarks),
        container(
            codes.METHOD_SECTION,
            *_algorithm(record, "CONTAINS"),
            code(codes.CRITERIA_FOR, codes.POPULATIONS[a.criteria.population]),
        ),
        root=True,
    )


def _section(name: Code, items: Iterable[Item]) -> tuple[Item, ...]:
    found = tuple(items)
    return (container(name, *found),) if found else ()
