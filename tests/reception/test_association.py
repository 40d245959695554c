"""Real associations over loopback."""

from __future__ import annotations

import logging
import re
import socket
import struct
import threading
import time

import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
)
from pynetdicom import build_context, build_role
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.sop_class import Verification

from tests.conftest import ROOT
from tests.reception import wire
from tests.reception.scu import associate
from tfkt_node.reception import services, upper_layer
from tfkt_node.reception.arrivals import AssociationEnded, AssociationOpened
from tfkt_node.reception.door import Door
from tfkt_node.reception.file_meta import read_meta
from tfkt_node.reception.incoming import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH_CLASS,
    OUT_OF_RESOURCES,
    Incoming,
)
from tfkt_node.reception.instances import Spool
from tfkt_node.reception.line import MAXIMUM_PDU_BYTES
from tfkt_node.reception.negotiation import transfer_syntaxes
from tfkt_node.records import (
    CT_IMAGE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    AssociationEnd,
)
from tfkt_node.settings import Peer, Reception

pytestmark = pytest.mark.station


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_echo_is_answered(listen):
    """C-ECHO is answered with Success."""
    listening = listen()
    assoc = associate(listening.port, [build_context(Verification)])

    status = assoc.send_c_echo()
    assoc.release()

    assert status.Status == 0x0000


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6_is_listened_on(listen):
    """An IPv6 address of the settings is listened on, and the caller's is recorded."""
    listening = listen(host="::1")

    with socket.create_connection(("::1", listening.port), timeout=10) as peer:
        peer.sendall(wire.request_pdu())
        answer = peer.recv(1)
    (opened,) = listening.wait_for(AssociationOpened)

    assert answer == bytes([wire.ASSOCIATE_AC])
    assert opened.address == "::1"


def test_p1_answered_instance_has_its_file(listen, make_ct):
    """P1: when the sender has its 0x0000, the file lies under its final name."""
    listening = listen()
    assoc = associate(listening.port)
    ds = make_ct()

    status = assoc.send_c_store(ds)

    files = list(listening.spool.stored_files())
    assoc.release()
    assert status.Status == 0x0000
    assert len(files) == 1
    meta, _ = read_meta(files[0])
    assert meta[3] == ds.SOPInstanceUID
    assert meta[0x12] == IMPLEMENTATION_CLASS_UID
    assert meta[0x16] == "SCANNER"


def test_p3_same_instance_again_makes_nothing_new(listen, make_ct):
    """P3: the same bytes again are answered with Success and stored once."""
    listening = listen()
    assoc = associate(listening.port)
    ds = make_ct()

    statuses = [assoc.send_c_store(ds).Status for _ in range(3)]
    ds.InstanceNumber = 7
    statuses.append(assoc.send_c_store(ds).Status)
    assoc.release()

    assert statuses == [0, 0, 0, 0]
    assert len(list(listening.spool.stored_files())) == 2
    assert len(listening.stored) == 4


def test_association_is_recorded_with_its_end(listen, make_ct):
    """An association, its instance and its end are handed over in this order."""
    listening = listen()
    assoc = associate(listening.port)
    assoc.send_c_store(make_ct())
    assoc.release()

    (ended,) = listening.wait_for(AssociationEnded)
    opened, stored, _ = listening.arrivals

    assert isinstance(opened, AssociationOpened)
    assert (opened.calling_ae, opened.address) == ("SCANNER", "127.0.0.1")
    assert stored.association_id == opened.association_id == ended.association_id
    assert ended.how is AssociationEnd.RELEASED


def test_abort_and_loss_are_told_apart(listen):
    """A peer that aborts is ABORTED, one that vanishes is LOST."""
    listening = listen()

    associate(listening.port).abort()
    (first,) = listening.wait_for(AssociationEnded)
    vanishing = associate(listening.port)
    line = vanishing.dul.socket.socket
    line.shutdown(socket.SHUT_RDWR)
    second = listening.wait_for(AssociationEnded, 2)[1]
    vanishing.join(10)
    line.close()

    assert first.how is AssociationEnd.ABORTED
    assert second.how is AssociationEnd.LOST


def test_acceptor_prefers_compressed_then_explicit(listen):
    """Compressed data stay compressed, and explicit VR is preferred to implicit."""
    listening = listen(decodable=(JPEGLosslessSV1,))
    offers = [
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian],
        [ExplicitVRLittleEndian, JPEGLosslessSV1],
        [ExplicitVRBigEndian, ImplicitVRLittleEndian],
    ]

    assoc = associate(listening.port, [build_context(CT_IMAGE, offer) for offer in offers])
    chosen = [context.transfer_syntax[0] for context in assoc.accepted_contexts]
    assoc.release()

    assert chosen == [ExplicitVRLittleEndian, JPEGLosslessSV1, ImplicitVRLittleEndian]


