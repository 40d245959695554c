"""What a PACS gives back says what the audit says, however large the series."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from highdicom.sr import srread
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.orthanc import OrthancServer, free_port
from tests.report import samples
from tests.report.test_structured_report import children, groups
from tests.report.validators import frames_of_one
from tfkt_node.delivery import store_scu
from tfkt_node.delivery.statuses import Receipt
from tfkt_node.records import ReportRecord
from tfkt_node.report import codes, key_objects, structured_report
from tfkt_node.settings import Delivery, Peer


def decimals(group: Dataset) -> dict[str, Decimal]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: Decimal(
            str(item.MeasuredValueSequence[0].NumericValue)
        )
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


@pytest.mark.peers
def test_numbers_come_back_from_a_pacs_as_decimals(
    tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """Sent by C-STORE and fetched by C-MOVE, each number equals that of the audit as written."""
    require_tool("Orthanc")
    record, port = samples.record_of(samples.flagged_assessment()), free_port()
    made = structured_report.build(record, 5)
    path, back = tmp_path / "sr.dcm", tmp_path / "back"
    path.write_bytes(made.content)
    back.mkdir()

    with OrthancServer(tmp_path / "pacs", {"FETCH": ("127.0.0.1", port)}) as pacs:
        peer = Peer(name="pacs", ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.dicom_port)
        assert [Receipt(0)] == list(store_scu.send(peer, Delivery(), [path]))
        subprocess.run(
            [
                require_tool("movescu"), "-S", "-aet", "FETCH", "-aec", pacs.ae_title,
                "-aem", "FETCH", "+P", str(port), "-od", str(back),
                "-k", "0008,0052=SERIES", "-k", f"StudyInstanceUID={samples.STUDY}",
                "-k", f"SeriesInstanceUID={made.series_uid}",
                "127.0.0.1", str(pacs.dicom_port),
            ],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
    (fetched,) = back.iterdir()

    report, stack = dcmread(fetched), record.assessment.stacks[0]
    found = decimals(groups(report)[0])
    assert stack.minimum is not None
    assert stack.interval is not None
    criteria = record.assessment.criteria
    expected = {
        "Image Set Quality Rating": stack.score,
        "90 % interval, low": stack.interval[0],
        "90 % interval, high": stack.interval[1],
        "Lowest slice score": stack.minimum.score,
        "Position of lowest slice": stack.minimum.position_mm,
        "10th percentile of scores": stack.p10,
        "Slices below threshold": "81.25",  # per cent of 0.8125
        "Slices in scope": stack.in_scope,
        "Slices out of scope": stack.out_of_scope,
        "Coverage gaps": stack.gaps,
        "Repeated positions": stack.repeated,
        "Spacing between slices": stack.spacing_mm,
        "Extent, first to last slice": 39 * 5.0,
        "Slices not listed": 35 - 1 - 5,
        "Diagnostic from": criteria.diagnostic_from,
        "Limited from": criteria.limited_from,
        "Slices needed": criteria.min_slices,
        **{concept.meaning: stack.physics[name] for name, (concept, _) in codes.PHYSICS.items()},
    }
    assert {name: Decimal(str(value)) for name, value in expected.items()} == found
    slices = [decimals(group)["Image Quality Rating"] for group in groups(report)[1:]]
    assert [Decimal(str(item.score)) for item in stack.slices[1:6]] == slices
    parsed = srread(fetched).content
    assert 1 == len(parsed.get_image_measurement_groups())
    assert 5 == len(parsed.get_planar_roi_measurement_groups())


@pytest.mark.parametrize(
    ("record", "instances"),
    [
        (lambda: samples.record_of(samples.flagged_assessment(3000)), 2995),
        (lambda: frames_of_one(1200), 1),
    ],
    ids=["3,000 instances", "1,200 frames"],
)
def test_large_series_are_reported_whole(
    record: Callable[[], ReportRecord], instances: int, tmp_path: Path
) -> None:
    """Every scored instance is evidence; the worst slices are named, all others counted."""
    made = structured_report.build(record(), 30)
    path = tmp_path / "sr.dcm"
    path.write_bytes(made.content)

    report = dcmread(path)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert instances == len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence)
    in_scope = decimals(groups(report)[0])["Slices in scope"]
    assert in_scope - 31 == decimals(groups(report)[0])["Slices not listed"]
    assert 31 == len(groups(report))
    assert children(report, "Summary")
    named = [
        item
        for item in samples.read(key_objects.build(record()).content).ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert 30 == len(named)
