"""Decode one compressed frame to stored values, with libraries of permissive licences only.

pydicom has no permissive plug-in for JPEG lossless (57, 70) and JPEG extended (51), none at all
for the retired 53 and 55, and does not know JPEG XL; so the libraries are called directly, in one
table, and each stream's own header is compared with the attributes before memory is taken for it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

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

END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN = b"\xff\xda"


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a JPEG, JPEG-LS, JPEG 2000 or HTJ2K stream says of itself. bits: of each sample."""

    rows: int
    columns: int
    components: int
    bits: int


def _jpeg(frame: bytes, _pixels: int, _bits: int) -> IntArray:
    import imagecodecs

    # The library fills what is missing with grey, without an error.
    if END_OF_IMAGE not in frame[frame.rfind(START_OF_SCAN) :]:
        raise ValueError("the stream breaks off")
    return imagecodecs.jpeg_decode(frame)


def _jpeg_lossless(frame: bytes, _pixels: int, _bits: int) -> IntArray:
    import imagecodecs

    return imagecodecs.jpegsof3_decode(frame)


def _jpeg_xl(frame: bytes, _pixels: int, _bits: int) -> IntArray:
    import imagecodecs

    return imagecodecs.jpegxl_decode(frame)


def _jpeg_ls(frame: bytes, _pixels: int, _bits: int) -> IntArray:
    import jpeg_ls

    stored: IntArray = jpeg_ls.decode(np.frombuffer(frame, dtype=np.uint8))
    return stored


def _jpeg_2000(frame: bytes, _pixels: int, _bits: int) -> IntArray:
    import openjpeg

    stored: IntArray = openjpeg.decode(frame)
    return stored


def _rle(frame: bytes, pixels: int, bits_allocated: int) -> IntArray:
    """Decode DICOM's RLE (PS3.5 annex G): one PackBits segment a byte, the highest byte first."""
    import imagecodecs

    count, *offsets = struct.unpack_from("<16L", frame)
    if count != bits_allocated // 8:
        raise ValueError("the number of segments is not that of the bytes of a pixel")
    cells = np.empty((pixels, count), dtype=np.uint8)
    for number, (start, end) in enumerate(pairwise([*offsets[:count], len(frame)])):
        plane = imagecodecs.packbits_decode(frame[start:end])
        if len(plane) != pixels:
            raise ValueError("a segment has more or fewer bytes than the frame has pixels")
        cells[:, count - 1 - number] = np.frombuffer(plane, dtype=np.uint8)
    return cells.view(f"<u{count}")


def _deflated(frame: bytes, pixels: int, bits_allocated: int) -> IntArray:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    native = inflater.decompress(frame, pixels * bits_allocated // 8 + 2)  # and no bomb further
    return _native(native, pixels, bits_allocated)


def _native(frame: bytes, pixels: int, bits_allocated: int) -> IntArray:
    length = pixels * bits_allocated // 8
    if len(frame) not in (length, length + length % 2):
        raise ValueError("the frame has another length than the attributes say")
    return np.frombuffer(frame, dtype=f"<u{bits_allocated // 8}", count=pixels)


Decode = Callable[[bytes, int, int], IntArray]

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
"""Syntaxes that keep every value; JPEG 2000 and HTJ2K without that name may or may not."""

WHOLE_CELLS = frozenset({RLE_LOSSLESS, DEFLATED_FRAME, ENCAPSULATED_NATIVE})
"""Syntaxes that keep the pixel cells, unused bits included, as the native ones do; the others hold
samples of a number of bits of their own."""

SCALED = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_PROGRESSIVE, JPEG_SPECTRAL, JPEG_XL_OF_JPEG})
"""Syntaxes of 8 or 12 bits and nothing between: wider values can only have been scaled to them."""


def available() -> tuple[str, ...]:
    """Transfer syntaxes whose library is installed."""
    return tuple(uid for uid, (library, _) in DECODERS.items() if find_spec(library) is not None)


def decode(
    syntax: str, frame: bytes, *, rows: int, columns: int, bits_allocated: int
) -> tuple[IntArray, int]:
    """Decode one frame of a syntax in DECODERS, as the stream has it.

    Returns (rows, columns) integers, and how many bits a sample has. Raises ValueError where the
    stream is of another size than the attributes say (checked before decoding where its header
    tells) or breaks off, and whatever the library raises.
    """
    header = stream_header(frame)
    if header is not None and (header.rows, header.columns, header.components) != (
        rows,
        columns,
        1,
    ):
        raise ValueError("the compressed stream is of another size than the attributes say")
    stored = DECODERS[syntax][1](frame, rows * columns, bits_allocated)
    if stored.size != rows * columns or stored.dtype.kind not in "iu":
        raise ValueError("the decoded frame does not match the attributes")
    bits = 8 * stored.dtype.itemsize if header is None else header.bits
    return stored.reshape(rows, columns), bits


def stream_header(frame: bytes) -> StreamHeader | None:
    """Read the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K stream.

    None for other streams and for those without a frame header. Source: ISO/IEC 10918-1 B.2.2
    (frame header), 14495-1 C.2.2, 15444-1 A.5.1 (SIZ).
    """
    size = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # some senders wrap the stream in a JP2 file
    if size >= 0 and len(frame) >= size + 43:
        width, height, left, top = struct.unpack_from(">4I", frame, size + 8)
        components, depth = struct.unpack_from(">HB", frame, size + 40)
        return StreamHeader(height - top, width - left, components, (depth & 0x7F) + 1)
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, height, width, components = struct.unpack_from(">BHHB", frame, at + 4)
            return StreamHeader(height, width, components, bits)
        else:
            at += 2 + length
    return None