def test_transfer_syntaxes_keep_the_order_of_the_decoders():
    """Each syntax is offered once, the uncompressed ones next, and then all that are only kept."""
    listed = transfer_syntaxes([JPEGLosslessSV1, ImplicitVRLittleEndian, JPEGLosslessSV1])

    assert listed[:3] == [JPEGLosslessSV1, ImplicitVRLittleEndian, ExplicitVRLittleEndian]
    assert listed[4] == ExplicitVRBigEndian
    assert len(listed) == len(set(listed)) > 50


@pytest.mark.parametrize(("setting", "accepted"), [("set_aside", 1), ("refuse", 0)])
def test_other_classes_are_kept_or_refused_by_setting(listen, setting, accepted):
    """Storage classes other than CT are accepted unless the setting refuses them."""
    listening = listen(other_classes=setting)
    contexts = [build_context(CT_IMAGE), build_context(MRImageStorage)]

    assoc = associate(listening.port, contexts)
    kept = [cx for cx in assoc.accepted_contexts if cx.abstract_syntax == MRImageStorage]
    assoc.release()

    assert len(kept) == accepted


RETIRED, RADIOTHERAPY = "1.2.840.10008.5.1.4.1.1.5", "1.2.840.10008.5.1.4.34.7"
SIEMENS, PHILIPS = "1.3.12.2.1107.5.9.1", "1.3.46.670589.5.0.1"
FIND, COMMITMENT, HANGING = (
    "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.38.1"
)  # fmt: skip


def accepted_of(listening, *abstract_syntaxes):
    """Propose a context for each; return those that are accepted."""
    assoc = associate(listening.port, [build_context(uid) for uid in abstract_syntaxes])
    accepted = [str(context.abstract_syntax) for context in assoc.accepted_contexts]
    assoc.release()
    return accepted


@pytest.mark.parametrize("other", [RETIRED, RADIOTHERAPY, SIEMENS, PHILIPS])
def test_private_and_retired_classes_are_set_aside_like_all_others(listen, make_ct, other):
    """Design 5: outside the CT classes all is kept; one private object would fail a whole study."""
    keeping, refusing = listen(), listen(other_classes="refuse")
    contexts = [build_context(CT_IMAGE), build_context(other)]

    assoc = associate(keeping.port, contexts)
    status = assoc.send_c_store(make_ct(SOPClassUID=other)).Status
    assoc.release()

    assert status == 0x0000
    assert [stored.sop_class_uid for stored in keeping.stored] == [other]
    assert accepted_of(refusing, CT_IMAGE, other) == [CT_IMAGE]


def test_other_services_of_the_standard_are_not_taken_for_storage(listen):
    """What the node does not do it does not accept, and it says so in its answer."""
    assert accepted_of(listen(), FIND, COMMITMENT, HANGING, CT_IMAGE) == [CT_IMAGE]


def test_rejected_contexts_are_told(listen, caplog):
    """On the scanner the job is red: one line of the log says whose it was, and which classes."""
    caplog.set_level(logging.WARNING)
    listening = listen()
    private = build_context(CT_IMAGE, "1.2.840.113619.5.2")
    contexts = [private, *(build_context(uid) for uid in (FIND, CT_IMAGE, COMMITMENT, FIND))]

    assoc = associate(listening.port, contexts)
    assoc.release()

    assert [record.message for record in caplog.records if "contexts" in record.message] == [
        "contexts.rejected calling='SCANNER' address=127.0.0.1 rejected=4 proposed=5 "
        f"abstract_syntaxes='{CT_IMAGE} (transfer syntax), {FIND}, {COMMITMENT}'"
    ]


def test_many_rejected_contexts_are_told_in_a_line_of_sensible_length(listen, caplog):
    """P7, P10: however many there are and whatever stands in them, the log stays readable."""
    listening = listen()
    asked = [build_context(uid) for uid in ("1.9.9.9.9.9", *(f"{FIND}.{n}" for n in range(100)))]
    for number, context in enumerate(asked):
        context.context_id = 2 * number + 1
    request = wire.request_pdu(presentation_context_definition_list=asked)

    with wire.Peer(listening.port) as peer:
        peer.send(request.replace(b"1.9.9.9.9.9", b"MARKER^NAME"))
        assert peer.receive()[0] == wire.ASSOCIATE_AC

    (line,) = [record.message for record in caplog.records if "contexts" in record.message]
    assert "rejected=101 proposed=101 abstract_syntaxes='no UID, " in line
    assert line.endswith(f"{FIND}.8, and 91 more'")
    assert "MARKER" not in line


