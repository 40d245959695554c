"""DIMSE messages, coded and decoded, against the library's own."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from tfkt_node.reception.messages import (
    Command,
    Malformed,
    command_pdus,
    decode_command,
    encode_response,
    fragments,
)
from tfkt_node.records import CT_IMAGE

REQUEST = Command(1, 7, has_data_set=True, sop_class_uid=CT_IMAGE, sop_instance_uid="1.2.3")


def joined(pdus):
    """Join the fragments of PDUs as the library decodes them."""
    message = DIMSEMessage()
    while pdus:
        length = struct.unpack(">L", pdus[2:6])[0]
        pdu = P_DATA_TF()
        pdu.decode(pdus[: 6 + length])
        is_whole = message.decode_msg(pdu.to_primitive())
        pdus = pdus[6 + length :]
        assert is_whole == (not pdus)
    return message


def test_command_of_the_library_is_read():
    """A C-STORE request that pynetdicom encodes is read as it was meant."""
    primitive = C_STORE()
    primitive.MessageID = 513
    primitive.AffectedSOPClassUID = CT_IMAGE
    primitive.AffectedSOPInstanceUID = "1.2.3.45"
    primitive.Priority = 2
    primitive.DataSet = BytesIO(b"data")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    (pdv, _) = (data.presentation_data_value_list[0] for data in message.encode_msg(3, 0))

    command = decode_command(pdv[1][1:])

    assert command == Command(
        1, 513, has_data_set=True, sop_class_uid=CT_IMAGE, sop_instance_uid="1.2.3.45"
    )


@pytest.mark.parametrize("maximum_bytes", [0, 16384, 50, 7, 6, 1])
def test_response_is_read_by_the_library(maximum_bytes):
    """An answer has the request's identity, its status and comment, in PDUs the peer takes."""
    response = encode_response(REQUEST, 0xA700, "Why " * 30)

    pdus = command_pdus(5, response, maximum_bytes)

    message = joined(pdus)
    primitive = message.message_to_primitive()
    assert isinstance(message, C_STORE_RSP)
    assert message.context_id == 5
    assert (primitive.MessageIDBeingRespondedTo, primitive.Status) == (7, 0xA700)
    assert primitive.AffectedSOPClassUID == CT_IMAGE
    assert primitive.AffectedSOPInstanceUID == "1.2.3"
    assert primitive.ErrorComment == ("Why " * 30)[:64].rstrip()
    first = struct.unpack(">L", pdus[2:6])[0]
    assert not maximum_bytes or first <= max(maximum_bytes, 7)


def test_group_length_counts_what_follows():
    """(0000,0000) holds the length of the rest of the command set."""
    response = encode_response(REQUEST, 0)

    decoded = decode(BytesIO(response), True, True)

    assert decoded.CommandGroupLength == len(response) - 12
    assert decoded.CommandDataSetType == 0x0101
    assert "ErrorComment" not in decoded


@pytest.mark.parametrize(
    "body",
    [b"\0\0\0", b"\0\0\0\x01\x01\0", b"\0\0\0\xff\x01\0ab", b"\xff\xff\xff\xff\x01\x03"],
)
def test_fragment_with_a_wrong_length_is_malformed(body):
    """P7: a length is not believed beyond the PDU that holds it."""
    with pytest.raises(Malformed):
        list(fragments(memoryview(body)))


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3), st.binary(max_size=50))))
def test_fragments_of_one_pdu_are_told_apart(wanted):
    """However many fragments a PDU holds, each comes out with its context and its flags."""
    body = b"".join(
        struct.pack(">LBB", len(data) + 2, context, control) + data
        for context, control, data in wanted
    )

    found = [
        (context, command | last << 1, bytes(data))
        for context, command, last, data in fragments(memoryview(body))
    ]

    assert found == wanted


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_malformed(encoded):
    """P7: whatever stands in place of a command set, no other error comes of it."""
    try:
        command = decode_command(encoded)
    except Malformed:
        return
    encode_response(command, 0, "comment")
