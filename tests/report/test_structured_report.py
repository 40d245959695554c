"""The Structured Report says what the audit says, in the same bytes each time."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from highdicom.sr import srread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.audit import making
from tests.conftest import ROOT
from tests.report import samples
from tfkt_node.audit.store import Store
from tfkt_node.reception.file_meta import encode_meta
from tfkt_node.reception.headers import read_header
from tfkt_node.records import (
    CT_IMAGE,
    ENHANCED_CT_IMAGE,
    RETRY_DELIVERIES,
    Assessment,
    Confidence,
    EvidenceInstance,
    InstanceHeader,
    InstanceOutcome,
    InstanceState,
    Outcome,
    Permanent,
    Reason,
    ReportRecord,
    Verdict,
)
from tfkt_node.report import codes, key_objects, structured_report
from tfkt_node.report.document import ENHANCED_SR_FORM, SR_FORM
from tfkt_node.report.findings import outline

REBUILD = """
import hashlib, pickle, sys
from tfkt_node.report import key_objects, structured_report
record = pickle.load(sys.stdin.buffer)
for made in (structured_report.build(record, 10), key_objects.build(record)):
    print(hashlib.sha256(made.content).hexdigest())
"""


def build(assessment: Assessment, worst_slices: int = 10, **changes: object) -> Dataset:
    record = samples.record_of(assessment, **changes)
    return samples.read(structured_report.build(record, worst_slices).content)


def children(item: Dataset, name: str) -> list[Dataset]:
    return [
        child
        for child in item.get("ContentSequence", [])
        if child.ConceptNameCodeSequence[0].CodeMeaning == name
    ]


def groups(report: Dataset) -> list[Dataset]:
    (measurements,) = children(report, "Imaging Measurements")
    return children(measurements, "Measurement Group")


def texts(item: Dataset) -> list[str]:
    """Every TEXT below an item."""
    own = [str(item.TextValue)] if "TextValue" in item else []
    return own + [text for child in item.get("ContentSequence", []) for text in texts(child)]


def coded(item: Dataset, name: str) -> list[tuple[str, str]]:
    values = [child.ConceptCodeSequence[0] for child in children(item, name)]
    return [(value.CodingSchemeDesignator, value.CodeValue) for value in values]


@pytest.mark.station
def test_the_same_record_gives_the_same_bytes_anywhere() -> None:
    """P5: another process in another time zone, at another time, makes the identical object."""
    record = samples.record_of(samples.flagged_assessment())

    runs = [
        subprocess.run(
            [sys.executable, "-c", REBUILD],
            input=pickle.dumps(record),
            env={**os.environ, "TZ": zone, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for zone, seed in (("UTC", "7"), ("Asia/Tokyo", "8"))
    ]

    assert runs[0] == runs[1]
    assert 2 == len(set(runs[0].split()))


def test_numbers_come_back_as_they_were_committed(tmp_path: Path) -> None:
    """Audit and report agree exactly: every number reads back as it stands in the record."""
    assessment = samples.flagged_assessment()
    stack = assessment.stacks[0]
    path = tmp_path / "sr.dcm"
    path.write_bytes(structured_report.build(samples.record_of(assessment), 10).content)

    parsed = srread(path).content.get_image_measurement_groups()
    found = {
        item.name.meaning: item.value
        for item in parsed[0][0].ContentSequence
        if item.ValueType == "NUM"
    }

    assert stack.minimum is not None
    assert found == {
        "Image Set Quality Rating": stack.score,
        "Lowest slice score": stack.minimum.score,
        "10th percentile of scores": stack.p10,
        "Slices below threshold": 81.25,
        "90 % interval, low": 1.4527,
        "90 % interval, high": 2.2527,
        "Slices in scope": 35,
        "Slices out of scope": 5,
        "Coverage gaps": 1,
        "Repeated positions": 0,
        "Global noise": 11.4567,
        "Noise, fine to coarse": 0.5123,
        "Streak index": 0.4321,
        "Position of lowest slice": 5.0,
        "Spacing between slices": 5.0,
        "Extent, first to last slice": 195.0,
        "Slices not listed": 24,
        "Water Equivalent Diameter": 281.3021,
        "Mean CTDIvol": 6.5,
        "Size Specific Dose Estimate": 8.5712,
        "Diagnostic from": 2.5,
        "Limited from": 1.5,
        "Slices needed": 5,
    }


def test_what_is_not_known_of_a_stack_is_left_out() -> None:
    """P6: no number stands for gaps and repeats that nobody could count."""
    known = samples.flagged_assessment()
    unknown = replace(known.stacks[0], gaps=None, repeated=None)
    report = build(replace(known, stacks=(unknown, known.stacks[1])))

    group = groups(report)[0]
    assert [] == children(group, "Coverage gaps") + children(group, "Repeated positions")
    assert 1 == len(children(group, "Slices in scope"))


def test_deciding_group_states_verdict_flag_and_confidence() -> None:
    """Verdict by RadLex, flag and confidence by codes of the node's own, declared once."""
    report = build(samples.flagged_assessment())
    group = groups(report)[0]

    assert [("RADLEX", "RID13")] == coded(group, "Imaging Series Quality")
    assert [("99TFKT", "V001")] == coded(group, "Flag")
    assert [("99TFKT", "V004")] == coded(group, "Confidence of verdict")
    assert [("99TFKT", "R019"), ("99TFKT", "R018")] == coded(group, "Reason of low confidence")
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert codes.SCHEME == scheme.CodingSchemeDesignator
    assert scheme.CodingSchemeUID.startswith("2.25.")