def test_p11_wrong_called_title_is_rejected(listen, caplog):
    """P11: an association to another title is rejected, and the log names who called."""
    caplog.set_level(logging.WARNING)
    listening = listen()

    assoc = associate(listening.port, called="OTHER")

    assert assoc.is_rejected
    assert assoc.acceptor.primitive.diagnostic == 7
    assert "calling='SCANNER' called='OTHER' address=127.0.0.1" in caplog.text


def test_p11_nothing_is_agreed_on_with_who_is_turned_away(listen, monkeypatch):
    """P11: a stranger's contexts are not looked at."""
    looked_at = []
    monkeypatch.setattr(upper_layer, "agree", lambda *its: looked_at.append(its))
    listening = listen()

    with wire.Peer(listening.port) as stranger:
        answer = stranger.associate(called="OTHER")

    assert answer == wire.ASSOCIATE_RJ
    assert looked_at == []


def test_later_edition_of_the_standard_keeps_no_sender_out(listen):
    """A request with items that nobody knows yet, and titles padded with NUL, is accepted."""
    unknown = b"\x5a\0\0\2xx"
    pdu = bytearray(wire.request_pdu() + unknown)
    pdu[2:6] = struct.pack(">L", len(pdu) - 6)
    pdu[10:42] = pdu[10:42].replace(b" ", b"\0")
    listening = listen()

    with wire.Peer(listening.port) as peer:
        peer.send(bytes(pdu))
        answer = peer.receive()[0]
    (opened,) = listening.wait_for(AssociationOpened)

    assert answer == wire.ASSOCIATE_AC
    assert opened.calling_ae == "SCANNER"


def test_p11_unlisted_caller_is_rejected_beyond_loopback(listen):
    """P11: beyond loopback an unlisted title is rejected, a listed one is let in."""
    beyond = Reception(host="0.0.0.0")
    peers = [Peer(name="ct", ae_title="CT_ONE", network="127.0.0.0/8", send=True)]
    listening = listen(door=Door(beyond, peers))

    stranger = associate(listening.port)
    listed = associate(listening.port, calling="CT_ONE")
    admitted = listed.is_established
    listed.release()

    assert stranger.is_rejected
    assert stranger.acceptor.primitive.diagnostic == 3
    assert admitted


def test_p11_fault_in_the_check_rejects(listen, monkeypatch, caplog):
    """P11: when the check itself fails, nobody comes in, and the sender may try again."""
    listening = listen()
    monkeypatch.setattr(Door, "rejection", lambda *_: (_ for _ in ()).throw(RuntimeError("MARKER")))

    assoc = associate(listening.port)

    assert assoc.is_rejected
    assert assoc.acceptor.primitive.result == 2
    assert "RuntimeError" in caplog.text
    assert "MARKER" not in caplog.text


def test_peer_silent_inside_a_pdu_is_closed_and_others_are_served(listen, make_ct):
    """P7: a peer that stops inside a PDU loses its place, and others are served meanwhile."""
    listening = listen(socket_timeout_s=1.0)
    stalled = socket.create_connection(("127.0.0.1", listening.port))
    stalled.sendall(b"\x01\x00" + struct.pack(">L", 200) + b"\x00\x01")

    assoc = associate(listening.port)
    status = assoc.send_c_store(make_ct())
    assoc.release()
    stalled.settimeout(10)
    left = stalled.recv(100)
    stalled.close()

    assert status.Status == 0x0000
    assert left == b""


def test_p7_full_disk_is_refused_and_recovers(listen, make_ct, tmp_path):
    """P7: below the disk reserve 0xA700 is answered, nothing is kept, and then it goes on."""
    spool = Spool(tmp_path / "spool", reserve_bytes=1 << 62)
    listening = listen(spool=spool)
    assoc = associate(listening.port)
    ds = make_ct()

    refused = assoc.send_c_store(ds)
    kept = [path for path in spool.root.rglob("*") if path.is_file()]
    spool._reserve_bytes = 0
    accepted = assoc.send_c_store(ds)
    assoc.release()

    assert refused.Status == 0xA700
    assert len(refused.ErrorComment) <= 64
    assert kept == []
    assert accepted.Status == 0x0000


def test_p10_failures_show_no_value(listen, make_ct, caplog, monkeypatch):
    """P10: an error inside the handler is answered and logged without a value or traceback."""
    listening = listen()
    monkeypatch.setattr(Incoming, "keep", lambda *_: (_ for _ in ()).throw(ValueError("MARKER")))
    assoc = associate(listening.port)

    status = assoc.send_c_store(make_ct())
    assoc.release()

    assert status.Status == 0x0110
    assert "MARKER" not in caplog.text
    assert "error=ValueError" in caplog.text


