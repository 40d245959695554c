"""Peers that are slow, silent, many or broken take nobody else's place (P7). Real sockets."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from pynetdicom.sop_class import Verification

from tests.reception import wire
from tests.reception.conftest import Listening
from tests.reception.wire import Peer
from tfkt_node import settings
from tfkt_node.reception import incoming, line, places, services
from tfkt_node.reception.arrivals import AssociationEnded
from tfkt_node.reception.door import Door
from tfkt_node.reception.file_meta import read_meta
from tfkt_node.reception.incoming import Incoming, new_buffer
from tfkt_node.records import CT_IMAGE, AssociationEnd
from tfkt_node.settings import Reception

pytestmark = pytest.mark.station


def assert_served(listening: Listening, tries: int = 1) -> None:
    """A healthy sender gets in and gets its answer; one that is turned away may try again."""
    with Peer(listening.port) as peer:
        answer = peer.associate()
        if answer in (wire.ASSOCIATE_RJ, wire.HUNG_UP) and tries > 1:
            time.sleep(0.05)
            assert_served(listening, tries - 1)
            return
        assert answer == wire.ASSOCIATE_AC
        peer.send(wire.store_pdus("1.2.3.4", b"whatever"))
        assert peer.status() == 0x0000
        peer.send(wire.RELEASE_RQ)
        assert peer.receive()[0] == wire.RELEASE_RP


@contextlib.contextmanager
def many(port: int, count: int) -> Iterator[list[Peer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Peer(port)) for _ in range(count)]


def test_p7_silent_connections_take_no_place(listen):
    """P7: connections that ask for nothing do not count, and beyond a number the oldest goes."""
    listening = listen(maximum_associations=2)

    with many(listening.port, places.WAITING + 20) as silent:
        assert [peer.receive() for peer in silent[:10]] == [(0, b"")] * 10
        assert_served(listening)
        assert_served(listening)
        conversations = [t for t in threading.enumerate() if t.name == "conversation"]

    assert len(conversations) <= places.WAITING + 10


def test_p7_slow_name_server_costs_a_bounded_number_of_threads(listen):
    """P7: while a peer's name is looked up, strangers pile up neither threads nor connections."""
    may_answer = threading.Event()
    beyond = Reception(host="0.0.0.0")
    named = [settings.Peer(name="ct", ae_title="SCANNER", host="ct.example", send=True)]
    door = Door(beyond, named, lambda _: may_answer.wait(30) and ["127.0.0.1"])
    listening = listen(door=door)
    most = places.WAITING + places.LEAVING

    with many(listening.port, most + 20) as strangers:
        answers = [peer.receive() for peer in strangers[most:]]
        conversations = [t for t in threading.enumerate() if t.name == "conversation"]
        may_answer.set()
    assert_served(listening, tries=100)

    assert answers == [(0, b"")] * 20
    assert len(conversations) <= most


@pytest.mark.parametrize("broken", ["arrive", "_timeval"])
def test_p7_connection_that_cannot_be_welcomed_ends_alone(listen, monkeypatch, caplog, broken):
    """P7, P10: whatever fails for one connection, the next one is served."""
    listening = listen(maximum_associations=1)

    def fail(*_):
        raise OverflowError("MARKER")

    with monkeypatch.context() as patched:
        patched.setattr(places.Places if broken == "arrive" else line, broken, fail)
        with Peer(listening.port) as unlucky:
            answer = unlucky.receive()
    assert_served(listening)

    assert answer == (0, b"")
    assert "why='OverflowError'" in caplog.text
    assert "MARKER" not in caplog.text


