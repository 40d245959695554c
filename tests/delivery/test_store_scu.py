"""Files reach a destination byte for byte, and each gets its answer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import ImplicitVRLittleEndian

from tests.delivery.destination import CT, KOS, NO_ANSWER, QUICK, SILENCE, SR, Destination
from tests.orthanc import OrthancServer, free_port
from tests.report import samples
from tfkt_node.delivery import store_scu
from tfkt_node.delivery.statuses import Answer, Lost, NoAnswer, NoAssociation, Receipt
from tfkt_node.records import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    RETRY_DELIVERIES,
    Permanent,
    Retriable,
)
from tfkt_node.report import summary_picture
from tfkt_node.settings import Delivery, Peer, Report

pytestmark = pytest.mark.station

Objects = Callable[[int], list[Path]]

# pynetdicom drops the socket of a connection that failed without closing it.
drops_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def answers_to(*arguments: Any, **named: Any) -> list[Answer]:
    return list(store_scu.send(*arguments, **named))


def data_set(path: Path) -> bytes:
    """What follows the file meta information."""
    meta = read_file_meta_info(path)
    return path.read_bytes()[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


def test_bytes_arrive_as_stored_over_one_association(objects: Objects) -> None:
    """P2: the data set that arrives is the one on disk; a batch is one association."""
    paths = objects(4)
    with Destination() as pacs:
        answers = answers_to(pacs.peer, QUICK, paths)

    assert [Receipt(0)] * 4 == answers
    assert [data_set(path) for path in paths] == pacs.received
    assert 1 == pacs.associations


def test_what_a_library_would_tidy_up_arrives_too(objects: Objects) -> None:
    """P2: a retired group length element, which re-encoding drops, arrives as it lies on disk."""
    (path,) = objects(1)
    data, group_length = data_set(path), b"\x08\x00\x00\x00UL\x04\x00\x00\x00\x00\x00"
    path.write_bytes(path.read_bytes()[: -len(data)] + group_length + data)

    with Destination() as pacs:
        assert [Receipt(0)] == answers_to(pacs.peer, QUICK, [path])

    assert [group_length + data] == pacs.received


def test_destination_of_the_default_transfer_syntax_gets_the_same_data_set(
    objects: Objects, tmp_path: Path
) -> None:
    """PS3.5 10.1: Implicit VR Little Endian is offered for all that the node makes, and works."""
    picture = tmp_path / "picture.dcm"
    record = samples.record_of(samples.flagged_assessment())
    picture.write_bytes(summary_picture.build(record, None).content)
    paths = [*objects(2), picture]
    with Destination(
        classes=[one for one, _ in store_scu.OBJECTS], syntaxes=[ImplicitVRLittleEndian]
    ) as pacs:
        taken = store_scu.probe(pacs.peer, Delivery())
        answers = answers_to(pacs.peer, Delivery(), paths)

    assert set(store_scu.OBJECTS) == taken
    assert [Receipt(0)] * 3 == answers
    for path, came in zip(paths, pacs.received, strict=True):
        assert data_set(path) != came
        arrived = read_dataset(BytesIO(came), is_implicit_VR=True, is_little_endian=True)
        assert values(dcmread(path)) == values(arrived)


def values(ds: Dataset) -> dict[int, object]:
    """Without the VR: that of Pixel Data is OB on disk and OW in implicit VR (PS3.5 A.1, A.2)."""
    return {int(element.tag): element.value for element in ds}


def test_each_object_gets_its_own_answer(objects: Objects) -> None:
    """One refused object does not spoil the batch; a warning keeps the peer's remark."""
    warning = Dataset()
    warning.Status, warning.ErrorComment = 0xB000, "coerced"
    with Destination(statuses=[warning, 0xA700, 0xA900, 0x0000]) as pacs:
        answers = answers_to(pacs.peer, QUICK, objects(4))

    assert Receipt(0xB000, "coerced") == answers[0]
    assert [Retriable, Permanent, Receipt] == [type(answer) for answer in answers[1:]]


