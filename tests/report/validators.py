"""Other people's validators, and what of their findings is not the objects' fault."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from highdicom.ko import KeyObjectSelectionDocument
from highdicom.sr import srread
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from tests.conftest import skip_or_fail
from tests.report import samples
from tfkt_node.reception.headers import read_header
from tfkt_node.records import (
    CT_IMAGE,
    ENHANCED_CT_IMAGE,
    EvidenceInstance,
    ReportRecord,
    SliceScore,
    StackSummary,
)
from tfkt_node.report import codes, uids
from tfkt_node.report.elements import encoded, split

Tool = Callable[[str], str]


# --------------------------------------------------------------------------- records


def of_real_series(folder: Path, worst: int = 1, lowest: float = 1.22) -> ReportRecord:
    """A flagged record with the headers and UIDs of a real series.

    worst: which file, from 1, has the lowest score.
    """
    files = sorted(folder.glob("*.dcm"))
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    first, stored = headers[0], read_header(files[0])
    slices = tuple(
        replace(
            samples.slice_score(n, round(lowest + abs(n - worst) / 50, 4), (60, 90, 450, 400)),
            sop_uid=str(one.SOPInstanceUID),
            position_mm=float(one.ImagePositionPatient[2]),
        )
        for n, one in enumerate(headers, start=1)
    )
    stack: StackSummary = samples.stack_of(slices)
    return replace(
        samples.record_of(samples.assessment_of((stack,))),
        attributes=stored.attributes,
        patient_id=stored.patient_id,
        study_uid=stored.study_uid,
        series_uid=str(first.SeriesInstanceUID),
        evidence=tuple(
            EvidenceInstance(CT_IMAGE, str(one.SOPInstanceUID), int(one.InstanceNumber))
            for one in headers
        ),
    )


def frames_of_one(count: int = 20) -> ReportRecord:
    """A record of an Enhanced CT of so many frames."""
    flagged = samples.flagged_assessment(count)
    one = f"{samples.SERIES}.1"
    slices: tuple[SliceScore, ...] = tuple(
        replace(item, sop_uid=one, digest="1" * 64, frame=number)
        for number, item in enumerate(flagged.stacks[0].slices, start=1)
    )
    return samples.record_of(
        samples.assessment_of((samples.stack_of(slices),)),
        evidence=(EvidenceInstance(ENHANCED_CT_IMAGE, one, 1),),
    )


def image_of(record: ReportRecord) -> bytes:
    """The header of the first image of a record, with patient and study as it was received."""
    image = record.evidence[0]
    named = (
        (0x00080016, "UI", image.sop_class_uid), (0x00080018, "UI", image.sop_uid),
        (0x00080060, "CS", "CT"), (0x0020000D, "UI", record.study_uid),
        (0x0020000E, "UI", record.series_uid),
    )  # fmt: skip
    elements = {tag: encoded(DataElement(tag, vr, value)) for tag, vr, value in named}
    elements |= {tag: element.encoded for tag, element in split(record.attributes).items()}
    meta, header = FileMetaDataset(), BytesIO()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        image.sop_class_uid,
        image.sop_uid,
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    write_file_meta_info(header, meta, enforce_standard=True)
    body = b"".join(elements[tag] for tag in sorted(elements))
    return bytes(128) + b"DICM" + header.getvalue() + body


# --------------------------------------------------------------------------- tools


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode("latin-1")


CLASSES = {"ComprehensiveSR", "EnhancedSR", "KeyObjectSelectionDocument", "SCImage"}
PRIVATE = re.compile(rf"<({codes.SCHEME}|{re.escape(uids.CODING_SCHEME_UID)})>")
NOT_OURS = re.compile("build DICOMDIR|Retired Person Name form|only permitted to be empty when")
"""Doubts about what came from the images: no ID for a DICOMDIR, a name in one piece; neither is
corrected. And of a picture's Laterality, which is unknown indeed."""
UNKNOWN_CHARACTER_SET = re.compile("GB18030|Specific Character Set|[Cc]haracter repertoire")
"""dciodvfy 1.00 does not know GB18030."""


def complaints(path: Path, require_tool: Tool, allowed: re.Pattern[str] = NOT_OURS) -> list[str]:
    """What dciodvfy says, less its ignorance of the private scheme and what is not ours."""
    said = run(require_tool("dciodvfy"), path).splitlines()
    assert CLASSES & set(said), said
    return [
        line
        for line in said
        if line not in CLASSES
        and not PRIVATE.search(line)
        and not NOT_OURS.search(line)
        and not (allowed is not NOT_OURS and allowed.search(line))
    ]


def differences(paths: list[Path], require_tool: Tool) -> list[str]:
    """What dcentvfy finds to differ between objects of one study.

    It takes AccessionNumber for an attribute of another entity, which it is not.
    """
    said = run(require_tool("dcentvfy"), *paths).splitlines()
    return [line for line in said if "AccessionNumber" not in line]


def parsed(path: Path) -> Any:
    """What highdicom's parser makes of an SR or a Key Object Selection."""
    ds = dcmread(path)
    if ds.Modality == "KO":
        return KeyObjectSelectionDocument.from_dataset(ds)
    return srread(path)


# --------------------------------------------------------------------------- PixelMed

PIXELMED = Path("/usr/share/java/pixelmed.jar")
_LIMITS = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprGrp", "ExprOp", "TotalOp")]
"""Its style sheet is larger than Java's own limits allow."""

_FALSE_ALARMS = re.compile(
    # TID 2010: its condition for the modifier looks beside the root and is never met.
    r"Template 2010 .*/\[Row [34]\] CODE .*: /CONTAINER \(113010,DCM,.*"
    r"Conditional content item present when condition not satisfied$"
)


def pixelmed_errors(path: Path, require_tool: Tool) -> list[str]:
    """What PixelMed's validator finds wrong with the tree of an SR or a Key Object Selection.

    Its warnings are of items beyond its templates, which are extensible. It exits 0 come what may,
    so that its own closing line is asked for, and that the root was matched.
    """
    if not PIXELMED.exists():
        skip_or_fail("the package libpixelmed-java is not installed")
    said = run(
        require_tool("java"), "-Djava.awt.headless=true", *_LIMITS, "-cp", str(PIXELMED),
        "com.pixelmed.validate.DicomSRValidator", path,
    ).splitlines()  # fmt: skip
    assert any(line.startswith("IOD validation complete") for line in said), said
    assert any(line.startswith("Found Root Template") for line in said), said
    assert not any(re.match("Warning: 1: /CONTAINER .* not in template", line) for line in said)
    return [line for line in said if line.startswith("Error") and not _FALSE_ALARMS.search(line)]