@pytest.mark.parametrize(
    ("unread", "apart", "counted"),
    [(20, 0, "20 slices"), (1, 0, "1 slice"), (0, 3, "3 instances"), (2, 1, "2 slices and 1 inst")],
)
def test_report_says_how_much_could_not_be_read(unread: int, apart: int, counted: str) -> None:
    """P6: beside the verdict stands what is missing from it, out of scope is not counted."""
    whole = samples.flagged_assessment(confidence_reasons=(Reason.AGE_UNKNOWN, Reason.PARTLY_READ))
    broken = tuple(samples.left_out(100 + n, Reason.UNDECODABLE) for n in range(unread))
    stack = replace(whole.stacks[0], slices=whole.stacks[0].slices + broken)
    lost = tuple(
        InstanceOutcome(f"{900 + n:064x}", InstanceState.NOT_ASSESSED, Reason.UNREADABLE)
        for n in range(apart)
    )
    screen = InstanceOutcome("f" * 64, InstanceState.NOT_ASSESSED, Reason.NOT_CT)
    report = build(
        replace(whole, stacks=(stack, whole.stacks[1]), instances=(*whole.instances, *lost, screen))
    )

    (said,) = children(report, "How sure")
    assert "adult criteria were applied. " + counted in said.TextValue
    assert " that should have been scored could not be read." in said.TextValue


def test_worst_slices_are_listed_without_the_worst_itself() -> None:
    """The worst slice carries the stack's outline; the next ones have groups, worst first."""
    report = build(samples.flagged_assessment(), worst_slices=4)

    stack, *slices = groups(report)
    (lowest,) = children(stack, "Lowest slice score")
    source = lowest.ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0]
    named = [
        children(group, "Image Region")[0]
        .ContentSequence[0]
        .ReferencedSOPSequence[0]
        .ReferencedSOPInstanceUID
        for group in slices
    ]
    assert f"{samples.SERIES}.1" == source.ReferencedSOPInstanceUID
    assert [f"{samples.SERIES}.{n}" for n in (2, 3, 4, 5)] == named


def test_every_group_has_coordinates_and_a_tracking_uid_of_its_own() -> None:
    """Without coordinates OHIF's viewport stays black; groups of one tracking UID are merged."""
    two = samples.flagged_assessment()
    twin = replace(two.stacks[0], acquisition="2")
    report = build(replace(two, stacks=(two.stacks[0], twin, two.stacks[1])))

    found = groups(report)
    uids = [children(group, "Tracking Unique Identifier")[0].UID for group in found]
    assert 12 == len(found) == len(set(uids))
    assert all("SCOORD" in str(group) for group in found)
    assert all(group.ContinuityOfContent == "SEPARATE" for group in found)


def tracking_uids(report: Dataset) -> set[str]:
    return {children(group, "Tracking Unique Identifier")[0].UID for group in groups(report)}


