"""The PDUs around the data: how an association is asked for, answered and ended.

Source: PS3.8 section 9.3 and annex D. What the node does not use of a request, or does not know,
is passed over, as section 9.3.1 and annex D.2 have it; what it costs grows with its length alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydicom.uid import ImplicitVRLittleEndian

from tfkt_node.reception.door import Rejection
from tfkt_node.reception.line import MAXIMUM_PDU_BYTES, PduType, encode_pdu
from tfkt_node.records import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

BY_USER, BY_PROVIDER = 0, 2
NOT_SPECIFIED, UNRECOGNISED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 0, 1, 2, 6
"""Reasons of an abort by the provider: PS3.8 table 9-26."""

UNSUPPORTED_VERSION = Rejection(1, 2, 2, "protocol version not supported")
UNSUPPORTED_APPLICATION = Rejection(1, 1, 2, "application context not supported")
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ACCEPTED, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 3, 4
"""Results for a presentation context: PS3.8 table 9-18."""

FIXED = struct.Struct(">H2x16s16s32x")
"""Protocol version, called and calling AE title of an A-ASSOCIATE-RQ: PS3.8 table 9-11."""
TITLES = slice(4, 68)
"""The fields of a request that come back in its answer as they are: PS3.8 table 9-17."""
ITEM = struct.Struct(">BxH")


class ItemType(IntEnum):
    """Items and sub-items of association PDUs that are read or written here."""

    APPLICATION_CONTEXT = 0x10
    PROPOSED_CONTEXT = 0x20
    ANSWERED_CONTEXT = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50
    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS_UID = 0x52
    IMPLEMENTATION_VERSION_NAME = 0x55


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a peer proposes for one presentation context."""

    abstract_syntax: str
    transfer_syntaxes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Request:
    """What a peer asks for. maximum_pdu_bytes: what it takes; 0: any. proposed: by context ID.

    titles: fields of the PDU that the answer repeats.
    """

    calling_ae: str
    called_ae: str
    version: int
    application_context: str
    proposed: Mapping[int, Proposed]
    maximum_pdu_bytes: int
    titles: bytes

    @property
    def unsupported(self) -> Rejection | None:
        """Why the request cannot be served, whoever asks."""
        if not self.version & 1:
            return UNSUPPORTED_VERSION
        if self.application_context != APPLICATION_CONTEXT:
            return UNSUPPORTED_APPLICATION
        return None


@dataclass(frozen=True, slots=True)
class Context:
    """What was agreed on for the messages of one presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed on for an association. maximum_pdu_bytes: what the peer takes; 0: any.

    rejected: the result of each presentation context that was not accepted, by context ID.
    """

    contexts: Mapping[int, Context]
    rejected: Mapping[int, int]
    maximum_pdu_bytes: int
    acceptance: bytes


# ---------------------------------------------------------------------- the request


def decode_request(body: memoryview) -> Request:
    """Decode the body of an A-ASSOCIATE-RQ. Raises ValueError for anything else."""
    if len(body) < FIXED.size:
        raise ValueError("an A-ASSOCIATE-RQ is cut off")
    version, called, calling = FIXED.unpack_from(body)
    application_context, maximum_pdu_bytes = "", 0
    proposed: dict[int, Proposed] = {}
    for kind, value in _items(body[FIXED.size :]):
        if kind == ItemType.APPLICATION_CONTEXT:
            application_context = _text(value)
        elif kind == ItemType.PROPOSED_CONTEXT:
            context_id, one = _proposed(value)
            if context_id in proposed:
                raise ValueError("two presentation contexts have the same ID")
            proposed[context_id] = one
        elif kind == ItemType.USER_INFORMATION:
            maximum_pdu_bytes = _maximum_length(value)
    return Request(
        calling_ae=_title(calling),
        called_ae=_title(called),
        version=version,
        application_context=application_context,
        proposed=proposed,
        maximum_pdu_bytes=maximum_pdu_bytes,
        titles=bytes(body[TITLES]),
    )


