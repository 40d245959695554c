"""What a connection takes in, and for how long, before anything is made of it."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time

import pytest

from tests.reception.scu import associate
from tfkt_node.reception import line
from tfkt_node.reception.conversation import Conversation
from tfkt_node.reception.door import Door
from tfkt_node.reception.line import (
    LONGEST_DATA_BYTES,
    LONGEST_REQUEST_BYTES,
    MAXIMUM_PDU_BYTES,
    Late,
    Line,
    TooLong,
)
from tfkt_node.settings import Peer, Reception

pytestmark = pytest.mark.station

REQUEST, DATA, RELEASE, ABORT, UNKNOWN = 1, 4, 5, 7, 9
BEYOND = Reception(host="0.0.0.0")


def pdu(kind, length, body=b""):
    return struct.pack(">BxL", kind, length) + body


@pytest.fixture
def ends():
    """A Line, and the other end of it."""
    ours, peer = socket.socketpair()
    node = Line(ours, "peer", pdu_timeout_s=5.0)
    with peer:
        yield node, peer
        node.close()


def read(node):
    """Read a PDU that must come: its type and a copy of its body."""
    found = node.read_pdu(5.0)
    assert found is not None
    return found.kind, bytes(found.body)


@pytest.mark.parametrize(
    ("kind", "longest"),
    [(REQUEST, LONGEST_REQUEST_BYTES), (DATA, LONGEST_DATA_BYTES), (RELEASE, LONGEST_DATA_BYTES)],
)
def test_p7_pdu_longer_than_agreed_is_refused_from_its_header(ends, kind, longest):
    """P7: a PDU's length is not believed: over the limit its body is not waited for."""
    node, peer = ends
    sending = threading.Thread(target=peer.sendall, args=(pdu(kind, longest, bytes(longest)),))
    sending.start()
    assert read(node) == (kind, bytes(longest))
    sending.join(5)

    peer.sendall(pdu(kind, longest + 1))

    with pytest.raises(TooLong, match=f"{longest + 1} bytes"):
        node.read_pdu(5.0)


def test_largest_agreed_data_passes():
    """The longest P-DATA-TF that the node announces is taken, and one counted with its header."""
    assert MAXIMUM_PDU_BYTES + 12 <= LONGEST_DATA_BYTES < 2 * MAXIMUM_PDU_BYTES


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_bodies_are_not_taken_for_headers(ends, piece):
    """PDUs one after another are told apart, whatever they hold and however they are cut."""
    node, peer = ends
    bodies = [b"", pdu(DATA, 1 << 31), bytes(range(256)) * 300, b"\xff" * 5, b"x" * 130_000] * 3
    if piece == 1:
        bodies = [body[:999] for body in bodies]
    sent = b"".join(pdu(DATA, len(body), body) for body in bodies)
    sent += pdu(UNKNOWN, 1 << 31) + pdu(RELEASE, 4, b"last")

    def send():
        for at in range(0, len(sent), piece):
            peer.sendall(sent[at : at + piece])

    sending = threading.Thread(target=send)
    sending.start()

    found = [read(node) for _ in range(len(bodies) + 2)]
    sending.join(10)

    assert found == [*((DATA, body) for body in bodies), (UNKNOWN, b""), (RELEASE, b"last")]


def test_silence_is_no_error(ends):
    """A peer that says nothing is told apart from one that stops within a PDU."""
    node, peer = ends

    silent = node.read_pdu(0.01)
    peer.sendall(pdu(RELEASE, 4, b"last"))

    assert silent is None
    assert read(node) == (RELEASE, b"last")


def test_p7_pdu_must_be_whole_by_its_deadline(ends, monkeypatch):
    """P7: a peer that drips is cut off once the PDU's time is up, whatever has come of it."""
    node, peer = ends
    now = itertools.count(100.0, 2.4)  # each look at the clock is 2.4 s after the one before
    monkeypatch.setattr(line, "monotonic", lambda: next(now))

    def drip():
        for byte in pdu(RELEASE, 0):
            peer.sendall(bytes([byte]))
            time.sleep(0.02)

    dripping = threading.Thread(target=drip)
    dripping.start()

    with pytest.raises(Late, match="not whole in time"):
        node.read_pdu(5.0)
    dripping.join(10)


