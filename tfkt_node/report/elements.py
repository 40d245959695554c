"""Elements in the bytes in which they are stored: cut apart without decoding a value, and written.

pydicom is not asked to read: it decodes character sets on the way and warns with the values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from tfkt_node.character_sets import codec_of
from tfkt_node.records import Permanent

ITEM = (0xFFFE, 0xE000)
ESCAPE = b"\x1b"
CHARACTER_SET = 0x00080005

_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)


class Stored(NamedTuple):
    """One element: its VR, the whole of it as encoded, and its value."""

    vr: bytes
    encoded: bytes
    value: bytes

    @property
    def text(self) -> str:
        """The value as ASCII without padding, for values that are UIDs, codes and the like."""
        return self.value.decode("ascii", "replace").strip(" \0")


def split(attributes: bytes) -> dict[int, Stored]:
    """Cut an encoded data set into its elements without reading any value (PS3.5 7.1.2).

    Sequences and items have a defined length, as reception writes them. Raises Permanent where the
    bytes are no data set.
    """
    found: dict[int, Stored] = {}
    at = 0
    while at < len(attributes):
        head = attributes[at : at + 12].ljust(12, b"\0")
        group, element, vr, short, long = struct.unpack("<HH2sHL", head)
        start, length = (at + 12, long) if vr in _LONG_VRS else (at + 8, short)
        if not vr.isalpha() or start + length > len(attributes):
            raise _damaged(f"element {len(found) + 1}")
        end = start + length
        found[group << 16 | element] = Stored(vr, attributes[at:end], attributes[start:end])
        at = end
    return found


def decoded(found: dict[int, Stored], tag: int) -> str:
    """Return a text in the character set of its data set, '' where it is not there.

    What cannot be decoded is replaced.
    """
    if tag not in found:
        return ""
    codec = codec_of(found[CHARACTER_SET].value if CHARACTER_SET in found else b"")
    return found[tag].value.decode(codec, "replace").replace("\0", "").strip()


def items(sequence: bytes) -> Iterator[dict[int, Stored]]:
    """Cut the value of a sequence into its items, and those into their elements (PS3.5 7.5)."""
    at = 0
    while at < len(sequence):
        group, element, length = struct.unpack("<HHL", sequence[at : at + 8].ljust(8, b"\0"))
        if (group, element) != ITEM or at + 8 + length > len(sequence):
            raise _damaged("an item of a sequence")
        yield split(sequence[at + 8 : at + 8 + length])
        at += 8 + length


def _damaged(what: str) -> Permanent:
    return Permanent(
        "the stored patient and study attributes are no Explicit VR Little Endian data set: "
        f"{what} is damaged",
        cure="run `tfkt-node audit verify`; the audit store may be damaged",
    )


def is_plain(stored: Stored) -> bool:
    """Tell whether a value is ASCII as it stands: no escape to another set (ISO 2022) in it.

    Of a sequence its texts count, not the tags and lengths around them.
    """
    if stored.vr == b"SQ":
        return all(is_plain(each) for item in items(stored.value) for each in item.values())
    return stored.value.isascii() and ESCAPE not in stored.value


def encoded(element: DataElement) -> bytes:
    """Encode one element of ASCII values in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    return bytes(buffer.getvalue())


def encoded_sequence(tag: int, contents: list[bytes]) -> bytes:
    """Encode a sequence of items whose contents are encoded already."""
    value = b"".join(struct.pack("<HHL", *ITEM, len(each)) + each for each in contents)
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(value)) + value