def test_no_tracking_uid_is_used_in_two_objects() -> None:
    """OHIF takes a tracking UID for the annotation itself: a superseded report's words would be
    drawn for the report that takes its place."""
    first = samples.record_of(samples.flagged_assessment())
    objects = [
        samples.read(structured_report.build(record, 3, form).content)
        for record in (first, replace(first, verdict_id="another", revision_number=2))
        for form in (SR_FORM, ENHANCED_SR_FORM)
    ]

    found = [tracking_uids(each) for each in objects]
    assert 4 * 4 == sum(map(len, found)) == len(set().union(*found))


def test_deciding_stack_comes_first_and_alone_has_the_verdict() -> None:
    """A viewer opens on the first group: the stack that decided."""
    flagged = samples.flagged_assessment()
    better = replace(flagged.stacks[0], score=3.5, acquisition="9")
    report = build(replace(flagged, stacks=(better, flagged.stacks[0]), deciding_stack=1), 0)

    first, second = groups(report)
    assert "Stack 2 of 2" in str(children(first, "Tracking Identifier")[0].TextValue)
    assert [("RADLEX", "RID13")] == coded(first, "Imaging Series Quality")
    assert [] == coded(second, "Imaging Series Quality")


def sentence(report: Dataset, name: str) -> str:
    (item,) = children(report, name)
    return str(item.TextValue)


NUMBER, DESCRIPTION = 0x00200011, 0x0008103E


def summary_with(assessment: Assessment, attributes: bytes) -> str:
    record = replace(samples.record_of(assessment), attributes=attributes)
    return sentence(samples.read(structured_report.build(record, 10).content), "Summary")


@pytest.mark.parametrize(
    ("number", "description", "named"),
    [
        (b"3", b"THORAX 1.0 B31f", 'CT series 3, "THORAX 1.0 B31f", '),
        (b" +003 ", "Schädel\\1.0 ~\n\x1b\0".encode(), 'CT series 3, "Sch?del?1.0 ? ?", '),
        (b"-1", "胸部 1.0".encode(), 'CT series -1, "?? 1.0", '),
        (b"3", "胸部".encode(), "CT series 3 "),
        (b"3", None, "CT series 3 "),
        (b"", b"", "this CT series "),
        (None, None, "this CT series "),
        (None, b"1.0 \xff", 'this CT series, "1.0 ?", '),
        (b"3\\4", b"THORAX", 'this CT series, "THORAX", '),
        ("３".encode(), b"THORAX", 'this CT series, "THORAX", '),
        (b"9" * 5000, b"x" * 20_000, f'this CT series, "{"x" * 64}", '),
    ],
    ids=[
        "plain", "odd", "partly readable", "unreadable", "number alone", "empty", "none",
        "description alone", "two numbers", "no ASCII number", "endless",
    ],
)  # fmt: skip
@pytest.mark.parametrize("now", ["flagged", "NOT_ASSESSED", "FAILED"])
def test_summary_names_the_series_that_it_speaks_of(
    now: str, number: bytes | None, description: bytes | None, named: str
) -> None:
    """By number and description, as viewers list it, in ASCII and no longer than a header's."""
    attributes = samples.encode_attributes(samples.patient(SpecificCharacterSet="ISO_IR 192"))
    if description is not None:
        attributes += samples.raw(DESCRIPTION, "LO", description)
    if number is not None:
        attributes += samples.raw(NUMBER, "IS", number)

    said = summary_with(NOW[now](), attributes)

    assert said.startswith(f"The image quality of {named}")


@pytest.mark.parametrize(
    ("character_set", "description", "name"),
    [
        ("ISO_IR 100", "Schädel 1.0".encode("latin-1"), "Sch?del 1.0"),
        ("\\ISO 2022 IR 87", "胸部 1.0".encode("iso2022_jp"), "?? 1.0"),
        ("Not Supplied", "Schädel 1.0".encode("latin-1"), "Sch?del 1.0"),
    ],
)
def test_description_is_read_in_the_character_set_of_the_images(
    character_set: str, description: bytes, name: str
) -> None:
    """One "?" stands for one character, and the bytes of another set are not taken for ASCII."""
    attributes = samples.raw(0x00080005, "CS", character_set.encode())
    attributes += samples.raw(DESCRIPTION, "LO", description)

    said = summary_with(samples.flagged_assessment(), attributes)

    assert f'this CT series, "{name}", is limited' in said


