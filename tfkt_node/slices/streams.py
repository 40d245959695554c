"""Read what a compressed stream says of itself, and whether all of it is there.

The libraries do not tell: they say nothing of loss, and fill what is missing with grey or zeros.
Sources: ISO/IEC 10918-1 annex B (JPEG), 14495-1 annex C (JPEG-LS), 15444-1 annexes A and I
(JPEG 2000, and HTJ2K, which is framed like it).
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

START_OF_IMAGE = b"\xff\xd8"
END_OF_IMAGE = b"\xff\xd9"
START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
JP2_SIGNATURE = b"\0\0\0\x0cjP  "

LOSSLESS_FRAME, JPEG_LS_FRAME, SCAN, END, INTERVAL = 0xC3, 0xF7, 0xDA, 0xD9, 0xDD
NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Markers of JPEG in the midst of those that begin a frame."""

RESTARTS = range(0xD0, 0xD8)

FILLED = re.compile(rb"\xff+[^\xff]?")
"""FF, or a run of them as fill bytes, and what follows. A run is passed once: tried from each FF of
it, a megabyte would take hours."""

CODING, CODING_OF_COMPONENT, TILE_PART = 0xFF52, 0xFF53, 0xFF90
SHORTEST_TILE_PART = 14

BREAKS_OFF = "the stream breaks off"


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a JPEG, JPEG-LS, JPEG 2000 or HTJ2K stream says of itself. bits: of each sample.

    is_lossy: how it is coded, whatever its transfer syntax is called. is_dct: JPEG with loss, which
    has 8 or 12 bits and nothing between: wider values can only have been scaled to them.
    """

    rows: int
    columns: int
    components: int
    bits: int
    is_lossy: bool = False
    is_dct: bool = False


class Scan(NamedTuple):
    """Where the bits of a JPEG scan lie. ends: before each restart marker, and of all of them."""

    start: int
    ends: list[int]


def stream_header(frame: bytes) -> StreamHeader | None:
    """Read the header of a stream; None for other streams and for those without one."""
    if not frame.startswith(START_OF_IMAGE):
        return _jpeg_2000_header(_codestream(frame))
    found: StreamHeader | None = None
    kind, marker, end = 0, 0, 2
    with suppress(ValueError):  # it breaks off before its bits
        while marker not in (SCAN, END):
            marker, start, end = _segment(frame, end)
            if found is None and _begins_frame(marker) and len(frame) >= start + 6:
                bits, rows, columns, components = struct.unpack_from(">BHHB", frame, start)
                is_dct = marker not in (LOSSLESS_FRAME, JPEG_LS_FRAME)
                found, kind = StreamHeader(rows, columns, components, bits, is_dct, is_dct), marker
    if found is not None and kind == JPEG_LS_FRAME and marker == SCAN:
        return replace(found, is_lossy=frame[end - 3] > 0)  # NEAR
    return found


# --------------------------------------------------------------------------- JPEG


def jpeg_scans(frame: bytes, rows: int, columns: int) -> list[Scan]:
    """Say where the bits of each scan lie, of a JPEG stream of one component.

    Raises ValueError where the stream has no end, and where a restart marker is not there or not
    the next one: the library goes on behind it, and closes the ranks.
    """
    found: list[Scan] = []
    side, interval, marker, end = 8, 0, 0, 2
    while marker != END:
        marker, start, end = _segment(frame, end)
        if _begins_frame(marker):
            side = 1 if marker == LOSSLESS_FRAME else 8  # samples, or blocks of 8 x 8
        elif marker == INTERVAL:
            interval = int.from_bytes(frame[start : start + 2], "big")
        elif marker == SCAN:
            units = ceil(rows / side) * ceil(columns / side)
            intervals = ceil(units / interval) if interval else 1
            scan, restarts = _scan(frame, end)
            if len(scan.ends) != intervals or restarts != [n % 8 for n in range(intervals - 1)]:
                raise ValueError("a part of the stream between restart markers is not there")
            found.append(scan)
            end = scan.ends[-1]
    if not found:
        raise ValueError(BREAKS_OFF)
    return found


def _scan(frame: bytes, start: int) -> tuple[Scan, list[int]]:
    """Find where the bits of a scan end: before each restart marker, with its number, and others.

    Raises ValueError where no marker ends them.
    """
    ends: list[int] = []
    restarts: list[int] = []
    for found in FILLED.finditer(frame, start):
        marker = found[0][-1]
        if marker == 0x00:  # a byte FF of the bits
            continue
        ends.append(found.start())
        if marker in RESTARTS:
            restarts.append(marker - RESTARTS[0])
        elif marker != 0xFF:  # else nothing follows
            return Scan(start, ends), restarts
    raise ValueError(BREAKS_OFF)


def _begins_frame(marker: int) -> bool:
    return marker == JPEG_LS_FRAME or (0xC0 <= marker <= 0xCF and marker not in NO_FRAME)


def _segment(frame: bytes, at: int) -> tuple[int, int, int]:
    """Return marker, start and end of the next segment; ValueError where there is none.

    Fill bytes and stray ones between segments are passed over, as the library does.
    """
    while 0 <= (at := frame.find(b"\xff", at)) < len(frame) - 1:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker not in (0x00, 0xFF):  # neither begins a segment
            return marker, at + 4, min(at + 2 + length, len(frame))
        at += 1
    raise ValueError(BREAKS_OFF)


# --------------------------------------------------------------------------- JPEG 2000


def check_tiles(frame: bytes) -> None:
    """Raise ValueError where a tile of a JPEG 2000 stream is not there, or not to its end.

    The library says nothing of it, and leaves zeros in its place.
    """
    stream = _codestream(frame)
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", stream, 8)
    tiles = ceil((right - left) / width) * ceil((bottom - top) / height)
    found: Counter[int] = Counter()
    expected: dict[int, int] = {}
    at = [at for _, at in _main_header(stream)][-1]
    while at + SHORTEST_TILE_PART <= len(stream) and stream[at : at + 2] == b"\xff\x90":
        tile, length, part, parts = struct.unpack_from(">HIBB", stream, at + 4)
        if part != found[tile]:
            raise ValueError(BREAKS_OFF)
        found[tile] += 1
        expected[tile] = max(parts, expected.get(tile, 1))  # 0 where it is not told
        at = at + max(length, SHORTEST_TILE_PART) if length else len(stream)
    has_end = stream.startswith(END_OF_IMAGE, at) or stream.rstrip(b"\0\xff").endswith(END_OF_IMAGE)
    is_whole = all(found[tile] >= parts for tile, parts in expected.items())
    if not (has_end and is_whole and len(found) == tiles):
        raise ValueError(BREAKS_OFF)


def _jpeg_2000_header(stream: bytes) -> StreamHeader | None:
    if len(stream) < 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
    components, depth = struct.unpack_from(">HB", stream, 40)
    # The wavelet that loses nothing is 1, the other 0; that of the component wins over the general.
    place = {CODING: 13, CODING_OF_COMPONENT: 10}
    wavelets = [
        stream[at + place[marker] : at + place[marker] + 1]
        for marker, at in _main_header(stream)
        if marker in place
    ]
    return StreamHeader(
        bottom - top, right - left, components, (depth & 0x7F) + 1, is_lossy=b"\0" in wavelets
    )


def _main_header(stream: bytes) -> Iterator[tuple[int, int]]:
    """Give marker and place of each segment, the first tile-part's the last."""
    at = 2
    while at + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, at)
        yield marker, at
        if marker == TILE_PART:
            return
        at += 2 + length


def _codestream(frame: bytes) -> bytes:
    """Return the JPEG 2000 codestream, or b'': bare, or out of the JP2 file that some send."""
    if frame.startswith(START_OF_CODESTREAM):
        return frame
    at = 0
    while frame.startswith(JP2_SIGNATURE) and at + 16 <= len(frame):
        short, kind, long = struct.unpack_from(">I4sQ", frame, at)
        if kind == b"jp2c":
            stream = frame[at + (16 if short == 1 else 8) :]
            return stream if stream.startswith(START_OF_CODESTREAM) else b""
        length = long if short == 1 else short
        at += length or len(frame)  # 0: the last box, up to the end
    return b""
