"""Decode one compressed frame to stored values, with libraries of permissive licences only.

pydicom has no permissive plug-in for JPEG lossless (57, 70) and JPEG extended (51), none at all
for the retired 53 and 55, and does not know JPEG XL; so the libraries are called directly, in one
table, and each stream's own size is compared with the attributes before memory is taken for it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tfkt_node.slices.streams import (
    BREAKS_OFF,
    END_OF_IMAGE,
    check_tiles,
    jpeg_scans,
    stream_header,
)

IntArray = npt.NDArray[Any]

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_SPECTRAL = "1.2.840.10008.1.2.4.53"
JPEG_PROGRESSIVE = "1.2.840.10008.1.2.4.55"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
JPEG_XL_OF_JPEG = "1.2.840.10008.1.2.4.111"
JPEG_XL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"

NAMES = {
    JPEG_XL_LOSSLESS: "JPEG XL Lossless",
    JPEG_XL_OF_JPEG: "JPEG XL JPEG Recompression",
    JPEG_XL: "JPEG XL",
    DEFLATED_FRAME: "Deflated Image Frame Compression",
}
"""Names of the syntaxes that pydicom's dictionary lacks."""

OTHER_BITS = b"\x80" + bytes(15)
"""A one where the JPEG library makes up zeros, and enough of them for any sample."""

RLE_PADDING = 4
"""Bytes with which writers pad a segment: to even length, or to a multiple of four."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One decoded frame, as the stream has it: (rows, columns) integers, so many bits of each.

    is_lossy: the stream may be off, whatever its transfer syntax is called.
    """

    values: IntArray
    bits: int
    is_lossy: bool
    is_dct: bool


Shape = tuple[int, int]


def _jpeg(frame: bytes, shape: Shape, _bits: int) -> IntArray:
    """Decode JPEG of any process (ISO/IEC 10918-1), and see that nothing of it is missing.

    The library makes up zeros for bits that are not there, and says nothing. With other bits in
    their place the first sample made of them is another one; what is whole stays the same.
    """
    import imagecodecs

    scans = jpeg_scans(frame, *shape)
    stored: IntArray = imagecodecs.jpeg8_decode(frame)
    places = [0, *(end for scan in scans for end in scan.ends), len(frame)]
    longer = OTHER_BITS.join(frame[start:end] for start, end in pairwise(places))
    if not np.array_equal(stored, imagecodecs.jpeg8_decode(longer)):
        raise ValueError(BREAKS_OFF)
    return stored


def _jpeg_lossless(frame: bytes, shape: Shape, bits: int) -> IntArray:
    """Decode JPEG lossless, but not where the encoder's arithmetic may have overflowed.

    Predictors 5 to 7 (ISO/IEC 10918-1 H.1.2.1) reckon with differences of neighbours. Some encoders
    did so in 16 bits: where a difference needs 17, whether samples have a sign or not, nobody knows
    which arithmetic the stream is for.
    """
    stored = _jpeg(frame, shape, bits)
    if stored.dtype.itemsize == 2 and _predictor(frame, shape) >= 5:
        readings = (stored.view(dtype).astype(np.int32) for dtype in ("u2", "i2"))
        if all(_largest_step(reading) > 0x7FFF for reading in readings):
            raise ValueError("the differences of the stream overflow")
    return stored


def _largest_step(values: IntArray) -> int:
    return max(int(np.abs(np.diff(values, axis=axis)).max(initial=0)) for axis in (0, 1))


def _predictor(frame: bytes, shape: Shape) -> int:
    """Read the selection value of the scan (ISO/IEC 10918-1 B.2.3), three bytes before its bits."""
    return frame[jpeg_scans(frame, *shape)[-1].start - 3]


def _jpeg_xl(frame: bytes, shape: Shape, _bits: int) -> IntArray:
    import imagecodecs

    # The library compares the stream with an array that is there before it takes memory.
    for dtype in (np.uint16, np.uint8):
        with suppress(ValueError):
            stored: IntArray = imagecodecs.jpegxl_decode(frame, out=np.empty(shape, dtype))
            return stored
    raise ValueError("the compressed stream is of another size or kind than the attributes say")


def _jpeg_ls(frame: bytes, _shape: Shape, _bits: int) -> IntArray:
    import jpeg_ls

    if END_OF_IMAGE not in frame:  # never among its bits, and the library takes seconds to miss it
        raise ValueError(BREAKS_OFF)
    stored: IntArray = jpeg_ls.decode(np.frombuffer(frame, dtype=np.uint8))
    return stored


def _jpeg_2000(frame: bytes, _shape: Shape, _bits: int) -> IntArray:
    import openjpeg

    check_tiles(frame)
    stored: IntArray = openjpeg.decode(frame)
    return stored


def _rle(frame: bytes, shape: Shape, bits_allocated: int) -> IntArray:
    """Decode DICOM's RLE (PS3.5 annex G): one PackBits segment a byte, the highest byte first."""
    count, *offsets = struct.unpack_from("<16L", frame)
    if count != bits_allocated // 8:
        raise ValueError("the number of segments is not that of the bytes of a pixel")
    pixels = shape[0] * shape[1]
    cells = np.empty((pixels, count), dtype=np.uint8)
    for number, (start, end) in enumerate(pairwise([*offsets[:count], len(frame)])):
        cells[:, count - 1 - number] = _unpacked(frame[start:end], pixels)
    return cells.view(f"<u{count}").reshape(shape)


