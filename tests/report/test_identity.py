"""Patient and study reach the object as the images carry them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from highdicom._standard_utils import get_module_attribute_map
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from tests.report import samples
from tfkt_node.reception.elements import TEXT_VRS
from tfkt_node.records import PATIENT_AND_STUDY, MadeObject, Permanent, ReportRecord
from tfkt_node.report import key_objects, structured_report
from tfkt_node.report.document import ENHANCED_SR_FORM
from tfkt_node.report.identity import REQUEST_TYPE_2

NAMES = {
    "\\ISO 2022 IR 87": (
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
    ),
    "ISO 2022 IR 13\\ISO 2022 IR 87": (
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"
    ),
    "ISO_IR 100": "Müller^Jörg".encode("latin-1"),
    "\\ISO 2022 IR 149": (
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7="
        b"\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
    ),
    "\\ISO 2022 IR 58": b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
    "ISO 2022 IR 100\\ISO 2022 IR 144": (
        b"M\xfcller^J\xf6rg=\x1b-L" + "Мюллер^Йорг".encode("iso8859-5")
    ),
    "ISO_IR 144": "Люкceмбypг".encode("iso8859-5"),
    "ISO_IR 127": "قباني^لنزار".encode("iso8859-6"),
    "ISO_IR 138": "שרון^דבורה".encode("iso8859-8"),
    "ISO_IR 192": "Wang^XiaoDong=王^小东".encode(),
    "GB18030": "Wang^XiaoDong=王^小东".encode("gb18030"),
}


def elements(name: bytes, character_set: str) -> bytes:
    """A stored data set with a name in its own bytes, which pydicom never sees as text."""
    character_set_bytes = character_set.encode()
    character_set_bytes += b" " * (len(character_set_bytes) % 2)
    name += b" " * (len(name) % 2)
    return (
        b"\x08\x00\x05\x00CS" + len(character_set_bytes).to_bytes(2, "little") + character_set_bytes
        + b"\x10\x00\x10\x00PN" + len(name).to_bytes(2, "little") + name
    )  # fmt: skip


def report_with(attributes: bytes | Dataset, **changes: object) -> Dataset:
    record = samples.record_of(samples.flagged_assessment(), **changes)
    if isinstance(attributes, Dataset):
        attributes = samples.encode_attributes(attributes)
    return samples.read(structured_report.build(replace(record, attributes=attributes), 10).content)


@pytest.mark.parametrize("character_set", NAMES)
def test_name_keeps_its_bytes(character_set: str) -> None:
    """P2: a patient's name leaves in the bytes and the character set in which it came."""
    name = NAMES[character_set]
    record = replace(
        samples.record_of(samples.flagged_assessment()), attributes=elements(name, character_set)
    )

    made = structured_report.build(record, 10).content

    assert elements(name, character_set)[:8] in made
    assert (
        b"\x10\x00\x10\x00PN" + len(name + b" " * (len(name) % 2)).to_bytes(2, "little") + (name)
        in made
    )
    measurements = samples.read(made).ContentSequence[-2]
    assert "Imaging Measurements" == measurements.ConceptNameCodeSequence[0].CodeMeaning


def test_everything_kept_of_patient_and_study_is_passed_on() -> None:
    """What reception keeps of patient and study reaches the object; the scanner's own does not."""
    encoded = samples.encode_attributes(
        samples.patient(PatientWeight="71.5", PatientSize="1.7", StationName="CT1")
    )
    made = report_with(encoded)
    assert ("71.5", "1.7") == (str(made.PatientWeight), str(made.PatientSize))
    assert "StationName" not in made


MODULES = (
    "patient", "general-study", "patient-study", "clinical-trial-subject", "clinical-trial-study",
)  # fmt: skip
OF_ANIMALS = ("Strain", "Genetic", "PatientSpecies", "PatientBreed", "BreedRegistration")
NUMBERS_AND_THEIRS = {
    "PregnancyStatus", "LongitudinalTemporalOffsetFromEvent", "LongitudinalTemporalEventType",
}  # fmt: skip
"""What the conformance statement leaves out by name."""


