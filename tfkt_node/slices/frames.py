"""Find the bytes of one frame in encapsulated pixel data (PS3.5 A.4).

Offset tables of real files are often wrong, so they are used only where nothing else tells the
frames apart, and only when they point at fragments. What stays in doubt is an error, never a guess.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from tfkt_node.file_bytes import Buffer
from tfkt_node.slices.codecs import WHOLE_CELLS
from tfkt_node.slices.streams import END_OF_IMAGE
from tfkt_node.slices.structure import ITEM, SEQUENCE_END

BEGINNING = 4
"""Bytes by which a stream is known that begins as the first one does: marker, box or size. Two, as
JPEG XL has of its own, are met by chance in the midst of a stream."""


class FrameIndex:
    """Which fragments are a frame's, found once for all the frames of an object."""

    def __init__(self, data: Buffer, frames: int, syntax: str, extended: bytes = b"") -> None:
        """Look through the fragments.

        data: value of Pixel Data, item by item. extended: value of Extended Offset Table
        (7FE0,0001). Raises ValueError where the fragments do not tell which are a frame's.
        """
        table, self._fragments, number_at = _items(data)
        if frames == 1:
            self._starts = [0]
        elif len(self._fragments) == frames:
            self._starts = list(range(frames))
        else:
            self._starts = _starts(number_at, frames, table, extended) or _by_end_of_image(
                data, self._fragments, syntax
            )
        if len(self._starts) != frames:
            raise ValueError("the fragments cannot be told apart by frame")
        if self._has_more_streams(data, syntax, table):
            raise ValueError("more frames are there than the attributes say")

    def _has_more_streams(self, data: Buffer, syntax: str, table: bytes) -> bool:
        """Say whether a frame holds a second stream: a decoder would pass over it in silence."""
        if syntax in WHOLE_CELLS:  # those have no sign of where they begin, but for the table
            return len(self._starts) == 1 < min(len(table) // 4, len(self._fragments))
        first, *_ = self._fragments
        others = set(range(len(self._fragments))).difference(self._starts)
        beginnings = {_beginning(data, self._fragments[number]) for number in others}
        return first[1] - first[0] >= BEGINNING and _beginning(data, first) in beginnings

    def read(self, data: Buffer, index: int) -> bytes:
        """Return the compressed stream of one frame. index: from 0."""
        ends = [*self._starts[index + 1 : index + 2], len(self._fragments)]
        parts = self._fragments[self._starts[index] : ends[0]]
        return b"".join(data[start:end] for start, end in parts)


def _beginning(data: Buffer, fragment: tuple[int, int]) -> bytes:
    start, end = fragment
    return bytes(data[start : min(start + BEGINNING, end)])


def _items(data: Buffer) -> tuple[bytes, list[tuple[int, int]], dict[int, int]]:
    """Return the Basic Offset Table, where each fragment's value lies, and its number by offset.

    A fragment of no bytes is none; its offset is that of the next.
    """
    items: list[tuple[int, int]] = []
    at = 0
    while at + 8 <= len(data):
        group, number, length = struct.unpack("<HHL", data[at : at + 8])
        tag, start = group << 16 | number, at + 8
        if tag == SEQUENCE_END:
            break
        at = start + length
        if tag != ITEM or at > len(data):
            raise ValueError("the pixel data are no sequence of fragments")
        items.append((start, at))
    fragments: list[tuple[int, int]] = []
    number_at: dict[int, int] = {}
    for start, end in items[1:]:
        number_at[start - items[1][0]] = len(fragments)
        if end > start:
            fragments.append((start, end))
    if not fragments:
        raise ValueError("there is no fragment")
    first, last = items[0]
    return data[first:last], fragments, number_at


def _starts(number_at: dict[int, int], frames: int, table: bytes, extended: bytes) -> list[int]:
    """Return the number of each frame's first fragment by an offset table; [] where it is none."""
    for raw, kind in ((extended, "Q"), (table, "L")):
        size = struct.calcsize(f"<{kind}")
        if len(raw) < size * frames:
            continue
        offsets = struct.unpack_from(f"<{frames}{kind}", raw)
        starts = [number_at.get(offset, -1) for offset in offsets]
        if starts[0] == 0 and all(a < b for a, b in pairwise(starts)):
            return starts
    return []


def _by_end_of_image(data: Buffer, fragments: Sequence[tuple[int, int]], syntax: str) -> list[int]:
    """Start a new frame after each fragment that ends an image; one pad byte may follow its end."""
    if syntax in WHOLE_CELLS:
        return []
    ends = [number for number, (_, end) in enumerate(fragments) if _ends_image(data, end)]
    is_whole = bool(ends) and ends[-1] == len(fragments) - 1
    return [0, *(number + 1 for number in ends[:-1])] if is_whole else []


def _ends_image(data: Buffer, end: int) -> bool:
    return data[end - 2 : end] == END_OF_IMAGE or data[end - 3 : end - 1] == END_OF_IMAGE
