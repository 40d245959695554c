"""Walk the elements of an encoded data set in place, without decoding a value.

Made for headers of unknown quality: lengths are checked against the bytes that are there before
anything is read, nesting is bounded, and a malformed place ends the walk, so that what came before
it is still had. It is not a DICOM reader: pixel data and values of numbers are none of its work.
Source: PS3.5 sections 7.1 (elements) and 7.5 (nesting).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from tfkt_node.file_bytes import Buffer

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
DEEPEST = 64
"""Levels of nesting that are followed; real headers have three or four."""

LONG_VRS = frozenset(map(str, EXPLICIT_VR_LENGTH_32))
"""VRs whose explicit length field has 32 bits (PS3.5 table 7.1-1)."""
TEXT_VRS = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())  # noqa: SIM905
"""VRs whose bytes are the same in every byte order."""


class Encoding(NamedTuple):
    """How a data set is encoded."""

    explicit: bool
    big_endian: bool


EXPLICIT_LITTLE = Encoding(explicit=True, big_endian=False)
IMPLICIT_LITTLE = Encoding(explicit=False, big_endian=False)
EXPLICIT_BIG = Encoding(explicit=True, big_endian=True)


class Element(NamedTuple):
    """Where one element lies: its value is buffer[start:end]. vr: '' where it is not known.

    encoding: that of nested items, when it is a sequence.
    """

    tag: int
    vr: str
    start: int
    end: int
    encoding: Encoding


class _Malformed(Exception):
    """The bytes are no data set from here on."""


class _Fields:
    """The fields ahead of a value, in one byte order: PS3.5 tables 7.1-1 to 7.1-3."""

    def __init__(self, order: str) -> None:
        self.explicit = struct.Struct(order + "HH2sH")
        self.long_length = struct.Struct(order + "L")
        self.implicit = struct.Struct(order + "HHL")


_LITTLE, _BIG = _Fields("<"), _Fields(">")


def sniff_encoding(buffer: Buffer, start: int, declared: Encoding) -> Encoding:
    """Return how the data set really is encoded: some writers declare explicit VR and lie."""
    vr = bytes(buffer[start + 4 : start + 6])
    looks_explicit = vr.isalpha() and vr.isupper()
    return Encoding(explicit=looks_explicit, big_endian=declared.big_endian)


def walk(buffer: Buffer, start: int, end: int, encoding: Encoding) -> Iterator[Element]:
    """Yield the elements of one level in buffer[start:end], until its end or a malformed place."""
    at = start
    try:
        while at < end:
            element, at = _element(buffer, at, end, encoding, depth=0)
            if element.tag in (ITEM_END, SEQUENCE_END):
                return
            yield element
    except _Malformed:
        return


def explicit_little(buffer: Buffer, element: Element) -> bytes:
    """Encode one element anew in Explicit VR Little Endian, its values verbatim.

    In sequences the texts and nested sequences are kept; other VRs and private elements, whose
    meaning is the sender's own, have no place in the sequences that a report copies. Returns b""
    for an element that is not kept.
    """
    return _encoded(buffer, element, depth=0)


def _element(
    buffer: Buffer, at: int, end: int, encoding: Encoding, depth: int
) -> tuple[Element, int]:
    """Return the element at a place, and the place after it."""
    tag, vr, length, start = _header(buffer, at, end, encoding)
    nested = IMPLICIT_LITTLE if vr == "UN" else encoding  # PS3.5 section 6.2.2, note 2
    if length == UNDEFINED:
        value_end, after = _end_of_items(buffer, start, end, nested, depth + 1)
    else:
        value_end = after = start + length
    if after > end:
        raise _Malformed
    return Element(tag, _known_vr(tag, vr), start, value_end, nested), after


def _header(buffer: Buffer, at: int, end: int, encoding: Encoding) -> tuple[int, str, int, int]:
    """Return tag, VR as written ('' in implicit VR), value length and start of the value."""
    if at + 8 > end:
        raise _Malformed
    fields = _BIG if encoding.big_endian else _LITTLE
    head = buffer[at : at + 12]
    if encoding.explicit:
        group, number, written, length = fields.explicit.unpack_from(head)
        if group != ITEM >> 16:
            vr = written.decode("latin-1")
            if vr not in LONG_VRS:
                return group << 16 | number, vr, length, at + 8
            if at + 12 > end:
                raise _Malformed
            return group << 16 | number, vr, fields.long_length.unpack_from(head, 8)[0], at + 12
    group, number, length = fields.implicit.unpack_from(head)
    return group << 16 | number, "", length, at + 8


def _known_vr(tag: int, written: str) -> str:
    if written not in ("", "UN"):
        return written
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return written


def _end_of_items(
    buffer: Buffer, at: int, end: int, encoding: Encoding, depth: int
) -> tuple[int, int]:
    """Return where a value of undefined length ends, before and after its delimiter."""
    if depth > DEEPEST:
        raise _Malformed
    while True:
        tag, _, length, start = _header(buffer, at, end, encoding)
        if tag == SEQUENCE_END:
            return at, start
        if tag != ITEM:
            raise _Malformed
        at = (
            _end_of_item(buffer, start, end, encoding, depth)
            if length == UNDEFINED
            else (start + length)
        )


def _end_of_item(buffer: Buffer, at: int, end: int, encoding: Encoding, depth: int) -> int:
    while True:
        element, after = _element(buffer, at, end, encoding, depth)
        if element.tag == ITEM_END:
            return after
        at = after


def _encoded(buffer: Buffer, element: Element, depth: int) -> bytes:
    if element.tag >> 16 & 1:
        return b""
    if element.vr == "SQ" and depth < DEEPEST:
        value = b"".join(_encoded_items(buffer, element, depth + 1))
    elif element.vr in TEXT_VRS:
        value = bytes(buffer[element.start : element.end])
        value += b"\0 "[element.vr != "UI" :][:1] if len(value) % 2 else b""
    else:
        return b""
    tag = struct.pack("<HH", element.tag >> 16, element.tag & 0xFFFF)
    vr = element.vr.encode("ascii")
    if element.vr in LONG_VRS:
        return tag + vr + struct.pack("<HL", 0, len(value)) + value
    if len(value) > 0xFFFE:
        return b""
    return tag + vr + struct.pack("<H", len(value)) + value


def _encoded_items(buffer: Buffer, sequence: Element, depth: int) -> Iterator[bytes]:
    at = sequence.start
    try:
        while at < sequence.end:
            tag, _, length, start = _header(buffer, at, sequence.end, sequence.encoding)
            if tag != ITEM:
                return
            if length == UNDEFINED:
                at = _end_of_item(buffer, start, sequence.end, sequence.encoding, depth)
            else:
                at = min(start + length, sequence.end)
            content = b"".join(
                _encoded(buffer, element, depth)
                for element in walk(buffer, start, at, sequence.encoding)
            )
            yield struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content
    except _Malformed:
        return