@pytest.mark.parametrize("said_s", [1e9, 1e300])
def test_p7_any_timeout_that_can_be_set_can_be_served_with(listen, said_s):
    """P7: a timeout that is longer than the system's longest is no fault."""
    assert_served(listen(socket_timeout_s=said_s, network_timeout_s=said_s))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="idle"),
        pytest.param(wire.echo_pdu()[:20], id="within a PDU"),
        pytest.param(wire.data_pdu(wire.pdv(wire.CT, 1, b"\0")), id="within a command set"),
        pytest.param(wire.store_pdus("1.2", bytes(9000), piece=8000)[:8500], id="within a message"),
    ],
)
def test_p7_parked_association_gives_way(listen, monkeypatch, caplog, said):
    """P7: where all places are taken, one that has been idle makes room for a newcomer."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(places, "PARKED_S", 0.0)
    listening = listen(maximum_associations=1)

    with Peer(listening.port) as parked:
        assert parked.associate() == wire.ASSOCIATE_AC
        parked.send(said)
        assert_served(listening, tries=100)  # its thread may be about to become idle
        last_word = parked.receive()[0]
    ended = listening.wait_for(AssociationEnded, 2)

    assert last_word == wire.ABORT
    assert sorted(end.how for end in ended) == [AssociationEnd.ABORTED, AssociationEnd.RELEASED]
    assert "all places were taken" in caplog.text
    assert list(listening.spool.incoming.iterdir()) == []


def test_p7_association_at_work_keeps_its_place(listen):
    """P7: without a parked association a newcomer is told to try later, and nobody is cut off."""
    listening = listen(maximum_associations=1)

    with Peer(listening.port) as working, Peer(listening.port) as late:
        assert working.associate() == wire.ASSOCIATE_AC
        late.send(wire.request_pdu())
        kind, body = late.receive()
        working.send(wire.echo_pdu())
        assert working.status() == 0x0000

    assert (kind, body) == (wire.ASSOCIATE_RJ, b"\0\2\3\2")


def test_place_is_free_again_at_once(listen):
    """A place is given back with the release, not when the peer closes its connection."""
    listening = listen(maximum_associations=1)

    with Peer(listening.port) as first, Peer(listening.port) as second:
        assert first.associate() == wire.ASSOCIATE_AC
        first.send(wire.RELEASE_RQ)
        assert first.receive()[0] == wire.RELEASE_RP
        assert second.associate() == wire.ASSOCIATE_AC


def test_p7_what_is_sent_ahead_waits_on_the_line(listen, monkeypatch):
    """P7: C-STOREs sent without waiting for answers are served in order, in bounded memory."""
    may_keep = threading.Event()
    keep = Incoming.keep
    monkeypatch.setattr(Incoming, "keep", lambda *its: may_keep.wait(30) and keep(*its))
    listening = listen()
    data = bytes(500_000)
    stores = [wire.store_pdus(f"1.2.{number}", data, number) for number in range(60)]
    with Peer(listening.port) as eager:
        assert eager.associate() == wire.ASSOCIATE_AC
        eager.socket.settimeout(1.0)
        sent = b"".join(stores)
        taken = 0
        with contextlib.suppress(TimeoutError):
            while taken < len(sent):
                taken += eager.socket.send(sent[taken : taken + 1_000_000])
        may_keep.set()
        eager.socket.settimeout(30)
        rest = threading.Thread(target=eager.send, args=(sent[taken:],))
        rest.start()
        statuses = [eager.status() for _ in stores]
        rest.join(30)

    assert taken < 20_000_000
    assert statuses == [0x0000] * len(stores)
    kept = [stored.sop_instance_uid for stored in listening.stored]
    assert kept == [f"1.2.{number}" for number in range(len(stores))]


def test_p2_instances_of_an_association_share_a_buffer(listen, monkeypatch):
    """P2, P7: whatever came before in the same buffer, each file holds the bytes of its own."""
    made = []

    def count():
        made.append(new_buffer())
        return made[-1]

    for module in (incoming, services):
        monkeypatch.setattr(module, "new_buffer", count)
    listening = listen()
    sent = [bytes([number]) * size for number, size in enumerate((2_500_000, 7, 1_100_000, 1), 1)]

    with Peer(listening.port) as peer:
        assert peer.associate() == wire.ASSOCIATE_AC
        for number, data in enumerate(sent):
            peer.send(wire.store_pdus(f"1.2.{number}", data))
            assert peer.status() == 0x0000

    for stored, data in zip(listening.stored, sent, strict=True):
        content = stored.path.read_bytes()
        assert content[read_meta(stored.path)[1] :] == data
        assert content.endswith(data)
    assert len(made) == 1


def test_p7_peer_that_hears_nothing_is_cut(listen):
    """P7: a peer that sends and never reads an answer does not hold its thread for ever."""
    listening = listen(socket_timeout_s=0.5)

    with Peer(listening.port) as deaf:
        assert deaf.associate() == wire.ASSOCIATE_AC
        with contextlib.suppress(ConnectionError):
            while True:
                deaf.send(wire.echo_pdu() * 1000)
    (ended,) = listening.wait_for(AssociationEnded)

    assert ended.how is AssociationEnd.LOST


def test_p7_tls_client_takes_no_place(listen):
    """P7: a peer that speaks TLS to the plain port is told at once, and one that hangs waits alone.

    The node offers no TLS of its own.
    """
    listening = listen(maximum_associations=1)
    context = ssl.create_default_context()

    with socket.create_connection(("127.0.0.1", listening.port), timeout=10) as hanging:
        hanging.sendall(b"\x16")
        with (
            socket.create_connection(("127.0.0.1", listening.port), timeout=10) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(plain, server_hostname="node")
        assert_served(listening)


def test_idle_association_is_aborted(listen, caplog):
    """An association that stays idle for network_timeout_s is aborted, and the log says so."""
    listening = listen(network_timeout_s=0.2)

    with Peer(listening.port) as idle:
        assert idle.associate() == wire.ASSOCIATE_AC
        last_word = idle.receive()[0]
    (ended,) = listening.wait_for(AssociationEnded)

    assert last_word == wire.ABORT
    assert ended.how is AssociationEnd.ABORTED
    assert "why='idle for too long'" in caplog.text


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(wire.request_pdu(), id="second request"),
        pytest.param(struct.pack(">BxL", 9, 4) + b"what", id="unknown PDU"),
        pytest.param(struct.pack(">BxL", wire.DATA, 1 << 20), id="PDU too long"),
        pytest.param(wire.data_pdu(b"\0\0\0\x09\x01\x03"), id="fragment cut off"),
        pytest.param(wire.data_pdu(wire.pdv(wire.CT, 2, b"data")), id="data without a command"),
        pytest.param(wire.data_pdu(wire.pdv(77, 3, wire.command(0x30))), id="unknown context"),
        pytest.param(wire.data_pdu(wire.pdv(wire.CT, 3, b"")), id="empty command"),
        pytest.param(wire.data_pdu(wire.pdv(wire.CT, 1, bytes(1000))) * 100, id="endless command"),
        pytest.param(wire.data_pdu(wire.pdv(wire.CT, 3, wire.command(0x8001))), id="response"),
        pytest.param(
            wire.data_pdu(wire.pdv(wire.CT, 3, wire.command(1, "1.2", data_set=True)))
            + wire.echo_pdu(),
            id="command within a data set",
        ),
    ],
)
def test_nonsense_is_aborted_and_leaves_nothing(listen, nonsense):
    """A peer that breaks the protocol is aborted with a reason, and nothing of it stays."""
    listening = listen()

    with Peer(listening.port) as peer:
        assert peer.associate() == wire.ASSOCIATE_AC
        with contextlib.suppress(ConnectionError):
            peer.send(nonsense)
        kind, body = peer.receive()
    (ended,) = listening.wait_for(AssociationEnded)

    assert kind == wire.ABORT
    assert body[2] == 2
    assert body[3] in (1, 2, 6)
    assert ended.how is AssociationEnd.ABORTED
    assert list(listening.spool.incoming.iterdir()) == []
    assert listening.stored == []


def test_p7_peer_that_stops_within_a_pdu_is_aborted(listen):
    """P7: a peer whose PDU is not whole in time is told so, and its end is that of an abort."""
    listening = listen(socket_timeout_s=0.3)

    with Peer(listening.port) as stalled:
        assert stalled.associate() == wire.ASSOCIATE_AC
        stalled.send(wire.echo_pdu()[:20])
        last_word = stalled.receive()
    (ended,) = listening.wait_for(AssociationEnded)

    assert last_word == (wire.ABORT, b"\0\0\2\0")
    assert ended.how is AssociationEnd.ABORTED


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        pytest.param(wire.echo_pdu(), (wire.ABORT, bytes(4)), id="data"),
        pytest.param(wire.RELEASE_RQ, (wire.ABORT, bytes(4)), id="release"),
        pytest.param(b"\x16\3\1\2\0\1", (wire.ABORT, bytes(4)), id="unknown"),
        pytest.param(struct.pack(">BxL", 1, 1 << 20), (wire.ABORT, bytes(4)), id="too long"),
        pytest.param(struct.pack(">BxLL", 1, 4, 0), (wire.ABORT, bytes(4)), id="malformed"),
        pytest.param(struct.pack(">BxLL", wire.ABORT, 4, 0), (0, b""), id="abort"),
    ],
)
def test_first_pdu_that_is_no_request_is_answered_as_in_the_standard(
    listen, monkeypatch, first, answer
):
    """PS3.8 table 9-10, state 2: an abort is answered by closing, all else by a user's abort."""
    monkeypatch.setattr(line, "FAREWELL_S", 0.1)
    listening = listen()

    with Peer(listening.port) as peer:
        peer.send(first)
        received = peer.receive()
        after = peer.receive()

    assert received == answer
    assert after == (0, b"")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (wire.command(0x20), 0x0211),
        (wire.command(1, "1.2"), 0xC000),
        (wire.command(0x20, data_set=True), 0x0211),
        (wire.command(1, "1.2/../x", data_set=True), 0xC000),
        (wire.command(1, "", data_set=True), 0xA900),
    ],
    ids=["C-FIND", "no data set", "C-FIND with data", "path for a UID", "class of another context"],
)
def test_request_that_is_not_provided_is_answered(listen, asked, status):
    """What the node does not do is said with a status, and the association goes on."""
    listening = listen()

    with Peer(listening.port) as peer:
        assert peer.associate() == wire.ASSOCIATE_AC
        peer.send(wire.data_pdu(wire.pdv(wire.CT, 3, asked)))
        if struct.pack("<HHLH", 0, 0x0800, 2, 1) in asked:
            peer.send(wire.data_pdu(wire.pdv(wire.CT, 0, b"da"), wire.pdv(wire.CT, 2, b"ta")))
        answered = peer.status()
        peer.send(wire.data_pdu(wire.pdv(wire.CT, 3, wire.command(0x0FFF))))
        peer.send(wire.echo_pdu())
        echoed = peer.status()

    assert answered == status
    assert echoed == 0x0000
    assert list(listening.spool.incoming.iterdir()) == []


