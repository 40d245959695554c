"""Change real DICOM files in ways that networks, disks and strangers do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tfkt_node.reception.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LONG_VRS,
    Element,
    Encoding,
    walk,
)
from tfkt_node.slices.structure import file_meta_end

ENCODINGS = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
}
PIXEL_DATA = 0x7FE00010
UIDS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
VRS = (
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "IS",
    "LO",
    "OB",
    "OW",
    "SQ",
    "UI",
    "UN",
    "US",
    "UT",
    "ZZ",
)
BAD_UIDS = (
    "", "../../../../tmp/zoo-escape", "/tmp/zoo-escape", "1.2.3/../../4", "1." * 32 + "1",
    "1" * 64, "1" * 65, "1.2.3\\4.5.6", "1.2.3\0/x", "CON", "~root", "1.2.٣",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A file that is changed. elements: of the top level of its data set, where they lie."""

    content: bytes = field(repr=False)
    encoding: Encoding
    elements: tuple[Element, ...] = field(repr=False)
    heads: tuple[int, ...] = field(repr=False)

    @classmethod
    def of(cls, content: bytes) -> Subject:
        start, syntax = file_meta_end(content)
        encoding = ENCODINGS.get(syntax, EXPLICIT_LITTLE)
        elements = tuple(walk(content, start, len(content), encoding))
        heads = tuple(cls._head(element, encoding) for element in elements)
        return cls(content, encoding, elements, heads)

    @staticmethod
    def _head(element: Element, encoding: Encoding) -> int:
        is_long = encoding.explicit and element.vr in LONG_VRS
        return element.start - (12 if is_long else 8)

    @property
    def pixels(self) -> tuple[int, int]:
        """Where the value of Pixel Data lies, its own header left out."""
        found = next(one for one in self.elements if one.tag == PIXEL_DATA)
        return found.start, found.end

    def tag_at(self, place: int) -> int:
        """Tag of the innermost element whose header or value holds a byte; 0 for the file meta."""
        held = [one for one, head in zip(self.elements, self.heads, strict=True) if head <= place]
        return self._innermost(held[-1], place) if held else 0

    def _innermost(self, element: Element, place: int) -> int:
        if element.vr != "SQ":
            return element.tag
        order = ">" if element.encoding.big_endian else "<"
        at = element.start
        while at + 8 <= element.end:
            _, number, length = struct.unpack_from(order + "HHL", self.content, at)
            if number != 0xE000:
                break
            at += 8
            end = element.end if length == 0xFFFFFFFF else at + length
            for inner in walk(self.content, at, end, element.encoding):
                if self._head(inner, element.encoding) <= place < inner.end:
                    return self._innermost(inner, place)
                at = inner.end
            at = at + 8 if length == 0xFFFFFFFF else end
        return element.tag


@dataclass(frozen=True)
class Mutation:
    """The changed file, and the tags of the elements that were touched."""

    what: str
    content: bytes = field(repr=False)
    touched: frozenset[int] = field(repr=False)


Draw = Callable[[st.SearchStrategy[int]], int]


@st.composite
def mutations(draw: Draw, subject: Subject) -> Mutation:
    """One change; its kind is drawn first, so that the rare kinds are tried as often."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    return KINDS[kind](draw, subject)


def _truncated(draw: Draw, subject: Subject) -> Mutation:
    at = draw(st.integers(0, len(subject.content) - 1))
    return Mutation(f"cut at {at}", subject.content[:at], frozenset())


def _byte(draw: Draw, subject: Subject) -> Mutation:
    """Another value for one byte of the headers; the pixels' own have no second copy anywhere."""
    before, after = subject.pixels
    at = draw(st.integers(0, len(subject.content) - (after - before) - 1))
    at = at if at < before else at + after - before
    value = draw(st.integers(0, 255))
    content = subject.content[:at] + bytes([value]) + subject.content[at + 1 :]
    return Mutation(f"byte {at} is {value}", content, frozenset({subject.tag_at(at)}))


def _stream(draw: Draw, subject: Subject) -> Mutation:
    """Another value for one byte of the pixel data: of a compressed stream, or around it."""
    at = draw(st.integers(*subject.pixels)) - 1
    value = draw(st.integers(0, 255))
    content = subject.content[:at] + bytes([value]) + subject.content[at + 1 :]
    return Mutation(f"byte {at} of the pixels is {value}", content, frozenset({PIXEL_DATA}))


