"""Validators and parsers of others find nothing wrong with the objects."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import srread
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from tests.report import samples
from tests.report.test_identity import NAMES, elements, request
from tests.report.validators import (
    NOT_OURS,
    UNKNOWN_CHARACTER_SET,
    Tool,
    complaints,
    differences,
    frames_of_one,
    image_of,
    of_real_series,
    parsed,
    pixelmed_errors,
    run,
)
from tfkt_node.records import MadeObject, ObjectKind, Outcome, Reason, ReportRecord
from tfkt_node.report import codes, key_objects, structured_report, summary_picture
from tfkt_node.report.document import ENHANCED_SR_FORM
from tfkt_node.report.identity import TYPE_2

pytestmark = pytest.mark.peers


def made_up(**changes: object) -> ReportRecord:
    return replace(samples.record_of(samples.flagged_assessment()), **changes)


def second_revision() -> ReportRecord:
    first = structured_report.build(made_up(), 3)
    return made_up(
        before=(samples.before(),), predecessor=samples.predecessor(first), revision_number=2
    )


def not_assessed() -> ReportRecord:
    return samples.record_of(
        samples.unassessed(Outcome.NOT_ASSESSED, Reason.HEAD, detail="6 of 6 slices")
    )


EMPTY = b"".join(
    tag + vr + b"\0\0"
    for tag, vr in (
        (b"\x08\x00\x05\x00", b"CS"), (b"\x08\x00\x20\x00", b"DA"), (b"\x08\x00\x50\x00", b"SH"),
        (b"\x10\x00\x10\x00", b"PN"), (b"\x10\x00\x20\x00", b"LO"), (b"\x10\x00\x40\x00", b"CS"),
    )
)  # fmt: skip
"""Attributes that are there without a value."""

JAPANESE = "\\ISO 2022 IR 87"

RECORDS: dict[str, Callable[[], ReportRecord]] = {
    "flagged": made_up,
    "not flagged": lambda: samples.record_of(samples.flagged_assessment(flagged=False)),
    "600 slices": lambda: samples.record_of(samples.flagged_assessment(600)),
    "not assessed": not_assessed,
    "failed": lambda: samples.record_of(samples.unassessed(Outcome.FAILED, Reason.SCORER_TIMEOUT)),
    "nothing to name": lambda: replace(
        samples.record_of(samples.assessment_of((), outcome=Outcome.FAILED, flagged=False,
                          verdict=None, deciding_stack=None, reason=Reason.UNREADABLE)),
        evidence=(),
    ),
    "no attributes": lambda: made_up(attributes=b"", study_uid=""),
    "empty attributes": lambda: made_up(attributes=EMPTY),
    "nonsense character set": lambda: made_up(attributes=elements(b"Doe^John", "Not Supplied")),
    "second revision": second_revision,
    "zone": lambda: samples.record_of(
        samples.flagged_assessment(), samples.patient(TimezoneOffsetFromUTC="+0900")
    ),
    "frames": frames_of_one,
    "description in other letters": lambda: made_up(
        attributes=elements(NAMES[JAPANESE], JAPANESE)
        + samples.raw(0x0008103E, "LO", "胸部 1.0".encode("iso2022_jp"))
        + samples.raw(0x00200011, "IS", b"3"),
    ),
    "requests": lambda: samples.record_of(
        samples.flagged_assessment(), samples.patient(RequestAttributesSequence=[
            request(RequestedProcedureID="RP1", AccessionNumber="A-17"),
            request(AccessionNumber="B"),
        ])
    ),
}  # fmt: skip
RECORDS |= {
    f"name in {character_set}": lambda c=character_set: made_up(attributes=elements(NAMES[c], c))
    for character_set in NAMES
}


def objects_of(record: ReportRecord) -> list[MadeObject]:
    made = [structured_report.build(record, 10)]
    if record.assessment.flagged:
        made.append(key_objects.build(record))
    return made


def other_objects_of(record: ReportRecord) -> list[MadeObject]:
    made = [structured_report.build(record, 10, ENHANCED_SR_FORM)]
    if record.assessment.outcome is Outcome.ASSESSED:
        made.append(summary_picture.build(record, None))
    return made


def write(objects: list[MadeObject], folder: Path) -> list[Path]:
    paths = [folder / f"{item.kind}.dcm" for item in objects]
    for path, item in zip(paths, objects, strict=True):
        path.write_bytes(item.content)
    return paths


@pytest.mark.parametrize("name", RECORDS)
def test_objects_are_valid(name: str, tmp_path: Path, require_tool: Tool) -> None:
    """dciodvfy finds no error and warns of nothing; DCMTK and highdicom read the tree."""
    paths = write(objects_of(RECORDS[name]()), tmp_path)

    for path in paths:
        allowed = UNKNOWN_CHARACTER_SET if "GB18030" in name else NOT_OURS
        assert [] == complaints(path, require_tool, allowed)
        assert_readable(path, require_tool)


def assert_readable(path: Path, require_tool: Tool) -> None:
    """DCMTK and highdicom read the tree of an SR or a Key Object Selection."""
    dumped = run(require_tool("dsrdump"), "+Pl", "+Pu", path)
    assert "error" not in dumped.lower()
    assert "contains" in dumped
    assert parsed(path).content is not None


@pytest.mark.parametrize(
    "name", ["600 slices", "frames", "requests", *(name for name in RECORDS if "name in" in name)]
)
def test_objects_are_of_the_patient_and_study_of_their_images(
    name: str, tmp_path: Path, require_tool: Tool
) -> None:
    """dcentvfy finds no difference to an image in any character set, long series or frame."""
    record, image = RECORDS[name](), tmp_path / "image.dcm"
    image.write_bytes(image_of(record))

    paths = write(objects_of(record) + other_objects_of(record), tmp_path)

    said = unlike_images([image], paths, require_tool)
    assert [] == [line for line in said if "GB18030" not in name or "GB18030" not in line]


def unlike_images(images: list[Path], paths: list[Path], require_tool: Tool) -> list[str]:
    """What dcentvfy finds to differ, less what has to be there at least empty, and was not."""
    missing = set(TYPE_2) - set(dcmread(images[0], stop_before_pixels=True).dir())
    allowed = [f"Element=<{keyword}>" for keyword in missing]
    said = differences([*images, *paths], require_tool)
    return [line for line in said if not any(word in line for word in allowed)]


@pytest.mark.parametrize("name", ["flagged", "not assessed", "frames"])
def test_enhanced_report_and_picture_are_valid(
    name: str, tmp_path: Path, require_tool: Tool
) -> None:
    """What old and SR-less destinations get is as sound, and of the same patient and study."""
    record = RECORDS[name]()

    paths = write(objects_of(record) + other_objects_of(record), tmp_path)

    for path in paths:
        assert [] == complaints(path, require_tool)
    assert [] == differences(paths, require_tool)
    assert srread(tmp_path / "ENHANCED_SR.dcm").content is not None


@pytest.mark.parametrize("series", ["RIDER-Pilot-0109", "LungFCP-01-0001"])
def test_objects_belong_to_the_study_of_their_images(
    series: str, shared_data: Path, tmp_path: Path, require_tool: Tool
) -> None:
    """dcentvfy finds images and objects to be of one patient and study, missing headers or not.

    And DCMTK and highdicom read what is made of them, in every kind.
    """
    folder = shared_data / "series" / series
    record = of_real_series(folder)

    paths = write(objects_of(record) + other_objects_of(record), tmp_path)

    assert [] == unlike_images(sorted(folder.glob("*.dcm"))[:3], paths, require_tool)
    for path in paths:
        assert [] == complaints(path, require_tool)
        if path.stem != ObjectKind.PICTURE:
            assert_readable(path, require_tool)


def standard_twin(content: bytes) -> bytes:
    """Return a text report under the title, and with the section, that TID 1500 asks for.

    The validator knows its own title from no template and would leave the tree unchecked.
    """
    ds = dcmread(BytesIO(content))
    (result,) = (
        item
        for item in ds.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == codes.OUTCOME_SECTION.value
    )
    rename(ds, codes.IMAGING_MEASUREMENT_REPORT)
    rename(result, codes.QUALITATIVE_EVALUATIONS)
    buffer = BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def rename(item: Dataset, name: Code) -> None:
    (concept,) = item.ConceptNameCodeSequence
    concept.CodeValue, concept.CodeMeaning = name.value, name.meaning
    concept.CodingSchemeDesignator = name.scheme_designator


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: structured_report.build(second_revision(), 2).content, id="report"),
        pytest.param(lambda: key_objects.build(made_up()).content, id="selection"),
        pytest.param(
            lambda: structured_report.build(second_revision(), 2, ENHANCED_SR_FORM).content,
            id="Enhanced SR",
        ),
        pytest.param(lambda: structured_report.build(frames_of_one(), 2).content, id="frames"),
        pytest.param(
            lambda: standard_twin(structured_report.build(not_assessed(), 2).content),
            id="twin of a report without a score",
        ),
        pytest.param(
            lambda: standard_twin(structured_report.build(RECORDS["failed"](), 2).content),
            id="twin of a report of a failure",
        ),
    ],
)
def test_trees_follow_their_templates(
    content: Callable[[], bytes], tmp_path: Path, require_tool: Tool
) -> None:
    """PixelMed's validator finds no error in one object of each kind."""
    path = tmp_path / "object.dcm"
    path.write_bytes(content())

    assert [] == pixelmed_errors(path, require_tool)