def test_data_set_of_no_bytes_is_none(listen):
    """Kept means 0x0000: of an empty data set nothing is kept, so that no report is made of it."""
    listening = listen()

    with Peer(listening.port) as peer:
        assert peer.associate() == wire.ASSOCIATE_AC
        peer.send(wire.store_pdus("1.2.3", b"") + wire.store_pdus("1.2.3", b"data"))
        answered = [peer.status(), peer.status()]

    assert answered == [0xC000, 0x0000]
    assert len(listening.stored) == len(list(listening.spool.stored_files())) == 1


HALF = wire.store_pdus("1.2.3", bytes(2000), piece=1000)[:-1012]
ABORT = struct.pack(">BxLL", wire.ABORT, 4, 0)


@pytest.mark.parametrize(
    ("said", "level", "told"),
    [
        pytest.param(HALF, "WARNING", "how=LOST unfinished=1", id="lost within an instance"),
        pytest.param(HALF + ABORT, "WARNING", "how=ABORTED unfinished=1", id="aborted within one"),
        pytest.param(HALF + wire.RELEASE_RQ, "WARNING", "how=RELEASED unfinished=1", id="released"),
        pytest.param(wire.echo_pdu(), "WARNING", "how=LOST unfinished=0", id="lost"),
        pytest.param(ABORT, "WARNING", "how=ABORTED unfinished=0", id="aborted"),
        pytest.param(wire.RELEASE_RQ, "INFO", "how=RELEASED unfinished=0", id="as it should"),
    ],
)
def test_association_that_breaks_is_told_from_one_that_ends(listen, caplog, said, level, told):
    """An instance began and is not there: the log warns, and counts it."""
    caplog.set_level(logging.INFO)
    listening = listen()

    with Peer(listening.port) as peer:
        assert peer.associate() == wire.ASSOCIATE_AC
        peer.send(said)
        if said.endswith(wire.echo_pdu()):
            assert peer.status() == 0x0000
        peer.socket.shutdown(socket.SHUT_WR)
        peer.receive()
    listening.scp.stop(limit_s=10)  # the line of its end is written by then

    (line,) = [record for record in caplog.records if "association.ended" in record.message]
    assert line.levelname == level
    assert all(f" {part} " in line.message for part in told.split())


