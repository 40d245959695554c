"""What a connection takes in, and for how long, before anything is made of it."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from tests.reception.scu import associate
from tfkt_node.reception import line
from tfkt_node.reception.door import Door
from tfkt_node.reception.line import LONGEST_DATA_BYTES, LONGEST_REQUEST_BYTES, Line
from tfkt_node.reception.negotiation import MAXIMUM_PDU_BYTES
from tfkt_node.settings import Peer, Reception

pytestmark = pytest.mark.station

REQUEST, DATA, RELEASE, UNKNOWN = 1, 4, 5, 9
BEYOND = Reception(host="0.0.0.0")


def pdu(kind, length, body=b""):
    return struct.pack(">BxL", kind, length) + body


@pytest.fixture
def ends():
    """A Line, and the other end of it."""
    ours, peer = socket.socketpair()
    with Line(ours.detach(), "peer", pdu_timeout_s=5.0) as node, peer:
        yield node, peer


def read_pdu(node):
    """Read as the library does: the header, then the body in pieces."""
    header = node.recv(6)
    length = struct.unpack(">L", header[2:])[0] if header[0] < 8 else 0
    body = b""
    while len(body) < length:
        body += node.recv(min(4096, length - len(body)))
    return body


@pytest.mark.parametrize(
    ("kind", "longest"),
    [(REQUEST, LONGEST_REQUEST_BYTES), (DATA, LONGEST_DATA_BYTES), (RELEASE, LONGEST_DATA_BYTES)],
)
def test_p7_pdu_longer_than_agreed_is_refused_from_its_header(ends, kind, longest):
    """P7: a PDU's length is not believed: over the limit nothing of its body is read."""
    node, peer = ends
    peer.sendall(pdu(kind, longest))
    node.recv(6)
    node.close()
    ours, other = socket.socketpair()

    with Line(ours.detach(), "peer", pdu_timeout_s=5.0) as fresh, other:
        other.sendall(pdu(kind, longest + 1))
        with pytest.raises(ConnectionAbortedError, match=f"{longest + 1} bytes"):
            fresh.recv(6)


def test_largest_agreed_data_passes():
    """The longest P-DATA-TF that the node announces is taken, and one counted with its header."""
    assert MAXIMUM_PDU_BYTES + 12 <= LONGEST_DATA_BYTES < 2 * MAXIMUM_PDU_BYTES


def test_bodies_are_not_taken_for_headers(ends):
    """PDUs one after another are told apart, whatever their bodies hold."""
    node, peer = ends
    bodies = [b"", pdu(DATA, 1 << 31), bytes(range(256)) * 300, b"\xff" * 5]
    sent = b"".join(pdu(DATA, len(body), body) for body in bodies) + pdu(UNKNOWN, 1 << 31)
    sending = threading.Thread(target=peer.sendall, args=(sent + pdu(RELEASE, 4, b"last"),))
    sending.start()

    read = [read_pdu(node) for _ in range(len(bodies) + 2)]
    sending.join(10)

    assert read == [*bodies, b"", b"last"]


def test_p7_pdu_must_be_whole_by_its_deadline(ends, monkeypatch):
    """P7: a peer that drips is cut off once the PDU's time is up; the next PDU has its own."""
    now = [100.0]
    monkeypatch.setattr(line, "monotonic", lambda: now[0])
    node, peer = ends

    peer.sendall(pdu(DATA, 2, b"ab"))
    read_pdu(node)
    now[0] += 60.0
    peer.sendall(pdu(DATA, 100, b"abc"))
    node.recv(6)
    for _ in range(2):
        now[0] += 2.4
        node.recv(1)
    now[0] += 0.3

    with pytest.raises(TimeoutError):
        node.recv(1)


def test_wait_for_an_answer_is_whole_after_a_pdu(ends):
    """What is left of one PDU's time does not shorten the next wait."""
    node, peer = ends
    peer.sendall(pdu(DATA, 2, b"ab"))

    read_pdu(node)

    assert node.gettimeout() == 5.0


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

    assert left == b""
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
