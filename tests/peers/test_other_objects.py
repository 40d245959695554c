"""A node delivers Enhanced SR and the picture to a real Orthanc whose settings ask for them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from tests.orthanc import OrthancServer
from tests.peers.test_end_to_end import SERIES, TOOL_ENVIRONMENT, all_sent, assert_valid
from tests.running_node import RunningNode, running, wait_for

pytestmark = pytest.mark.peers

ENHANCED_SR, KOS, PICTURE = (
    f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("88.22", "88.59", "7")
)


def test_destination_gets_the_objects_that_its_settings_name(
    tmp_path: Path, shared_data: Path, require_tool: Callable[[str], str]
) -> None:
    """P5: one Enhanced SR in place of the Comprehensive one, a selection and a picture."""
    require_tool("Orthanc")
    files = sorted((shared_data / "series" / SERIES[1]).glob("*.dcm"))
    with OrthancServer(tmp_path / "pacs") as pacs:
        settings = (
            "[criteria.adult]\ndiagnostic_from = 4.0\n[report]\nsummary_picture = true\n"
            f'[[peers]]\nname = "old"\nae_title = "{pacs.ae_title}"\nhost = "127.0.0.1"\n'
            f'port = {pacs.dicom_port}\ndeliver = true\nsr_class = "enhanced"\n'
        )
        with running(RunningNode(tmp_path / "node", "", (), settings)) as node:
            subprocess.run(
                [
                    require_tool("storescu"), "-aec", "TFKT_NODE",
                    "127.0.0.1", str(node.port), *files,
                ],
                env=TOOL_ENVIRONMENT, check=True, timeout=300, capture_output=True,
            )  # fmt: skip
            wait_for("three objects in Orthanc", lambda: len(pacs.instances()) == 3, 300)
            wait_for("all deliveries sent", lambda: all_sent(node))
        objects = [pydicom.dcmread(BytesIO(pacs.file(one))) for one in pacs.instances()]

    assert {ENHANCED_SR, KOS, PICTURE} == {str(ds.SOPClassUID) for ds in objects}
    for ds in objects:
        if ds.SOPClassUID != PICTURE:
            assert_valid(ds, tmp_path, require_tool)
    (picture,) = (ds for ds in objects if ds.SOPClassUID == PICTURE)
    # The worst slice is drawn in the lower left corner.
    assert picture.pixel_array[680:1000, 60:390].std() > 30
