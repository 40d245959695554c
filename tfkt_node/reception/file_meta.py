"""The file meta information of a stored instance: the node's own making, and read back.

It tells what the command set and the presentation context told: UIDs, transfer syntax and sender.
Source: PS3.10 section 7.1.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tfkt_node.file_bytes import Buffer, open_bytes
from tfkt_node.reception.elements import EXPLICIT_LITTLE, LONG_VRS, walk
from tfkt_node.records import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Reason,
    SetAside,
)

SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID, SOURCE_AE = 0x0002, 0x0003, 0x0010, 0x0016
"""Element numbers in group 0002."""


def encode_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str
) -> bytes:
    """Encode preamble, prefix and file meta information, ready for the data set to follow."""
    body = b"".join(
        (
            _element(0x0001, "OB", b"\0\1"),
            _element(SOP_CLASS_UID, "UI", sop_class_uid.encode("ascii")),
            _element(SOP_INSTANCE_UID, "UI", sop_instance_uid.encode("ascii")),
            _element(TRANSFER_SYNTAX_UID, "UI", transfer_syntax_uid.encode("ascii")),
            _element(0x0012, "UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            _element(0x0013, "SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
            _element(SOURCE_AE, "AE", source_ae.encode("ascii", "replace")),
        )
    )
    return bytes(128) + b"DICM" + _element(0, "UL", struct.pack("<L", len(body))) + body


def _element(number: int, vr: str, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    length = struct.pack("<HL", 0, len(value)) if vr in LONG_VRS else struct.pack("<H", len(value))
    return struct.pack("<HH", 2, number) + vr.encode("ascii") + length + value


def read_meta(path: Path) -> tuple[dict[int, str], int]:
    """Read the file meta information: element number -> text, and where the data set starts.

    Raises SetAside(UNREADABLE) when it is no DICOM file, OSError when it is gone.
    """
    with open_bytes(path) as data:
        return parse_meta(data)


def parse_meta(data: Buffer) -> tuple[dict[int, str], int]:
    """Do so with the bytes of a file; the same errors."""
    if data[128:132] != b"DICM":
        raise SetAside(Reason.UNREADABLE)
    first = next(walk(data, 132, len(data), EXPLICIT_LITTLE), None)
    if first is None or first.tag != 0x00020000 or first.end - first.start != 4:
        raise SetAside(Reason.UNREADABLE)
    end = first.end + int(struct.unpack("<L", data[first.start : first.end])[0])
    meta = {
        element.tag & 0xFFFF: data[element.start : element.end].decode("latin-1").rstrip("\0 ")
        for element in walk(data, first.end, min(end, len(data)), EXPLICIT_LITTLE)
    }
    return meta, end
