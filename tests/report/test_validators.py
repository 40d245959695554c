"""Validators and parsers of others find nothing wrong with the objects."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import srread
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.report import samples
from tests.report.test_identity import NAMES, elements
from tfkt_node.records import (
    CT_IMAGE,
    PATIENT_AND_STUDY,
    EvidenceInstance,
    Outcome,
    Reason,
    ReportRecord,
    SliceScore,
    StackSummary,
)
from tfkt_node.report import codes, key_objects, structured_report, uids
from tfkt_node.report.identity import TYPE_2

pytestmark = pytest.mark.peers

Tool = Callable[[str], str]


def made_up(**changes: object) -> ReportRecord:
    return replace(samples.record_of(samples.flagged_assessment()), **changes)


def of_real_series(folder: Path) -> ReportRecord:
    """A flagged record with the headers and UIDs of a real series."""
    files = sorted(folder.glob("*.dcm"))
    header = dcmread(files[0], stop_before_pixels=True)
    attributes = Dataset()
    for keyword in ("SpecificCharacterSet", "StudyInstanceUID", *PATIENT_AND_STUDY):
        if keyword in header:
            attributes[keyword] = header[keyword]
            attributes[keyword].is_undefined_length = False  # as reception writes sequences
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    slices = tuple(
        replace(
            samples.slice_score(n, round(1.2 + n / 50, 4), (60, 90, 450, 400)),
            sop_uid=str(one.SOPInstanceUID),
            position_mm=float(one.ImagePositionPatient[2]),
        )
        for n, one in enumerate(headers, start=1)
    )
    stack: StackSummary = samples.stack_of(slices)
    return replace(
        samples.record_of(samples.assessment_of((stack,)), attributes),
        series_uid=str(header.SeriesInstanceUID),
        evidence=tuple(
            EvidenceInstance(CT_IMAGE, str(one.SOPInstanceUID), int(one.InstanceNumber))
            for one in headers
        ),
    )


def frames_of_one() -> ReportRecord:
    flagged = samples.flagged_assessment(20)
    one = f"{samples.SERIES}.1"
    slices: tuple[SliceScore, ...] = tuple(
        replace(item, sop_uid=one, frame=number)
        for number, item in enumerate(flagged.stacks[0].slices, start=1)
    )
    return samples.record_of(
        samples.assessment_of((samples.stack_of(slices),)),
        evidence=(EvidenceInstance("1.2.840.10008.5.1.4.1.1.2.1", one),),
    )


RECORDS: dict[str, Callable[[], ReportRecord]] = {
    "flagged": made_up,
    "not flagged": lambda: samples.record_of(samples.flagged_assessment(flagged=False)),
    "600 slices": lambda: samples.record_of(samples.flagged_assessment(600)),
    "not assessed": lambda: samples.record_of(
        samples.unassessed(Outcome.NOT_ASSESSED, Reason.HEAD, detail="6 of 6 slices")
    ),
    "failed": lambda: samples.record_of(samples.unassessed(Outcome.FAILED, Reason.SCORER_TIMEOUT)),
    "nothing to name": lambda: replace(
        samples.record_of(samples.assessment_of((), outcome=Outcome.FAILED, flagged=False,
                          verdict=None, deciding_stack=None, reason=Reason.UNREADABLE)),
        evidence=(),
    ),
    "no attributes": lambda: made_up(attributes=b"", study_uid=""),
    "nonsense character set": lambda: made_up(attributes=elements(b"Doe^John", "Not Supplied")),
    "second revision": lambda: made_up(
        predecessor=samples.predecessor(structured_report.build(made_up(), 3)), revision_number=2
    ),
    "zone": lambda: samples.record_of(
        samples.flagged_assessment(), samples.patient(TimezoneOffsetFromUTC="+0900")
    ),
    "frames": frames_of_one,
}  # fmt: skip
RECORDS |= {
    f"name in {character_set}": lambda c=character_set: made_up(attributes=elements(NAMES[c], c))
    for character_set in NAMES
    if character_set != "GB18030"  # dciodvfy 1.00 does not know it
}


def write_objects(record: ReportRecord, folder: Path) -> list[Path]:
    made = [structured_report.build(record, 10)]
    if record.assessment.flagged:
        made.append(key_objects.build(record))
    paths = [folder / f"{item.kind}.dcm" for item in made]
    for path, item in zip(paths, made, strict=True):
        path.write_bytes(item.content)
    return paths


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode("latin-1")


PRIVATE = re.compile(rf"<({codes.SCHEME}|{re.escape(uids.CODING_SCHEME_UID)})>")
OF_THE_IMAGES = re.compile("build DICOMDIR|Retired Person Name form")
CLASSES = {"ComprehensiveSR", "KeyObjectSelectionDocument"}


def complaints(path: Path, require_tool: Tool) -> list[str]:
    """What dciodvfy says, less its ignorance of the private scheme.

    Nor do its doubts about what came from the images count: no ID for a DICOMDIR, or a name in one
    piece. Neither is corrected.
    """
    said = run(require_tool("dciodvfy"), path).splitlines()
    assert CLASSES & set(said)
    return [
        line
        for line in said
        if line not in CLASSES and not PRIVATE.search(line) and not OF_THE_IMAGES.search(line)
    ]


@pytest.mark.parametrize("name", RECORDS)
def test_objects_are_valid(name: str, tmp_path: Path, require_tool: Tool) -> None:
    """dciodvfy finds no error and warns of nothing; DCMTK and highdicom read the tree."""
    record = RECORDS[name]()

    paths = write_objects(record, tmp_path)

    for path in paths:
        assert [] == complaints(path, require_tool)
        dumped = run(require_tool("dsrdump"), "+Pl", "+Pu", path)
        assert "error" not in dumped.lower()
        assert "contains" in dumped
    assert srread(paths[0]).content is not None


@pytest.mark.parametrize("series", ["RIDER-Pilot-0109", "LungFCP-01-0001"])
def test_objects_belong_to_the_study_of_their_images(
    series: str, shared_data: Path, tmp_path: Path, require_tool: Tool
) -> None:
    """dcentvfy finds images, SR and KOS to be of one patient and study, missing headers or not."""
    folder = shared_data / "series" / series
    record = of_real_series(folder)

    paths = write_objects(record, tmp_path)

    said = run(require_tool("dcentvfy"), *sorted(folder.glob("*.dcm"))[:3], *paths).splitlines()
    # dcentvfy takes AccessionNumber for an attribute of another entity; and what the standard wants
    # at least empty has to be there, although these images lack it.
    missing = set(TYPE_2) - set(dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).dir())
    allowed = [f"Element=<{keyword}>" for keyword in missing] + ["AccessionNumber"]
    assert [] == [line for line in said if not any(word in line for word in allowed)]
    for path in paths:
        assert [] == complaints(path, require_tool)


def test_page_for_people_can_be_made(tmp_path: Path, require_tool: Tool) -> None:
    """DCMTK renders the report as a page that shows verdict and numbers by name."""
    (path,) = write_objects(samples.record_of(samples.flagged_assessment(flagged=False)), tmp_path)
    page = tmp_path / "report.html"

    run(require_tool("dsr2html"), path, page)

    shown = page.read_text("latin-1")
    assert "Limited quality" in shown
    assert "Lowest slice score" in shown


def test_japanese_name_reads_back_in_the_report(tmp_path: Path) -> None:
    """The usual Japanese character set, whose first value is empty, survives to the reader."""
    character_set = "\\ISO 2022 IR 87"
    record = made_up(attributes=elements(NAMES[character_set], character_set))

    ds = dcmread(BytesIO(structured_report.build(record, 10).content))

    assert "山田^太郎" == ds.PatientName.ideographic
