"""A real series from DCMTK through a node in its own process into a real Orthanc."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import highdicom
import pydicom
import pytest

from tests.orthanc import OrthancServer
from tests.running_node import RunningNode, running, wait_for

pytestmark = pytest.mark.peers

SR = "1.2.840.10008.5.1.4.1.1.88.33"
KOS = "1.2.840.10008.5.1.4.1.1.88.59"
TOOL_ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}

SERIES = ("RIDER-Pilot-0109", "LungFCP-01-0001")


@pytest.fixture
def orthanc(tmp_path: Path, require_tool: Callable[[str], str]) -> Iterator[OrthancServer]:
    require_tool("Orthanc")
    with OrthancServer(tmp_path / "orthanc") as server:
        yield server


@pytest.fixture
def storescu(require_tool: Callable[[str], str]) -> Callable[[int, Sequence[Path]], None]:
    """Send files in one association; every one of them must be answered with success."""
    tool = require_tool("storescu")

    def send(port: int, files: Sequence[Path]) -> None:
        subprocess.run(
            [tool, "-aec", "TFKT_NODE", "-aet", "SCANNER", "127.0.0.1", str(port)]
            + [str(file) for file in files],
            env=TOOL_ENVIRONMENT, check=True, timeout=120, capture_output=True,
        )  # fmt: skip

    return send


def node_for(
    folder: Path, database_url: str, orthanc: OrthancServer, settings: str = ""
) -> RunningNode:
    pacs = ("pacs", orthanc.ae_title, orthanc.dicom_port)
    return RunningNode(folder, database_url, [pacs], settings)


def objects_of(orthanc: OrthancServer, sop_class: str) -> list[pydicom.Dataset]:
    found = [pydicom.dcmread(BytesIO(orthanc.file(i))) for i in orthanc.instances()]
    return [ds for ds in found if ds.SOPClassUID == sop_class]


def one_report(orthanc: OrthancServer) -> pydicom.Dataset:
    wait_for("a report in Orthanc", lambda: objects_of(orthanc, SR), 120)
    (report,) = objects_of(orthanc, SR)
    return report


def all_sent(node: RunningNode) -> bool:
    with node.store() as store:
        return all(row.state == "SENT" for row in store.delivery_rows())


def assert_valid(ds: pydicom.Dataset, folder: Path, require_tool: Callable[[str], str]) -> None:
    path = folder / "object.dcm"
    ds.save_as(path)
    said = subprocess.run(
        [require_tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    ).stderr
    assert [] == [line for line in said.splitlines() if line.startswith("Error")]
    subprocess.run([require_tool("dsrdump"), str(path)], check=True, capture_output=True)


@pytest.mark.parametrize("associations", [1, 3])
@pytest.mark.parametrize("name", SERIES)
def test_series_ends_with_exactly_one_report(
    name: str,
    associations: int,
    tmp_path: Path,
    database_url: str,
    shared_data: Path,
    orthanc: OrthancServer,
    storescu: Callable[[int, Sequence[Path]], None],
    require_tool: Callable[[str], str],
) -> None:
    """P3, P4, P5: one SR however it was sent; a resend adds none, a changed slice supersedes."""
    files = sorted((shared_data / "series" / name).glob("*.dcm"))
    with running(node_for(tmp_path / "node", database_url, orthanc)) as node:
        for part in range(associations):
            storescu(node.port, files[part::associations])
        first = one_report(orthanc)
        assert_valid(first, tmp_path, require_tool)
        assert pydicom.dcmread(files[0]).StudyInstanceUID == first.StudyInstanceUID

        storescu(node.port, files)
        resent = f'"duplicates": "{len(files)}"'
        wait_for("the resend ending", lambda: resent in node.log.read_text())

        late = pydicom.dcmread(files[len(files) // 2])
        late.PixelData = bytes(len(late.PixelData))
        late.save_as(tmp_path / "late.dcm")
        storescu(node.port, [tmp_path / "late.dcm"])
        wait_for("a second report", lambda: len(objects_of(orthanc, SR)) == 2, 120)
        (second,) = (
            ds for ds in objects_of(orthanc, SR) if ds.SOPInstanceUID != first.SOPInstanceUID
        )
        predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
        assert first.SOPInstanceUID == predecessor.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        wait_for("all deliveries sent", lambda: all_sent(node))
        with node.store() as store:
            (row,) = store.series_rows()
        assert (2, len(files)) == (row.revision, row.instances)
        node.assert_whole()


def test_series_below_threshold_is_flagged(
    tmp_path: Path,
    shared_data: Path,
    orthanc: OrthancServer,
    storescu: Callable[[int, Sequence[Path]], None],
    require_tool: Callable[[str], str],
) -> None:
    """A flagged series gets an SR and a Key Object Selection that peers' tools accept."""
    files = sorted((shared_data / "series" / SERIES[0]).glob("*.dcm"))
    above = "[criteria.adult]\ndiagnostic_from = 4.0\n"
    with running(node_for(tmp_path / "node", "", orthanc, above)) as node:
        storescu(node.port, files)
        report = one_report(orthanc)
        wait_for("a key object selection", lambda: objects_of(orthanc, KOS))
        (selection,) = objects_of(orthanc, KOS)

    for ds in (report, selection):
        assert_valid(ds, tmp_path, require_tool)
    title = selection.ConceptNameCodeSequence[0]
    assert ("113010", "DCM") == (title.CodeValue, title.CodingSchemeDesignator)
    assert selection.SeriesDescription.startswith("CT quality issue: ")
    assert report.SeriesDescription.startswith("CT image quality: LIMITED") or (
        report.SeriesDescription.startswith("CT image quality: NON")
    )
    parsed = highdicom.sr.srread(BytesIO(written(report)))
    assert parsed.content.get_image_measurement_groups()
    highdicom.ko.KeyObjectSelectionDocument.from_dataset(selection)


def written(ds: pydicom.Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()
