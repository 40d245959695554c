"""The PDUs around the data: how an association is asked for, answered and ended.

Encoding, decoding and the choice of contexts are the library's. Its association machinery is not
used: two threads an association that poll a thousand times a second each, and gather a message in
memory before anybody is asked. Source: PS3.8 section 9.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from tfkt_node.reception.door import Rejection
from tfkt_node.reception.line import ASSOCIATE_RQ, HEADER

P_DATA, RELEASE_RQ, ABORT = 4, 5, 7

RELEASE_RP = struct.pack(">BxLxxxx", 6, 4)
BY_USER, BY_PROVIDER = 0, 2
UNRECOGNISED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6
"""Reasons of an abort by the provider: PS3.8 table 9-26."""

UNSUPPORTED_VERSION = Rejection(1, 2, 2, "protocol version not supported")
UNSUPPORTED_APPLICATION = Rejection(1, 1, 2, "application context not supported")
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


@dataclass(frozen=True, slots=True)
class Context:
    """What was agreed on for the messages of one presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed on for an association. maximum_pdu_bytes: what the peer takes; 0: any."""

    contexts: dict[int, Context]
    maximum_pdu_bytes: int
    acceptance: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What a peer asks for. The primitive is the library's."""

    calling_ae: str
    called_ae: str
    version: int
    primitive: Any

    @property
    def unsupported(self) -> Rejection | None:
        """Why the request cannot be served, whoever asks."""
        if not self.version & 1:
            return UNSUPPORTED_VERSION
        if self.primitive.application_context_name != APPLICATION_CONTEXT:
            return UNSUPPORTED_APPLICATION
        return None


def decode_request(body: memoryview) -> Request:
    """Decode the body of an A-ASSOCIATE-RQ. Raises ValueError for anything else."""
    pdu = A_ASSOCIATE_RQ()
    with _malformed_is_said():
        pdu.decode(HEADER.pack(ASSOCIATE_RQ, len(body)) + body)
        primitive = pdu.to_primitive()
        titles = primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()
    return Request(*titles, pdu.protocol_version, primitive)


def agree(request: Request, ae: AE) -> Terms:
    """Choose a transfer syntax for each context, and encode the A-ASSOCIATE-AC that says so.

    Raises ValueError for a request that makes no sense.
    """
    with _malformed_is_said():
        return _agreed(request.primitive, ae)


@contextmanager
def _malformed_is_said() -> Iterator[None]:
    """Turn what the library raises, which may be anything and hold values, into one sentence."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"a malformed A-ASSOCIATE-RQ ({type(error).__name__})") from None


def _agreed(asked: Any, ae: AE) -> Terms:
    of_user = {type(item): item for item in asked.user_information}
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in asked.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    results, answered_roles = negotiate_as_acceptor(
        asked.presentation_context_definition_list, ae.supported_contexts, roles
    )
    limit = of_user.get(MaximumLengthNotification)
    return Terms(
        contexts={
            context.context_id: Context(
                str(context.abstract_syntax), str(context.transfer_syntax[0])
            )
            for context in results
            if context.result == 0
        },
        maximum_pdu_bytes=limit.maximum_length_received if limit else 0,
        acceptance=_acceptance(asked, results, [*_about_us(ae), *answered_roles]),
    )


def _acceptance(asked: A_ASSOCIATE, results: list[PresentationContext], items: list[Any]) -> bytes:
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    answer.user_information = items
    encoded: bytes = A_ASSOCIATE_AC(answer).encode()
    return encoded


def _about_us(ae: AE) -> list[Any]:
    limit = MaximumLengthNotification()
    limit.maximum_length_received = ae.maximum_pdu_size
    uid = ImplementationClassUIDNotification()
    uid.implementation_class_uid = ae.implementation_class_uid
    name = ImplementationVersionNameNotification()
    name.implementation_version_name = ae.implementation_version_name
    return [limit, uid, name]


def rejection_pdu(rejection: Rejection) -> bytes:
    """Encode an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    return struct.pack(">BxLxBBB", 3, 4, rejection.result, rejection.source, rejection.diagnostic)


def abort_pdu(source: int, reason: int = 0) -> bytes:
    """Encode an A-ABORT (PS3.8 section 9.3.8)."""
    return struct.pack(">BxLxxBB", ABORT, 4, source, reason)
