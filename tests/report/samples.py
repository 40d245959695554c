"""Records as the audit store hands them over, made of plain values and of real headers."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tfkt_node.records import (
    CT_IMAGE,
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
    Population,
    Predecessor,
    Reason,
    ReportRecord,
    SliceScore,
    StackSummary,
    Verdict,
)

DECIDED = datetime(2026, 3, 5, 22, 30, 15, tzinfo=UTC)
CRITERIA = CriteriaInForce(
    population=Population.ADULT,
    diagnostic_from=2.5,
    limited_from=1.5,
    flag_at=Verdict.LIMITED,
    min_slices=5,
    owner="Physics group",
    digest="c" * 64,
)
BUNDLE = BundleInForce("tfkt-v2-lite", "0.1.0", "b" * 64, "openvino", "fp32")
STUDY, SERIES = "1.2.3.4", "1.2.3.4.5"


def slice_score(number: int, score: float, outline: tuple[int, int, int, int]) -> SliceScore:
    return SliceScore(
        digest=f"{number:064x}",
        sop_uid=f"{SERIES}.{number}",
        frame=None,
        position_mm=5.0 * number,
        score=score,
        interval=(round(score - 0.3, 4), round(score + 0.3, 4)),
        in_scope=True,
        reason=None,
        outline=outline,
    )


def left_out(number: int, reason: Reason) -> SliceScore:
    return SliceScore(
        f"{number:064x}", f"{SERIES}.{number}", None, 5.0 * number, None, None, False, reason
    )


def stack_of(slices: tuple[SliceScore, ...]) -> StackSummary:
    """A stack around slices whose scores rise with their number."""
    scored = sorted((item for item in slices if item.score is not None), key=lambda i: i.score)
    scores = [item.score for item in scored]
    score = scores[len(scores) // 2] if scores else None
    return StackSummary(
        acquisition="1",
        orientation="AXIAL",
        kernel="STANDARD",
        rows=512,
        columns=512,
        score=score,
        interval=None if score is None else (round(score - 0.3123, 4), round(score + 0.4877, 4)),
        p10=scores[len(scores) // 10] if scores else None,
        minimum=scored[0] if scored else None,
        below_threshold=0.8125 if scores else None,
        in_scope=len(scored),
        out_of_scope=len(slices) - len(scored),
        gaps=1,
        repeated=0,
        spacing_mm=5.0,
        physics={
            "noise_hu": 11.4567,
            "noise_fine_to_coarse": 0.5123,
            "streak_index": 0.4321,
            "water_equivalent_diameter_mm": 281.3021,
            "ctdi_vol_mgy": 6.5,
            "ssde_mgy": 8.5712,
        },
        slices=slices,
    )


def assessment_of(stacks: tuple[StackSummary, ...], **changes: object) -> Assessment:
    slices = [item for stack in stacks for item in stack.slices]
    made = Assessment(
        outcome=Outcome.ASSESSED,
        reason=None,
        detail="",
        verdict=Verdict.LIMITED,
        confidence=Confidence.LOW_CONFIDENCE,
        confidence_reasons=(Reason.AGE_UNKNOWN, Reason.COVERAGE),
        flagged=True,
        score=stacks[0].score if stacks else None,
        interval=stacks[0].interval if stacks else None,
        deciding_stack=0,
        stacks=stacks,
        instances=tuple(
            InstanceOutcome(
                item.digest,
                InstanceState.SCORED if item.in_scope else InstanceState.NOT_ASSESSED,
                item.reason,
            )
            for item in slices
        ),
        criteria=CRITERIA,
        bundle=BUNDLE,
    )
    return replace(made, **changes)


def encode_attributes(ds: Dataset) -> bytes:
    """The patient and study attributes as reception keeps them."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return buffer.getvalue()


def raw(tag: int, vr: str, value: bytes) -> bytes:
    """One element of them in its own bytes, which pydicom never sees."""
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def patient(**values: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.StudyInstanceUID = STUDY
    ds.StudyDate, ds.StudyTime = "20260305", "221500"
    ds.AccessionNumber, ds.StudyID = "A-17", "17"
    ds.ReferringPhysicianName = "Ray^X"
    ds.PatientName, ds.PatientID = "Phantom^Anna^^^", "P-17"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19600102", "F", "066Y"
    ds.StudyDescription = "CT CHEST"
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def record_of(assessment: Assessment, attributes: Dataset | None = None, **changes: object):
    attributes = attributes if attributes is not None else patient()
    uids = dict.fromkeys(item.sop_uid for stack in assessment.stacks for item in stack.slices)
    made = ReportRecord(
        verdict_id="5b1b0f6e-58a1-4a83-9c7a-5f53f2f0a001",
        decided_at=DECIDED,
        revision_number=1,
        patient_id=str(attributes.get("PatientID", "")),
        study_uid=str(attributes.get("StudyInstanceUID", "")),
        series_uid=SERIES,
        attributes=encode_attributes(attributes),
        assessment=assessment,
        evidence=tuple(
            EvidenceInstance(CT_IMAGE, uid, number) for number, uid in enumerate(uids, start=1)
        )
        or (EvidenceInstance(CT_IMAGE, f"{SERIES}.1", 1),),
        before=(),
        predecessor=None,
        node_uid="2.25.321",
        software_version="0.1.0",
    )
    return replace(made, **changes)


def predecessor(report: MadeObject) -> Predecessor:
    """How the record of the next revision names a report."""
    return Predecessor(report.sop_class_uid, report.sop_instance_uid, report.series_uid)


def before(**changes: object) -> EarlierVerdict:
    """What the record of the next revision says of the one before."""
    said = EarlierVerdict(
        revision_number=1,
        outcome=Outcome.ASSESSED,
        verdict=Verdict.NON_DIAGNOSTIC,
        flagged=True,
    )
    return replace(said, **changes)


def flagged_assessment(slices: int = 40, **changes: object) -> Assessment:
    """LIMITED and flagged: two thirds scored, the last five out of scope, and a reformat."""
    scored = tuple(
        slice_score(n, round(1.0 + 1.7 * n / slices, 4), (60, 90, 450, 400))
        for n in range(1, slices - 4)
    )
    apart = tuple(left_out(n, Reason.NO_BODY) for n in range(slices - 4, slices + 1))
    reformat = replace(
        stack_of((left_out(slices + 1, Reason.NOT_AXIAL),)), orientation="CORONAL", physics={}
    )
    return assessment_of((stack_of(scored + apart), reformat), **changes)


def unassessed(outcome: Outcome, reason: Reason, **changes: object) -> Assessment:
    stack = replace(stack_of((left_out(1, reason), left_out(2, reason))), physics={})
    return assessment_of(
        (stack,),
        **{
            "outcome": outcome,
            "reason": reason,
            "verdict": None,
            "confidence": None,
            "confidence_reasons": (),
            "flagged": False,
            "deciding_stack": None,
            **changes,
        },
    )


def read(content: bytes) -> Dataset:
    return dcmread(BytesIO(content))


def zone(offset: timedelta) -> timezone:
    return timezone(offset)