def test_description_of_the_series_goes_into_the_summary_alone() -> None:
    """It is free text of a person: no other object and no other text of the report repeats it."""
    record = samples.record_of(
        samples.flagged_assessment(), samples.patient(SeriesDescription="THORAX Anna")
    )
    report = samples.read(structured_report.build(record, 10).content)

    assert 1 == sum("THORAX" in text for text in texts(report))
    assert 1 == structured_report.build(record, 10).content.count(b"THORAX")
    assert b"THORAX" not in key_objects.build(record).content


def test_of_several_stacks_the_summary_says_which_one_it_speaks_of() -> None:
    """A score, a worst slice and an interval are those of one stack, and a series may have more."""
    flagged = samples.flagged_assessment()
    better = replace(flagged.stacks[0], score=3.5, acquisition="9")
    two = replace(flagged, stacks=(better, flagged.stacks[0]), deciding_stack=1)
    one = replace(flagged, stacks=flagged.stacks[:1])

    said = sentence(build(two), "Summary")
    assert (
        "The series has 2 stacks; the sentences of this report speak of the one that decided "
        "(Stack 2 of 2: acquisition 1, axial, kernel STANDARD)."
    ) in said
    assert "stacks" not in sentence(build(one), "Summary")


def test_what_has_no_score_is_said_in_words() -> None:
    """P6: stacks, slices and instances without a score are named with their reasons."""
    flagged = samples.flagged_assessment()
    undecodable = InstanceOutcome("f" * 64, InstanceState.NOT_ASSESSED, Reason.UNDECODABLE)
    said = texts(build(replace(flagged, instances=(*flagged.instances, undecodable))))

    assert (
        "Stack 1 of 2: acquisition 1, axial, kernel STANDARD: 5 slices out of scope: "
        "5 x NO_BODY: No body fills enough of the image."
    ) in said
    assert any(text.startswith("Stack 2 of 2") and "no score; 1 slice out" in text for text in said)
    assert ("1 instance in no stack: 1 x UNDECODABLE: The pixel data cannot be decoded.") in said


@pytest.mark.parametrize(
    ("outcome", "reason", "description", "code"),
    [
        (Outcome.NOT_ASSESSED, Reason.HEAD, "CT image quality: NOT ASSESSED", "V008"),
        (Outcome.FAILED, Reason.SCORER_TIMEOUT, "CT image quality: FAILED", "V009"),
    ],
)
def test_report_without_a_score_is_prose(
    outcome: Outcome, reason: Reason, description: str, code: str
) -> None:
    """P4: the reason as a code whose meaning is its sentence, under the private text title."""
    report = build(samples.unassessed(outcome, reason, detail="3 attempts"))

    assert ("99TFKT", "T001") == (
        report.ConceptNameCodeSequence[0].CodingSchemeDesignator,
        report.ConceptNameCodeSequence[0].CodeValue,
    )
    (result,) = children(report, "Result")
    assert [("99TFKT", code)] == coded(result, "Outcome")
    sentence = children(result, "Reason")[0].ConceptCodeSequence[0].CodeMeaning
    assert reason.sentence == f"{sentence}."
    assert "3 attempts" in texts(result)
    assert description == report.SeriesDescription
    method = texts(children(report, "Method")[0])
    assert f"criteria digest: {samples.CRITERIA.digest}" in method
    assert "criteria owner: Physics group" in method
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert 2 == len(evidence.ReferencedSOPSequence)


def test_failed_without_a_bundle_still_names_its_criteria() -> None:
    """Whoever answers for the criteria is named, though no model could be loaded."""
    failed = samples.unassessed(Outcome.FAILED, Reason.SCORER_CRASHED, bundle=None)

    assert [
        "criteria owner: Physics group",
        f"criteria digest: {samples.CRITERIA.digest}",
        "software: tfkt-node 0.1.0",
    ] == texts(children(build(failed), "Method")[0])