def test_every_text_and_sequence_of_patient_and_study_is_copied() -> None:
    """PS3.3 C.7.1 and C.7.2, as far as the conformance statement says; retired ones stay in."""
    modules = get_module_attribute_map()
    standard = {
        attribute["keyword"]
        for module in MODULES
        for attribute in modules[module]
        if not attribute["path"] and not attribute["keyword"].startswith(OF_ANIMALS)
    }

    assert {"StudyInstanceUID"} | NUMBERS_AND_THEIRS == standard - set(PATIENT_AND_STUDY)
    assert {"OtherPatientIDs", "EthnicGroup"} == set(PATIENT_AND_STUDY) - standard
    assert {dictionary_VR(tag_for_keyword(one) or 0) for one in PATIENT_AND_STUDY} <= {
        *TEXT_VRS, "SQ",
    }  # fmt: skip


def test_missing_attributes_become_empty_and_no_more() -> None:
    """Type 2 attributes are there and empty; optional ones are not made up."""
    ds = report_with(b"")

    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
        "AccessionNumber", "ReferringPhysicianName", "StudyID",
    ):  # fmt: skip
        assert ds[keyword].is_empty
    assert "PatientAge" not in ds
    assert "StudyDescription" not in ds
    assert "SpecificCharacterSet" not in ds


def test_empty_character_set_is_dropped() -> None:
    """Without a value it says no more than its absence, and makes an object invalid."""
    assert "SpecificCharacterSet" not in report_with(elements(b"Doe^John", ""))


def test_unfit_values_are_passed_on_and_not_corrected() -> None:
    """Odd sex, spaces and carets leave as they came: a PACS files by them."""
    odd = b"\x10\x00\x40\x00CS\x08\x00unknown " + b"\x08\x00\x50\x00SH\x06\x00  A-17"

    made = structured_report.build(
        replace(samples.record_of(samples.flagged_assessment()), attributes=odd), 10
    ).content

    assert odd[:16] in made
    assert odd[16:] in made


def test_nonsense_character_set_is_dropped_over_plain_text() -> None:
    """ "Not Supplied" over ASCII would make a valid object invalid and tells nothing."""
    ds = report_with(elements(b"Doe^John", "Not Supplied"))

    assert "SpecificCharacterSet" not in ds
    assert "Doe^John" == ds.PatientName


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"Doe^John", False),
        (b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", True),
    ],
    ids=["plain", "escapes"],
)
def test_nonsense_character_set_is_judged_by_texts(name: bytes, kept: bool) -> None:
    """The tags inside a sequence are no text; an escape to another set is, in 7 bits as it is."""
    sequence = samples.encode_attributes(samples.patient(ProcedureCodeSequence=[code("CT1")]))
    begin = sequence.index(b"\x08\x00\x32\x10SQ")
    end = begin + 12 + int.from_bytes(sequence[begin + 8 : begin + 12], "little")
    attributes = sequence[begin:end] + elements(name, "Not Supplied")
    record = replace(samples.record_of(samples.flagged_assessment()), attributes=attributes)

    made = structured_report.build(record, 10).content

    assert sequence[begin:end] in made
    assert kept is (b"\x08\x00\x05\x00CS" in made)


def code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99X", "Chest"
    return item


