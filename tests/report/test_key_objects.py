"""The Key Object Selection names the slices that a flag is about, and rejects nothing."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from highdicom.ko import KeyObjectSelectionDocument
from pydicom import dcmread

from tests.report import samples
from tfkt_node.records import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Outcome,
    Permanent,
    Reason,
    Verdict,
)
from tfkt_node.report import key_objects, structured_report


def test_selection_is_a_quality_issue_of_image_artifacts() -> None:
    """Title 113010 with modifier 111207: archives hide what a rejection note (113001) names."""
    ds = samples.read(key_objects.build(samples.record_of(samples.flagged_assessment())).content)

    assert "113010" == ds.ConceptNameCodeSequence[0].CodeValue
    (modifier,) = (item for item in ds.ContentSequence if "ConceptNameCodeSequence" in item
                   and item.ConceptNameCodeSequence[0].CodeValue == "113011")  # fmt: skip
    assert "111207" == modifier.ConceptCodeSequence[0].CodeValue
    assert ("KO", 9902, "CT quality issue: LIMITED") == (
        ds.Modality, ds.SeriesNumber, ds.SeriesDescription,
    )  # fmt: skip


def test_slices_below_the_threshold_are_named_worst_first() -> None:
    """Of the deciding stack, below the flag's threshold, at most 30; IMAGE items have no name."""
    ds = samples.read(key_objects.build(samples.record_of(samples.flagged_assessment(600))).content)

    images = [item for item in ds.ContentSequence if item.ValueType == "IMAGE"]
    named = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images]
    evidence = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert [f"{samples.SERIES}.{n}" for n in range(1, 31)] == named
    assert named == [item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence]
    assert not any("ConceptNameCodeSequence" in item for item in images)


@pytest.mark.parametrize(
    ("flag_at", "count"), [(Verdict.NON_DIAGNOSTIC, 11), (Verdict.LIMITED, 30)]
)
def test_threshold_is_that_of_the_flag(flag_at: Verdict, count: int) -> None:
    """Where only NON_DIAGNOSTIC is flagged, slices that are merely LIMITED are not named."""
    flagged = samples.flagged_assessment()
    record = samples.record_of(
        replace(flagged, criteria=replace(flagged.criteria, flag_at=flag_at))
    )

    ds = samples.read(key_objects.build(record).content)

    assert count == len([item for item in ds.ContentSequence if item.ValueType == "IMAGE"])


def test_every_scored_slice_is_named_where_every_verdict_is_flagged() -> None:
    """Flagged from DIAGNOSTIC on there is no threshold, and even a perfect slice is named."""
    flagged = samples.flagged_assessment(slices=15)
    criteria = replace(flagged.criteria, flag_at=Verdict.DIAGNOSTIC, diagnostic_from=0.0)

    ds = samples.read(
        key_objects.build(samples.record_of(replace(flagged, criteria=criteria))).content
    )

    assert 10 == len([item for item in ds.ContentSequence if item.ValueType == "IMAGE"])


def test_file_names_the_software_as_associations_do() -> None:
    """One implementation class UID and version name, wherever the node writes them."""
    meta = samples.read(
        key_objects.build(samples.record_of(samples.flagged_assessment())).content
    ).file_meta

    assert (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME) == (
        meta.ImplementationClassUID,
        meta.ImplementationVersionName,
    )


def test_patient_and_study_are_those_of_the_report() -> None:
    """Objects of one study agree in every attribute of patient and study."""
    record = samples.record_of(samples.flagged_assessment())
    sr, kos = (
        samples.read(made.content)
        for made in (structured_report.build(record, 10), key_objects.build(record))
    )

    for keyword in ("PatientAge", "StudyDescription", "PatientName", "AccessionNumber"):
        assert sr[keyword] == kos[keyword]
    assert sr.SeriesInstanceUID != kos.SeriesInstanceUID


def test_parser_reads_it() -> None:
    """highdicom opens the document and finds its references."""
    made = key_objects.build(samples.record_of(samples.flagged_assessment()))

    document = KeyObjectSelectionDocument.from_dataset(dcmread(BytesIO(made.content)))

    first = f"{samples.SERIES}.1"
    assert (samples.STUDY, samples.SERIES, first) == document.resolve_reference(first)


@pytest.mark.parametrize(
    "assessment",
    [
        samples.flagged_assessment(flagged=False),
        samples.unassessed(Outcome.NOT_ASSESSED, Reason.HEAD),
    ],
    ids=["not flagged", "not assessed"],
)
def test_only_flagged_verdicts_have_one(assessment: object) -> None:
    """A selection for anything else is an error and not an empty object."""
    with pytest.raises(Permanent, match="flagged verdicts only"):
        key_objects.build(samples.record_of(assessment))