def test_answers_come_one_by_one(objects: Objects) -> None:
    """P5: an object that was acknowledged is known to be before the next one goes out."""
    with Destination() as pacs:
        answers = store_scu.send(pacs.peer, QUICK, objects(3))
        for number in (1, 2, 3):
            assert Receipt(0) == next(answers)
            assert number == len(pacs.received)
        assert [] == list(answers)


def test_abort_leaves_the_rest_for_later(objects: Objects) -> None:
    """An abort costs one attempt of what was in hand; the rest was not tried."""
    with Destination(statuses=[0x0000, NO_ANSWER]) as pacs:
        answers = answers_to(pacs.peer, QUICK, objects(4))

    assert [Receipt, NoAnswer] == [type(answer) for answer in answers]
    assert 2 == len(pacs.received)


def test_destination_that_falls_silent_is_left_after_the_timeout(objects: Objects) -> None:
    """One missing answer costs one timeout and one attempt, not one for each of the batch."""
    delivery = QUICK.model_copy(update={"response_timeout_s": 0.3})
    with Destination(statuses=[SILENCE]) as pacs:
        answers = answers_to(pacs.peer, delivery, objects(4))

    assert ["no answer" in str(answer) for answer in answers] == [True]
    assert 1 == len(pacs.received)


def test_small_packets_are_not_held_back() -> None:
    """TCP_NODELAY is set: Nagle's algorithm would cost 40 ms for each object."""
    with (
        Destination() as pacs,
        store_scu._association(pacs.peer, QUICK, list(store_scu.OBJECTS)) as assoc,
    ):
        sock = assoc.dul.socket.socket
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_slow_destination_leaves_the_rest_for_later(objects: Objects) -> None:
    """What cannot be begun in time goes out with a later batch; the first always goes."""
    with Destination() as pacs:
        answers = answers_to(pacs.peer, QUICK, objects(2), begin_within_s=-1)

    assert [Receipt(0)] == answers
    assert 1 == len(pacs.received)


def test_class_that_is_not_taken_is_permanent_and_spares_the_others(objects: Objects) -> None:
    """A peer without SR is said in words with the cure; the KOS beside it arrives."""
    with Destination(classes=[KOS]) as pacs:
        sr, kos = answers_to(pacs.peer, QUICK, objects(2))

    assert isinstance(sr, Permanent)
    assert "does not take Comprehensive SR Storage" in str(sr)
    assert "enable" in sr.cure
    assert Receipt(0) == kos


def test_destination_that_takes_nothing_is_permanent(objects: Objects) -> None:
    """No class accepted at all: nothing is sent, and the cure is named."""
    with Destination(classes=[CT]) as pacs:
        answers = answers_to(pacs.peer, QUICK, objects(2))

    assert [Permanent, Permanent] == [type(answer) for answer in answers]
    assert [] == pacs.received


@drops_socket
def test_dead_port_and_unknown_host_are_retriable(objects: Objects) -> None:
    """An unreachable destination is tried again; the text says where it was sought."""
    dead = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port())

    (refused,) = answers_to(dead, QUICK, objects(2))

    assert isinstance(refused, NoAssociation)
    assert f"127.0.0.1:{dead.port}" in str(refused)
    for host in ("no-such-host.invalid", "no..host.invalid", f"{'long' * 16}.invalid"):
        lost = dead.model_copy(update={"host": host})
        (unknown,) = answers_to(lost, QUICK, objects(1))
        assert isinstance(unknown, Retriable)
        assert "cannot be resolved" in str(unknown)


def test_node_names_its_software_to_the_destination() -> None:
    """PS3.7 D.3.3.2: one implementation class UID, for what is sent as for what is written."""
    with Destination() as pacs:
        store_scu.echo(pacs.peer, QUICK)

    assert [(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)] == pacs.callers


