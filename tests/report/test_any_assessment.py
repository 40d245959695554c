"""Whatever the records allow becomes a sound object or one clear error, never anything between."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import pytest
from highdicom.sr import srread
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from tests.report import samples
from tests.report.test_identity import NAMES, elements, request
from tfkt_node.records import (
    CT_CLASSES,
    Assessment,
    BundleInForce,
    Confidence,
    CriteriaInForce,
    EarlierVerdict,
    EvidenceInstance,
    InstanceOutcome,
    InstanceState,
    MadeObject,
    Outcome,
    Permanent,
    Population,
    Predecessor,
    Reason,
    ReportRecord,
    SliceScore,
    StackSummary,
    Verdict,
)
from tfkt_node.report import codes, key_objects, structured_report, summary_picture
from tfkt_node.report.document import ENHANCED_SR_FORM, SR_FORM, Form

pytestmark = pytest.mark.station

scores = st.floats(0, 4).map(lambda value: round(value, 4))
counts = st.integers(0, 10_000)
words = st.text(max_size=40)
reasons = st.sampled_from(Reason)
EARLIEST = datetime(1970, 1, 3)  # noqa: DTZ001 - Hypothesis adds the zone


def optional(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


def usually(
    values: st.SearchStrategy[object], otherwise: st.SearchStrategy[object] | None = None
) -> st.SearchStrategy[object]:
    """Mostly a value: what contradicts itself is refused, and most examples should not be."""
    rare = st.none() if otherwise is None else otherwise
    return st.integers(1, 20).flatmap(lambda number: rare if number == 13 else values)


slices = st.builds(
    SliceScore,
    digest=st.integers(1, 30).map(lambda n: f"{n:064x}"),
    sop_uid=st.integers(1, 30).map(lambda n: f"{samples.SERIES}.{n}"),
    frame=optional(st.integers(1, 400)),
    position_mm=optional(st.floats(-2000, 2000)),
    score=usually(scores),
    interval=optional(st.tuples(scores, scores)),
    in_scope=st.booleans(),
    reason=optional(reasons),
    outline=optional(st.tuples(*[st.integers(-10, 600)] * 4)),
)
stacks = st.builds(
    StackSummary,
    acquisition=optional(words),
    orientation=st.sampled_from(["AXIAL", "CORONAL", "", "?"]),
    kernel=optional(words),
    rows=st.integers(1, 4096),
    columns=st.integers(1, 4096),
    score=usually(scores),
    interval=optional(st.tuples(scores, scores)),
    p10=optional(scores),
    minimum=optional(slices),
    below_threshold=optional(st.floats(0, 1)),
    in_scope=counts,
    out_of_scope=counts,
    gaps=optional(counts),
    repeated=optional(counts),
    spacing_mm=optional(st.floats(0, 100)),
    physics=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(codes.PHYSICS, usually(optional(st.floats(0, 1e9)), st.floats()))
    ),
    slices=st.lists(slices, min_size=1, max_size=6).map(tuple),
)


def with_its_lowest(stack: StackSummary) -> StackSummary:
    scored = [item for item in stack.slices if item.score is not None]
    return replace(stack, minimum=min(scored, key=lambda item: item.score or 0, default=None))


stacks = usually(stacks.map(with_its_lowest), stacks)
criteria = st.builds(
    CriteriaInForce,
    population=st.sampled_from(Population),
    diagnostic_from=scores,
    limited_from=scores,
    flag_at=st.sampled_from(Verdict),
    min_slices=st.integers(1, 100),
    owner=words,
    digest=st.just("c" * 64),
)
outcomes = st.builds(
    InstanceOutcome,
    digest=st.integers(1, 60).map(lambda n: f"{n:064x}"),
    state=st.sampled_from(InstanceState),
    reason=optional(reasons),
)


@st.composite
def assessments(draw: st.DrawFn) -> Assessment:
    found = draw(st.lists(stacks, min_size=draw(st.sampled_from([0, 1, 1])), max_size=3).map(tuple))
    return Assessment(
        outcome=draw(st.sampled_from([Outcome.ASSESSED, Outcome.ASSESSED, *Outcome])),
        reason=draw(usually(reasons)),
        detail=draw(words),
        verdict=draw(usually(st.sampled_from(Verdict))),
        confidence=draw(optional(st.sampled_from(Confidence))),
        confidence_reasons=tuple(draw(st.lists(reasons, max_size=3))),
        flagged=draw(st.sampled_from([True, True, False])),
        score=draw(optional(scores)),
        interval=draw(optional(st.tuples(scores, scores))),
        deciding_stack=draw(usually(st.integers(0, max(0, len(found) - 1)))),
        stacks=found,
        instances=tuple(draw(st.lists(outcomes, max_size=4))),
        criteria=draw(criteria),
        bundle=draw(usually(st.just(BundleInForce("n", "1", "d", "openvino", "fp32")))),
    )


uids = st.sampled_from(["", "1.2.840.1", "0", "not a UID", "1" * 65, "山"])
latin = st.text(st.characters(codec="latin-1", exclude_characters="\\\r\n\f\t\x1b"), max_size=16)
requests = st.builds(
    request, RequestedProcedureID=latin, AccessionNumber=latin, StudyInstanceUID=st.just("1.2.9")
)
attributes = st.one_of(
    st.sampled_from(sorted(NAMES)).map(lambda name: elements(NAMES[name], name)),
    st.builds(
        samples.patient,
        PatientName=latin,
        PatientID=latin,
        AdmissionID=latin,
        TimezoneOffsetFromUTC=st.sampled_from(["+0100", "-0000", "+1500", "", "zone"]),
        RequestAttributesSequence=st.lists(requests, max_size=2),
    ).map(samples.encode_attributes),
)
"""Patient and study as reception stores them, or bytes that are no data set."""


@st.composite
def records(draw: st.DrawFn) -> ReportRecord:
    """Any record: any patient and study, with or without a report before it, and instances."""
    record = samples.record_of(draw(assessments()))
    instances = st.builds(
        EvidenceInstance,
        sop_class_uid=st.sampled_from(sorted(CT_CLASSES)),
        sop_uid=st.just(""),
        instance_number=optional(st.integers(-(2**31), 2**31)),
    )
    named = [replace(draw(instances), sop_uid=item.sop_uid) for item in record.evidence]
    return replace(
        record,
        attributes=draw(usually(attributes, st.binary(max_size=60))),
        patient_id=draw(words),
        study_uid=draw(uids),
        series_uid=draw(uids),
        evidence=draw(usually(st.just(tuple(named)), st.just(tuple(named[1:])))),
        predecessor=draw(optional(st.just(Predecessor(SR_FORM.sop_class_uid, "2.25.1", "2.25.2")))),
        before=draw(
            st.lists(
                st.builds(
                    EarlierVerdict,
                    revision_number=st.integers(1, 1000),
                    outcome=st.sampled_from(Outcome),
                    verdict=optional(st.sampled_from(Verdict)),
                    flagged=st.booleans(),
                    criteria=optional(criteria),
                ),
                max_size=3,
            ).map(tuple)
        ),
        decided_at=draw(st.datetimes(EARLIEST, timezones=st.just(UTC))),
        software_version=draw(words),
        node_uid="2.25.321",
    )


def items(ds: Dataset) -> Iterator[Dataset]:
    for child in ds.get("ContentSequence", []):
        yield child
        yield from items(child)


def assert_sound(made: MadeObject) -> None:
    ds = samples.read(made.content)
    assert re.fullmatch(r"[0-9.]{1,64}", ds.StudyInstanceUID)
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in ds.get("CurrentRequestedProcedureEvidenceSequence", [])
        for item in study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    }
    for item in items(ds):
        if item.ValueType == "TEXT":
            assert str(item.TextValue).isascii()
            assert str(item.TextValue).strip()
        if item.ValueType == "IMAGE":
            assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID in evidence
        if item.ValueType == "SCOORD":
            corners = list(item.GraphicData)
            assert corners[:2] == corners[-2:]
            assert min(corners) >= 0
        if item.ValueType == "CONTAINER":
            assert item.ContinuityOfContent == "SEPARATE"
            assert len(item.ContentSequence) > 0


def made_or_refused(make: Callable[[], MadeObject]) -> MadeObject | None:
    try:
        return make()
    except Permanent as error:
        cure = error.cure
    assert cure
    return None


@given(
    record=records(),
    worst_slices=st.integers(0, 30),
    form=st.sampled_from([SR_FORM, SR_FORM, ENHANCED_SR_FORM]),
)
@settings(max_examples=60, deadline=None)
def test_any_record_makes_a_sound_report_or_one_clear_error(
    record: ReportRecord, worst_slices: int, form: Form
) -> None:
    """P6: no other exception leaves, and what is made reads back whole."""
    made = made_or_refused(lambda: structured_report.build(record, worst_slices, form))

    event("made" if made else "refused")
    if made:
        assert_sound(made)
        assert srread(BytesIO(made.content)).content is not None


@given(record=records())
@settings(max_examples=15, deadline=None)
def test_any_record_makes_a_picture_or_one_clear_error(record: ReportRecord) -> None:
    """P6: and never a picture of something that has no score."""
    made = made_or_refused(lambda: summary_picture.build(record, None))

    event("made" if made else "refused")
    if made:
        assert (1024, 1024, 3) == samples.read(made.content).pixel_array.shape
        assert record.assessment.verdict is not None


@given(record=records())
@settings(max_examples=60, deadline=None)
def test_any_record_makes_a_sound_selection_or_one_clear_error(record: ReportRecord) -> None:
    """A Key Object Selection names at least one slice, and only slices among its evidence."""
    made = made_or_refused(lambda: key_objects.build(record))

    event("made" if made else "refused")
    if made:
        assert_sound(made)
        assert any(item.ValueType == "IMAGE" for item in items(samples.read(made.content)))