@pytest.mark.parametrize("sop_class", [Verification, CT_IMAGE])
def test_instance_over_the_context_of_verification_is_refused(listen, caplog, sop_class):
    """The context of C-ECHO takes no instance: 0x0122, and nothing is kept."""
    caplog.set_level(logging.INFO)
    listening = listen()
    store = wire.command(1, "1.2.3", data_set=True, sop_class=sop_class)

    with Peer(listening.port) as peer:
        assert peer.associate() == wire.ASSOCIATE_AC
        peer.send(wire.data_pdu(wire.pdv(wire.ECHO, 3, store), wire.pdv(wire.ECHO, 2, b"data")))
        answered = peer.status()
    listening.scp.stop(limit_s=10)  # the line of its end is written by then

    assert answered == 0x0122
    assert listening.stored == []
    assert "stored=0 duplicates=0 refused=1" in caplog.text


def test_operation_that_is_not_provided_is_no_instance(listen, caplog):
    """A C-FIND, with a data set or without, is said to be refused, and counts as no instance."""
    caplog.set_level(logging.INFO)
    listening = listen()
    find = wire.command(0x20, data_set=True)

    with Peer(listening.port) as peer:
        assert peer.associate() == wire.ASSOCIATE_AC
        peer.send(wire.data_pdu(wire.pdv(wire.CT, 3, wire.command(0x20))))
        peer.send(wire.data_pdu(wire.pdv(wire.CT, 3, find), wire.pdv(wire.CT, 2, b"data")))
        answered = [peer.status(), peer.status()]
    listening.scp.stop(limit_s=10)  # the line of its end is written by then

    assert answered == [0x0211, 0x0211]
    assert caplog.text.count("operation.refused calling='SCANNER' status=0x0211") == 2
    assert "stored=0 duplicates=0 refused=0" in caplog.text


