"""Decode one compressed frame to stored values, with libraries of permissive licences only.

pydicom has no permissive plug-in for JPEG lossless (57, 70) and JPEG extended (51), none at all
for the retired 53 and 55, and does not know JPEG XL; so the libraries are called directly, in one
table, and each stream's own size is compared with the attributes before memory is taken for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec
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
JPEG_XL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"

NAMES = {JPEG_XL_LOSSLESS: "JPEG XL Lossless", JPEG_XL: "JPEG XL"}
"""Names of the syntaxes that pydicom's dictionary lacks."""


def _jpeg(frame: bytes, _pixels: int, _bits: int) -> IntArray:
    import imagecodecs

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
    from rle.utils import decode_frame  # type: ignore[attr-defined]

    try:
        planes = decode_frame(frame, pixels, bits_allocated, "<")
    except BaseException as error:  # of Rust: no Exception, and it cannot be imported
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("a run goes beyond the frame") from error
    return np.frombuffer(planes, dtype=f"<u{bits_allocated // 8}")


Decode = Callable[[bytes, int, int], IntArray]

DECODERS: dict[str, tuple[str, Decode]] = {
    JPEG_2000_LOSSLESS: ("openjpeg", _jpeg_2000),
    HTJ2K_LOSSLESS_RPCL: ("openjpeg", _jpeg_2000),
    HTJ2K_LOSSLESS: ("openjpeg", _jpeg_2000),
    JPEG_LS_LOSSLESS: ("jpeg_ls", _jpeg_ls),
    JPEG_LOSSLESS_SV1: ("imagecodecs", _jpeg_lossless),
    JPEG_LOSSLESS: ("imagecodecs", _jpeg_lossless),
    RLE_LOSSLESS: ("rle", _rle),
    JPEG_XL_LOSSLESS: ("imagecodecs", _jpeg_xl),
    JPEG_2000: ("openjpeg", _jpeg_2000),
    HTJ2K: ("openjpeg", _jpeg_2000),
    JPEG_LS_NEAR_LOSSLESS: ("jpeg_ls", _jpeg_ls),
    JPEG_EXTENDED: ("imagecodecs", _jpeg),
    JPEG_BASELINE: ("imagecodecs", _jpeg),
    JPEG_PROGRESSIVE: ("imagecodecs", _jpeg),
    JPEG_SPECTRAL: ("imagecodecs", _jpeg),
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
    }
)
"""Syntaxes that keep every value; JPEG 2000 and HTJ2K without that name may or may not."""


def available() -> tuple[str, ...]:
    """Transfer syntaxes whose library is installed."""
    return tuple(uid for uid, (library, _) in DECODERS.items() if find_spec(library) is not None)


def decode(syntax: str, frame: bytes, *, rows: int, columns: int, bits_allocated: int) -> IntArray:
    """Decode one frame of a syntax in DECODERS to (rows, columns) integers, as the stream has them.

    Raises ValueError where the stream is of another size than the attributes say (checked before
    decoding where its header tells), and whatever the library raises.
    """
    declared = declared_size(frame)
    if declared not in (None, (rows, columns)):
        raise ValueError("the compressed stream is of another size than Rows and Columns")
    stored = DECODERS[syntax][1](frame, rows * columns, bits_allocated)
    if stored.size != rows * columns or stored.dtype.kind not in "iu":
        raise ValueError("the decoded frame does not match the attributes")
    return stored.reshape(rows, columns)


def declared_size(frame: bytes) -> tuple[int, int] | None:
    """Read (rows, columns) from the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K stream.

    None for other streams and for headers without a size. Source: ISO/IEC 10918-1 B.2.2 (frame
    header), 14495-1 C.2.2, 15444-1 A.5.1 (SIZ).
    """
    size = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # some senders wrap the stream in a JP2 file
    if size >= 0 and len(frame) >= size + 24:
        width, height, left, top = struct.unpack_from(">4I", frame, size + 8)
        return height - top, width - left
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack_from(">2H", frame, at + 5)
            return height, width
        else:
            at += 2 + length
    return None