def _length(draw: Draw, subject: Subject) -> Mutation:
    index = draw(st.integers(0, len(subject.elements) - 1))
    element, head = subject.elements[index], subject.heads[index]
    order = ">" if subject.encoding.big_endian else "<"
    is_short = subject.encoding.explicit and element.vr not in LONG_VRS
    length = draw(st.sampled_from([0, 1, 2, 4, 7, 64, 0x7FFE, 0xFFFE, 0xFFFF]))
    if not is_short:
        length = draw(st.sampled_from([length, 0x00100000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]))
    field = struct.pack(order + ("H" if is_short else "L"), length)
    at = element.start - len(field)
    content = subject.content[:at] + field + subject.content[element.start :]
    return Mutation(f"length {length} at {head}", content, frozenset({element.tag}))


def _vr(draw: Draw, subject: Subject) -> Mutation:
    if not subject.encoding.explicit:
        return _length(draw, subject)
    index = draw(st.integers(0, len(subject.elements) - 1))
    vr = draw(st.sampled_from(VRS))
    at = subject.heads[index] + 4
    content = subject.content[:at] + vr.encode() + subject.content[at + 2 :]
    return Mutation(f"VR {vr} at {at}", content, frozenset({subject.elements[index].tag}))


def _nested(draw: Draw, subject: Subject) -> Mutation:
    """Sequences in sequences in front of an element, closed or not."""
    index = draw(st.integers(0, len(subject.elements) - 1))
    depth = draw(st.sampled_from([1, 3, 20, 70, 500, 3000]))
    is_closed = draw(st.booleans())
    order = ">" if subject.encoding.big_endian else "<"
    group = subject.elements[index].tag >> 16
    vr = b"SQ\0\0" if subject.encoding.explicit else b""
    opening = struct.pack(order + "HH", group, 0x0001) + vr + b"\xff\xff\xff\xff"
    opening += struct.pack(order + "HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack(order + "HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    inserted = opening * depth + closing * (depth if is_closed else 0)
    at = subject.heads[index]
    content = subject.content[:at] + inserted + subject.content[at:]
    return Mutation(f"{depth} sequences at {at}", content, frozenset({group << 16 | 1}))


def _uid(draw: Draw, subject: Subject) -> Mutation:
    index, element = draw(
        st.sampled_from([pair for pair in enumerate(subject.elements) if pair[1].tag in UIDS])
    )
    value = draw(st.sampled_from(BAD_UIDS)).encode()
    value += b"\0" * (len(value) % 2)
    order = ">" if subject.encoding.big_endian else "<"
    length = struct.pack(order + ("H" if subject.encoding.explicit else "L"), len(value))
    start = element.start - len(length)
    content = subject.content[:start] + length + value + subject.content[element.end :]
    return Mutation(f"UID {value!r} at {subject.heads[index]}", content, frozenset({element.tag}))


def _again(draw: Draw, subject: Subject) -> Mutation:
    """An element twice: where it is, or somewhere else, with another value."""
    index = draw(st.integers(0, len(subject.elements) - 1))
    other = draw(st.integers(0, len(subject.elements) - 1))
    head, element = subject.heads[index], subject.elements[index]
    copy = bytearray(subject.content[head : element.end])
    if element.end > element.start and element.tag != PIXEL_DATA:
        copy[-1] ^= draw(st.integers(0, 7))
    at = subject.heads[other]
    content = subject.content[:at] + bytes(copy) + subject.content[at:]
    return Mutation(f"{element.tag:08X} again at {at}", content, frozenset({element.tag}))


def _gone(draw: Draw, subject: Subject) -> Mutation:
    index = draw(st.integers(0, len(subject.elements) - 1))
    head, element = subject.heads[index], subject.elements[index]
    after = subject.heads[index + 1] if index + 1 < len(subject.heads) else len(subject.content)
    content = subject.content[:head] + subject.content[after:]
    return Mutation(f"{element.tag:08X} gone", content, frozenset({element.tag}))


def _slipped(draw: Draw, subject: Subject) -> Mutation:
    """Bytes lost or put in between."""
    at = draw(st.integers(0, len(subject.content)))
    lost = draw(st.integers(0, 9))
    put_in = bytes(draw(st.integers(0, 9)))
    content = subject.content[:at] + put_in + subject.content[at + lost :]
    touched = frozenset({subject.tag_at(at), subject.tag_at(at + lost)})
    return Mutation(f"{lost} bytes for {len(put_in)} at {at}", content, touched)


KINDS: dict[str, Callable[[Draw, Subject], Mutation]] = {
    "again": _again,
    "byte": _byte,
    "gone": _gone,
    "length": _length,
    "nested": _nested,
    "slipped": _slipped,
    "stream": _stream,
    "truncated": _truncated,
    "uid": _uid,
    "vr": _vr,
}
