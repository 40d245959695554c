"""Requests for associations, and the answers, against the library's own."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1
from pynetdicom import build_context, build_role
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    UserIdentityNegotiation,
)

from tests.reception import wire
from tfkt_node.reception.door import Rejection
from tfkt_node.reception.line import HEADER, LONGEST_REQUEST_BYTES, MAXIMUM_PDU_BYTES
from tfkt_node.reception.negotiation import VERIFICATION
from tfkt_node.reception.upper_layer import (
    Context,
    Proposed,
    Request,
    abort_pdu,
    agree,
    decode_request,
    rejection_pdu,
)
from tfkt_node.records import (
    CT_IMAGE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)

OFFERED = {CT_IMAGE: [JPEGLosslessSV1, ExplicitVRLittleEndian, ImplicitVRLittleEndian]}
FIXED = struct.pack(">H2x16s16s32s", 1, b"TFKT_NODE", b"SCANNER", bytes(range(32)))


def decode(pdu: bytes) -> Request:
    return decode_request(memoryview(pdu)[HEADER.size :])


def item(kind: int, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return struct.pack(">BxH", kind, len(value)) + value


def context(number: int, *parts: bytes) -> bytes:
    return item(0x20, bytes([number, 0, 0, 0]), *parts)


UNKNOWN = item(0x5A, b"what") + item(0xFF) + item(0x00, b"\0")
SYNTAXES = item(0x30, CT_IMAGE.encode()) + item(0x40, ImplicitVRLittleEndian.encode() + b"\0")


def request(*items: bytes, titles: bytes = FIXED) -> Request:
    return decode_request(
        memoryview(b"".join((titles, item(0x10, b"1.2.840.10008.3.1.1.1"), *items)))
    )


def test_request_of_the_library_is_read():
    """What pynetdicom asks for is read as it was meant; what the node has no use for is not."""
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"MARKER"
    limit = wire.MaximumLengthNotification()
    limit.maximum_length_received = 54321
    user = [limit, window, build_role(CT_IMAGE, scu_role=True), identity]

    found = decode(wire.request_pdu("SCANNER", "TFKT_NODE", user_information=user))

    assert found.unsupported is None
    assert (found.calling_ae, found.called_ae) == ("SCANNER", "TFKT_NODE")
    assert found.maximum_pdu_bytes == 54321
    assert found.proposed[wire.CT] == Proposed(CT_IMAGE, [ExplicitVRLittleEndian])
    assert found.proposed[wire.ECHO].abstract_syntax == VERIFICATION
    assert len(found.proposed[wire.ECHO].transfer_syntaxes) == 4


def test_items_of_unknown_types_are_passed_over():
    """PS3.8 section 9.3.1 and annex D.2: what a later edition adds keeps no sender out."""
    limit = item(0x51, struct.pack(">L", 16384))

    found = request(
        UNKNOWN,
        context(5, UNKNOWN, SYNTAXES, UNKNOWN),
        UNKNOWN,
        item(0x50, UNKNOWN, limit, UNKNOWN),
    )

    assert found.proposed == {5: Proposed(CT_IMAGE, [ImplicitVRLittleEndian])}
    assert found.maximum_pdu_bytes == 16384


@pytest.mark.parametrize("calling", [b"SCANNER", b"SCANNER".ljust(16), b" SCANNER \0\0\0"])
def test_title_may_be_padded_with_spaces_or_nul(calling):
    """The title is what is left without its padding."""
    titles = struct.pack(">H2x16s16s32x", 1, b"TFKT_NODE\0", calling)

    found = request(context(1, SYNTAXES), titles=titles)

    assert (found.calling_ae, found.called_ae) == ("SCANNER", "TFKT_NODE")


@pytest.mark.parametrize(
    "calling", [b"", bytes(16), b" " * 16, b"A\nB", b"A\\B", b"K\xd6LN", b"A\0B"]
)
def test_title_that_is_none_is_malformed(calling):
    """An empty title, and one that could not be written to a file, is no title."""
    titles = struct.pack(">H2x16s16s32x", 1, b"TFKT_NODE", calling)

    with pytest.raises(ValueError, match="AE title"):
        request(context(1, SYNTAXES), titles=titles)


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(b"\x20\0", id="item cut off"),
        pytest.param(struct.pack(">BxH", 0x50, 9), id="item too long"),
        pytest.param(item(0x50, struct.pack(">BxH", 0x51, 9)), id="sub-item too long"),
        pytest.param(item(0x20, b"\1"), id="context cut off"),
        pytest.param(context(2, SYNTAXES), id="even ID"),
        pytest.param(context(1, SYNTAXES) * 2, id="ID twice"),
        pytest.param(context(1, item(0x30, CT_IMAGE.encode())), id="no transfer syntax"),
        pytest.param(context(1, item(0x40, ImplicitVRLittleEndian.encode())), id="no class"),
    ],
)
def test_request_that_makes_no_sense_is_malformed(items):
    """P7: a length is not believed, and two meanings are none."""
    with pytest.raises(ValueError, match=r"A-ASSOCIATE-RQ|presentation context"):
        request(items)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_request_or_malformed(encoded, has_titles):
    """P7: whatever stands in place of a request, no other error comes of it."""
    try:
        found = decode_request(memoryview(FIXED * has_titles + encoded))
    except ValueError:
        return
    agree(found, OFFERED.get)


def test_p7_request_costs_no_more_than_its_length():
    """P7: a request crammed with syntaxes and contexts is done with in the time of its bytes."""
    short = b"".join(item(0x40, b"%d" % number) for number in range(7_000))
    items = [context(number, SYNTAXES, short) for number in (1, 3, 5)]
    items.append(item(0x50, item(0xFF) * 16_000))
    began = time.process_time()

    terms = agree(request(*items), OFFERED.get)

    assert len(terms.contexts) == 3
    assert sum(map(len, items)) < LONGEST_REQUEST_BYTES
    assert time.process_time() - began < 2.0


def test_longest_honest_request_is_read():
    """128 contexts of 60 transfer syntaxes each stay below the longest request."""
    syntaxes = [f"1.2.840.10008.1.2.4.{number}" for number in range(100, 160)]
    contexts = [
        build_context(f"1.2.840.10008.5.1.4.1.1.{number}", syntaxes) for number in range(128)
    ]
    for number, one in enumerate(contexts):
        one.context_id = 2 * number + 1

    pdu = wire.request_pdu(presentation_context_definition_list=contexts)

    assert len(decode(pdu).proposed) == 128
    assert len(pdu) < LONGEST_REQUEST_BYTES


def test_answer_is_read_by_the_library():
    """The answer says who the node is and what came of each context, and repeats the titles."""
    other = item(0x30, b"1.2.3") + item(0x40, ImplicitVRLittleEndian.encode())
    private = item(0x30, CT_IMAGE.encode()) + item(0x40, b"1.2.3.4")
    asked = request(
        context(1, SYNTAXES, item(0x40, b"9.9")), context(3, other), context(255, private)
    )

    terms = agree(asked, OFFERED.get)

    answer = A_ASSOCIATE_AC()
    answer.decode(terms.acceptance)
    primitive = answer.to_primitive()
    results = primitive.presentation_context_definition_results_list
    assert terms.contexts == {1: Context(CT_IMAGE, ImplicitVRLittleEndian)}
    assert terms.rejected == {3: 3, 255: 4}
    assert [(one.context_id, one.result) for one in results] == [(1, 0), (3, 3), (255, 4)]
    assert results[0].transfer_syntax == [ImplicitVRLittleEndian]
    assert primitive.application_context_name == "1.2.840.10008.3.1.1.1"
    assert answer.user_information.maximum_length == MAXIMUM_PDU_BYTES
    assert answer.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert answer.user_information.implementation_version_name == IMPLEMENTATION_VERSION_NAME
    assert terms.acceptance[10:74] == FIXED[4:]
    assert len(terms.acceptance) == 6 + struct.unpack(">L", terms.acceptance[2:6])[0]


def test_acceptor_chooses_what_it_prefers():
    """Of the syntaxes that a peer proposes, the first of the node's own order is taken."""
    proposed = b"".join(item(0x40, uid.encode()) for uid in reversed(OFFERED[CT_IMAGE]))

    terms = agree(request(context(1, item(0x30, CT_IMAGE.encode()), proposed)), OFFERED.get)

    assert terms.contexts[1].transfer_syntax == JPEGLosslessSV1


def test_last_words_are_read_by_the_library():
    """A rejection and an abort name their source and reason."""
    rejection, abort = A_ASSOCIATE_RJ(), A_ABORT_RQ()
    rejection.decode(rejection_pdu(Rejection(1, 2, 3, "")))
    abort.decode(abort_pdu(2, 6))

    assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (1, 2, 3)
    assert (abort.source, abort.reason_diagnostic) == (2, 6)