def test_stop_lets_an_open_association_end(listen, make_ct):
    """A clean stop accepts no more and waits for what is under way."""
    listening = listen()
    assoc = associate(listening.port)
    port = listening.port

    stopping = threading.Thread(target=listening.scp.stop, args=(10,))
    stopping.start()
    while listens(port):
        time.sleep(0.05)
    status = assoc.send_c_store(make_ct())
    assoc.release()
    stopping.join(5)

    assert status.Status == 0x0000
    assert not stopping.is_alive()


def test_probes_take_no_place(listen, caplog):
    """Bare TCP connections, as of a load balancer, are let go without a word in the log."""
    listening = listen(maximum_associations=1)

    for _ in range(5):
        assert listens(listening.port)
    assoc = associate(listening.port)
    admitted = assoc.is_established
    assoc.release()

    assert admitted
    assert caplog.text == ""


def test_negotiation_items_are_taken_or_passed_over(listen, make_ct):
    """Roles, asynchronous operations and a user's identity keep no sender out."""
    listening = listen()
    role = build_role(CT_IMAGE, scu_role=True)
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"MARKER"

    assoc = associate(listening.port, ext_neg=[role, window, identity])
    status = assoc.send_c_store(make_ct())
    assoc.release()

    assert status.Status == 0x0000


def test_node_says_who_it_is_and_what_it_takes(listen):
    """The answer to a request names implementation and longest PDU, and each context's result."""
    listening = listen()
    offers = [build_context(CT_IMAGE), build_context("1.2.840.10008.5.1.4.1.2.2.1")]

    assoc = associate(listening.port, offers)
    node = assoc.acceptor
    accepted = [context.abstract_syntax for context in assoc.accepted_contexts]
    rejected = {context.abstract_syntax: context.result for context in assoc.rejected_contexts}
    assoc.release()

    assert node.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert node.implementation_version_name == IMPLEMENTATION_VERSION_NAME
    assert node.maximum_length == MAXIMUM_PDU_BYTES
    assert accepted == [CT_IMAGE]
    assert rejected == {"1.2.840.10008.5.1.4.1.2.2.1": 3}


def test_stop_aborts_who_stays(listen):
    """After its limit a stop aborts the associations that are still open."""
    listening = listen()
    assoc = associate(listening.port)

    listening.scp.stop(limit_s=0)

    (ended,) = listening.wait_for(AssociationEnded)
    assoc.join(10)
    assert ended.how is AssociationEnd.ABORTED
    assert assoc.is_aborted


@pytest.mark.parametrize(("rows", "status"), [(512, 0x0000), (800, 0xA700)])
def test_p7_too_large_instance_is_out_of_resources(listen, make_ct, tmp_path, rows, status):
    """P7: an instance over the limit gets 0xA700, and its sender may go on."""
    spool = Spool(tmp_path / "limited", maximum_bytes=1_000_000)
    listening = listen(spool=spool, maximum_instance_mb=1)
    assoc = associate(listening.port)

    answer = assoc.send_c_store(make_ct(rows=rows)).Status
    again = assoc.send_c_store(make_ct(rows=16)).Status
    assoc.release()

    assert answer == status
    assert again == 0x0000


def test_message_without_end_is_aborted(listen, make_ct):
    """P7: memory is bounded: a data set far over the limit ends its association, and only that."""
    listening = listen(maximum_instance_mb=1)
    endless, other = associate(listening.port), associate(listening.port)

    answer = endless.send_c_store(make_ct(rows=1500))
    (ended,) = listening.wait_for(AssociationEnded)
    status = other.send_c_store(make_ct())
    other.release()

    assert "Status" not in answer
    assert ended.how is AssociationEnd.ABORTED
    assert status.Status == 0x0000


def test_conformance_statement_lists_every_status():
    """What reception answers, and nothing else, is in the statement's table of the Storage SCP."""
    statement = (ROOT / "deploy" / "CONFORMANCE.md").read_text(encoding="utf-8")
    storage = statement.partition("### 5.1")[2].partition("### 5.2")[0]

    listed = {int(status, 16) for status in re.findall(r"^\| (0x\w{4}) \|", storage, re.M)}

    assert listed == {
        services.SUCCESS,
        services.PROCESSING_FAILURE,
        services.CLASS_NOT_SUPPORTED,
        services.UNRECOGNISED_OPERATION,
        OUT_OF_RESOURCES,
        DOES_NOT_MATCH_CLASS,
        CANNOT_UNDERSTAND,
    }