def test_device_is_called_alike_in_every_place() -> None:
    """Observer and equipment are one device; the version stands where versions stand."""
    report = build(samples.flagged_assessment())

    for name in ("Device Observer Name", "Device Observer Model Name"):
        assert ["tfkt-node"] == texts(children(report, name)[0])
    assert ("tfkt-node", "0.1.0") == (report.ManufacturerModelName, report.SoftwareVersions)
    assert "software: tfkt-node 0.1.0" in texts(groups(report)[0])


SURE, UNSURE = Confidence.CONFIDENT, Confidence.LOW_CONFIDENCE


@pytest.mark.parametrize(
    ("verdict", "flagged", "confidence", "said"),
    [
        (Verdict.DIAGNOSTIC, False, SURE, "DIAGNOSTIC"),
        (Verdict.LIMITED, True, SURE, "LIMITED, flagged"),
        (Verdict.LIMITED, False, UNSURE, "LIMITED, low confidence"),
        (Verdict.NON_DIAGNOSTIC, True, UNSURE, "NON-DIAGNOSTIC, flagged, low confidence"),
    ],
)
def test_series_description_is_fixed(
    verdict: Verdict, flagged: bool, confidence: Confidence, said: str
) -> None:
    """A PACS routes by series number and description, and shows how sure the verdict is (P6)."""
    report = build(
        replace(
            samples.flagged_assessment(), verdict=verdict, flagged=flagged, confidence=confidence
        ),
        attributes=samples.patient(SeriesNumber="3", SeriesDescription="THORAX"),
    )
    description = f"CT image quality: {said}"

    assert (9901, description) == (report.SeriesNumber, report.SeriesDescription)
    assert ("COMPLETE", "FINAL", "UNVERIFIED") == (
        report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag,
    )  # fmt: skip


def test_evidence_is_every_scored_instance_and_no_other() -> None:
    """What was out of scope is no evidence for a score."""
    report = build(samples.flagged_assessment())

    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    named = [item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence]
    assert [f"{samples.SERIES}.{n}" for n in range(1, 36)] == named


def test_frames_of_a_multi_frame_object_are_named() -> None:
    """A slice of an Enhanced CT is an instance and its frame."""
    flagged = samples.flagged_assessment(20)
    one = f"{samples.SERIES}.1"
    slices = tuple(
        replace(item, sop_uid=one, digest="1" * 64, frame=number)
        for number, item in enumerate(flagged.stacks[0].slices, start=1)
    )
    record = samples.record_of(
        samples.assessment_of((samples.stack_of(slices),)),
        evidence=(EvidenceInstance(ENHANCED_CT_IMAGE, one),),
    )

    report = samples.read(structured_report.build(record, 2).content)

    sources = [
        line.split()[-1].strip("'\"")
        for line in str(report).splitlines()
        if "Referenced Frame Number" in line
    ]
    assert ["1", "2", "3"] == sources
    assert ENHANCED_CT_IMAGE in structured_report.build(record, 2).content.decode("latin-1")


def test_later_revision_names_the_report_it_supersedes() -> None:
    """Predecessor Documents holds the SR before; each has a series of its own."""
    first = structured_report.build(samples.record_of(samples.flagged_assessment()), 10)
    second = structured_report.build(
        samples.record_of(
            samples.flagged_assessment(),
            verdict_id="b3e7",
            predecessor=samples.predecessor(first),
        ),
        10,
    )

    (study,) = samples.read(second.content).PredecessorDocumentsSequence
    series = study.ReferencedSeriesSequence[0]
    assert samples.STUDY == study.StudyInstanceUID
    assert first.series_uid == series.SeriesInstanceUID != second.series_uid
    assert (first.sop_class_uid, first.sop_instance_uid) == (
        series.ReferencedSOPSequence[0].ReferencedSOPClassUID,
        series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
    )


