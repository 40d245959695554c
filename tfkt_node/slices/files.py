"""Open DICOM files that may hold anything: data sets out, within limits, or SetAside.

Large pixel data stay in the file.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset as decode_elements
from pydicom.filereader import read_file_meta_info, read_partial

from tfkt_node.file_bytes import Buffer, FileBytes
from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices.attributes import foreign_errors_as
from tfkt_node.slices.structure import (
    DEFAULT_LIMITS,
    EXPLICIT_BE,
    EXPLICIT_LE,
    PixelElement,
    file_meta_end,
    look_over,
)

DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
"""Syntaxes whose data set is deflated as a whole: plain, and JPIP referenced."""

FIRST_PIXEL_TAG, LAST_TABLE, LAST_PIXEL_TAG = 0x7FE00001, 0x7FE00003, 0x7FE00010
"""Extended Offset Table, the last that is about it, and Pixel Data."""

LARGE_BYTES = 32 << 20
"""Pixel data up to this are read whole: single slices."""


class PixelsInFile(NamedTuple):
    """Where the value of Pixel Data lies in a file."""

    path: Path
    start: int
    end: int


def pixels_in_file(ds: Dataset) -> PixelsInFile | None:
    """Say where the pixel data of a data set were left; None where it holds them, or has none."""
    where: PixelsInFile | None = getattr(ds, "left_in_file", None)
    return where


def read_dataset(path: Path, *, pixels: bool = False, limits: Limits = DEFAULT_LIMITS) -> Dataset:
    """Read a Part 10 file, without its pixel data unless asked for.

    Large pixel data stay in the file, a frame at a time is read of them later: `pixels_in_file`.
    Raises SetAside: FILE_MISSING; UNREADABLE where the bytes are no sound data set, or hold more
    than the limits; UNDECODABLE where the pixel data break off. Other errors of the file system
    pass through: they say nothing about the file.
    """
    with foreign_errors_as(Reason.UNREADABLE, "not a sound DICOM file"):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise SetAside(Reason.FILE_MISSING) from None
        with file:
            data = FileBytes(file, 0, os.fstat(file.fileno()).st_size)
            start, syntax = file_meta_end(data)
            if syntax in DEFLATED:
                inflated = _inflated(data[start:], limits)
                found = _check_structure(inflated, 0, EXPLICIT_LE, limits)
                whole = BytesIO(inflated)
                ds = decode_elements(whole, False, True, stop_when=_stop(pixels))
                _add_what_follows(ds, whole, found)
                ds.file_meta = read_file_meta_info(path)
            else:
                found = _check_structure(data, start, syntax, limits)
                stays = pixels and syntax != EXPLICIT_BE and _is_large(found)
                ds = read_partial(file, stop_when=_stop(pixels, stays))
                _add_what_follows(ds, file, found)
                if found is not None and stays:
                    ds.left_in_file = PixelsInFile(path, found.start, found.end)
    # pydicom logs and returns an empty data set where a closing delimiter is missing.
    if len(ds) == 0:
        raise SetAside(Reason.UNREADABLE, "the data set breaks off before its first element")
    return ds


def _is_large(found: PixelElement | None) -> bool:
    is_plain = found is not None and found.tag == LAST_PIXEL_TAG
    return found is not None and is_plain and found.end - found.start > LARGE_BYTES


def _stop(pixels: bool, stays: bool = False) -> Callable[[int, str | None, int], bool]:
    """Tell where to stop reading: at the pixel data, or behind them, where junk may follow."""
    is_behind = False

    def stop(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal is_behind
        is_pixels = FIRST_PIXEL_TAG <= tag <= LAST_PIXEL_TAG
        if not pixels or (stays and tag > LAST_TABLE):
            return is_pixels
        stops = is_behind and not is_pixels
        is_behind = is_pixels
        return stops

    return stop


def _add_what_follows(ds: Dataset, file: BinaryIO, found: PixelElement | None) -> None:
    """Read on behind the pixel data where attributes of the image stand there, out of order."""
    if found is not None and found.is_followed:
        file.seek(found.end + (0 if found.has_length else 8))
        ds.update(decode_elements(file, *ds.original_encoding, stop_when=_stop(False)))


def _inflated(deflated: bytes, limits: Limits) -> bytes:
    """Inflate up to the limit, and no further: a small file may hold a thousand times its size."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, limits.inflated_mb << 20)
    if inflater.unconsumed_tail:
        raise SetAside(
            Reason.UNREADABLE,
            f"inflates to more than {limits.inflated_mb} MB (limits.inflated_mb)",
        )
    if not inflater.eof:
        raise SetAside(Reason.UNREADABLE, "the deflated data set breaks off")
    return inflated


def _check_structure(data: Buffer, start: int, syntax: str, limits: Limits) -> PixelElement | None:
    """Raise SetAside for what the library would pass over; say where the pixel data are."""
    found = look_over(data, start, big_endian=syntax == EXPLICIT_BE, limits=limits)
    if found is not None and not found.is_whole:
        there = len(data) - found.start
        said = f" of {found.end - found.start}" if found.has_length else ""
        raise SetAside(Reason.UNDECODABLE, f"the pixel data break off after {there}{said} bytes")
    return found
