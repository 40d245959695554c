"""DIMSE messages in P-DATA-TF PDUs: their fragments, their commands, and the answers.

The data set of a message is not gathered here: its fragments are handed on as they come. Sources:
PS3.7 sections 6.3 and 9.3, PS3.8 section 9.3.5 and annex E.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tfkt_node.reception.elements import IMPLICIT_LITTLE, walk
from tfkt_node.reception.line import PduType, encode_pdu

ITEM = struct.Struct(">LBB")
"""Length of what follows it, presentation context, message control header: PS3.8 annex E.2."""

LONGEST_COMMAND_BYTES = 64 * 1024
"""A command set has some hundred bytes."""

NO_DATA_SET = 0x0101

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, RESPONSE = 0x0001, 0x0030, 0x0FFF, 0x8000
"""Values of Command Field (0000,0100); a response has the last bit of its request's."""

GROUP_LENGTH, SOP_CLASS, COMMAND_FIELD, MESSAGE_ID, RESPONDED_TO = 0x0, 0x2, 0x100, 0x110, 0x120
DATA_SET_TYPE, STATUS, COMMENT, SOP_INSTANCE = 0x800, 0x900, 0x902, 0x1000
"""Element numbers in group 0000: PS3.7 table E.1-1."""


class Malformed(Exception):
    """What came is no P-DATA-TF, or no DIMSE message."""


class Fragment(NamedTuple):
    """A presentation data value: a part of a command set or of a data set."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


@dataclass(frozen=True, slots=True)
class Command:
    """The command set of a request. Texts are '' and numbers 0 where an element is missing."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str


def fragments(body: memoryview) -> Iterator[Fragment]:
    """Yield the fragments in the body of a P-DATA-TF. Raises Malformed."""
    at = 0
    while at < len(body):
        if at + ITEM.size > len(body):
            raise Malformed("a fragment is cut off")
        length, context_id, control = ITEM.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):
            raise Malformed("the length of a fragment is wrong")
        yield Fragment(context_id, bool(control & 1), bool(control & 2), body[at + ITEM.size : end])
        at = end


def decode_command(encoded: bytes) -> Command:
    """Decode a command set: always Implicit VR Little Endian. Raises Malformed."""
    found = {
        element.tag: encoded[element.start : element.end]
        for element in walk(encoded, 0, len(encoded), IMPLICIT_LITTLE)
    }

    def number(element: int) -> int:
        value = found.get(element, b"")
        return int.from_bytes(value, "little") if len(value) == 2 else 0

    def text(element: int) -> str:
        return found.get(element, b"").decode("latin-1").rstrip("\0 ")

    if COMMAND_FIELD not in found:
        raise Malformed("a command set has no Command Field")
    return Command(
        field=number(COMMAND_FIELD),
        message_id=number(MESSAGE_ID),
        has_data_set=number(DATA_SET_TYPE) != NO_DATA_SET,
        sop_class_uid=text(SOP_CLASS),
        sop_instance_uid=text(SOP_INSTANCE),
    )


def encode_response(request: Command, status: int, comment: str = "") -> bytes:
    """Encode the command set that answers a request.

    comment: Error Comment (0000,0902), LO, no identifier; cut at 64 characters.
    """
    elements = {
        SOP_CLASS: _text(request.sop_class_uid, "\0"),
        COMMAND_FIELD: _number(request.field | RESPONSE),
        RESPONDED_TO: _number(request.message_id),
        DATA_SET_TYPE: _number(NO_DATA_SET),
        STATUS: _number(status),
    }
    if comment:
        elements[COMMENT] = _text(comment[:64], " ")
    if request.sop_instance_uid:
        elements[SOP_INSTANCE] = _text(request.sop_instance_uid, "\0")
    body = _encode(elements)
    return _encode({GROUP_LENGTH: struct.pack("<L", len(body))}) + body


def _encode(elements: Mapping[int, bytes]) -> bytes:
    return b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items()
    )


def _number(value: int) -> bytes:
    return struct.pack("<H", value)


def _text(value: str, padding: str) -> bytes:
    return (value + padding * (len(value) % 2)).encode("latin-1")


def command_pdus(context_id: int, command: bytes, maximum_bytes: int) -> bytes:
    """Encode a command set as P-DATA-TF PDUs that the peer takes. maximum_bytes: 0 for any."""
    piece = max(maximum_bytes - ITEM.size, 1) if maximum_bytes else len(command)
    starts = range(0, len(command), piece)
    return b"".join(
        _pdu(context_id, command[at : at + piece], is_last=at == starts[-1]) for at in starts
    )


def _pdu(context_id: int, piece: bytes, *, is_last: bool) -> bytes:
    item = ITEM.pack(len(piece) + 2, context_id, 0b11 if is_last else 0b01) + piece
    return encode_pdu(PduType.P_DATA, item)