NOW: dict[str, Callable[[], Assessment]] = {
    "flagged": samples.flagged_assessment,
    "not flagged": lambda: samples.flagged_assessment(flagged=False),
    "NOT_ASSESSED": lambda: samples.unassessed(Outcome.NOT_ASSESSED, Reason.HEAD),
    "FAILED": lambda: samples.unassessed(Outcome.FAILED, Reason.SCORER_TIMEOUT),
}
NOT_FLAGGED_BEFORE = {
    "DIAGNOSTIC": (Outcome.ASSESSED, Verdict.DIAGNOSTIC),
    "NOT ASSESSED": (Outcome.NOT_ASSESSED, None),
    "FAILED": (Outcome.FAILED, None),
}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("flagged", "no longer holds; that of this report does."),
        ("not flagged", "no longer holds; the series is no longer flagged."),
        ("NOT_ASSESSED", NOT_JUDGED := (
            "was made of an earlier state of the series; this revision could not be judged: "
            "look at the images."
        )),
        ("FAILED", NOT_JUDGED),
    ],
)  # fmt: skip
def test_flag_before_is_answered_by_what_is_known_now(now: str, expected: str) -> None:
    """P6: only a verdict takes a flag back; a revision that could not be judged does not."""
    report = build(NOW[now](), before=(samples.before(),), revision_number=2)

    (said,) = texts(children(report, "Takes the place of")[0])
    assert said == (
        "This report takes the place of what was said of revision 1: NON-DIAGNOSTIC. "
        f'Its Key Object Selection "CT quality issue: NON-DIAGNOSTIC" {expected}'
    )


def test_flag_is_answered_though_what_came_between_could_not_be_judged() -> None:
    """P5: revision 1 flagged, 2 FAILED; the report of 3 answers both."""
    failed = samples.before(revision_number=2, outcome=Outcome.FAILED, verdict=None, flagged=False)
    report = build(NOW["not flagged"](), before=(failed, samples.before()), revision_number=3)

    (said,) = texts(children(report, "Takes the place of")[0])
    assert said == (
        "This report takes the place of what was said of revision 2: FAILED. "
        "This report takes the place of what was said of revision 1: NON-DIAGNOSTIC. "
        'Its Key Object Selection "CT quality issue: NON-DIAGNOSTIC" no longer holds; '
        "the series is no longer flagged."
    )


@pytest.mark.parametrize("now", NOW)
@pytest.mark.parametrize("before", NOT_FLAGGED_BEFORE)
def test_without_a_flag_before_none_is_taken_back(now: str, before: str) -> None:
    """What was said is named, and no more."""
    outcome, verdict = NOT_FLAGGED_BEFORE[before]
    earlier = samples.before(outcome=outcome, verdict=verdict, flagged=False)
    report = build(NOW[now](), before=(earlier,), revision_number=2)

    (said,) = texts(children(report, "Takes the place of")[0])
    assert f"This report takes the place of what was said of revision 1: {before}." == said


def test_changed_criteria_are_told_where_a_verdict_takes_the_place_of_another() -> None:
    """P6: DIAGNOSTIC turned LIMITED over the same images is the criteria's doing, and is said."""
    then = replace(samples.CRITERIA, diagnostic_from=2.0, flag_at=Verdict.NON_DIAGNOSTIC, owner="A")
    earlier = samples.before(verdict=Verdict.DIAGNOSTIC, flagged=False, criteria=then)

    (said,) = texts(children(build(NOW["flagged"](), before=(earlier,)), "Takes the place of")[0])

    assert said == (
        "This report takes the place of what was said of revision 1: DIAGNOSTIC. It was judged by "
        "other criteria: diagnostic from 2, now 2.5; flagged at or below NON-DIAGNOSTIC, now "
        "LIMITED; owner A, now Physics group."
    )


@pytest.mark.parametrize("now", ["NOT_ASSESSED", "FAILED"])
def test_criteria_are_not_blamed_where_none_were_applied(now: str) -> None:
    """What could not be judged was judged by none."""
    earlier = samples.before(criteria=replace(samples.CRITERIA, owner="A"))

    assert "other criteria" not in sentence(
        build(NOW[now](), before=(earlier,)), "Takes the place of"
    )


@pytest.mark.station
def test_audit_hands_over_the_criteria_of_a_verdict_before_where_they_changed(
    database_url: str,
) -> None:
    """P6: from rows alone the report of a later revision knows by what an earlier was judged."""
    then = replace(making.CRITERIA, diagnostic_from=1.75, owner="A", digest="d" * 64)
    with closing(Store(database_url)) as store:
        for number, used in enumerate((then, making.CRITERIA, making.CRITERIA), start=1):
            making.fill(store, 1, first=number, now_s=100 * number)
            making.close(store, 100 * number + 30)
            making.decide(store, 100 * number + 31, f"v{number}", criteria=used)
        second, third = (
            replace(store.report_record(verdict), attributes=b"") for verdict in ("v2", "v3")
        )

    said = sentence(samples.read(structured_report.build(second, 10).content), "Takes the place of")
    assert "other criteria: diagnostic from 1.75, now 2.5; owner A, now default." in said
    assert [None] == [one.criteria for one in third.before]


