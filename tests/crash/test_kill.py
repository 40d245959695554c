"""kill -9 of a real node in the middle of its work, then a restart: nothing lost, nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ComprehensiveSRStorage,
    CTImageStorage,
    KeyObjectSelectionDocumentStorage,
)

from tests.running_node import RunningNode, free_port, running, wait_for

pytestmark = pytest.mark.crash


class Pacs:
    """A receiving SCP that keeps what it gets, and tells when something has begun to arrive."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: list[tuple[str, str, bytes]] = []
        self.arriving = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        ae = AE("PACS")
        ae.add_supported_context(ComprehensiveSRStorage)
        ae.add_supported_context(KeyObjectSelectionDocumentStorage)
        self._server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)]
        )

    def _keep(self, event: evt.Event) -> int:
        request = event.request
        sent = (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID)
        self.received.append((*sent, request.DataSet.getvalue()))
        self.arriving.set()
        self.may_answer.wait(30)
        return 0x0000

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    server = Pacs()
    yield server
    server.close()


@pytest.fixture
def files(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "series" / "LungFCP-01-0001").glob("*.dcm"))


@pytest.fixture
def node(tmp_path: Path, database_url: str, pacs: Pacs) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path / "node", database_url, [("pacs", "PACS", pacs.port)])
    yield node
    node.stop()


def send(port: int, files: Sequence[Path], answered: Callable[[int], None]) -> list[Path]:
    """Send until the peer is gone; return the files that were not answered with success."""
    ae = AE("SCANNER")
    ae.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
    assoc = ae.associate("127.0.0.1", port, ae_title="TFKT_NODE")
    left = list(files)
    while left:
        try:
            status = assoc.send_c_store(pydicom.dcmread(left[0]))
        except RuntimeError:  # pynetdicom's word for an association that is gone
            break
        if not status or status.Status != 0x0000:
            break
        left.pop(0)
        answered(len(files) - len(left))
    if assoc.is_established:
        assoc.release()
    return left


def nothing(_: int) -> None:
    pass


def assert_one_report(node: RunningNode, pacs: Pacs, instances: int) -> None:
    wait_for("the series being assessed", lambda: node.states() == ["ASSESSED"], 90)
    wait_for("the delivery being sent", lambda: delivery_states(node) == {"SENT"}, 60)
    node.stop()
    node.assert_whole()
    with node.store() as store:
        (row,) = store.series_rows()
    assert (1, instances) == (row.revision, row.instances)
    # The same object may arrive again after a crash; it is then the same to the byte.
    objects = {(sop_class, uid, content) for sop_class, uid, content in pacs.received}
    assert 1 == [sop_class for sop_class, _, _ in objects].count(ComprehensiveSRStorage)
    assert len(objects) == len({uid for _, uid, _ in objects})


def delivery_states(node: RunningNode) -> set[str]:
    with node.store() as store:
        return {str(row.state) for row in store.delivery_rows()}


def test_kill_in_the_middle_of_reception(node: RunningNode, pacs: Pacs, files: list[Path]) -> None:
    """P1: what was answered is there after a kill; the sender resends the rest; one SR arrives."""
    node.start()

    left = send(node.port, files, lambda count: node.kill() if count == len(files) // 2 else None)
    assert left
    with running(node):
        assert [] == send(node.port, left, nothing)
        assert_one_report(node, pacs, len(files))


def test_kill_in_the_middle_of_scoring(node: RunningNode, pacs: Pacs, files: list[Path]) -> None:
    """P4: a revision whose scorer was killed is scored again, and ends in one outcome."""
    node.start()
    assert [] == send(node.port, files, nothing)
    wait_for("scoring", lambda: node.states() == ["SCORING"])
    node.kill()

    with running(node):
        assert_one_report(node, pacs, len(files))


def test_kill_in_the_middle_of_delivery(node: RunningNode, pacs: Pacs, files: list[Path]) -> None:
    """P5: a report whose answer was never seen goes out again as the same object."""
    pacs.may_answer.clear()
    node.start()
    assert [] == send(node.port, files, nothing)
    assert pacs.arriving.wait(90)
    node.kill()
    pacs.may_answer.set()

    with running(node):
        assert_one_report(node, pacs, len(files))