def request(**values: object) -> Dataset:
    """An item of the images' Request Attributes Sequence."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


DOCUMENTS: dict[str, Callable[[ReportRecord], MadeObject]] = {
    "SR": lambda record: structured_report.build(record, 10),
    "Enhanced SR": lambda record: structured_report.build(record, 10, ENHANCED_SR_FORM),
    "KOS": key_objects.build,
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_requests_of_the_images_are_referenced(kind: str) -> None:
    """A RIS files a document by its request: one item each, values as they came, type 2 filled."""
    attributes = samples.patient(
        RequestAttributesSequence=[
            request(
                RequestedProcedureID="RP1",
                AccessionNumber="A-1",
                RequestedProcedureDescription="Thorax M\u00fcller",
                RequestedProcedureCodeSequence=[code("CT1")],
                ReasonForTheRequestedProcedure="cough",
                StudyInstanceUID="1.2.3.9",
                ScheduledProcedureStepID="S1",
            ),
            request(RequestedProcedureID="RP2"),
            request(ScheduledProcedureStepID="S3"),
        ]
    )
    record = samples.record_of(samples.flagged_assessment(), attributes)

    first, second = samples.read(DOCUMENTS[kind](record).content).ReferencedRequestSequence

    assert ("RP1", "A-1", "Thorax M\u00fcller", "cough", "1.2.3.9") == (
        first.RequestedProcedureID, first.AccessionNumber, first.RequestedProcedureDescription,
        first.ReasonForTheRequestedProcedure, first.StudyInstanceUID,
    )  # fmt: skip
    assert "CT1" == first.RequestedProcedureCodeSequence[0].CodeValue
    assert "ScheduledProcedureStepID" not in first
    assert ("RP2", samples.STUDY) == (second.RequestedProcedureID, second.StudyInstanceUID)
    for item in (first, second):
        for keyword in REQUEST_TYPE_2:
            assert keyword in item
    assert second["AccessionNumber"].is_empty
    assert "ReasonForTheRequestedProcedure" not in second


@pytest.mark.parametrize("requests", [None, [], [Dataset()]], ids=["none", "empty", "blank"])
def test_no_request_is_made_up(requests: list[Dataset] | None) -> None:
    """Images that name no request give an object that names none."""
    attributes = samples.patient()
    if requests is not None:
        attributes.RequestAttributesSequence = requests

    assert "ReferencedRequestSequence" not in report_with(attributes)


@pytest.mark.parametrize("study_uid", ["", "none", "1" * 65])
def test_study_without_a_usable_uid_gets_a_derived_one(study_uid: str) -> None:
    """The report of such a study names one study, the same in every revision."""
    first = report_with(b"", study_uid=study_uid)
    second = report_with(b"", study_uid=study_uid, verdict_id="another")

    evidence = first.CurrentRequestedProcedureEvidenceSequence[0]
    assert first.StudyInstanceUID.startswith("2.25.")
    assert first.StudyInstanceUID == second.StudyInstanceUID == evidence.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


@pytest.mark.parametrize(
    ("offset", "date", "time"),
    [
        ("+0900", "20260306", "073015"),
        ("-0330", "20260305", "190015"),
        ("+0000", "20260305", "223015"),
    ],
)
def test_times_are_in_the_zone_of_the_study(offset: str, date: str, time: str) -> None:
    """All times are the decision's, in the study's own zone, which the object states."""
    ds = report_with(samples.patient(TimezoneOffsetFromUTC=offset))

    assert offset == ds.TimezoneOffsetFromUTC
    assert {date} == {ds.InstanceCreationDate, ds.ContentDate, ds.SeriesDate}
    assert {time} == {ds.InstanceCreationTime, ds.ContentTime, ds.SeriesTime}


@pytest.mark.parametrize("offset", ["-0000", "+1430", "Z", "+9", ""])
def test_unusable_zone_means_local_times_and_none_stated(offset: str) -> None:
    """A zone that the standard does not know is not passed on as if it were one."""
    local = samples.DECIDED.astimezone(samples.zone(timedelta(hours=1)))
    ds = report_with(samples.patient(TimezoneOffsetFromUTC=offset), decided_at=local)

    assert "TimezoneOffsetFromUTC" not in ds
    assert ("20260305", "233015") == (ds.ContentDate, ds.ContentTime)


@pytest.mark.parametrize("damaged", [b"\x10", b"\x10\x00\x10\x00PN\xff\x00Doe", bytes(20)])
def test_damaged_attributes_are_an_error_with_a_cure(damaged: bytes) -> None:
    """What is no data set becomes one clear error, which quotes none of it."""
    record = replace(samples.record_of(samples.flagged_assessment()), attributes=damaged)

    with pytest.raises(Permanent, match="element 1 is damaged") as caught:
        structured_report.build(record, 10)

    assert "audit verify" in caught.value.cure
    assert "Doe" not in str(caught.value)


def test_zone_of_the_study_goes_before_that_of_the_record() -> None:
    """The decision's instant counts, however its datetime is expressed."""
    attributes = samples.patient(TimezoneOffsetFromUTC="-0330")
    record = samples.record_of(samples.flagged_assessment(), attributes)
    shifted = replace(
        record,
        decided_at=record.decided_at.astimezone(samples.zone(timedelta(hours=5))),
    )

    assert structured_report.build(record, 10) == structured_report.build(shifted, 10)