@pytest.mark.station
def test_report_made_again_after_a_corrected_resend_has_the_same_bytes(
    database_url: str, tmp_path: Path
) -> None:
    """P5: it names the series as it was when it was decided; the next report as it is now."""

    def header(number: str, description: str) -> InstanceHeader:
        path = tmp_path / f"{number}.dcm"
        ds = samples.patient(
            Modality="CT",
            SeriesInstanceUID=samples.SERIES,
            SeriesNumber=number,
            SeriesDescription=description,
        )
        meta = encode_meta(CT_IMAGE, "1.2.3.1", str(ExplicitVRLittleEndian), "SCANNER")
        path.write_bytes(meta + samples.encode_attributes(ds))
        return read_header(path)

    with closing(Store(database_url)) as store:

        def report(verdict: str) -> bytes:
            return structured_report.build(store.report_record(verdict), 10).content

        store.index_instance(making.instance(1), header("3", "THORAX 1.0 B31f"), making.at(0))
        making.close(store, 30)
        making.decide(store, 31, "v1")
        first = report("v1")
        corrected = making.instance(1, "corrected", received_s=50)
        store.index_instance(corrected, header("4", "ABDOMEN 1.0 B31f"), making.at(50))
        making.close(store, 80)
        making.decide(store, 81, "v2")

        assert first == report("v1")
        then, now = (sentence(samples.read(each), "Summary") for each in (first, report("v2")))
    assert then.startswith('The image quality of CT series 3, "THORAX 1.0 B31f", is limited.')
    assert now.startswith('The image quality of CT series 4, "ABDOMEN 1.0 B31f", is limited.')


def test_own_text_is_ascii_whatever_the_header_says() -> None:
    """The patient's character set rules the object, so a kernel's name is reduced to ASCII."""
    flagged = samples.flagged_assessment()
    stack = replace(flagged.stacks[0], kernel="Lunge\\weich ~ü\n")
    report = build(replace(flagged, stacks=(stack,)))

    (name,) = texts(children(groups(report)[0], "Tracking Identifier")[0])
    assert "Stack 1 of 1: acquisition 1, axial, kernel Lunge?weich ??" == name


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (None, (20.0, 40.0, 65.0, 160.0)),
        ((30, 50, 60, 150), (30.0, 50.0, 60.0, 150.0)),
        ((0, 0, 100, 200), (20.0, 40.0, 65.0, 160.0)),
        ((90, 50, 100, 150), (20.0, 40.0, 65.0, 160.0)),
    ],
)
def test_outline_stays_inside_the_centre(
    box: tuple[int, int, int, int] | None, expected: tuple[float, ...]
) -> None:
    """An outline near the border, or near the right, pushes its label out of the viewport."""
    assert expected == outline(box, rows=200, columns=100)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"verdict": None}, "without a verdict"),
        ({"deciding_stack": None}, "without a deciding stack"),
        ({"deciding_stack": 1}, "has no score"),
        ({"bundle": None}, "without a bundle"),
    ],
)
def test_record_that_contradicts_itself_is_an_error(changes: dict[str, object], what: str) -> None:
    """P6: nothing is made up to hide a gap; the error says what is wrong and what to do."""
    with pytest.raises(Permanent, match=what) as caught:
        build(replace(samples.flagged_assessment(), **changes))

    assert RETRY_DELIVERIES in caught.value.cure


def test_scored_slice_that_is_no_evidence_is_an_error() -> None:
    """A report must not point at what it does not list."""
    record: ReportRecord = samples.record_of(samples.flagged_assessment(), evidence=())

    with pytest.raises(Permanent, match="not among its instances"):
        structured_report.build(record, 10)


def test_report_of_600_slices_is_small() -> None:
    """600 slices and the most groups fit into 150 KB."""
    made = structured_report.build(samples.record_of(samples.flagged_assessment(600)), 30)

    assert len(made.content) < 150_000
