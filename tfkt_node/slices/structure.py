"""Look over the structure of a data set before a library parses it, without decoding a value.

It holds the limits on nesting and elements, and finds what the library passes over in silence:
an element that says it is longer than the file, and an attribute of the image that stands twice.
Other oddities are left to the library. Source: PS3.5 sections 7.1 (elements) and 7.5 (nesting).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
ITEM_LITTLE, ITEM_BIG = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and plain Pixel Data."""
ONCE = frozenset({0x0018, 0x0020, 0x0028, 0x7FE0})
"""Groups of the attributes that decide what the image is and where it lies."""


class Buffer(Protocol):
    """Bytes that can be sliced: bytes, or a memory map."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the value of the pixel data lies, a closing delimiter left out.

    is_whole: it ends inside the file. is_native: its length is told; else it holds fragments.
    """

    tag: int
    start: int
    end: int
    is_whole: bool
    is_native: bool


@dataclass(slots=True)
class _Level:
    """An open sequence or item. end: None where a delimiter ends it."""

    is_item: bool
    end: int | None
    implicit: bool


def file_meta_end(data: Buffer) -> tuple[int, str]:
    """Return where the elements of group 0002 end, whatever their group length says.

    With it the Transfer Syntax UID, '' where there is none.
    """
    at, syntax = 132, ""
    while data[at : at + 2] == b"\x02\x00":
        is_long = bytes(data[at + 4 : at + 6]) in LONG_VRS
        length = data[at + 8 : at + 12] if is_long else data[at + 6 : at + 8]
        start = at + (12 if is_long else 8)
        end = start + int.from_bytes(length, "little")
        if data[at + 2 : at + 4] == b"\x10\x00":
            syntax = bytes(data[start:end]).decode("latin-1").strip("\0 ")
        at = end
    return at, syntax


def look_over(data: Buffer, start: int, *, big_endian: bool, limits: Limits) -> PixelElement | None:
    """Walk all elements, and say where the pixel data are.

    Whether VRs are written is seen from the first element: some writers declare one and write the
    other. Raises SetAside(UNREADABLE) beyond a limit, for an element longer than the file, and for
    an attribute of the image that stands twice.
    """
    vr = bytes(data[start + 4 : start + 6])
    return _Walk(data, not _is_vr(vr), big_endian, limits).run(start)


def _is_vr(written: bytes) -> bool:
    return len(written) == 2 and written.isalpha() and written.isupper()


class _Walk:
    def __init__(self, data: Buffer, implicit: bool, big_endian: bool, limits: Limits) -> None:
        self._data = data
        self._implicit = implicit
        self._limits = limits
        order = ">" if big_endian else "<"
        self._tag_and_length = struct.Struct(f"{order}HHL").unpack
        self._short = struct.Struct(f"{order}H").unpack
        self._long = struct.Struct(f"{order}L").unpack
        self._item_tag = ITEM_BIG if big_endian else ITEM_LITTLE
        self._levels: list[_Level] = []
        self._elements = 0
        self._seen: set[int] = set()

    def run(self, at: int) -> PixelElement | None:
        total = len(self._data)
        found: PixelElement | None = None
        while True:
            at = self._leave_ended(at)
            if at + 8 > total:
                return found
            tag, vr, length, start = self._header(at)
            if tag >> 16 == 0xFFFE:
                at = self._delimiter(tag, length, start)
                continue
            self._count(tag)
            if not self._levels and tag in PIXEL_DATA:
                found = self._pixels(tag, length, start)
            if self._is_sequence(vr, length, start):
                self._open(False, start, length, implicit=vr == b"UN")
                at = start
            elif length == UNDEFINED:
                at = self._after_fragments(start)
            else:
                at = start + length
                if at > total and found is None:
                    raise SetAside(Reason.UNREADABLE, "an element is longer than the file")

    def _header(self, at: int) -> tuple[int, bytes, int, int]:
        """Return tag, VR (b'' where implicit), length and start of the value."""
        head = self._data[at : at + 8]
        group, number, length = self._tag_and_length(head)
        tag = group << 16 | number
        implicit = self._levels[-1].implicit if self._levels else self._implicit
        vr = bytes(head[4:6])
        if implicit or group == 0xFFFE or not _is_vr(vr):
            return tag, b"", length, at + 8
        if vr not in LONG_VRS:
            return tag, vr, self._short(head[6:8])[0], at + 8
        long = self._data[at + 8 : at + 12]
        return tag, vr, self._long(long)[0] if len(long) == 4 else 0, at + 12

    def _is_sequence(self, vr: bytes, length: int, start: int) -> bool:
        if vr == b"SQ":
            return True
        is_unknown = vr in (b"", b"UN") and length > 0
        return is_unknown and self._data[start : start + 4] == self._item_tag

    def _count(self, tag: int) -> None:
        self._elements += 1
        if self._elements > self._limits.elements:
            raise SetAside(
                Reason.UNREADABLE,
                f"more than {self._limits.elements} elements (limits.elements)",
            )
        if self._levels or tag >> 16 not in ONCE:
            return
        if tag in self._seen:
            raise SetAside(Reason.UNREADABLE, "an attribute of the image stands twice")
        self._seen.add(tag)

    def _open(self, is_item: bool, start: int, length: int, *, implicit: bool) -> None:
        outer = self._levels[-1].implicit if self._levels else self._implicit
        end = None if length == UNDEFINED else start + length
        self._levels.append(_Level(is_item, end, outer or implicit))
        if sum(not level.is_item for level in self._levels) > self._limits.nesting:
            raise SetAside(
                Reason.UNREADABLE,
                f"more than {self._limits.nesting} levels of sequences (limits.nesting)",
            )

    def _delimiter(self, tag: int, length: int, start: int) -> int:
        if tag == ITEM and self._levels:
            self._open(True, start, length, implicit=False)
        elif tag in (ITEM_END, SEQUENCE_END):
            self._close(is_item=tag == ITEM_END)
        return start

    def _close(self, *, is_item: bool) -> None:
        """Leave the innermost level of that kind, with all inside it; a stray delimiter is none."""
        kinds = [level.is_item for level in self._levels]
        if is_item in kinds:
            innermost = len(kinds) - 1 - kinds[::-1].index(is_item)
            del self._levels[innermost:]

    def _leave_ended(self, at: int) -> int:
        while self._levels and self._levels[-1].end is not None and at >= self._levels[-1].end:
            at = self._levels.pop().end or at
        return at

    def _pixels(self, tag: int, length: int, start: int) -> PixelElement:
        if length != UNDEFINED:
            is_whole = start + length <= len(self._data)
            return PixelElement(tag, start, start + length, is_whole, is_native=True)
        after = self._after_fragments(start)
        delimiter = self._data[after - 8 : after] if after <= len(self._data) else b""
        is_whole = len(delimiter) == 8 and self._header(after - 8)[0] == SEQUENCE_END
        return PixelElement(tag, start, after - 8, is_whole, is_native=False)

    def _after_fragments(self, at: int) -> int:
        """Skip a value of undefined length that is no sequence: the pixels of an icon."""
        while at + 8 <= len(self._data):
            tag, _, length, start = self._header(at)
            at = start if tag == SEQUENCE_END else start + length
            if tag != ITEM:
                return at
        return at