def test_peer_that_hangs_up_is_gone(ends):
    """A connection that is closed, at a PDU's end or within it, is a lost one."""
    node, peer = ends
    peer.sendall(pdu(DATA, 10, b"half"))
    peer.close()

    with pytest.raises(ConnectionResetError):
        node.read_pdu(5.0)
    with pytest.raises(ConnectionResetError):
        node.read_pdu(5.0)


def test_last_word_is_heard_though_bytes_are_left_unread():
    """A peer that still sends hears why it is turned away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    node = Line(accepted, "peer", pdu_timeout_s=5.0)
    peer.sendall(bytes(100_000))

    node.send(b"last word")
    closing = threading.Thread(target=lambda: (node.see_off(), node.close()))
    closing.start()
    heard = peer.recv(100)
    peer.close()
    closing.join(10)

    assert heard == b"last word"
    assert not closing.is_alive()


def test_p7_word_that_the_peer_does_not_take_is_not_waited_for(ends):
    """P7: who hangs up on a peer that reads nothing is not held up by it."""
    node, _ = ends
    with contextlib.suppress(BlockingIOError):
        while True:
            node.send_at_once(bytes(100_000))
    conversation = Conversation(node, None)
    conversation.idle_since = 0.0

    leaving = threading.Thread(target=conversation.ask_to_leave, args=("",), daemon=True)
    leaving.start()
    leaving.join(3)

    assert not leaving.is_alive()
    with pytest.raises(ConnectionResetError):
        node.read_pdu(5.0)


def test_p7_dripping_peer_loses_its_place(listen):
    """P7: a byte now and then does not hold a place for ever."""
    listening = listen(socket_timeout_s=0.5, maximum_associations=1)
    closed = False
    with socket.create_connection(("127.0.0.1", listening.port)) as dripping:
        dripping.settimeout(0.1)
        dripping.sendall(pdu(REQUEST, 10_000))
        for _ in range(50):
            try:
                dripping.sendall(b"\0")
                closed = dripping.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
            break

    assert closed


def test_p7_length_of_a_gigabyte_is_not_believed(listen, make_ct, caplog):
    """P7: a PDU said to be huge ends its connection at once, with a line that says why."""
    listening = listen()
    with socket.create_connection(("127.0.0.1", listening.port), timeout=10) as huge:
        huge.sendall(pdu(REQUEST, 1 << 30))
        left = huge.recv(1)
    assoc = associate(listening.port)
    status = assoc.send_c_store(make_ct(rows=1024)).Status
    assoc.release()

    assert left == bytes([ABORT])
    assert "connection.cut address=127.0.0.1" in caplog.text
    assert f"{1 << 30} bytes" in caplog.text
    assert status == 0x0000


@pytest.mark.parametrize("network", ["192.0.2.0/24", ""])
def test_p11_strangers_address_is_hung_up_on(listen, caplog, network):
    """P11, P7: beyond loopback an address of no sender is cut off before it has said a word."""
    caplog.set_level("INFO")
    peers = [Peer(name="ct", ae_title="CT", host="192.0.2.7", network=network, send=True)]
    listening = listen(door=Door(BEYOND, peers))

    with socket.create_connection(("127.0.0.1", listening.port), timeout=10) as stranger:
        left = stranger.recv(1)

    assert left == b""
    assert "connection.refused address=127.0.0.1" in caplog.text


def test_p11_fault_in_the_address_check_hangs_up(listen, caplog, monkeypatch):
    """P11: when the look at the address fails, the connection is cut off."""
    caplog.set_level("INFO")
    monkeypatch.setattr(Door, "knows", lambda *_: (_ for _ in ()).throw(RuntimeError("MARKER")))
    listening = listen()

    with socket.create_connection(("127.0.0.1", listening.port), timeout=10) as caller:
        left = caller.recv(1)

    assert left == b""
    assert "RuntimeError" in caplog.text
    assert "MARKER" not in caplog.text
