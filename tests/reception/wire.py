"""DICOM on the wire by hand: for peers that do what no library does."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.sop_class import Verification

from tfkt_node.records import CT_IMAGE

HUNG_UP, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RP, ABORT = 0, 2, 3, 4, 6, 7
CT, ECHO = 1, 3
"""The presentation contexts of `request_pdu`."""
RELEASE_RQ = struct.pack(">BxLxxxx", 5, 4)


def request_pdu(calling: str = "SCANNER", called: str = "TFKT_NODE", **fields: Any) -> bytes:
    """Encode a request for an association, with one context for CT and one for C-ECHO."""
    limit, uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    limit.maximum_length_received = 16384
    uid.implementation_class_uid = "1.2.3"
    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = calling, called
    asked.user_information = [limit, uid]
    asked.presentation_context_definition_list = [
        build_context(CT_IMAGE, ExplicitVRLittleEndian),
        build_context(Verification),
    ]
    for number, context in zip((CT, ECHO), asked.presentation_context_definition_list, strict=True):
        context.context_id = number
    for name, value in fields.items():
        setattr(asked, name, value)
    return A_ASSOCIATE_RQ(asked).encode()


def pdv(context: int, control: int, data: bytes) -> bytes:
    """Encode one fragment. control: 1 for a command, 2 for the last."""
    return struct.pack(">LBB", len(data) + 2, context, control) + data


def data_pdu(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxL", DATA, len(body)) + body


def command(
    field: int,
    uid: str = "",
    *,
    message_id: int = 1,
    data_set: bool = False,
    sop_class: str = "",
) -> bytes:
    """Encode a command set. uid: of the instance; then it is one of CT, unless told."""
    sop_class = sop_class or (CT_IMAGE if uid else Verification)
    elements = {
        0x0002: sop_class.encode() + b"\0" * (len(sop_class) % 2),
        0x0100: struct.pack("<H", field),
        0x0110: struct.pack("<H", message_id),
        0x0800: struct.pack("<H", 1 if data_set else 0x0101),
    }
    if uid:
        elements[0x1000] = uid.encode() + b"\0" * (len(uid) % 2)
    return b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items()
    )


def store_pdus(uid: str, data: bytes, message_id: int = 1, piece: int = 100_000) -> bytes:
    """Encode a whole C-STORE of a CT instance."""
    asked = command(1, uid, message_id=message_id, data_set=True)
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)] or [b""]
    controls = [0] * (len(pieces) - 1) + [2]
    return data_pdu(pdv(CT, 3, asked)) + b"".join(
        data_pdu(pdv(CT, control, part)) for control, part in zip(controls, pieces, strict=True)
    )


def echo_pdu(message_id: int = 1) -> bytes:
    return data_pdu(pdv(ECHO, 3, command(0x30, message_id=message_id)))


class Peer:
    """A connection to a reception on loopback."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Receive a PDU: its type and body; (HUNG_UP, b"") when the node has hung up."""
        try:
            if head := self._receive(6):
                return head[0], self._receive(struct.unpack(">L", head[2:])[0])
            return HUNG_UP, b""
        except ConnectionError:
            return HUNG_UP, b""

    def _receive(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.socket.recv(size - len(found))
            if not more:
                return b""
            found += more
        return found

    def associate(self, **fields: Any) -> int:
        """Ask for an association; return the type of the answer, HUNG_UP where there is none."""
        with contextlib.suppress(ConnectionError):
            self.send(request_pdu(**fields))
        return self.receive()[0]

    def status(self) -> int:
        """Receive an answer, and return its status."""
        kind, body = self.receive()
        assert kind == DATA, kind
        at = body.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int(struct.unpack("<H", body[at : at + 2])[0])

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
