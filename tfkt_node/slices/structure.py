"""Look over the structure of a data set before a library parses it, without decoding a value.

It holds the limits on nesting and elements, and finds what the library passes over in silence:
an element that says it is longer than the file, and an attribute of the image that stands twice.
Other oddities are left to the library, which is followed in what counts as a sequence. Source:
PS3.5 sections 6.2.2 (UN), 7.1 (elements) and 7.5 (nesting).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from functools import lru_cache

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from tfkt_node.file_bytes import Buffer
from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits

DEFAULT_LIMITS = Limits()

EXPLICIT_LE = "1.2.840.10008.1.2.1"
EXPLICIT_BE = "1.2.840.10008.1.2.2"

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
ITEM_LITTLE, ITEM_BIG = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and plain Pixel Data."""
ONCE = frozenset({0x0018, 0x0020, 0x0028, 0x5200, 0x7FE0})
"""Groups of the attributes that decide what the image is and where it lies, and besides them"""
ONCE_TOO = frozenset({0x00080008, 0x00080016, 0x00080018, 0x00080060})
"""Image Type, SOP Class UID, SOP Instance UID and Modality."""
FUNCTIONAL_GROUPS = frozenset({0x52009229, 0x52009230})
"""Shared and Per-Frame: what multi-frame objects have of such attributes stands in their items."""


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the value of the pixel data lies, a closing delimiter left out.

    is_whole: it ends inside the file. has_length: its length is told; else it holds fragments.
    is_followed: attributes of the image stand behind it, out of order.
    """

    tag: int
    start: int
    end: int
    is_whole: bool
    has_length: bool
    is_followed: bool = False


@dataclass(slots=True)
class _Level:
    """An open sequence or item, or the data set itself, which is open throughout.

    end: None where a delimiter ends it. of_image: its attributes decide what the image is.
    """

    is_item: bool
    end: int | None
    implicit: bool
    of_image: bool
    seen: set[int] = field(default_factory=set)


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
    return b"AA" <= written <= b"ZZ"  # as the library tells


def _is_of_image(tag: int) -> bool:
    return tag >> 16 in ONCE or tag in ONCE_TOO


class _Walk:
    def __init__(self, data: Buffer, implicit: bool, big_endian: bool, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        order = ">" if big_endian else "<"
        self._tag_and_length = struct.Struct(f"{order}HHL").unpack
        self._short = struct.Struct(f"{order}H").unpack
        self._long = struct.Struct(f"{order}L").unpack
        self._item_tag = ITEM_BIG if big_endian else ITEM_LITTLE
        self._levels = [_Level(is_item=True, end=None, implicit=implicit, of_image=True)]
        self._elements = 0

    def run(self, at: int) -> PixelElement | None:
        total = len(self._data)
        found: PixelElement | None = None
        while True:
            self._leave_ended(at)
            if at + 8 > total:
                return found
            tag, vr, length, start = self._header(at)
            self._count()
            if tag >> 16 == 0xFFFE:
                self._delimiter(tag, length, start)
                at = start
                continue
            self._once(tag)
            is_top = len(self._levels) == 1
            if found is not None and is_top and _is_of_image(tag):
                found = replace(found, is_followed=True)
            if is_top and tag in PIXEL_DATA:
                found = self._pixels(tag, length, start)
                at = found.end if found.has_length else found.end + 8
            elif self._is_sequence(tag, vr, length, start):
                self._open_sequence(tag, length, start)
                at = start
            elif length == UNDEFINED:
                at = self._after_fragments(start)
            else:
                at = self._after(start + length)
                if at > total and found is None:
                    raise SetAside(Reason.UNREADABLE, "an element is longer than the file")

    def _header(self, at: int) -> tuple[int, bytes, int, int]:
        """Return tag, VR (b'' where implicit), length and start of the value."""
        head = self._data[at : at + 8]
        group, number, length = self._tag_and_length(head)
        tag = group << 16 | number
        vr = bytes(head[4:6])
        if self._levels[-1].implicit or group == 0xFFFE or not _is_vr(vr):
            return tag, b"", length, at + 8
        if vr not in LONG_VRS:
            return tag, vr, self._short(head[6:8])[0], at + 8
        long = self._data[at + 8 : at + 12]
        return tag, vr, self._long(long)[0] if len(long) == 4 else 0, at + 12

    def _is_sequence(self, tag: int, vr: bytes, length: int, start: int) -> bool:
        """Tell what the library reads as items: UN too, where only a delimiter ends it."""
        if vr not in (b"", b"UN"):
            return vr == b"SQ"
        if known := _vr_of(tag):
            return known == "SQ" or (vr == b"UN" and length == UNDEFINED)
        return length == UNDEFINED and self._data[start : start + 4] == self._item_tag

    def _count(self) -> None:
        self._elements += 1
        if self._elements > self._limits.elements:
            raise SetAside(
                Reason.UNREADABLE,
                f"more than {self._limits.elements} elements (limits.elements)",
            )

    def _once(self, tag: int) -> None:
        level = self._levels[-1]
        if not level.of_image or not _is_of_image(tag):
            return
        if tag in level.seen:
            raise SetAside(Reason.UNREADABLE, "an attribute of the image stands twice")
        level.seen.add(tag)

    def _open_sequence(self, tag: int, length: int, start: int) -> None:
        outer = self._levels[-1]
        is_top = len(self._levels) == 1
        of_image = tag in FUNCTIONAL_GROUPS if is_top else outer.of_image
        self._levels.append(_Level(False, self._end(start, length), outer.implicit, of_image))
        if sum(not level.is_item for level in self._levels) > self._limits.nesting:
            raise SetAside(
                Reason.UNREADABLE,
                f"more than {self._limits.nesting} levels of sequences (limits.nesting)",
            )

    def _delimiter(self, tag: int, length: int, start: int) -> None:
        if tag == ITEM and len(self._levels) > 1:
            outer = self._levels[-1]
            # Items of an explicit data set may be implicit all the same (PS3.5 6.2.2).
            is_implicit = outer.implicit or not _is_vr(self._data[start + 4 : start + 6])
            self._levels.append(_Level(True, self._end(start, length), is_implicit, outer.of_image))
        elif tag in (ITEM_END, SEQUENCE_END):
            self._close(is_item=tag == ITEM_END)

    def _close(self, *, is_item: bool) -> None:
        """Leave the innermost level of that kind, with all inside it; a stray delimiter is none."""
        kinds = [level.is_item for level in self._levels[1:]]
        if is_item in kinds:
            innermost = len(kinds) - kinds[::-1].index(is_item)
            del self._levels[innermost:]

    def _leave_ended(self, at: int) -> None:
        while (end := self._levels[-1].end) is not None and at >= end:
            self._levels.pop()

    def _end(self, start: int, length: int) -> int | None:
        """Say where a level ends: not behind the one around it."""
        return None if length == UNDEFINED else self._after(start + length)

    def _after(self, end: int) -> int:
        """Return the place after a value; what is longer than the sequence that holds it is cut.

        So the library reads a sequence of a known length: its bytes, and no more. In one that a
        delimiter ends it would read on, out of step with the items.
        """
        last = min((level.end for level in self._levels if level.end is not None), default=end)
        is_cut = any(level.end is not None and not level.is_item for level in self._levels)
        if end > last and not is_cut:
            raise SetAside(Reason.UNREADABLE, "an element is longer than its item")
        return min(end, last)

    def _pixels(self, tag: int, length: int, start: int) -> PixelElement:
        if length != UNDEFINED:
            is_whole = start + length <= len(self._data)
            return PixelElement(tag, start, start + length, is_whole, has_length=True)
        after = self._after_fragments(start)
        delimiter = self._data[after - 8 : after] if after <= len(self._data) else b""
        is_whole = len(delimiter) == 8 and self._header(after - 8)[0] == SEQUENCE_END
        return PixelElement(tag, start, after - 8, is_whole, has_length=False)

    def _after_fragments(self, at: int) -> int:
        """Skip a value of undefined length that is no sequence: pixels, or those of an icon."""
        while at + 8 <= len(self._data):
            self._count()
            tag, _, length, start = self._header(at)
            at = start if tag == SEQUENCE_END else start + length
            if tag != ITEM:
                return at
        return at


@lru_cache(maxsize=8192)
def _vr_of(tag: int) -> str:
    """Look a VR up; '' for private and unknown tags."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""