def _items(encoded: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type and value of every item, known or not."""
    at = 0
    while at < len(encoded):
        if at + ITEM.size > len(encoded):
            raise ValueError("an item of an A-ASSOCIATE-RQ is cut off")
        kind, length = ITEM.unpack_from(encoded, at)
        start, at = at + ITEM.size, at + ITEM.size + length
        if at > len(encoded):
            raise ValueError("an item of an A-ASSOCIATE-RQ is longer than what holds it")
        yield kind, encoded[start:at]


def _proposed(value: memoryview) -> tuple[int, Proposed]:
    if len(value) < 4 or value[0] % 2 == 0:
        raise ValueError("a presentation context has no odd ID")
    syntaxes: dict[int, list[str]] = {ItemType.ABSTRACT_SYNTAX: [], ItemType.TRANSFER_SYNTAX: []}
    for kind, uid in _items(value[4:]):
        if kind in syntaxes:
            syntaxes[kind].append(_text(uid))
    if not all(syntaxes.values()):
        raise ValueError("a presentation context has no abstract or no transfer syntax")
    (abstract, *_), transfer = syntaxes.values()
    return value[0], Proposed(abstract, transfer)


def _maximum_length(user_information: memoryview) -> int:
    for kind, value in _items(user_information):
        if kind == ItemType.MAXIMUM_LENGTH and len(value) == 4:
            return int.from_bytes(value, "big")
    return 0


def _text(value: memoryview) -> str:
    return bytes(value).rstrip(b"\0 ").decode("ascii", "replace")


def _title(value: bytes) -> str:
    """Decode an AE title; senders pad it with NUL too."""
    title = value.strip(b"\0 ").decode("ascii", "replace")
    if not title or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title is empty, or has characters that none may have")
    return title


# ---------------------------------------------------------------------- the answer


def agree(request: Request, offered: Callable[[str], Sequence[str] | None]) -> Terms:
    """Choose a transfer syntax for each context, and encode the A-ASSOCIATE-AC that says so.

    offered: gives the transfer syntaxes of an abstract syntax, see negotiation. Roles are those
    that hold where none are answered (PS3.7 section D.3.3.4): the peer is SCU.
    """
    contexts, rejected, answered = {}, {}, []
    for context_id, one in request.proposed.items():
        ours, theirs = offered(one.abstract_syntax), frozenset(one.transfer_syntaxes)
        chosen = next((syntax for syntax in ours or () if syntax in theirs), None)
        if chosen is not None:
            contexts[context_id] = Context(one.abstract_syntax, chosen)
            answered.append(_answered(context_id, ACCEPTED, chosen))
        else:
            result = NO_ABSTRACT_SYNTAX if ours is None else NO_TRANSFER_SYNTAX
            rejected[context_id] = result
            answered.append(_answered(context_id, result, ImplicitVRLittleEndian))
    acceptance = _acceptance(request, answered)
    return Terms(contexts, rejected, request.maximum_pdu_bytes, acceptance)


def _answered(context_id: int, result: int, syntax: str) -> bytes:
    """Encode what comes of a context. syntax: without meaning where it is not accepted."""
    return _item(
        ItemType.ANSWERED_CONTEXT,
        struct.pack(">BxBx", context_id, result),
        _item(ItemType.TRANSFER_SYNTAX, syntax.encode("ascii")),
    )


def _acceptance(request: Request, answered: Iterable[bytes]) -> bytes:
    about_us = (
        _item(ItemType.MAXIMUM_LENGTH, struct.pack(">L", MAXIMUM_PDU_BYTES)),
        _item(ItemType.IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_CLASS_UID.encode("ascii")),
        _item(ItemType.IMPLEMENTATION_VERSION_NAME, IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    )
    return encode_pdu(
        PduType.ASSOCIATE_AC,
        struct.pack(">H2x", 1),
        request.titles,
        _item(ItemType.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode("ascii")),
        *answered,
        _item(ItemType.USER_INFORMATION, *about_us),
    )


def _item(kind: ItemType, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return ITEM.pack(kind, len(value)) + value


# ---------------------------------------------------------------------- the end

RELEASE_RP = encode_pdu(PduType.RELEASE_RP, bytes(4))


def rejection_pdu(rejection: Rejection) -> bytes:
    """Encode an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    said = rejection.result, rejection.source, rejection.diagnostic
    return encode_pdu(PduType.ASSOCIATE_RJ, struct.pack(">xBBB", *said))


def abort_pdu(source: int, reason: int = 0) -> bytes:
    """Encode an A-ABORT (PS3.8 section 9.3.8)."""
    return encode_pdu(PduType.ABORT, struct.pack(">xxBB", source, reason))
