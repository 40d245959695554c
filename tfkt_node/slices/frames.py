"""Find the bytes of one frame in encapsulated pixel data (PS3.5 A.4).

Offset tables of real files are often wrong, so they are used only where nothing else tells the
frames apart, and only when they point at fragments. What stays in doubt is an error, never a guess.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO

from tfkt_node.slices.codecs import END_OF_IMAGE, WHOLE_CELLS
from tfkt_node.slices.structure import Buffer

ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD


class FileSlice:
    """Bytes of an open file between two places, read when they are asked for."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._length = end - start

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, where: slice, /) -> bytes:
        first, last, _ = where.indices(self._length)
        return os.pread(self._file.fileno(), max(0, last - first), self._start + first)


def frame_bytes(
    data: Buffer,
    index: int,
    frames: int,
    syntax: str,
    extended: bytes = b"",
) -> bytes:
    """Return the compressed stream of one frame.

    data: value of Pixel Data, item by item. index: from 0. extended: value of Extended Offset Table
    (7FE0,0001). Raises ValueError where the fragments do not tell which are the frame's.
    """
    table, fragments = _items(data)
    if frames == 1:
        parts = fragments
    elif len(fragments) == frames:
        parts = fragments[index : index + 1]
    else:
        starts = _starts(fragments, frames, table, extended) or _by_end_of_image(
            data, fragments, syntax
        )
        if len(starts) != frames:
            raise ValueError("the fragments cannot be told apart by frame")
        ends = [*starts[1:], len(fragments)]
        parts = fragments[starts[index] : ends[index]]
    return b"".join(data[start:end] for start, end in parts)


def _items(data: Buffer) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the Basic Offset Table, and where each fragment's value lies."""
    found: list[tuple[int, int]] = []
    at = 0
    while at + 8 <= len(data):
        group, number, length = struct.unpack("<HHL", data[at : at + 8])
        tag, start = group << 16 | number, at + 8
        if tag == SEQUENCE_END:
            break
        at = start + length
        if tag != ITEM or at > len(data):
            raise ValueError("the pixel data are no sequence of fragments")
        found.append((start, at))
    if len(found) < 2:
        raise ValueError("there is no fragment")
    first, *fragments = found
    return data[first[0] : first[1]], fragments


def _starts(
    fragments: Sequence[tuple[int, int]], frames: int, table: bytes, extended: bytes
) -> list[int]:
    """Return the number of each frame's first fragment by an offset table; [] where it is none."""
    number_at = {start - fragments[0][0]: number for number, (start, _) in enumerate(fragments)}
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