@pytest.mark.parametrize(
    ("edit", "answer"),
    [
        (lambda pdu: pdu[:6] + b"\0\2" + pdu[8:], b"\0\1\2\2"),
        (lambda pdu: pdu.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"), b"\0\1\1\2"),
    ],
    ids=["version", "application"],
)
def test_request_of_another_protocol_is_rejected(listen, edit, answer):
    """A protocol version or application context that is not DICOM's is rejected as such."""
    listening = listen()

    with Peer(listening.port) as peer:
        peer.send(edit(wire.request_pdu()))
        received = peer.receive()

    assert received == (wire.ASSOCIATE_RJ, answer)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, as in a running node
def test_p7_broken_bytes_neither_crash_nor_hang(listen, caplog, monkeypatch):
    """P7, P10: whatever a peer's bytes are, its connection ends, the log is quiet, others go on."""
    monkeypatch.setattr(line, "FAREWELL_S", 0.1)
    listening = listen(socket_timeout_s=0.3, network_timeout_s=0.3)
    exchange = (
        wire.request_pdu()
        + wire.store_pdus("1.2.3", bytes(3000), piece=1000)
        + wire.echo_pdu()
        + wire.RELEASE_RQ
    )
    rng = random.Random(20260101)
    for _ in range(60):
        broken = bytearray(exchange)
        for _ in range(rng.choice((1, 1, 3, 30))):
            at = rng.choice((rng.randrange(len(broken)), rng.randrange(300)))
            broken[at] = rng.randrange(256)
        del broken[rng.randrange(1, len(broken)) :]
        with Peer(listening.port) as peer:
            with contextlib.suppress(ConnectionError):
                peer.send(bytes(broken))
            while peer.receive()[0]:
                pass

    assert_served(listening)
    # What libraries say of it is cut from the node's log, see tfkt_node.logs.
    ours = [record for record in caplog.records if record.name.startswith("tfkt_node")]
    assert not [record for record in ours if record.exc_info or "failed" in record.message]
    assert list(listening.spool.incoming.iterdir()) == []