def _unpacked(segment: bytes, pixels: int) -> IntArray:
    """Unpack a segment until it has given so many bytes; only padding may follow (PS3.5 G.3.2)."""
    import imagecodecs

    padding = segment[-RLE_PADDING:]
    surplus = len(padding) - len(padding.rstrip(b"\0\x80"))
    for length in range(len(segment), len(segment) - surplus - 1, -1):
        # The library refuses more bytes than it was given room for, and a run without its bytes.
        with suppress(RuntimeError):
            plane = imagecodecs.packbits_decode(segment[:length], out=pixels)
            if len(plane) == pixels:
                return np.frombuffer(plane, dtype=np.uint8)
    raise ValueError("a segment has more or fewer bytes than the frame has pixels")


def _deflated(frame: bytes, shape: Shape, bits_allocated: int) -> IntArray:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    length = shape[0] * shape[1] * bits_allocated // 8
    return _native(inflater.decompress(frame, length + 2), shape, bits_allocated)  # no bomb further


def _native(frame: bytes, shape: Shape, bits_allocated: int) -> IntArray:
    length = shape[0] * shape[1] * bits_allocated // 8
    if len(frame) not in (length, length + length % 2):
        raise ValueError("the frame has another length than the attributes say")
    cells = np.frombuffer(frame[:length], dtype=f"<u{bits_allocated // 8}")
    return cells.reshape(shape)


Decode = Callable[[bytes, Shape, int], IntArray]

DECODERS: dict[str, tuple[str, Decode]] = {
    JPEG_2000_LOSSLESS: ("openjpeg", _jpeg_2000),
    HTJ2K_LOSSLESS_RPCL: ("openjpeg", _jpeg_2000),
    HTJ2K_LOSSLESS: ("openjpeg", _jpeg_2000),
    JPEG_LS_LOSSLESS: ("jpeg_ls", _jpeg_ls),
    JPEG_LOSSLESS_SV1: ("imagecodecs", _jpeg_lossless),
    JPEG_LOSSLESS: ("imagecodecs", _jpeg_lossless),
    RLE_LOSSLESS: ("imagecodecs", _rle),
    JPEG_XL_LOSSLESS: ("imagecodecs", _jpeg_xl),
    DEFLATED_FRAME: ("zlib", _deflated),
    ENCAPSULATED_NATIVE: ("numpy", _native),
    JPEG_2000: ("openjpeg", _jpeg_2000),
    HTJ2K: ("openjpeg", _jpeg_2000),
    JPEG_LS_NEAR_LOSSLESS: ("jpeg_ls", _jpeg_ls),
    JPEG_EXTENDED: ("imagecodecs", _jpeg),
    JPEG_BASELINE: ("imagecodecs", _jpeg),
    JPEG_PROGRESSIVE: ("imagecodecs", _jpeg),
    JPEG_SPECTRAL: ("imagecodecs", _jpeg),
    JPEG_XL_OF_JPEG: ("imagecodecs", _jpeg_xl),
    JPEG_XL: ("imagecodecs", _jpeg_xl),
}
"""Transfer syntax -> (library, decoder), in the order that reception prefers."""

LOSSLESS = frozenset(
    {
        JPEG_2000_LOSSLESS,
        HTJ2K_LOSSLESS_RPCL,
        HTJ2K_LOSSLESS,
        JPEG_LS_LOSSLESS,
        JPEG_LOSSLESS_SV1,
        JPEG_LOSSLESS,
        RLE_LOSSLESS,
        JPEG_XL_LOSSLESS,
        DEFLATED_FRAME,
        ENCAPSULATED_NATIVE,
    }
)
"""Syntaxes that keep every value by their name; their streams may be coded otherwise all the same,
and those of JPEG 2000 and HTJ2K without that name may keep it."""

WHOLE_CELLS = frozenset({RLE_LOSSLESS, DEFLATED_FRAME, ENCAPSULATED_NATIVE})
"""Syntaxes that keep the pixel cells, unused bits included, as the native ones do; the others hold
samples of a number of bits of their own."""

JPEG_XLS = frozenset({JPEG_XL_LOSSLESS, JPEG_XL_OF_JPEG, JPEG_XL})
"""Syntaxes whose streams do not begin with a header of whole bytes."""


@cache
def available() -> tuple[str, ...]:
    """Transfer syntaxes whose library is installed."""
    return tuple(uid for uid, (library, _) in DECODERS.items() if find_spec(library) is not None)


def decode(syntax: str, frame: bytes, *, rows: int, columns: int, bits_allocated: int) -> Samples:
    """Decode one frame of a syntax in DECODERS.

    Raises ValueError where the stream is of another size than the attributes say (checked before
    memory is taken) or breaks off, and whatever the library raises.
    """
    header = None if syntax in WHOLE_CELLS else stream_header(frame)
    if header is None and syntax not in WHOLE_CELLS | JPEG_XLS:
        raise ValueError("the compressed stream has no header")
    if header is not None and (header.rows, header.columns, header.components) != (
        rows,
        columns,
        1,
    ):
        raise ValueError("the compressed stream is of another size than the attributes say")
    values = DECODERS[syntax][1](frame, (rows, columns), bits_allocated)
    if values.size != rows * columns or values.shape[:2] != (rows, columns):
        raise ValueError("the decoded frame is of another size than the attributes say")
    if values.dtype.kind not in "iu":
        raise ValueError("the decoded frame holds no whole numbers")
    values = values.reshape(rows, columns)
    if header is None:  # JPEG XL tells nobody whether it has lost anything
        return Samples(values, 8 * values.dtype.itemsize, True, syntax == JPEG_XL_OF_JPEG)
    return Samples(values, header.bits, header.is_lossy, header.is_dct)