def test_page_for_people_can_be_made(tmp_path: Path, require_tool: Tool) -> None:
    """DCMTK renders the report as a page that begins with sentences and ends with numbers."""
    (path, *_) = write(objects_of(second_revision()), tmp_path)
    page = tmp_path / "report.html"

    run(require_tool("dsr2html"), path, page)

    shown = re.sub(r"<[^>]+>|\s+", " ", page.read_text("latin-1"))
    order = [
        "Summary:", "The image quality of this CT series is limited. It is flagged",
        "Why:", "A series is diagnostic from 2.5", "How sure:", "of low confidence",
        "Where to look:", "image 1 at 5.0 mm", "Takes the place of:", "revision 1: NON-DIAGNOSTIC",
        "Imaging Measurements", "Limited quality", "Lowest slice score",
    ]  # fmt: skip
    places = [shown.find(" ".join(words.split())) for words in order]
    assert -1 not in places
    assert sorted(places) == places


def test_japanese_name_reads_back_in_the_report() -> None:
    """The usual Japanese character set, whose first value is empty, survives to the reader."""
    record = made_up(attributes=elements(NAMES[JAPANESE], JAPANESE))

    ds = dcmread(BytesIO(structured_report.build(record, 10).content))

    assert "山田^太郎" == ds.PatientName.ideographic