def test_silent_listener_is_retriable_within_the_timeout(objects: Objects) -> None:
    """A port that takes the connection and says nothing holds the node up for seconds only."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=silent.getsockname()[1])
        delivery = QUICK.model_copy(update={"connection_timeout_s": 0.3})
        (answer,) = answers_to(peer, delivery, objects(1))

    assert isinstance(answer, Retriable)
    assert "did not answer" in str(answer)


def test_wrong_ae_title_is_retriable_and_names_both_titles(objects: Objects) -> None:
    """A rejection is cured at either end, so deliveries wait for it; both titles are named."""
    with Destination() as pacs:
        wrong = pacs.peer.model_copy(update={"ae_title": "WRONG"})
        (answer,) = answers_to(wrong, QUICK, objects(1))

    assert isinstance(answer, Retriable)
    assert "'WRONG'" in str(answer)
    assert "'TFKT_NODE'" in str(answer)


def test_missing_and_foreign_files_are_lost(objects: Objects, tmp_path: Path) -> None:
    """A file that is gone or no DICOM ends in words; the objects beside it arrive."""
    (good,) = objects(1)
    foreign = tmp_path / "foreign.dcm"
    foreign.write_bytes(b"not DICOM" * 40)
    with Destination() as pacs:
        gone, alien, fine = answers_to(pacs.peer, QUICK, [tmp_path / "gone.dcm", foreign, good])
        assert [Lost] == [type(answer) for answer in answers_to(pacs.peer, QUICK, [foreign])]

    for answer in (gone, alien):
        assert isinstance(answer, Lost)
        assert RETRY_DELIVERIES in answer.cure
    assert (Receipt(0), 1) == (fine, pacs.associations)


@pytest.mark.parametrize("after", ["gone", "cut"])
def test_file_that_vanishes_while_the_batch_is_sent_is_lost(objects: Objects, after: str) -> None:
    """An error while reading the second file takes nothing from the first and the third."""
    first, second, third = objects(3)
    with Destination() as pacs:
        answers = store_scu.send(pacs.peer, QUICK, [first, second, third])
        assert Receipt(0) == next(answers)
        if after == "gone":
            second.unlink()
        else:
            second.write_bytes(second.read_bytes()[:140])
        assert [Lost, Receipt] == [type(answer) for answer in answers]


def test_echo_and_probe_tell_what_check_prints() -> None:
    """`check` needs to know whether a destination answers, and which classes it lacks."""
    with Destination(classes=[KOS]) as pacs:
        store_scu.echo(pacs.peer, QUICK)
        assert {store_scu.KEY_OBJECTS} == store_scu.probe(pacs.peer, QUICK)
    with Destination(classes=[SR, KOS]) as pacs:
        assert set(store_scu.objects_for(pacs.peer, Report())) == store_scu.probe(pacs.peer, QUICK)
    with Destination(classes=[]) as pacs:
        assert frozenset() == store_scu.probe(pacs.peer, QUICK)


def test_settings_say_what_a_destination_is_sent() -> None:
    """One SR of the class that it takes, KOS, and the picture where it is wished for."""
    plain = Peer(name="pacs", ae_title="PACS", host="127.0.0.1")
    old = plain.model_copy(update={"sr_class": "enhanced"})

    assert (store_scu.COMPREHENSIVE_SR, store_scu.KEY_OBJECTS) == (
        store_scu.objects_for(plain, Report())
    )
    assert (store_scu.ENHANCED_SR, store_scu.KEY_OBJECTS, store_scu.PICTURE) == (
        store_scu.objects_for(old, Report(summary_picture=True))
    )


@drops_socket
def test_echo_to_nobody_is_retriable() -> None:
    """A dead destination is an error with its place, not a traceback."""
    dead = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port())

    with pytest.raises(Retriable, match="cannot be reached"):
        store_scu.echo(dead, QUICK)


@pytest.mark.peers
def test_orthanc_takes_both_objects(
    objects: Objects, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """A real PACS stores SR and KOS, and keeps one of each when they come again."""
    require_tool("Orthanc")
    paths = objects(2)
    with OrthancServer(tmp_path / "pacs") as pacs:
        peer = Peer(name="pacs", ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.dicom_port)
        assert set(store_scu.OBJECTS) == store_scu.probe(peer, QUICK)
        first = answers_to(peer, QUICK, paths)
        again = answers_to(peer, QUICK, paths)
        stored = {pacs.file(instance) for instance in pacs.instances()}

    assert [Receipt(0)] * 2 == first == again
    assert 2 == len(stored)
    assert all(any(file.endswith(data_set(path)) for file in stored) for path in paths)
